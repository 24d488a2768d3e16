//! What the reader sees while it runs.

use std::io::Write as _;
use std::time::{Duration, Instant};

/// Prints lines with the time since the beginning.
#[derive(Debug, Clone, Copy)]
pub struct Console {
    begun: Instant,
}

impl Default for Console {
    fn default() -> Self {
        Console { begun: Instant::now() }
    }
}

impl Console {
    /// Begins to count.
    pub fn new() -> Self {
        Console::default()
    }

    /// The time since the beginning.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// A line as it is.
    pub fn line(&self, text: &str) {
        // A reader who closed the pipe has seen enough; the exit code still tells.
        let _ = writeln!(std::io::stdout().lock(), "{text}");
    }

    /// A line with its time.
    pub fn at(&self, text: &str) {
        self.line(&format!("[{:7.1} s] {text}", self.elapsed().as_secs_f64()));
    }
}
