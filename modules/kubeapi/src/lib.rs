//! The Kubernetes REST rules over a Store trait.
