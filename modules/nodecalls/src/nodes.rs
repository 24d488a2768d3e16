//! Which nodes have a link here, by the sessions that the hub tells of.

use std::collections::BTreeMap;

use beehive::link::{ByteStreams, WireVersion};
use contract::NodeName;

/// The link of a session, as far as calls need it.
#[derive(Clone)]
pub(crate) struct Linked {
    pub(crate) session: u64,
    pub(crate) streams: ByteStreams,
    pub(crate) version: WireVersion,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Nodes(BTreeMap<NodeName, Linked>);

impl Nodes {
    /// A later session of the node takes the place of an earlier one, never the other way.
    pub(crate) fn up(&mut self, node: NodeName, session: u64, streams: ByteStreams, version: WireVersion) {
        if self.0.get(&node).is_none_or(|linked| linked.session <= session) {
            self.0.insert(node, Linked { session, streams, version });
        }
    }

    pub(crate) fn down(&mut self, node: &NodeName, session: u64) {
        if self.0.get(node).is_some_and(|linked| linked.session == session) {
            self.0.remove(node);
        }
    }

    pub(crate) fn all_down(&mut self) {
        self.0.clear();
    }

    pub(crate) fn get(&self, node: &NodeName) -> Option<Linked> {
        self.0.get(node).cloned()
    }
}
