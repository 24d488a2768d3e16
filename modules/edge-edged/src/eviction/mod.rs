//! The node runs out of memory, disk, inodes or processes: it says so, makes room, and evicts pods, as the kubelet does.

pub(crate) mod actor;
mod limits;
pub(crate) mod measure;
pub(crate) mod plan;
pub(crate) mod pressure;
mod rank;
pub(crate) mod shortage;
pub(crate) mod signal;
