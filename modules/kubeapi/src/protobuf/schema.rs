//! How messages are laid out: number, JSON name and type of each field, as `generated.proto` of Kubernetes v1.36 has
//! them. Numbers are never given twice, so older clients are understood, too.

use super::schema_access as access;
use super::schema_core as core;
use super::schema_meta as meta;
use super::schema_node as node;
use super::schema_pod as pod;
use super::schema_workload as workload;

/// A message.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) name: &'static str,
    pub(super) fields: &'static [Field],
}

/// A field of a message.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    /// Its JSON name; empty for [`Count::Inline`].
    pub(super) name: &'static str,
    pub(super) of: Type,
    pub(super) count: Count,
}

/// How often a field is there, and how that looks in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    /// Once; what is on the wire is said, zero or not.
    Said,
    /// Once; a zero on the wire is as good as none. Go always writes these fields, and JSON leaves the zeros out.
    Full,
    /// Any number of times: a list.
    List,
    /// Any number of pairs with text as the key: an object.
    Map,
    /// Once; the fields of the inner message are those of the outer one in JSON.
    Inline,
}

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Type {
    Text,
    Bool,
    Int32,
    Int64,
    /// Base64 in JSON.
    Bytes,
    Message(&'static Message),
    /// A message around a text.
    Quantity,
    /// A message that says which of the two it is.
    IntOrString,
    /// Seconds since 1970; RFC 3339 in JSON.
    Time,
    /// The same with microseconds.
    MicroTime,
    /// A message around JSON text.
    RawJson,
    /// A message around a list of texts.
    Words,
}

impl Message {
    pub(super) fn field(&self, number: u32) -> Option<&Field> {
        self.fields.iter().find(|field| field.number == number)
    }
}

pub(super) const fn said(number: u32, name: &'static str, of: Type) -> Field {
    Field { number, name, of, count: Count::Said }
}

pub(super) const fn full(number: u32, name: &'static str, of: Type) -> Field {
    Field { number, name, of, count: Count::Full }
}

pub(super) const fn list(number: u32, name: &'static str, of: Type) -> Field {
    Field { number, name, of, count: Count::List }
}

pub(super) const fn map(number: u32, name: &'static str, of: Type) -> Field {
    Field { number, name, of, count: Count::Map }
}

pub(super) const fn inline(number: u32, of: &'static Message) -> Field {
    Field { number, name: "", of: Type::Message(of), count: Count::Inline }
}

/// What a client may send: apiVersion, kind, message. DeleteOptions are not here: they go by any apiVersion.
pub(super) static KINDS: &[(&str, &str, &Message)] = &[
    ("v1", "Namespace", &core::NAMESPACE),
    ("v1", "Node", &node::NODE),
    ("v1", "Pod", &pod::POD),
    ("v1", "ConfigMap", &core::CONFIG_MAP),
    ("v1", "Secret", &core::SECRET),
    ("v1", "ServiceAccount", &core::SERVICE_ACCOUNT),
    ("v1", "Service", &core::SERVICE),
    ("v1", "Endpoints", &core::ENDPOINTS),
    ("v1", "Event", &core::EVENT),
    ("v1", "Binding", &core::BINDING),
    ("apps/v1", "Deployment", &workload::DEPLOYMENT),
    ("apps/v1", "ReplicaSet", &workload::REPLICA_SET),
    ("coordination.k8s.io/v1", "Lease", &workload::LEASE),
    ("discovery.k8s.io/v1", "EndpointSlice", &workload::ENDPOINT_SLICE),
    ("rbac.authorization.k8s.io/v1", "Role", &access::ROLE),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", &access::CLUSTER_ROLE),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", &access::ROLE_BINDING),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", &access::CLUSTER_ROLE_BINDING),
    ("authentication.k8s.io/v1", "TokenRequest", &access::TOKEN_REQUEST),
    ("authentication.k8s.io/v1", "TokenReview", &access::TOKEN_REVIEW),
    ("authorization.k8s.io/v1", "SubjectAccessReview", &access::SUBJECT_ACCESS_REVIEW),
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview", &access::SELF_SUBJECT_ACCESS_REVIEW),
    ("policy/v1", "Eviction", &access::EVICTION),
    ("autoscaling/v1", "Scale", &access::SCALE),
];

/// The message of a kind.
pub(super) fn of_kind(api_version: &str, kind: &str) -> Option<&'static Message> {
    if kind == "DeleteOptions" {
        return Some(&meta::DELETE_OPTIONS);
    }
    KINDS.iter().find(|known| (known.0, known.1) == (api_version, kind)).map(|known| known.2)
}
