//! What CloudCore's own conditions of a Node say, so that they come back when somebody else has changed them or taken them away: nothing
//! moved at the node, and SyncController has nothing to say. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use beehive::Moment;
use contract::NodeName;
use contract::synccontroller::SyncStatus;

use crate::condition::CertificateState;

/// 5 s between two looks at one Node: a node says more often that it is alive than anybody has to write it.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

struct Last {
    session: u64,
    status: SyncStatus,
    /// Until when its Node is not looked at again.
    until: Moment,
    /// The resourceVersion at which the Node was seen to say so, and what it said of the certificate.
    seen: Option<(String, Option<CertificateState>)>,
}

/// What SyncController said last of each node with a session here.
#[derive(Default)]
pub(crate) struct LastConditions(BTreeMap<NodeName, Last>);

impl LastConditions {
    /// SyncController says this of a node whose session has this number.
    pub(crate) fn said(&mut self, node: &NodeName, session: u64, status: SyncStatus) {
        let until = self.0.get(node).map(|last| last.until).unwrap_or_default();
        self.0.insert(node.clone(), Last { session, status, until, seen: None });
    }

    /// What the Node is to say, if it is to be looked at now: not while it is as it was seen last and there is nothing else to say of its
    /// `certificate`, and then not again for a while. `version` is its resourceVersion as the watch has it.
    pub(crate) fn begin_look(
        &mut self,
        node: &NodeName,
        session: u64,
        (version, certificate): (&str, Option<CertificateState>),
        now: Moment,
    ) -> Option<SyncStatus> {
        let last = self.0.get_mut(node).filter(|last| last.session == session)?;
        let is_as_seen = last.seen.as_ref().is_some_and(|seen| seen.0 == version && seen.1 == certificate);
        if now < last.until || is_as_seen {
            return None;
        }
        last.until = now + AGAIN_AFTER;
        Some(last.status.clone())
    }

    /// The Node said so at this resourceVersion.
    pub(crate) fn seen(
        &mut self,
        node: &NodeName,
        status: &SyncStatus,
        (version, certificate): (&str, Option<CertificateState>),
    ) {
        if let Some(last) = self.0.get_mut(node).filter(|last| last.status == *status) {
            last.seen = Some((version.to_owned(), certificate));
        }
    }

    /// The link of the session has ended.
    pub(crate) fn forget(&mut self, node: &NodeName, session: u64) {
        if self.0.get(node).is_some_and(|last| last.session == session) {
            self.0.remove(node);
        }
    }

    /// All links have.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::synccontroller::SyncState;

    fn status(waiting: usize) -> SyncStatus {
        let state = if waiting == 0 { SyncState::InSync } else { SyncState::Waiting };
        SyncStatus { state, waiting, oldest: None, refusal: None, last_confirmed: None, linked: true }
    }

    #[test]
    fn a_node_is_looked_at_when_it_was_written_and_every_five_seconds_at_the_most() {
        let node = NodeName::parse("edge-1").unwrap();
        let (mut last, at) = (LastConditions::default(), |seconds| Moment(Duration::from_secs(seconds)));
        assert_eq!(last.begin_look(&node, 7, ("1", None), at(0)), None, "there is nothing to say");
        last.said(&node, 7, status(1));
        assert_eq!(last.begin_look(&node, 8, ("1", None), at(1)), None, "another session's");
        assert_eq!(last.begin_look(&node, 7, ("1", None), at(1)), Some(status(1)));
        // What is said anew is no way around it.
        last.said(&node, 7, status(0));
        assert_eq!(last.begin_look(&node, 7, ("1", None), at(5)), None);
        assert_eq!(last.begin_look(&node, 7, ("1", None), at(6)), Some(status(0)));
        last.seen(&node, &status(1), ("1", None));
        assert_eq!(last.begin_look(&node, 7, ("1", None), at(12)), Some(status(0)), "what was seen is older");
        last.seen(&node, &status(0), ("1", None));
        assert_eq!(last.begin_look(&node, 7, ("1", None), at(60)), None);
        assert_eq!(last.begin_look(&node, 7, ("2", None), at(60)), Some(status(0)));
        last.forget(&node, 6);
        assert!(last.begin_look(&node, 7, ("3", None), at(70)).is_some());
        last.forget(&node, 7);
        assert_eq!(last.begin_look(&node, 7, ("4", None), at(80)), None);
    }
    #[test]
    fn a_node_is_looked_at_when_there_is_something_else_to_say_of_its_certificate() {
        let node = NodeName::parse("edge-1").unwrap();
        let (mut last, at) = (LastConditions::default(), |seconds| Moment(Duration::from_secs(seconds)));
        let state =
            |valid, second| Some(CertificateState::of(valid, jiff::Timestamp::from_second(second).unwrap()));
        let (good, late) = (state((0, 1000), 100), state((0, 1000), 960));
        last.said(&node, 7, status(0));
        assert!(last.begin_look(&node, 7, ("1", good), at(0)).is_some());
        last.seen(&node, &status(0), ("2", good));
        assert_eq!(last.begin_look(&node, 7, ("2", state((0, 1000), 200)), at(10)), None);
        assert!(last.begin_look(&node, 7, ("2", late), at(20)).is_some(), "it was not renewed in time");
        last.seen(&node, &status(0), ("3", late));
        assert!(last.begin_look(&node, 7, ("3", state((900, 1900), 970)), at(30)).is_some(), "a new one");
    }
}
