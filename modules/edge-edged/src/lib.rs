//! Runs the node's pods on a container runtime and tells how they and the node fare.
//!
//! # Owns
//! Everything in the runtime with the node's label, the pods' folders below `rootDirectory` and `podLogsDir`, and their
//! cgroups. Each pod has a worker, an actor and a child of Edged's (`edge-edged/pod-worker:namespace/name/uid`); they
//! start, stop and wait beside each other, and one that fails is restarted alone, for ever, with a back-off. Six more
//! children look after the node: `log-manager` (rotation, links in `/var/log/containers`), `image-collector` (images that
//! nothing uses), `eviction-manager` (memory, disks, inodes and processes), `static-pods` (files that describe pods),
//! `volume-stats` (what volumes hold, for whoever asks) and `node-shutdown` (the machine's end, by logind).
//! # Accepts
//! [`contract::edged::EdgedMsg`]: nudges to reconcile with the store or the runtime, what its pods' workers say of their
//! pods' ends, and its own timer.
//! # Tells
//! The outbox of the store: pod statuses, ends of pods, events, the node, with what the checks of its machine find
//! (`nodechecks`). MetaManager: that the outbox grew, that Edged makes progress, and which tokens pods need.
//! # Keeps across a restart
//! Service account tokens and what was reported of each pod, in the store. All else is there already: what should be is
//! in the store, what is is in the runtime. Containers that run are taken over without being touched, and are as started
//! and as ready as was reported of them until their probes say otherwise. What is left on
//! the disk of a pod that is gone from both is found there, and removed.
//! # Never
//! Ignores a field of a pod in silence, starts a pod whose safety it cannot give, follows a link out of a volume, changes
//! the mode or owner of an emptyDir that was made before, ends a pod for its absence from a store that has lost rows, or
//! lets the node's report or another pod wait for work whose length a container chooses.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
mod capacity;
mod dbus;
mod dependencies;
mod describe;
mod devices;
mod disk;
mod error;
mod events;
mod eviction;
mod images;
pub mod import;
mod json_error;
mod kubelet_metrics;
mod logs;
mod node;
mod plan;
mod pod;
mod prober;
mod reconcile;
mod relist;
mod runs;
mod runtime;
mod said_lately;
mod settings;
mod shutdown;
mod static_pods;
mod store;
pub mod torn_networks;
mod typed_json;
mod versions;
mod volume_stats;
mod volumes;

pub use actor::Edged;
pub use node::checks::MachineChecks;
pub use pod::worker::POD_WORKER;
pub use runs::{begin_run, end_run, is_first_of_boot};
pub use runtime::counted::CountedRuntime;
pub use settings::{EvictionRules, ImageCollection, Reserved, Settings};
