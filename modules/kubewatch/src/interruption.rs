//! Whether a CloudCore sees what the API server holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the watches of a CloudCore that have broken off and have not listed again since. While there are any its caches
/// may be behind: whoever took a node over now would have it forget what is new.
#[derive(Debug, Clone, Default)]
pub struct Interruptions(Arc<AtomicUsize>);

impl Interruptions {
    /// Whether every watch is whole.
    pub fn none(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// One more, until it is dropped.
    pub(crate) fn begin(&self) -> Interruption {
        self.0.fetch_add(1, Ordering::Relaxed);
        Interruption(Arc::clone(&self.0))
    }
}

pub(crate) struct Interruption(Arc<AtomicUsize>);

impl Drop for Interruption {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
