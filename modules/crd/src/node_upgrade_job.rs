//! NodeUpgradeJob: a new release on edge nodes (KubeEdge). The misspelled `imageDigestGatter` is the contract.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::node_job::{NodeJobSpec, NodeJobStatus, NodePartStatus};

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
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason")
)]
#[serde(rename_all = "camelCase")]
pub struct NodeUpgradeJobSpec {
    /// The release, such as v0.2.0.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// The image that holds it; its tag is the version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Where.
    #[serde(flatten)]
    pub job: NodeJobSpec,
    /// What of a node has to be at most 80 percent full: cpu, mem, disk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub check_items: Vec<String>,
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
pub type NodeUpgradeJobStatus = NodeJobStatus<NodeUpgradeStatus>;

/// How far a node's upgrade is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeUpgradeStatus {
    /// How far its part is.
    #[serde(flatten)]
    pub part: NodePartStatus,
    /// The release before.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub historic_version: String,
    /// The release that it is to have.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub current_version: String,
}
