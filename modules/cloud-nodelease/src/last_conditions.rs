//! What CloudCore's own conditions of a Node say, so that they come back when somebody else has changed them or taken them away: nothing
//! moved at the node, and SyncController has nothing to say. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use beehive::Moment;
use contract::NodeName;
use contract::synccontroller::SyncStatus;

use crate::condition::Content;

/// 5 s between two looks at one Node: a node says more often that it is alive than anybody has to write it.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

struct Last {
    session: u64,
    status: SyncStatus,
    /// Until when its Node is not looked at again.
    until: Moment,
    /// The resourceVersion at which the Node was seen to say so, and what it said.
    seen: Option<(String, Content)>,
    /// What the Node said once CloudCore had written: if it says something else, somebody else has written.
    told: Option<Content>,
}

/// What SyncController said last of each node with a session here.
#[derive(Default)]
pub(crate) struct LastConditions(BTreeMap<NodeName, Last>);

impl LastConditions {
    /// SyncController says this of a node whose session has this number.
    pub(crate) fn said(&mut self, node: &NodeName, session: u64, status: SyncStatus) {
        let until = self.0.get(node).map(|last| last.until).unwrap_or_default();
        self.0.insert(node.clone(), Last { session, status, until, seen: None, told: None });
    }

    /// What the Node is to say by SyncController's last word, in that session.
    pub(crate) fn status(&self, node: &NodeName, session: u64) -> Option<SyncStatus> {
        self.0.get(node).filter(|last| last.session == session).map(|last| last.status.clone())
    }

    /// Whether the Node is to be looked at now: not while it is as it was seen last and there is nothing else to say than this
    /// `content`, and then not again for a while. `version` is its resourceVersion as the watch has it.
    pub(crate) fn begin_look(
        &mut self,
        node: &NodeName,
        session: u64,
        (version, content): (&str, Content),
        now: Moment,
    ) -> bool {
        let Some(last) = self.0.get_mut(node).filter(|last| last.session == session) else { return false };
        let is_as_seen = last.seen.as_ref().is_some_and(|seen| seen.0 == version && seen.1 == content);
        if now < last.until || is_as_seen {
            return false;
        }
        last.until = now + AGAIN_AFTER;
        true
    }

    /// The Node said so at this resourceVersion.
    pub(crate) fn seen(&mut self, node: &NodeName, status: &SyncStatus, version: &str, content: Content) {
        if let Some(last) = self.0.get_mut(node).filter(|last| last.status == *status) {
            last.seen = Some((version.to_owned(), content));
            last.told = Some(content);
        }
    }

    /// CloudCore has written it on the Node. Answers whether it had done so before: then somebody else has written since.
    pub(crate) fn told(&mut self, node: &NodeName, status: &SyncStatus, content: Content) -> bool {
        match self.0.get_mut(node).filter(|last| last.status == *status) {
            Some(last) => last.told.replace(content) == Some(content),
            None => false,
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
    use crate::condition::CertificateState;
    use beehive::link::Transport;
    use contract::synccontroller::SyncState;

    fn status(waiting: usize) -> SyncStatus {
        let state = if waiting == 0 { SyncState::InSync } else { SyncState::Waiting };
        SyncStatus { state, waiting, oldest: None, refusal: None, last_confirmed: None, linked: true }
    }

    /// Over this transport, with this of the certificate.
    fn content(transport: Option<Transport>, certificate: Option<CertificateState>) -> Content {
        Content { transport, certificate }
    }

    fn quic() -> Content {
        content(Some(Transport::Quic), None)
    }

    #[test]
    fn a_node_is_looked_at_when_it_was_written_and_every_five_seconds_at_the_most() {
        let node = NodeName::parse("edge-1").unwrap();
        let (mut last, at) = (LastConditions::default(), |seconds| Moment(Duration::from_secs(seconds)));
        assert!(!last.begin_look(&node, 7, ("1", quic()), at(0)), "there is nothing to say");
        last.said(&node, 7, status(1));
        assert!(!last.begin_look(&node, 8, ("1", quic()), at(1)), "another session's");
        assert!(last.begin_look(&node, 7, ("1", quic()), at(1)));
        // What is said anew is no way around it.
        last.said(&node, 7, status(0));
        assert_eq!((last.status(&node, 7), last.status(&node, 8)), (Some(status(0)), None));
        assert!(!last.begin_look(&node, 7, ("1", quic()), at(5)));
        assert!(last.begin_look(&node, 7, ("1", quic()), at(6)));
        last.seen(&node, &status(1), "1", quic());
        assert!(last.begin_look(&node, 7, ("1", quic()), at(12)), "what was seen is older");
        last.seen(&node, &status(0), "1", quic());
        assert!(!last.begin_look(&node, 7, ("1", quic()), at(60)));
        assert!(last.begin_look(&node, 7, ("2", quic()), at(60)));
        last.forget(&node, 6);
        assert!(last.begin_look(&node, 7, ("3", quic()), at(70)));
        last.forget(&node, 7);
        assert!(!last.begin_look(&node, 7, ("4", quic()), at(80)));
    }

    #[test]
    fn a_node_is_looked_at_when_there_is_something_else_to_say_of_its_certificate_or_its_link() {
        let node = NodeName::parse("edge-1").unwrap();
        let (mut last, at) = (LastConditions::default(), |seconds| Moment(Duration::from_secs(seconds)));
        let state = |valid, second| {
            let now = jiff::Timestamp::from_second(second).unwrap();
            content(Some(Transport::Quic), Some(CertificateState::of(valid, now)))
        };
        let (good, late) = (state((0, 1000), 100), state((0, 1000), 960));
        last.said(&node, 7, status(0));
        assert!(last.begin_look(&node, 7, ("1", good), at(0)));
        last.seen(&node, &status(0), "2", good);
        assert!(!last.begin_look(&node, 7, ("2", state((0, 1000), 200)), at(10)));
        assert!(last.begin_look(&node, 7, ("2", late), at(20)), "it was not renewed in time");
        last.seen(&node, &status(0), "3", late);
        let renewed = state((900, 1900), 970);
        assert!(last.begin_look(&node, 7, ("3", renewed), at(30)), "a new one");
        last.seen(&node, &status(0), "4", renewed);
        let fallback = Content { transport: Some(Transport::WebSocket), ..renewed };
        assert!(last.begin_look(&node, 7, ("4", fallback), at(40)), "what carries its link");
    }

    #[test]
    fn somebody_else_wrote_only_if_the_node_said_the_same_before() {
        let node = NodeName::parse("edge-1").unwrap();
        let mut last = LastConditions::default();
        let unlinked = content(None, None);
        assert!(!last.told(&node, &status(0), quic()), "nobody has a session");
        last.said(&node, 7, status(0));
        // The status was shown before NodeLease knew of the link: what it says of that is news, and nobody's doing.
        assert!(!last.told(&node, &status(0), unlinked));
        assert!(!last.told(&node, &status(0), quic()));
        assert!(last.told(&node, &status(0), quic()));
        last.seen(&node, &status(0), "2", quic());
        assert!(last.told(&node, &status(0), quic()), "it said so when it was looked at");
        last.said(&node, 7, status(1));
        assert!(!last.told(&node, &status(1), quic()) && !last.told(&node, &status(0), quic()));
    }
}
