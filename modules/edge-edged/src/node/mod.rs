//! The node: the machine, and its Node object.

pub(crate) mod cgroup_driver;
pub(crate) mod machine;
pub(crate) mod report;
pub(crate) mod status;
