//! CloudCore: picks the cloud's modules, joins them and runs them.
//!
//! [`topology`] is the map: all mailboxes first, then all actors. [`CloudCore::start`] is the order in which a daemon
//! comes up: definitions, certificates, ports, the hive. The binary and the test harness use the
//! same one.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod addresses;
mod api_client;
mod api_server;
mod certificates;
mod core;
mod crds;
mod csi_socket;
mod kubelet_endpoint;
pub mod listeners;
mod metrics;
mod monitor;
mod process_metrics;
mod request_counts;
mod request_deadlines;
mod start_checks;
mod start_error;
mod start_pages;
pub mod topology;

pub use api_client::api_client;
pub use core::{ApiServer, CloudCore, Transport, identity};
pub use crds::{CrdError, apply as apply_definitions};
pub use csi_socket::{CsiSocket, CsiSocketMsg};
pub use kubelet_endpoint::KubeletEndpointError;
pub use monitor::{Monitor, MonitorError, MonitorMsg, MonitorPorts, Watched};
pub use request_counts::RequestCounts;
pub use request_deadlines::RequestDeadlines;
pub use start_error::{ApiServerError, StartError};
