//! Mounting what lies outside a pod's folder and is no CSI driver's: local disks and NFS. Blocks.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use super::claims::{Backing, External};
use super::mount_program::MountProgram;
use super::{Volume, VolumeLocation};
use super::{devices, host};
use crate::disk::beneath::Folder;
use crate::disk::{folders, layout};
use crate::error::StepError;

/// A volume that is mounted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mounted {
    pub(crate) volume: Volume,
    /// It was mounted now, and not found so.
    pub(crate) is_new: bool,
}

/// Mounts a volume of a pod, unless it is. `None`: it is a CSI driver's.
pub(crate) fn set_up(root: &Folder, uid: &str, wanted: &External) -> Result<Option<Mounted>, StepError> {
    let fault = |error: StepError| {
        StepError::Missing(format!("MountVolume.SetUp failed for volume \"{}\" : {error}", wanted.name))
    };
    let read_only = wanted.read_only;
    match &wanted.backing {
        Backing::HostPath(source) => {
            host::check_path(source).map_err(fault)?;
            let at = VolumeLocation::Host(PathBuf::from(&source.path));
            Ok(Some(Mounted { volume: Volume { at, read_only }, is_new: false }))
        }
        Backing::Local { path, .. } if wanted.is_block => {
            local_device(root, Path::new(path), uid, wanted).map(Some)
        }
        Backing::Local { path, mount_options } => {
            let at = layout::volume(uid, "local-volume", &wanted.name);
            local(root, Path::new(path), mount_options, read_only, at).map(Some).map_err(fault)
        }
        Backing::Nfs { server, path, mount_options } => {
            let at = layout::volume(uid, "nfs", &wanted.name);
            nfs(root, server, path, mount_options, read_only, at).map(Some).map_err(fault)
        }
        Backing::Csi(_) => Ok(None),
    }
}

/// A disk that the pod has as a device.
fn local_device(root: &Folder, path: &Path, uid: &str, wanted: &External) -> Result<Mounted, StepError> {
    let fault = |why: String| {
        StepError::Missing(format!("MapVolume.MapBlockVolume failed for volume \"{}\" : {why}", wanted.name))
    };
    let shown = path.display();
    if !path.is_absolute() || path.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(fault(format!("invalid path: {shown} must not contain '..'")));
    }
    let found =
        fs::metadata(path).map_err(|error| fault(format!("path \"{shown}\" does not exist: {error}")))?;
    if !found.file_type().is_block_device() {
        return Err(fault(format!("blkUtil.MapDevice failed: {shown} is no block device")));
    }
    let at = layout::volume_device(uid, "local-volume", &wanted.name);
    let is_new = !is_linked(root, uid, &wanted.name)?;
    let at = devices::link(root, &at, path).map_err(|error| fault(error.to_string()))?;
    let volume = Volume { at: VolumeLocation::Device(at), read_only: wanted.read_only };
    Ok(Mounted { volume, is_new })
}

/// Whether a pod has a local disk as a device.
fn is_linked(root: &Folder, uid: &str, name: &str) -> Result<bool, StepError> {
    let link = layout::volume_device(uid, "local-volume", name);
    let folder = link.parent().map_or(Ok(None), |folder| root.find(folder))?;
    Ok(folder.is_some_and(|folder| folder.link_target(name).is_some()))
}

fn local(
    root: &Folder,
    path: &Path,
    options: &[String],
    read_only: bool,
    at: PathBuf,
) -> Result<Mounted, StepError> {
    let config = |text: String| StepError::Missing(text);
    if !path.is_absolute() || path.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(config(format!("invalid path: {} must not contain '..'", path.display())));
    }
    let found = fs::metadata(path)
        .map_err(|error| config(format!("path \"{}\" does not exist: {error}", path.display())))?;
    if found.file_type().is_block_device() {
        return Err(config(format!(
            "{} is a block device: this node mounts local volumes that are directories",
            path.display()
        )));
    }
    if !found.is_dir() {
        return Err(config("only directory and block device are supported".to_owned()));
    }
    let is_new = is_free(root, &at)?;
    if is_new {
        root.bind(path, &at, &bind_options(options, read_only)?)?;
    }
    Ok(Mounted { volume: Volume { at: VolumeLocation::Ours(at), read_only }, is_new })
}

/// The options of a PersistentVolume as the kernel has them for a bind mount.
fn bind_options(options: &[String], read_only: bool) -> Result<Vec<String>, StepError> {
    let known =
        ["ro", "rw", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime", "bind", "rbind"];
    if let Some(other) = options.iter().find(|option| !known.contains(&option.as_str())) {
        return Err(StepError::Missing(format!("mount option \"{other}\" is not one of a bind mount")));
    }
    let own = options.iter().filter(|option| !matches!(option.as_str(), "bind" | "rbind" | "rw"));
    Ok(own.cloned().chain(read_only.then(|| "ro".to_owned())).collect())
}

fn nfs(
    root: &Folder,
    server: &str,
    path: &str,
    options: &[String],
    read_only: bool,
    at: PathBuf,
) -> Result<Mounted, StepError> {
    let source = nfs_source(server, path)?;
    let is_new = is_free(root, &at)?;
    if is_new {
        let options = read_only.then(|| "ro".to_owned()).into_iter().chain(options.iter().cloned());
        let options: Vec<String> = options.collect();
        MountProgram::of_machine().run("nfs", &source, &root.shown().join(&at), &options)?;
    }
    Ok(Mounted { volume: Volume { at: VolumeLocation::Ours(at), read_only }, is_new })
}

/// Whether nothing is mounted at a volume's place, which is made then. What is mounted is not asked: it may be a server that does not
/// answer.
fn is_free(root: &Folder, at: &Path) -> Result<bool, StepError> {
    if let Some(parent) = at.parent() {
        folders::lead_to(root, parent)?;
    }
    if root.is_mount(at)? {
        return Ok(false);
    }
    folders::lead_to(root, at).map(|_| true)
}

/// What one pod alone may have is given to no second one: a local disk here, CSI volumes by EdgeCsi; of NFS a kubelet does not know
/// whether two are the same. It is looked for once the own one is there, so that of two pods at once none overlooks the other; then
/// that one goes again. The kubelet's `IsVolumeMountedElsewhere`.
///
/// # Errors
/// In the kubelet's words, when another pod has it.
pub(crate) fn has_no_other(
    root: &Folder,
    uid: &str,
    wanted: &External,
    mounted: &Mounted,
) -> Result<(), StepError> {
    if !wanted.is_for_one || !mounted.is_new || !matches!(wanted.backing, Backing::Local { .. }) {
        return Ok(());
    }
    let has = |other: &str| -> Result<bool, StepError> {
        Ok(is_linked(root, other, &wanted.name)?
            || root.is_mount(&layout::volume(other, "local-volume", &wanted.name))?)
    };
    for other in root.below(Path::new(layout::PODS))?.names(folders::PODS_MAX)? {
        let Some(other) = other.to_str().filter(|other| *other != uid) else { continue };
        if !has(other)? {
            continue;
        }
        let step = if wanted.is_block { "MapVolume.SetUpDevice" } else { "MountVolume.SetUp" };
        match &mounted.volume.at {
            VolumeLocation::Ours(at) => root.detach(at)?,
            VolumeLocation::Device(at) => root.remove(at)?,
            VolumeLocation::Host(_) | VolumeLocation::Image(_) => {}
        }
        return Err(StepError::Missing(format!(
            "{step} failed for volume \"{}\" : volume uses the ReadWriteOncePod access mode and is already in use by another pod",
            wanted.name
        )));
    }
    Ok(())
}

/// The pod beside `uid` that has a local volume mounted, if there is one: what the files belong to is that one's. Answers where.
pub(crate) fn others_mount(root: &Folder, uid: &str, at: &Path) -> Result<Option<PathBuf>, StepError> {
    let (own, pods) = (layout::pod(uid), Path::new(layout::PODS));
    let is_others = |other: &PathBuf| {
        other.starts_with(pods) && !other.starts_with(&own) && layout::kind(other) == layout::kind(at)
    };
    Ok(root.shown_elsewhere(at)?.into_iter().find(is_others))
}

/// `server:path`, an IPv6 address in brackets.
fn nfs_source(server: &str, path: &str) -> Result<String, StepError> {
    let wrong = || StepError::Config(format!("`{server}:{path}` is no NFS export"));
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%[]".contains(&byte);
    // A name that begins like an option would be one.
    if server.is_empty() || server.starts_with('-') || !server.bytes().all(is_name) || !path.starts_with('/')
    {
        return Err(wrong());
    }
    if path.contains(['\0', '\n']) {
        return Err(wrong());
    }
    let is_v6 = server.parse::<std::net::Ipv6Addr>().is_ok();
    Ok(if is_v6 { format!("[{server}]:{path}") } else { format!("{server}:{path}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(backing: Backing) -> External {
        External {
            volume: "v".into(),
            name: "pv".into(),
            read_only: true,
            is_for_one: false,
            is_block: false,
            expansion: None,
            backing,
        }
    }

    #[test]
    fn a_local_disk_as_a_device_is_a_block_device() {
        let dir = tempfile::tempdir().unwrap();
        let root = Folder::root(dir.path()).unwrap();
        let of = |path: &str| {
            let backing = Backing::Local { path: path.to_owned(), mount_options: Vec::new() };
            set_up(&root, "u", &External { is_block: true, ..wanted(backing) })
                .map_err(|error| error.to_string())
        };
        let words = "MapVolume.MapBlockVolume failed for volume \"pv\" : blkUtil.MapDevice failed: /dev/null is no block device";
        assert_eq!(of("/dev/null"), Err(words.to_owned()));
        assert!(of("/dev/../dev/null").unwrap_err().contains("must not contain '..'"));
        assert!(of("/dev/none").unwrap_err().contains("does not exist"));
    }

    #[test]
    fn a_local_disk_for_one_pod_is_given_to_no_second_one() {
        // Only root can mount.
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (dir, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = Folder::root(dir.path()).unwrap();
        let path = disk.path().display().to_string();
        let backing = Backing::Local { path, mount_options: Vec::new() };
        let own = External { is_for_one: true, read_only: false, ..wanted(backing) };
        let give = |uid: &str, own: &External| {
            let mounted = set_up(&root, uid, own)?.unwrap();
            has_no_other(&root, uid, own, &mounted)
        };
        assert_eq!((give("u", &own), give("u", &own)), (Ok(()), Ok(())), "its own pod has it");
        let words = "MountVolume.SetUp failed for volume \"pv\" : volume uses the ReadWriteOncePod access mode and is already in use by another pod";
        assert_eq!(give("v", &own), Err(StepError::Missing(words.to_owned())));
        let at = |uid: &str| layout::volume(uid, "local-volume", "pv");
        assert_eq!([root.is_mount(&at("u")), root.is_mount(&at("v"))], [Ok(true), Ok(false)]);
        assert_eq!(give("w", &External { is_for_one: false, ..own.clone() }), Ok(()));
        for uid in ["u", "w"] {
            root.detach(&at(uid)).unwrap();
        }
        assert_eq!(give("v", &own), Ok(()), "the others have gone");
        root.detach(&at("v")).unwrap();
    }

    #[test]
    fn an_export_is_named_as_mount_wants_it_and_no_option_is_smuggled_in() {
        assert_eq!(nfs_source("nas.local", "/data"), Ok("nas.local:/data".to_owned()));
        assert_eq!(nfs_source("fd00::1", "/data"), Ok("[fd00::1]:/data".to_owned()));
        for (server, path) in
            [("-osuid", "/x"), ("", "/x"), ("a b", "/x"), ("nas", "x"), ("nas;reboot", "/x")]
        {
            assert!(nfs_source(server, path).is_err(), "{server}:{path}");
        }
        let options = ["nosuid".to_owned(), "rbind".to_owned()];
        assert_eq!(bind_options(&options, true), Ok(vec!["nosuid".to_owned(), "ro".to_owned()]));
        assert!(bind_options(&["size=1".to_owned()], false).is_err());
    }

    #[test]
    fn a_local_disk_is_mounted_in_the_pods_folder_once_and_only_a_folder() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(disk.path().join("there"), "x").unwrap();
        let root = Folder::root(dir.path()).unwrap();
        let of = |path: &Path| {
            let path = path.display().to_string();
            set_up(&root, "u", &wanted(Backing::Local { path, mount_options: Vec::new() }))
        };
        let file = of(&disk.path().join("there")).unwrap_err().to_string();
        let words =
            "MountVolume.SetUp failed for volume \"pv\" : only directory and block device are supported";
        assert_eq!(file, words);
        assert!(of(&disk.path().join("none")).unwrap_err().to_string().contains("does not exist"));
        let at = layout::volume("u", "local-volume", "pv");
        let first = match of(disk.path()) {
            // Only root can mount.
            Err(error) if error.to_string().contains("not permitted") => return,
            other => other.unwrap().unwrap(),
        };
        assert!(
            first.is_new && first.volume == Volume { at: VolumeLocation::Ours(at.clone()), read_only: true }
        );
        let shown = dir.path().join(&at);
        assert_eq!(fs::read_to_string(shown.join("there")).unwrap(), "x");
        assert!(fs::write(shown.join("more"), "x").is_err(), "it is read-only");
        assert!(!of(disk.path()).unwrap().unwrap().is_new);
        root.detach_below(&layout::pod("u")).unwrap();
        assert!(disk.path().join("there").exists() && !shown.join("there").exists());
    }

    #[test]
    fn a_local_disk_that_another_pod_has_is_known() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = Folder::root(dir.path()).unwrap();
        let path = disk.path().display().to_string();
        let of = |uid: &str| {
            set_up(&root, uid, &wanted(Backing::Local { path: path.clone(), mount_options: Vec::new() }))
        };
        let at = |uid: &str| layout::volume(uid, "local-volume", "pv");
        if of("u1").is_err() {
            // Only root can mount.
            return;
        }
        assert_eq!(others_mount(&root, "u1", &at("u1")), Ok(None));
        of("u2").unwrap();
        assert_eq!(others_mount(&root, "u2", &at("u2")), Ok(Some(at("u1"))));
        for uid in ["u1", "u2"] {
            root.detach_below(&layout::pod(uid)).unwrap();
        }
        assert_eq!(others_mount(&root, "u2", &at("u2")), Ok(None));
    }
}
