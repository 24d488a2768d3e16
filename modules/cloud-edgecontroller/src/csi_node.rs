//! The CSI drivers of a node: what its Node and its CSINode say of them, as a kubelet's nodeinfomanager writes it.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::names::is_label_value;
use apimachinery::node_label::check_node_label;
use contract::NodeName;
use contract::csi_node::{CSI_DRIVERS_ANNOTATION, CSI_DRIVERS_MAX, CsiNodeDriver};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver, CSINodeSpec, VolumeNodeResources};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kubewatch::status_code;
use serde_json::{Value, json};

use crate::error::NodeReportError;

/// How the attach-detach controller knows a node's ids.
const NODE_ID_ANNOTATION: &str = "csi.volume.kubernetes.io/nodeid";

/// The drivers that a node reports, each name once and in order. `None`: it says nothing of them.
pub(crate) fn reported(report: &Value) -> Option<Vec<CsiNodeDriver>> {
    let annotations = report.pointer("/metadata/annotations")?;
    let said: Vec<CsiNodeDriver> =
        serde_json::from_str(annotations.get(CSI_DRIVERS_ANNOTATION)?.as_str()?).ok()?;
    let valid = said.into_iter().filter(CsiNodeDriver::is_valid).take(CSI_DRIVERS_MAX);
    let by_name: BTreeMap<String, CsiNodeDriver> =
        valid.map(|driver| (driver.name.clone(), driver)).collect();
    Some(by_name.into_values().collect())
}

/// Those of the drivers whose topology does not contradict the Node: a label that is there stays, and a driver that says
/// something else counts as not registered.
pub(crate) fn fitting(drivers: Vec<CsiNodeDriver>, node: &Node) -> Vec<CsiNodeDriver> {
    let labels = node.metadata.labels.as_ref();
    let mut said: BTreeMap<String, String> = BTreeMap::new();
    let mut fits = |driver: &CsiNodeDriver| {
        let is_new = |(key, value): (&String, &String)| {
            let there = labels.and_then(|labels| labels.get(key)).or(said.get(key));
            match there {
                Some(there) => there == value,
                // One of the driver's own domain: those without are administrators'.
                None => key.contains('/') && check_node_label(key).is_ok() && is_label_value(value),
            }
        };
        let fits = driver.topology.iter().all(is_new);
        if fits {
            said.extend(driver.topology.clone());
        }
        fits
    };
    drivers.into_iter().filter(|driver| fits(driver)).collect()
}

/// Adds to a patch of the Node's metadata what it says of the drivers.
pub(crate) fn complete(metadata: &mut Value, drivers: &[CsiNodeDriver]) {
    let ids: BTreeMap<&str, &str> =
        drivers.iter().map(|driver| (driver.name.as_str(), driver.node_id.as_str())).collect();
    metadata["annotations"][NODE_ID_ANNOTATION] =
        if ids.is_empty() { Value::Null } else { Value::from(json!(ids).to_string()) };
    for (key, value) in drivers.iter().flat_map(|driver| &driver.topology) {
        metadata["labels"][key] = Value::from(value.as_str());
    }
}

fn spec(drivers: &[CsiNodeDriver]) -> CSINodeSpec {
    let driver = |driver: &CsiNodeDriver| {
        let keys: BTreeSet<&String> = driver.topology.keys().collect();
        let count = i32::try_from(driver.max_volumes).ok().filter(|count| *count > 0);
        CSINodeDriver {
            name: driver.name.clone(),
            node_id: driver.node_id.clone(),
            topology_keys: (!keys.is_empty()).then(|| keys.into_iter().cloned().collect()),
            allocatable: count.map(|count| VolumeNodeResources { count: Some(count) }),
        }
    };
    CSINodeSpec { drivers: drivers.iter().map(driver).collect() }
}

/// Writes the CSINode, unless it says so already. One of an earlier Node of this name, or of none, makes way.
pub(crate) async fn write(
    client: &kube::Client,
    node: &NodeName,
    uid: &str,
    drivers: &[CsiNodeDriver],
) -> Result<(), NodeReportError> {
    let api: Api<CSINode> = Api::all(client.clone());
    let spec = spec(drivers);
    if let Some(found) = api.get_opt(node.as_str()).await? {
        let owners = found.metadata.owner_references.as_deref().unwrap_or_default();
        if owners.iter().any(|owner| owner.uid == uid) {
            return update(&api, node, found, &spec.drivers).await;
        }
        let CSINode { metadata: ObjectMeta { uid, resource_version, .. }, .. } = found;
        let params = DeleteParams::default().preconditions(Preconditions { uid, resource_version });
        match api.delete(node.as_str(), &params).await {
            Ok(_) => {}
            Err(error) if status_code(&error) == Some(404) => {}
            Err(error) => return Err(contended_on(error, 409)),
        }
    }
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.as_str().to_owned(),
        uid: uid.to_owned(),
        ..OwnerReference::default()
    };
    let metadata = ObjectMeta {
        name: Some(node.as_str().to_owned()),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    };
    match api.create(&PostParams::default(), &CSINode { metadata, spec }).await {
        Ok(_) => Ok(()),
        Err(error) => Err(contended_on(error, 409)),
    }
}

/// Makes the CSINode that was found say what is wanted. The API server takes no other id and no other topology of a driver that
/// is in it: such a driver leaves it first, and comes back.
async fn update(
    api: &Api<CSINode>,
    node: &NodeName,
    mut found: CSINode,
    wanted: &[CSINodeDriver],
) -> Result<(), NodeReportError> {
    if found.spec.drivers == wanted {
        return Ok(());
    }
    let unchanged = without_changed(&found.spec.drivers, wanted);
    if unchanged.len() < wanted.len() {
        match patch(api, node, &found, wanted).await {
            Err(error) if status_code(&error) == Some(422) => {
                found =
                    patch(api, node, &found, &unchanged).await.map_err(|error| contended_on(error, 404))?;
            }
            other => return other.map(drop).map_err(|error| contended_on(error, 404)),
        }
    }
    patch(api, node, &found, wanted).await.map(drop).map_err(|error| contended_on(error, 404))
}

/// The wanted drivers but for those that are there and say something else.
fn without_changed(there: &[CSINodeDriver], wanted: &[CSINodeDriver]) -> Vec<CSINodeDriver> {
    let is_same = |driver: &&CSINodeDriver| {
        there.iter().find(|own| own.name == driver.name).is_none_or(|own| own == *driver)
    };
    wanted.iter().filter(is_same).cloned().collect()
}

async fn patch(
    api: &Api<CSINode>,
    node: &NodeName,
    found: &CSINode,
    drivers: &[CSINodeDriver],
) -> Result<CSINode, kube::Error> {
    let patch = json!({ "metadata": { "resourceVersion": found.metadata.resource_version },
        "spec": { "drivers": drivers } });
    api.patch(node.as_str(), &PatchParams::default(), &Patch::Merge(&patch)).await
}

/// Somebody was there meanwhile, by an answer of 409 or `code`; then it is tried again.
fn contended_on(error: kube::Error, code: u16) -> NodeReportError {
    match status_code(&error) {
        Some(409) => NodeReportError::Contended,
        Some(other) if other == code => NodeReportError::Contended,
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn report(drivers: &Value) -> Value {
        json!({ "metadata": { "annotations": { CSI_DRIVERS_ANNOTATION: drivers.to_string() } } })
    }

    fn node(labels: Value) -> Node {
        serde_json::from_value(json!({ "metadata": { "name": "edge-1", "labels": labels } })).unwrap()
    }

    #[test]
    fn what_a_node_says_of_its_drivers_is_parsed_and_bounded() {
        assert_eq!(reported(&json!({})), None);
        assert_eq!(reported(&report(&json!([]))), Some(Vec::new()));
        let said = json!([{ "name": "b.io", "nodeID": "n" }, { "name": "../x", "nodeID": "n" }, { "name": "a.io", "nodeID": "" },
            { "name": "a.io", "nodeID": "m", "topology": { "topology.a.io/rack": "r1" }, "maxVolumes": 7 }]);
        let drivers = reported(&report(&said)).unwrap();
        assert_eq!(drivers.iter().map(|driver| driver.name.as_str()).collect::<Vec<_>>(), ["a.io", "b.io"]);
        let mut metadata = json!({});
        complete(&mut metadata, &drivers);
        assert_eq!(metadata["annotations"][NODE_ID_ANNOTATION], json!(r#"{"a.io":"m","b.io":"n"}"#));
        assert_eq!(metadata["labels"], json!({ "topology.a.io/rack": "r1" }));
        let spec = json!(spec(&drivers));
        assert_eq!(spec["drivers"][0]["topologyKeys"], json!(["topology.a.io/rack"]));
        assert_eq!(spec["drivers"][0]["allocatable"]["count"], 7);
        assert_eq!(spec["drivers"][1].get("allocatable"), None);
        complete(&mut metadata, &[]);
        assert_eq!(metadata["annotations"][NODE_ID_ANNOTATION], Value::Null, "the last one is gone");
        let many: Vec<Value> = (0..200).map(|n| json!({ "name": format!("d{n}"), "nodeID": "n" })).collect();
        assert_eq!(reported(&report(&json!(many))).unwrap().len(), CSI_DRIVERS_MAX);
    }

    #[test]
    fn no_driver_moves_a_node_or_claims_what_a_kubelet_may_not() {
        let driver = |name: &str, key: &str, value: &str| CsiNodeDriver {
            name: name.to_owned(),
            node_id: "n".to_owned(),
            topology: [(key.to_owned(), value.to_owned())].into(),
            max_volumes: 0,
        };
        let all = vec![
            driver("fits", "topology.x/rack", "r1"),
            driver("same", "topology.x/rack", "r1"),
            driver("other", "topology.x/rack", "r2"),
            driver("moves", "zone", "b"),
            driver("plain", "rack", "r1"),
            driver("role", "node-role.kubernetes.io/control-plane", ""),
        ];
        let left = fitting(all, &node(json!({ "zone": "a" })));
        assert_eq!(left.iter().map(|driver| driver.name.as_str()).collect::<Vec<_>>(), ["fits", "same"]);
    }

    /// An API server with one CSINode, which takes no change of a driver that is in it.
    struct Server(Mutex<(Option<Value>, Vec<&'static str>)>);

    impl Server {
        fn answer(&self, method: &str, body: &[u8]) -> (u16, Value) {
            let mut held = self.0.lock().unwrap();
            let (object, calls) = &mut *held;
            let wanted: Value = serde_json::from_slice(body).unwrap_or_default();
            let status = |code: u16| {
                let reason = if code == 404 { "NotFound" } else { "" };
                (
                    code,
                    json!({ "kind": "Status", "status": "Failure", "code": code, "message": "", "reason": reason }),
                )
            };
            match (method, object.is_some()) {
                ("GET", true) => (200, object.clone().unwrap()),
                ("POST", false) => {
                    calls.push("create");
                    *object = Some(wanted.clone());
                    (201, wanted)
                }
                ("DELETE", true) => {
                    calls.push("delete");
                    assert_eq!(wanted["preconditions"]["uid"], object.take().unwrap()["metadata"]["uid"]);
                    (200, json!({ "kind": "Status", "status": "Success" }))
                }
                ("PATCH", true) => {
                    let there = object.as_mut().unwrap();
                    let (old, new) = (there["spec"]["drivers"].clone(), wanted["spec"]["drivers"].clone());
                    let named = |list: &Value, name: &Value| {
                        list.as_array().unwrap().iter().find(|own| own["name"] == *name).cloned()
                    };
                    let changes = |own: &Value| named(&old, &own["name"]).is_some_and(|old| old != *own);
                    if new.as_array().unwrap().iter().any(changes) {
                        calls.push("refused");
                        return status(422);
                    }
                    calls.push("patch");
                    there["spec"]["drivers"] = new;
                    (200, there.clone())
                }
                ("GET" | "DELETE" | "PATCH", false) => status(404),
                _ => status(409),
            }
        }
    }

    /// What is written over `object`: the calls, the drivers and the owner.
    fn written(object: Option<Value>, drivers: &[CsiNodeDriver]) -> (Vec<&'static str>, Value, Value) {
        let server = Arc::new(Server(Mutex::new((object, Vec::new()))));
        let serving = Arc::clone(&server);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async move {
            let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
                let server = Arc::clone(&serving);
                async move {
                    let method = request.method().to_string();
                    let body =
                        http_body_util::BodyExt::collect(request.into_body()).await.unwrap().to_bytes();
                    let (code, answer) = server.answer(&method, &body);
                    let body = http_body_util::Full::new(bytes::Bytes::from(answer.to_string()));
                    let answer = http::Response::builder().status(code).body(body).unwrap();
                    Ok::<_, std::convert::Infallible>(answer)
                }
            });
            let client = kube::Client::new(service, "default");
            write(&client, &NodeName::parse("edge-1").unwrap(), "n1", drivers).await.unwrap();
        });
        let (object, calls) = server.0.lock().unwrap().clone();
        let object = object.unwrap();
        (calls, object["spec"]["drivers"].clone(), object["metadata"]["ownerReferences"][0]["uid"].clone())
    }

    #[test]
    fn what_changes_of_a_driver_reaches_its_node_and_another_nodes_makes_way() {
        let driver = |name: &str, id: &str| CsiNodeDriver {
            name: name.to_owned(),
            node_id: id.to_owned(),
            topology: BTreeMap::new(),
            max_volumes: 0,
        };
        let there = |owners: Value| {
            json!({ "metadata": { "name": "edge-1", "uid": "c1", "resourceVersion": "1", "ownerReferences": owners },
                "spec": { "drivers": [{ "name": "a", "nodeID": "a1" }, { "name": "b", "nodeID": "b1" }] } })
        };
        let owner = |uid: &str| json!([{ "apiVersion": "v1", "kind": "Node", "name": "edge-1", "uid": uid }]);
        let ids = |drivers: &Value| -> Vec<String> {
            drivers.as_array().unwrap().iter().map(|own| own["nodeID"].as_str().unwrap().to_owned()).collect()
        };
        for (object, drivers, calls, left) in [
            (None, vec![driver("a", "a1")], vec!["create"], vec!["a1"]),
            (Some(there(owner("n1"))), vec![driver("a", "a1"), driver("b", "b1")], vec![], vec!["a1", "b1"]),
            (
                Some(there(owner("n1"))),
                vec![driver("b", "b1"), driver("c", "c1")],
                vec!["patch"],
                vec!["b1", "c1"],
            ),
            (
                Some(there(owner("n1"))),
                vec![driver("a", "a2"), driver("b", "b1")],
                vec!["refused", "patch", "patch"],
                vec!["a2", "b1"],
            ),
            (Some(there(owner("n0"))), vec![driver("a", "a2")], vec!["delete", "create"], vec!["a2"]),
            (Some(there(Value::Null)), vec![driver("a", "a2")], vec!["delete", "create"], vec!["a2"]),
        ] {
            let (done, found, owned_by) = written(object, &drivers);
            assert_eq!(
                (done, ids(&found)),
                (calls, left.into_iter().map(str::to_owned).collect()),
                "{drivers:?}"
            );
            assert_eq!(owned_by, "n1");
        }
    }
}
