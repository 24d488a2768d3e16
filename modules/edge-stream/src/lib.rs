//! The node's kubelet API: containers' logs, exec, attach and port-forward, statistics and metrics, with a kubelet's paths,
//! parameters, status codes and texts.
//!
//! One handler answers in two places: byte streams that CloudCore opens on the link, and HTTP for agents on the node, which get health,
//! metrics, statistics and pods alone: on loopback (`tailoredKubeletConfig.address` and `readOnlyPort`, 127.0.0.1:10350), where
//! they show the token in `modules.edgeStream.tokenFile`, and at the Unix socket `modules.edgeStream.socket`, which only the node's
//! user opens. Who has come to the socket has the node's devices, its last events and containers' logs, too, and may have pods begin again and
//! set what a device should be like (`keadm ctl`). Any user of the machine can listen at the port while the node does not; so there is a token while the port is the
//! node's own, and another one each time. CloudCore has asked who may; the node
//! decides again what there is: its own pods, and no path that is not known.
//!
//! exec, attach and port-forward pass as bytes to the runtime's streaming server on loopback, which speaks what it speaks:
//! containerd 1.6 has SPDY/3.1 and WebSocket up to v4.channel.k8s.io. So the node does not declare
//! `ExtendWebSocketsToKubelet`, and an API server translates a client's v5 to SPDY before it asks here.
//!
//! What rules bring from the cloud comes by the same streams: a publish goes to the EventBus, a call of a service on the node's
//! loopback to the ServiceBus.
//!
//! # Owns
//! The port for agents on the node and its token file; their socket; a thread on which all calls of CloudCore's run.
//! # Accepts
//! [`contract::edgestream::EdgeStreamMsg`]: byte streams of the link, each a call.
//! # Tells
//! Nobody but who called; Edged, EdgeCsi and DeviceTwin, which it asks for what calls want of pods, of volumes, of CSI drivers and of devices; the node's page;
//! EventBus and ServiceBus, what rules bring.
//! # Keeps across a restart
//! Nothing. A call ends with the incarnation that took it.
//! # Never
//! Follows a link below a folder of logs, dials a runtime that is not on loopback, holds a line or a file whole, makes an answer for
//! which the budget of all calls has no room, or does anything
//! of a call on the hive's thread.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
mod answer;
mod beneath;
mod budget;
mod call_thread;
mod disk;
mod driver_calls;
mod error;
mod events;
mod handler;
mod health;
mod http_reply;
mod link_calls;
mod local_server;
mod log;
mod method_calls;
mod node_calls;
mod node_logs;
mod page_calls;
mod pages;
mod pieces;
mod plan;
mod pod_list;
mod pods;
mod query;
mod release;
mod rule_calls;
mod rule_servers;
mod settings;
mod splice;
mod stats;
#[cfg(test)]
mod tests;
mod token;
mod upgrade;
mod zpages;

pub use actor::EdgeStream;
pub use settings::Settings;
