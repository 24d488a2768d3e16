//! The informers of Rules and RuleEndpoints, and what nodes should hold of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use beehive::Context;
use contract::NodeName;
use contract::ids::{RULE_ENDPOINTS, RULES};
use contract::router::RouterMsg;
use kubewatch::{DesiredObjects, Interruptions, NodeIndex, Placement, SharedCache, WatchedKind};
use serde_json::Value;

use crate::rule;
use crate::rule_table::{ReadRule, RuleTable};

/// Rules: nodes hold those whose source they have.
pub(crate) const RULE: WatchedKind = WatchedKind {
    group_resource: RULES,
    group: "rules.kubeedge.io",
    version: "v1",
    ..WatchedKind::core("rules", "Rule").reading(READ)
};
const RULE_ENDPOINT: WatchedKind = WatchedKind {
    group_resource: RULE_ENDPOINTS,
    group: "rules.kubeedge.io",
    version: "v1",
    ..WatchedKind::core("ruleendpoints", "RuleEndpoint").reading(READ)
};
/// What is read of both. All of them are looked at when one changes, so it is kept taken apart.
const READ: &[&str] = &["/metadata/creationTimestamp", "/spec"];

/// Watches Rules, of which nothing is kept but which there are.
pub(crate) fn watch_names(
    client: &kube::Client,
    interruptions: &Interruptions,
    cx: &Context<RouterMsg>,
) -> SharedCache {
    let names = RULE.keeping(|_| Some(Value::Null));
    kubewatch::watch(client, names, None, interruptions, cx, || RouterMsg::Reconcile)
}

/// What nodes should hold.
pub(crate) type Wanted = BTreeMap<NodeName, DesiredObjects>;

/// The informers of an incarnation.
pub(crate) struct Rules {
    rules: SharedCache,
    endpoints: SharedCache,
    index: NodeIndex,
    /// Whether they were read once.
    is_read: bool,
}

impl Rules {
    /// Begins to watch.
    pub(crate) fn watch(
        client: &kube::Client,
        interruptions: &Interruptions,
        cx: &Context<RouterMsg>,
    ) -> Self {
        let watch = |what| kubewatch::watch(client, what, None, interruptions, cx, || RouterMsg::Reconcile);
        Rules {
            rules: watch(RULE),
            endpoints: watch(RULE_ENDPOINT),
            index: NodeIndex::default(),
            is_read: false,
        }
    }

    /// What changed: what nodes should hold that anything touched, and all rules as they are now, if they are others. `None` before
    /// both have been listed once.
    pub(crate) fn changed(&mut self) -> Option<(Wanted, Option<RuleTable>)> {
        let (mut rules, mut endpoints) = (self.rules.borrow_mut(), self.endpoints.borrow_mut());
        if !rules.listed || !endpoints.listed {
            return None;
        }
        let (moved, moved_endpoints) = (rules.take_moved(), endpoints.take_moved());
        if std::mem::replace(&mut self.is_read, true) && moved.is_empty() && moved_endpoints.is_empty() {
            return Some((Wanted::new(), None));
        }
        let mut touched = BTreeSet::new();
        for key in moved {
            let node = rules.objects.get(&key).and_then(|rule| rule::node_of(&rule.value()));
            let placement = node.map(|node| Placement { node, needs: BTreeSet::new() });
            self.index.put(&key, placement, &mut touched);
        }
        let read = rules
            .objects
            .iter()
            .filter_map(|(key, rule)| Some(ReadRule { key, uid: &rule.object.uid, value: rule.parts()? }));
        let table = RuleTable::of(read, |key| endpoints.objects.get(key)?.parts().cloned());
        drop((rules, endpoints));
        let wanted = touched.into_iter().map(|node| (node.clone(), self.desired(&node))).collect();
        Some((wanted, Some(table)))
    }

    /// What every node should hold.
    pub(crate) fn all(&self) -> Wanted {
        self.index.nodes().map(|node| (node.clone(), self.desired(node))).collect()
    }

    fn desired(&self, node: &NodeName) -> DesiredObjects {
        let rules = self.rules.borrow();
        let objects = self
            .index
            .on(node)
            .filter_map(|(key, _)| Some((key.clone(), Arc::clone(&rules.objects.get(key)?.object))));
        objects.collect()
    }

    /// Objects that are there and cannot be read.
    pub(crate) fn unreadable(&self) -> usize {
        self.rules.borrow().unreadable.len() + self.endpoints.borrow().unreadable.len()
    }
}
