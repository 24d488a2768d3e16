//! ImagePrePullJob: images that edge nodes pull before they are needed (KubeEdge).

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::node_job::{NodeJobSpec, NodeJobStatus, NodePartStatus};

/// Images that edge nodes pull before they are needed.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "operations.kubeedge.io",
    version = "v1alpha2",
    kind = "ImagePrePullJob",
    plural = "imageprepulljobs",
    singular = "imageprepulljob",
    status = "ImagePrePullJobStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "Images that edge nodes pull before they are needed.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason")
)]
#[serde(rename_all = "camelCase")]
pub struct ImagePrePullJobSpec {
    /// What is pulled, and where.
    pub image_pre_pull_template: ImagePrePullTemplate,
}

/// What is pulled, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImagePrePullTemplate {
    /// The images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// Where.
    #[serde(flatten)]
    pub job: NodeJobSpec,
    /// What of a node has to be at most 80 percent full: cpu, mem, disk; disk if left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub check_items: Vec<String>,
    /// The Secret, as NAMESPACE/NAME, that registries are shown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image_secrets: String,
    /// How often a pull is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_times: Option<i32>,
}

/// How far an ImagePrePullJob is.
pub type ImagePrePullJobStatus = NodeJobStatus<ImagePrePullNodeStatus>;

/// How far a node's pulls are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImagePrePullNodeStatus {
    /// How far its part is.
    #[serde(flatten)]
    pub part: NodePartStatus,
    /// What became of each image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_status: Vec<ImageStatus>,
}

/// What became of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageStatus {
    /// The image.
    #[serde(default)]
    pub image: String,
    /// True or False.
    #[serde(default)]
    pub status: String,
    /// Why not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}
