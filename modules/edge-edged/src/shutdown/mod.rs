//! The end of the machine: pods are ended in order before it, while systemd's logind waits.

pub(crate) mod actor;
mod logind;
pub(crate) mod plan;
