//! The last message about a device that was not taken, where no property of the device shows that. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use beehive::Moment;

use crate::plan::sentence;

/// 10 minutes: whoever sent it once, and nothing since, has other troubles by now.
const SHOWN_FOR: Duration = Duration::from_secs(600);
/// 30 s: of a message that names nothing, another one that is taken does not say that its sender has mended it. One that goes on comes
/// again within that, mostly.
const REPEATED_WITHIN: Duration = Duration::from_secs(30);

/// What a message is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum About {
    /// These properties.
    Properties(BTreeSet<String>),
    /// The device's state.
    State,
    /// Nobody knows.
    Unknown,
}

/// A message that was not taken.
#[derive(Debug)]
pub(crate) struct RefusedMessage {
    /// Whose it was, and why it was not taken.
    sentence: String,
    about: About,
    at: Moment,
    is_mended: bool,
}

impl RefusedMessage {
    /// Refused just now: `what` it is, as `a twin/update of an MQTT client`, and the reason.
    pub(crate) fn new(what: &str, reason: &str, about: About, now: Moment) -> Self {
        let sentence = sentence(&format!("{what} was not taken: {reason}"));
        RefusedMessage { sentence, about, at: now, is_mended: false }
    }

    /// A message was taken.
    pub(crate) fn other_taken(&mut self, about: &About) {
        self.is_mended |= match (&self.about, about) {
            (About::Properties(refused), About::Properties(taken)) => !refused.is_disjoint(taken),
            (About::State, About::State) | (About::Unknown, _) => true,
            (About::Properties(_) | About::State, _) => false,
        };
    }

    /// What is said of it, as long as anything is.
    pub(crate) fn said(&self, now: Moment) -> Option<&str> {
        let shown_for = match (self.is_mended, &self.about) {
            (false, _) => SHOWN_FOR,
            (true, About::Unknown) => REPEATED_WITHIN,
            (true, About::Properties(_) | About::State) => Duration::ZERO,
        };
        (now.since(self.at) < shown_for).then_some(self.sentence.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    fn of(names: &[&str]) -> About {
        About::Properties(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn refused(about: About) -> RefusedMessage {
        RefusedMessage::new("a twin/update of an MQTT client", "`level` cannot be `500`", about, at(100))
    }

    #[test]
    fn it_is_said_until_its_property_is_told_well_or_nobody_repeats_it() {
        let mut message = refused(of(&["level", "mood"]));
        let said = "a twin/update of an MQTT client was not taken: `level` cannot be `500`";
        assert_eq!(message.said(at(100)), Some(said));
        message.other_taken(&of(&["other"]));
        message.other_taken(&About::State);
        assert_eq!((message.said(at(699)), message.said(at(700))), (Some(said), None));
        message.other_taken(&of(&["level"]));
        assert_eq!(message.said(at(100)), None);
    }

    #[test]
    fn one_that_names_nothing_is_said_a_while_longer_than_others_are_taken() {
        let mut message = refused(About::Unknown);
        message.other_taken(&of(&["level"]));
        assert!(message.said(at(129)).is_some() && message.said(at(130)).is_none());
        let mut state = refused(About::State);
        state.other_taken(&of(&["level"]));
        assert!(state.said(at(101)).is_some());
        state.other_taken(&About::State);
        assert!(state.said(at(101)).is_none());
    }

    #[test]
    fn it_is_a_line_of_bounded_length() {
        let long = "x\u{1b}\n".repeat(100_000);
        let message = RefusedMessage::new("a state/update", &long, About::State, at(1));
        let said = message.said(at(1)).unwrap();
        assert!(said.len() <= 500 && !said.chars().any(char::is_control));
    }
}
