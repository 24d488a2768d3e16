//! The node's parts of jobs (KubeEdge's `operations.kubeedge.io`): step by step, with and without the cloud.
//!
//! # Owns
//! How far each part is.
//! # Accepts
//! [`contract::edgetaskmanager::EdgeTaskMsg`]: that jobs in the store may have changed, the ends of steps, and that a time has come.
//! # Tells
//! Edged which images to pull; MetaManager that the outbox grew; keadm to exchange edgecore or its settings, by its arguments. How far a part is goes up through the outbox, in one commit with what is
//! kept here.
//! # Keeps across a restart
//! Of each part what it began with, and what has ended, so that a restart goes on where it was; a step that was cut short is done again. Of an upgrade, and of other settings, it is kept that keadm is begun before it is; how that ends
//! stands in its journal. A part ends with the
//! job's object, which the cloud takes away when it has heard the end.
//! # Never
//! Has a setting changed that is not a job's to change. Begins a step before the end of the one before it is kept, goes on with a part whose job says something else than when it began, does anything
//! beside an exchange of edgecore, or gives anything that a job says to a shell. Where
//! `modules.taskManager.enable` is off it does nothing of any job, and says so.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
mod checks;
mod events;
mod package;
mod packages;
mod plan;
mod settings;
mod store;
mod task;
mod turns;
mod upgrade;

pub use actor::{Settings, TaskManager};
pub use upgrade::NodePrograms;
