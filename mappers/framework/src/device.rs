//! One device: an actor with its connection, its cycles and its reports.

mod actor;
mod asked;
mod crash_budget;
mod exchange;
mod instance;
mod property;
mod read_write;
mod recorders;
mod reporter;
mod streams;

pub(crate) use actor::{Device, DeviceMsg, ReadAnswer, policy};
pub(crate) use instance::{Description, DeviceInstance};
