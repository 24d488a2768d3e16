//! Jobs on nodes (KubeEdge's `operations.kubeedge.io`): whose turn it is, and what nodes say of their parts.
//!
//! # Owns
//! The informers of the jobs, and since when each node has said nothing new of its part. They belong to the incarnation: a new one lists
//! again, and counts the time anew.
//! # Accepts
//! [`contract::cloudtaskmanager::CloudTaskMsg`]: who is linked from the hub, SyncController's word that it has begun anew, reports of
//! nodes, changes in its own informers' caches, and that a time has come.
//! # Tells
//! SyncController which jobs each node should hold: those of which a part is under way on it. The API server how far each job is, by
//! compare-and-swap of its status, and of each that nothing is done where jobs have no effect; it is asked for Nodes and the Secret of a job's registries. NodeLease is asked what sessions are worth.
//! # Keeps across a restart
//! Nothing: all of it stands in the jobs' status, which every CloudCore reads alike. The nodes keep what they have done.
//! # Never
//! Works on a job that names an edge node which is not CloudCore's (KubeEdge's, while nodes move over one by one). Begins the part of a node
//! that is linked to another CloudCore, or takes the word of a node about another one's part. Writes a status
//! over a newer one, begins more nodes than a job allows whichever CloudCore begins them, or lets a status outgrow its bound. Works on more
//! than a few jobs at once, however many there are, or asks for each Node of a large one.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
mod desired;
mod due;
mod events;
pub mod job;
mod nodes;
mod patience;
pub mod plan;
mod read_jobs;
mod reports;
mod secret;
mod watched;
mod whose;
mod writer;

pub use actor::{Dependencies, TaskManager};
