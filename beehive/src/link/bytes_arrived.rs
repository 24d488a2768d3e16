//! What has come, and what the other end is to hear of it: the receiving side of a [`CongestionWindow`]. Pure.
//!
//! [`CongestionWindow`]: super::congestion_window::CongestionWindow

use crate::Moment;
use crate::link::congestion_window::{ECHO_EVERY, Stamp};

/// Bytes that came, and when.
#[derive(Default)]
pub(super) struct BytesArrived {
    total: u64,
    /// Of how many the other end has been told.
    told: u64,
    last_at: Moment,
    /// Whether the sender of what came wants to hear of it at once.
    wanted: bool,
}

impl BytesArrived {
    /// Bytes came.
    pub(super) fn came(&mut self, bytes: usize, now: Moment) {
        self.total += bytes as u64;
        self.last_at = now;
    }

    /// The sender of what came wants to hear of it at once.
    pub(super) fn wanted(&mut self) {
        self.wanted = true;
    }

    /// Whether the other end is to be told.
    pub(super) fn is_due(&self) -> bool {
        self.wanted || self.total - self.told >= ECHO_EVERY
    }

    /// How many have come in all, and when the last of them did, if the other end is to be told.
    pub(super) fn take(&mut self) -> Option<(u64, Stamp)> {
        if !self.is_due() {
            return None;
        }
        self.told = self.total;
        self.wanted = false;
        Some((self.total, Stamp::of(self.last_at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn it_tells_at_once_what_is_wanted_and_the_rest_in_portions() {
        let at = |millis| Moment(Duration::from_millis(millis));
        let mut arrived = BytesArrived::default();
        arrived.came(100, at(5));
        assert_eq!(arrived.take(), None);
        arrived.wanted();
        arrived.came(100, at(90));
        assert_eq!(arrived.take(), Some((200, Stamp(90))));
        assert_eq!(arrived.take(), None);
        arrived.came(4096, at(95));
        assert_eq!(arrived.take(), Some((4296, Stamp(95))));
    }
}
