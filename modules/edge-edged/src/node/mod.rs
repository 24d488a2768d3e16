//! The node: the machine, and its Node object.

mod csi_drivers;
pub(crate) mod machine;
pub(crate) mod report;
pub(crate) mod status;
