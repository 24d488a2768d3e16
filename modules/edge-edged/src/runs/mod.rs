//! What EdgeCore knows of its own runs: one that was ended by a fault of its own several times in a row begins with care.
//!
//! A pod may be what ends EdgeCore: by a defect, or by the memory that work for it takes. It is in the store, and would be begun
//! again at each start before the cloud can take it away. So after a few such ends nothing is begun before the cloud was heard
//! or two minutes are over, then a few pods at a time, and last those that were begun right before the end. What runs in the
//! runtime runs on meanwhile.
//!
//! A machine that lost its power has ended EdgeCore, too, and as often as it likes: such an end counts for nothing. It is told by
//! the kernel's boot id.

mod hold;
mod plan;
pub(crate) mod record;

pub(crate) use plan::{CarefulStart, RunRecord};
pub use record::{begin_run, end_run};
