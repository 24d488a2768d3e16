//! What is decided, without effects.

pub(crate) mod allocation;
pub(crate) mod choice;
pub(crate) mod cpus;
pub(crate) mod grant;
pub(crate) mod ledger;
pub(crate) mod memory;
pub(crate) mod names;
pub(crate) mod placement;
pub(crate) mod query;
pub(crate) mod refusal;
pub(crate) mod reusable_memory;
pub(crate) mod topology;
