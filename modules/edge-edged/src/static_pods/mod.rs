//! Pods that files of the node describe (`staticPodPath`), and their mirrors in the cloud.

pub(crate) mod actor;
pub(crate) mod folder;
pub(crate) mod manifest;
pub(crate) mod mirrors;
pub(crate) mod source;
mod watch;
