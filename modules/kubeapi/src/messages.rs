//! The messages of Kubernetes' kinds: the files in `proto/`, with names and numbers as in `generated.proto` of
//! Kubernetes v1.36. Numbers are never given twice, so older clients are understood, too.
//!
//! A field with `optional` is in JSON as it is on the wire, zero or not. A field without is left out of JSON where it is
//! zero: Go always writes these (`omitempty` in Kubernetes' types).

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};

/// Decoded at the first protobuf body. Empty if it could not be, so that every such body is refused; a test finds each
/// kind in it.
static MESSAGES: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let compiled: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kubernetes.binpb"));
    DescriptorPool::decode(compiled).unwrap_or_default()
});

/// What a client may send: apiVersion, the package of its messages, kinds. DeleteOptions are not here: they go by any
/// apiVersion.
pub(crate) const KINDS: &[(&str, &str, &[&str])] = &[
    (
        "v1",
        "k8s.io.api.core.v1",
        &[
            "Namespace",
            "Node",
            "Pod",
            "PersistentVolumeClaim",
            "PersistentVolume",
            "ConfigMap",
            "Secret",
            "ServiceAccount",
            "Service",
            "Endpoints",
            "Event",
            "Binding",
        ],
    ),
    ("apps/v1", "k8s.io.api.apps.v1", &["Deployment", "ReplicaSet"]),
    ("coordination.k8s.io/v1", "k8s.io.api.coordination.v1", &["Lease"]),
    ("discovery.k8s.io/v1", "k8s.io.api.discovery.v1", &["EndpointSlice"]),
    (
        "rbac.authorization.k8s.io/v1",
        "k8s.io.api.rbac.v1",
        &["Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"],
    ),
    (
        "authentication.k8s.io/v1",
        "k8s.io.api.authentication.v1",
        &["TokenRequest", "TokenReview", "SelfSubjectReview"],
    ),
    (
        "authorization.k8s.io/v1",
        "k8s.io.api.authorization.v1",
        &["SubjectAccessReview", "SelfSubjectAccessReview", "SelfSubjectRulesReview"],
    ),
    ("storage.k8s.io/v1", "k8s.io.api.storage.v1", &["CSIDriver", "CSINode", "VolumeAttachment"]),
    ("node.k8s.io/v1", "k8s.io.api.node.v1", &["RuntimeClass"]),
    ("policy/v1", "k8s.io.api.policy.v1", &["Eviction"]),
    ("autoscaling/v1", "k8s.io.api.autoscaling.v1", &["Scale"]),
];

/// The package of what all kinds share.
const META: &str = "k8s.io.apimachinery.pkg.apis.meta.v1";

/// The message of a kind.
pub(crate) fn of_kind(api_version: &str, kind: &str) -> Option<MessageDescriptor> {
    let package = if kind == "DeleteOptions" {
        META
    } else {
        let served = KINDS.iter().find(|served| served.0 == api_version && served.2.contains(&kind))?;
        served.1
    };
    MESSAGES.get_message_by_name(&format!("{package}.{kind}"))
}

/// Messages that are no object in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WellKnownType {
    /// A text.
    Quantity,
    /// A number or a text.
    IntOrString,
    /// RFC 3339 in whole seconds.
    Time,
    /// RFC 3339 in microseconds.
    MicroTime,
    /// JSON as bytes.
    FieldsV1,
    /// A list of texts.
    ExtraValue,
}

impl WellKnownType {
    pub(crate) fn of(message: &MessageDescriptor) -> Option<WellKnownType> {
        match message.full_name() {
            "k8s.io.apimachinery.pkg.api.resource.Quantity" => Some(WellKnownType::Quantity),
            "k8s.io.apimachinery.pkg.util.intstr.IntOrString" => Some(WellKnownType::IntOrString),
            "k8s.io.apimachinery.pkg.apis.meta.v1.Time" => Some(WellKnownType::Time),
            "k8s.io.apimachinery.pkg.apis.meta.v1.MicroTime" => Some(WellKnownType::MicroTime),
            "k8s.io.apimachinery.pkg.apis.meta.v1.FieldsV1" => Some(WellKnownType::FieldsV1),
            "k8s.io.api.authentication.v1.ExtraValue" | "k8s.io.api.authorization.v1.ExtraValue" => {
                Some(WellKnownType::ExtraValue)
            }
            _ => None,
        }
    }
}

/// The fields that Go embeds: in JSON the fields of their message are those of the message around it.
const EMBEDDED: [&str; 5] = [
    "ephemeralContainerCommon",
    "localObjectReference",
    "persistentVolumeSource",
    "probeHandler",
    "volumeSource",
];

/// The message of a field that Go embeds.
pub(crate) fn embedded(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(message) if EMBEDDED.contains(&field.name()) => Some(message),
        _ => None,
    }
}
