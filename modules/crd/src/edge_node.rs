//! EdgeNode: one name in the register of nodes, named as the node.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Annotation of an [`EdgeNode`]: the serial of the one living certificate, lower-case hex. Absent: there is none. It stands
/// in the metadata, so that a watch of the metadata is enough to check links.
pub const CERTIFICATE_ANNOTATION: &str = "kubehive.io/certificate";
/// Annotation of an [`EdgeNode`]: the serials of the certificates that may take the living one's place, lower-case hex, between commas, as
/// they were signed. All are good until the node shows which it uses. One stands here before the node is given it.
pub const NEXT_CERTIFICATE_ANNOTATION: &str = "kubehive.io/next-certificate";
/// Label of an [`EdgeNode`] that bars its name while it is there with any value but [`NOT_REVOKED`].
pub const REVOKED_LABEL: &str = "kubehive.io/revoked";
/// The value of [`REVOKED_LABEL`] that is written to bar.
pub const REVOKED: &str = "true";
/// The only value of [`REVOKED_LABEL`] that does not bar.
pub const NOT_REVOKED: &str = "false";

/// What is known of a node that joined. Nothing here is secret.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kubehive.io",
    version = "v1alpha1",
    kind = "EdgeNode",
    plural = "edgenodes",
    singular = "edgenode",
    shortname = "en",
    derive = "Default",
    derive = "PartialEq",
    doc = "A name in the register of edge nodes. The label kubehive.io/revoked=true bars it; deleting it frees it.",
    printcolumn(name = "Revoked", type_ = "string", json_path = ".metadata.labels.kubehive\\.io/revoked"),
    printcolumn(name = "Owner", type_ = "string", json_path = ".spec.owner"),
    printcolumn(name = "Until", type_ = "string", json_path = ".spec.notAfter"),
    printcolumn(
        name = "Certificate",
        type_ = "string",
        json_path = ".metadata.annotations.kubehive\\.io/certificate",
        priority = 1
    ),
    printcolumn(name = "Node-UID", type_ = "string", json_path = ".spec.nodeUID", priority = 1),
    printcolumn(name = "Token", type_ = "string", json_path = ".spec.token", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct EdgeNodeSpec {
    /// The serial of the newest certificate that was used, living or not, lower-case hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub serial: Option<String>,
    /// When the newest certificate that was used ends, as RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub not_after: Option<String>,
    /// When the certificates end that may take its place, as RFC 3339, between commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub next_not_after: Option<String>,
    /// The serial of the certificate that the node joined with, if that was renewed since; lower-case hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub enrolment_serial: Option<String>,
    /// The uid of the Node object that is this node's; absent until there is one.
    #[serde(rename = "nodeUID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub node_uid: Option<String>,
    /// Whether the name has or had a Node object: only a token that is bound to it joins under it then. It stays when nodeUID goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub had_node: Option<bool>,
    /// How the Node object came to be this node's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<NodeOwner>,
    /// The id of the token that the node joined with.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub token: Option<String>,
    /// When it joined, as RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub joined_at: Option<String>,
}

/// How a Node object came to be ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum NodeOwner {
    /// CloudCore made it.
    Made,
    /// An administrator adopted it.
    Adopted,
}
