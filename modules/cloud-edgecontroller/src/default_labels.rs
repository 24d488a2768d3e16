//! The labels that every Node has of its node: a Node that an administrator made and gave to its node (`keadm adopt`) has none of
//! them, and pods that ask for a system or an architecture would never be placed there.
//!
//! Like a kubelet that finds its Node (`updateDefaultLabels`, pkg/kubelet/kubelet_node_status.go): these labels alone, as the node says
//! them, and all others stay as they are. Of where the machine stands, and what it is, an administrator may know better: there only what
//! is missing is added.

use apimachinery::names::is_label_value;
use contract::NodeName;
use fairshare::ReportSender;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use kubewatch::status_code;
use serde_json::{Map, Value, json};

use crate::events;
use crate::status::NodeReportWriter;

/// The name that CloudCore knows, whatever the node says.
const HOSTNAME: &str = "kubernetes.io/hostname";
/// What the machine itself is: made right where the Node says something else.
const CORRECTED: [&str; 4] =
    ["kubernetes.io/os", "kubernetes.io/arch", "beta.kubernetes.io/os", "beta.kubernetes.io/arch"];
/// What stands in the node's settings.
const ADDED: [&str; 6] = [
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
];

/// What makes the Node have them; `None`: it has. `report`: the Node as its node reports it.
fn patch(name: &NodeName, node: &Node, report: &Value) -> Option<Value> {
    let held = |key: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(key));
    let said = |key: &str| report.pointer("/metadata/labels")?.get(key)?.as_str();
    let corrected = CORRECTED.into_iter().filter_map(|key| Some((key, said(key)?)));
    let added = ADDED.into_iter().filter(|key| held(key).is_none());
    let added = added.filter_map(|key| Some((key, said(key)?)));
    let wanted = corrected.chain(added).filter(|(_, value)| !value.is_empty() && is_label_value(value));
    // The name of a node may be longer than a label's value: then it was made without.
    let hostname = [(HOSTNAME, name.as_str())].into_iter().filter(|(_, value)| is_label_value(value));
    let labels: Map<String, Value> = hostname
        .chain(wanted)
        .filter(|(key, value)| held(key).is_none_or(|held| held != value))
        .map(|(key, value)| (key.to_owned(), json!(value)))
        .collect();
    (!labels.is_empty()).then(|| json!({"metadata": {"uid": node.metadata.uid, "labels": labels}}))
}

impl NodeReportWriter {
    /// Writes those that a Node, which was written for this session, has not as its node says. Refused once, not again in this session: a
    /// policy that is older than this CloudCore refuses it, and nothing else may wait for that.
    pub(crate) async fn say_default_labels(
        &self,
        from: &ReportSender,
        nodes: &Api<Node>,
        node: &Node,
        report: &Value,
    ) {
        let Some(patch) = patch(&from.node, node, report) else { return };
        if self.labels_refused.borrow().get(&from.node) == Some(&from.session) {
            return;
        }
        let patched =
            nodes.patch_status(from.node.as_str(), &PatchParams::default(), &Patch::Merge(&patch)).await;
        match patched {
            Ok(node) => self.traffic.add(&from.node, &node),
            Err(error) if matches!(status_code(&error), Some(404 | 409)) => {}
            Err(error) => {
                self.labels_refused.borrow_mut().insert(from.node.clone(), from.session);
                let reason = beehive::Fault::from_error(&error).reason;
                events::default_labels_not_said(&self.env, &from.node, &reason);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(held: Value, said: Value) -> Option<Value> {
        let node = json!({"metadata": {"name": "edge-1", "uid": "u", "labels": held}});
        let node = serde_json::from_value(node).unwrap();
        let mut patch =
            patch(&NodeName::parse("edge-1").unwrap(), &node, &json!({"metadata": {"labels": said}}))?;
        assert_eq!(patch["metadata"]["uid"], "u", "of that very one");
        Some(patch["metadata"]["labels"].take())
    }

    #[test]
    fn a_node_that_was_made_by_hand_gets_the_labels_of_its_node_and_nothing_else() {
        let said = json!({"kubernetes.io/hostname": "other", "kubernetes.io/os": "linux", "kubernetes.io/arch": "arm64",
            "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": "arm64", "topology.kubernetes.io/zone": "a",
            "node.kubernetes.io/instance-type": "pi-5", "site": "quay-7", "node-role.kubernetes.io/edge": ""});
        let wanted = json!({"kubernetes.io/hostname": "edge-1", "kubernetes.io/os": "linux", "kubernetes.io/arch": "arm64",
            "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": "arm64", "topology.kubernetes.io/zone": "a",
            "node.kubernetes.io/instance-type": "pi-5"});
        assert_eq!(labels(Value::Null, said.clone()), Some(wanted.clone()));
        let mut others = wanted.clone();
        others["kubernetes.io/arch"] = json!("amd64");
        others["topology.kubernetes.io/zone"] = json!("b");
        others["site"] = json!("pier-1");
        assert_eq!(labels(others, said.clone()), Some(json!({"kubernetes.io/arch": "arm64"})));
        assert_eq!(labels(wanted, said), None);
    }

    #[test]
    fn what_is_no_label_is_passed_over() {
        let held = json!({"kubernetes.io/hostname": "edge-1"});
        let said = json!({"kubernetes.io/os": "", "kubernetes.io/arch": "a b", "beta.kubernetes.io/os": 7,
            "beta.kubernetes.io/arch": "x".repeat(64)});
        assert_eq!(labels(held.clone(), said), None);
        assert_eq!(labels(held, json!("x")), None);
    }
}
