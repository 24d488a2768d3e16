//! What CSI demands of a node agent, call by call.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use csi::v1::volume_capability::AccessType;
use csi::v1::{
    NodeExpandVolumeRequest, NodeGetVolumeStatsRequest, NodePublishVolumeRequest, NodeStageVolumeRequest,
    NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, VolumeCapability,
};

/// Where a node agent has devices, below its root.
const DEVICES: &str = "plugins/kubernetes.io/csi/volumeDevices";

/// What is mounted, and what was done wrong.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) root: PathBuf,
    pub(crate) stages: bool,
    /// By handle.
    staged: BTreeMap<String, String>,
    /// Handle and target.
    published: BTreeSet<(String, String)>,
    /// By handle: how large, where, where it is staged.
    expanded: BTreeMap<String, (i64, String, String)>,
    /// Handles of calls that were not answered yet.
    busy: BTreeSet<String>,
    boots: usize,
    pub(crate) faults: Vec<String>,
}

type Checked = Result<(), String>;

fn demand(holds: bool, fault: impl Into<String>) -> Checked {
    if holds { Ok(()) } else { Err(fault.into()) }
}

/// Whether a volume is asked for as a block device.
pub(crate) fn is_block(told: Option<&VolumeCapability>) -> bool {
    told.is_some_and(|told| matches!(told.access_type, Some(AccessType::Block(_))))
}

fn capability(told: Option<&VolumeCapability>) -> Checked {
    let told = told.ok_or("no volume_capability")?;
    demand(told.access_mode.is_some_and(|mode| mode.mode != 0), "no access_mode")?;
    demand(told.access_type.is_some(), "no access_type")
}

impl Rules {
    pub(crate) fn is_idle(&self) -> bool {
        self.staged.is_empty() && self.published.is_empty() && self.busy.is_empty()
    }

    /// Whether a volume is staged or published.
    pub(crate) fn is_in_use(&self, handle: &str) -> bool {
        self.staged.contains_key(handle) || self.published.iter().any(|(published, _)| published == handle)
    }

    pub(crate) fn forget(&mut self) {
        self.boots += 1;
        self.staged.clear();
        self.published.clear();
    }

    pub(crate) fn is_published(&self, handle: &str, target: &str) -> bool {
        self.published.contains(&(handle.to_owned(), target.to_owned()))
    }

    pub(crate) fn is_staged(&self, handle: &str) -> bool {
        self.staged.contains_key(handle)
    }

    /// One call at a time about one volume.
    pub(crate) fn begin(&mut self, handle: &str) -> Checked {
        demand(!handle.is_empty(), "no volume_id")?;
        demand(self.busy.insert(handle.to_owned()), format!("two calls at once about {handle}"))
    }

    pub(crate) fn end(&mut self, handle: &str) {
        self.busy.remove(handle);
    }

    pub(crate) fn give_up(&mut self) {
        self.busy.clear();
    }

    fn below_root(&self, path: &str, what: &str) -> Checked {
        let path = Path::new(path);
        demand(
            path.is_absolute() && path.starts_with(&self.root),
            format!("{what} {} is elsewhere", path.display()),
        )
    }

    /// A folder of a device, which is called as its PersistentVolume is, as the one beside it that says whose it is.
    fn device_place(&self, at: &str, kind: &str) -> Checked {
        let (path, all) = (Path::new(at), self.root.join(DEVICES));
        demand(
            path.parent() == Some(all.join(kind).as_path()),
            format!("{at} is not below {kind} of devices"),
        )?;
        let name = path.file_name().unwrap_or_default();
        let data = all.join(name).join("data").join("vol_data.json");
        demand(data.is_file(), format!("no {}", data.display()))
    }

    pub(crate) fn stage(&mut self, call: &NodeStageVolumeRequest) -> Checked {
        let at = &call.staging_target_path;
        demand(self.stages, "staged without the capability")?;
        self.below_root(at, "staging_target_path")?;
        demand(Path::new(at).is_dir(), format!("staging_target_path {at} is not there"))?;
        if is_block(call.volume_capability.as_ref()) {
            self.device_place(at, "staging")?;
        } else {
            demand(at.ends_with("/globalmount"), format!("staging_target_path {at} is no globalmount"))?;
            demand(data_beside(at), format!("no vol_data.json beside {at}"))?;
        }
        capability(call.volume_capability.as_ref())?;
        let foreign = call.volume_context.keys().any(|key| key.starts_with("csi.storage.k8s.io/"));
        demand(!foreign, "staged with a pod's attributes")?;
        let before = self.staged.insert(call.volume_id.clone(), at.clone());
        demand(before.is_none_or(|before| before == *at), "staged at two places")
    }

    pub(crate) fn publish(&mut self, call: &NodePublishVolumeRequest) -> Checked {
        let (handle, at) = (&call.volume_id, &call.target_path);
        self.below_root(at, "target_path")?;
        let is_inline =
            call.volume_context.get("csi.storage.k8s.io/ephemeral").is_some_and(|told| told == "true");
        let staged = self.staged.get(handle).map(String::as_str).unwrap_or_default();
        if self.stages && !is_inline {
            demand(!staged.is_empty(), format!("{handle} is published before it is staged"))?;
        }
        let is_free = is_inline && call.staging_target_path.is_empty()
            || is_block(call.volume_capability.as_ref()) && !self.stages;
        demand(
            is_free || call.staging_target_path == staged,
            format!("staging_target_path {} is not {staged}", call.staging_target_path),
        )?;
        let target = Path::new(at);
        demand(target.parent().is_some_and(Path::is_dir), format!("the folder of {at} is not there"))?;
        match is_block(call.volume_capability.as_ref()) {
            true => self.device_place(&target.parent().unwrap_or(target).to_string_lossy(), "publish")?,
            false => demand(data_beside(at), format!("no vol_data.json beside {at}"))?,
        }
        let again = self.is_published(handle, at);
        // It is the driver's to make; one of before a boot, which took the mount and left the folder, is empty.
        let is_left_over = || std::fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_none());
        let is_right = again || !target.exists() || (self.boots > 0 && is_left_over());
        demand(is_right, format!("target_path {at} was made, which is the driver's to do"))?;
        capability(call.volume_capability.as_ref())?;
        self.published.insert((handle.clone(), at.clone()));
        Ok(())
    }

    /// What a volume holds is asked of one that is published, where it is.
    pub(crate) fn stats(&self, call: &NodeGetVolumeStatsRequest, can: bool) -> Checked {
        let (handle, at) = (&call.volume_id, &call.volume_path);
        demand(can, "stats without the capability")?;
        demand(!handle.is_empty(), "no volume_id")?;
        demand(self.is_published(handle, at), format!("{handle} is not published at {at}"))
    }

    /// A volume becomes larger where it is published, once it is staged, and is told so in full.
    pub(crate) fn expand(&mut self, call: &NodeExpandVolumeRequest, can: bool) -> Checked {
        let (handle, at) = (&call.volume_id, &call.volume_path);
        demand(can, "expanded without the capability")?;
        demand(self.is_published(handle, at), format!("{handle} is not published at {at}"))?;
        let staged = self.staged.get(handle).map(String::as_str).unwrap_or_default();
        demand(
            !self.stages || call.staging_target_path == staged,
            format!("staging_target_path {} is not {staged}", call.staging_target_path),
        )?;
        capability(call.volume_capability.as_ref())?;
        let size = call.capacity_range.map_or(0, |range| range.required_bytes);
        demand(size > 0, format!("{handle} is to have {size} bytes"))?;
        self.expanded.insert(handle.clone(), (size, at.clone(), call.staging_target_path.clone()));
        Ok(())
    }

    pub(crate) fn expanded(&self, handle: &str) -> Option<(i64, String, String)> {
        self.expanded.get(handle).cloned()
    }

    pub(crate) fn unpublish(&mut self, call: &NodeUnpublishVolumeRequest) -> Checked {
        self.below_root(&call.target_path, "target_path")?;
        let target = Path::new(&call.target_path);
        if target.starts_with(self.root.join(DEVICES)) {
            self.device_place(&target.parent().unwrap_or(target).to_string_lossy(), "publish")?;
        } else {
            demand(data_beside(&call.target_path), format!("no vol_data.json beside {}", call.target_path))?;
        }
        self.published.remove(&(call.volume_id.clone(), call.target_path.clone()));
        Ok(())
    }

    pub(crate) fn unstage(&mut self, call: &NodeUnstageVolumeRequest) -> Checked {
        let handle = &call.volume_id;
        demand(
            !self.published.iter().any(|(published, _)| published == handle),
            format!("{handle} is unstaged while it is published"),
        )?;
        let staged = self.staged.get(handle);
        demand(
            staged.is_none_or(|staged| *staged == call.staging_target_path),
            format!("staging_target_path {} is another one", call.staging_target_path),
        )?;
        self.staged.remove(handle);
        Ok(())
    }

    /// A call that went wrong on purpose has done nothing.
    pub(crate) fn undo_publish(&mut self, handle: &str, target: &str) {
        self.published.remove(&(handle.to_owned(), target.to_owned()));
    }
}

/// A volume that is unstaged is mounted nowhere else, by whatever name: the controller detaches it next. A sub-path of a pod that is
/// left is such a mount.
pub(crate) fn shown_nowhere_else(content: &Path, staged: &str, rules: &Rules) -> Checked {
    let here = mountinfo::here().map_err(|error| error.to_string())?;
    let staged = std::fs::canonicalize(staged).unwrap_or_default();
    let Some(own) = here.iter().find(|mount| mount.point == staged) else { return Ok(()) };
    let root = std::fs::canonicalize(&rules.root).unwrap_or_default();
    let left = here.iter().find(|mount| {
        mount.device == own.device
            && mount.root.starts_with(&own.root)
            && mount.point.starts_with(&root)
            && mount.point != staged
            && !mount.point.starts_with(content)
    });
    demand(left.is_none(), format!("unstaged while it is mounted at {left:?}"))
}

/// Whether a file says whose the volume is, as agents that look at a node expect.
fn data_beside(path: &str) -> bool {
    Path::new(path).parent().is_some_and(|folder| folder.join("vol_data.json").is_file())
}
