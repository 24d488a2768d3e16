//! The kinds that are served: those built in, and those of CustomResourceDefinitions.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use apimachinery::{Kind, kind};
use serde_json::Value;

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

/// Whether a kind has the `status` subresource, and who writes the first status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatusSubresource {
    /// There is no status subresource.
    None,
    /// There is one; what a create says of the status is dropped.
    Separate,
    /// There is one; a create may say the first status (nodes do when they register).
    FirstWithCreate,
}

/// A kind that is served.
#[derive(Clone)]
pub(crate) struct ServedKind {
    /// Its group, version, kind and resource.
    pub(crate) of: Kind,
    pub(crate) list_kind: Arc<str>,
    pub(crate) singular: Arc<str>,
    pub(crate) short_names: Vec<Arc<str>>,
    pub(crate) categories: Vec<Arc<str>>,
    pub(crate) status: StatusSubresource,
    pub(crate) scale: bool,
    /// Whether `metadata.generation` counts changes of the spec.
    pub(crate) generation: bool,
    /// Whether an update without a resourceVersion is taken.
    pub(crate) allows_unconditional_update: bool,
    pub(crate) name_rule: NameRule,
    pub(crate) source: Source,
}

/// A served kind is a kind, and more.
impl std::ops::Deref for ServedKind {
    type Target = Kind;
    fn deref(&self) -> &Kind {
        &self.of
    }
}

/// Where a kind's rules come from.
#[derive(Clone)]
pub(crate) enum Source {
    /// Kubernetes' own types.
    BuiltIn,
    /// A CustomResourceDefinition.
    Custom(Arc<CustomKind>),
}

/// What a served version of a definition says.
#[derive(Debug)]
pub(crate) struct CustomKind {
    /// `openAPIV3Schema`: a structural schema.
    pub(crate) schema: Value,
    pub(crate) columns: Vec<PrinterColumn>,
    /// JSONPaths of the scale subresource: replicas in spec, in status, the selector.
    pub(crate) scale: Option<(String, String, String)>,
}

/// One of `additionalPrinterColumns`: a column of `kubectl get`.
#[derive(Debug, Clone)]
pub(crate) struct PrinterColumn {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) path: String,
    pub(crate) priority: i64,
    pub(crate) description: String,
}

impl std::fmt::Debug for ServedKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.api_version(), self.of.kind)
    }
}

impl ServedKind {
    /// A kind without subresources, whose names are DNS-1123 subdomains.
    pub(crate) fn new(of: Kind, source: Source) -> ServedKind {
        ServedKind {
            list_kind: format!("{}List", of.kind).into(),
            singular: of.kind.to_ascii_lowercase().into(),
            of,
            short_names: Vec::new(),
            categories: Vec::new(),
            status: StatusSubresource::None,
            scale: false,
            generation: false,
            allows_unconditional_update: true,
            name_rule: NameRule::Subdomain,
            source,
        }
    }

    fn built_in(of: Kind, short_names: &[&str]) -> ServedKind {
        let short_names = short_names.iter().map(|name| Arc::from(*name)).collect();
        ServedKind { short_names, ..ServedKind::new(of, Source::BuiltIn) }
    }

    fn status(mut self, status: StatusSubresource) -> ServedKind {
        self.status = status;
        self
    }

    fn all(mut self) -> ServedKind {
        self.categories.push("all".into());
        self
    }

    fn names(mut self, rule: NameRule) -> ServedKind {
        self.name_rule = rule;
        self
    }

    fn scaled(mut self) -> ServedKind {
        self.scale = true;
        self.generation = true;
        self
    }

    pub(crate) fn is(&self, group_resource: &str) -> bool {
        self.group_resource() == group_resource
    }
}

/// The kinds that are there without any definition.
pub(crate) fn built_in() -> Vec<ServedKind> {
    use StatusSubresource::{FirstWithCreate, Separate};
    let of = ServedKind::built_in;
    let definitions = ServedKind {
        generation: true,
        allows_unconditional_update: false,
        ..of(kind::CUSTOM_RESOURCE_DEFINITIONS, &["crd", "crds"]).status(Separate)
    };
    vec![
        of(kind::NAMESPACES, &["ns"]).status(Separate).names(NameRule::Label),
        of(kind::NODES, &["no"]).status(FirstWithCreate),
        ServedKind { generation: true, ..of(kind::PODS, &["po"]).status(Separate).all() },
        of(kind::PERSISTENT_VOLUME_CLAIMS, &["pvc"]).status(Separate),
        of(kind::PERSISTENT_VOLUMES, &["pv"]).status(Separate),
        of(kind::CSI_DRIVERS, &[]),
        of(kind::CSI_NODES, &[]),
        of(kind::RUNTIME_CLASSES, &[]),
        of(kind::VOLUME_ATTACHMENTS, &[]).status(Separate),
        of(kind::CONFIG_MAPS, &["cm"]),
        of(kind::SECRETS, &[]),
        of(kind::SERVICE_ACCOUNTS, &["sa"]),
        of(kind::SERVICES, &["svc"]).status(Separate).all().names(NameRule::Label1035),
        of(kind::ENDPOINTS, &["ep"]),
        of(kind::EVENTS, &["ev"]),
        of(kind::DEPLOYMENTS, &["deploy"]).status(Separate).all().scaled(),
        of(kind::REPLICA_SETS, &["rs"]).status(Separate).all().scaled(),
        ServedKind { allows_unconditional_update: false, ..of(kind::LEASES, &[]) },
        of(kind::ENDPOINT_SLICES, &[]),
        of(kind::CLUSTER_ROLES, &[]).names(NameRule::Segment),
        of(kind::CLUSTER_ROLE_BINDINGS, &[]).names(NameRule::Segment),
        of(kind::ROLES, &[]).names(NameRule::Segment),
        of(kind::ROLE_BINDINGS, &[]).names(NameRule::Segment),
        definitions,
    ]
}

/// Groups of which nothing is stored: of reviews, scales and evictions.
const GROUPS_OF_REQUESTS: [&str; 4] =
    ["authentication.k8s.io", "authorization.k8s.io", "autoscaling", "policy"];

/// The groups of [`built_in`] and of requests, and the GroupResources of [`built_in`].
static BUILT_IN_NAMES: LazyLock<(BTreeSet<String>, BTreeSet<String>)> = LazyLock::new(|| {
    let kinds = built_in();
    let groups = kinds.iter().map(|kind| kind.group.to_string());
    let requests = GROUPS_OF_REQUESTS.map(str::to_owned);
    (groups.chain(requests).collect(), kinds.iter().map(|kind| kind.group_resource()).collect())
});

/// Whether a definition of `plural` in `group` would be about what the server has of itself: a group of its own, or objects that lie
/// where those of a built-in kind do (`leases.coordination` of `k8s.io`).
pub(crate) fn is_built_in(group: &str, plural: &str) -> bool {
    let (groups, resources) = &*BUILT_IN_NAMES;
    groups.contains(group) || resources.contains(&format!("{plural}.{group}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_in_is_known_by_its_group_and_by_where_its_objects_lie() {
        for kind in built_in() {
            assert!(is_built_in(&kind.group, &kind.plural) && is_built_in(&kind.group, "xs"), "{kind:?}");
        }
        assert!(is_built_in("authorization.k8s.io", "subjectaccessreviews"));
        assert!(
            is_built_in("k8s.io", "leases.coordination") && is_built_in("authorization.k8s.io", "roles.rbac")
        );
        assert!(!is_built_in("snapshot.storage.k8s.io", "volumesnapshots") && !is_built_in("x.io", "pods"));
    }
}
