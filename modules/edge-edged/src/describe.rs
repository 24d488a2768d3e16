//! The node and its pods as the node's page shows them.

use contract::edgepage::{ConditionView, NodeView, ViewBounds};
use serde_json::Value;

use crate::actor::Edged;
use crate::pod::pod_view::is_well;

impl Edged {
    /// What there is to say of the node: the pods first of which something is wrong.
    pub(crate) fn describe(&self, bounds: ViewBounds) -> NodeView {
        let mut pods = self.pods.describe(|uid| self.store.reported.of(uid).status);
        let pods_in_all = pods.len();
        // By whether something is wrong, and then by namespace and name.
        pods.sort_by_cached_key(|pod| (is_well(pod), pod.namespace.clone(), pod.name.clone()));
        pods.truncate(bounds.rows);
        for pod in &mut pods {
            pod.message = pod.message.take().map(|message| bounds.cut(&message));
        }
        let (resources, events) = match &self.deps {
            Some(deps) => (deps.measured.borrow().clone(), deps.recorder.recent.all()),
            None => Default::default(),
        };
        let conditions = self.node.conditions();
        let conditions = conditions.iter().take(bounds.parts).map(|own| condition(own, bounds));
        NodeView { pods, pods_in_all, resources, conditions: conditions.collect(), events }
    }
}

fn condition(own: &Value, bounds: ViewBounds) -> ConditionView {
    let text = |key: &str| bounds.cut(own[key].as_str().unwrap_or_default());
    ConditionView {
        kind: text("type"),
        status: text("status"),
        reason: text("reason"),
        message: text("message"),
        since: text("lastTransitionTime"),
    }
}
