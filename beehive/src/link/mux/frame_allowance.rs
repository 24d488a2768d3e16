//! How many frames without bytes the other end may send. Pure.
//!
//! A frame that carries bytes is held back by its stream's window. One that carries none is held back by nothing, and costs as much
//! to take: an end that sends them by the hundred thousand would have the other one's processor. Nobody has a reason to: they
//! answer bytes, or belong to a stream that begins or ends.

use std::time::Duration;

use crate::Moment;

/// 64: what is taken before a hello was answered, which takes three.
const BEFORE_HELLO: f64 = 64.0;
/// 32,768 at once. Twice what an end that was silent may owe: an echo and a window for every 2 KiB of what may be on its way
/// and unread (16 MiB), and the four of each stream that may be open (open, window, end, stop).
const MOST: f64 = 32_768.0;
/// 1000 a second whatever is sent: the streams of 250 calls.
const A_SECOND: f64 = 1000.0;
/// One for every 512 bytes of streams, in either direction. An echo and a window for each 2 KiB, and an echo for each 4 KiB beside,
/// are half of it.
const BYTES_FOR_ONE: f64 = 512.0;

/// What an end has left.
pub(super) struct FrameAllowance {
    left: f64,
    most: f64,
    at: Option<Moment>,
}

impl FrameAllowance {
    /// Of an end that was not yet let in, or of one that this end has chosen.
    pub(super) fn new(is_stranger: bool) -> Self {
        let most = if is_stranger { BEFORE_HELLO } else { MOST };
        FrameAllowance { left: most, most, at: None }
    }

    /// It was let in.
    pub(super) fn admitted(&mut self) {
        (self.left, self.most) = (MOST, MOST);
    }

    /// So many bytes of streams went or came.
    pub(super) fn earn(&mut self, bytes: usize) {
        self.left = (self.left + bytes as f64 / BYTES_FOR_ONE).min(self.most);
    }

    /// A frame without bytes came; whether it may.
    pub(super) fn take(&mut self, now: Moment) -> bool {
        let since = self.at.replace(now).map_or(Duration::ZERO, |at| now.since(at));
        self.left = (self.left + since.as_secs_f64() * A_SECOND).min(self.most);
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(allowance: &mut FrameAllowance, at: Duration) -> usize {
        (0..1_000_000).take_while(|_| allowance.take(Moment(at))).count()
    }

    #[test]
    fn it_grows_with_time_and_with_bytes_and_no_further_than_it_was() {
        let mut allowance = FrameAllowance::new(false);
        assert_eq!(taken(&mut allowance, Duration::ZERO), 32_768);
        assert_eq!(taken(&mut allowance, Duration::from_secs(2)), 2000);
        allowance.earn(1 << 20);
        assert_eq!(taken(&mut allowance, Duration::from_secs(2)), 2048);
        allowance.earn(1 << 30);
        assert_eq!(taken(&mut allowance, Duration::from_secs(9999)), 32_768);
    }

    #[test]
    fn who_was_not_let_in_has_little() {
        let mut allowance = FrameAllowance::new(true);
        assert_eq!(taken(&mut allowance, Duration::ZERO), 64);
        assert_eq!(taken(&mut allowance, Duration::from_secs(99)), 64);
        allowance.admitted();
        assert_eq!(taken(&mut allowance, Duration::from_secs(99)), 32_768);
    }
}
