//! Work that blocks its thread: what of it is under way, by where it was begun.
//!
//! A hung disk or network file system holds such work for as long as it likes, and nothing can end it but the end of the process.
//! So a daemon that stops doesn't wait for it, and says what it was.

use std::collections::BTreeMap;
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The work of an environment that blocks threads. Clones share it; may be looked at from any thread.
#[derive(Clone, Default)]
pub struct BlockingWork(Arc<Mutex<Underway>>);

#[derive(Default)]
struct Underway {
    next: u64,
    began: BTreeMap<u64, &'static Location<'static>>,
}

/// Counts as under way until it is dropped, which its thread does at its end.
pub(crate) struct Begun {
    work: BlockingWork,
    number: u64,
}

impl BlockingWork {
    /// Work begins that was asked for at `place`.
    pub(crate) fn begin(&self, place: &'static Location<'static>) -> Begun {
        let mut underway = self.underway();
        let number = underway.next;
        underway.next += 1;
        underway.began.insert(number, place);
        drop(underway);
        Begun { work: self.clone(), number }
    }

    /// Where what is under way was begun, or waits for a thread: `file:line`, once each, with how many there are.
    pub fn places(&self) -> Vec<(String, usize)> {
        let mut places: BTreeMap<(&str, u32), usize> = BTreeMap::new();
        for place in self.underway().began.values() {
            *places.entry((place.file(), place.line())).or_default() += 1;
        }
        places.into_iter().map(|((file, line), count)| (format!("{file}:{line}"), count)).collect()
    }

    fn underway(&self) -> MutexGuard<'_, Underway> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.work.underway().began.remove(&self.number);
    }
}
