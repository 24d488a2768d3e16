//! The node: the machine, and its Node object.

pub(crate) mod checks;
pub(crate) mod conditions;
pub(crate) mod cpu_classes;
mod csi_drivers;
pub(crate) mod enforced;
pub(crate) mod enforcement;
pub(crate) mod findings;
pub(crate) mod machine;
pub(crate) mod node_events;
pub(crate) mod report;
pub(crate) mod runtime_driver;
pub(crate) mod status;
