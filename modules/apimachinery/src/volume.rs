//! What stands behind a persistent volume claim, and how Kubernetes names it.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{ObjectKey, resource};

/// Where a CSI volume names a Secret that its node needs: the pointer to the reference.
const SECRETS_OF_CSI: [&str; 3] =
    ["/spec/csi/nodeStageSecretRef", "/spec/csi/nodePublishSecretRef", "/spec/csi/nodeExpandSecretRef"];

/// What is read of a claim here, as JSON pointers.
pub const READ_OF_CLAIM: &[&str] =
    &["/metadata/namespace", "/metadata/name", "/metadata/uid", "/spec/volumeName"];
/// What is read of a volume here, as JSON pointers.
pub const READ_OF_VOLUME: &[&str] = &[
    "/spec/claimRef/namespace",
    "/spec/claimRef/name",
    "/spec/claimRef/uid",
    "/spec/csi/driver",
    "/spec/csi/volumeHandle",
    "/spec/csi/nodeStageSecretRef",
    "/spec/csi/nodePublishSecretRef",
    "/spec/csi/nodeExpandSecretRef",
];

/// The key of the volume that a claim is bound to.
pub fn volume_of_claim(claim: &Value) -> Option<ObjectKey> {
    let name = claim.pointer("/spec/volumeName")?.as_str().filter(|name| !name.is_empty())?;
    Some(ObjectKey::new(resource::PERSISTENT_VOLUMES, "", name))
}

/// Whether the volume says that it is this claim's. A claim may name any volume; whose it is the volume says, and only then does
/// anything of it, its Secrets above all, go where the claim's pods are.
pub fn is_bound(volume: &Value, claim: &Value) -> bool {
    let of =
        |at: &str| volume.pointer("/spec/claimRef").and_then(|claim| claim.get(at)).and_then(Value::as_str);
    let own = |at: &str| claim.pointer("/metadata").and_then(|own| own.get(at)).and_then(Value::as_str);
    ["namespace", "name", "uid"]
        .iter()
        .all(|at| of(at).is_some_and(|told| !told.is_empty() && own(at) == Some(told)))
}

/// What a node needs beside a volume to mount it: the driver's object, its Secrets and the attachment to that node.
pub fn needs_of_volume(volume: &Value, node: &str) -> Vec<ObjectKey> {
    let text = |at: &str| volume.pointer(at).and_then(Value::as_str).unwrap_or_default();
    let driver = text("/spec/csi/driver");
    if driver.is_empty() {
        return Vec::new();
    }
    let attachment = attachment_name(text("/spec/csi/volumeHandle"), driver, node);
    let mut needs = vec![
        ObjectKey::new(resource::CSI_DRIVERS, "", driver),
        ObjectKey::new(resource::VOLUME_ATTACHMENTS, "", attachment),
    ];
    for reference in SECRETS_OF_CSI {
        let [namespace, name] = ["namespace", "name"].map(|at| text(&format!("{reference}/{at}")));
        if !namespace.is_empty() && !name.is_empty() {
            needs.push(ObjectKey::new(resource::SECRETS, namespace, name));
        }
    }
    needs
}

/// The name of the VolumeAttachment of a CSI volume (`getAttachmentName` of the attach-detach controller).
pub fn attachment_name(handle: &str, driver: &str, node: &str) -> String {
    format!("csi-{}", sha256_hex(&[handle, driver, node]))
}

/// SHA-256 over the parts, one after another, in small hexadecimal digits.
pub fn sha256_hex(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_volume_is_the_claims_that_it_names_itself() {
        let claim = json!({"metadata": {"namespace": "shop", "name": "data", "uid": "u1"}, "spec": {"volumeName": "pv"}});
        assert_eq!(volume_of_claim(&claim), Some(ObjectKey::new(resource::PERSISTENT_VOLUMES, "", "pv")));
        assert_eq!(volume_of_claim(&json!({"spec": {"volumeName": ""}})), None);
        let of = |reference: Value| json!({"spec": {"claimRef": reference}});
        assert!(is_bound(&of(json!({"namespace": "shop", "name": "data", "uid": "u1"})), &claim));
        for other in [
            json!({"namespace": "shop", "name": "data", "uid": "u2"}),
            json!({"namespace": "other", "name": "data", "uid": "u1"}),
            json!({"namespace": "shop", "name": "data"}),
            Value::Null,
        ] {
            assert!(!is_bound(&of(other.clone()), &claim), "{other}");
        }
    }

    #[test]
    fn what_a_csi_volume_needs_is_named_as_kubernetes_names_it() {
        // As `printf 'vol-1d.example.comedge-1' | sha256sum` says.
        let attachment = "csi-de168d6d5230f07db2623dce46e8308deb9fbabe75dd9d3fccbace2c476f7b70";
        assert_eq!(attachment_name("vol-1", "d.example.com", "edge-1"), attachment);
        let volume = json!({"spec": {"csi": {"driver": "d.example.com", "volumeHandle": "vol-1",
            "nodeStageSecretRef": {"namespace": "kube-system", "name": "stage"}, "nodePublishSecretRef": {"name": "x"}}}});
        let needs: Vec<String> = needs_of_volume(&volume, "edge-1").iter().map(ToString::to_string).collect();
        assert_eq!(needs.len(), 3, "{needs:?}");
        assert!(needs[2].contains("kube-system") && needs[2].contains("stage"), "{needs:?}");
        assert_eq!(needs_of_volume(&json!({"spec": {"hostPath": {"path": "/x"}}}), "edge-1"), []);
    }
}
