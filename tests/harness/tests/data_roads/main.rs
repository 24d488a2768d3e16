//! Rules between HTTP in the cloud and MQTT and HTTP on nodes, each of the four ways from end to end, and from one CloudCore to another's
//! node; and the rules of devices on their node.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod between;
mod device_rules;
mod fixture;
mod peers;
mod published;
mod services;
mod target;
