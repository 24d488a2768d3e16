//! JoinToken: that a token is still good, named by the token's id.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a token is good for. Nothing here is secret: the token itself is signed, and is worth nothing without this object.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kubehive.io",
    version = "v1alpha1",
    kind = "JoinToken",
    plural = "jointokens",
    singular = "jointoken",
    derive = "Default",
    derive = "PartialEq",
    doc = "A token that nodes join with. Deleting it withdraws the token.",
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.node"),
    printcolumn(name = "Uses", type_ = "integer", json_path = ".spec.uses"),
    printcolumn(name = "Used", type_ = "integer", json_path = ".spec.used"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".spec.expires"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct JoinTokenSpec {
    /// When the token ends, as RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub expires: Option<String>,
    /// The only node name that it is good for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node: Option<String>,
    /// How many nodes may join with it; 1 if it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub uses: Option<u32>,
    /// How many have.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub used: Option<u32>,
}
