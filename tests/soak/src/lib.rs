//! `cargo soak`: faults on real parts, over and over, with everything counted.
//!
//! Real daemons, a real containerd in a network namespace of its own, and a relay of ours as the only way between node
//! and cloud. What happened is asked of others: `kubectl`, the runtime's own `ctr`, `/proc`, an MQTT client that is not
//! ours. Everything is made for the run and goes with it, also when the run fails.
//!
//! * [`attack`]: a hostile certificate does all that it can, and others hardly feel it. It needs no node and no containerd.
//! * [`reboot`]: the node loses its power while there is no cloud, and its pods come back.
//! * [`everything`]: ten pods with all that pods have, a device and a mapper, and a node that boots without its cloud.
//! * [`kill`]: the daemons are killed and the link is cut at random instants, and nothing accepted is lost.
//! * [`link_faults`]: every fault of the link that we know of, and its end.
//! * [`idle`]: what a link costs over which nothing happens, and how soon both ends notice that it is gone.
//! * [`reconnect`]: how soon a change is on the node once the link is back.
//! * [`copy`]: a copy out of a pod fills a narrow uplink, while things change.
//! * [`certificates`]: certificates of minutes are renewed for hours, the CA is replaced, and no link is lost for it.
//! * [`load`]: a thousand devices that report every second, and thirty that report twenty times a second.
//! * [`bulk`]: a thousand objects over a long way, and what a reconnect with them costs.
//! * [`rolling`]: three CloudCores are restarted in turn under five hundred pods on a hundred nodes. Its nodes are EdgeCores in this process.
//! * [`code_order`]: which code an idle node runs, as a script for the linker. No fault, and no bar.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod attack;
pub mod binaries;
pub mod bulk;
pub mod certificates;
pub mod code_order;
mod config_map_pod;
mod console;
pub mod copy;
mod delivery_check;
pub mod everything;
pub mod idle;
pub mod kill;
mod kubectl;
pub mod link_faults;
pub mod load;
mod log;
mod metrics;
mod mqtt;
mod outcome;
mod pods;
mod process;
pub mod reboot;
pub mod reconnect;
mod relay;
pub mod rolling;
mod testbed;
mod uploads;

pub use console::Console;
pub use delivery_check::{DeliveryCheck, DeliveryRule};
pub use outcome::{Outcome, Samples};
pub use testbed::{Testbed, Transports};
