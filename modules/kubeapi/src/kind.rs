//! The kinds that are served: those built in, and those of CustomResourceDefinitions.

use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1 as apps, coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery,
    rbac::v1 as rbac,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::custom::Custom;
use crate::failure::Names;
use crate::strict;

/// How names of a kind look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameRule {
    /// DNS-1123 subdomain.
    Subdomain,
    /// DNS-1123 label.
    Label,
    /// DNS-1035 label.
    Label1035,
    /// Anything that is one segment of a path.
    Segment,
}

/// Which writes go to `status` alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// There is no status subresource.
    None,
    /// There is one; what a create says of the status is dropped.
    Separate,
    /// There is one; a create may say the first status (nodes do when they register).
    FirstWithCreate,
}

type Shape = fn(&Value) -> Result<Value, String>;

/// A kind that is served.
#[derive(Clone)]
pub(crate) struct Kind {
    pub(crate) group: Arc<str>,
    pub(crate) version: Arc<str>,
    pub(crate) kind: Arc<str>,
    pub(crate) list_kind: Arc<str>,
    pub(crate) plural: Arc<str>,
    pub(crate) singular: Arc<str>,
    pub(crate) short_names: Vec<Arc<str>>,
    pub(crate) categories: Vec<Arc<str>>,
    pub(crate) namespaced: bool,
    pub(crate) status: Status,
    pub(crate) scale: bool,
    /// Whether `metadata.generation` counts changes of the spec.
    pub(crate) generation: bool,
    /// Whether an update without a resourceVersion is taken.
    pub(crate) blind_updates: bool,
    pub(crate) name_rule: NameRule,
    pub(crate) source: Source,
}

/// Where a kind's rules come from.
#[derive(Clone)]
pub(crate) enum Source {
    /// A typed kind: reads and writes it, so that what is lost on the way is unknown.
    BuiltIn(Shape),
    /// A CustomResourceDefinition.
    Custom(Arc<Custom>),
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} {}", self.group, self.version, self.kind)
    }
}

fn shape<T: DeserializeOwned + Serialize>(value: &Value) -> Result<Value, String> {
    strict::shape::<T>(value)
}

impl Kind {
    fn built_in<T: DeserializeOwned + Serialize>(
        api_version: &str,
        kind: &str,
        plural: &str,
        short_names: &[&str],
    ) -> Kind {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Kind {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            list_kind: format!("{kind}List").into(),
            plural: plural.into(),
            singular: kind.to_ascii_lowercase().into(),
            short_names: short_names.iter().map(|name| Arc::from(*name)).collect(),
            categories: Vec::new(),
            namespaced: true,
            status: Status::None,
            scale: false,
            generation: false,
            blind_updates: true,
            name_rule: NameRule::Subdomain,
            source: Source::BuiltIn(shape::<T>),
        }
    }

    fn cluster(mut self) -> Kind {
        self.namespaced = false;
        self
    }

    fn status(mut self, status: Status) -> Kind {
        self.status = status;
        self
    }

    fn all(mut self) -> Kind {
        self.categories.push("all".into());
        self
    }

    fn names(mut self, rule: NameRule) -> Kind {
        self.name_rule = rule;
        self
    }

    pub(crate) fn names_of(&self) -> Names<'_> {
        Names { group: &self.group, plural: &self.plural, kind: &self.kind }
    }

    /// `plural` for the core group, `plural.group` for the others: how the store knows it.
    pub(crate) fn group_resource(&self) -> String {
        self.names_of().group_resource()
    }

    /// `v1`, `apps/v1`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    pub(crate) fn is(&self, group_resource: &str) -> bool {
        self.group_resource() == group_resource
    }
}

/// The kinds that are there without any definition.
pub(crate) fn built_in() -> Vec<Kind> {
    let mut deployments =
        Kind::built_in::<apps::Deployment>("apps/v1", "Deployment", "deployments", &["deploy"])
            .status(Status::Separate)
            .all();
    let mut replica_sets =
        Kind::built_in::<apps::ReplicaSet>("apps/v1", "ReplicaSet", "replicasets", &["rs"])
            .status(Status::Separate)
            .all();
    for scaled in [&mut deployments, &mut replica_sets] {
        scaled.scale = true;
        scaled.generation = true;
    }
    let mut definitions = Kind::built_in::<CustomResourceDefinition>(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        &["crd", "crds"],
    )
    .cluster()
    .status(Status::Separate);
    definitions.generation = true;
    definitions.blind_updates = false;
    let mut leases = Kind::built_in::<coordination::Lease>("coordination.k8s.io/v1", "Lease", "leases", &[]);
    leases.blind_updates = false;
    const RBAC: &str = "rbac.authorization.k8s.io/v1";
    vec![
        Kind::built_in::<core::Namespace>("v1", "Namespace", "namespaces", &["ns"])
            .cluster()
            .status(Status::Separate)
            .names(NameRule::Label),
        Kind::built_in::<core::Node>("v1", "Node", "nodes", &["no"])
            .cluster()
            .status(Status::FirstWithCreate),
        Kind::built_in::<core::Pod>("v1", "Pod", "pods", &["po"]).status(Status::Separate).all(),
        Kind::built_in::<core::ConfigMap>("v1", "ConfigMap", "configmaps", &["cm"]),
        Kind::built_in::<core::Secret>("v1", "Secret", "secrets", &[]),
        Kind::built_in::<core::ServiceAccount>("v1", "ServiceAccount", "serviceaccounts", &["sa"]),
        Kind::built_in::<core::Service>("v1", "Service", "services", &["svc"])
            .status(Status::Separate)
            .all()
            .names(NameRule::Label1035),
        Kind::built_in::<core::Endpoints>("v1", "Endpoints", "endpoints", &["ep"]),
        Kind::built_in::<core::Event>("v1", "Event", "events", &["ev"]),
        deployments,
        replica_sets,
        leases,
        Kind::built_in::<discovery::EndpointSlice>(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            "endpointslices",
            &[],
        ),
        Kind::built_in::<rbac::ClusterRole>(RBAC, "ClusterRole", "clusterroles", &[])
            .cluster()
            .names(NameRule::Segment),
        Kind::built_in::<rbac::ClusterRoleBinding>(RBAC, "ClusterRoleBinding", "clusterrolebindings", &[])
            .cluster()
            .names(NameRule::Segment),
        Kind::built_in::<rbac::Role>(RBAC, "Role", "roles", &[]).names(NameRule::Segment),
        Kind::built_in::<rbac::RoleBinding>(RBAC, "RoleBinding", "rolebindings", &[])
            .names(NameRule::Segment),
        definitions,
    ]
}
