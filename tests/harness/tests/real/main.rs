//! CloudCore's account in a real Kubernetes: what it can do, and what whoever stole its token cannot.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod attacks;
mod metadata;
mod node_lifecycle;
mod node_rights;
mod permissions;

use std::time::Duration;

use harness::{RealCluster, run};
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
struct Fixture {
    admin: kube::Client,
    account: kube::Client,
    namespace: String,
    /// Ours, by CloudCore's own hand.
    edge: String,
    /// Somebody else's, with the label of an edge node.
    foreign: String,
    /// Somebody else's, with both labels of KubeEdge's nodes, never adopted.
    kubeedge: String,
    /// A machine of the control plane, which joined besides, and has all labels of an edge node.
    plane: String,
    /// Another, by the label that it had before Kubernetes 1.24.
    master: String,
}

impl Fixture {
    fn objects(&self, api_version: &str, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
        harness::objects(self.admin.clone(), api_version, kind, namespace)
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

    async fn set(cluster: &RealCluster) -> Fixture {
        let id = std::process::id();
        let fixture = Fixture {
            admin: cluster.admin(),
            account: cluster.account().await,
            namespace: format!("kubehive-test-{id}"),
            edge: format!("kubehive-edge-{id}"),
            foreign: format!("kubehive-foreign-{id}"),
            kubeedge: format!("kubehive-kubeedge-{id}"),
            plane: format!("kubehive-plane-{id}"),
            master: format!("kubehive-master-{id}"),
        };
        fixture.make("v1", "Namespace", None, json!({"metadata": {"name": fixture.namespace}})).await;
        for (node, role) in [(&fixture.plane, "control-plane"), (&fixture.master, "master")] {
            let mut labels = json!({"node-role.kubernetes.io/edge": "", "node-role.kubernetes.io/agent": ""});
            labels[format!("node-role.kubernetes.io/{role}")] = "".into();
            let node = json!({"metadata": {"name": node, "labels": labels,
                "annotations": {"kubehive.io/enrolment": "0a"}}});
            fixture.make("v1", "Node", None, node).await;
        }
        fixture
            .make(
                "v1",
                "Node",
                None,
                json!({"metadata": {"name": fixture.foreign,
            "labels": {"node-role.kubernetes.io/edge": ""}}}),
            )
            .await;
        let both = json!({"node-role.kubernetes.io/edge": "", "node-role.kubernetes.io/agent": ""});
        let theirs = json!({"metadata": {"name": fixture.kubeedge, "labels": both}});
        fixture.make("v1", "Node", None, theirs).await;
        fixture.make("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", None, json!({
            "metadata": {"name": fixture.namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "powerful", "namespace": fixture.namespace}]})).await;
        let ns = Some(fixture.namespace.as_str());
        for account in ["plain", "powerful", "probe"] {
            fixture.make("v1", "ServiceAccount", ns, json!({"metadata": {"name": account}})).await;
        }
        // Who asks for no audience gets the API server's own.
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/plain/token", fixture.namespace);
        let granted = call(&fixture.admin, "POST", &path, None, token(None, 3600)).await.unwrap();
        let own = granted["spec"]["audiences"].as_array().unwrap().iter().filter_map(Value::as_str);
        let listed = own.chain(["vault"]).collect::<Vec<_>>().join(",");
        let listed =
            Patch::Merge(json!({"metadata": {"annotations": {"kubehive.io/token-audiences": listed}}}));
        let namespaces = fixture.objects("v1", "Namespace", None);
        namespaces.patch(&fixture.namespace, &PatchParams::default(), &listed).await.unwrap();
        for secret in ["referred", "other"] {
            fixture
                .make("v1", "Secret", ns, json!({"metadata": {"name": secret}, "stringData": {"k": "v"}}))
                .await;
        }
        fixture
    }

    async fn pod(&self, name: &str, node: Option<&str>, account: &str) -> String {
        let pod = json!({"metadata": {"name": name}, "spec": {
            "nodeName": node, "serviceAccountName": account, "automountServiceAccountToken": false,
            "schedulingGates": if node.is_none() { json!([{"name": "kubehive.io/test"}]) } else { Value::Null },
            "containers": [{"name": "c", "image": "web:1",
                "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "referred", "key": "k"}}}]}]}});
        self.make("v1", "Pod", Some(&self.namespace), pod).await.metadata.uid.unwrap()
    }

    /// As an administrator.
    async fn label(&self, pod: &str, label: &str, value: &str) {
        let pods = self.objects("v1", "Pod", Some(&self.namespace));
        let labels = Patch::Merge(json!({"metadata": {"labels": {label: value}}}));
        pods.patch(pod, &PatchParams::default(), &labels).await.unwrap();
    }

    /// As an administrator.
    async fn let_mirrors_have_labels(&self, word: &str) {
        let labels = Patch::Merge(json!({"metadata": {"labels": {"kubehive.io/mirror-labels": word}}}));
        let namespaces = self.objects("v1", "Namespace", None);
        namespaces.patch(&self.namespace, &PatchParams::default(), &labels).await.unwrap();
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
        for node in [&self.edge, &self.foreign, &self.kubeedge, &self.plane, &self.master] {
            let _ = self.objects("v1", "Node", None).delete(node, &now).await;
            let leases = self.objects("coordination.k8s.io/v1", "Lease", Some("kube-node-lease"));
            let _ = leases.delete(node, &now).await;
            let _ = self.objects("kubehive.io/v1alpha1", "EdgeNode", None).delete(node, &now).await;
        }
        let _ = self.objects("kubehive.io/v1alpha1", "JoinToken", None).delete(&self.namespace, &now).await;
        let bindings = self.objects("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", None);
        let _ = bindings.delete(&self.namespace, &now).await;
        permissions::clear(&self).await;
        node_rights::clear(&self).await;
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

/// A Node as CloudCore makes it, with more labels.
fn joined(name: &str, more: Value) -> Value {
    let mut labels = json!({"kubernetes.io/hostname": name, "node-role.kubernetes.io/edge": "",
        "node-role.kubernetes.io/agent": ""});
    labels.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels,
        "annotations": {"kubehive.io/enrolment": "0a"}}})
}

/// A Lease as CloudCore makes it.
fn lease(name: &str) -> Value {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name, "annotations": {"kubehive.io/cloudcore": "one"}},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "leaseTransitions": 1}})
}

const RIGHTS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/kubehive-nodes/rolebindings";

/// The right to a node as CloudCore binds it.
fn right(node: &str, uid: Option<&Value>) -> Value {
    let subject = |namespace: &Value| json!({"kind": "ServiceAccount", "name": node, "namespace": namespace});
    let owners: Vec<Value> = uid.into_iter().map(|uid| node_owner(node, uid)).collect();
    let subjects: Vec<Value> = [&json!("kubehive-nodes")].into_iter().chain(uid).map(subject).collect();
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": node, "ownerReferences": owners}, "subjects": subjects,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "kubehive-own-node"}})
}

/// The owner of a Lease.
fn node_owner(node: &str, uid: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid})
}

/// An event of a pod as CloudCore makes it.
fn event(name: &str, namespace: &str, message: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": "edge", "uid": "u"},
        "type": "Normal", "reason": "Started", "message": message, "count": 1,
        "source": {"component": "kubelet", "host": "edge"}, "reportingComponent": "kubelet", "reportingInstance": "edge"})
}

/// The mirror of a static pod of a node as CloudCore makes it.
fn mirror(name: &str, node: &str, node_uid: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "own"},
            "annotations": {"kubernetes.io/config.mirror": "0a", "kubernetes.io/config.hash": "0a",
                "kubernetes.io/config.source": "file", "kubernetes.io/config.seen": "2026-01-01T00:00:00Z"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid, "controller": true}]},
        "spec": {"nodeName": node, "hostNetwork": true, "containers": [{"name": "c", "image": "own:1"}],
            "tolerations": [{"operator": "Exists", "effect": "NoExecute"}]}})
}

/// A DeviceStatus as CloudCore makes it for the Device with this uid.
fn device_status(name: &str, uid: &str) -> Value {
    json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceStatus", "spec": {},
        "metadata": {"name": name, "ownerReferences": [{"apiVersion": "devices.kubeedge.io/v1beta1",
            "kind": "Device", "name": name, "uid": uid, "controller": true}]}})
}

fn token(pod: Option<(&str, &str)>, seconds: i64) -> Value {
    token_for(&[], pod, seconds)
}

fn token_for(audiences: &[&str], pod: Option<(&str, &str)>, seconds: i64) -> Value {
    let bound = pod.map(|(name, uid)| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}));
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": bound}})
}

/// A claim whose volume is made larger, as CloudCore writes it.
async fn claim(fixture: &Fixture) {
    let ns = &fixture.namespace;
    let spec = json!({"metadata": {"name": "claim"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "storageClassName": "kubehive-none", "resources": {"requests": {"storage": "3Gi"}}}});
    fixture.make("v1", "PersistentVolumeClaim", Some(ns), spec).await;
    let path = format!("/api/v1/namespaces/{ns}/persistentvolumeclaims/claim/status");
    let bound = json!({"status": {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
        "allocatedResources": {"storage": "2Gi"}, "allocatedResourceStatuses": {"storage": "NodeResizePending"},
        "conditions": [{"type": "FileSystemResizePending", "status": "True"}]}});
    call(&fixture.admin, "MERGE", &path, None, bound).await.unwrap();
    for written in [
        json!({"status": {"allocatedResourceStatuses": {"storage": "NodeResizeInProgress"}}}),
        json!({"status": {"conditions": [{"type": "NodeResizeError", "status": "True", "message": "m"}]}}),
        json!({"status": {"capacity": {"storage": "2Gi"}, "allocatedResourceStatuses": {"storage": null}, "conditions": []}}),
    ] {
        let done = fixture.does("MERGE", &path, written).await;
        done.unwrap_or_else(|refused| {
            panic!("CloudCore cannot say how large a claim's volume is: {refused:?}")
        });
    }
}

/// What CloudCore does, each once. Everything that the attack has to be told apart from.
async fn work(fixture: &Fixture) {
    let (ns, edge) = (&fixture.namespace, &fixture.edge);
    let must = async |what: &str, method: &str, path: &str, body: Value| {
        let done = fixture.does(method, path, body).await;
        done.unwrap_or_else(|refused| panic!("CloudCore cannot {what}: {refused:?}"))
    };
    let labels = json!({"topology.kubernetes.io/zone": "hall-1", "node.kubernetes.io/instance-type": "box",
        "kubernetes.io/arch": "arm64", "site": "a", "example.com/line": "7"});
    must("bind the right to a node that is yet to be made", "POST", RIGHTS, right(edge, None)).await;
    let mut made = joined(edge, labels);
    made["spec"] = json!({"unschedulable": true, "taints": [{"key": "edge", "effect": "NoSchedule"}]});
    must("make a Node", "POST", "/api/v1/nodes", made).await;
    let node = format!("/api/v1/nodes/{edge}");
    let status = json!({"metadata": {"annotations": {"kubehive.io/reported": "1.1/u"}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let marked = json!({"metadata": {"annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}}});
    must("have a Node's volumes attached", "PATCH", &format!("{node}/status"), marked).await;
    // What follows is done to a Node that is not asked any more.
    let own = json!({"metadata": {"labels": {"kubehive.io/own": ""}}});
    must("say that a Node is its own", "MERGE", &format!("{node}/status"), own).await;
    let machine = json!({"metadata": {"labels": {"kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux",
        "kubernetes.io/hostname": edge, "topology.kubernetes.io/region": "north"}}});
    must("say of which machine a Node is", "MERGE", &format!("{node}/status"), machine).await;
    claim(fixture).await;
    must("write a Node's status", "PATCH", &format!("{node}/status"), status).await;
    let endpoint = json!({"metadata": {"annotations": {"kubehive.io/kubelet-address": "192.0.2.10"}},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.10"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 12000}}}});
    must("say where a node's kubelet endpoint is", "PATCH", &format!("{node}/status"), endpoint).await;
    let uid = must("see a Node", "GET", &node, Value::Null).await["metadata"]["uid"].clone();
    let mut bound = must("see a right", "GET", &format!("{RIGHTS}/{edge}"), Value::Null).await;
    let whole = right(edge, Some(&uid));
    bound["subjects"] = whole["subjects"].clone();
    bound["metadata"]["ownerReferences"] = whole["metadata"]["ownerReferences"].clone();
    must("bind the right to that very Node", "PUT", &format!("{RIGHTS}/{edge}"), bound).await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    // The authorizer learns of it a moment later.
    let mut owned = lease(edge);
    owned["metadata"]["ownerReferences"] = json!([node_owner(edge, &uid)]);
    until("the right to a node counts", async || {
        fixture.does("POST", &format!("{leases}?dryRun=All"), owned.clone()).await.is_ok()
    })
    .await;
    must("make a Lease", "POST", leases, lease(edge)).await;
    let renewed = json!({"spec": {"holderIdentity": edge, "leaseDurationSeconds": 40,
        "renewTime": "2026-01-01T00:00:00.000000Z"}});
    must("renew a Lease", "MERGE", &format!("{leases}/{edge}"), renewed).await;
    let owned = json!({"metadata": {"ownerReferences": [node_owner(edge, &uid)]}});
    must("make a Node the owner of its Lease", "MERGE", &format!("{leases}/{edge}"), owned).await;

    let registered = json!({"apiVersion": "kubehive.io/v1alpha1", "kind": "EdgeNode", "metadata": {"name": edge}, "spec": {}});
    let mut entry = must("register a node", "POST", "/apis/kubehive.io/v1alpha1/edgenodes", registered).await;
    entry["metadata"]["annotations"] = json!({"kubehive.io/certificate": "0a"});
    must("note a certificate", "PUT", &format!("/apis/kubehive.io/v1alpha1/edgenodes/{edge}"), entry).await;
    must("see the register", "GET", "/apis/kubehive.io/v1alpha1/edgenodes", Value::Null).await;
    let join =
        json!({"metadata": {"name": ns}, "spec": {"expires": "2030-01-01T00:00:00Z", "uses": 2, "used": 0}});
    let made = fixture.make("kubehive.io/v1alpha1", "JoinToken", None, join).await;
    let mut used = serde_json::to_value(&made).unwrap();
    used["spec"]["used"] = json!(1);
    must("count a use", "PUT", &format!("/apis/kubehive.io/v1alpha1/jointokens/{ns}"), used).await;

    let device =
        json!({"metadata": {"name": "pump"}, "spec": {"nodeName": edge, "deviceModelRef": {"name": "pump"}}});
    let device = fixture.make("devices.kubeedge.io/v1beta1", "Device", Some(ns), device).await;
    let statuses = format!("/apis/devices.kubeedge.io/v1beta1/namespaces/{ns}/devicestatuses");
    let owned = device_status("pump", &device.metadata.uid.unwrap());
    must("make a DeviceStatus", "POST", &statuses, owned.clone()).await;
    let said =
        json!({"metadata": {"annotations": {"kubehive.io/reported": "1.1/u"}}, "status": {"state": "ok"}});
    must("write a DeviceStatus", "MERGE", &format!("{statuses}/pump"), said).await;
    // As `kubectl delete device --cascade=orphan` leaves it.
    let owners = json!({"metadata": {"ownerReferences": owned["metadata"]["ownerReferences"]}});
    let orphan = json!({"metadata": {"ownerReferences": []}});
    call(&fixture.admin, "MERGE", &format!("{statuses}/pump"), None, orphan).await.unwrap();
    must("give a DeviceStatus that has no owner its Device", "MERGE", &format!("{statuses}/pump"), owners)
        .await;

    let uid = fixture.pod("edge", Some(edge), "plain").await;
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
    fixture.pod("leaves", Some(edge), "plain").await;
    fixture.label("leaves", "kubehive.io/keep-eviction", "true").await;
    let leaves = format!("/api/v1/namespaces/{ns}/pods/leaves");
    must("evict a pod that asks for it", "DELETE", &leaves, Value::Null).await;
    let status = json!({"metadata": {"annotations": {"kubehive.io/reported": "1.2/u"}}, "status": {"phase": "Running"}});
    must("write a pod's status", "MERGE", &format!("{pod}/status"), status).await;
    let accounts = format!("/api/v1/namespaces/{ns}/serviceaccounts");
    must("get a pod's token", "POST", &format!("{accounts}/plain/token"), token(Some(("edge", &uid)), 3600))
        .await;
    let vault = token_for(&["vault"], Some(("edge", &uid)), 3600);
    must("get a token for an audience", "POST", &format!("{accounts}/plain/token"), vault).await;
    must("tell an event", "POST", &format!("/api/v1/namespaces/{ns}/events"), event("edge.1", ns, "started"))
        .await;
    let counted = json!({"count": 2, "lastTimestamp": "2026-01-01T00:01:00Z"});
    must("count an event on", "MERGE", &format!("/api/v1/namespaces/{ns}/events/edge.1"), counted).await;
    must("see Services", "GET", "/api/v1/services", Value::Null).await;
    let node_uid = must("see a Node", "GET", &node, Value::Null).await["metadata"]["uid"].clone();
    let pods = format!("/api/v1/namespaces/{ns}/pods");
    let mut own = mirror("own", edge, &node_uid);
    own["metadata"]["labels"] = json!({});
    own["spec"]["volumes"] = json!([{"name": "a", "hostPath": {"path": "/etc"}}, {"name": "b", "emptyDir": {}}, {"name": "c"},
        {"name": "d", "nfs": {"server": "nfs", "path": "/"}}, {"name": "e", "projected": {"sources": [
            {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}}]);
    must("make a mirror pod", "POST", &pods, own).await;
    let now = json!({"gracePeriodSeconds": 0});
    must("remove a mirror pod that nobody deleted", "DELETE", &format!("{pods}/own"), now).await;
    let labelled = mirror("labelled", edge, &node_uid);
    fixture.let_mirrors_have_labels("allowed").await;
    until("a mirror pod has labels where its namespace says so", async || {
        fixture.does("POST", &format!("{pods}?dryRun=All"), labelled.clone()).await.is_ok()
    })
    .await;
    fixture.let_mirrors_have_labels("no").await;
    until("and where it does not, none", async || {
        let made = fixture.does("POST", &format!("{pods}?dryRun=All"), labelled.clone()).await;
        made.is_err_and(|refused| refused.is_by_policy())
    })
    .await;
    let mut about_node = event("edge.2", "default", "ready");
    about_node["involvedObject"] = json!({"apiVersion": "v1", "kind": "Node", "name": edge, "uid": "u"});
    must("tell an event of a Node", "POST", "/api/v1/namespaces/default/events?dryRun=All", about_node).await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "casecret"}});
    let made = fixture.does("POST", "/api/v1/namespaces/kubeedge/secrets?dryRun=All", secret).await;
    assert!(matches!(made, Ok(_) | Err(Refused { code: 409, .. })), "{made:?}");
    let read = fixture.does("GET", "/api/v1/namespaces/kubeedge/secrets/casecret", Value::Null).await;
    assert!(matches!(read, Ok(_) | Err(Refused { code: 404, .. })), "{read:?}");
    let definition = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/edgenodes.kubehive.io";
    must("see its definitions", "GET", definition, Value::Null).await;

    // The Node authorizer learns of the pod a moment later.
    let (user, named) = (
        format!("system:node:{edge}"),
        format!("/api/v1/namespaces/{ns}/secrets?fieldSelector=metadata.name%3Dreferred"),
    );
    until("a Secret is read as the node that needs it", async || {
        let listed = call(&fixture.account, "GET", &named, Some(&user), Value::Null).await;
        listed.is_ok_and(|listed| listed["items"][0]["metadata"]["name"] == "referred")
    })
    .await;
}

#[test]
fn a_stolen_token_of_cloudcores_account_does_what_cloudcore_does_and_nothing_else() {
    run(async || {
        let Some(cluster) = RealCluster::named().await else { return };
        let fixture = Fixture::set(&cluster).await;
        // Policies take effect a moment after they are made.
        until("the policies are in force", async || {
            let node = joined(&fixture.edge, json!({"node-role.kubernetes.io/control-plane": ""}));
            let made = fixture.does("POST", "/api/v1/nodes?dryRun=All", node).await;
            made.is_err_and(|refused| refused.is_by_policy()) && permissions::are_judged(&fixture).await
        })
        .await;
        let suspect = type_warnings(&fixture).await;
        work(&fixture).await;
        let attacks = all(&fixture).await;
        let mut broken = Vec::new();
        for (what, outcome) in attacks {
            match outcome {
                Err(refused) if refused.is_for_want_of_right() => {}
                Err(refused) => broken.push(format!("{what}: {refused:?}")),
                Ok(_) => broken.push(format!("{what}: done")),
            }
        }
        fixture.clear().await;
        assert!(suspect.is_empty(), "the server's check of the policies:\n{}", suspect.join("\n"));
        assert!(broken.is_empty(), "a stolen token can:\n{}", broken.join("\n"));
    });
}

/// Who may change a pod, and not its status, does not make its node's reports look old.
#[test]
fn a_tenant_keeps_no_report_of_a_node_from_being_written() {
    run(async || {
        let Some(cluster) = RealCluster::named().await else { return };
        let fixture = Fixture::set(&cluster).await;
        let (namespace, tenant) =
            (Some(fixture.namespace.as_str()), format!("tenant-of-{}", fixture.namespace));
        let role =
            |name| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name});
        fixture
            .make(
                "rbac.authorization.k8s.io/v1",
                "RoleBinding",
                namespace,
                json!({
            "metadata": {"name": "tenant"}, "roleRef": role("edit"),
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": tenant}]}),
            )
            .await;
        let node = fixture.make("v1", "Node", None, joined(&fixture.edge, json!({}))).await;
        let bound = fixture.does("POST", RIGHTS, right(&fixture.edge, Some(&json!(node.metadata.uid)))).await;
        bound.expect("CloudCore binds the right to its node");
        fixture.pod("marked", Some(&fixture.edge), "plain").await;
        let pod = format!("/api/v1/namespaces/{}/pods/marked", fixture.namespace);
        let mark = |mark: Value| json!({"metadata": {"annotations": {"kubehive.io/reported": mark}}});
        let as_tenant = async |body: Value| call(&fixture.admin, "MERGE", &pod, Some(&tenant), body).await;
        until("a forged mark is refused", async || {
            as_tenant(mark(json!("9.9/u"))).await.is_err_and(|refused| refused.is_by_policy())
        })
        .await;
        let status = format!("{pod}/status");
        until("CloudCore marks what it writes", async || {
            fixture.does("MERGE", &status, mark(json!("1.1/u"))).await.is_ok()
        })
        .await;
        let refused = as_tenant(mark(json!("1.2/u"))).await.expect_err("a mark is CloudCore's");
        assert!(refused.is_by_policy(), "{refused:?}");
        as_tenant(json!({"metadata": {"labels": {"mine": "1"}}}))
            .await
            .expect("what is the tenant's stays so");
        as_tenant(mark(Value::Null)).await.expect("a mark that is gone keeps nothing out");
        fixture.clear().await;
    });
}

type Attack = (String, Result<Value, Refused>);

async fn all(fixture: &Fixture) -> Vec<Attack> {
    let mut all = attacks::secrets_and_users(fixture).await;
    all.extend(attacks::pods(fixture).await);
    all.extend(attacks::claims(fixture).await);
    all.extend(attacks::nodes(fixture).await);
    all.extend(attacks::events_and_leases(fixture).await);
    all.extend(permissions::tokens(fixture).await);
    all.extend(metadata::attacks(fixture).await);
    all.extend(attacks::rights(fixture).await);
    all.extend(node_rights::attacks(fixture).await);
    all
}

/// What the API server finds wrong with our policies.
async fn type_warnings(fixture: &Fixture) -> Vec<String> {
    let policies = fixture.objects("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", None);
    let ours = async || {
        let mut listed = policies.list(&Default::default()).await.unwrap().items;
        listed.retain(|policy| policy.metadata.name.as_deref().unwrap_or_default().starts_with("kubehive-"));
        listed
    };
    until("the policies are checked", async || {
        let ours = ours().await;
        let is_checked = |policy: &DynamicObject| {
            policy.data["status"]["observedGeneration"].as_i64() == policy.metadata.generation
        };
        !ours.is_empty() && ours.iter().all(is_checked)
    })
    .await;
    let warned = |policy: &DynamicObject| {
        policy.data.pointer("/status/typeChecking/expressionWarnings").map(Value::to_string)
    };
    ours().await.iter().filter_map(warned).collect()
}

struct Attempts<'a>(&'a Fixture, Vec<Attack>);

impl Attempts<'_> {
    async fn tries(&mut self, what: &str, method: &str, path: &str, body: Value) {
        let outcome = self.0.does(method, path, body).await;
        self.1.push((what.to_owned(), outcome));
    }

    async fn tries_as(&mut self, user: &str, what: &str, method: &str, path: &str, body: Value) {
        let outcome = call(&self.0.account, method, path, Some(user), body).await;
        self.1.push((format!("{what} as {user}"), outcome));
    }
}
