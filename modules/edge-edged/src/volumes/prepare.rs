//! Getting all volumes of a pod onto the disk, and off it. Blocks: runs beside the hive's thread.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Volume as VolumeSpec};

use super::payload::Payload;
use super::{Tokens, atomic, host, payload};
use crate::beneath::{Access, Folder};
use crate::desired::Desired;
use crate::env::Facts;
use crate::error::StepError;
use crate::objects::Sources;
use crate::{layout, quantity};

/// Where a volume lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum At {
    /// Below `rootDirectory`.
    Ours(PathBuf),
    /// On the host, where the pod says.
    Host(PathBuf),
}

/// A volume that is ready to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Volume {
    pub(crate) at: At,
    /// It was made from objects: no container may write to it, whatever the pod says.
    pub(crate) read_only: bool,
}

/// The volumes of a pod by their names.
pub(crate) type Prepared = BTreeMap<String, Volume>;

/// Folders that only lead to a volume: no other user of the node may pass.
const LEADS: u32 = 0o750;

/// Makes what is missing and brings files from objects up to date. Safe to repeat at any time.
pub(crate) fn prepare(
    root: &Folder,
    pod: &Desired,
    sources: &Sources,
    tokens: &Tokens,
    facts: &Facts,
) -> Result<Prepared, StepError> {
    let mut prepared = Prepared::new();
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
    pod: &Desired,
    volume: &VolumeSpec,
    sources: &Sources,
    tokens: &Tokens,
    facts: &Facts,
) -> Result<Volume, StepError> {
    let uid = &pod.id.uid;
    let group = fs_group(pod);
    if let Some(path) = &volume.host_path {
        host::check_path(path)?;
        return Ok(Volume { at: At::Host(PathBuf::from(&path.path)), read_only: false });
    }
    if let Some(source) = &volume.empty_dir {
        let at = layout::volume(uid, "empty-dir", &volume.name);
        empty_dir(root, &at, source, group)?;
        return Ok(Volume { at: At::Ours(at), read_only: false });
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
    Ok(Volume { at: At::Ours(at), read_only: true })
}

fn fs_group(pod: &Desired) -> Option<u32> {
    let group = pod.spec().security_context.as_ref().and_then(|own| own.fs_group)?;
    u32::try_from(group).ok()
}

/// Makes the folder of a volume; the folders that lead there are for us alone.
fn make(root: &Folder, at: &Path) -> Result<Folder, StepError> {
    root.make(at, Access::mode(LEADS))
}

fn empty_dir(
    root: &Folder,
    at: &Path,
    source: &EmptyDirVolumeSource,
    group: Option<u32>,
) -> Result<(), StepError> {
    let mut folder = make(root, at)?;
    if source.medium.as_deref() == Some("Memory") && !root.is_mount(at)? {
        folder = root.tmpfs(at, source.size_limit.as_ref().and_then(quantity::units))?;
    }
    let stat = folder.stat()?;
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    // Only what differs: a container may have chosen a mode of its own below.
    if stat.st_mode & 0o7777 != mode || group.is_some_and(|group| stat.st_gid != group) {
        folder.set_access(Access { mode, owner: None, group })?;
    }
    Ok(())
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

/// Removes everything of a pod from the disk: mounts, folders, logs. Never follows a mount or link out of them.
pub(crate) fn teardown(root: &Path, logs: &Path, uid: &str, pod_logs: &Path) -> Result<(), StepError> {
    if let Some(root) = Folder::find_root(root)? {
        let at = layout::pod(uid);
        root.detach_below(&at)?;
        root.remove(&at)?;
    }
    if let Some(logs) = Folder::find_root(logs)? {
        logs.remove(pod_logs)?;
    }
    Ok(())
}
