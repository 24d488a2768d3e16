//! Containers' logs.

pub(crate) mod changes;
pub(crate) mod copy;
pub(crate) mod instance;
pub(crate) mod line;
pub(crate) mod options;
pub(crate) mod running;
pub(crate) mod tail;
