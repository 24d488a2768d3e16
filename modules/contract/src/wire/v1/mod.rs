//! Wire version 1. Frozen: no line of its golden file ever changes.
//!
//! A message is `kind u16 | body`, little-endian; the kinds of a mailbox are numbered from 1. Bodies and answers are structs
//! of this version in bincode, but for batches ([`batch`]).

pub(crate) mod batch;
pub(crate) mod calls;
pub(crate) mod certificates;
pub(crate) mod desired;
pub(crate) mod device;
pub(crate) mod edge;
pub(crate) mod objects;
pub(crate) mod reports;
pub(crate) mod router;
pub(crate) mod rule_calls;
pub(crate) mod rule_streams;
pub(crate) mod streams;
pub(crate) mod task;
pub(crate) mod telemetry;
pub(crate) mod tokens;
