//! Which volumes of a pod are measured, and how. Pure.

use std::collections::BTreeSet;
use std::path::PathBuf;

use apimachinery::{ObjectKey, ephemeral_claim, resource};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Volume};

use crate::disk::layout;
use crate::pod::parsed_pod::ParsedPod;
use crate::typed_json;
use crate::volumes::claims::Find;

/// One volume that is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Measured {
    pub(crate) volume: String,
    pub(crate) claim: Option<String>,
    /// It counts as the pod's ephemeral storage (kubelet's `IsLocalEphemeralVolume`).
    pub(crate) is_ephemeral: bool,
    pub(crate) how: How,
}

/// How it is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum How {
    /// File by file: it is a part of a file system. Below `rootDirectory`.
    Counted(PathBuf),
    /// As the file system that it is. Below `rootDirectory`.
    FileSystem(PathBuf),
    /// Its driver says; by the name that the driver's volume has on the disk.
    Driver(String),
}

/// The volumes of a pod that its containers use. What is the host's, an image's or not bound has no figures, as with a kubelet.
pub(crate) fn measured(pod: &ParsedPod, used: &BTreeSet<&str>, find: &Find<'_>) -> Vec<Measured> {
    let volumes = pod.spec().volumes.iter().flatten();
    volumes
        .filter(|volume| used.contains(volume.name.as_str()))
        .filter_map(|own| one(pod, own, find))
        .collect()
}

fn one(pod: &ParsedPod, volume: &Volume, find: &Find<'_>) -> Option<Measured> {
    let (name, uid) = (&volume.name, &pod.id.uid);
    let own = |kind: &str| How::Counted(layout::volume(uid, kind, name));
    let of_pod = |how: How, is_ephemeral: bool| {
        Some(Measured { volume: name.clone(), claim: None, is_ephemeral, how })
    };
    if let Some(source) = &volume.empty_dir {
        let is_on_disk = source.medium.as_deref().unwrap_or_default().is_empty();
        return of_pod(own("empty-dir"), is_on_disk);
    }
    if volume.config_map.is_some() {
        return of_pod(own("configmap"), true);
    }
    for (is_it, kind) in [
        (volume.secret.is_some(), "secret"),
        (volume.projected.is_some(), "projected"),
        (volume.downward_api.is_some(), "downward-api"),
    ] {
        if is_it {
            return of_pod(own(kind), false);
        }
    }
    if volume.nfs.is_some() {
        return of_pod(How::FileSystem(layout::volume(uid, "nfs", name)), false);
    }
    if volume.csi.is_some() {
        return of_pod(How::Driver(name.clone()), false);
    }
    let claim = match &volume.persistent_volume_claim {
        Some(source) => source.claim_name.clone(),
        None => volume.ephemeral.as_ref().map(|_| ephemeral_claim(&pod.id.name, name))?,
    };
    let how = of_claim(pod, &claim, find)?;
    Some(Measured { volume: name.clone(), claim: Some(claim), is_ephemeral: false, how })
}

fn of_claim(pod: &ParsedPod, claim: &str, find: &Find<'_>) -> Option<How> {
    let kind = resource::PERSISTENT_VOLUME_CLAIMS;
    let bytes = find(&ObjectKey::new(kind, &*pod.id.namespace, claim))?;
    let claim: PersistentVolumeClaim = typed_json::read(&bytes).ok()?;
    let name = claim.spec?.volume_name.filter(|name| !name.is_empty())?;
    let bytes = find(&ObjectKey::new(resource::PERSISTENT_VOLUMES, "", &*name))?;
    let volume: PersistentVolume = typed_json::read(&bytes).ok()?;
    let spec = volume.spec?;
    let file_system = |kind: &str| Some(How::FileSystem(layout::volume(&pod.id.uid, kind, &name)));
    if spec.csi.is_some() {
        return Some(How::Driver(name));
    }
    if spec.volume_mode.as_deref().is_some_and(|mode| mode == "Block") {
        return None;
    }
    match (spec.local, spec.nfs) {
        (Some(_), _) => file_system("local-volume"),
        (_, Some(_)) => file_system("nfs"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pod::parsed_pod::tests::pod;

    fn of(volumes: Value, pv: Value) -> Vec<Measured> {
        let mounts: Vec<Value> = volumes
            .as_array()
            .unwrap()
            .iter()
            .map(|own| json!({"name": own["name"], "mountPath": format!("/{}", own["name"])}))
            .collect();
        let pod = pod(
            json!({"containers": [{"name": "c", "image": "x", "volumeMounts": mounts}], "volumes": volumes}),
        );
        let used = crate::volumes::used(&pod);
        let claim = json!({"metadata": {"name": "data"}, "spec": {"volumeName": "pv"}});
        let find = |key: &ObjectKey| match &*key.resource {
            "persistentvolumeclaims" => Some(claim.to_string().into_bytes()),
            "persistentvolumes" => Some(pv.to_string().into_bytes()),
            _ => None,
        };
        measured(&pod, &used, &find)
    }

    fn pv(spec: Value) -> Value {
        json!({"metadata": {"name": "pv"}, "spec": spec})
    }

    #[test]
    fn each_kind_is_measured_as_a_kubelet_measures_it() {
        let volumes = json!([
            {"name": "e", "emptyDir": {}}, {"name": "m", "emptyDir": {"medium": "Memory"}},
            {"name": "c", "configMap": {"name": "x"}}, {"name": "s", "secret": {"secretName": "x"}},
            {"name": "h", "hostPath": {"path": "/"}}, {"name": "n", "nfs": {"server": "a", "path": "/b"}},
            {"name": "i", "csi": {"driver": "d.io"}},
        ]);
        let all = of(volumes, Value::Null);
        let shown: Vec<(&str, bool, &How)> =
            all.iter().map(|own| (own.volume.as_str(), own.is_ephemeral, &own.how)).collect();
        let uid = pod(json!({})).id.uid;
        let counted = |kind: &str, name: &str| How::Counted(layout::volume(&uid, kind, name));
        let nfs = How::FileSystem(layout::volume(&uid, "nfs", "n"));
        assert_eq!(
            shown,
            [
                ("e", true, &counted("empty-dir", "e")),
                ("m", false, &counted("empty-dir", "m")),
                ("c", true, &counted("configmap", "c")),
                ("s", false, &counted("secret", "s")),
                ("n", false, &nfs),
                ("i", false, &How::Driver("i".to_owned())),
            ]
        );
    }

    #[test]
    fn a_claims_volume_is_measured_by_what_it_is_and_named_by_its_claim() {
        let volumes = || json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]);
        let csi = of(volumes(), pv(json!({"csi": {"driver": "d.io", "volumeHandle": "h"}})));
        assert_eq!((csi[0].claim.as_deref(), &csi[0].how), (Some("data"), &How::Driver("pv".to_owned())));
        let local = of(volumes(), pv(json!({"local": {"path": "/d"}})));
        assert!(
            matches!(&local[0].how, How::FileSystem(at) if at.ends_with("kubernetes.io~local-volume/pv"))
        );
        assert_eq!(of(volumes(), pv(json!({"local": {"path": "/d"}, "volumeMode": "Block"}))), []);
        assert_eq!(of(volumes(), pv(json!({"hostPath": {"path": "/d"}}))), []);
        assert_eq!(of(volumes(), Value::Null), [], "it is not bound");
    }
}
