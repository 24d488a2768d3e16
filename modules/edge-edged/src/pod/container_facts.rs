//! Of a container's status what does not change while it runs: as whom it runs, and how its volumes are mounted. Pure.

use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, ContainerUser, LinuxContainerUser, VolumeMount, VolumeMountStatus,
};

use crate::runtime::pods::RuntimeContainer;
use crate::volumes::recursive_read_only;

/// As whom it runs (`user`), where the runtime says it.
pub(crate) fn user(instance: &RuntimeContainer) -> Option<ContainerUser> {
    let own = instance.user.as_ref()?;
    let groups = Some(own.groups.clone()).filter(|groups| !groups.is_empty());
    let linux = LinuxContainerUser { uid: own.uid, gid: own.gid, supplemental_groups: groups };
    Some(ContainerUser { linux: Some(linux) })
}

/// How its volumes are mounted (`volumeMounts`): as was said before of a container that was made, since what the runtime can do may
/// have changed meanwhile.
pub(crate) fn mounts(
    spec: &Container,
    known: Option<&ContainerStatus>,
    features: cri::Features,
) -> Option<Vec<VolumeMountStatus>> {
    if let Some(said) = known.and_then(|known| known.volume_mounts.clone()) {
        return Some(said);
    }
    let all = spec.volume_mounts.iter().flatten();
    let all: Vec<VolumeMountStatus> = all.map(|mount| status_of(mount, features)).collect();
    Some(all).filter(|all| !all.is_empty())
}

fn status_of(mount: &VolumeMount, features: cri::Features) -> VolumeMountStatus {
    let read_only = mount.read_only == Some(true);
    let is_recursive = || recursive_read_only(mount, features).unwrap_or(false);
    let mode = || if is_recursive() { "Enabled" } else { "Disabled" };
    VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: read_only.then_some(true),
        recursive_read_only: read_only.then(|| mode().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn mounts_say_whether_what_is_mounted_below_them_is_read_only_too() {
        let mount = |name: &str, more: Value| {
            let mut mount = json!({"name": name, "mountPath": "/v"});
            mount.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            mount
        };
        let wanted = json!({"readOnly": true, "recursiveReadOnly": "IfPossible"});
        let spec: Container = serde_json::from_value(json!({"name": "c", "volumeMounts": [
            mount("a", json!({})), mount("b", json!({"readOnly": true})), mount("c", wanted)]}))
        .unwrap();
        let of = |able: bool| {
            let features = cri::Features { recursive_read_only_mounts: able, ..cri::Features::default() };
            serde_json::to_value(mounts(&spec, None, features)).unwrap()
        };
        let told = |name: &str, mode: &str| mount(name, json!({"readOnly": true, "recursiveReadOnly": mode}));
        let plain = mount("a", json!({}));
        assert_eq!(of(true), json!([plain, told("b", "Disabled"), told("c", "Enabled")]));
        assert_eq!(of(false), json!([plain, told("b", "Disabled"), told("c", "Disabled")]));
        let known = ContainerStatus {
            volume_mounts: mounts(&spec, None, cri::Features::default()),
            ..ContainerStatus::default()
        };
        let able = cri::Features { recursive_read_only_mounts: true, ..cri::Features::default() };
        assert_eq!(mounts(&spec, Some(&known), able), known.volume_mounts, "it does not change");
    }
}
