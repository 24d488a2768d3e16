//! Getting all volumes of a pod onto the disk, and off it. Blocks: runs beside the hive's thread.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Volume};

use super::payload::Payload;
use super::{Tokens, atomic, host, mounts, payload};
use crate::desired::Desired;
use crate::env::Facts;
use crate::error::StepError;
use crate::objects::Sources;
use crate::{layout, quantity};

/// Where each volume of a pod lies on the node.
pub(crate) type Prepared = BTreeMap<String, PathBuf>;

/// Makes what is missing and brings files from objects up to date. Safe to repeat at any time.
pub(crate) fn prepare(
    root: &Path,
    pod: &Desired,
    sources: &Sources,
    tokens: &Tokens,
    facts: &Facts,
) -> Result<Prepared, StepError> {
    let mut prepared = Prepared::new();
    for volume in pod.spec().volumes.iter().flatten() {
        let path =
            one(root, pod, volume, sources, tokens, facts).map_err(|error| named(error, &volume.name))?;
        prepared.insert(volume.name.clone(), path);
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
    root: &Path,
    pod: &Desired,
    volume: &Volume,
    sources: &Sources,
    tokens: &Tokens,
    facts: &Facts,
) -> Result<PathBuf, StepError> {
    let uid = &pod.id.uid;
    let group = fs_group(pod);
    if let Some(path) = &volume.host_path {
        host::check_path(path)?;
        return Ok(PathBuf::from(&path.path));
    }
    if let Some(source) = &volume.empty_dir {
        let path = layout::volume(root, uid, "empty-dir", &volume.name);
        empty_dir(&path, source, group)?;
        return Ok(path);
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
    let path = layout::volume(root, uid, kind, &volume.name);
    from_objects(&path, &files, secret, group)?;
    Ok(path)
}

fn fs_group(pod: &Desired) -> Option<u32> {
    let group = pod.spec().security_context.as_ref().and_then(|own| own.fs_group)?;
    u32::try_from(group).ok()
}

fn make_dir(path: &Path) -> Result<(), StepError> {
    fs::create_dir_all(path).map_err(|error| StepError::file("make folder", path, &error))
}

fn empty_dir(path: &Path, source: &EmptyDirVolumeSource, group: Option<u32>) -> Result<(), StepError> {
    make_dir(path)?;
    if source.medium.as_deref() == Some("Memory") && !mounts::is_mount(path) {
        let size = source.size_limit.as_ref().and_then(quantity::units);
        mounts::tmpfs(path, size).map_err(|error| StepError::file("mount tmpfs at", path, &error))?;
    }
    let metadata = fs::metadata(path).map_err(|error| StepError::file("look at", path, &error))?;
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    if let Some(group) = group.filter(|group| metadata.gid() != *group) {
        chown(path, None, Some(group)).map_err(|error| StepError::file("give away", path, &error))?;
    }
    if metadata.permissions().mode() & 0o7777 != mode {
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(path, permissions)
            .map_err(|error| StepError::file("set the mode of", path, &error))?;
    }
    Ok(())
}

fn from_objects(path: &Path, files: &Payload, secret: bool, group: Option<u32>) -> Result<(), StepError> {
    make_dir(path)?;
    // What is secret never touches the disk.
    if secret && !mounts::is_mount(path) {
        mounts::tmpfs(path, None).map_err(|error| StepError::file("mount tmpfs at", path, &error))?;
        let permissions = fs::Permissions::from_mode(0o755);
        fs::set_permissions(path, permissions)
            .map_err(|error| StepError::file("set the mode of", path, &error))?;
    }
    if let Some(group) = group {
        chown(path, None, Some(group)).map_err(|error| StepError::file("give away", path, &error))?;
        let permissions = fs::Permissions::from_mode(0o2775);
        fs::set_permissions(path, permissions)
            .map_err(|error| StepError::file("set the mode of", path, &error))?;
    }
    atomic::write(path, files, group)?;
    Ok(())
}

/// Removes everything of a pod from the disk: mounts, folders, logs. Never follows a mount or link out of them.
pub(crate) fn teardown(root: &Path, uid: &str, logs: Option<&Path>) -> Result<(), StepError> {
    let folder = layout::pod(root, uid);
    mounts::detach_below(&folder)?;
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|error| StepError::file("remove", &folder, &error))?;
    }
    if let Some(logs) = logs.filter(|logs| logs.exists()) {
        fs::remove_dir_all(logs).map_err(|error| StepError::file("remove", logs, &error))?;
    }
    Ok(())
}
