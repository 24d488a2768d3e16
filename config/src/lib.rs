//! Every setting of both daemons: defaults, units, validation.
//!
//! Key names are KubeEdge's (`cloudcore.config.kubeedge.io`, `edgecore.config.kubeedge.io`), so that its users' files and
//! habits carry over; a key of theirs without a use here is named as such, one that nobody knows is refused by name, and all faults are told at once. The
//! annotated default files in this folder are what `--defaultconfig` prints; a test holds them to the structs.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod capacity;
pub mod cloud;
pub mod cloud_stream;
mod cures;
pub mod edge;
mod edge_file;
mod edge_page;
mod edge_text;
mod edge_update;
mod error;
mod eventbus;
mod eviction;
mod external_broker;
mod kubeedge;
mod kubeedge_paths;
mod kubelet;
mod kubelet_values;
mod load;
mod mappers;
mod own_ports;
mod registration;
mod remote;
mod reserved;
pub mod router;
mod service_bus;
mod signing_duration;
mod traces;
mod values;

pub use edge_update::{ChangedBy, EdgeUpdate, UpdateError};
pub use error::{ConfigError, Defect, FILE_MAX};
pub use eviction::{EvictionHard, EvictionSignals, Threshold};
pub use kubelet_values::{FileSize, KubeletDuration};
pub use load::{parse_host_port, yaml_document};
pub use signing_duration::SigningDuration;
pub use traces::{Collector, Tracing};
pub use values::key_parts;
