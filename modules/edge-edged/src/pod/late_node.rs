//! Pods that wait for news of their own node. Pure.
//!
//! Who schedules a pod sees the Node as the API server has it; the Node reaches this node by another way than the pod, and
//! may come after it: a label that the pod was placed by, the end of a taint, a resource that an operator added. The kubelet reads the Node once more before it
//! turns such a pod away. Here the refusal, which is for ever, waits a while.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use apimachinery::names::is_extended_resource;
use beehive::Moment;

use crate::pod::plan::Intent;

/// 5 s: as long as a pod waits in the cloud for what it needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// The refusals that news of the Node may take back.
const BY_THE_NODE: [&str; 2] = ["NodeAffinity", "TaintToleration"];

fn is_by_the_node(reason: &str) -> bool {
    BY_THE_NODE.contains(&reason) || reason.strip_prefix("OutOf").is_some_and(is_extended_resource)
}

/// Since when pods wait, by their uids.
#[derive(Debug, Default)]
pub(crate) struct LateNode(BTreeMap<String, Moment>);

/// Whether a refusal waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// It doesn't.
    No,
    /// Since now: to be looked at again after [`PATIENCE`].
    Begins,
    /// As before.
    GoesOn,
}

impl LateNode {
    /// Whether the refusal of a pod that nothing was decided of before waits.
    pub(crate) fn waits(&mut self, uid: &str, intent: &Intent, now: Moment) -> Wait {
        if !matches!(intent, Intent::Fail { reason, .. } if is_by_the_node(reason)) {
            return Wait::No;
        }
        match self.0.get(uid) {
            Some(since) if now.since(*since) >= PATIENCE => Wait::No,
            Some(_) => Wait::GoesOn,
            None => {
                self.0.insert(uid.to_owned(), now);
                Wait::Begins
            }
        }
    }

    /// Forgets all pods but these.
    pub(crate) fn retain(&mut self, wanted: &BTreeSet<String>) {
        self.0.retain(|uid, _| wanted.contains(uid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_node_may_take_back_waits_and_not_for_ever() {
        let fail = |reason: &str| Intent::Fail { reason: reason.to_owned(), message: String::new() };
        let at = |seconds: u64| Moment(Duration::from_secs(seconds));
        let mut late = LateNode::default();
        assert_eq!(late.waits("a", &Intent::Run, at(0)), Wait::No);
        assert_eq!(late.waits("a", &fail("OutOfcpu"), at(0)), Wait::No);
        assert_eq!(late.waits("a", &fail("NodeAffinity"), at(0)), Wait::Begins);
        assert_eq!(late.waits("b", &fail("TaintToleration"), at(3)), Wait::Begins);
        assert_eq!(late.waits("a", &fail("NodeAffinity"), at(4)), Wait::GoesOn);
        assert_eq!(late.waits("a", &fail("NodeAffinity"), at(5)), Wait::No);
        assert_eq!(late.waits("b", &fail("TaintToleration"), at(5)), Wait::GoesOn);
        assert_eq!(late.waits("c", &fail("OutOfexample.com/foo"), at(5)), Wait::Begins);
        assert_eq!(late.waits("c", &fail("OutOfexample.com/foo"), at(10)), Wait::No);
        assert_eq!(late.waits("d", &fail("OutOfhugepages-2Mi"), at(5)), Wait::No);
        late.retain(&BTreeSet::from(["b".to_owned()]));
        assert_eq!(late.waits("a", &fail("NodeAffinity"), at(6)), Wait::Begins);
    }
}
