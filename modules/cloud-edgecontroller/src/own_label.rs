//! Says of its nodes' Nodes that they are CloudCore's, by a label.
//!
//! Whose a Node is stands in its annotations, and this label decides nothing. The bindings of an admission policy can select by labels
//! alone, and ask every Node without this one when CloudCore binds the right to a node (the chart's `policy.yaml`).

use contract::ids::OWN_LABEL;
use fairshare::ReportSender;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use kubewatch::status_code;
use serde_json::{Value, json};

use crate::events;
use crate::status::NodeReportWriter;

/// What adds the label to the Node; `None`: it has it.
fn patch(node: &Node) -> Option<Value> {
    let labels = node.metadata.labels.as_ref();
    if labels.is_some_and(|labels| labels.contains_key(OWN_LABEL)) {
        return None;
    }
    Some(json!({"metadata": {"uid": node.metadata.uid, "labels": {OWN_LABEL: ""}}}))
}

impl NodeReportWriter {
    /// Adds the label to a Node that was written for this session. Tried once in a session: a policy that is older than this
    /// CloudCore refuses it, and nothing else may wait for that.
    pub(crate) async fn say_own(&self, from: &ReportSender, nodes: &Api<Node>, node: &Node) {
        let Some(patch) = patch(node) else { return };
        if self.own_said.borrow_mut().insert(from.node.clone(), from.session) == Some(from.session) {
            return;
        }
        let patched =
            nodes.patch_status(from.node.as_str(), &PatchParams::default(), &Patch::Merge(&patch)).await;
        match patched {
            Ok(node) => self.traffic.add(&from.node, &node),
            Err(error) if matches!(status_code(&error), Some(404 | 409)) => {}
            Err(error) => {
                events::own_not_said(&self.env, &from.node, &beehive::Fault::from_error(&error).reason)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_labelled_once_and_only_that_very_one() {
        let node = |labels: Value| -> Node {
            serde_json::from_value(json!({"metadata": {"name": "edge-1", "uid": "u", "labels": labels}}))
                .unwrap()
        };
        let wanted = json!({"metadata": {"uid": "u", "labels": {"kubehive.io/own": ""}}});
        assert_eq!(patch(&node(json!({"a": "b"}))), Some(wanted.clone()));
        assert_eq!(patch(&node(Value::Null)), Some(wanted));
        assert_eq!(patch(&node(json!({"kubehive.io/own": ""}))), None);
    }
}
