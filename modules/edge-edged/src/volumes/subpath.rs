//! Mounts of a container, with `subPath` resolved so that nothing inside a volume can lead out of it.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use cri::v1::{Mount, MountPropagation};
use k8s_openapi::api::core::v1::{Container, VolumeMount};
use rustix::io::Errno;

use super::{PreparedVolumes, Volume, VolumeLocation};
use crate::disk::beneath::{Access, Folder};
use crate::disk::layout;
use crate::error::StepError;
use crate::pod::parsed_pod::ParsedPod;
use crate::runtime::container;
use crate::runtime::env::expand;

/// The mounts of a container, the deepest last. Blocks.
pub(crate) fn mounts_of(
    root: &Folder,
    pod: &ParsedPod,
    spec: &Container,
    attempt: u32,
    prepared: &PreparedVolumes,
    env: &[(String, String)],
) -> Result<Vec<Mount>, StepError> {
    let known: BTreeMap<String, String> = env.iter().cloned().collect();
    let mut list = Vec::new();
    for (index, wanted) in spec.volume_mounts.iter().flatten().enumerate() {
        let Some(volume) = prepared.get(&wanted.name) else {
            return Err(StepError::Missing(format!("volume \"{}\" is not ready", wanted.name)));
        };
        let (inner, said) = match (&wanted.sub_path, &wanted.sub_path_expr) {
            (Some(path), _) if !path.is_empty() => (path.clone(), path),
            (_, Some(expression)) if !expression.is_empty() => (expand(expression, &known), expression),
            _ => (String::new(), &wanted.name),
        };
        let host_path = if inner.is_empty() {
            match &volume.at {
                VolumeLocation::Ours(at) => root.shown().join(at),
                VolumeLocation::Host(path) => path.clone(),
            }
        } else {
            let place = layout::sub_path(&pod.id.uid, &spec.name, &wanted.name, index);
            sub_path(root, volume, &inner, said, &place)?;
            root.shown().join(place)
        };
        list.push(mount(wanted, &host_path, volume.read_only)?);
    }
    let has = |list: &[Mount], path: &str| list.iter().any(|mount| mount.container_path == path);
    if !has(&list, "/etc/hosts") {
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
        let at = layout::termination_message(&pod.id.uid, &spec.name, attempt);
        if let Some(parent) = at.parent() {
            root.make(parent, Access::mode(0o750))?;
        }
        // Any user of the container may leave its termination message.
        root.overwrite(&at, b"", Access::mode(0o666))?;
        list.push(plain(message_path, &root.shown().join(at)));
    }
    list.sort_by_key(|mount| mount.container_path.matches('/').count());
    Ok(list)
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

fn mount(wanted: &VolumeMount, host_path: &Path, read_only: bool) -> Result<Mount, StepError> {
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
    })
}

/// Opens `inner` below the volume (making folders that are missing) and shows what was opened at `place`. A link that
/// a container put into the volume can lead only to other parts of it, and what was opened is what is mounted. `said`
/// is how the pod says it: what an expression expands to can be secret.
fn sub_path(root: &Folder, volume: &Volume, inner: &str, said: &str, place: &Path) -> Result<(), StepError> {
    let said: String = said.chars().take(64).collect();
    let parts: Vec<&str> = inner.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if inner.starts_with('/') || parts.contains(&"..") || inner.contains('\0') || parts.is_empty() {
        return Err(StepError::Config(format!("subPath `{said}` is not a relative path without `..`")));
    }
    let folder = match &volume.at {
        VolumeLocation::Ours(at) => root.below(at)?,
        VolumeLocation::Host(path) => Folder::root(path)?,
    };
    let relative: PathBuf = parts.iter().collect();
    let found = folder.sub_path(&relative).map_err(|errno| match errno {
        Errno::XDEV | Errno::LOOP => StepError::Config(format!("subPath `{said}` leads out of its volume")),
        other => StepError::Config(format!("subPath `{said}` cannot be prepared: {other}")),
    })?;
    root.show(&found, place)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

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
        for bad in ["/etc", "../x", "a/../../x", "out", "out/passwd", "up", ""] {
            let error = sub_path(&root, &volume(), bad, "$(SECRET)", Path::new("p")).unwrap_err();
            assert!(matches!(error, StepError::Config(_)), "{bad}: {error:?}");
            assert!(error.to_string().contains("$(SECRET)"), "{error}");
        }
        assert!(!root.is_mount(Path::new("p")).unwrap());
    }

    #[test]
    fn a_sub_path_is_made_with_its_volumes_mode_and_shown() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("v")).unwrap();
        fs::set_permissions(dir.path().join("v"), fs::Permissions::from_mode(0o2777)).unwrap();
        let root = Folder::root(dir.path()).unwrap();
        let place = Path::new("p/0");
        // Needs the right to mount; without it the error names the step.
        match sub_path(&root, &volume(), "a/b", "a/b", place) {
            Ok(()) => {
                fs::write(dir.path().join("p/0/f"), "1").unwrap();
                assert_eq!(fs::read_to_string(dir.path().join("v/a/b/f")).unwrap(), "1");
                let mode =
                    |at: &str| fs::metadata(dir.path().join(at)).unwrap().permissions().mode() & 0o7777;
                assert_eq!((mode("v/a"), mode("v/a/b")), (0o2777, 0o2777));
                assert!(root.is_mount(place).unwrap());
                // Once more over itself: what was there before goes.
                sub_path(&root, &volume(), "a", "a", place).unwrap();
                assert!(dir.path().join("p/0/b").exists());
                root.detach_below(Path::new("p")).unwrap();
                assert!(!root.is_mount(place).unwrap());
            }
            Err(error) => assert!(error.to_string().contains("bind-mount"), "{error}"),
        }
    }
}
