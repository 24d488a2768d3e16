//! What keeps CloudCore or its nodes from working in a cluster, looked at before anything is written: each with a name and a cure.

mod daemon_sets;
mod nodes;
mod plan;
mod ports;
mod reads;

pub(crate) use daemon_sets::Landing;
pub(crate) use plan::installed;
pub(crate) use reads::{Checked, Order, check, replicas};
