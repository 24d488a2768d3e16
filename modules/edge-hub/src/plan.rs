//! When to dial next. Pure.

use std::time::Duration;

/// 2 s: the pause while nothing answers; jitter makes it 1 to 2 s.
pub const SILENT_PAUSE: Duration = Duration::from_secs(2);
/// 60 s: the longest pause, however long the cloud asks for.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// 12 s: an attempt may take this long, the hello's own 10 s included.
pub const ATTEMPT_LIMIT: Duration = Duration::from_secs(12);

/// Decides pauses from what the attempts so far came to.
#[derive(Debug, Default)]
pub struct Redial {
    asked_to_wait: u32,
}

/// How long to wait before the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// Not at all.
    None,
    /// Half of this to all of this, so that a fleet does not come in step.
    Jittered(Duration),
}

impl Redial {
    /// The cloud let the node in.
    pub fn linked(&mut self) {
        self.asked_to_wait = 0;
    }

    /// An attempt failed, or a link that was up ended. Only a cloud that answers and asks to wait makes the pause grow:
    /// it doubles with every time that it asks, from what it asks for up to 60 s.
    pub fn ended(&mut self, was_up: bool, wait: Option<Duration>) -> Pause {
        match wait {
            Some(wait) => {
                let doublings = self.asked_to_wait.min(6);
                self.asked_to_wait += 1;
                Pause::Jittered((wait * 2_u32.pow(doublings)).clamp(SILENT_PAUSE, LONGEST_PAUSE))
            }
            None if was_up => Pause::None,
            None => Pause::Jittered(SILENT_PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_broke_is_dialled_at_once_and_then_every_two_seconds() {
        let mut redial = Redial::default();
        redial.linked();
        assert_eq!(redial.ended(true, None), Pause::None);
        for _ in 0..1000 {
            assert_eq!(redial.ended(false, None), Pause::Jittered(SILENT_PAUSE));
        }
    }

    #[test]
    fn the_pause_grows_only_when_the_cloud_asks() {
        let mut redial = Redial::default();
        let five = Some(Duration::from_secs(5));
        let pauses: Vec<Pause> = (0..6).map(|_| redial.ended(false, five)).collect();
        let seconds = |s| Pause::Jittered(Duration::from_secs(s));
        assert_eq!(pauses, [seconds(5), seconds(10), seconds(20), seconds(40), seconds(60), seconds(60)]);
        assert_eq!(redial.ended(false, None), Pause::Jittered(SILENT_PAUSE));
        redial.linked();
        assert_eq!(redial.ended(true, five), seconds(5));
        assert_eq!(Redial::default().ended(false, Some(Duration::ZERO)), Pause::Jittered(SILENT_PAUSE));
    }
}
