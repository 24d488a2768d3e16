//! Mounts of a container, with `subPath` resolved so that nothing inside a volume can lead out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use cri::v1::{ImageSpec, Mount, MountPropagation};
use k8s_openapi::api::core::v1::{Container, VolumeMount};

use super::{PreparedVolumes, Volume, VolumeLocation, hosts_file};
use crate::disk::beneath::{Access, Folder};
use crate::disk::layout;
use crate::error::StepError;
use crate::pod::parsed_pod::ParsedPod;
use crate::runtime::container;
use crate::runtime::expansion::{expand, unknown_names};

/// What a container's mounts are worked out from.
pub(crate) struct MountContext<'a> {
    pub(crate) attempt: u32,
    pub(crate) volumes: &'a PreparedVolumes,
    pub(crate) env: &'a [(String, String)],
    /// The pod's addresses.
    pub(crate) ips: &'a [String],
    /// What the runtime can do.
    pub(crate) features: cri::Features,
}

/// The mounts of a container, in the order in which the pod names them; the runtime sorts them. Blocks.
pub(crate) fn mounts_of(
    root: &Folder,
    pod: &ParsedPod,
    spec: &Container,
    context: &MountContext<'_>,
) -> Result<Vec<Mount>, StepError> {
    let mut list = Vec::new();
    let mut labelled = BTreeSet::new();
    for (index, wanted) in spec.volume_mounts.iter().flatten().enumerate() {
        let Some(volume) = context.volumes.get(&wanted.name) else {
            let (volume, container) = (&wanted.name, &spec.name);
            return Err(StepError::Missing(format!(
                "cannot find volume \"{volume}\" to mount into container \"{container}\""
            )));
        };
        let inner = inner_path(wanted, context.env)?;
        if let VolumeLocation::Image(reference) = &volume.at {
            list.push(image_mount(wanted, reference, inner, context.features)?);
            continue;
        }
        let host_path = match (&volume.at, inner) {
            (VolumeLocation::Image(_), _) => PathBuf::new(),
            (VolumeLocation::Ours(at), None) => root.shown().join(at),
            (VolumeLocation::Host(path), None) => path.clone(),
            (VolumeLocation::Device(_), _) => return Err(not_mountable(&wanted.name)),
            (_, Some(inner)) => {
                let place = layout::sub_path(&pod.id.uid, &spec.name, &wanted.name, index);
                let names = (wanted.name.as_str(), spec.name.as_str());
                if !is_others(volume) {
                    sub_path(root, volume, &inner, names, &place)?;
                }
                root.shown().join(place)
            }
        };
        let mut mount = mount_of_volume(wanted, &host_path, volume.read_only, context.features)?;
        // What the node may label gets the pod's label where the host has SELinux, once.
        mount.selinux_relabel = may_be_labelled(volume) && labelled.insert(&wanted.name);
        list.push(mount);
    }
    let has = |list: &[Mount], path: &str| list.iter().any(|mount| mount.container_path == path);
    if hosts_file::is_wanted(pod, context.ips) && !has(&list, "/etc/hosts") {
        list.push(plain("/etc/hosts", &root.shown().join(layout::etc_hosts(&pod.id.uid))));
    }
    let message_path = container::message_path(spec);
    if !message_path.starts_with('/') || leads_up(message_path) {
        let shown: String = message_path.chars().take(64).collect();
        return Err(StepError::Config(format!(
            "terminationMessagePath `{shown}` is no absolute path without `..`"
        )));
    }
    if !has(&list, message_path) {
        let at = layout::termination_message(&pod.id.uid, &spec.name, context.attempt);
        if let Some(parent) = at.parent() {
            root.make(parent, Access::mode(0o750))?;
        }
        // Any user of the container may leave its termination message.
        root.overwrite(&at, b"", Access::mode(0o666))?;
        list.push(plain(message_path, &root.shown().join(at)));
    }
    Ok(list)
}

/// Whether the files of a volume are labelled for the pod (the kubelet's `Managed` and `SELinuxRelabel` of each kind): those of the
/// host and of NFS are others', and what is read-only takes no label.
fn may_be_labelled(volume: &Volume) -> bool {
    let VolumeLocation::Ours(at) = &volume.at else { return false };
    match layout::kind(at) {
        Some("nfs") => false,
        Some("csi" | "local-volume") => !volume.read_only,
        _ => true,
    }
}

/// The runtime mounts the image, or a part of it, and never to be written to.
fn image_mount(
    wanted: &VolumeMount,
    reference: &str,
    inner: Option<String>,
    features: cri::Features,
) -> Result<Mount, StepError> {
    Ok(Mount {
        host_path: String::new(),
        image: Some(ImageSpec { image: reference.to_owned(), ..ImageSpec::default() }),
        image_sub_path: inner.unwrap_or_default(),
        ..mount_of_volume(wanted, Path::new(""), true, features)?
    })
}

/// It is a device.
fn not_mountable(volume: &str) -> StepError {
    StepError::Missing(format!("volume {volume} has volumeMode Block, but is specified in volumeMounts"))
}

/// The part of the volume that is wanted; `None`: the whole.
pub(super) fn inner_path(
    wanted: &VolumeMount,
    env: &[(String, String)],
) -> Result<Option<String>, StepError> {
    let given = |path: &Option<String>| path.clone().filter(|path| !path.is_empty());
    let (inner, said) = match (given(&wanted.sub_path_expr), given(&wanted.sub_path)) {
        (Some(expression), _) => (expanded(&expression, env)?, expression),
        (None, Some(path)) => (path.clone(), path),
        (None, None) => return Ok(None),
    };
    // What an expression expands to can be secret.
    let said: String = said.chars().take(64).collect();
    if inner.starts_with('/') {
        return Err(StepError::Missing(format!("error SubPath `{said}` must not be an absolute path")));
    }
    if inner.split('/').any(|part| part == "..") {
        return Err(StepError::Missing(format!(
            "unable to provision SubPath `{said}`: must not contain '..'"
        )));
    }
    Ok(Some(inner))
}

/// An expression in which every variable has a value.
fn expanded(expression: &str, env: &[(String, String)]) -> Result<String, StepError> {
    let known: BTreeMap<String, String> =
        env.iter().filter(|(_, value)| !value.is_empty()).cloned().collect();
    let missing = unknown_names(expression, &known);
    if !missing.is_empty() {
        let missing: Vec<&str> = missing.into_iter().collect();
        return Err(StepError::Missing(format!("missing value for {}", missing.join(", "))));
    }
    Ok(expand(expression, |name| known.get(name).map(String::as_str))?)
}

fn leads_up(path: &str) -> bool {
    Path::new(path).components().any(|part| part == Component::ParentDir)
}

fn plain(container_path: &str, host_path: &Path) -> Mount {
    Mount {
        container_path: container_path.to_owned(),
        host_path: host_path.display().to_string(),
        ..Mount::default()
    }
}

fn mount_of_volume(
    wanted: &VolumeMount,
    host_path: &Path,
    read_only: bool,
    features: cri::Features,
) -> Result<Mount, StepError> {
    let path = &wanted.mount_path;
    let container_path = if path.starts_with('/') { path.clone() } else { format!("/{path}") };
    if leads_up(&container_path) || path.is_empty() {
        return Err(StepError::Config(format!("mountPath `{path}` is empty or contains `..`")));
    }
    let propagation = match wanted.mount_propagation.as_deref() {
        None | Some("None") => MountPropagation::PropagationPrivate,
        Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => MountPropagation::PropagationBidirectional,
        Some(other) => return Err(StepError::Config(format!("mountPropagation `{other}` is not known"))),
    };
    Ok(Mount {
        container_path,
        host_path: host_path.display().to_string(),
        readonly: read_only || wanted.read_only.unwrap_or(false),
        propagation: propagation.into(),
        recursive_read_only: recursive_read_only(wanted, features)?,
        ..Mount::default()
    })
}

/// Whether mounts below the mount are read-only, too: the kubelet's `resolveRecursiveReadOnly`.
pub(crate) fn recursive_read_only(wanted: &VolumeMount, features: cri::Features) -> Result<bool, StepError> {
    let mode = match wanted.recursive_read_only.as_deref() {
        None | Some("Disabled") => return Ok(false),
        Some(mode) => mode,
    };
    let propagation = wanted.mount_propagation.as_deref().filter(|kind| *kind != "None");
    let asked = format!("volume \"{}\" requested recursive read-only mode, but it is not", wanted.name);
    let wrong = match (mode, features.recursive_read_only_mounts) {
        _ if wanted.read_only != Some(true) => format!("{asked} read-only"),
        _ if propagation.is_some() => {
            format!("{asked} compatible with propagation \"{}\"", propagation.unwrap_or_default())
        }
        ("IfPossible", supported) => return Ok(supported),
        ("Enabled", true) => return Ok(true),
        ("Enabled", false) => format!("{asked} supported by the runtime"),
        (other, _) => format!("unknown recursive read-only mode \"{other}\""),
    };
    Err(StepError::Config(format!("failed to resolve recursive read-only mode: {wrong}")))
}

/// Opens `inner` below the volume (making folders that are missing) and shows what was opened at `place`. A link that
/// a container put into the volume can lead only to other parts of it, and what was opened is what is mounted. What goes
/// wrong is in the log alone: it could tell a pod of the host's files. `names`: the mount's volume and its container.
pub(super) fn sub_path(
    root: &Folder,
    volume: &Volume,
    inner: &str,
    names: (&str, &str),
    place: &Path,
) -> Result<(), StepError> {
    let fault = |what: &str, error: &dyn std::fmt::Display| {
        let (volume, container) = names;
        tracing::warn!(volume, container, %error, "subPath: {what} failed");
        StepError::Missing(format!(
            "failed to {what} for volumeMount \"{volume}\" of container \"{container}\""
        ))
    };
    let parts: Vec<&str> = inner.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let folder = match &volume.at {
        VolumeLocation::Ours(at) => root.below(at)?,
        VolumeLocation::Host(path) => Folder::root(path)?,
        VolumeLocation::Image(_) => return Err(fault("prepare subPath", &"the runtime has the image")),
        VolumeLocation::Device(_) => return Err(not_mountable(names.0)),
    };
    let relative: PathBuf = parts.iter().collect();
    let found = folder.sub_path(&relative).map_err(|errno| fault("create subPath directory", &errno))?;
    root.show(&found, place).map_err(|error| fault("prepare subPath", &error))
}

/// Whether a volume is on a file system that others have mounted or hold.
pub(super) fn is_others(volume: &Volume) -> bool {
    match &volume.at {
        VolumeLocation::Ours(at) => matches!(layout::kind(at), Some("nfs" | "csi" | "local-volume")),
        VolumeLocation::Host(_) => true,
        VolumeLocation::Image(_) | VolumeLocation::Device(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::json;

    use super::*;

    fn wanted(mount: serde_json::Value) -> VolumeMount {
        let mut whole = json!({"name": "v", "mountPath": "/m"});
        for (key, value) in mount.as_object().unwrap() {
            whole[key] = value.clone();
        }
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn a_sub_path_is_checked_in_the_kubelets_words() {
        let env = [("POD".to_owned(), "p-0".to_owned()), ("UP".to_owned(), "../x".to_owned())];
        let env = [env.as_slice(), &[("EMPTY".to_owned(), String::new())]].concat();
        let inner = |mount| inner_path(&wanted(mount), &env);
        assert_eq!(inner(json!({})), Ok(None));
        assert_eq!(inner(json!({"subPath": "$(POD)"})), Ok(Some("$(POD)".to_owned())));
        assert_eq!(inner(json!({"subPathExpr": "a/$(POD)/$$(POD)"})), Ok(Some("a/p-0/$(POD)".to_owned())));
        for (mount, words) in [
            (json!({"subPath": "/etc"}), "error SubPath `/etc` must not be an absolute path"),
            (json!({"subPath": "a/../.."}), "unable to provision SubPath `a/../..`: must not contain '..'"),
            (json!({"subPathExpr": "$(UP)"}), "unable to provision SubPath `$(UP)`: must not contain '..'"),
            (json!({"subPathExpr": "/$(POD)"}), "error SubPath `/$(POD)` must not be an absolute path"),
            (json!({"subPathExpr": "$(Z)/$(EMPTY)/$(Z)"}), "missing value for EMPTY, Z"),
        ] {
            assert_eq!(inner(mount), Err(StepError::Missing(words.to_owned())));
        }
    }

    #[test]
    fn a_read_only_mount_is_recursive_where_the_runtime_can() {
        let able = cri::Features { recursive_read_only_mounts: true, ..cri::Features::default() };
        let of = |mount, features| mount_of(mount, features).map(|mount| mount.recursive_read_only);
        for (mode, with, without) in [
            ("Disabled", Some(false), Some(false)),
            ("IfPossible", Some(true), Some(false)),
            ("Enabled", Some(true), None),
        ] {
            let mount = json!({"readOnly": true, "recursiveReadOnly": mode});
            assert_eq!(of(mount.clone(), able).ok(), with, "{mode}");
            assert_eq!(of(mount, cri::Features::default()).ok(), without, "{mode}");
        }
        let start = "failed to resolve recursive read-only mode: volume \"v\" requested recursive read-only mode, but it is not";
        for (mount, end) in [
            (json!({"recursiveReadOnly": "Enabled"}), "read-only"),
            (
                json!({"recursiveReadOnly": "IfPossible", "readOnly": true, "mountPropagation": "HostToContainer"}),
                "compatible with propagation \"HostToContainer\"",
            ),
            (json!({"recursiveReadOnly": "Enabled", "readOnly": true}), "supported by the runtime"),
        ] {
            let error = of(mount, cri::Features::default()).unwrap_err();
            assert_eq!(error.to_string(), format!("{start} {end}"));
        }
    }

    #[test]
    fn what_is_others_or_read_only_is_not_labelled() {
        for (kind, read_only, labelled) in [
            ("csi", false, true),
            ("csi", true, false),
            ("local-volume", true, false),
            ("nfs", false, false),
            ("configmap", true, true),
            ("empty-dir", false, true),
        ] {
            let volume =
                Volume { at: VolumeLocation::Ours(layout::volume("u", kind, "v").join("mount")), read_only };
            assert_eq!(may_be_labelled(&volume), labelled, "{kind}");
        }
        let host = Volume {
            at: VolumeLocation::Host("/pods/u/volumes/kubernetes.io~csi/v".into()),
            read_only: false,
        };
        assert!(!may_be_labelled(&host));
    }

    #[test]
    fn a_mount_propagates_as_it_asks() {
        for (kind, propagation) in [
            ("None", MountPropagation::PropagationPrivate),
            ("HostToContainer", MountPropagation::PropagationHostToContainer),
            ("Bidirectional", MountPropagation::PropagationBidirectional),
        ] {
            let mount = mount_of(json!({"mountPropagation": kind}), cri::Features::default()).unwrap();
            assert_eq!(mount.propagation, i32::from(propagation), "{kind}");
        }
        assert!(mount_of(json!({"mountPropagation": "Sideways"}), cri::Features::default()).is_err());
    }

    fn mount_of(spec: serde_json::Value, features: cri::Features) -> Result<Mount, StepError> {
        mount_of_volume(&wanted(spec), Path::new("/h"), false, features)
    }

    #[test]
    fn an_image_is_mounted_by_the_runtime() {
        let part = wanted(json!({"subPath": "models/a"}));
        let inner = inner_path(&part, &[]).unwrap();
        let mount = image_mount(&part, "sha256:1", inner, cri::Features::default()).unwrap();
        assert_eq!(mount.image.unwrap().image, "sha256:1");
        assert_eq!((mount.image_sub_path.as_str(), mount.host_path.as_str()), ("models/a", ""));
        assert!(mount.readonly);
    }

    fn volume() -> Volume {
        Volume { at: VolumeLocation::Ours("v".into()), read_only: false }
    }

    #[test]
    fn a_sub_path_never_leaves_its_volume() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("v")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("v/out")).unwrap();
        std::os::unix::fs::symlink("../..", dir.path().join("v/up")).unwrap();
        let root = Folder::root(dir.path()).unwrap();
        for bad in ["out", "out/passwd", "up", "out/new"] {
            let error = sub_path(&root, &volume(), bad, ("v", "c"), Path::new("p")).unwrap_err();
            let words = "failed to create subPath directory for volumeMount \"v\" of container \"c\"";
            assert_eq!(error, StepError::Missing(words.to_owned()), "{bad}");
        }
        assert!(!root.is_mount(Path::new("p")).unwrap());
        assert!(!Path::new("/etc/new").exists());
    }

    #[test]
    fn a_sub_path_is_made_with_its_volumes_mode_and_shown() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("v")).unwrap();
        fs::set_permissions(dir.path().join("v"), fs::Permissions::from_mode(0o2777)).unwrap();
        let root = Folder::root(dir.path()).unwrap();
        let place = Path::new("p/0");
        // Needs the right to mount; without it the error names the step.
        match sub_path(&root, &volume(), "a/b", ("v", "c"), place) {
            Ok(()) => {
                fs::write(dir.path().join("p/0/f"), "1").unwrap();
                assert_eq!(fs::read_to_string(dir.path().join("v/a/b/f")).unwrap(), "1");
                let mode =
                    |at: &str| fs::metadata(dir.path().join(at)).unwrap().permissions().mode() & 0o7777;
                assert_eq!((mode("v/a"), mode("v/a/b")), (0o2777, 0o2777));
                assert!(root.is_mount(place).unwrap());
                // Once more over itself: what was there before goes.
                sub_path(&root, &volume(), "a", ("v", "c"), place).unwrap();
                assert!(dir.path().join("p/0/b").exists());
                sub_path(&root, &volume(), "./.", ("v", "c"), place).unwrap();
                assert!(dir.path().join("p/0/a/b").exists(), "nothing but dots is the whole");
                root.detach_below(Path::new("p")).unwrap();
                assert!(!root.is_mount(place).unwrap());
            }
            Err(error) => assert!(error.to_string().contains("prepare subPath"), "{error}"),
        }
    }
}
