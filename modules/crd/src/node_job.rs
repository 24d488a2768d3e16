//! What all jobs on nodes have (KubeEdge, `operations.kubeedge.io/v1alpha2`): which nodes, how they take their turns, and what was done on
//! each. A kind has its own beside it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which nodes, by their labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSelector {
    /// Labels that a node has.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// What holds of its labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<NodeSelectorRequirement>,
}

/// What holds of a node's label.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSelectorRequirement {
    /// The label.
    pub key: String,
    /// In, NotIn, Exists or DoesNotExist.
    pub operator: String,
    /// Of In and NotIn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// What every job says: which nodes, and how they take their turns. Its fields stand among those of the kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeJobSpec {
    /// Which nodes, by name. This or `labelSelector`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_names: Vec<String>,
    /// Which nodes, by their labels. This or `nodeNames`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<NodeSelector>,
    /// Which part of the nodes may fail, such as 0.1; none if left out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failure_tolerate: String,
    /// How many nodes at once; 1 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<i32>,
    /// How long each action may take, in seconds; 300 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i32>,
}

// What is said of a node is the kind's.
/// How far a job is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeJobStatus<N> {
    /// Init, InProgress, Completed or Failure.
    pub phase: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Of each node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_status: Vec<N>,
}

// All of it, or what stands beside a kind's own fields.
/// How far a node's part is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodePartStatus {
    /// The node.
    #[serde(default)]
    pub node_name: String,
    /// Pending, InProgress, Successful, Failure or Unknown.
    #[serde(default)]
    pub phase: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What was done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub action_flow: Vec<ActionStatus>,
}

/// One action of a node, and what became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActionStatus {
    /// Check, Pull, BackUp, Upgrade, Update and the like.
    #[serde(default)]
    pub action: String,
    /// True or False.
    #[serde(default)]
    pub status: String,
    /// Why not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When it ended, by the node's clock.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub time: String,
}
