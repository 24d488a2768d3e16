//! Everything that happens in a run, as one number: two tellings of a seed are the same when their numbers are.

use std::fmt::{self, Arguments, Write};
use std::sync::{Arc, Mutex, PoisonError};

use beehive::Clock;

/// FNV-1a, 64 bit.
const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// What was noted so far.
#[derive(Clone)]
pub(crate) struct Trace(Arc<Mutex<Inner>>);

struct Inner {
    clock: Arc<dyn Clock>,
    sum: Fnv1a,
    events: u64,
    /// Kept when somebody wants to read them.
    lines: Option<Vec<String>>,
}

struct Fnv1a(u64);

impl Write for Fnv1a {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(PRIME);
        }
        Ok(())
    }
}

/// What a trace came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// A sum over every event: when, where and what.
    pub sum: u64,
    /// How many events there were.
    pub events: u64,
}

impl Trace {
    pub(crate) fn new(clock: Arc<dyn Clock>, keep: bool) -> Trace {
        let lines = keep.then(Vec::new);
        Trace(Arc::new(Mutex::new(Inner { clock, sum: Fnv1a(BASIS), events: 0, lines })))
    }

    /// Notes that `what` happened at `place` now.
    pub(crate) fn note(&self, place: &str, what: Arguments<'_>) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { clock, sum, events, lines } = &mut *inner;
        let at = clock.now().0.as_nanos();
        *events += 1;
        match lines {
            None => writeln!(sum, "{at} {place} {what}"),
            Some(lines) => {
                let line = format!("{at} {place} {what}");
                let written = writeln!(sum, "{line}");
                lines.push(line);
                written
            }
        }
        .expect("a sum takes everything");
    }

    /// What it came to, and its lines if they were kept.
    pub(crate) fn end(&self) -> (Fingerprint, Vec<String>) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fingerprint = Fingerprint { sum: inner.sum.0, events: inner.events };
        (fingerprint, inner.lines.take().unwrap_or_default())
    }
}
