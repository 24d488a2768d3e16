//! The CSI drivers of a node: what its Node and its CSINode say of them, as a kubelet's nodeinfomanager writes it.

use std::collections::{BTreeMap, BTreeSet};

use contract::NodeName;
use contract::csi_node::{CSI_DRIVERS_ANNOTATION, CSI_DRIVERS_MAX, CsiNodeDriver};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver, CSINodeSpec, VolumeNodeResources};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::error::{NodeReportError, status_code};
use crate::registration::{is_label_value, may_claim};

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
                None => key.contains('/') && may_claim(key) && is_label_value(value),
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

/// Writes the CSINode, unless it says so already. One of an earlier Node of this name is left to the garbage collector.
pub(crate) async fn write(
    client: &kube::Client,
    node: &NodeName,
    uid: &str,
    drivers: &[CsiNodeDriver],
) -> Result<(), NodeReportError> {
    let api: Api<CSINode> = Api::all(client.clone());
    let spec = spec(drivers);
    match api.get_opt(node.as_str()).await? {
        Some(found) => {
            let owners = found.metadata.owner_references.unwrap_or_default();
            if !owners.iter().any(|owner| owner.uid == uid) {
                return Err(NodeReportError::Contended);
            }
            if found.spec == spec {
                return Ok(());
            }
            let patch = json!({ "metadata": { "resourceVersion": found.metadata.resource_version },
                "spec": { "drivers": spec.drivers } });
            match api.patch(node.as_str(), &PatchParams::default(), &Patch::Merge(&patch)).await {
                Ok(_) => Ok(()),
                Err(error) if matches!(status_code(&error), Some(404 | 409)) => {
                    Err(NodeReportError::Contended)
                }
                Err(error) => Err(error.into()),
            }
        }
        None => {
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
                Err(error) if status_code(&error) == Some(409) => Err(NodeReportError::Contended),
                Err(error) => Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
}
