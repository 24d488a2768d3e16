//! Who has which of the node's devices, CPUs and memory: a kubelet's container manager.
//!
//! # Owns
//! The socket `kubelet.sock` in `devicePluginPath`, at which device plugins (v1beta1) register, the watches of their devices,
//! and the socket of the same name in `podResourcesPath`, at which agents ask who has what. Each is a child:
//! `registration-socket`, `plugin-watch:resource/session`, `pod-resources-socket`.
//! # Accepts
//! [`contract::containermanager::ContainerManagerMsg`]: pods that are to have what they ask for, containers that are made, and
//! which pods are here, of Edged; what its children hear of plugins and agents; its own timer.
//! # Tells
//! Edged: which extended resources the node has, and how the devices of its pods fare. With cpuManagerPolicy static the
//! runtime: on which CPUs the containers run.
//! # Keeps across a restart
//! What each pod has, and which resources there were, in the store. A pod keeps its devices over a restart of either side
//! and a boot of the machine; its containers start again once the plugin has called these devices healthy in this boot.
//! # Never
//! Gives a device to two pods at a time, believes more of a plugin than its own resource, lets a plugin that hangs or floods
//! hold up another's, or starts a container without what its pod was given.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
mod admission;
mod client;
mod device_list;
mod error;
mod events;
mod machine;
mod memory_nodes;
mod pinning;
mod plan;
mod pod_resources;
mod registration;
mod settings;
mod shared;
mod socket;
mod store;
mod watch;

pub use actor::ContainerManager;
pub use machine::fits;
pub use settings::Settings;
pub use watch::WATCH as PLUGIN_WATCH;
