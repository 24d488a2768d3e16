//! What the account's token does not do: secrets, pods, Nodes, rights.

use http::Request;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::{
    Attack, Attempts, Fixture, Refused, call, event, joined, lease, mirror, node_owner, token, token_for,
};

pub(crate) async fn secrets_and_users(fixture: &Fixture) -> Vec<Attack> {
    let (ns, mut t) = (&fixture.namespace, Attempts(fixture, Vec::new()));
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
    let nodes = [&fixture.edge, &fixture.plane].map(|node| format!("system:node:{node}"));
    for node in &nodes {
        let other = format!("{secrets}?fieldSelector=metadata.name%3Dother");
        t.tries_as(node, "read a Secret that no pod there refers to", "GET", &other, none.clone()).await;
        t.tries_as(node, "list all Secrets", "GET", "/api/v1/secrets", none.clone()).await;
        t.tries_as(node, "get a Secret", "GET", &format!("{secrets}/referred"), none.clone()).await;
        t.tries_as(node, "list pods", "GET", "/api/v1/pods", none.clone()).await;
        let path = format!("/api/v1/nodes/{}/status", fixture.plane);
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

pub(crate) async fn pods(fixture: &Fixture) -> Vec<Attack> {
    let (ns, mut t) = (&fixture.namespace, Attempts(fixture, Vec::new()));
    let pods = format!("/api/v1/namespaces/{ns}/pods");
    fixture.pod("loose", None, "plain").await;
    fixture.pod("plane", Some(&fixture.plane), "plain").await;
    fixture.pod("master", Some(&fixture.master), "plain").await;
    fixture.pod("foreign", Some(&fixture.foreign), "plain").await;
    fixture.pod("kubeedge", Some(&fixture.kubeedge), "plain").await;
    let powerful = fixture.pod("powerful", Some(&fixture.edge), "powerful").await;
    let plain = fixture.pod("plain", Some(&fixture.edge), "plain").await;

    let image = json!({"spec": {"containers": [{"name": "c", "image": "mine:1"}]}});
    let lifted = json!({"spec": {"tolerations": [
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"},
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}]}});
    let more = json!({"spec": {"tolerations": [
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"},
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"},
        {"operator": "Exists"}]}});
    let failed = json!({"status": {"phase": "Failed", "podIP": "192.0.2.66"}});
    for pod in ["edge", "plane", "foreign", "kubeedge", "loose"] {
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
    for pod in ["plane", "master", "foreign", "kubeedge", "loose"] {
        // A tenant's word to CloudCore counts on edge nodes alone.
        fixture.label(pod, "kubehive.io/keep-eviction", "true").await;
        t.tries(&format!("evict {pod}"), "DELETE", &format!("{pods}/{pod}"), Value::Null).await;
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
    let uid_of = async |node: &str| {
        let found = call(&fixture.admin, "GET", &format!("/api/v1/nodes/{node}"), None, Value::Null).await;
        found.unwrap()["metadata"]["uid"].clone()
    };
    for node in [&fixture.plane, &fixture.master, &fixture.foreign, &fixture.kubeedge] {
        let made = mirror("mine", node, &uid_of(node).await);
        t.tries(&format!("make a mirror pod of {node}"), "POST", &pods, made).await;
    }
    let mut edge = mirror("mine", &fixture.edge, &uid_of(&fixture.edge).await);
    t.tries("make a mirror pod with labels", "POST", &pods, edge.clone()).await;
    edge["metadata"]["labels"] = json!({});
    let own = "/metadata/annotations/kubernetes.io~1";
    for (what, at, value) in [
        ("a pod that is no mirror", format!("{own}config.mirror"), Value::Null),
        ("a mirror of something else", format!("{own}config.hash"), "0b".into()),
        ("a mirror without an owner", "/metadata/ownerReferences".to_owned(), json!([])),
        (
            "a mirror of a Node of its name that is not there",
            "/metadata/ownerReferences/0/uid".to_owned(),
            json!("00000000-0000-0000-0000-000000000000"),
        ),
        ("a mirror of another owner", "/metadata/ownerReferences/0/name".to_owned(), json!(fixture.plane)),
        (
            "a mirror that is reported",
            "/metadata/annotations/kubehive.io~1reported".to_owned(),
            "1.1/u".into(),
        ),
        ("a mirror with a finalizer", "/metadata/finalizers".to_owned(), json!(["a.b/c"])),
        ("a mirror with an account", "/spec/serviceAccountName".to_owned(), "plain".into()),
        (
            "a mirror with a Secret",
            "/spec/containers/0/env".to_owned(),
            json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]),
        ),
        (
            "a mirror with a claim",
            "/spec/volumes".to_owned(),
            json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]),
        ),
        (
            "a mirror with a volume of a kind that nobody has listed",
            "/spec/volumes".to_owned(),
            json!([{"name": "a", "emptyDir": {}}, {"name": "v", "csi": {"driver": "d"}}]),
        ),
        (
            "a mirror with a volume that names a Secret",
            "/spec/volumes".to_owned(),
            json!([{"name": "v", "flexVolume": {"driver": "a/b", "secretRef": {"name": "s"}}}]),
        ),
        (
            "a mirror with a token",
            "/spec/volumes".to_owned(),
            json!([{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]),
        ),
    ] {
        let mut made = edge.clone();
        let (parent, field) = at.rsplit_once('/').unwrap();
        made.pointer_mut(parent).unwrap()[field.replace("~1", "/")] = value;
        t.tries(&format!("make {what}"), "POST", &pods, made).await;
    }
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "loose"}, "target": {"kind": "Node", "name": fixture.edge}});
    t.tries("bind a pod", "POST", &format!("{pods}/loose/binding"), binding).await;

    let accounts = format!("/api/v1/namespaces/{ns}/serviceaccounts");
    let path = format!("{accounts}/powerful/token");
    t.tries("get a cluster-admin's token", "POST", &path, token(Some(("powerful", &powerful)), 3600)).await;
    t.tries("get a cluster-admin's token for nobody", "POST", &path, token(None, 3600)).await;
    let path = format!("{accounts}/plain/token");
    t.tries("get a token for nobody", "POST", &path, token(None, 3600)).await;
    t.tries("get a token of two days", "POST", &path, token(Some(("plain", &plain)), 172_800)).await;
    for audiences in [&["sts"][..], &["vault", "sts"]] {
        let asked = token_for(audiences, Some(("plain", &plain)), 3600);
        t.tries(&format!("get a token for {audiences:?}"), "POST", &path, asked).await;
    }
    let path = "/api/v1/namespaces/kubeedge/serviceaccounts/cloudcore/token";
    t.tries("get its own account's token", "POST", path, token(None, 3600)).await;
    t.1
}

/// The status of a claim, with which its metadata could be written.
pub(crate) async fn claims(fixture: &Fixture) -> Vec<Attack> {
    let (ns, mut t) = (&fixture.namespace, Attempts(fixture, Vec::new()));
    let claim = format!("/api/v1/namespaces/{ns}/persistentvolumeclaims/claim");
    let nobody = json!([{"apiVersion": "v1", "kind": "Node", "name": "nobody", "uid": "00000000-0000-0000-0000-000000000000"}]);
    for (what, body) in [
        ("give a claim an owner", json!({"metadata": {"ownerReferences": nobody}})),
        ("lift a claim's finalizers", json!({"metadata": {"finalizers": null}})),
        ("label a claim", json!({"metadata": {"labels": {"app": "x"}}})),
        ("annotate a claim", json!({"metadata": {"annotations": {"app": "x"}}})),
        ("say that a claim is lost", json!({"status": {"phase": "Lost"}})),
        ("widen a claim's access", json!({"status": {"accessModes": ["ReadWriteMany"]}})),
        ("say a size that nobody asked for", json!({"status": {"capacity": {"storage": "9Ti"}}})),
        ("say another capacity", json!({"status": {"capacity": {"example.com/x": "1"}}})),
        ("change what is allocated", json!({"status": {"allocatedResources": {"storage": "1Gi"}}})),
        (
            "speak for the resizer",
            json!({"status": {"allocatedResourceStatuses": {"storage": "ControllerResizeInfeasible"}}}),
        ),
        (
            "set a condition that is not of the size",
            json!({"status": {"conditions": [{"type": "ModifyVolumeError", "status": "True"}]}}),
        ),
    ] {
        t.tries(what, "MERGE", &format!("{claim}/status"), body).await;
    }
    t.tries("change a claim", "MERGE", &claim, json!({"metadata": {"labels": {"app": "x"}}})).await;
    t.tries("delete a claim", "DELETE", &claim, Value::Null).await;
    t.1
}

pub(crate) async fn nodes(fixture: &Fixture) -> Vec<Attack> {
    let mut t = Attempts(fixture, Vec::new());
    let (nodes, made) = ("/api/v1/nodes", "/api/v1/nodes?dryRun=All");
    let ready = json!({"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.66"}]}});
    for node in [&fixture.plane, &fixture.foreign, &fixture.kubeedge] {
        t.tries(
            &format!("write the status of {node}"),
            "PATCH",
            &format!("{nodes}/{node}/status"),
            ready.clone(),
        )
        .await;
    }
    for node in [&fixture.foreign, &fixture.kubeedge] {
        let own = json!({"metadata": {"labels": {"kubehive.io/own": ""}}});
        let (path, status) = (format!("{nodes}/{node}"), format!("{nodes}/{node}/status"));
        t.tries(&format!("say that {node} is its own"), "MERGE", &status, own.clone()).await;
        let by_others = call(&fixture.admin, "MERGE", &path, None, own).await;
        t.1.push((format!("an administrator says that {node} is CloudCore's"), by_others));
    }
    let loose = json!({"metadata": {"annotations": {"kubehive.io/enrolment": null}}});
    let loosed = call(&fixture.admin, "MERGE", &format!("{nodes}/{}", fixture.edge), None, loose).await;
    t.1.push(("leave the label to a Node that is CloudCore's no more".to_owned(), loosed));
    let valued = json!({"metadata": {"labels": {"kubehive.io/own": "x"}}});
    t.tries("say more", "MERGE", &format!("{nodes}/{}/status", fixture.edge), valued).await;
    for (what, role) in [
        (
            "takes the role of an edge node from a Node that is CloudCore's",
            json!({"node-role.kubernetes.io/edge": null}),
        ),
        (
            "makes a Node that is CloudCore's one of the control plane",
            json!({"node-role.kubernetes.io/control-plane": ""}),
        ),
        ("makes it a master", json!({"node-role.kubernetes.io/master": "true"})),
    ] {
        let path = format!("{nodes}/{}", fixture.edge);
        let labels = json!({"metadata": {"labels": role}});
        let by_others = call(&fixture.admin, "MERGE", &path, None, labels).await;
        t.1.push((format!("an administrator {what} and leaves it the label"), by_others));
    }
    for (what, labels) in [
        ("takes the architecture off a Node", json!({"kubernetes.io/arch": null})),
        ("takes the hostname off a Node", json!({"kubernetes.io/hostname": null})),
        ("moves a Node to another zone", json!({"topology.kubernetes.io/zone": "elsewhere"})),
        ("changes a label of an administrator's", json!({"site": "elsewhere"})),
    ] {
        let labels = json!({"metadata": {"labels": labels}});
        t.tries(what, "MERGE", &format!("{nodes}/{}/status", fixture.edge), labels).await;
    }
    let mut copied = joined("kubehive-x", json!({"kubehive.io/own": ""}));
    t.tries("make a Node with the label", "POST", made, copied.clone()).await;
    copied["metadata"]["annotations"] = json!({"kubehive.io/adopted": "u"});
    let by_others = call(&fixture.admin, "POST", made, None, copied).await;
    t.1.push(("an adopted Node is copied with its label".to_owned(), by_others));
    for node in [&fixture.plane, &fixture.foreign, &fixture.edge] {
        let (path, status) = (format!("{nodes}/{node}"), format!("{nodes}/{node}/status"));
        let labels = json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}});
        t.tries(&format!("label {node}"), "MERGE", &path, labels.clone()).await;
        t.tries(&format!("label {node} with a status"), "MERGE", &status, labels).await;
        let moved = json!({"metadata": {"labels": {"kubernetes.io/hostname": "elsewhere"}}});
        t.tries(&format!("move {node} with a status"), "MERGE", &status, moved).await;
        let found = call(&fixture.admin, "GET", &path, None, Value::Null).await.unwrap();
        let adopted = json!({"metadata": {"annotations": {"kubehive.io/adopted": found["metadata"]["uid"]}}});
        t.tries(&format!("adopt {node}"), "MERGE", &path, adopted.clone()).await;
        t.tries(&format!("adopt {node} with a status"), "MERGE", &status, adopted).await;
        let enrolled = json!({"metadata": {"annotations": {"kubehive.io/enrolment": "0b"}}});
        t.tries(&format!("enrol {node} with a status"), "MERGE", &status, enrolled).await;
        t.tries(&format!("delete {node}"), "DELETE", &path, Value::Null).await;
    }
    let plane = json!({"node-role.kubernetes.io/edge": "", "node-role.kubernetes.io/control-plane": ""});
    t.tries("make a control-plane Node", "POST", made, joined("kubehive-x", plane)).await;
    let mut plain = joined("kubehive-x", json!({}));
    plain["metadata"]["annotations"] = json!({});
    t.tries("make a Node that did not join", "POST", made, plain).await;
    let mut plain = joined("kubehive-x", json!({}));
    plain["metadata"]["labels"] = json!({"kubernetes.io/hostname": "kubehive-x"});
    t.tries("make a Node without a role", "POST", made, plain).await;
    for label in [
        "node-restriction.kubernetes.io/vault",
        "a.node-restriction.kubernetes.io/vault",
        "node-role.kubernetes.io/master",
        "kubernetes.io/role",
        "kubernetes.io/cluster-service",
        "x.k8s.io/y",
        "k8s.io/y",
        "kubehive.io/keep",
        "a.kubehive.io/b",
    ] {
        let node = joined("kubehive-x", json!({label: "x"}));
        t.tries(&format!("make a Node with the label {label}"), "POST", made, node).await;
    }
    let host = joined("kubehive-x", json!({"kubernetes.io/hostname": "plane"}));
    t.tries("make a Node with another's hostname", "POST", made, host).await;
    let condition = json!([{"type": "Ready", "status": "True"}]);
    for (what, at, value) in [
        ("a podCIDR", "/spec", json!({"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"]})),
        ("a provider", "/spec", json!({"providerID": "cloud://1"})),
        ("a status", "/status", json!({"conditions": condition})),
        ("an address", "/status", json!({"addresses": [{"type": "InternalIP", "address": "192.0.2.66"}]})),
        ("room", "/status", json!({"capacity": {"cpu": "100"}})),
        ("a kubelet's port", "/status", json!({"daemonEndpoints": {"kubeletEndpoint": {"Port": 6443}}})),
    ] {
        let mut node = joined("kubehive-x", json!({}));
        node[at.trim_start_matches('/')] = value;
        t.tries(&format!("make a Node with {what}"), "POST", made, node).await;
    }
    for (key, value) in [
        ("flannel.alpha.coreos.com/public-ip", "192.0.2.66"),
        ("node.alpha.kubernetes.io/ttl", "0"),
        ("kubehive.io/reported", "1.1/u"),
        ("kubehive.io/enrolment", "no serial"),
    ] {
        let mut node = joined("kubehive-x", json!({}));
        node["metadata"]["annotations"][key] = value.into();
        t.tries(&format!("make a Node with {key}: {value}"), "POST", made, node).await;
    }
    let attached = json!({"status": {"volumesAttached": [{"name": "v", "devicePath": "/dev/sda"}]}});
    let path = format!("{nodes}/{}/status", fixture.edge);
    t.tries("say that a volume is attached", "MERGE", &path, attached).await;
    for port in [0, 22, 443, 2379, 6443, 10_250, 10_257, 13_000, 16_443, 30_000] {
        let led = json!({"status": {
            "addresses": [{"type": "InternalIP", "address": "192.0.2.66"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }});
        t.tries(&format!("lead the API server to port {port}"), "MERGE", &path, led).await;
        if port == 0 {
            continue;
        }
        let alone =
            json!({"status": {"addresses": null, "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
        t.tries(&format!("say port {port} without an address"), "MERGE", &path, alone).await;
    }

    // A node itself: what a captured kubelet's certificate may.
    let adopt = |uid: &Value| json!({"metadata": {"annotations": {"kubehive.io/adopted": uid}}});
    let path = format!("{nodes}/{}", fixture.plane);
    let found = call(&fixture.admin, "GET", &path, None, Value::Null).await.unwrap();
    for path in [path.clone(), format!("{path}/status")] {
        let request = Request::patch(&path)
            .header("content-type", "application/merge-patch+json")
            .header("impersonate-user", format!("system:node:{}", fixture.plane))
            .header("impersonate-group", "system:nodes")
            .body(adopt(&found["metadata"]["uid"]).to_string().into_bytes())
            .unwrap();
        let outcome = match fixture.admin.request::<Value>(request).await {
            Ok(value) => Ok(value),
            Err(kube::Error::Api(status)) => Err(Refused { code: status.code, reason: status.message }),
            Err(error) => panic!("{error}"),
        };
        t.1.push((format!("a node adopts itself by {path}"), outcome));
    }
    t.1
}

pub(crate) async fn events_and_leases(fixture: &Fixture) -> Vec<Attack> {
    let (ns, mut t) = (&fixture.namespace, Attempts(fixture, Vec::new()));
    let about = |part: &str, value: Value| {
        let mut told = event("bad.1", ns, "x");
        told["involvedObject"][part] = value;
        told
    };
    let with = |part: &str, value: Value| {
        let mut told = event("bad.1", ns, "x");
        told[part] = value;
        told
    };
    let long = "x".repeat(1025);
    // One of another namespace's pod the API server itself refuses.
    for (what, told) in [
        ("a long event", event("big.1", ns, &long)),
        ("an event with a long reason", with("reason", long[..129].into())),
        ("an event of a long path", about("fieldPath", long.clone().into())),
        ("an event of a long uid", about("uid", long.clone().into())),
        ("an event of a long name", about("name", long.clone().into())),
        ("an event of a Service", about("kind", "Service".into())),
        ("an event of another API", about("apiVersion", "evil/v1".into())),
        ("an event as the scheduler", with("source", json!({"component": "default-scheduler"}))),
        ("an event of a long host", with("source", json!({"component": "kubelet", "host": long}))),
        ("an event that points elsewhere", with("related", json!({"kind": "Node", "name": "x"}))),
    ] {
        let path = format!("/api/v1/namespaces/{ns}/events?dryRun=All");
        t.tries(&format!("tell {what}"), "POST", &path, told).await;
    }

    let path = format!("/api/v1/namespaces/{ns}/events/edge.1");
    for (what, change) in [
        ("the reason of", json!({"reason": "Evil"})),
        ("the object of", json!({"involvedObject": {"name": "other"}})),
        ("the source of", json!({"source": {"host": "other"}})),
    ] {
        t.tries(&format!("change {what} an event"), "MERGE", &path, change).await;
    }
    t.tries("remove an event", "DELETE", &path, Value::Null).await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let held = fixture.objects("coordination.k8s.io/v1", "Lease", Some("kube-node-lease"));
    for node in [&fixture.plane, &fixture.foreign, &fixture.kubeedge] {
        t.tries(&format!("make the Lease of {node}"), "POST", leases, lease(node)).await;
        held.create(&PostParams::default(), &serde_json::from_value(lease(node)).unwrap()).await.unwrap();
        let renewed =
            json!({"spec": {"holderIdentity": node, "leaseDurationSeconds": 40, "leaseTransitions": 2}});
        t.tries(&format!("renew the Lease of {node}"), "MERGE", &format!("{leases}/{node}"), renewed).await;
    }
    let csi_nodes = "/apis/storage.k8s.io/v1/csinodes";
    let nobody = node_owner(&fixture.edge, &json!("00000000-0000-0000-0000-000000000000"));
    let made = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "spec": {"drivers": []},
        "metadata": {"name": fixture.edge, "ownerReferences": [nobody]}});
    t.tries("make a CSINode of a Node that is not there", "POST", &format!("{csi_nodes}?dryRun=All"), made)
        .await;
    for node in [&fixture.plane, &fixture.foreign, &fixture.kubeedge] {
        let uid = call(&fixture.admin, "GET", &format!("/api/v1/nodes/{node}"), None, Value::Null)
            .await
            .unwrap()["metadata"]["uid"]
            .clone();
        let made = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "spec": {"drivers": []},
            "metadata": {"name": node, "ownerReferences": [node_owner(node, &uid)]}});
        t.tries(&format!("make the CSINode of {node}"), "POST", csi_nodes, made).await;
    }
    for spec in [
        json!({"holderIdentity": "x".repeat(10_000)}),
        json!({"leaseDurationSeconds": 1_000_000}),
        json!({"leaseDurationSeconds": null}),
    ] {
        let path = format!("{leases}/{}", fixture.edge);
        t.tries("bend a Lease", "MERGE", &path, json!({"spec": spec})).await;
    }
    let edge = &fixture.edge;
    let node =
        call(&fixture.admin, "GET", &format!("/api/v1/nodes/{edge}"), None, Value::Null).await.unwrap();
    let (own, other) = (&node["metadata"]["uid"], json!("00000000-0000-0000-0000-000000000000"));
    let blocking =
        json!({"apiVersion": "v1", "kind": "Node", "name": edge, "uid": own, "blockOwnerDeletion": true});
    let path = format!("{leases}/{edge}");
    let owners = |owners: Value| json!({"metadata": {"ownerReferences": owners}});
    t.tries("take the owner off a Lease", "MERGE", &path, owners(json!([]))).await;
    t.tries("change the owner of a Lease", "MERGE", &path, owners(json!([node_owner(edge, &other)]))).await;
    // One that has none.
    held.patch(edge, &PatchParams::default(), &Patch::Merge(owners(json!([])))).await.unwrap();
    for (what, owned) in [
        ("a Node that is not there", json!([node_owner(edge, &other)])),
        ("another Node", json!([node_owner(&fixture.foreign, own)])),
        ("two Nodes", json!([node_owner(edge, own), node_owner(&fixture.foreign, &other)])),
        ("a Node that it holds", json!([blocking])),
    ] {
        t.tries(&format!("give a Lease to {what}"), "MERGE", &path, owners(owned)).await;
    }
    t.tries(
        "take a Lease of the system",
        "GET",
        "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases",
        Value::Null,
    )
    .await;
    t.1
}

pub(crate) async fn rights(fixture: &Fixture) -> Vec<Attack> {
    let mut t = Attempts(fixture, Vec::new());
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
    t.tries("open a namespace", "MERGE", &format!("/api/v1/namespaces/{}", fixture.namespace), label).await;
    let definition = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/edgenodes.kubehive.io";
    t.tries("change a definition", "MERGE", definition, json!({"metadata": {"labels": {"a": "b"}}})).await;

    let names = "/apis/kubehive.io/v1alpha1/edgenodes";
    let path = format!("{names}/{}", fixture.edge);
    let barred = Patch::Merge(json!({"metadata": {"labels": {"kubehive.io/revoked": "true"}}}));
    let entries = fixture.objects("kubehive.io/v1alpha1", "EdgeNode", None);
    let barred = entries.patch(&fixture.edge, &PatchParams::default(), &barred).await.unwrap();
    let mut freed = serde_json::to_value(&barred).unwrap();
    freed["metadata"]["labels"] = json!({});
    t.tries("free a barred name", "PUT", &path, freed).await;
    let mut certified = serde_json::to_value(&barred).unwrap();
    certified["metadata"]["annotations"]["kubehive.io/certificate"] = "0c".into();
    t.tries("give a barred name a certificate", "PUT", &path, certified).await;
    let mut forgotten = serde_json::to_value(&barred).unwrap();
    forgotten["spec"] = json!({"nodeUID": "0"});
    t.tries("forget what is known of a barred name", "PUT", &path, forgotten).await;
    for word in ["True", "yes", "1", ""] {
        let barred = Patch::Merge(json!({"metadata": {"labels": {"kubehive.io/revoked": word}}}));
        let barred = entries.patch(&fixture.edge, &PatchParams::default(), &barred).await.unwrap();
        let mut certified = serde_json::to_value(&barred).unwrap();
        certified["metadata"]["annotations"]["kubehive.io/certificate"] = "0c".into();
        t.tries(&format!("give a name that is barred by `{word}` a certificate"), "PUT", &path, certified)
            .await;
    }
    t.tries("delete a barred name", "DELETE", &path, Value::Null).await;

    let tokens = "/apis/kubehive.io/v1alpha1/jointokens";
    let path = format!("{tokens}/{}", fixture.namespace);
    let held = call(&fixture.admin, "GET", &path, None, Value::Null).await.unwrap();
    for (field, value) in [
        ("uses", json!(1000)),
        ("expires", json!("2099-01-01T00:00:00Z")),
        ("node", json!("other")),
        ("used", json!(0)),
        ("used", json!(3)),
    ] {
        let mut bent = held.clone();
        bent["spec"][field] = value.clone();
        t.tries(&format!("set `{field}` of a join token to {value}"), "PUT", &path, bent).await;
    }
    let join = json!({"metadata": {}, "spec": {"expires": "2030-01-01T00:00:00Z", "uses": 1}});
    let mut mine = join;
    mine["apiVersion"] = "kubehive.io/v1alpha1".into();
    mine["kind"] = "JoinToken".into();
    mine["metadata"]["name"] = "mine".into();
    t.tries("make a join token", "POST", tokens, mine).await;
    t.1
}
