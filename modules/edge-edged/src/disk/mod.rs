//! What lies on the node's disk: paths, and the one way by which files are reached.

pub(crate) mod beneath;
pub(crate) mod folders;
pub(crate) mod layout;
pub(crate) mod removal;
