//! CloudCore's account in a real Kubernetes: what it can do, and what whoever stole its token cannot.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use harness::{Cluster, Node, RealCluster, resource, run};
use http::Request;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// 20 s for what the cluster's own controllers do.
const SOON: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(200);

/// A call, as somebody.
async fn call(
    client: &kube::Client,
    method: &str,
    path: &str,
    user: Option<&str>,
    body: Value,
) -> Result<Value, Refused> {
    let kind = match method {
        "PATCH" => "application/strategic-merge-patch+json",
        "MERGE" => "application/merge-patch+json",
        _ => "application/json",
    };
    let method = if method == "MERGE" { "PATCH" } else { method };
    let mut request = Request::builder().method(method).uri(path).header("content-type", kind);
    if let Some(user) = user {
        request = request.header("impersonate-user", user);
    }
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    match client.request::<Value>(request.body(body).unwrap()).await {
        Ok(value) => Ok(value),
        Err(kube::Error::Api(status)) => Err(Refused { code: status.code, reason: status.message }),
        Err(error) => panic!("{path}: {error}"),
    }
}

/// What an API server said instead.
#[derive(Debug)]
struct Refused {
    code: u16,
    reason: String,
}

impl Refused {
    /// It has no such right, or a policy of ours forbids it. Whatever else was wrong with a call proves nothing.
    fn is_for_want_of_right(&self) -> bool {
        self.code == 403 || self.is_by_policy()
    }

    fn is_by_policy(&self) -> bool {
        self.code == 422 && self.reason.contains("ValidatingAdmissionPolicy 'kubehive-")
    }
}

/// What a test made, for its end.
struct Stage {
    admin: kube::Client,
    account: kube::Client,
    namespace: String,
    /// Ours, by CloudCore's own hand.
    edge: String,
    /// Somebody else's, with the label of an edge node.
    foreign: String,
    /// A machine of the control plane.
    plane: String,
}

impl Stage {
    fn objects(&self, api_version: &str, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) => {
                Api::namespaced_with(self.admin.clone(), namespace, &resource(api_version, kind))
            }
            None => Api::all_with(self.admin.clone(), &resource(api_version, kind)),
        }
    }

    async fn make(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        mut object: Value,
    ) -> DynamicObject {
        object["apiVersion"] = api_version.into();
        object["kind"] = kind.into();
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let made = self.objects(api_version, kind, namespace).create(&PostParams::default(), &object).await;
        made.unwrap_or_else(|error| panic!("{kind}: {error}"))
    }

    async fn set(cluster: &RealCluster) -> Stage {
        let id = std::process::id();
        let stage = Stage {
            admin: cluster.admin(),
            account: cluster.account().await,
            namespace: format!("kubehive-test-{id}"),
            edge: format!("kubehive-edge-{id}"),
            foreign: format!("kubehive-foreign-{id}"),
            plane: format!("kubehive-plane-{id}"),
        };
        stage.make("v1", "Namespace", None, json!({"metadata": {"name": stage.namespace}})).await;
        stage
            .make(
                "v1",
                "Node",
                None,
                json!({"metadata": {"name": stage.plane,
            "labels": {"node-role.kubernetes.io/control-plane": ""}}}),
            )
            .await;
        stage
            .make(
                "v1",
                "Node",
                None,
                json!({"metadata": {"name": stage.foreign,
            "labels": {"node-role.kubernetes.io/edge": ""}}}),
            )
            .await;
        stage.make("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", None, json!({
            "metadata": {"name": stage.namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "powerful", "namespace": stage.namespace}]})).await;
        let ns = Some(stage.namespace.as_str());
        for account in ["plain", "powerful"] {
            stage.make("v1", "ServiceAccount", ns, json!({"metadata": {"name": account}})).await;
        }
        for secret in ["referred", "other"] {
            stage
                .make("v1", "Secret", ns, json!({"metadata": {"name": secret}, "stringData": {"k": "v"}}))
                .await;
        }
        stage
    }

    async fn pod(&self, name: &str, node: Option<&str>, account: &str) -> String {
        let pod = json!({"metadata": {"name": name}, "spec": {
            "nodeName": node, "serviceAccountName": account, "automountServiceAccountToken": false,
            "schedulingGates": if node.is_none() { json!([{"name": "kubehive.io/test"}]) } else { Value::Null },
            "containers": [{"name": "c", "image": "web:1",
                "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "referred", "key": "k"}}}]}]}});
        self.make("v1", "Pod", Some(&self.namespace), pod).await.metadata.uid.unwrap()
    }

    /// As the account.
    async fn does(&self, method: &str, path: &str, body: Value) -> Result<Value, Refused> {
        call(&self.account, method, path, None, body).await
    }

    async fn clear(self) {
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        let pods = self.objects("v1", "Pod", Some(&self.namespace));
        for pod in pods.list(&Default::default()).await.unwrap() {
            let _ = pods.delete(&pod.metadata.name.unwrap(), &now).await;
        }
        for node in [&self.edge, &self.foreign, &self.plane] {
            let _ = self.objects("v1", "Node", None).delete(node, &now).await;
            let leases = self.objects("coordination.k8s.io/v1", "Lease", Some("kube-node-lease"));
            let _ = leases.delete(node, &now).await;
            let _ = self.objects("kubehive.io/v1alpha1", "EdgeNode", None).delete(node, &now).await;
        }
        let _ = self.objects("kubehive.io/v1alpha1", "JoinToken", None).delete(&self.namespace, &now).await;
        let bindings = self.objects("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", None);
        let _ = bindings.delete(&self.namespace, &now).await;
        let _ = self.objects("v1", "Namespace", None).delete(&self.namespace, &now).await;
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(PAUSE).await;
        }
    };
    assert!(tokio::time::timeout(SOON, waiting).await.is_ok(), "waited in vain: {what}");
}

fn joined(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels,
        "annotations": {"kubehive.io/enrolment": "0a"}}})
}

fn token(pod: Option<(&str, &str)>, seconds: i64) -> Value {
    let bound = pod.map(|(name, uid)| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}));
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": [], "expirationSeconds": seconds, "boundObjectRef": bound}})
}

/// What CloudCore does, each once. Everything that the attack has to be told apart from.
async fn work(stage: &Stage) {
    let (ns, edge) = (&stage.namespace, &stage.edge);
    let must = async |what: &str, method: &str, path: &str, body: Value| {
        let done = stage.does(method, path, body).await;
        done.unwrap_or_else(|refused| panic!("CloudCore cannot {what}: {refused:?}"))
    };
    let labels = json!({"node-role.kubernetes.io/edge": "", "node-role.kubernetes.io/agent": ""});
    must("make a Node", "POST", "/api/v1/nodes", joined(edge, labels)).await;
    let node = format!("/api/v1/nodes/{edge}");
    let status = json!({"metadata": {"annotations": {"kubehive.io/reported": "1.1/u"}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    must("write a Node's status", "PATCH", &format!("{node}/status"), status).await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": edge}});
    must("make a Lease", "POST", leases, lease).await;
    must("renew a Lease", "MERGE", &format!("{leases}/{edge}"), json!({"spec": {"holderIdentity": edge}}))
        .await;

    let registered = json!({"apiVersion": "kubehive.io/v1alpha1", "kind": "EdgeNode", "metadata": {"name": edge}, "spec": {}});
    let mut entry = must("register a node", "POST", "/apis/kubehive.io/v1alpha1/edgenodes", registered).await;
    entry["metadata"]["annotations"] = json!({"kubehive.io/certificate": "0a"});
    must("note a certificate", "PUT", &format!("/apis/kubehive.io/v1alpha1/edgenodes/{edge}"), entry).await;
    must("see the register", "GET", "/apis/kubehive.io/v1alpha1/edgenodes", Value::Null).await;

    let uid = stage.pod("edge", Some(edge), "plain").await;
    let pod = format!("/api/v1/namespaces/{ns}/pods/edge");
    let held = must("see pods", "GET", &pod, Value::Null).await;
    let mut tolerations = held["spec"]["tolerations"].clone();
    let tolerated = tolerations.as_array_mut().unwrap();
    assert!(
        tolerated.iter().any(|toleration| toleration.get("tolerationSeconds").is_some()),
        "{tolerated:?}"
    );
    for toleration in tolerated {
        toleration.as_object_mut().unwrap().remove("tolerationSeconds");
    }
    must("lift tolerations", "MERGE", &pod, json!({"spec": {"tolerations": tolerations}})).await;
    let status = json!({"metadata": {"annotations": {"kubehive.io/reported": "1.2/u"}}, "status": {"phase": "Running"}});
    must("write a pod's status", "MERGE", &format!("{pod}/status"), status).await;
    let accounts = format!("/api/v1/namespaces/{ns}/serviceaccounts");
    must("get a pod's token", "POST", &format!("{accounts}/plain/token"), token(Some(("edge", &uid)), 3600))
        .await;
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "edge.1", "namespace": ns},
        "involvedObject": {"kind": "Pod", "namespace": ns, "name": "edge", "uid": uid}, "type": "Normal",
        "reason": "Started", "message": "started"});
    must("tell an event", "POST", &format!("/api/v1/namespaces/{ns}/events"), event).await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "casecret"}});
    let made = stage.does("POST", "/api/v1/namespaces/kubeedge/secrets?dryRun=All", secret).await;
    assert!(matches!(made, Ok(_) | Err(Refused { code: 409, .. })), "{made:?}");
    let read = stage.does("GET", "/api/v1/namespaces/kubeedge/secrets/casecret", Value::Null).await;
    assert!(matches!(read, Ok(_) | Err(Refused { code: 404, .. })), "{read:?}");
    let definition = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/edgenodes.kubehive.io";
    must("see its definitions", "GET", definition, Value::Null).await;

    // The Node authorizer learns of the pod a moment later.
    let (user, named) = (
        format!("system:node:{edge}"),
        format!("/api/v1/namespaces/{ns}/secrets?fieldSelector=metadata.name%3Dreferred"),
    );
    until("a Secret is read as the node that needs it", async || {
        let listed = call(&stage.account, "GET", &named, Some(&user), Value::Null).await;
        listed.is_ok_and(|listed| listed["items"][0]["metadata"]["name"] == "referred")
    })
    .await;
}

#[test]
fn a_stolen_token_of_cloudcores_account_does_what_cloudcore_does_and_nothing_else() {
    run(async || {
        let Some(cluster) = RealCluster::named().await else { return };
        let stage = Stage::set(&cluster).await;
        // Policies take effect a moment after they are made.
        until("the policies are in force", async || {
            let node = joined(&stage.edge, json!({"node-role.kubernetes.io/control-plane": ""}));
            stage
                .does("POST", "/api/v1/nodes?dryRun=All", node)
                .await
                .is_err_and(|refused| refused.is_by_policy())
        })
        .await;
        work(&stage).await;
        let attacks = attacks(&stage).await;
        let mut broken = Vec::new();
        for (what, outcome) in attacks {
            match outcome {
                Err(refused) if refused.is_for_want_of_right() => {}
                Err(refused) => broken.push(format!("{what}: {refused:?}")),
                Ok(_) => broken.push(format!("{what}: done")),
            }
        }
        stage.clear().await;
        assert!(broken.is_empty(), "a stolen token can:\n{}", broken.join("\n"));
    });
}

type Attack = (String, Result<Value, Refused>);

async fn attacks(stage: &Stage) -> Vec<Attack> {
    let mut all = secrets_and_users(stage).await;
    all.extend(pods(stage).await);
    all.extend(nodes(stage).await);
    all.extend(rights(stage).await);
    all
}

struct Tries<'a>(&'a Stage, Vec<Attack>);

impl Tries<'_> {
    async fn tries(&mut self, what: &str, method: &str, path: &str, body: Value) {
        let outcome = self.0.does(method, path, body).await;
        self.1.push((what.to_owned(), outcome));
    }

    async fn tries_as(&mut self, user: &str, what: &str, method: &str, path: &str, body: Value) {
        let outcome = call(&self.0.account, method, path, Some(user), body).await;
        self.1.push((format!("{what} as {user}"), outcome));
    }
}

async fn secrets_and_users(stage: &Stage) -> Vec<Attack> {
    let (ns, mut t) = (&stage.namespace, Tries(stage, Vec::new()));
    let secrets = format!("/api/v1/namespaces/{ns}/secrets");
    let none = Value::Null;
    t.tries("list all Secrets", "GET", "/api/v1/secrets", none.clone()).await;
    t.tries("list a namespace's Secrets", "GET", &secrets, none.clone()).await;
    t.tries("read a Secret", "GET", &format!("{secrets}/referred"), none.clone()).await;
    t.tries(
        "read it by a list",
        "GET",
        &format!("{secrets}?fieldSelector=metadata.name%3Dreferred"),
        none.clone(),
    )
    .await;
    t.tries("read Secrets of kubeedge", "GET", "/api/v1/namespaces/kubeedge/secrets", none.clone()).await;
    let nodes = [&stage.edge, &stage.plane].map(|node| format!("system:node:{node}"));
    for node in &nodes {
        let other = format!("{secrets}?fieldSelector=metadata.name%3Dother");
        t.tries_as(node, "read a Secret that no pod there refers to", "GET", &other, none.clone()).await;
        t.tries_as(node, "list all Secrets", "GET", "/api/v1/secrets", none.clone()).await;
        t.tries_as(node, "get a Secret", "GET", &format!("{secrets}/referred"), none.clone()).await;
        t.tries_as(node, "list pods", "GET", "/api/v1/pods", none.clone()).await;
        let path = format!("/api/v1/nodes/{}/status", stage.plane);
        t.tries_as(node, "write a status", "PATCH", &path, json!({"status": {"phase": "x"}})).await;
        let path = format!("/api/v1/namespaces/{ns}/serviceaccounts/powerful/token");
        t.tries_as(node, "get a token", "POST", &path, token(None, 3600)).await;
    }
    let powerful = format!("system:serviceaccount:{ns}:powerful");
    for user in ["admin", "system:kube-controller-manager", "system:admin", &powerful] {
        t.tries_as(user, "list all Secrets", "GET", "/api/v1/secrets", none.clone()).await;
        t.tries_as(user, "list pods", "GET", "/api/v1/pods", none.clone()).await;
    }
    let mut secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": {"name": "tokenkeysecret", "annotations": {"kubernetes.io/service-account.name": "cloudcore"}}});
    let kubeedge = "/api/v1/namespaces/kubeedge/secrets?dryRun=All";
    t.tries("make a Secret that gets an account's token", "POST", kubeedge, secret.clone()).await;
    secret["type"] = "Opaque".into();
    secret["metadata"]["name"] = "mine".into();
    t.tries("make a Secret of another name", "POST", kubeedge, secret).await;
    t.1
}

async fn pods(stage: &Stage) -> Vec<Attack> {
    let (ns, mut t) = (&stage.namespace, Tries(stage, Vec::new()));
    let pods = format!("/api/v1/namespaces/{ns}/pods");
    stage.pod("loose", None, "plain").await;
    stage.pod("plane", Some(&stage.plane), "plain").await;
    let powerful = stage.pod("powerful", Some(&stage.edge), "powerful").await;
    let plain = stage.pod("plain", Some(&stage.edge), "plain").await;

    let image = json!({"spec": {"containers": [{"name": "c", "image": "mine:1"}]}});
    let lifted = json!({"spec": {"tolerations": [
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"},
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}]}});
    let more = json!({"spec": {"tolerations": [
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"},
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"},
        {"operator": "Exists"}]}});
    let failed = json!({"status": {"phase": "Failed", "podIP": "192.0.2.66"}});
    for pod in ["edge", "plane", "loose"] {
        let path = format!("{pods}/{pod}");
        t.tries(&format!("change the image of {pod}"), "PATCH", &path, image.clone()).await;
        t.tries(&format!("label {pod}"), "MERGE", &path, json!({"metadata": {"labels": {"app": "x"}}})).await;
        t.tries(&format!("annotate {pod}"), "MERGE", &path, json!({"metadata": {"annotations": {"a": "x"}}}))
            .await;
        t.tries(&format!("let {pod} tolerate all"), "MERGE", &path, more.clone()).await;
        t.tries(&format!("end {pod}"), "MERGE", &path, json!({"spec": {"activeDeadlineSeconds": 1}})).await;
        t.tries(&format!("delete {pod}, which runs"), "DELETE", &path, Value::Null).await;
        let labels = json!({"metadata": {"labels": {"app": "x"}}});
        t.tries(&format!("label {pod} with a status"), "MERGE", &format!("{path}/status"), labels).await;
    }
    for pod in ["plane", "loose"] {
        t.tries(&format!("lift the tolerations of {pod}"), "MERGE", &format!("{pods}/{pod}"), lifted.clone())
            .await;
        t.tries(
            &format!("write the status of {pod}"),
            "MERGE",
            &format!("{pods}/{pod}/status"),
            failed.clone(),
        )
        .await;
    }
    t.tries("delete all pods", "DELETE", &pods, Value::Null).await;
    let mine = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "mine"},
        "spec": {"containers": [{"name": "c", "image": "mine:1"}]}});
    t.tries("make a pod", "POST", &pods, mine).await;
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "loose"}, "target": {"kind": "Node", "name": stage.edge}});
    t.tries("bind a pod", "POST", &format!("{pods}/loose/binding"), binding).await;

    let accounts = format!("/api/v1/namespaces/{ns}/serviceaccounts");
    let path = format!("{accounts}/powerful/token");
    t.tries("get a cluster-admin's token", "POST", &path, token(Some(("powerful", &powerful)), 3600)).await;
    t.tries("get a cluster-admin's token for nobody", "POST", &path, token(None, 3600)).await;
    let path = format!("{accounts}/plain/token");
    t.tries("get a token for nobody", "POST", &path, token(None, 3600)).await;
    t.tries("get a token of two days", "POST", &path, token(Some(("plain", &plain)), 172_800)).await;
    let path = "/api/v1/namespaces/kubeedge/serviceaccounts/cloudcore/token";
    t.tries("get its own account's token", "POST", path, token(None, 3600)).await;
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "big.1", "namespace": ns},
        "involvedObject": {"kind": "Pod", "namespace": ns, "name": "edge"}, "type": "Normal", "reason": "x",
        "message": "x".repeat(1025)});
    t.tries("tell a long event", "POST", &format!("/api/v1/namespaces/{ns}/events"), event).await;
    t.1
}

async fn nodes(stage: &Stage) -> Vec<Attack> {
    let mut t = Tries(stage, Vec::new());
    let (nodes, made) = ("/api/v1/nodes", "/api/v1/nodes?dryRun=All");
    let ready = json!({"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.66"}]}});
    for node in [&stage.plane, &stage.foreign] {
        t.tries(
            &format!("write the status of {node}"),
            "PATCH",
            &format!("{nodes}/{node}/status"),
            ready.clone(),
        )
        .await;
    }
    for node in [&stage.plane, &stage.foreign, &stage.edge] {
        let (path, status) = (format!("{nodes}/{node}"), format!("{nodes}/{node}/status"));
        let labels = json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}});
        t.tries(&format!("label {node}"), "MERGE", &path, labels.clone()).await;
        t.tries(&format!("label {node} with a status"), "MERGE", &status, labels).await;
        let found = call(&stage.admin, "GET", &path, None, Value::Null).await.unwrap();
        let adopted = json!({"metadata": {"annotations": {"kubehive.io/adopted": found["metadata"]["uid"]}}});
        t.tries(&format!("adopt {node}"), "MERGE", &path, adopted.clone()).await;
        t.tries(&format!("adopt {node} with a status"), "MERGE", &status, adopted).await;
        let enrolled = json!({"metadata": {"annotations": {"kubehive.io/enrolment": "0b"}}});
        t.tries(&format!("enrol {node} with a status"), "MERGE", &status, enrolled).await;
        t.tries(&format!("delete {node}"), "DELETE", &path, Value::Null).await;
    }
    let plane = json!({"node-role.kubernetes.io/edge": "", "node-role.kubernetes.io/control-plane": ""});
    t.tries("make a control-plane Node", "POST", made, joined("kubehive-x", plane)).await;
    let mut plain = joined("kubehive-x", json!({"node-role.kubernetes.io/edge": ""}));
    plain["metadata"]["annotations"] = json!({});
    t.tries("make a Node that did not join", "POST", made, plain).await;
    t.tries("make a Node without a role", "POST", made, joined("kubehive-x", json!({}))).await;

    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let lease = |name: &str| json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}});
    t.tries("make the Lease of another's Node", "POST", leases, lease(&stage.plane)).await;
    let held = stage.objects("coordination.k8s.io/v1", "Lease", Some("kube-node-lease"));
    held.create(&PostParams::default(), &serde_json::from_value(lease(&stage.plane)).unwrap()).await.unwrap();
    let path = format!("{leases}/{}", stage.plane);
    t.tries("renew the Lease of another's Node", "MERGE", &path, json!({"spec": {"holderIdentity": "x"}}))
        .await;
    t.tries(
        "take a Lease of the system",
        "GET",
        "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases",
        Value::Null,
    )
    .await;

    // A node itself: what a captured kubelet's certificate may.
    let adopt = |uid: &Value| json!({"metadata": {"annotations": {"kubehive.io/adopted": uid}}});
    let path = format!("{nodes}/{}", stage.plane);
    let found = call(&stage.admin, "GET", &path, None, Value::Null).await.unwrap();
    for path in [path.clone(), format!("{path}/status")] {
        let request = Request::patch(&path)
            .header("content-type", "application/merge-patch+json")
            .header("impersonate-user", format!("system:node:{}", stage.plane))
            .header("impersonate-group", "system:nodes")
            .body(adopt(&found["metadata"]["uid"]).to_string().into_bytes())
            .unwrap();
        let outcome = match stage.admin.request::<Value>(request).await {
            Ok(value) => Ok(value),
            Err(kube::Error::Api(status)) => Err(Refused { code: status.code, reason: status.message }),
            Err(error) => panic!("{error}"),
        };
        t.1.push((format!("a node adopts itself by {path}"), outcome));
    }
    t.1
}

async fn rights(stage: &Stage) -> Vec<Attack> {
    let mut t = Tries(stage, Vec::new());
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "mine"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "cloudcore", "namespace": "kubeedge"}]});
    t.tries("bind itself to cluster-admin", "POST", &format!("{rbac}/clusterrolebindings"), binding).await;
    let rules = json!({"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
    t.tries("widen its role", "MERGE", &format!("{rbac}/clusterroles/cloudcore"), rules).await;
    let policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
    t.tries("lift a policy", "DELETE", &format!("{policies}/kubehive-cloudcore-pods"), Value::Null).await;
    let label = json!({"metadata": {"labels": {"kubehive.io/powerful-accounts": "allowed"}}});
    t.tries("open a namespace", "MERGE", &format!("/api/v1/namespaces/{}", stage.namespace), label).await;
    let definition = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/edgenodes.kubehive.io";
    t.tries("change a definition", "MERGE", definition, json!({"metadata": {"labels": {"a": "b"}}})).await;

    let names = "/apis/kubehive.io/v1alpha1/edgenodes";
    let path = format!("{names}/{}", stage.edge);
    let barred = Patch::Merge(json!({"metadata": {"labels": {"kubehive.io/revoked": "true"}}}));
    let entries = stage.objects("kubehive.io/v1alpha1", "EdgeNode", None);
    let barred = entries.patch(&stage.edge, &PatchParams::default(), &barred).await.unwrap();
    let mut freed = serde_json::to_value(&barred).unwrap();
    freed["metadata"]["labels"] = json!({});
    t.tries("free a barred name", "PUT", &path, freed).await;
    let mut certified = serde_json::to_value(&barred).unwrap();
    certified["metadata"]["annotations"]["kubehive.io/certificate"] = "0c".into();
    t.tries("give a barred name a certificate", "PUT", &path, certified).await;
    t.tries("delete a barred name", "DELETE", &path, Value::Null).await;

    let tokens = "/apis/kubehive.io/v1alpha1/jointokens";
    let join = json!({"metadata": {"name": stage.namespace}, "spec": {"expires": "2030-01-01T00:00:00Z", "uses": 1}});
    let made = stage.make("kubehive.io/v1alpha1", "JoinToken", None, join.clone()).await;
    let mut more = serde_json::to_value(&made).unwrap();
    more["spec"]["uses"] = json!(1000);
    t.tries("widen a join token", "PUT", &format!("{tokens}/{}", stage.namespace), more).await;
    let mut mine = join;
    mine["apiVersion"] = "kubehive.io/v1alpha1".into();
    mine["kind"] = "JoinToken".into();
    mine["metadata"]["name"] = "mine".into();
    t.tries("make a join token", "POST", tokens, mine).await;
    t.1
}

/// What a file of a pod's volume on the node holds.
fn on_disk(node: &Node, uid: &str, volume: &str, file: &str) -> String {
    let pods = node.folder().join("kubelet/pods").join(uid).join("volumes");
    let folder = walk(&pods).into_iter().find(|path| path.ends_with(format!("{volume}/{file}")));
    folder.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default()
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let below = |path: std::path::PathBuf| if path.is_dir() { walk(&path) } else { vec![path] };
    entries.flat_map(|entry| below(entry.path())).collect()
}

#[test]
fn a_node_lives_in_a_real_cluster_by_the_account_that_ships() {
    run(async || {
        let Some(real) = RealCluster::named().await else { return };
        let (admin, id) = (real.admin(), std::process::id());
        let mut cluster = Cluster::beside(real).await;
        let namespace = format!("kubehive-life-{id}");
        let ns = Some(namespace.as_str());
        cluster.apply("v1", "Namespace", json!({"metadata": {"name": namespace}})).await;
        cluster
            .apply("v1", "ServiceAccount", json!({"metadata": {"name": "plain", "namespace": namespace}}))
            .await;
        let page = json!({"metadata": {"name": "page", "namespace": namespace}, "data": {"text": "one"}});
        cluster.apply("v1", "ConfigMap", page).await;
        let key =
            json!({"metadata": {"name": "key", "namespace": namespace}, "stringData": {"text": "secret"}});
        cluster.apply("v1", "Secret", key).await;

        let mut node = cluster.node(&format!("kubehive-life-{id}")).await;
        cluster.until_ready(&node).await;
        node.runtime().add_image("web:1");
        // Its ServiceAccount's token comes with it, and the cluster's CA in a config map that another controller makes.
        let pod = json!({"metadata": {"name": "web", "namespace": namespace}, "spec": {
            "nodeName": node.name(), "serviceAccountName": "plain", "terminationGracePeriodSeconds": 1,
            "volumes": [{"name": "page", "configMap": {"name": "page"}}, {"name": "key", "secret": {"secretName": "key"}}],
            "containers": [{"name": "web", "image": "web:1", "volumeMounts": [
                {"name": "page", "mountPath": "/page"}, {"name": "key", "mountPath": "/key"}]}]}});
        let uid = cluster.apply("v1", "Pod", pod).await.metadata.uid.unwrap();
        cluster.until("its container runs", || node.runtime().running().iter().any(|c| c.uid == uid)).await;
        assert_eq!(on_disk(&node, &uid, "key", "text"), "secret");
        assert_eq!(on_disk(&node, &uid, "page", "text"), "one");
        let pods = cluster.objects("v1", "Pod", ns);
        cluster
            .until_async("the pod is Running, and a cut will not move it", async || {
                let pod = pods.get("web").await.unwrap();
                let tolerations = pod.data["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
                pod.data["status"]["phase"] == "Running"
                    && tolerations.iter().all(|toleration| toleration.get("tolerationSeconds").is_none())
            })
            .await;
        let patch = Patch::Merge(json!({"data": {"text": "two"}}));
        let maps = cluster.objects("v1", "ConfigMap", ns);
        maps.patch("page", &PatchParams::default(), &patch).await.unwrap();
        cluster.until("the volume follows", || on_disk(&node, &uid, "page", "text") == "two").await;

        // Another CloudCore lists everything again, and takes nothing away.
        cluster.stop_cloud().await;
        cluster.start_cloud().await;
        pods.delete("web", &DeleteParams::default()).await.unwrap();
        cluster.until("its container is gone", || node.runtime().running().is_empty()).await;
        cluster.until_async("the pod is gone", async || pods.get_opt("web").await.unwrap().is_none()).await;
        let leases: Api<DynamicObject> = Api::namespaced_with(
            admin.clone(),
            "kube-node-lease",
            &resource("coordination.k8s.io/v1", "Lease"),
        );
        assert!(leases.get(node.name()).await.unwrap().data["spec"]["renewTime"].is_string());
        node.stop().await;
        cluster.stop_cloud().await;
        let now = DeleteParams::default();
        for (version, kind) in [("v1", "Node"), ("kubehive.io/v1alpha1", "EdgeNode")] {
            let _ = cluster.objects(version, kind, None).delete(node.name(), &now).await;
        }
        let _ = cluster.objects("v1", "Namespace", None).delete(&namespace, &now).await;
    });
}
