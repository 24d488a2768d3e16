//! One pod: what it should be, what to do next for it, and what is told of it.

pub(crate) mod actions;
pub(crate) mod active_time;
pub(crate) mod admission;
pub(crate) mod backoff;
pub(crate) mod conditions;
pub(crate) mod effects;
pub(crate) mod entry;
pub(crate) mod field_support;
pub(crate) mod manager;
pub(crate) mod outcomes;
pub(crate) mod parsed_pod;
pub(crate) mod plan;
pub(crate) mod quantity;
pub(crate) mod recorder;
pub(crate) mod references;
pub(crate) mod reported;
pub(crate) mod runtime_status;
pub(crate) mod status;
pub(crate) mod status_manager;
pub(crate) mod sync_state;
pub(crate) mod termination;
pub(crate) mod tokens;
pub(crate) mod worker;
