//! How far the end of a pod is.

use std::time::Duration;

use beehive::Moment;

/// After Edged's mailbox had no room.
pub(crate) const EDGED_RETRY: Duration = Duration::from_millis(50);

/// Whether the runtime has nothing of the pod any more.
#[derive(PartialEq)]
pub(crate) enum Stopped {
    NotYet,
    /// Edged has to hear of it.
    Unsaid,
    Said,
}

/// How far the end of a pod of which nothing is left is.
#[derive(PartialEq)]
pub(crate) enum End {
    NotYet,
    /// It is being reported.
    Reporting,
    /// It could not be reported: not before this time again.
    RetryAt(Moment),
    /// Edged has to hear of it.
    Reported,
    Over,
}
