//! User namespaces of pods (`hostUsers: false`): which users of the host a pod's users are. Blocks, but for what is pure.
//!
//! As with the kubelet each pod has 65,536 of its own, from 65,536 on, and which they are stands in `<pod>/userns` as long as
//! the pod's folder does: there it is found after a restart, and there a new pod finds what is taken.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cri::v1::{
    ContainerConfig, IdMapping, LinuxContainerConfig, NamespaceMode, NamespaceOption, PodSandboxConfig,
    UserNamespace,
};
use k8s_openapi::api::core::v1::PodSpec;
use serde::{Deserialize, Serialize};

use crate::disk::beneath::{Access, Folder};
use crate::disk::{folders, layout};
use crate::error::StepError;
use crate::json_error;

/// How many users a pod has (the kubelet's `userNamespaces.idsPerPod`).
const USERS_OF_A_POD: u32 = 65_536;
/// More of a file of ours is none of ours.
const FILE_MAX: u64 = 4096;
/// More folders are not looked at.
const PODS_MAX: usize = 65_536;

/// As it stands in the file, which is the kubelet's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mappings {
    uid_mappings: Vec<Mapping>,
    gid_mappings: Vec<Mapping>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_id: u32,
    container_id: u32,
    length: u32,
}

impl Mappings {
    fn of_slot(slot: u32) -> Mappings {
        let own = Mapping { host_id: slot * USERS_OF_A_POD, container_id: 0, length: USERS_OF_A_POD };
        Mappings { uid_mappings: vec![own], gid_mappings: vec![own] }
    }

    /// Which of the equal parts of all users it is.
    fn slot(&self) -> Result<u32, StepError> {
        let wrong = |why: &str| Err(StepError::Config(format!("user namespace: {why}")));
        let (uids, gids) = (self.uid_mappings.as_slice(), self.gid_mappings.as_slice());
        let [own] = uids else {
            return wrong("invalid user namespace configuration: no more than one mapping allowed.");
        };
        if uids != gids {
            return wrong("invalid user namespace configuration: GID and UID mapping should be identical");
        }
        if own.container_id != 0 {
            return wrong("invalid user namespace configuration: UID 0 must be mapped");
        }
        if own.length != USERS_OF_A_POD {
            return wrong(&format!("wrong user namespace length {}", own.length));
        }
        if own.host_id == 0 || !own.host_id.is_multiple_of(USERS_OF_A_POD) {
            return wrong(&format!("wrong user namespace offset specified {}", own.host_id));
        }
        Ok(own.host_id / USERS_OF_A_POD)
    }

    fn told(&self) -> UserNamespace {
        let told = |list: &[Mapping]| {
            let one = |own: &Mapping| IdMapping {
                host_id: own.host_id,
                container_id: own.container_id,
                length: own.length,
            };
            list.iter().map(one).collect()
        };
        UserNamespace {
            mode: NamespaceMode::Pod.into(),
            uids: told(&self.uid_mappings),
            gids: told(&self.gid_mappings),
        }
    }
}

/// Whether a pod wants one of its own.
pub(crate) fn is_wanted(spec: &PodSpec) -> bool {
    spec.host_users == Some(false)
}

/// That of the node.
pub(crate) fn of_node() -> UserNamespace {
    UserNamespace { mode: NamespaceMode::Node.into(), ..UserNamespace::default() }
}

/// Whether a pod that wants one can have it from a handler of the runtime.
///
/// # Errors
/// In the kubelet's words, when it can't.
pub(crate) fn check(spec: &PodSpec, handler: &str, features: cri::Features) -> Result<(), StepError> {
    let shared = [("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc)];
    // The API server takes none of these; a file of the node may have them.
    if let Some((field, _)) = shared.into_iter().find(|(_, on)| *on == Some(true)) {
        return Err(StepError::Config(format!("spec.{field}: Forbidden: when `hostUsers` is false")));
    }
    if features.user_namespaces {
        return Ok(());
    }
    let who =
        if handler.is_empty() { "runtime".to_owned() } else { format!("RuntimeClass handler {handler:?}") };
    Err(StepError::Config(format!(
        "can't set `spec.hostUsers: false`, {who} does not support user namespaces"
    )))
}

fn file(uid: &str) -> PathBuf {
    layout::pod(uid).join("userns")
}

fn read(root: &Folder, uid: &str) -> Result<Option<Mappings>, StepError> {
    let Some(bytes) = root.read(&file(uid), FILE_MAX)? else { return Ok(None) };
    let read = serde_json::from_slice(&bytes).map_err(|error| {
        StepError::Config(format!(
            "user namespace: invalid user namespace mappings file: it {}",
            json_error::describe(&error)
        ))
    });
    read.map(Some)
}

/// The pod's own, made at the first call. `pods_max`: for how many pods there are some. One call at a time.
///
/// # Errors
/// When all are taken, or the file of the pod is not ours.
pub(crate) fn of_pod(root: &Folder, uid: &str, pods_max: u32) -> Result<UserNamespace, StepError> {
    if let Some(own) = read(root, uid)? {
        own.slot()?;
        return Ok(own.told());
    }
    let mut taken = BTreeSet::new();
    let pods = root.find(Path::new(layout::PODS))?;
    for name in pods.map(|pods| pods.names(PODS_MAX)).transpose()?.unwrap_or_default() {
        let Some(other) = name.to_str() else { continue };
        // What cannot be read takes nothing that could be named.
        if let Ok(Some(mappings)) = read(root, other) {
            taken.extend(mappings.slot());
        }
    }
    let slot = free(&taken, pods_max)?;
    let mappings = Mappings::of_slot(slot);
    let bytes = serde_json::to_vec(&mappings).map_err(|error| StepError::Config(error.to_string()))?;
    folders::lead_to(root, &layout::pod(uid))?;
    root.below(&layout::pod(uid))?.replace("userns", &bytes, Access::mode(0o600))?;
    Ok(mappings.told())
}

fn free(taken: &BTreeSet<u32>, pods_max: u32) -> Result<u32, StepError> {
    // The first part holds root and the host's own users. One more than pods: the folder of one that is gone may still be there.
    let last = pods_max.saturating_mul(2).min(u32::MAX / USERS_OF_A_POD);
    (1..=last).find(|slot| !taken.contains(slot)).ok_or_else(|| {
        StepError::Missing(
            "create user namespace: could not find an empty slot to allocate a user namespace".to_owned(),
        )
    })
}

fn put(options: &mut Option<NamespaceOption>, users: &UserNamespace) {
    options.get_or_insert_default().userns_options = Some(users.clone());
}

/// Says it of a sandbox.
pub(crate) fn put_into_sandbox(config: &mut PodSandboxConfig, users: &UserNamespace) {
    if let Some(security) = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut()) {
        put(&mut security.namespace_options, users);
    }
}

/// Says it of a container, whose mounts show the files of the host's users as those of the pod's.
pub(crate) fn put_into_container(config: &mut ContainerConfig, users: &UserNamespace) {
    let linux: Option<&mut LinuxContainerConfig> = config.linux.as_mut();
    if let Some(security) = linux.and_then(|linux| linux.security_context.as_mut()) {
        put(&mut security.namespace_options, users);
    }
    for mount in &mut config.mounts {
        mount.uid_mappings.clone_from(&users.uids);
        mount.gid_mappings.clone_from(&users.gids);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::parsed_pod::tests::pod;
    use serde_json::json;

    #[test]
    fn each_pod_has_users_of_its_own_and_keeps_them() {
        let dir = tempfile::tempdir().unwrap();
        let root = Folder::root(dir.path()).unwrap();
        let host = |uid: &str| of_pod(&root, uid, 1).map(|own| own.uids[0].host_id);
        assert_eq!((host("a"), host("b")), (Ok(65_536), Ok(131_072)));
        assert_eq!(host("a"), Ok(65_536), "as after a restart");
        let full = host("c").unwrap_err().to_string();
        assert!(full.contains("could not find an empty slot"), "{full}");
        std::fs::remove_dir_all(dir.path().join("pods/a")).unwrap();
        assert_eq!(host("c"), Ok(65_536));
        let text = std::fs::read_to_string(dir.path().join("pods/c/userns")).unwrap();
        let mapping = json!([{"hostId": 65_536, "containerId": 0, "length": 65_536}]);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            json!({"uidMappings": mapping, "gidMappings": mapping})
        );
        // Never root's, whoever wrote it.
        let root_is_root = text.replace("\"hostId\":65536", "\"hostId\":0");
        std::fs::write(dir.path().join("pods/c/userns"), root_is_root).unwrap();
        assert!(host("c").unwrap_err().to_string().contains("wrong user namespace offset"));
        std::fs::write(dir.path().join("pods/c/userns"), "{").unwrap();
        assert!(host("c").unwrap_err().to_string().contains("invalid user namespace mappings file"));
    }

    #[test]
    fn who_cannot_have_one_is_told_in_the_kubelets_words() {
        let own = pod(json!({"hostUsers": false}));
        let able = cri::Features { user_namespaces: true, ..cri::Features::default() };
        assert!(is_wanted(own.spec()) && !is_wanted(pod(json!({})).spec()));
        assert_eq!(check(own.spec(), "", able), Ok(()));
        let words =
            |handler: &str| check(own.spec(), handler, cri::Features::default()).unwrap_err().to_string();
        assert_eq!(words(""), "can't set `spec.hostUsers: false`, runtime does not support user namespaces");
        assert_eq!(
            words("h"),
            "can't set `spec.hostUsers: false`, RuntimeClass handler \"h\" does not support user namespaces"
        );
        let shared = pod(json!({"hostUsers": false, "hostPID": true}));
        assert!(
            check(shared.spec(), "", able).unwrap_err().to_string().starts_with("spec.hostPID: Forbidden")
        );
    }

    #[test]
    fn sandbox_containers_and_mounts_hear_of_it() {
        let users = Mappings::of_slot(1).told();
        let mount = cri::v1::Mount::default();
        let security = cri::v1::LinuxContainerSecurityContext::default();
        let linux =
            LinuxContainerConfig { security_context: Some(security), ..LinuxContainerConfig::default() };
        let mut config =
            ContainerConfig { mounts: vec![mount], linux: Some(linux), ..ContainerConfig::default() };
        put_into_container(&mut config, &users);
        assert_eq!(config.mounts[0].uid_mappings, users.uids);
        let options = config.linux.unwrap().security_context.unwrap().namespace_options.unwrap();
        assert_eq!(options.userns_options.unwrap().mode, i32::from(NamespaceMode::Pod));
    }
}
