//! Whether a node holds what it should, for people: what is written to its Node, and when. Pure.

use std::time::Duration;

use beehive::{Moment, Sample};
use contract::ObjectKey;
use contract::synccontroller::{SyncState, SyncStatus};

/// 3 s: a change that is on its way is not written.
const LATE_AFTER: Duration = Duration::from_secs(3);
/// 10 s between two writes about one node.
pub const WRITE_EVERY: Duration = Duration::from_secs(10);
/// 3 s between two writes of which the later one says that a link has come or gone: that is what somebody waits for who looks.
const LINK_EVERY: Duration = Duration::from_secs(3);
/// 5 min: the shortest time between writes that say only when the node last confirmed something, as kubelet reports a node in
/// which nothing has changed.
const REFRESH_EVERY: Duration = Duration::from_secs(300);
/// 256 characters of what a node says it refused, and nothing that a terminal would obey.
const REASON_MAX: usize = 256;

/// A point in time, for deciding and for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp {
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
    /// Whether there is a Node of its name: each node should hold its own.
    pub registered: bool,
    /// Whether it has confirmed all that it should hold. A cut does not undo that.
    pub in_sync: bool,
    /// Objects it should hold.
    pub desired: usize,
    /// Objects that it is not known to hold, or to have forgotten, as it should.
    pub waiting: usize,
    /// The one that waits longest.
    pub oldest: Option<OldestWaiting>,
    /// When it last confirmed anything to this CloudCore, in seconds since 1970.
    pub last_confirmed: Option<i64>,
    /// Batches that it refused, since this CloudCore began.
    pub refused: u64,
    /// Why it refused the last one.
    pub last_refusal: Option<String>,
    /// Whether that is not healed yet.
    pub refusing: bool,
}

impl NodeView {
    /// The gauges of this node. One that was never here has none, another CloudCore knows of it; nor one whose Node is deleted, though
    /// Devices and rules may still name it: it will never hold what waits for it.
    pub(crate) fn samples(&self, node: &str) -> Vec<Sample> {
        if !self.linked && (self.last_confirmed.is_none() || !self.registered) {
            return Vec::new();
        }
        // Counts and seconds are far below 2^53.
        let number = |count: u64| count as f64;
        let sample = |name, value| Sample::new(name, value).of("node", node);
        let mut samples = vec![
            sample("kubehive_node_linked", f64::from(u8::from(self.linked))),
            sample("kubehive_node_in_sync", f64::from(u8::from(self.in_sync))),
            sample("kubehive_node_objects_desired", number(self.desired as u64)),
            sample("kubehive_node_objects_waiting", number(self.waiting as u64)),
            sample("kubehive_node_refused_batches_total", number(self.refused)),
        ];
        if let Some(oldest) = &self.oldest {
            let waits = sample("kubehive_node_oldest_waiting_seconds", number(oldest.seconds));
            samples.push(waits.of("object", oldest.object.clone()));
        }
        if let Some(unix) = self.last_confirmed {
            samples.push(sample("kubehive_node_last_confirmed_timestamp_seconds", unix as f64));
        }
        samples
    }
}

/// The object that waits longest.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct OldestWaiting {
    /// Which: `resource/[namespace/]name`.
    pub object: String,
    /// For how long, in seconds.
    pub seconds: u64,
}

/// What a node said of a refusal, made harmless.
pub(crate) fn printable(reason: &str) -> String {
    reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON_MAX).collect()
}

/// The status as far as it is to be written, from what waits longest and from what the node refuses.
pub(crate) fn status_of(
    waiting: usize,
    oldest: Option<(&ObjectKey, Timestamp)>,
    refusal: Option<&str>,
    linked: bool,
    now: Timestamp,
) -> Option<SyncStatus> {
    let status = |state, oldest, refusal| {
        Some(SyncStatus { state, waiting, oldest, refusal, last_confirmed: None, linked })
    };
    let Some((key, since)) = oldest else { return status(SyncState::InSync, None, None) };
    let oldest = Some((key.clone(), since.unix));
    match refusal {
        Some(refusal) => status(SyncState::Refused, oldest, Some(refusal.to_owned())),
        None if now.moment.since(since.moment) >= LATE_AFTER => status(SyncState::Waiting, oldest, None),
        None => None,
    }
}

/// What was last written of one node, and when.
#[derive(Debug, Default)]
pub(crate) struct PublishedStatus {
    written: Option<SyncStatus>,
    at: Option<Moment>,
    is_under_way: bool,
    /// A session began while a write was under way.
    is_overtaken: bool,
    /// A session began since the last write began.
    is_new_session: bool,
    /// Whether there was a link by the last write, be it done or not.
    tried_linked: Option<bool>,
}

impl PublishedStatus {
    /// Whether `status` is to be written now.
    pub(crate) fn wants(&self, status: &SyncStatus, now: Moment) -> bool {
        // What failed waits as long as all else.
        let is_of_link =
            self.is_new_session || self.tried_linked.is_some_and(|linked| linked != status.linked);
        let every = if is_of_link { LINK_EVERY } else { WRITE_EVERY };
        let Some(written) = &self.written else { return self.may_write(every, now) };
        // That the link is down, or up again, is shown, too.
        let lasting = SyncStatus { last_confirmed: status.last_confirmed, ..written.clone() };
        if lasting != *status {
            return self.may_write(every, now);
        }
        // A node that changes all the time and is always in sync.
        written.last_confirmed != status.last_confirmed && self.may_write(REFRESH_EVERY, now)
    }

    fn may_write(&self, pause: Duration, now: Moment) -> bool {
        !self.is_under_way && self.at.is_none_or(|at| now.since(at) >= pause)
    }

    /// Somebody else may have written meanwhile: it is to be written again.
    pub(crate) fn forget(&mut self) {
        self.written = None;
        self.is_overtaken = self.is_under_way;
        self.is_new_session = true;
    }

    /// When something was written last: whoever waits longest comes first.
    pub(crate) fn at(&self) -> Option<Moment> {
        self.at
    }

    /// The status is being written.
    pub(crate) fn begin(&mut self, status: &SyncStatus, now: Moment) {
        self.at = Some(now);
        (self.is_under_way, self.is_new_session) = (true, false);
        self.tried_linked = Some(status.linked);
    }

    pub(crate) fn end(&mut self, status: SyncStatus, is_written: bool) {
        self.is_under_way = false;
        let is_overtaken = std::mem::take(&mut self.is_overtaken);
        if is_written && !is_overtaken {
            self.written = Some(status);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp { moment: Moment(Duration::from_secs(seconds)), unix: i64::try_from(seconds).unwrap() }
    }

    #[test]
    fn a_node_that_is_deleted_has_no_gauges_though_something_waits_for_it() {
        let view = NodeView {
            linked: true,
            registered: true,
            in_sync: false,
            desired: 1,
            waiting: 1,
            oldest: Some(OldestWaiting { object: "nodes/edge-1".to_owned(), seconds: 900 }),
            last_confirmed: Some(1),
            refused: 0,
            last_refusal: None,
            refusing: false,
        };
        assert!(!view.samples("edge-1").is_empty());
        let away = NodeView { linked: false, ..view };
        assert!(!away.samples("edge-1").is_empty(), "it is cut off, and will come back");
        assert_eq!(NodeView { registered: false, ..away.clone() }.samples("edge-1").len(), 0);
        assert_eq!(NodeView { last_confirmed: None, ..away }.samples("edge-1").len(), 0);
    }

    #[test]
    fn a_change_on_its_way_is_not_written_and_a_refusal_is_at_once() {
        let key = ObjectKey::new("pods", "d", "p");
        let state = |oldest, refusal, now| status_of(1, oldest, refusal, true, at(now)).map(|t| t.state);
        assert_eq!(state(None, None, 9), Some(SyncState::InSync));
        assert_eq!(state(Some((&key, at(7))), None, 9), None);
        assert_eq!(state(Some((&key, at(6))), None, 9), Some(SyncState::Waiting));
        assert_eq!(state(Some((&key, at(9))), Some("full"), 9), Some(SyncState::Refused));
    }

    #[test]
    fn it_is_written_on_a_change_and_every_ten_seconds_at_the_most() {
        let status = |waiting, linked| SyncStatus {
            state: SyncState::Waiting,
            waiting,
            oldest: None,
            refusal: None,
            last_confirmed: Some(0),
            linked,
        };
        let mut published = PublishedStatus::default();
        assert!(published.wants(&status(1, true), at(0).moment));
        published.begin(&status(1, true), at(0).moment);
        assert!(!published.wants(&status(1, true), at(11).moment), "one write at a time");
        published.end(status(1, true), true);
        assert!(!published.wants(&status(1, true), at(11).moment), "nothing new");
        assert!(!published.wants(&status(1, false), at(2).moment));
        assert!(published.wants(&status(1, false), at(3).moment), "the link is down");
        assert!(!published.wants(&status(2, true), at(9).moment), "too soon");
        assert!(published.wants(&status(2, true), at(10).moment));
        published.begin(&status(2, true), at(10).moment);
        published.end(status(2, true), false);
        assert!(
            !published.wants(&status(2, true), at(19).moment)
                && published.wants(&status(2, true), at(20).moment)
        );
    }

    #[test]
    fn when_a_node_last_confirmed_is_shown_every_five_minutes() {
        let confirmed = |unix| SyncStatus {
            last_confirmed: Some(unix),
            ..status_of(0, None, None, true, at(0)).unwrap()
        };
        let mut published = PublishedStatus::default();
        published.begin(&confirmed(0), at(0).moment);
        published.end(confirmed(0), true);
        assert!(!published.wants(&confirmed(200), at(299).moment));
        assert!(published.wants(&confirmed(200), at(300).moment));
        assert!(!published.wants(&confirmed(0), at(9000).moment), "nothing was confirmed since");
    }

    #[test]
    fn a_new_session_writes_everything_again() {
        let status = |linked| SyncStatus { linked, ..status_of(0, None, None, true, at(0)).unwrap() };
        let mut published = PublishedStatus::default();
        published.begin(&status(true), at(0).moment);
        published.end(status(true), true);
        assert!(!published.wants(&status(true), at(20).moment));
        published.forget();
        assert!(published.wants(&status(true), at(20).moment), "another CloudCore may have had the node");
        published.begin(&status(true), at(20).moment);
        published.forget();
        published.end(status(false), true);
        assert!(!published.wants(&status(true), at(22).moment));
        assert!(
            published.wants(&status(true), at(23).moment),
            "what was under way was said without the link"
        );
        // One that is not written waits as long as all else.
        published.begin(&status(true), at(23).moment);
        published.end(status(true), false);
        assert!(
            !published.wants(&status(true), at(32).moment) && published.wants(&status(true), at(33).moment)
        );
    }

    #[test]
    fn what_a_node_says_is_short_and_obeyed_by_no_terminal() {
        assert_eq!(printable("a\n\u{1b}[2Jb"), "a  [2Jb");
        assert_eq!(printable(&"ü".repeat(1000)).chars().count(), REASON_MAX);
    }
}
