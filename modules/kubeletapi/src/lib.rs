//! What a kubelet speaks with plugins and agents on its node.
//!
//! The messages keep Kubernetes' names and numbers, so that its plugins and agents fit; what is not used here is left out.

pub mod methods;

/// Device plugins, v1beta1: a plugin registers, is asked for its devices and for what a container needs to use some.
pub mod deviceplugin {
    #![allow(missing_docs, clippy::all, clippy::wildcard_enum_match_arm)]
    tonic::include_proto!("v1beta1");
}

/// Pod resources, v1: agents ask who has which devices, CPUs and memory.
pub mod podresources {
    #![allow(missing_docs, clippy::all, clippy::wildcard_enum_match_arm)]
    tonic::include_proto!("v1");
}

/// Pod resources as older agents ask for them.
pub mod podresources_v1alpha1 {
    #![allow(missing_docs, clippy::all, clippy::wildcard_enum_match_arm)]
    tonic::include_proto!("v1alpha1");
}
