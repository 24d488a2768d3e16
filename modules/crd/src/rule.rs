//! Rule: from where to where messages go, between the cloud's HTTP and a node's MQTT broker or HTTP services (KubeEdge).

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// From where to where. Between which kinds of ends, the two [`crate::RuleEndpoint`]s say.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "rules.kubeedge.io",
    version = "v1",
    kind = "Rule",
    plural = "rules",
    singular = "rule",
    namespaced,
    status = "RuleStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "From where to where messages go between the cloud's HTTP and a node's MQTT broker or HTTP services.",
    printcolumn(name = "Source", type_ = "string", json_path = ".spec.source"),
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.target"),
    printcolumn(name = "Success", type_ = "integer", json_path = ".status.successMessages"),
    printcolumn(name = "Fail", type_ = "integer", json_path = ".status.failMessages"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Errors", type_ = "string", json_path = ".status.errors", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct RuleSpec {
    /// The RuleEndpoint, of the same namespace, where messages come from.
    pub source: String,
    /// rest: `path`. eventbus: `topic` and `node_name`. servicebus: `target_url` and `node_name`.
    pub source_resource: BTreeMap<String, String>,
    /// The RuleEndpoint, of the same namespace, where messages go to.
    pub target: String,
    /// rest: `resource`, a URL. eventbus: `topic`. servicebus: `path`.
    pub target_resource: BTreeMap<String, String>,
}

/// What became of its messages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleStatus {
    /// How many the target has taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_messages: Option<i64>,
    /// How many it never will.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_messages: Option<i64>,
    /// Why, the newest last; also why the rule does nothing, and why messages wait.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}
