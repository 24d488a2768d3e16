//! One pod: what it should be, what to do next for it, and what is told of it.

pub(crate) mod actions;
pub(crate) mod admission;
pub(crate) mod backoff;
pub(crate) mod conditions;
pub(crate) mod field_support;
pub(crate) mod inbox;
pub(crate) mod parsed_pod;
pub(crate) mod plan;
pub(crate) mod quantity;
pub(crate) mod recorder;
pub(crate) mod references;
pub(crate) mod status;
pub(crate) mod tokens;
pub(crate) mod worker;
