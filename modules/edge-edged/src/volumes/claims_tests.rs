use std::cell::RefCell;

use apimachinery::volume as names;
use serde_json::{Value, json};

use super::*;
use crate::pod::parsed_pod::tests::pod;

const NODE: &str = "edge-1";

/// Objects by `resource/namespace/name`.
#[derive(Default)]
struct Stored(RefCell<BTreeMap<ObjectKey, Value>>);

impl Stored {
    fn put(&self, resource: &str, namespace: &str, name: &str, object: Value) {
        self.0.borrow_mut().insert(ObjectKey::new(resource, namespace, name), object);
    }

    fn claim(&self, status: &str, volume: &str) {
        let claim = json!({"metadata": {"namespace": "default", "name": "data", "uid": "c1"},
            "spec": {"volumeName": volume}, "status": {"phase": status}});
        self.put(resource::PERSISTENT_VOLUME_CLAIMS, "default", "data", claim);
    }

    fn volume(&self, spec: Value) {
        let mut whole = json!({"claimRef": {"namespace": "default", "name": "data", "uid": "c1"}});
        for (key, value) in spec.as_object().unwrap() {
            whole[key] = value.clone();
        }
        self.put(resource::PERSISTENT_VOLUMES, "", "pv", json!({"metadata": {"name": "pv"}, "spec": whole}));
    }

    fn driver(&self, spec: Value) {
        self.put(resource::CSI_DRIVERS, "", "d.io", json!({"metadata": {"name": "d.io"}, "spec": spec}));
    }

    fn attachment(&self, status: Value) {
        let name = names::attachment_name("h", "d.io", NODE);
        let spec = json!({"attacher": "d.io", "nodeName": NODE, "source": {"persistentVolumeName": "pv"}});
        let object = json!({"metadata": {"name": name}, "spec": spec, "status": status});
        self.put(resource::VOLUME_ATTACHMENTS, "", &name, object);
    }

    fn of(&self, volume: Value) -> Result<External, String> {
        let mounts = json!([{"name": "v", "mountPath": "/v"}]);
        let pod = pod(
            json!({"containers": [{"name": "c", "image": "x", "volumeMounts": mounts}], "volumes": [volume],
            "securityContext": {"fsGroup": 77}, "serviceAccountName": "robot"}),
        );
        let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
        let node = NodeFacts { name: NODE, labels: &labels };
        let find = |key: &ObjectKey| Some(self.0.borrow().get(key)?.to_string().into_bytes());
        let (mut found, missing) = external(&pod, &BTreeSet::from(["v"]), &node, &find);
        missing.first().map_or_else(|| Ok(found.remove(0)), |error| Err(error.to_string()))
    }

    fn claimed(&self) -> Result<External, String> {
        self.of(json!({"name": "v", "persistentVolumeClaim": {"claimName": "data"}}))
    }

    fn csi(&self) -> CsiBacking {
        let Backing::Csi(csi) = self.claimed().unwrap().backing else { panic!("it is no CSI volume") };
        *csi
    }
}

fn unprocessed(why: &str) -> String {
    format!(
        "Unable to attach or mount volumes: unmounted volumes=[v], unattached volumes=[], failed to process volumes=[v]: {why}"
    )
}

#[test]
fn a_claim_that_is_not_ready_is_told_in_the_kubelets_words() {
    let stored = Stored::default();
    let of = "error processing PVC default/data: ";
    let words = "failed to fetch PVC from API server: persistentvolumeclaims \"data\" not found";
    assert_eq!(stored.claimed(), Err(unprocessed(&format!("{of}{words}"))));
    stored.claim("Pending", "");
    assert_eq!(stored.claimed(), Err(unprocessed(&format!("{of}PVC is not bound"))));
    stored.claim("Bound", "");
    assert_eq!(stored.claimed(), Err(unprocessed(&format!("{of}PVC has empty pvc.Spec.VolumeName"))));
    stored.claim("Bound", "pv");
    let words = "failed to fetch PV pv from API server: persistentvolumes \"pv\" not found";
    assert_eq!(stored.claimed(), Err(unprocessed(&format!("{of}{words}"))));
    stored.volume(json!({"claimRef": {"uid": "another"}, "hostPath": {"path": "/x"}}));
    assert!(
        stored
            .claimed()
            .unwrap_err()
            .ends_with("pv.Spec.ClaimRef.UID another does not point to claim.UID c1")
    );
    stored.volume(json!({"volumeMode": "Block", "hostPath": {"path": "/x"}}));
    let words = "volume v has volumeMode Block, but is specified in volumeMounts";
    assert_eq!(stored.claimed(), Err(unprocessed(words)));
    stored.volume(json!({"iscsi": {"targetPortal": "x", "iqn": "y", "lun": 0}}));
    assert!(stored.claimed().unwrap_err().contains("no volume plugin matched"));
    stored.volume(json!({"hostPath": {"path": "/x"}, "mountOptions": ["noatime"]}));
    let words = "MountVolume.MountOptionSupport check failed for volume \"pv\" : mount options are not supported for this volume type";
    assert_eq!(stored.claimed(), Err(words.to_owned()));
    stored.volume(json!({"hostPath": {"path": "/x"}}));
    let found = stored.claimed().unwrap();
    assert_eq!((found.name.as_str(), found.read_only), ("pv", false));
    assert!(matches!(found.backing, Backing::HostPath(source) if source.path == "/x"));
}

#[test]
fn a_volume_of_another_place_is_not_mounted_here() {
    let stored = Stored::default();
    stored.claim("Bound", "pv");
    let affinity = |zone: &str| {
        let terms = json!([{"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]}]);
        json!({"local": {"path": "/disk"}, "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}})
    };
    stored.volume(affinity("b"));
    let words = "MountVolume.NodeAffinity check failed for volume \"pv\" : no matching NodeSelectorTerms";
    assert_eq!(stored.claimed(), Err(words.to_owned()));
    stored.volume(affinity("a"));
    let local = Backing::Local { path: "/disk".to_owned(), mount_options: Vec::new() };
    assert_eq!(stored.claimed().unwrap().backing, local);
}

#[test]
fn a_generic_ephemeral_volume_is_the_pods_own_claim() {
    let stored = Stored::default();
    let volume = json!({"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}});
    // The name of the test's pod, and of the claim that Kubernetes makes for it.
    let name = pod(json!({"containers": [{"name": "c", "image": "x"}]})).id;
    let claim = format!("{}-v", name.name);
    let owned = |uid: &str| {
        json!({"metadata": {"namespace": name.namespace, "name": claim, "uid": "c1",
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": name.name, "uid": uid, "controller": true}]},
        "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}})
    };
    stored.volume(json!({"hostPath": {"path": "/x"}}));
    stored.put(resource::PERSISTENT_VOLUME_CLAIMS, &name.namespace, &claim, owned("another"));
    let words = format!("was not created for pod {}/{} (pod is not owner)", name.namespace, name.name);
    assert!(stored.of(volume.clone()).unwrap_err().ends_with(&words));
    stored.put(resource::PERSISTENT_VOLUME_CLAIMS, &name.namespace, &claim, owned(&name.uid));
    assert_eq!(stored.of(volume).unwrap().name, "pv");
}

#[test]
fn a_csi_volume_waits_for_its_attachment_and_its_secrets() {
    let stored = Stored::default();
    stored.claim("Bound", "pv");
    stored.volume(json!({"accessModes": ["ReadWriteOnce"], "mountOptions": ["noatime"], "csi": {"driver": "d.io", "volumeHandle": "h",
        "fsType": "ext4", "volumeAttributes": {"a": "b"},
        "nodeStageSecretRef": {"namespace": "kube-system", "name": "s"}}}));
    let name = names::attachment_name("h", "d.io", NODE);
    let of = "MountVolume.WaitForAttach failed for volume \"pv\" : ";
    assert!(
        stored
            .claimed()
            .unwrap_err()
            .starts_with(&format!("{of}volume h has GET error for volume attachment {name}"))
    );
    stored.attachment(json!({"attached": false}));
    assert_eq!(stored.claimed(), Err(format!("{of}volume h is not attached for volume attachment {name}")));
    stored.attachment(json!({"attached": false, "attachError": {"message": "no room"}}));
    assert_eq!(stored.claimed(), Err(format!("{of}no room")));
    stored.attachment(json!({"attached": true, "attachmentMetadata": {"device": "/dev/x"}}));
    let words = "MountVolume.MountDevice failed for volume \"pv\" : fetching NodeStageSecretRef kube-system/s failed: secrets \"s\" not found";
    assert_eq!(stored.claimed(), Err(words.to_owned()));
    stored.put(resource::SECRETS, "kube-system", "s", json!({"metadata": {}, "data": {"k": "aGk="}}));
    let csi = stored.csi();
    assert_eq!(csi.volume.publish_context["device"], "/dev/x");
    assert_eq!((csi.volume.stage_secrets["k"].as_str(), csi.volume.fs_group), ("hi", Some(77)));
    assert_eq!(csi.volume.mount_options, ["noatime"]);
    assert!(csi.takes_group && csi.volume.publish_attributes.is_empty());
    // What needs no attachment waits for none.
    stored.attachment(json!({"attached": false}));
    stored.driver(json!({"attachRequired": false, "podInfoOnMount": true, "requiresRepublish": true, "fsGroupPolicy": "None",
        "tokenRequests": [{"audience": "vault"}], "serviceAccountTokenInSecrets": true}));
    let csi = stored.csi();
    assert_eq!(csi.volume.publish_attributes["csi.storage.k8s.io/serviceAccount.name"], "robot");
    assert_eq!(csi.volume.publish_attributes["csi.storage.k8s.io/ephemeral"], "false");
    assert!(csi.volume.republish && !csi.takes_group && csi.volume.publish_context.is_empty());
    assert_eq!(csi.tokens, [TokenRequest { audience: "vault".into(), seconds: 3600 }]);
    assert!(csi.tokens_are_secrets);
}

#[test]
fn an_inline_volume_needs_a_driver_that_allows_it() {
    let stored = Stored::default();
    let volume = json!({"name": "v", "csi": {"driver": "d.io", "volumeAttributes": {"a": "b"}}});
    let words = "volume mode \"Ephemeral\" not supported by driver d.io (no CSIDriver object)";
    assert!(stored.of(volume.clone()).unwrap_err().ends_with(words));
    stored.driver(json!({"volumeLifecycleModes": ["Persistent"]}));
    assert!(stored.of(volume.clone()).unwrap_err().ends_with("(only supports [\"Persistent\"])"));
    stored.driver(json!({"volumeLifecycleModes": ["Persistent", "Ephemeral"]}));
    let Backing::Csi(csi) = stored.of(volume).unwrap().backing else { panic!() };
    assert!(csi.volume.is_inline && csi.volume.name == "v");
    let uid = pod(json!({"containers": [{"name": "c", "image": "x"}]})).id.uid;
    assert_eq!(csi.volume.handle, format!("csi-{}", names::sha256_hex(&[&uid, "v"])));
}

#[test]
fn what_no_container_mounts_blocks_nothing() {
    let pod = pod(json!({"containers": [{"name": "c", "image": "x"}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "gone"}}]}));
    let labels = BTreeMap::new();
    let node = NodeFacts { name: NODE, labels: &labels };
    assert_eq!(external(&pod, &BTreeSet::new(), &node, &|_| None), (Vec::new(), Vec::new()));
    assert!(has_external(&pod));
}
