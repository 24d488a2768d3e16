//! Getting all volumes of a pod onto the disk, and off it. Blocks: runs beside the hive's thread.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Volume as VolumeSpec;

use super::claims::{fs_group, is_external};
use super::empty_dir::{self, empty_dir};
use super::payload::{INODES_MAX, ObjectSpace, Payload};
use super::uses::used;
use super::{Tokens, atomic, content, host, nested};
use crate::disk::beneath::{Access, Folder};
use crate::disk::{folders, layout};
use crate::error::StepError;
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::sources::Sources;
use crate::runtime::fields::FieldValues;

/// Where a volume lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum VolumeLocation {
    /// Below `rootDirectory`.
    Ours(PathBuf),
    /// On the host, where the pod says.
    Host(PathBuf),
    /// An image, by its reference in the runtime, which mounts it.
    Image(String),
    /// A link below `rootDirectory` that leads to a block device: it is not mounted.
    Device(PathBuf),
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

/// What was prepared.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Prepared {
    pub(crate) volumes: PreparedVolumes,
    /// Volumes that were made before and cannot be brought up to date, each in a sentence: they stay as they are.
    pub(crate) stale: Vec<String>,
    /// Why others could not be made: each by itself, since each is mended by itself.
    pub(crate) failed: Vec<StepError>,
}

/// Makes what is missing and brings files from objects up to date. Safe to repeat at any time. A volume that no container
/// has to do with is not made, and what it misses holds nobody up. `external`: those that are mounted already.
pub(crate) fn prepare(
    root: &Folder,
    pod: &ParsedPod,
    sources: &Sources,
    tokens: &Tokens,
    facts: &FieldValues,
    external: PreparedVolumes,
) -> Prepared {
    let used = used(pod);
    let volumes = pod.spec().volumes.iter().flatten();
    let own = volumes.filter(|volume| used.contains(&*volume.name) && !is_external(volume));
    let (mut prepared, mut space) = (Prepared::default(), ObjectSpace::new());
    for volume in own {
        match one(root, pod, volume, sources, tokens, facts, (&mut prepared.stale, &mut space)) {
            Ok(made) => drop(prepared.volumes.insert(volume.name.clone(), made)),
            Err(error) => prepared.failed.push(named(error, &volume.name)),
        }
    }
    prepared.volumes.extend(external);
    prepared
}

/// The error of a volume that could not be set up.
pub(crate) fn named(error: StepError, volume: &str) -> StepError {
    let text = format!("MountVolume.SetUp failed for volume \"{volume}\" : {error}");
    match error {
        StepError::Config(_) => StepError::Config(text),
        // A token may be granted yet, and a disk have room again.
        StepError::Missing(_)
        | StepError::DynamicResources(_)
        | StepError::File { .. }
        | StepError::Runtime(_)
        | StepError::Token { .. } => StepError::Missing(text),
    }
}

fn one(
    root: &Folder,
    pod: &ParsedPod,
    volume: &VolumeSpec,
    sources: &Sources,
    tokens: &Tokens,
    facts: &FieldValues,
    (stale, space): (&mut Vec<String>, &mut ObjectSpace),
) -> Result<Volume, StepError> {
    let uid = &pod.id.uid;
    let group = fs_group(pod);
    if let Some(path) = &volume.host_path {
        // What is there was looked at before: that may never end.
        host::check_words(path)?;
        return Ok(Volume { at: VolumeLocation::Host(PathBuf::from(&path.path)), read_only: false });
    }
    let memory = empty_dir::memory_bound(pod.spec(), facts.node_memory);
    if let Some(source) = &volume.empty_dir {
        let at = layout::volume(uid, "empty-dir", &volume.name);
        let medium = empty_dir::medium(pod.spec(), source, memory)?;
        empty_dir(root, &at, &layout::ready(uid, &volume.name), medium, group)?;
        return Ok(Volume { at: VolumeLocation::Ours(at), read_only: false });
    }
    // What is secret never touches the disk.
    let (kind, in_memory) = if volume.secret.is_some() {
        ("secret", true)
    } else if volume.projected.is_some() {
        ("projected", true)
    } else if volume.downward_api.is_some() {
        ("downward-api", false)
    } else {
        ("configmap", false)
    };
    let at = layout::volume(uid, kind, &volume.name);
    let ready = Volume { at: VolumeLocation::Ours(at.clone()), read_only: true };
    let points = nested::mount_points(pod.spec(), &volume.name);
    space.take_places(&points)?;
    let files = match content::of_volume(pod, volume, sources, tokens, facts, space) {
        Ok(Some(files)) => files,
        Ok(None) => return Err(StepError::Config("its kind is not supported".to_owned())),
        Err(error) => {
            // An object that is deleted takes nothing from those who have its content.
            let was_made = root.find(&at)?.is_some_and(|folder| atomic::is_written(&folder));
            if !was_made {
                return Err(error);
            }
            stale.push(named(error, &volume.name).to_string());
            return Ok(ready);
        }
    };
    from_objects(root, &at, &files, in_memory.then_some(memory), group, &points)?;
    Ok(ready)
}

/// `in_memory`: how large it may become there. The modes are the kubelet's: everyone may do everything, the mount itself
/// is read-only, and no other user of the node gets there.
fn from_objects(
    root: &Folder,
    at: &Path,
    files: &Payload,
    in_memory: Option<i64>,
    group: Option<u32>,
    mount_points: &BTreeSet<PathBuf>,
) -> Result<(), StepError> {
    let mut folder = folders::lead_to(root, at)?;
    if in_memory.is_some() && !root.is_mount(at)? {
        folder = root.tmpfs(at, in_memory, INODES_MAX)?;
    }
    let mode = if in_memory.is_some() { 0o1777 } else { 0o777 };
    let mode = if group.is_some() { mode | 0o2000 } else { mode };
    folder.set_access(Access { mode, owner: None, group })?;
    atomic::write(&folder, files, group, mount_points)?;
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
            node_disk: 1 << 40,
        }
    }

    fn prepared(root: &Path, pod: &ParsedPod) -> PreparedVolumes {
        let root = Folder::root(root).unwrap();
        let prepared =
            prepare(&root, pod, &Sources::default(), &Tokens::new(), &facts(), PreparedVolumes::new());
        assert_eq!(prepared.failed, []);
        prepared.volumes
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
            let mounts =
                json!([{"name": "data", "mountPath": "/data"}, {"name": "fast", "mountPath": "/fast"}]);
            let pod = pod(json!({"securityContext": security,
                "containers": [{"name": "c", "image": "x", "volumeMounts": mounts}], "volumes": [
                {"name": "data", "emptyDir": {}}, {"name": "fast", "emptyDir": {"medium": "Memory"}},
                {"name": "unused", "configMap": {"name": "not there"}},
            ]}));
            let sticky = |name: &str| if name == "fast" { 0o1000 } else { 0 };
            let at = |name: &str| dir.path().join(layout::volume(&pod.id.uid, "empty-dir", name));
            let root = Folder::root(dir.path()).unwrap();
            // Only root can mount and give away.
            let probe = root.make(Path::new("probe"), Access::mode(0o700)).unwrap();
            if root.tmpfs(Path::new("probe"), None, 16).is_err()
                || chown(probe.shown(), Some(70), None).is_err()
            {
                return;
            }
            root.detach(Path::new("probe")).unwrap();
            // Volumes whose making was cut short after their folder: they are made to their end.
            root.make(&layout::volume(&pod.id.uid, "empty-dir", "data"), Access::mode(0o700)).unwrap();
            prepared(dir.path(), &pod);
            for name in ["data", "fast"] {
                assert_eq!(access(&at(name)).0, mode | sticky(name), "{name}");
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
                assert_eq!(access(&at(name)).0, mode | sticky(name), "{name} is made anew");
            }
            root.detach_below(&layout::pod(&pod.id.uid)).unwrap();
        }
    }

    #[test]
    fn each_volume_that_fails_is_said_and_the_others_are_made() {
        let dir = tempfile::tempdir().unwrap();
        let mount = |name: &str| json!({"name": name, "mountPath": format!("/{name}")});
        let pod = pod(json!({
            "containers": [{"name": "c", "image": "x", "volumeMounts": [mount("noa"), mount("nob"), mount("data")]}],
            "volumes": [{"name": "noa", "configMap": {"name": "noa"}}, {"name": "nob", "secret": {"secretName": "nob"}},
                {"name": "data", "emptyDir": {}}]}));
        let root = Folder::root(dir.path()).unwrap();
        let prepared =
            prepare(&root, &pod, &Sources::default(), &Tokens::new(), &facts(), PreparedVolumes::new());
        let said: Vec<String> = prepared.failed.iter().map(StepError::to_string).collect();
        assert_eq!(
            said,
            [
                "MountVolume.SetUp failed for volume \"noa\" : configmap \"noa\" not found",
                "MountVolume.SetUp failed for volume \"nob\" : secret \"nob\" not found"
            ]
        );
        assert_eq!(prepared.volumes.keys().collect::<Vec<_>>(), ["data"]);
    }

    #[test]
    fn a_deleted_object_takes_nothing_from_those_who_have_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let mounts = json!([{"name": "v", "mountPath": "/v"}]);
        let pod = pod(json!({"containers": [{"name": "c", "image": "x", "volumeMounts": mounts}],
            "volumes": [{"name": "v", "configMap": {"name": "m"}}]}));
        let root = Folder::root(dir.path()).unwrap();
        let from = |sources: &Sources| {
            prepare(&root, &pod, sources, &Tokens::new(), &facts(), PreparedVolumes::new())
        };
        let words = "MountVolume.SetUp failed for volume \"v\" : configmap \"m\" not found";
        let failed = StepError::Missing(words.to_owned());
        assert_eq!(from(&Sources::default()), Prepared { failed: vec![failed], ..Prepared::default() });
        let there = from(&content::tests::sources());
        assert!(there.stale.is_empty() && there.failed.is_empty());
        let gone = from(&Sources::default());
        assert_eq!(
            (gone.volumes, gone.stale, gone.failed),
            (there.volumes, vec![words.to_owned()], Vec::new())
        );
        let at = dir.path().join(layout::volume(&pod.id.uid, "configmap", "v"));
        assert_eq!(fs::read_to_string(at.join("a")).unwrap(), "1");
        assert_eq!(access(&at).0, 0o777);
    }
}
