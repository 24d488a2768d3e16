//! What a node's store says while nobody else does.

use edge_store::{ObjectKey, Options, Store, Table, Write};
use serde_json::{Value, json};

use super::{Node, found};

/// What no form of output may have in it, as a Secret has it.
pub(crate) const WORD: &str = "aHVudGVyMi1hbmQtbm9ib2R5LWVsc2U=";

fn put(resource: &str, object: &Value) -> Write {
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
    Write::PutObject {
        key: ObjectKey::new(resource, text("namespace"), text("name")),
        uid: text("uid"),
        content_hash: "42".to_owned(),
        resource_version: "42".to_owned(),
        json: object.to_string().into_bytes(),
    }
}

fn metadata(namespace: &str, name: &str) -> Value {
    let mut metadata = json!({"name": name, "uid": format!("uid-{name}"), "labels": {"app": name}, "creationTimestamp": "2023-11-14T22:13:20Z"});
    if !namespace.is_empty() {
        metadata["namespace"] = json!(namespace);
    }
    metadata
}

/// A node that was cut off: two pods, of which one cannot pull its image, and a Secret.
pub(crate) fn fill(node: &Node) {
    let mut options = Options::new([1; 16]);
    options.node = Some("edge-1".to_owned());
    let store = Store::open(node.at("edgecore.db"), options).unwrap();
    let pod = |namespace: &str, name: &str, volumes: Value| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata(namespace, name),
            "spec": {"nodeName": "edge-1", "containers": [{"name": "app", "image": "r.example/x:1"}], "volumes": volumes}})
    };
    let volumes = json!([{"name": "l", "secret": {"secretName": "login"}}, {"name": "m", "configMap": {"name": "menu"}}]);
    let status = |name: &str, status: Value| Write::PutRow {
        table: Table::PodStatuses,
        key1: format!("uid-{name}"),
        key2: String::new(),
        value: status.to_string().into_bytes(),
    };
    let waiting = json!({"phase": "Pending", "containerStatuses": [{"name": "app", "restartCount": 0, "ready": false,
        "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image \"r.example/x:1\""}}}]});
    let running = json!({"phase": "Running", "podIP": "10.1.0.7", "containerStatuses": [{"name": "app", "restartCount": 3, "ready": true, "state": {"running": {}}}]});
    store
        .commit_blocking(vec![
            put("pods", &pod("default", "web", json!([]))),
            put("pods", &pod("shop", "till", volumes)),
            status("web", running),
            status("till", waiting),
            put("secrets", &json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata("shop", "login"), "data": {"password": WORD}})),
            put("services", &json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata("default", "web"),
                "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.7", "ports": [{"port": 80, "protocol": "TCP"}]}})),
            put("nodes", &json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata("", "edge-1"), "spec": {"unschedulable": true},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]}})),
            put("devices.devices.kubeedge.io", &json!({"metadata": metadata("default", "lamp"), "spec": {"nodeName": "edge-1", "protocol": {"protocolName": "modbus"}}})),
            Write::PutRow { table: Table::DeviceStates, key1: "default/lamp".to_owned(), key2: String::new(),
                value: json!({"v": 1, "uid": "u", "state": "offline"}).to_string().into_bytes() },
            Write::PutRow { table: Table::Facts, key1: "node".to_owned(), key2: "conditions".to_owned(),
                value: json!({"status": {"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": "2023-11-14T22:13:20Z"}]}}).to_string().into_bytes() },
            Write::PutRow { table: Table::Tokens, key1: "uid-web/app".to_owned(), key2: String::new(),
                value: format!(r#"{{"token":"{WORD}","expires_unix":9,"lifetime_seconds":1}}"#).into_bytes() },
        ])
        .unwrap();
}

/// The line that begins with `start`, its columns by one space.
fn row(said: &str, start: &str) -> String {
    let line =
        said.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start} in {said}"));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[actix_rt::test]
async fn what_the_node_holds_is_listed_as_kubectl_lists_it() {
    let node = Node::new();
    fill(&node);
    let get = async |words: &[&str]| node.debug(&[&["get"], words].concat()).await;
    let (is_well, said) = get(&["pods"]).await;
    assert!(is_well && said.starts_with("NAME  READY  STATUS   RESTARTS  AGE"), "{said}");
    assert!(row(&said, "web").starts_with("web 1/1 Running 3 ") && said.lines().count() == 2, "{said}");
    let said = get(&["pod", "-A"]).await.1;
    assert!(row(&said, "shop").starts_with("shop till 0/1 ImagePullBackOff 0 "), "{said}");
    let said = get(&["po", "web", "-o", "wide"]).await.1;
    assert!(row(&said, "web").ends_with(" 10.1.0.7 edge-1"), "{said}");
    let said = get(&["pods", "-A", "-l", "app in (till)"]).await.1;
    assert!(said.contains("till") && !said.contains("web"), "{said}");
    let said = get(&["pods", "web", "-o", "json"]).await.1;
    let pod: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((pod["kind"].as_str(), pod["status"]["phase"].as_str()), (Some("Pod"), Some("Running")));
    let list: Value = serde_json::from_str(&get(&["pods", "-A", "-o", "json"]).await.1).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    assert!(row(&get(&["svc"]).await.1, "web").starts_with("web ClusterIP 10.96.0.7 <none> 80/TCP "));
    // The node's own word is newer than what the cloud has sent.
    assert!(row(&get(&["node"]).await.1, "edge-1").starts_with("edge-1 NotReady,SchedulingDisabled "));
    assert!(row(&get(&["device"]).await.1, "lamp").starts_with("lamp modbus offline "));
    let said = get(&["all", "-A"]).await.1;
    assert!(
        said.contains("pod/web") && said.contains("service/web") && said.contains("secret/login"),
        "{said}"
    );
    for words in [
        &["secrets", "-A"][..],
        &["secret", "login", "-n", "shop", "-o", "yaml"],
        &["secrets", "-A", "-o", "json"],
        &["all", "-A", "-o", "yaml"],
    ] {
        let (is_well, said) = get(words).await;
        assert!(is_well && said.contains("login") && !said.contains(WORD), "{words:?}: {said}");
    }
    assert!(get(&["secret", "login", "-n", "shop", "-o", "yaml"]).await.1.contains("(32 bytes, masked)"));
    let path = node.at("edgecore.db").display().to_string();
    let (is_well, _) = super::debug(None, &["get", "pods", "--edgedb-path", &path]).await;
    assert!(is_well, "without edgecore.yaml");
    for (words, told) in [
        (&["pods", "till"][..], "this node holds no pods `till` in the namespace default"),
        (&["endpoints"], "no node holds Endpoints"),
        (&["pods", "web", "-A"], "names are not for --all-namespaces"),
        (&["all", "web"], "name a kind"),
        (&["pods", "-l", "a b"], "is no label selector"),
    ] {
        let (is_well, said) = get(words).await;
        assert!(!is_well && said.contains(told), "{words:?}: {said}");
    }
    assert!(get(&["configmaps"]).await.1.contains("this node holds none in the namespace default"));
}

#[actix_rt::test]
async fn a_row_that_is_torn_is_named_and_holds_up_nothing() {
    let node = Node::new();
    fill(&node);
    let db = rusqlite::Connection::open(node.at("edgecore.db")).unwrap();
    let torn = db.execute("UPDATE objects SET json = X'7B' WHERE name = 'till'", []);
    assert_eq!(torn.unwrap(), 1);
    drop(db);
    let said = node.debug(&["get", "pods", "-A"]).await.1;
    assert!(said.contains("web") && said.contains("1 rows are damaged and not shown: pods/till"), "{said}");
    found(&node.debug(&["check", "node"]).await.1, "WARNING", "Store", "1 damaged");
}

#[actix_rt::test]
async fn why_a_pod_waits_is_said_while_edgecore_is_down() {
    let node = Node::new();
    fill(&node);
    let (is_well, said) = node.debug(&["diagnose", "pod", "till", "-n", "shop"]).await;
    assert!(!is_well);
    found(&said, "FAIL   ", "Pod", "ImagePullBackOff, 0 of 1 containers are ready");
    found(&said, "FAIL   ", "Container", "app waits (ImagePullBackOff): Back-off pulling image");
    found(&said, "WARNING", "References", "not here: configmaps menu:");
    found(&said, "FAIL   ", "EdgeCore", "edgecore does not answer");
    let said = node.debug(&["diagnose", "pod", "till"]).await.1;
    found(&said, "FAIL   ", "Pod", "it holds shop/till: -n shop");
    let (is_well, said) = node.debug(&["diagnose", "node"]).await;
    assert!(!is_well);
    found(&said, "FAIL   ", "EdgeCore", "does not");
    found(&said, "ok     ", "Registered", "as `edge-1`");
    found(&said, "WARNING", "Schedulable", "kubectl uncordon edge-1");
    found(&said, "FAIL   ", "RuntimeEndpoint", "nobody answers");
    found(&said, "FAIL   ", "Ready", "before it fell silent; the runtime says why: RuntimeEndpoint");
    found(&said, "WARNING", "Link", "edgecore does not answer");
    found(&said, "ok     ", "Outbox", "nothing waits");
    let said = node.debug(&["diagnose", "install"]).await.1;
    found(&said, "FAIL   ", "RuntimeEndpoint", "nobody answers");
    assert!(node.debug(&["diagnose", "installation"]).await.1.contains("RuntimeEndpoint"));
}
