//! Printer columns of the kinds of volumes and of runtime classes (Kubernetes 1.36: `pkg/printers/internalversion`).

use serde_json::{Value, json};

use super::cells::{AGE, BuiltIn, joined, or_none, or_unset};
use crate::unstructured::{list, strings, text};

/// The columns between the name and what every kind has; `None` for other kinds.
pub(super) fn columns(group_resource: &str) -> Option<&'static [BuiltIn]> {
    Some(match group_resource {
        "persistentvolumes" => &[
            ("Capacity", "string", 0, |o, _| json!(amount(o, "/spec/capacity/storage"))),
            ("Access Modes", "string", 0, |o, _| access_modes(o, "/spec/accessModes")),
            ("Reclaim Policy", "string", 0, |o, _| json!(text(o, "/spec/persistentVolumeReclaimPolicy"))),
            ("Status", "string", 0, |o, _| phase(o)),
            ("Claim", "string", 0, |o, _| {
                let claim = (text(o, "/spec/claimRef/namespace"), text(o, "/spec/claimRef/name"));
                json!(if claim.1.is_empty() { String::new() } else { format!("{}/{}", claim.0, claim.1) })
            }),
            ("StorageClass", "string", 0, |o, _| storage_class(o)),
            ("VolumeAttributesClass", "string", 0, |o, _| {
                or_unset(text(o, "/spec/volumeAttributesClassName"))
            }),
            ("Reason", "string", 0, |o, _| json!(text(o, "/status/reason"))),
            AGE,
            ("VolumeMode", "string", 1, |o, _| or_unset(text(o, "/spec/volumeMode"))),
        ],
        "persistentvolumeclaims" => &[
            ("Status", "string", 0, |o, _| phase(o)),
            ("Volume", "string", 0, |o, _| json!(text(o, "/spec/volumeName"))),
            ("Capacity", "string", 0, |o, _| {
                json!(if is_bound(o) { amount(o, "/status/capacity/storage") } else { String::new() })
            }),
            ("Access Modes", "string", 0, |o, _| {
                if is_bound(o) { access_modes(o, "/status/accessModes") } else { json!("") }
            }),
            ("StorageClass", "string", 0, |o, _| storage_class(o)),
            ("VolumeAttributesClass", "string", 0, |o, _| {
                or_unset(text(o, "/spec/volumeAttributesClassName"))
            }),
            AGE,
            ("VolumeMode", "string", 1, |o, _| or_unset(text(o, "/spec/volumeMode"))),
        ],
        "csidrivers.storage.k8s.io" => &[
            ("AttachRequired", "boolean", 0, |o, _| json!(o["spec"]["attachRequired"] != json!(false))),
            ("PodInfoOnMount", "boolean", 0, |o, _| json!(o["spec"]["podInfoOnMount"] == json!(true))),
            ("StorageCapacity", "boolean", 0, |o, _| json!(o["spec"]["storageCapacity"] == json!(true))),
            ("TokenRequests", "string", 0, |o, _| {
                let audiences =
                    list(o, "/spec/tokenRequests").iter().map(|one| text(one, "/audience").to_owned());
                let is_set = o["spec"]["tokenRequests"].is_array();
                json!(if is_set { joined(audiences) } else { "<unset>".to_owned() })
            }),
            ("RequiresRepublish", "boolean", 0, |o, _| json!(o["spec"]["requiresRepublish"] == json!(true))),
            ("Modes", "string", 0, |o, _| or_none(&strings(o, "/spec/volumeLifecycleModes").join(","))),
            AGE,
        ],
        "csinodes.storage.k8s.io" => {
            &[("Drivers", "integer", 0, |o, _| json!(list(o, "/spec/drivers").len())), AGE]
        }
        "volumeattachments.storage.k8s.io" => &[
            ("Attacher", "string", 0, |o, _| json!(text(o, "/spec/attacher"))),
            ("PV", "string", 0, |o, _| json!(text(o, "/spec/source/persistentVolumeName"))),
            ("Node", "string", 0, |o, _| json!(text(o, "/spec/nodeName"))),
            ("Attached", "boolean", 0, |o, _| json!(o["status"]["attached"] == json!(true))),
            AGE,
        ],
        "runtimeclasses.node.k8s.io" => &[("Handler", "string", 0, |o, _| json!(text(o, "/handler"))), AGE],
        _ => return None,
    })
}

/// One that is being deleted says so.
fn phase(object: &Value) -> Value {
    let is_ending = !text(object, "/metadata/deletionTimestamp").is_empty();
    json!(if is_ending { "Terminating" } else { text(object, "/status/phase") })
}

/// Whether a claim has its volume: what it has is shown then, not what it asks for.
fn is_bound(claim: &Value) -> bool {
    !text(claim, "/spec/volumeName").is_empty()
}

/// The older annotation goes before the field (Kubernetes: `GetPersistentVolumeClass`).
fn storage_class(object: &Value) -> Value {
    match text(object, "/metadata/annotations/volume.beta.kubernetes.io~1storage-class") {
        "" => json!(text(object, "/spec/storageClassName")),
        older => json!(older),
    }
}

fn amount(object: &Value, pointer: &str) -> String {
    match object.pointer(pointer) {
        None | Some(Value::Null) => "0".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// The short forms, each once and in one order (Kubernetes: `GetAccessModesAsString`).
fn access_modes(object: &Value, pointer: &str) -> Value {
    let modes = strings(object, pointer);
    let short = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let has = short.into_iter().filter(|(mode, _)| modes.iter().any(|one| one == mode));
    json!(joined(has.map(|(_, short)| short.to_owned())))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    /// The cells before the age.
    fn cells(group_resource: &str, object: &Value) -> Vec<Value> {
        let columns = columns(group_resource).unwrap();
        let shown = columns.iter().filter(|(name, _, priority, _)| *name != "Age" && *priority == 0);
        shown.map(|column| column.3(object, Timestamp::UNIX_EPOCH)).collect()
    }

    #[test]
    fn a_claim_shows_what_it_has_and_not_what_it_asks_for() {
        let mut claim = json!({"spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "fast",
            "resources": {"requests": {"storage": "1Gi"}}}, "status": {"phase": "Pending"}});
        let pending = ["Pending", "", "", "", "fast", "<unset>"].map(Value::from);
        assert_eq!(cells("persistentvolumeclaims", &claim), pending);
        claim["spec"]["volumeName"] = json!("pv-1");
        claim["status"] = json!({"phase": "Bound", "capacity": {"storage": "2Gi"},
            "accessModes": ["ReadWriteOncePod", "ReadWriteMany", "ReadWriteMany"]});
        claim["spec"]["volumeAttributesClassName"] = json!("gold");
        let bound = ["Bound", "pv-1", "2Gi", "RWX,RWOP", "fast", "gold"].map(Value::from);
        assert_eq!(cells("persistentvolumeclaims", &claim), bound);
        claim["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(cells("persistentvolumeclaims", &claim)[0], "Terminating");
    }

    #[test]
    fn volumes_drivers_attachments_and_classes_have_kubernetes_columns() {
        let mut volume = json!({"spec": {"capacity": {"storage": "5Gi"}, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"],
            "persistentVolumeReclaimPolicy": "Retain"}, "status": {"phase": "Pending"}});
        let free = ["5Gi", "RWO,ROX", "Retain", "Pending", "", "", "<unset>", ""].map(Value::from);
        assert_eq!(cells("persistentvolumes", &volume), free);
        volume["spec"]["claimRef"] = json!({"namespace": "d", "name": "data"});
        volume["metadata"]["annotations"] = json!({"volume.beta.kubernetes.io/storage-class": "old"});
        let of = cells("persistentvolumes", &volume);
        assert_eq!((&of[4], &of[5]), (&json!("d/data"), &json!("old")));
        assert_eq!(
            cells(
                "csidrivers.storage.k8s.io",
                &json!({"spec": {"tokenRequests": [{"audience": "a"}, {"audience": "b"}]}})
            ),
            [json!(true), json!(false), json!(false), json!("a,b"), json!(false), json!("<none>")]
        );
        assert_eq!(cells("csinodes.storage.k8s.io", &json!({"spec": {"drivers": [{}, {}]}})), [json!(2)]);
        let attachment = json!({"spec": {"attacher": "csi.x", "source": {"persistentVolumeName": "pv"}, "nodeName": "n"},
            "status": {"attached": true}});
        assert_eq!(
            cells("volumeattachments.storage.k8s.io", &attachment),
            [json!("csi.x"), json!("pv"), json!("n"), json!(true)]
        );
        assert_eq!(cells("runtimeclasses.node.k8s.io", &json!({"handler": "kata"})), [json!("kata")]);
    }
}
