//! How a node stands, for people: what is shown, and when. Pure.

use std::time::Duration;

use beehive::Moment;
use contract::ObjectKey;
use contract::synccontroller::{SyncState, SyncTruth};

/// 3 s: a change that is on its way is no news.
const NEWS_AFTER: Duration = Duration::from_secs(3);
/// 10 s between two writes about one node.
pub const SHOW_EVERY: Duration = Duration::from_secs(10);
/// 5 min: the shortest time between writes that say only when the node last confirmed something, as kubelet reports a node in
/// which nothing has changed.
const REFRESH_EVERY: Duration = Duration::from_secs(300);
/// 256 characters of what a node says it refused, and nothing that a terminal would obey.
const REASON_MAX: usize = 256;

/// A point in time, for deciding and for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// On the monotonic clock: what ages are made of.
    pub moment: Moment,
    /// In seconds since 1970: what people are told, and nothing is decided by.
    pub unix: i64,
}

/// One node, for the snapshot.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct NodeView {
    /// Whether this CloudCore has a session with it.
    pub linked: bool,
    /// Whether it holds what it should, as far as it has confirmed in this session.
    pub in_sync: bool,
    /// Objects it should hold.
    pub desired: usize,
    /// Objects that it is not known to hold, or to have forgotten, as it should.
    pub waiting: usize,
    /// The one that waits longest.
    pub oldest: Option<Oldest>,
    /// When it last confirmed anything to this CloudCore, in seconds since 1970.
    pub last_confirmed: Option<i64>,
    /// Batches that it refused, since this CloudCore began.
    pub refused: u64,
    /// Why it refused the last one.
    pub last_refusal: Option<String>,
    /// Whether that is not healed yet.
    pub refusing: bool,
}

/// The object that waits longest.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Oldest {
    /// Which: `resource/namespace/name`.
    pub object: String,
    /// For how long, in seconds.
    pub seconds: u64,
}

/// What a node said of a refusal, made harmless.
pub(crate) fn harmless(reason: &str) -> String {
    reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON_MAX).collect()
}

/// The truth as far as it is news, from what waits longest and from what the node refuses.
pub(crate) fn news(
    waiting: usize,
    oldest: Option<(&ObjectKey, Stamp)>,
    refusal: Option<&str>,
    linked: bool,
    now: Stamp,
) -> Option<SyncTruth> {
    let truth = |state, oldest, refusal| {
        Some(SyncTruth { state, waiting, oldest, refusal, last_confirmed: None, linked })
    };
    let Some((key, since)) = oldest else { return truth(SyncState::InSync, None, None) };
    let oldest = Some((key.clone(), since.unix));
    match refusal {
        Some(refusal) => truth(SyncState::Refused, oldest, Some(refusal.to_owned())),
        None if now.moment.since(since.moment) >= NEWS_AFTER => truth(SyncState::Waiting, oldest, None),
        None => None,
    }
}

/// What was shown of one node, and when.
#[derive(Debug, Default)]
pub(crate) struct Board {
    shown: Option<SyncTruth>,
    at: Option<Moment>,
    is_under_way: bool,
    /// A session began while a write was under way.
    is_overtaken: bool,
}

impl Board {
    /// Whether `truth` is to be written now.
    pub(crate) fn wants(&self, truth: &SyncTruth, now: Moment) -> bool {
        let Some(shown) = &self.shown else { return self.may_write(SHOW_EVERY, now) };
        // Whether there is a link is told elsewhere.
        let lasting =
            SyncTruth { linked: truth.linked, last_confirmed: truth.last_confirmed, ..shown.clone() };
        if lasting != *truth {
            return self.may_write(SHOW_EVERY, now);
        }
        // A node that changes all the time and is always in sync.
        shown.last_confirmed != truth.last_confirmed && self.may_write(REFRESH_EVERY, now)
    }

    fn may_write(&self, pause: Duration, now: Moment) -> bool {
        !self.is_under_way && self.at.is_none_or(|at| now.since(at) >= pause)
    }

    /// Somebody else may have written meanwhile: what was shown is to be shown again.
    pub(crate) fn forget(&mut self) {
        self.shown = None;
        self.is_overtaken = self.is_under_way;
    }

    /// When something was written last: whoever waits longest comes first.
    pub(crate) fn at(&self) -> Option<Moment> {
        self.at
    }

    pub(crate) fn begin(&mut self, now: Moment) {
        self.at = Some(now);
        self.is_under_way = true;
    }

    pub(crate) fn end(&mut self, truth: SyncTruth, written: bool) {
        self.is_under_way = false;
        let is_overtaken = std::mem::take(&mut self.is_overtaken);
        if written && !is_overtaken {
            self.shown = Some(truth);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(seconds: u64) -> Stamp {
        Stamp { moment: Moment(Duration::from_secs(seconds)), unix: i64::try_from(seconds).unwrap() }
    }

    #[test]
    fn a_change_on_its_way_is_no_news_and_a_refusal_is_at_once() {
        let key = ObjectKey::new("pods", "d", "p");
        let state = |oldest, refusal, now| news(1, oldest, refusal, true, stamp(now)).map(|t| t.state);
        assert_eq!(state(None, None, 9), Some(SyncState::InSync));
        assert_eq!(state(Some((&key, stamp(7))), None, 9), None);
        assert_eq!(state(Some((&key, stamp(6))), None, 9), Some(SyncState::Waiting));
        assert_eq!(state(Some((&key, stamp(9))), Some("full"), 9), Some(SyncState::Refused));
    }

    #[test]
    fn the_board_is_written_on_a_change_and_every_ten_seconds_at_the_most() {
        let truth = |waiting, linked| SyncTruth {
            state: SyncState::Waiting,
            waiting,
            oldest: None,
            refusal: None,
            last_confirmed: Some(0),
            linked,
        };
        let mut board = Board::default();
        assert!(board.wants(&truth(1, true), stamp(0).moment));
        board.begin(stamp(0).moment);
        assert!(!board.wants(&truth(1, true), stamp(11).moment), "one write at a time");
        board.end(truth(1, true), true);
        assert!(!board.wants(&truth(1, false), stamp(11).moment), "nothing new");
        assert!(!board.wants(&truth(2, true), stamp(9).moment), "too soon");
        assert!(board.wants(&truth(2, true), stamp(10).moment));
        board.begin(stamp(10).moment);
        board.end(truth(2, true), false);
        assert!(
            !board.wants(&truth(2, true), stamp(19).moment) && board.wants(&truth(2, true), stamp(20).moment)
        );
    }

    #[test]
    fn when_a_node_last_confirmed_is_shown_every_five_minutes() {
        let at =
            |unix| SyncTruth { last_confirmed: Some(unix), ..news(0, None, None, true, stamp(0)).unwrap() };
        let mut board = Board::default();
        board.begin(stamp(0).moment);
        board.end(at(0), true);
        assert!(!board.wants(&at(200), stamp(299).moment));
        assert!(board.wants(&at(200), stamp(300).moment));
        assert!(!board.wants(&at(0), stamp(9000).moment), "nothing was confirmed since");
    }

    #[test]
    fn a_new_session_shows_everything_again() {
        let truth = |linked| SyncTruth { linked, ..news(0, None, None, true, stamp(0)).unwrap() };
        let mut board = Board::default();
        board.begin(stamp(0).moment);
        board.end(truth(true), true);
        assert!(!board.wants(&truth(true), stamp(20).moment));
        board.forget();
        assert!(board.wants(&truth(true), stamp(20).moment), "another CloudCore may have had the node");
        board.begin(stamp(20).moment);
        board.forget();
        board.end(truth(false), true);
        assert!(board.wants(&truth(true), stamp(40).moment), "what was under way was said without the link");
    }

    #[test]
    fn what_a_node_says_is_short_and_obeyed_by_no_terminal() {
        assert_eq!(harmless("a\n\u{1b}[2Jb"), "a  [2Jb");
        assert_eq!(harmless(&"ü".repeat(1000)).chars().count(), REASON_MAX);
    }
}
