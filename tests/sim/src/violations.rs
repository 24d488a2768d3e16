//! What a run has found wrong.

use std::sync::{Arc, Mutex, PoisonError};

/// In the order of the findings.
pub(crate) type Violations = Arc<Mutex<Vec<String>>>;

/// Adds one.
pub(crate) fn note(violations: &Violations, what: String) {
    violations.lock().unwrap_or_else(PoisonError::into_inner).push(what);
}
