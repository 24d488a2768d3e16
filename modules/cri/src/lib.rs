//! The part of CRI v1 and of containerd's events that KubeHive speaks.
