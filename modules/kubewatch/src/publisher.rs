//! One controller's part of what nodes should hold, on its way to SyncController.
//!
//! SyncController deletes nothing on a node, and sends nothing to it in a new session, before each controller has said that
//! all it knows was sent: [`SyncMsg::ListComplete`] once for everything, [`SyncMsg::Current`] for each session. A controller
//! that begins anew, and one whose SyncController does, sends everything again between [`SyncMsg::ListBegins`] and
//! [`SyncMsg::ListComplete`]; what was not sent in between is gone.

use std::collections::{BTreeMap, BTreeSet};

use beehive::trace::{self, Span, Traces};
use beehive::{Address, Moment};
use contract::synccontroller::{Source, SyncMsg};
use contract::{NodeName, Object, ObjectKey};

use crate::{DesiredObjects, LastSent};

#[derive(Debug)]
struct LinkedSession {
    session: u64,
    /// When it was told.
    since: Moment,
    /// What SyncController was told to be unknown when it was told that all else was sent; `None` before that.
    unknown: Option<BTreeSet<ObjectKey>>,
}

/// See the module.
#[derive(Debug)]
pub struct Publisher {
    source: Source,
    sync: Address<SyncMsg>,
    last_sent: LastSent,
    has_begun: bool,
    is_complete: bool,
    linked: BTreeMap<NodeName, LinkedSession>,
}

impl Publisher {
    /// A controller that has sent nothing yet.
    pub fn new(source: Source, sync: Address<SyncMsg>) -> Self {
        let (last_sent, linked) = (LastSent::default(), BTreeMap::new());
        Publisher { source, sync, last_sent, has_begun: false, is_complete: false, linked }
    }

    /// Sends what differs from what was last sent of these nodes, waiting for room. What has changed since everything was listed begins a
    /// trace, if the lot falls on it.
    pub async fn publish(&mut self, wanted: &BTreeMap<NodeName, DesiredObjects>, traces: &Traces) {
        if !std::mem::replace(&mut self.has_begun, true) {
            self.send(SyncMsg::ListBegins(self.source)).await;
        }
        let followed = self.followed(wanted, traces);
        for message in self.last_sent.difference(wanted) {
            let context = match &message {
                SyncMsg::Upsert { node, object } => {
                    followed.get(&(node, &object.key)).and_then(Span::context)
                }
                _ => None,
            };
            trace::with_context(context, self.send(message)).await;
        }
    }

    /// The traces that begin: of objects that are others than were sent, not of those of which a node has reported something.
    fn followed<'a>(
        &self,
        wanted: &'a BTreeMap<NodeName, DesiredObjects>,
        traces: &Traces,
    ) -> BTreeMap<(&'a NodeName, &'a ObjectKey), Span> {
        if !traces.is_on() || !self.is_complete {
            return BTreeMap::new();
        }
        let objects = wanted
            .iter()
            .flat_map(|(node, objects)| objects.iter().map(move |(key, object)| (node, key, object)));
        let news = objects.filter(|(node, _, object)| self.last_sent.is_news(node, object));
        let begun = news.map(|(node, key, object)| ((node, key), self.span(node, object, traces)));
        begun.filter(|(_, span)| span.is_followed()).collect()
    }

    fn span(&self, node: &NodeName, object: &Object, traces: &Traces) -> Span {
        let name = match self.source {
            Source::Edge => "EdgeController send",
            Source::Device => "DeviceController send",
            Source::Router => "CloudRouter send",
            Source::Task => "TaskManager send",
        };
        contract::traced::describe(traces.root(name).with("k8s.node.name", || node.to_string()), object)
    }

    /// Everything that is known was published once since the list began.
    pub async fn complete(&mut self) {
        if self.has_begun && !std::mem::replace(&mut self.is_complete, true) {
            self.send(SyncMsg::ListComplete(self.source)).await;
        }
    }

    /// SyncController has lost what it was sent. Answers whether everything has to be published again: not if nothing was
    /// yet.
    pub fn list_again(&mut self) -> bool {
        self.last_sent = LastSent::default();
        self.is_complete = false;
        for linked in self.linked.values_mut() {
            linked.unknown = None;
        }
        std::mem::take(&mut self.has_begun)
    }

    /// Whether the list is complete.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// No session is open but those that are told after this.
    pub fn all_nodes_down(&mut self) {
        self.linked.clear();
    }

    /// A session opened, `now`.
    pub fn node_up(&mut self, node: NodeName, session: u64, now: Moment) {
        if self.linked.get(&node).is_none_or(|linked| linked.session != session) {
            self.linked.insert(node, LinkedSession { session, since: now, unknown: None });
        }
    }

    /// A session ended; the end of an older one may be told after a newer one has begun. Answers whether it was the newest.
    pub fn node_down(&mut self, node: &NodeName, session: u64) -> bool {
        let is_newest = self.session_of(node) == Some(session);
        if is_newest {
            self.linked.remove(node);
        }
        is_newest
    }

    /// The open session of the node.
    pub fn session_of(&self, node: &NodeName) -> Option<u64> {
        self.linked.get(node).map(|linked| linked.session)
    }

    /// When the node's session opened.
    pub fn opened(&self, node: &NodeName) -> Option<Moment> {
        self.linked.get(node).map(|linked| linked.since)
    }

    /// The linked nodes of which SyncController does not know that all was sent, with nothing unknown.
    pub fn not_current(&self) -> Vec<NodeName> {
        let is_current =
            |unknown: &Option<BTreeSet<ObjectKey>>| unknown.as_ref().is_some_and(BTreeSet::is_empty);
        let not_current = self.linked.iter().filter(|(_, linked)| !is_current(&linked.unknown));
        not_current.map(|(node, _)| node.clone()).collect()
    }

    /// All that is known of the node was published; these it should hold, and what they are is unknown. Answers whether that was
    /// news.
    pub async fn current(&mut self, node: &NodeName, unknown: BTreeSet<ObjectKey>) -> bool {
        let Some(linked) = self.linked.get_mut(node) else { return false };
        if linked.unknown.as_ref() == Some(&unknown) {
            return false;
        }
        linked.unknown = Some(unknown.clone());
        let (source, session) = (self.source, linked.session);
        self.send(SyncMsg::Current { source, node: node.clone(), session, unknown }).await;
        true
    }

    async fn send(&self, message: SyncMsg) {
        // SyncController outlives its sources; it refuses only while the daemon ends.
        let _ = self.sync.tell(message).await;
    }

    /// Nodes that hold anything.
    pub fn nodes(&self) -> usize {
        self.last_sent.nodes()
    }

    /// Objects on all nodes.
    pub fn objects(&self) -> usize {
        self.last_sent.objects()
    }

    /// Linked nodes.
    pub fn linked(&self) -> usize {
        self.linked.len()
    }
}
