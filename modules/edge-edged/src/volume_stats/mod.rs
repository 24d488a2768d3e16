//! What the volumes of the pods hold, for whoever asks the node's kubelet API.

pub(crate) mod actor;
mod book;
mod measure;
mod plan;
