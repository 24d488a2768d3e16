//! Nodes, pods and what pods need: down to the edge, and their status up.
//!
//! # Owns
//! The informers of Nodes and pods and the watches of each Secret and config map that a pod on an edge node refers to, and what
//! was last sent of each edge node. They belong to the incarnation: a new one lists again.
//! # Accepts
//! [`contract::edgecontroller::EdgeControllerMsg`]: who is linked from the hub, SyncController's word that it has begun anew,
//! reports and token requests of nodes, CloudStream's word where a node's kubelet endpoint is, changes in its own informers' caches.
//! # Tells
//! SyncController what each node should hold, and of each session when all of it was sent; NodeLease that Edged of a node is
//! alive, and is asked what sessions are worth; the API server what nodes report, and which pods leave nodes that are cut off.
//! # Keeps across a restart
//! Nothing: it lists again, and the hub says again who is linked.
//! # Never
//! Takes a node's word about a Node that is not its own by the register, or about an object that is not bound to it, sends what no pod there needs, or
//! writes a report over a newer one. Of what a node says nothing is passed on that was not parsed, and no node keeps more here
//! than its queue and its rates allow.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
mod claim_expansion;
mod csi_node;
mod default_labels;
mod error;
mod event_reports;
mod event_writer;
mod events;
mod eviction;
mod extended_resources;
mod kubelet_endpoint;
mod last_status;
mod mirror_pods;
mod mirror_writer;
mod own_label;
pub mod plan;
mod pod_addresses;
pub mod pod_index;
mod read_of_pod;
pub mod references;
mod registration;
pub mod report_version;
mod reported_fields;
mod reported_status;
mod reports;
pub mod service_links;
mod session_lease;
mod status;
mod status_texts;
mod token_rates;
mod tokens;
mod unread_pods;
mod volume_caches;

pub use actor::{Dependencies, EdgeController};
pub use eviction::EVICTION_PROBE;
pub use pod_addresses::PodAddresses;
