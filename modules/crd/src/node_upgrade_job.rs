//! NodeUpgradeJob: a new release on edge nodes (KubeEdge). The misspelled `imageDigestGatter` is the contract.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::node_job::{ActionStatus, NodeSelector};

/// A new release on edge nodes.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "operations.kubeedge.io",
    version = "v1alpha2",
    kind = "NodeUpgradeJob",
    plural = "nodeupgradejobs",
    singular = "nodeupgradejob",
    status = "NodeUpgradeJobStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "A new release on edge nodes.",
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.version"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct NodeUpgradeJobSpec {
    /// The release, such as v0.2.0.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// The image that holds it; its tag is the version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Which nodes, by name. This or `labelSelector`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_names: Vec<String>,
    /// Which nodes, by their labels. This or `nodeNames`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<NodeSelector>,
    /// How long each action may take, in seconds; 300 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i32>,
    /// How many nodes at once; 1 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<i32>,
    /// What of a node has to be at most 80 percent full: cpu, mem, disk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub check_items: Vec<String>,
    /// Which part of the nodes may fail, such as 0.1; none if left out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failure_tolerate: String,
    /// Somebody on each node has to confirm it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub require_confirmation: bool,
    /// The digest that the image has to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest_gatter: Option<ImageDigestGatter>,
}

/// The digest that an image has to have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageDigestGatter {
    /// On amd64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub amd64: String,
    /// On arm64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub arm64: String,
    /// Where to ask for it.
    #[serde(default, rename = "registryAPI", skip_serializing_if = "Option::is_none")]
    pub registry_api: Option<RegistryApi>,
}

/// Where to ask for a digest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistryApi {
    /// The registry.
    pub host: String,
    /// The token for it.
    pub token: String,
}

/// How far a NodeUpgradeJob is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeUpgradeJobStatus {
    /// Init, InProgress, Completed or Failure.
    pub phase: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Of each node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_status: Vec<NodeUpgradeStatus>,
}

/// How far a node's upgrade is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeUpgradeStatus {
    /// The node.
    #[serde(default)]
    pub node_name: String,
    /// Pending, InProgress, Successful, Failure or Unknown.
    #[serde(default)]
    pub phase: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The release before.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub historic_version: String,
    /// The release that it is to have.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub current_version: String,
    /// What was done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub action_flow: Vec<ActionStatus>,
}
