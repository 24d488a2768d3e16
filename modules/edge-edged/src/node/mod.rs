//! The node: the machine, and its Node object.

pub(crate) mod machine;
pub(crate) mod report;
pub(crate) mod status;
