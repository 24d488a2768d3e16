//! What the viewer reads.

use std::io::Write as _;
use std::time::Instant;

/// Prints lines with the time since the beginning.
pub(crate) struct Console {
    begun: Instant,
}

impl Console {
    pub(crate) fn new() -> Self {
        Console { begun: Instant::now() }
    }

    pub(crate) fn line(&self, text: &str) {
        // A viewer who closed the pipe has seen enough.
        let _ = writeln!(std::io::stdout().lock(), "{text}");
    }

    /// Something is under way.
    pub(crate) fn doing(&self, text: &str) {
        self.line(&format!("[{:6.1} s] … {text}", self.begun.elapsed().as_secs_f64()));
    }

    /// Something was seen.
    pub(crate) fn seen(&self, took: std::time::Duration, text: &str) {
        self.line(&format!(
            "[{:6.1} s] ✓ {text}  ({:.2} s)",
            self.begun.elapsed().as_secs_f64(),
            took.as_secs_f64()
        ));
    }
}
