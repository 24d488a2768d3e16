//! Mounts of a container, with `subPath` resolved so that nothing inside a volume can lead out of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use cri::v1::{Mount, MountPropagation};
use k8s_openapi::api::core::v1::{Container, VolumeMount};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat2};
use rustix::io::Errno;

use super::{Prepared, mounts};
use crate::desired::Desired;
use crate::env::expand;
use crate::error::StepError;
use crate::{container, layout};

/// The mounts of a container, the deepest last. Blocks.
pub(crate) fn mounts_of(
    root: &Path,
    pod: &Desired,
    spec: &Container,
    attempt: u32,
    prepared: &Prepared,
    env: &[(String, String)],
) -> Result<Vec<Mount>, StepError> {
    let known: BTreeMap<String, String> = env.iter().cloned().collect();
    let mut list = Vec::new();
    for (index, wanted) in spec.volume_mounts.iter().flatten().enumerate() {
        let Some(volume) = prepared.get(&wanted.name) else {
            return Err(StepError::Missing(format!("volume \"{}\" is not ready", wanted.name)));
        };
        let inner = match (&wanted.sub_path, &wanted.sub_path_expr) {
            (Some(path), _) if !path.is_empty() => path.clone(),
            (_, Some(expression)) if !expression.is_empty() => expand(expression, &known),
            _ => String::new(),
        };
        let host_path = if inner.is_empty() {
            volume.clone()
        } else {
            let place = layout::sub_path(root, &pod.id.uid, &spec.name, &wanted.name, index);
            sub_path(volume, &inner, &place)?;
            place
        };
        list.push(mount(wanted, &host_path)?);
    }
    let has = |list: &[Mount], path: &str| list.iter().any(|mount| mount.container_path == path);
    if !has(&list, "/etc/hosts") {
        let host_path = layout::etc_hosts(root, &pod.id.uid);
        list.push(plain("/etc/hosts", &host_path));
    }
    let message_path = container::message_path(spec);
    if !has(&list, message_path) {
        let host_path = layout::last_words(root, &pod.id.uid, &spec.name, attempt);
        make_file(&host_path)?;
        list.push(plain(message_path, &host_path));
    }
    list.sort_by_key(|mount| mount.container_path.matches('/').count());
    Ok(list)
}

fn plain(container_path: &str, host_path: &Path) -> Mount {
    Mount {
        container_path: container_path.to_owned(),
        host_path: host_path.display().to_string(),
        ..Mount::default()
    }
}

fn mount(wanted: &VolumeMount, host_path: &Path) -> Result<Mount, StepError> {
    let path = &wanted.mount_path;
    let container_path = if path.starts_with('/') { path.clone() } else { format!("/{path}") };
    let upward = Path::new(&container_path).components().any(|part| part == Component::ParentDir);
    if upward || path.is_empty() {
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
        readonly: wanted.read_only.unwrap_or(false),
        propagation: propagation.into(),
    })
}

fn make_file(path: &Path) -> Result<(), StepError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| StepError::file("make folder", parent, &error))?;
    }
    fs::write(path, b"").map_err(|error| StepError::file("make file", path, &error))?;
    // Any user of the container may leave its last words.
    let open = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o666);
    fs::set_permissions(path, open).map_err(|error| StepError::file("set the mode of", path, &error))
}

/// Opens `inner` below `volume` (making folders that are missing) and shows what was opened at `place`. A link that
/// a container put into the volume can lead only to other parts of it, and what was opened is what is mounted.
fn sub_path(volume: &Path, inner: &str, place: &Path) -> Result<(), StepError> {
    let parts: Vec<&str> = inner.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if inner.starts_with('/') || parts.contains(&"..") || inner.contains('\0') || parts.is_empty() {
        return Err(StepError::Config(format!("subPath `{inner}` is not a relative path without `..`")));
    }
    let fault = |errno: Errno| match errno {
        Errno::XDEV | Errno::LOOP => StepError::Config(format!("subPath `{inner}` leads out of its volume")),
        other => StepError::file("open", &volume.join(inner), &other),
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let top = openat2(CWD, volume, flags, Mode::empty(), ResolveFlags::empty()).map_err(fault)?;
    let mut relative = PathBuf::new();
    let mut opened: Option<OwnedFd> = None;
    for part in parts {
        relative.push(part);
        let beneath = || openat2(&top, &relative, flags, Mode::empty(), ResolveFlags::BENEATH);
        let next = match beneath() {
            Err(Errno::NOENT) => {
                let parent = opened.as_ref().unwrap_or(&top);
                mkdirat(parent, part, Mode::from_raw_mode(0o750)).map_err(fault)?;
                beneath().map_err(fault)?
            }
            other => other.map_err(fault)?,
        };
        opened = Some(next);
    }
    let Some(opened) = opened else { return Ok(()) };
    let is_dir = fstat(&opened)
        .map(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())
        .map_err(fault)?;
    mounts::detach(place)?;
    make_place(place, is_dir)?;
    mounts::bind(Path::new(&format!("/proc/self/fd/{}", opened.as_raw_fd())), place)
}

fn make_place(place: &Path, is_dir: bool) -> Result<(), StepError> {
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent).map_err(|error| StepError::file("make folder", parent, &error))?;
    }
    if let Ok(old) = fs::symlink_metadata(place)
        && old.is_dir() != is_dir
    {
        let removed = if old.is_dir() { fs::remove_dir(place) } else { fs::remove_file(place) };
        removed.map_err(|error| StepError::file("remove", place, &error))?;
    }
    if place.exists() {
        return Ok(());
    }
    let made = if is_dir { fs::create_dir(place) } else { fs::File::create_new(place).map(drop) };
    made.map_err(|error| StepError::file("make", place, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sub_path_never_leaves_its_volume() {
        let dir = tempfile::tempdir().unwrap();
        let (volume, place) = (dir.path().join("v"), dir.path().join("p"));
        fs::create_dir(&volume).unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("out")).unwrap();
        std::os::unix::fs::symlink("../..", volume.join("up")).unwrap();
        for bad in ["/etc", "../x", "a/../../x", "out", "out/passwd", "up", ""] {
            let error = sub_path(&volume, bad, &place).unwrap_err();
            assert!(matches!(error, StepError::Config(_)), "{bad}: {error:?}");
        }
        assert!(!mounts::is_mount(&place));
    }

    #[test]
    fn a_sub_path_is_made_and_shown() {
        let dir = tempfile::tempdir().unwrap();
        let (volume, place) = (dir.path().join("v"), dir.path().join("p/0"));
        fs::create_dir(&volume).unwrap();
        // Needs the right to mount; without it the error names the step.
        match sub_path(&volume, "a/b", &place) {
            Ok(()) => {
                fs::write(place.join("f"), "1").unwrap();
                assert_eq!(fs::read_to_string(volume.join("a/b/f")).unwrap(), "1");
                mounts::detach(&place).unwrap();
            }
            Err(error) => assert!(error.to_string().contains("bind-mount"), "{error}"),
        }
    }
}
