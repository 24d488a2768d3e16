//! Getting all volumes of a pod onto the disk, and off it. Blocks: runs beside the hive's thread.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use apimachinery::Quantity;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Volume as VolumeSpec};

use super::payload::Payload;
use super::{Tokens, atomic, host, payload};
use crate::disk::beneath::{Access, Folder};
use crate::disk::layout;
use crate::error::StepError;
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::sources::Sources;
use crate::runtime::env::FieldValues;
use crate::runtime::resources::quantity;

/// Where a volume lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum VolumeLocation {
    /// Below `rootDirectory`.
    Ours(PathBuf),
    /// On the host, where the pod says.
    Host(PathBuf),
}

/// A volume that is ready to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Volume {
    pub(crate) at: VolumeLocation,
    /// It was made from objects: no container may write to it, whatever the pod says.
    pub(crate) read_only: bool,
}

/// The volumes of a pod by their names.
pub(crate) type PreparedVolumes = BTreeMap<String, Volume>;

/// Folders that only lead to a volume: no other user of the node may pass.
const LEADS: u32 = 0o750;

/// Makes what is missing and brings files from objects up to date. Safe to repeat at any time.
pub(crate) fn prepare(
    root: &Folder,
    pod: &ParsedPod,
    sources: &Sources,
    tokens: &Tokens,
    facts: &FieldValues,
) -> Result<PreparedVolumes, StepError> {
    let mut prepared = PreparedVolumes::new();
    for volume in pod.spec().volumes.iter().flatten() {
        let made =
            one(root, pod, volume, sources, tokens, facts).map_err(|error| named(error, &volume.name))?;
        prepared.insert(volume.name.clone(), made);
    }
    Ok(prepared)
}

fn named(error: StepError, volume: &str) -> StepError {
    let prefix = |text: &str| format!("volume \"{volume}\": {text}");
    match error {
        StepError::Missing(text) => StepError::Missing(prefix(&text)),
        StepError::Config(text) => StepError::Config(prefix(&text)),
        other @ (StepError::File { .. } | StepError::Runtime(_) | StepError::Token { .. }) => other,
    }
}

fn one(
    root: &Folder,
    pod: &ParsedPod,
    volume: &VolumeSpec,
    sources: &Sources,
    tokens: &Tokens,
    facts: &FieldValues,
) -> Result<Volume, StepError> {
    let uid = &pod.id.uid;
    let group = fs_group(pod);
    if let Some(path) = &volume.host_path {
        host::check_path(path)?;
        return Ok(Volume { at: VolumeLocation::Host(PathBuf::from(&path.path)), read_only: false });
    }
    if let Some(source) = &volume.empty_dir {
        let at = layout::volume(uid, "empty-dir", &volume.name);
        empty_dir(root, &at, &layout::ready(uid, &volume.name), source, group)?;
        return Ok(Volume { at: VolumeLocation::Ours(at), read_only: false });
    }
    let Some(files) = payload::of_volume(pod, volume, sources, tokens, facts)? else {
        return Err(StepError::Config("its kind is not supported".to_owned()));
    };
    let (kind, secret) = if volume.secret.is_some() {
        ("secret", true)
    } else if volume.projected.is_some() {
        ("projected", true)
    } else if volume.downward_api.is_some() {
        ("downward-api", false)
    } else {
        ("configmap", false)
    };
    let at = layout::volume(uid, kind, &volume.name);
    from_objects(root, &at, &files, secret, group)?;
    Ok(Volume { at: VolumeLocation::Ours(at), read_only: true })
}

fn fs_group(pod: &ParsedPod) -> Option<u32> {
    let group = pod.spec().security_context.as_ref().and_then(|own| own.fs_group)?;
    u32::try_from(group).ok()
}

/// Makes the folder of a volume; the folders that lead there are for us alone.
fn make(root: &Folder, at: &Path) -> Result<Folder, StepError> {
    root.make(at, Access::mode(LEADS))
}

/// Made once, with the kubelet's mark `ready` outside of what a container can reach; a volume that is ready is left alone
/// from then on, also by an edgecore that was started anew: its mode and owner are its containers' (the kubelet's
/// `emptyDir.SetUpAt`). One without the mark was not made to its end.
fn empty_dir(
    root: &Folder,
    at: &Path,
    ready: &Path,
    source: &EmptyDirVolumeSource,
    group: Option<u32>,
) -> Result<(), StepError> {
    let in_memory = source.medium.as_deref() == Some("Memory");
    let mounted = in_memory && root.is_mount(at)?;
    let there = if in_memory { mounted } else { root.find(at)?.is_some() };
    if there && root.tail(ready, 0)?.is_some() {
        return Ok(());
    }
    // Left from a volume that is gone, as one in memory after the machine was started anew: it says nothing of the next.
    root.remove(ready)?;
    let mut folder = make(root, at)?;
    if in_memory && !mounted {
        folder = root.tmpfs(at, source.size_limit.as_ref().and_then(quantity).map(Quantity::units))?;
    }
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    folder.set_access(Access { mode, owner: None, group })?;
    if let Some(marks) = ready.parent() {
        make(root, marks)?;
    }
    root.create(ready, b"", Access::mode(0o640))
}

fn from_objects(
    root: &Folder,
    at: &Path,
    files: &Payload,
    secret: bool,
    group: Option<u32>,
) -> Result<(), StepError> {
    let mut folder = make(root, at)?;
    // What is secret never touches the disk.
    if secret && !root.is_mount(at)? {
        folder = root.tmpfs(at, None)?;
    }
    let mode = if group.is_some() { 0o2775 } else { 0o755 };
    folder.set_access(Access { mode, owner: None, group })?;
    atomic::write(&folder, files, group)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, chown};

    use rustix::fs::{CWD, Mode};
    use serde_json::json;

    use super::*;
    use crate::pod::parsed_pod::tests::pod;

    fn facts() -> FieldValues {
        FieldValues {
            pod_ips: Vec::new(),
            host_ips: Vec::new(),
            node_name: "edge-1".to_owned(),
            node_cpu_milli: 1000,
            node_memory: 1 << 30,
        }
    }

    fn prepared(root: &Path, pod: &ParsedPod) -> PreparedVolumes {
        let root = Folder::root(root).unwrap();
        prepare(&root, pod, &Sources::default(), &Tokens::new(), &facts()).unwrap()
    }

    fn access(at: &Path) -> (u32, u32, u32) {
        let found = fs::metadata(at).unwrap();
        (found.mode() & 0o7777, found.uid(), found.gid())
    }

    fn chmod(at: &Path, mode: u32) {
        rustix::fs::chmodat(CWD, at, Mode::from_raw_mode(mode), rustix::fs::AtFlags::empty()).unwrap();
    }

    /// A database closes its folder to all others: neither a changed config map nor a restart of edgecore opens it again.
    #[test]
    fn what_a_container_did_to_its_empty_dir_stays() {
        for (security, mode) in [(json!({}), 0o777), (json!({"fsGroup": 4242}), 0o2777)] {
            let dir = tempfile::tempdir().unwrap();
            let pod = pod(json!({"securityContext": security, "volumes": [
                {"name": "data", "emptyDir": {}}, {"name": "fast", "emptyDir": {"medium": "Memory"}},
            ]}));
            let at = |name: &str| dir.path().join(layout::volume(&pod.id.uid, "empty-dir", name));
            let root = Folder::root(dir.path()).unwrap();
            // Only root can mount and give away.
            let probe = root.make(Path::new("probe"), Access::mode(0o700)).unwrap();
            if root.tmpfs(Path::new("probe"), None).is_err() || chown(probe.shown(), Some(70), None).is_err()
            {
                return;
            }
            root.detach(Path::new("probe")).unwrap();
            // Volumes whose making was cut short after their folder: they are made to their end.
            root.make(&layout::volume(&pod.id.uid, "empty-dir", "data"), Access::mode(0o700)).unwrap();
            prepared(dir.path(), &pod);
            for name in ["data", "fast"] {
                assert_eq!(access(&at(name)).0, mode, "{name}");
                chown(at(name), Some(70), Some(70)).unwrap();
                chmod(&at(name), 0o700);
                fs::write(at(name).join("PG_VERSION"), "17").unwrap();
            }
            // As after a change of an object, and by an edgecore that knows of nothing.
            for _ in 0..2 {
                prepared(dir.path(), &pod);
                for name in ["data", "fast"] {
                    assert_eq!(access(&at(name)), (0o700, 70, 70), "{name}");
                    assert!(at(name).join("PG_VERSION").exists(), "{name}");
                }
            }
            // A machine that was started anew has lost what was in memory; an administrator may remove the other.
            root.detach(&layout::volume(&pod.id.uid, "empty-dir", "fast")).unwrap();
            fs::remove_dir_all(at("data")).unwrap();
            prepared(dir.path(), &pod);
            for name in ["data", "fast"] {
                assert_eq!(access(&at(name)).0, mode, "{name} is made anew");
            }
            root.detach_below(&layout::pod(&pod.id.uid)).unwrap();
        }
    }
}
