//! ConfigUpdateJob: other values in the `edgecore.yaml` of edge nodes (KubeEdge).

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::node_job::{NodeJobSpec, NodeJobStatus, NodePartStatus};

/// Other values in the edgecore.yaml of edge nodes.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "operations.kubeedge.io",
    version = "v1alpha2",
    kind = "ConfigUpdateJob",
    plural = "configupdatejobs",
    singular = "configupdatejob",
    status = "ConfigUpdateJobStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "Other values in the edgecore.yaml of edge nodes.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason")
)]
#[serde(rename_all = "camelCase")]
pub struct ConfigUpdateJobSpec {
    /// Where.
    #[serde(flatten)]
    pub job: NodeJobSpec,
    /// The values by their keys, such as modules.edgeHub.heartbeat; lists as JSON.
    pub update_fields: BTreeMap<String, String>,
}

/// How far a ConfigUpdateJob is.
pub type ConfigUpdateJobStatus = NodeJobStatus<NodePartStatus>;
