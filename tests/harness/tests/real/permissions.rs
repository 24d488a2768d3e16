//! Tokens of accounts that may do one powerful thing, and no other.

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::{Attack, Attempts, Fixture, call, token, until};

const RBAC: &str = "rbac.authorization.k8s.io/v1";
const WRITE: [&str; 3] = ["create", "update", "patch"];
const WRITE_AND_REMOVE: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];
/// The group of what constrained impersonation is of (Kubernetes 1.36).
const AUTHENTICATION: &str = "authentication.k8s.io";

/// Where an account may do something.
#[derive(Clone, Copy, PartialEq)]
enum Scope {
    Own,
    /// In a namespace that others live by.
    Of(&'static str),
    Everywhere,
}

const SYSTEM_NAMESPACE: Scope = Scope::Of("kube-system");

/// `group`, `resource`, verbs.
type Permission = (&'static str, &'static str, &'static [&'static str]);

const OWN: [Permission; 18] = [
    ("", "pods", &WRITE),
    ("", "pods/exec", &["create", "get"]),
    ("", "pods/attach", &["create", "get"]),
    ("", "pods/ephemeralcontainers", &["update", "patch"]),
    ("", "secrets", &["get", "list", "watch", "create", "update", "patch"]),
    ("", "serviceaccounts/token", &["create"]),
    ("", "serviceaccounts", &["impersonate"]),
    (AUTHENTICATION, "serviceaccounts", &["impersonate:serviceaccount"]),
    ("", "namespaces", &["update", "patch"]),
    ("apps", "deployments", &WRITE),
    ("apps", "daemonsets", &WRITE),
    ("apps", "statefulsets", &WRITE),
    ("apps", "replicasets", &WRITE),
    ("", "replicationcontrollers", &WRITE),
    ("batch", "jobs", &WRITE),
    ("batch", "cronjobs", &WRITE),
    ("rbac.authorization.k8s.io", "roles", &["create", "update", "patch", "escalate", "bind"]),
    ("rbac.authorization.k8s.io", "rolebindings", &WRITE),
];

const SYSTEM: [Permission; 22] = [
    ("", "pods", &WRITE),
    ("", "pods/exec", &["create", "get"]),
    ("", "pods/attach", &["create", "get"]),
    ("", "pods/ephemeralcontainers", &["update", "patch"]),
    ("apps", "deployments", &WRITE),
    ("apps", "daemonsets", &WRITE),
    ("apps", "statefulsets", &WRITE),
    ("apps", "replicasets", &WRITE),
    ("", "replicationcontrollers", &WRITE),
    ("batch", "jobs", &WRITE),
    ("batch", "cronjobs", &WRITE),
    ("", "serviceaccounts/token", &["create"]),
    ("", "serviceaccounts", &["impersonate"]),
    (AUTHENTICATION, "serviceaccounts", &["impersonate:serviceaccount"]),
    ("rbac.authorization.k8s.io", "roles", &["create", "update", "patch", "escalate", "bind"]),
    ("rbac.authorization.k8s.io", "rolebindings", &WRITE),
    ("", "secrets", &["get", "list", "watch", "create", "update", "patch"]),
    ("", "pods/portforward", &["create", "get"]),
    ("", "configmaps", &WRITE),
    ("", "endpoints", &WRITE),
    ("discovery.k8s.io", "endpointslices", &WRITE),
    ("", "services", &["update", "patch"]),
];

const KUBEEDGE: [Permission; 18] = [
    ("", "pods", &WRITE),
    ("", "pods/exec", &["create", "get"]),
    ("", "pods/attach", &["create", "get"]),
    ("", "pods/ephemeralcontainers", &["update", "patch"]),
    ("apps", "deployments", &WRITE),
    ("apps", "daemonsets", &WRITE),
    ("apps", "statefulsets", &WRITE),
    ("apps", "replicasets", &WRITE),
    ("", "replicationcontrollers", &WRITE),
    ("batch", "jobs", &WRITE),
    ("batch", "cronjobs", &WRITE),
    ("", "serviceaccounts/token", &["create"]),
    ("", "serviceaccounts", &["impersonate"]),
    (AUTHENTICATION, "serviceaccounts", &["impersonate:serviceaccount"]),
    ("rbac.authorization.k8s.io", "roles", &["create", "update", "patch", "escalate", "bind"]),
    ("rbac.authorization.k8s.io", "rolebindings", &WRITE),
    ("", "secrets", &["get", "list", "watch", "create", "update", "patch"]),
    ("", "configmaps", &["update", "patch"]),
];

/// Where it is said which nodes are CloudCore's.
const NODES: [Permission; 1] = [("rbac.authorization.k8s.io", "rolebindings", &WRITE)];

/// Where the API server's own Service is.
const DEFAULT: [Permission; 3] = [
    ("", "endpoints", &["update", "patch"]),
    ("discovery.k8s.io", "endpointslices", &WRITE),
    ("", "services", &["update", "patch"]),
];

const EVERYWHERE: [Permission; 35] = [
    ("*", "*", &["*"]),
    ("", "pods", &WRITE),
    ("", "pods/exec", &["create"]),
    ("", "secrets", &["get", "list", "watch", "create"]),
    ("", "serviceaccounts/token", &["create"]),
    ("apps", "deployments", &WRITE),
    ("batch", "cronjobs", &WRITE),
    ("rbac.authorization.k8s.io", "clusterroles", &["create", "update", "patch", "escalate", "bind"]),
    ("rbac.authorization.k8s.io", "clusterrolebindings", &WRITE),
    ("rbac.authorization.k8s.io", "rolebindings", &WRITE),
    ("", "users", &["impersonate"]),
    ("", "groups", &["impersonate"]),
    (AUTHENTICATION, "users", &["impersonate:user-info"]),
    (AUTHENTICATION, "groups", &["impersonate:user-info"]),
    (AUTHENTICATION, "nodes", &["impersonate:arbitrary-node", "impersonate:associated-node"]),
    ("certificates.k8s.io", "certificatesigningrequests/nodeclient", &["create"]),
    ("certificates.k8s.io", "certificatesigningrequests/selfnodeclient", &["create"]),
    ("certificates.k8s.io", "certificatesigningrequests/approval", &["update", "patch"]),
    ("certificates.k8s.io", "signers", &["approve", "sign", "attest"]),
    ("certificates.k8s.io", "clustertrustbundles", &WRITE),
    ("", "nodes", &["create", "update", "patch", "delete"]),
    ("", "nodes/status", &["update", "patch"]),
    ("", "nodes/proxy", &["get", "create"]),
    ("", "persistentvolumes", &WRITE),
    ("", "namespaces", &["update", "patch"]),
    ("kubehive.io", "edgenodes", &["create", "update", "patch", "delete"]),
    ("kubehive.io", "jointokens", &WRITE),
    ("apiextensions.k8s.io", "customresourcedefinitions", &WRITE),
    ("apiregistration.k8s.io", "apiservices", &WRITE),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", &WRITE_AND_REMOVE),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", &WRITE_AND_REMOVE),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies", &WRITE_AND_REMOVE),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings", &WRITE_AND_REMOVE),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies", &WRITE_AND_REMOVE),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings", &WRITE_AND_REMOVE),
];

/// The role of the account `probe`: that rule, or none.
async fn give(fixture: &Fixture, within: Scope, rule: Option<Value>) {
    let (kind, namespace) = match within {
        Scope::Own => ("Role", Some(fixture.namespace.as_str())),
        Scope::Of(namespace) => ("Role", Some(namespace)),
        Scope::Everywhere => ("ClusterRole", None),
    };
    let name = format!("{}-probe", fixture.namespace);
    let rules: Vec<Value> = rule.into_iter().collect();
    let roles = fixture.objects(RBAC, kind, namespace);
    if roles.get_opt(&name).await.unwrap().is_some() {
        let patch = Patch::Merge(json!({"rules": rules}));
        roles.patch(&name, &PatchParams::default(), &patch).await.unwrap();
        return;
    }
    fixture.make(RBAC, kind, namespace, json!({"metadata": {"name": name}, "rules": rules})).await;
    let binding = json!({"metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": "probe", "namespace": fixture.namespace}]});
    fixture.make(RBAC, &format!("{kind}Binding"), namespace, binding).await;
}

/// The API server knows that the account may do it, or no longer may.
async fn until_known(
    fixture: &Fixture,
    within: Scope,
    (group, resource, verb): (&str, &str, &str),
    may: bool,
) {
    let namespace = match within {
        Scope::Own => fixture.namespace.as_str(),
        Scope::Of(namespace) => namespace,
        Scope::Everywhere => "",
    };
    let (kind, sub) = resource.split_once('/').unwrap_or((resource, ""));
    let name = if kind == "namespaces" { namespace } else { "" };
    let user = format!("system:serviceaccount:{}:probe", fixture.namespace);
    let asked = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {"user": user,
        "resourceAttributes": {"group": group, "resource": kind, "subresource": sub, "verb": verb,
            "namespace": namespace, "name": name}}});
    until(&format!("{verb} {group}/{resource} in `{namespace}`: {may}"), async || {
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let answer = call(&fixture.admin, "POST", path, None, asked.clone()).await.unwrap();
        answer["status"]["allowed"] == may
    })
    .await;
}

fn rule(group: &str, resource: &str, verb: &str) -> Value {
    // A server of OpenShift takes a question for the one to mean the other.
    let resources =
        if resource == "nodes/proxy" { vec![resource, "nodes/unsafeproxy"] } else { vec![resource] };
    json!({"apiGroups": [group], "resources": resources, "verbs": [verb]})
}

fn path(fixture: &Fixture) -> String {
    format!("/api/v1/namespaces/{}/serviceaccounts/probe/token", fixture.namespace)
}

/// Whether a token is refused to an account for a right that the last of our policies asks for.
pub(crate) async fn are_judged(fixture: &Fixture) -> bool {
    let asked = ("", "pods", "create");
    give(fixture, SYSTEM_NAMESPACE, Some(rule(asked.0, asked.1, asked.2))).await;
    until_known(fixture, SYSTEM_NAMESPACE, asked, true).await;
    let granted = fixture.does("POST", &path(fixture), token(Some(("nobody", "u")), 3600)).await;
    granted.is_err_and(|refused| refused.is_by_policy())
}

pub(crate) async fn tokens(fixture: &Fixture) -> Vec<Attack> {
    let mut t = Attempts(fixture, Vec::new());
    let uid = fixture.pod("probe", Some(&fixture.edge), "probe").await;
    let asked = token(Some(("probe", &uid)), 3600);
    give(fixture, SYSTEM_NAMESPACE, None).await;
    for (within, powers) in [
        (Scope::Own, &OWN[..]),
        (SYSTEM_NAMESPACE, &SYSTEM),
        (Scope::Of("kubeedge"), &KUBEEDGE),
        (Scope::Of("kubehive-nodes"), &NODES),
        (Scope::Of("default"), &DEFAULT),
        (Scope::Everywhere, &EVERYWHERE),
    ] {
        let place = match within {
            Scope::Own => "its namespace",
            Scope::Of(namespace) => namespace,
            Scope::Everywhere => "the cluster",
        };
        let mut last = None;
        let each = powers
            .iter()
            .flat_map(|(group, resource, verbs)| verbs.iter().map(move |verb| (*group, *resource, *verb)));
        for power in each {
            give(fixture, within, Some(rule(power.0, power.1, power.2))).await;
            until_known(fixture, within, power, true).await;
            if let Some(last) = last.replace(power) {
                until_known(fixture, within, last, false).await;
            }
            let what = format!("get a token of an account that may {} {} in {place}", power.2, power.1);
            t.tries(&what, "POST", &path(fixture), asked.clone()).await;
        }
        give(fixture, within, None).await;
        if let Some(last) = last {
            until_known(fixture, within, last, false).await;
        }
    }
    // What is harmless stays so: the refusals above were of the powers.
    let harmless = ("", "configmaps", "get");
    give(fixture, Scope::Own, Some(rule(harmless.0, harmless.1, harmless.2))).await;
    until_known(fixture, Scope::Own, harmless, true).await;
    let granted = fixture.does("POST", &path(fixture), asked).await;
    granted.unwrap_or_else(|refused| panic!("a harmless account gets no token: {refused:?}"));
    t.1
}

/// Removes what was made outside the test's namespace.
pub(crate) async fn clear(fixture: &Fixture) {
    let name = format!("{}-probe", fixture.namespace);
    let namespaces =
        ["kube-system", "kubeedge", "kubehive-nodes", "default"].map(|namespace| ("Role", Some(namespace)));
    for (kind, namespace) in namespaces.into_iter().chain([("ClusterRole", None)]) {
        for kind in [kind.to_owned(), format!("{kind}Binding")] {
            let _ = fixture.objects(RBAC, &kind, namespace).delete(&name, &DeleteParams::default()).await;
        }
    }
}
