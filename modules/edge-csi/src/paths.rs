//! Where volumes lie, and what says whose they are. All of it is a kubelet's layout, which drivers look for. Blocks.
//!
//! Everything here lies in folders that root alone may enter; what a driver mounts is never entered.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use apimachinery::volume::sha256_hex;
use contract::csi::CsiVolume;
use contract::csi_node::is_driver_name;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind_recursive, mount_change, unmount};
use serde::{Deserialize, Serialize};

use crate::error::FileError;

/// Says of the folder beside it which volume is there.
const VOL_DATA: &str = "vol_data.json";
/// 64 KiB of such a file: a handle has 192 bytes at most in a cluster's eyes.
const VOL_DATA_MAX: u64 = 64 << 10;
/// The kubelet's mode of what it makes.
const CLOSED: u32 = 0o750;
/// So many entries of one folder are looked at.
const ENTRIES_MAX: usize = 1 << 16;
/// Registrars' sockets lie at most so many folders deep.
const SOCKETS_DEEP: usize = 8;
/// So many sockets.
const SOCKETS_MAX: usize = 256;

/// What `vol_data.json` says, in a kubelet's words. All values are text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VolData {
    #[serde(rename = "specVolID", default, skip_serializing_if = "String::is_empty")]
    pub(crate) spec_vol_id: String,
    pub(crate) volume_handle: String,
    pub(crate) driver_name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) node_name: String,
    /// `Persistent` or `Ephemeral`; empty for one that is staged.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) volume_lifecycle_mode: String,
    #[serde(rename = "attachmentID", default, skip_serializing_if = "String::is_empty")]
    pub(crate) attachment_id: String,
}

impl VolData {
    /// Which volume it is; `device`: its PersistentVolume's name, if it is a device.
    pub(crate) fn id(&self, device: Option<&str>) -> VolumeId {
        VolumeId {
            driver: self.driver_name.clone(),
            handle: self.volume_handle.clone(),
            device: device.map(str::to_owned),
        }
    }

    pub(crate) fn is_inline(&self) -> bool {
        self.volume_lifecycle_mode == "Ephemeral"
    }
}

/// A volume, whatever pods have it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct VolumeId {
    pub(crate) driver: String,
    pub(crate) handle: String,
    /// The name of its PersistentVolume, if pods have it as a device: so its folders are called.
    pub(crate) device: Option<String>,
}

/// Where a device lies.
#[derive(Debug, Clone)]
pub(crate) struct DevicePlaces {
    /// Where its driver stages it.
    pub(crate) staging: PathBuf,
    /// The folder of what is published, by pod.
    pub(crate) publish: PathBuf,
    /// What says whose it is.
    pub(crate) data: PathBuf,
    /// The folder of `data`.
    pub(crate) top: PathBuf,
}

/// One volume of a pod on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodVolume {
    pub(crate) pod_uid: String,
    pub(crate) name: String,
    /// `None`: nothing says whose it is.
    pub(crate) data: Option<VolData>,
    /// The pod has it as a block device.
    pub(crate) is_block: bool,
}

impl PodVolume {
    /// Which volume it is; `None`: an inline one, or nothing says so.
    pub(crate) fn id(&self) -> Option<VolumeId> {
        let data = self.data.as_ref().filter(|data| !data.is_inline())?;
        Some(data.id(self.is_block.then_some(self.name.as_str())))
    }
}

/// `rootDirectory`.
#[derive(Debug, Clone)]
pub(crate) struct Root(pub(crate) PathBuf);

/// A name that is one folder, and no other.
pub(crate) fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && !matches!(name, "." | "..") && !name.contains(['/', '\0'])
}

impl Root {
    pub(crate) fn registry(&self) -> PathBuf {
        self.0.join("plugins_registry")
    }

    fn plugin(&self) -> PathBuf {
        self.0.join("plugins").join("kubernetes.io").join("csi")
    }

    /// The folder of a volume that is staged for the node.
    pub(crate) fn stage(&self, driver: &str, handle: &str) -> PathBuf {
        self.plugin().join(driver).join(sha256_hex(&[handle]))
    }

    /// Where a driver stages it.
    pub(crate) fn global_mount(&self, driver: &str, handle: &str) -> PathBuf {
        self.stage(driver, handle).join("globalmount")
    }

    fn pod(&self, uid: &str) -> PathBuf {
        self.0.join("pods").join(uid).join("volumes").join("kubernetes.io~csi")
    }

    /// The folder of a pod's volume; the driver's mount is `mount` in it.
    pub(crate) fn volume(&self, uid: &str, name: &str) -> PathBuf {
        self.pod(uid).join(name)
    }

    fn devices(&self) -> PathBuf {
        self.plugin().join("volumeDevices")
    }

    /// Where the device of a PersistentVolume lies.
    pub(crate) fn device(&self, name: &str) -> DevicePlaces {
        let (all, top) = (self.devices(), self.devices().join(name));
        DevicePlaces {
            staging: all.join("staging").join(name),
            publish: all.join("publish").join(name),
            data: top.join("data"),
            top,
        }
    }

    fn pod_devices(&self, uid: &str) -> PathBuf {
        self.0.join("pods").join(uid).join("volumeDevices").join("kubernetes.io~csi")
    }

    /// The link that leads a pod's containers to its device.
    pub(crate) fn pod_device(&self, volume: &CsiVolume) -> PathBuf {
        self.pod_devices(&volume.pod_uid).join(&volume.name)
    }

    pub(crate) fn pod_device_of(&self, volume: &PodVolume) -> PathBuf {
        self.pod_devices(&volume.pod_uid).join(&volume.name)
    }

    /// Makes the folders that drivers and registrars mount.
    pub(crate) fn prepare(&self) -> Result<(), FileError> {
        [self.0.join("plugins"), self.registry(), self.0.join("pods")]
            .iter()
            .try_for_each(|folder| make(folder))
    }

    /// The sockets of registrars, with what tells another one in the same place.
    pub(crate) fn sockets(&self) -> Result<BTreeMap<String, (u64, u64)>, FileError> {
        let mut found = BTreeMap::new();
        let mut folders = vec![(self.registry(), 0)];
        while let Some((folder, deep)) = folders.pop() {
            for (name, path) in entries(&folder)? {
                if name.starts_with('.') || found.len() >= SOCKETS_MAX {
                    continue;
                }
                let Ok(stat) = fs::symlink_metadata(&path) else { continue };
                if stat.file_type().is_socket() {
                    if let Some(path) = path.to_str() {
                        let made = stat.ctime().unsigned_abs().wrapping_mul(1_000_000_000);
                        let made = made.wrapping_add(stat.ctime_nsec().unsigned_abs());
                        found.insert(path.to_owned(), (stat.ino(), made));
                    }
                } else if stat.is_dir() && deep < SOCKETS_DEEP {
                    folders.push((path, deep + 1));
                }
            }
        }
        Ok(found)
    }

    /// The CSI volumes that a pod has on the disk.
    pub(crate) fn of_pod(&self, uid: &str) -> Result<Vec<PodVolume>, FileError> {
        let entries = entries(&self.pod(uid))?.into_iter();
        let one = |(name, path): (String, PathBuf)| {
            let data = read_data(&path)?;
            Ok(PodVolume { pod_uid: uid.to_owned(), name, data, is_block: false })
        };
        let mut all = entries.map(one).collect::<Result<Vec<_>, FileError>>()?;
        for (name, _) in self::entries(&self.pod_devices(uid))? {
            let data = read_data(&self.device(&name).data)?;
            all.push(PodVolume { pod_uid: uid.to_owned(), name, data, is_block: true });
        }
        Ok(all)
    }

    /// Those of all pods.
    pub(crate) fn of_pods(&self) -> Result<Vec<PodVolume>, FileError> {
        let mut all = Vec::new();
        for (uid, _) in entries(&self.0.join("pods"))? {
            all.extend(self.of_pod(&uid)?);
        }
        Ok(all)
    }

    /// The volumes that are staged.
    pub(crate) fn staged(&self) -> Result<BTreeSet<VolumeId>, FileError> {
        let mut all = BTreeSet::new();
        for (driver, folder) in entries(&self.plugin())? {
            if !is_driver_name(&driver) {
                continue;
            }
            for (hash, path) in entries(&folder)? {
                let Some(data) = read_data(&path)? else { continue };
                // A file that speaks of another volume is not what we wrote.
                if data.driver_name == driver && sha256_hex(&[&data.volume_handle]) == hash {
                    all.insert(data.id(None));
                }
            }
        }
        for (name, top) in entries(&self.devices())? {
            let data = read_data(&top.join("data"))?.filter(|data| data.spec_vol_id == name);
            all.extend(data.map(|data| data.id(Some(&name))));
        }
        Ok(all)
    }
}

/// Makes `folder`, closed to others, and writes whose it is.
pub(crate) fn begin(folder: &Path, data: &VolData) -> Result<(), FileError> {
    make(folder)?;
    let text = serde_json::to_vec(data).map_err(|error| FileError::new("write", folder, &error))?;
    let (new, at) = (folder.join(format!(".{VOL_DATA}")), folder.join(VOL_DATA));
    let write = || {
        let mut file = fs::File::create(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, &at)?;
        fs::File::open(folder)?.sync_all()
    };
    write().map_err(|error| FileError::new("write", &at, &error))
}

/// Makes a folder and what leads there, each closed to others and open to the kubelet's group, whatever the process' mask is. What
/// is mounted there already is not asked.
pub(crate) fn make(folder: &Path) -> Result<(), FileError> {
    if is_mounted(folder)? {
        return Ok(());
    }
    let missing: Vec<&Path> = folder.ancestors().take_while(|at| !at.is_dir()).collect();
    for at in missing.into_iter().rev().filter(|at| !at.as_os_str().is_empty()) {
        let fault = |error: std::io::Error| FileError::new("make folder", at, &error);
        match fs::DirBuilder::new().mode(CLOSED).create(at) {
            Ok(()) => fs::set_permissions(at, fs::Permissions::from_mode(CLOSED)).map_err(fault)?,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && at.is_dir() => {}
            Err(error) => return Err(fault(error)),
        }
    }
    Ok(())
}

/// Removes the mount point `inner` of a volume's folder, what says whose it is, and the folder, in this order. Nothing goes while
/// anything is mounted there, and no folder goes that is not empty.
pub(crate) fn end(folder: &Path, inner: &str) -> Result<(), FileError> {
    let point = folder.join(inner);
    if is_mounted(&point)? {
        return Err(FileError::new("remove", &point, &"it is still mounted"));
    }
    match fs::symlink_metadata(&point) {
        Ok(stat) if stat.is_dir() => remove(&point, fs::remove_dir(&point))?,
        Ok(_) => remove(&point, fs::remove_file(&point))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(FileError::new("look at", &point, &error)),
    }
    for name in [format!(".{VOL_DATA}"), VOL_DATA.to_owned()] {
        let at = folder.join(name);
        remove(&at, fs::remove_file(&at))?;
    }
    remove(folder, fs::remove_dir(folder))
}

/// The same for a folder of which nothing says whose it is: no driver can be asked, so what is mounted there is unmounted first.
pub(crate) fn end_nobodys(folder: &Path, inner: &str) -> Result<(), FileError> {
    let point = folder.join(inner);
    if is_mounted(&point)? {
        unmount(&point, UnmountFlags::NOFOLLOW).map_err(|error| FileError::new("unmount", &point, &error))?;
    }
    end(folder, inner)
}

/// What is gone already is what was wanted.
pub(crate) fn remove(at: &Path, result: std::io::Result<()>) -> Result<(), FileError> {
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(FileError::new("remove", at, &error))
        }
        _ => Ok(()),
    }
}

/// Whether something is mounted at a place, by the kernel's table: a file system that does not answer is not asked.
pub(crate) fn is_mounted(at: &Path) -> Result<bool, FileError> {
    mountinfo::is_mounted(at).map_err(|error| FileError::new("read", Path::new(mountinfo::TABLE), &error))
}

/// Whether there is a folder, or something is mounted: that is not asked.
pub(crate) fn has_folder(at: &Path) -> Result<bool, FileError> {
    Ok(is_mounted(at)? || fs::symlink_metadata(at).is_ok_and(|found| found.is_dir()))
}

/// Sees to it that a driver's mounts below `rootDirectory` are seen outside its container, and the node's inside: the folder is a
/// mount, and it and what is below it are shared, as a kubelet makes it. It stays so when edgecore ends, for the drivers'
/// sake. Blocks.
///
/// # Errors
/// When the folder cannot be made or mounted: then `mountPropagation` of pods has no effect.
pub fn share(root: &Path) -> Result<(), FileError> {
    make(root)?;
    if is_shared(root)? {
        return Ok(());
    }
    let share = || {
        if !is_mounted(root).unwrap_or(false) {
            mount_bind_recursive(root, root)?;
        }
        mount_change(root, MountPropagationFlags::SHARED | MountPropagationFlags::REC)
    };
    share().map_err(|error| FileError::new("share the mounts below", root, &error))
}

/// Whether the mount that a folder lies in is shared, by the kernel's table.
fn is_shared(at: &Path) -> Result<bool, FileError> {
    let fault = |error: std::io::Error| FileError::new("look at", at, &error);
    let real = fs::canonicalize(at).map_err(fault)?;
    let mounts = mountinfo::here().map_err(fault)?;
    let leading = mounts.iter().filter(|mount| real.starts_with(&mount.point));
    // Of two at one place the later one is on top.
    Ok(leading.max_by_key(|mount| mount.point.components().count()).is_some_and(|mount| mount.is_shared))
}

fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, FileError> {
    let fault = |error: std::io::Error| FileError::new("list", folder, &error);
    let list = match fs::read_dir(folder) {
        Ok(list) => list,
        // A plain file among folders is nobody's, and takes nothing from the others.
        Err(error) if is_none(&error) => return Ok(Vec::new()),
        Err(error) => return Err(fault(error)),
    };
    let mut found = Vec::new();
    for entry in list.take(ENTRIES_MAX) {
        let entry = entry.map_err(fault)?;
        // Nothing that is ours has another name.
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

fn is_none(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

/// What says whose a folder is; `None` when nothing does, or nothing that can be read.
fn read_data(folder: &Path) -> Result<Option<VolData>, FileError> {
    let at = folder.join(VOL_DATA);
    match fs::symlink_metadata(&at) {
        Ok(stat) if stat.is_file() && stat.len() <= VOL_DATA_MAX => {}
        Ok(_) => return Ok(None),
        Err(error) if is_none(&error) => return Ok(None),
        Err(error) => return Err(FileError::new("look at", &at, &error)),
    }
    let text = fs::read(&at).map_err(|error| FileError::new("read", &at, &error))?;
    Ok(serde_json::from_slice(&text).ok().filter(|data: &VolData| is_driver_name(&data.driver_name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_volume_lies_where_a_kubelet_has_it_and_says_whose_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root(dir.path().to_owned());
        let folder = root.volume("u-1", "pv-1");
        assert_eq!(folder, dir.path().join("pods/u-1/volumes/kubernetes.io~csi/pv-1"));
        let data = VolData {
            spec_vol_id: "pv-1".into(),
            volume_handle: "h".into(),
            driver_name: "d.io".into(),
            node_name: "edge-1".into(),
            volume_lifecycle_mode: "Persistent".into(),
            attachment_id: "csi-1".into(),
        };
        begin(&folder, &data).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o750);
        let text: Value = serde_json::from_slice(&fs::read(folder.join("vol_data.json")).unwrap()).unwrap();
        let words = json!({"specVolID": "pv-1", "volumeHandle": "h", "driverName": "d.io", "nodeName": "edge-1",
            "volumeLifecycleMode": "Persistent", "attachmentID": "csi-1"});
        assert_eq!(text, words);
        let there =
            PodVolume { pod_uid: "u-1".into(), name: "pv-1".into(), data: Some(data), is_block: false };
        assert_eq!(root.of_pods().unwrap(), [there]);

        let stage = root.stage("d.io", "h");
        let hash = sha256_hex(&["h"]);
        assert_eq!(stage, dir.path().join("plugins/kubernetes.io/csi/d.io").join(hash));
        let staged = VolData { volume_handle: "h".into(), driver_name: "d.io".into(), ..VolData::default() };
        begin(&stage, &staged).unwrap();
        assert_eq!(
            fs::read_to_string(stage.join("vol_data.json")).unwrap(),
            r#"{"volumeHandle":"h","driverName":"d.io"}"#
        );
        assert_eq!(root.staged().unwrap(), BTreeSet::from([staged.id(None)]));
        // One that was put elsewhere speaks of another volume.
        fs::rename(&stage, stage.with_file_name("0")).unwrap();
        assert_eq!(root.staged().unwrap(), BTreeSet::new());
    }

    #[test]
    fn what_is_not_empty_stays() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("pv");
        begin(&folder, &VolData { driver_name: "d".into(), ..VolData::default() }).unwrap();
        make(&folder.join("mount")).unwrap();
        fs::write(folder.join("mount/precious"), "x").unwrap();
        assert!(end(&folder, "mount").is_err());
        assert!(folder.join("mount/precious").exists() && folder.join(VOL_DATA).exists());
        fs::remove_file(folder.join("mount/precious")).unwrap();
        end(&folder, "mount").unwrap();
        assert!(!folder.exists());
        end(&folder, "mount").unwrap();
    }

    #[test]
    fn a_broken_word_is_none_and_a_mount_is_known_without_asking_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root(dir.path().to_owned());
        for (name, text) in
            [("a", "{"), ("b", r#"{"volumeHandle": "h", "driverName": "../../x"}"#), ("c", "")]
        {
            make(&root.volume("u", name)).unwrap();
            if !text.is_empty() {
                fs::write(root.volume("u", name).join(VOL_DATA), text).unwrap();
            }
        }
        assert!(root.of_pod("u").unwrap().iter().all(|volume| volume.data.is_none()));
        assert!(is_mounted(Path::new("/proc")).unwrap());
        let own = dir.path().join("own");
        // Only root can mount.
        if share(&own).is_ok() {
            assert!(is_shared(&own).unwrap());
            share(&own).unwrap();
            if is_mounted(&own).unwrap() {
                rustix::mount::unmount(&own, rustix::mount::UnmountFlags::empty()).unwrap();
                assert!(!is_mounted(&own).unwrap(), "it was mounted once");
            }
        }
        assert!(!is_mounted(dir.path()).unwrap() && !is_mounted(Path::new("/nowhere/x")).unwrap());
        assert!(is_plain("pv-1") && !is_plain("..") && !is_plain("a/b") && !is_plain(""));
    }

    #[test]
    fn a_plain_file_among_the_folders_takes_nothing_from_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root(dir.path().to_owned());
        let data = VolData { volume_handle: "h".into(), driver_name: "d.io".into(), ..VolData::default() };
        begin(&root.volume("u-1", "pv"), &data).unwrap();
        begin(&root.stage("d.io", "h"), &data).unwrap();
        for file in ["pods/file", "plugins/kubernetes.io/csi/e.io", "plugins/kubernetes.io/csi/d.io/file"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        make(&dir.path().join("pods/u-2/volumes")).unwrap();
        fs::write(dir.path().join("pods/u-2/volumes/kubernetes.io~csi"), "").unwrap();
        assert_eq!(root.of_pods().unwrap().len(), 1);
        assert_eq!(root.staged().unwrap(), BTreeSet::from([data.id(None)]));
        assert!(
            make(&dir.path().join("pods/file/x")).is_err() && make(&dir.path().join("pods/file")).is_err()
        );
    }

    #[test]
    fn what_is_made_is_open_to_its_group_whatever_the_mask_is() {
        let dir = tempfile::tempdir().unwrap();
        // The mask is the process': only here, and what others make meanwhile is closed the more.
        let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        let made = make(&dir.path().join("a/b"));
        rustix::process::umask(before);
        made.unwrap();
        for at in ["a", "a/b"] {
            assert_eq!(fs::metadata(dir.path().join(at)).unwrap().mode() & 0o777, 0o750, "{at}");
        }
    }

    #[test]
    fn sockets_are_found_below_and_hidden_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root(dir.path().to_owned());
        assert_eq!(root.sockets().unwrap(), BTreeMap::new());
        make(&root.registry().join("sub")).unwrap();
        let names = ["a-reg.sock", ".hidden.sock", "sub/b.sock"];
        let all: Vec<_> = names
            .iter()
            .map(|name| std::os::unix::net::UnixListener::bind(root.registry().join(name)).unwrap())
            .collect();
        fs::write(root.registry().join("file"), "").unwrap();
        let found: Vec<String> = root.sockets().unwrap().into_keys().collect();
        let at = |name: &str| root.registry().join(name).display().to_string();
        assert_eq!(found, [at("a-reg.sock"), at("sub/b.sock")]);
        drop(all);
    }
}
