//! What EdgeCore knows of its own runs: one that was ended by a fault of its own several times in a row begins with care.
//!
//! A pod may be what ends EdgeCore: by a defect, or by the memory that work for it takes. It is in the store, and would be begun
//! again at each start before the cloud can take it away. So after a few such ends nothing is begun before the cloud was heard
//! or two minutes are over, and then a few pods at a time. When that run ends, too, the next one begins with half of those that this one
//! had begun, and so on until one is left, which is begun once more by itself. If that run ends as well, it waits, is named, and is tried
//! again after a pause. What runs in the runtime runs on meanwhile. A pod that none of those runs can have begun waits for no half.
//!
//! A machine that lost its power has ended EdgeCore, too, and as often as it likes: such an end counts for nothing. It is told by
//! the kernel's boot id.

mod care;
mod hold;
mod plan;
pub(crate) mod record;
mod why;

pub(crate) use care::CarefulStart;
pub(crate) use plan::RunRecord;
pub use record::{begin_run, end_run, is_first_of_boot};
pub(crate) use why::Why;
