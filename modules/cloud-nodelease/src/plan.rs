//! The newest session of each node here, and of which Node object it is. Pure.
//!
//! Whose a Node is, the register decides ([`noderegistry`]). A session is of one Node uid. When the Node of that name goes or
//! another one takes its place, nothing that is said in the session counts any more, and the hub is told to end the link.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use beehive::Moment;
use beehive::link::Transport;
use contract::NodeName;
use contract::nodelease::{OpenLink, SessionState};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use noderegistry::{ADOPTED_ANNOTATION, ENROLMENT_ANNOTATION};

use crate::lease::LeaseVersion;

/// Of which Node object a session is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionNode {
    /// Not known since a restart of this actor: the register is being asked.
    Unresolved,
    /// There is none yet.
    None,
    /// The one with this uid.
    Uid(String),
}

#[derive(Debug)]
struct SessionEntry {
    number: u64,
    /// Serial number, lower-case hex.
    certificate: Arc<str>,
    node: SessionNode,
    /// Whether the watch has shown that Node.
    is_seen: bool,
    /// Whether the API server is being asked about that Node.
    is_checked: bool,
    /// The Lease when it was last seen to be ours, so that a renewal is one request.
    lease_version: Option<LeaseVersion>,
    renewed: Option<Moment>,
    /// Whether the next renewal waits for its time.
    is_planned: bool,
    /// Its link, while it is open.
    link: Option<OpenLink>,
    /// The session before, while its link is open: the one of this session may be long in coming, and the node may have given it up.
    linked_before: Option<u64>,
    /// Why its link was ended, if the register said that its certificate is good for nothing any more.
    revoked: Option<&'static str>,
}

/// What became of a question to the API server about a session's Node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeCheck {
    /// The Node is there: the watch was late.
    StillThere,
    /// It is gone or another one: the session is over.
    Over,
    /// There is no such session any more.
    NoSession,
}

/// When a Lease is renewed, after a sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// Now: whoever asked renews it.
    Now,
    /// When this has passed, if [`Sessions::begin_planned`] says so then.
    After(Duration),
    /// There is no such session, or it is planned.
    None,
}

/// The sessions, and the Nodes as the watch has them. A node that has gone to another CloudCore keeps its place: its Lease says
/// so.
#[derive(Debug, Default)]
pub struct Sessions {
    sessions: BTreeMap<NodeName, SessionEntry>,
    nodes: BTreeMap<NodeName, ObjectMeta>,
    /// Whether the watch has shown all of them once.
    are_listed: bool,
    /// Whether the hub has said who is linked.
    is_told: bool,
}

impl Sessions {
    /// A Node came or changed.
    pub fn node_applied(&mut self, node: NodeName, metadata: &ObjectMeta) {
        let annotations = metadata.annotations.as_ref();
        let kept = [ADOPTED_ANNOTATION, ENROLMENT_ANNOTATION]
            .into_iter()
            .filter_map(|key| Some((key.to_owned(), annotations?.get(key)?.clone())));
        let kept: BTreeMap<String, String> = kept.collect();
        let object = ObjectMeta {
            name: metadata.name.clone(),
            uid: metadata.uid.clone(),
            resource_version: metadata.resource_version.clone(),
            deletion_timestamp: metadata.deletion_timestamp.clone(),
            annotations: (!kept.is_empty()).then_some(kept),
            ..ObjectMeta::default()
        };
        self.nodes.insert(node, object);
    }

    /// A Node was deleted.
    pub fn node_deleted(&mut self, node: &NodeName) {
        self.nodes.remove(node);
    }

    /// All Nodes have been shown.
    pub fn nodes_listed(&mut self) {
        self.are_listed = true;
    }

    /// Whether they have been: before that one that is not here may be there.
    pub fn are_nodes_listed(&self) -> bool {
        self.are_listed
    }

    /// The names of all Nodes that the watch has.
    pub fn node_names(&self) -> impl Iterator<Item = &NodeName> {
        self.nodes.keys()
    }

    /// The Node of that name as the watch has it.
    pub fn node(&self, node: &NodeName) -> Option<&ObjectMeta> {
        self.nodes.get(node)
    }

    /// A session begins, of the Node with this uid; `None`: it is yet to be made. Two claims of one node may end in any
    /// order; the Lease has put them in one.
    pub fn begin(
        &mut self,
        node: &NodeName,
        number: u64,
        certificate: &str,
        uid: Option<String>,
        lease_version: Option<LeaseVersion>,
    ) {
        let held = self.sessions.get(node);
        if held.is_some_and(|held| held.number >= number) {
            return;
        }
        let linked_before = held.and_then(|held| match held.link {
            Some(_) => Some(held.number),
            None => held.linked_before,
        });
        let session = SessionEntry {
            number,
            certificate: certificate.into(),
            node: uid.map_or(SessionNode::None, SessionNode::Uid),
            is_seen: false,
            is_checked: false,
            lease_version,
            renewed: None,
            is_planned: false,
            link: None,
            linked_before,
            revoked: None,
        };
        self.sessions.insert(node.clone(), session);
    }

    /// The hub says that no session is open but those that it tells after this.
    pub fn all_down(&mut self) {
        self.is_told = true;
        for session in self.sessions.values_mut() {
            (session.link, session.linked_before, session.is_planned) = (None, None, false);
        }
    }

    /// A session is open. Answers whether it began before this incarnation did: then the register has to say of which Node
    /// it is.
    pub fn up(&mut self, node: &NodeName, number: u64, certificate: &str, link: OpenLink) -> bool {
        match self.sessions.get_mut(node) {
            Some(held) if held.number == number => {
                held.link = Some(link);
                return false;
            }
            // An older one, whose end is about to be told: nothing that is said in it counts.
            Some(held) if held.number > number => {
                held.linked_before = Some(number);
                return false;
            }
            Some(_) | None => {}
        }
        self.begin(node, number, certificate, None, None);
        if let Some(session) = self.sessions.get_mut(node) {
            (session.node, session.link) = (SessionNode::Unresolved, Some(link));
        }
        true
    }

    /// A session's link ended; `revoked`: why, if its certificate is good for nothing any more.
    pub fn down(&mut self, node: &NodeName, number: u64, revoked: Option<&'static str>) {
        if let Some(session) = self.sessions.get_mut(node)
            && session.linked_before == Some(number)
        {
            session.linked_before = None;
        }
        if let Some(session) = self.session_mut(node, number) {
            (session.link, session.is_planned, session.revoked) = (None, false, revoked);
        }
    }

    /// Why nobody hears of the node any more, if its session was ended because its certificate is good for nothing any more.
    pub fn revoked(&self, node: &NodeName) -> Option<&'static str> {
        self.sessions.get(node)?.revoked
    }

    /// The register has said of which Node the session is.
    pub fn resolved(&mut self, node: &NodeName, number: u64, uid: Option<String>) {
        if let Some(session) = self.session_mut(node, number) {
            (session.node, session.is_seen) = (uid.map_or(SessionNode::None, SessionNode::Uid), false);
        }
    }

    /// What the node's word is worth in that session.
    pub fn state(&mut self, node: &NodeName, number: u64) -> SessionState {
        let is_told = self.is_told;
        let in_watch = self.living_uid(node).map(str::to_owned);
        let Some(session) = self.sessions.get_mut(node).filter(|session| session.number == number) else {
            return if is_told { SessionState::Ended } else { SessionState::InDoubt };
        };
        match (&session.node, in_watch) {
            (SessionNode::Unresolved, _) => SessionState::InDoubt,
            (SessionNode::None, _) => {
                SessionState::WithoutNode { certificate: session.certificate.to_string() }
            }
            (SessionNode::Uid(uid), Some(in_watch)) if *uid == in_watch => {
                session.is_seen = true;
                SessionState::Open { node_uid: in_watch }
            }
            // The watch has yet to show it.
            (SessionNode::Uid(uid), _) if !session.is_seen => SessionState::Open { node_uid: uid.clone() },
            (SessionNode::Uid(_), _) => SessionState::InDoubt,
        }
    }

    /// The number of the node's session if the watch does not have the Node that it is of.
    pub fn session_in_doubt(&self, node: &NodeName) -> Option<u64> {
        let session = self.sessions.get(node)?;
        let SessionNode::Uid(uid) = &session.node else { return None };
        (!session.is_checked && self.living_uid(node) != Some(uid)).then_some(session.number)
    }

    /// Whether the API server is to be asked now whether the session's Node is still there: not while it is being asked.
    /// Whoever asks says the answer to [`Sessions::checked`] or [`Sessions::not_checked`].
    pub fn begin_check(&mut self, node: &NodeName, number: u64) -> bool {
        let Some(session) = self.session_mut(node, number).filter(|session| !session.is_checked) else {
            return false;
        };
        session.is_checked = true;
        true
    }

    /// The API server has said which uid the living Node of that name has. A session that is over is forgotten.
    pub fn checked(&mut self, node: &NodeName, number: u64, found: Option<&str>) -> NodeCheck {
        let Some(session) = self.session_mut(node, number) else { return NodeCheck::NoSession };
        session.is_checked = false;
        match &session.node {
            SessionNode::Uid(uid) if found == Some(uid) => {
                session.is_seen = false;
                NodeCheck::StillThere
            }
            SessionNode::Uid(_) => {
                self.sessions.remove(node);
                NodeCheck::Over
            }
            SessionNode::Unresolved | SessionNode::None => NodeCheck::StillThere,
        }
    }

    /// Nobody can say now whether the Node is still there.
    pub fn not_checked(&mut self, node: &NodeName, number: u64) {
        if let Some(session) = self.session_mut(node, number) {
            session.is_checked = false;
        }
    }

    /// The session is over. Answers whether it was the node's newest.
    pub fn end(&mut self, node: &NodeName, number: u64) -> bool {
        let is_newest = self.session_mut(node, number).is_some();
        if is_newest {
            self.sessions.remove(node);
        }
        is_newest
    }

    /// The newest session of the node here.
    pub fn newest(&self, node: &NodeName) -> Option<u64> {
        self.sessions.get(node).map(|session| session.number)
    }

    /// Whether a later session of the node was claimed here.
    pub fn is_superseded(&self, node: &NodeName, number: u64) -> bool {
        self.newest(node).is_some_and(|newest| newest > number)
    }

    /// The node has another certificate in that session from now on.
    pub fn certificate_renewed(
        &mut self,
        node: &NodeName,
        number: u64,
        certificate: &str,
        valid: (u64, u64),
    ) {
        let Some(session) = self.session_mut(node, number) else { return };
        session.certificate = certificate.into();
        if let Some(link) = &mut session.link {
            link.certificate_valid = Some(valid);
        }
    }

    /// When the certificate of the node's session begins and ends.
    pub fn certificate_valid(&self, node: &NodeName) -> Option<(u64, u64)> {
        self.sessions.get(node)?.link.as_ref()?.certificate_valid
    }

    /// The certificate that the node has in that session.
    pub fn certificate(&self, node: &NodeName, number: u64) -> Option<Arc<str>> {
        let session = self.sessions.get(node).filter(|session| session.number == number)?;
        Some(Arc::clone(&session.certificate))
    }

    /// Whether the Node with this metadata is the one of the node's session; where none is known here, whether it is one of
    /// ours by what stands on it.
    pub fn is_of(&self, node: &NodeName, metadata: &ObjectMeta) -> bool {
        match self.sessions.get(node).map(|session| &session.node) {
            Some(SessionNode::Uid(uid)) => {
                metadata.uid.as_ref() == Some(uid) && !noderegistry::plan::is_ending(metadata)
            }
            Some(SessionNode::None) => false,
            Some(SessionNode::Unresolved) | None => noderegistry::plan::is_ours(metadata),
        }
    }

    /// Whether the node has a session that began without a Node, and that nobody has told of one yet.
    pub fn awaits_node(&self, node: &NodeName) -> bool {
        self.sessions.get(node).is_some_and(|session| matches!(session.node, SessionNode::None))
    }

    /// What carries the link of the node's session, if it has one, and the bytes that came and went over it.
    pub fn link(&self, node: &NodeName) -> Option<(Transport, u64, u64)> {
        let OpenLink { transport, traffic, .. } = self.sessions.get(node)?.link.as_ref()?;
        Some((*transport, traffic.received(), traffic.sent()))
    }

    /// The node has said that it is alive. Its Lease is renewed once in each `period` in which it did: at once if the last renewal is
    /// that long ago, else at the end of the period. Signs of life come when they come, and a renewal that waited for the next one
    /// would be late by nearly as long as they are apart.
    pub fn sign_of_life(&mut self, node: &NodeName, number: u64, period: Duration, now: Moment) -> Renewal {
        let Some(session) = self.session_mut(node, number) else { return Renewal::None };
        let pause = session.renewed.map_or(Duration::ZERO, |at| period.saturating_sub(now.since(at)));
        if pause.is_zero() {
            (session.renewed, session.is_planned) = (Some(now), false);
            Renewal::Now
        } else if session.is_planned {
            Renewal::None
        } else {
            session.is_planned = true;
            Renewal::After(pause)
        }
    }

    /// The time of a planned renewal has come. Answers whether it is still wanted: not when the link has ended.
    pub fn begin_planned(&mut self, node: &NodeName, number: u64, now: Moment) -> bool {
        let Some(session) = self.session_mut(node, number) else { return false };
        let is_planned = std::mem::take(&mut session.is_planned);
        if is_planned {
            session.renewed = Some(now);
        }
        is_planned
    }

    /// Whether the renewal that began at `began` and failed is to be tried again: while the node is linked and no other has begun.
    pub fn may_retry(&self, node: &NodeName, number: u64, began: Moment) -> bool {
        let session = self.sessions.get(node).filter(|session| session.number == number);
        session.is_some_and(|session| session.renewed == Some(began) && session.link.is_some())
    }

    /// The Lease as it was last seen to be ours. Whoever takes it puts the next one back.
    pub fn take_lease_version(&mut self, node: &NodeName, number: u64) -> Option<LeaseVersion> {
        self.session_mut(node, number)?.lease_version.take()
    }

    /// The Lease is ours in this version.
    pub fn put_lease_version(&mut self, node: &NodeName, number: u64, version: LeaseVersion) {
        if let Some(session) = self.session_mut(node, number) {
            session.lease_version = Some(version);
        }
    }

    /// How many nodes have a session here, and how many of those are linked: by the link of the session before, too, until the one of
    /// theirs is there.
    pub fn counts(&self) -> (usize, usize) {
        let is_linked = |session: &&SessionEntry| session.link.is_some() || session.linked_before.is_some();
        let linked = self.sessions.values().filter(is_linked);
        (self.sessions.len(), linked.count())
    }

    fn session_mut(&mut self, node: &NodeName, number: u64) -> Option<&mut SessionEntry> {
        self.sessions.get_mut(node).filter(|session| session.number == number)
    }

    /// Of the Node that the watch has, unless it was deleted: one that finalizers hold counts as gone.
    fn living_uid(&self, node: &NodeName) -> Option<&str> {
        living_uid(self.nodes.get(node))
    }
}

/// The uid of a Node that nobody has deleted: one that finalizers hold counts as gone.
pub fn living_uid(found: Option<&ObjectMeta>) -> Option<&str> {
    found.filter(|found| !noderegistry::plan::is_ending(found))?.uid.as_deref()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
