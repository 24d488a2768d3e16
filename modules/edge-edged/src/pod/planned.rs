//! What a plan comes to.

use std::time::Duration;

use beehive::Moment;

use crate::pod::action::Action;

/// What to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<Action>,
    /// When to look again although nothing happens.
    pub(crate) wake: Option<Moment>,
    /// Nothing of the pod is left and nothing is to be done.
    pub(crate) gone: bool,
    /// Containers that are being stopped, by their id, and the grace of that, which counts from the first time on.
    pub(crate) stopping: Vec<(String, Duration)>,
}

impl Plan {
    pub(crate) fn wake_at(&mut self, at: Moment) {
        self.wake = Some(self.wake.map_or(at, |old| old.min(at)));
    }
}
