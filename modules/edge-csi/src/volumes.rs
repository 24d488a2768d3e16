//! Staging, publishing, and their reverse.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::rc::Rc;

use apimachinery::volume::attachment_name;
use contract::csi::{AccessMode, CsiFault, CsiMounted, CsiVolume};
use contract::csi_node::is_driver_name;
use csi::Driver;
use csi::v1::node_service_capability::rpc::Type as Capability;
use csi::v1::{NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest};
use futures::future::join_all;

use crate::error::FileError;
use crate::paths::{self, PodVolume, Root, VolData, VolumeId, is_plain};
use crate::plan;
use crate::state::{State, Turn};
use crate::words::{NEEDLESS, absent, fault, gone_is_fine, text};
use crate::{devices, events};

const MOUNT_DEVICE: &str = "MountVolume.MountDevice";
const SET_UP: &str = "MountVolume.SetUp";
const TEAR_DOWN: &str = "UnmountVolume.TearDown";

/// Mounts a volume for a pod. `is_needless`: it is over with the pod's volumes, or who asked has given up; asked before each call, so
/// that nothing is mounted behind the pod's end.
pub(crate) async fn mount(
    state: Rc<State>,
    volume: CsiVolume,
    is_needless: impl Fn() -> bool,
) -> Result<CsiMounted, CsiFault> {
    check(&volume)?;
    let device = volume.is_block.then(|| volume.name.clone());
    let id = VolumeId { driver: volume.driver.clone(), handle: volume.handle.clone(), device };
    let turn = state.turn(&id).await;
    if is_needless() {
        return Err(fault(SET_UP, NEEDLESS));
    }
    let place = (volume.pod_uid.clone(), volume.name.clone());
    let before = state.published.borrow().get(&place).copied();
    if let Some(mounted) = before.filter(|_| !volume.republish) {
        return Ok(CsiMounted { is_new: false, ..mounted });
    }
    if volume.access_mode == AccessMode::ReadWriteOncePod && !volume.is_inline {
        has_no_other(&state, &turn, (&id, &volume.pod_uid)).await.map_err(|reason| fault(SET_UP, reason))?;
    }
    if volume.is_block {
        let mapped = devices::map(&state, &volume, (&id, &turn), (before.is_some(), &is_needless)).await;
        let mapped = mapped?;
        state.published.borrow_mut().insert(place, mapped);
        return Ok(mapped);
    }
    let driver = state.driver(&volume.driver);
    let staged = if volume.is_inline {
        String::new()
    } else {
        let Some(driver) = &driver else {
            let why = absent(&volume.driver);
            return Err(fault(
                MOUNT_DEVICE,
                format!("kubernetes.io/csi: attacher.MountDevice failed to create newCsiDriverClient: {why}"),
            ));
        };
        stage(&state, driver, &volume, (&id, &turn)).await.map_err(|reason| fault(MOUNT_DEVICE, reason))?
    };
    if is_needless() {
        return Err(fault(SET_UP, NEEDLESS));
    }
    let Some(driver) = driver else {
        let why = absent(&volume.driver);
        let why = format!("kubernetes.io/csi: mounter.SetUpAt failed to get CSI client: {why}");
        return Err(fault(SET_UP, why));
    };
    let published =
        publish(&state, &driver, &volume, (staged, before.is_some()), (&turn, &is_needless)).await;
    let mounted = published.map_err(|reason| fault(SET_UP, reason))?;
    state.published.borrow_mut().insert(place, mounted);
    Ok(mounted)
}

/// What no second pod may use is used by none.
async fn has_no_other(state: &State, turn: &Turn, (id, pod_uid): (&VolumeId, &str)) -> Result<(), String> {
    let (wanted, own) = (id.clone(), pod_uid.to_owned());
    let is_others = move |found: &PodVolume| found.pod_uid != own && found.id().as_ref() == Some(&wanted);
    match state.on_disk_in(turn, move |root| Ok(root.of_pods()?.iter().any(is_others))).await? {
        true => {
            Err("volume uses the ReadWriteOncePod access mode and is already in use by another pod"
                .to_owned())
        }
        false => Ok(()),
    }
}

/// The names become parts of paths.
pub(crate) fn check(volume: &CsiVolume) -> Result<(), CsiFault> {
    let named = is_driver_name(&volume.driver) && is_plain(&volume.name) && is_plain(&volume.pod_uid);
    if !named || volume.handle.is_empty() {
        let words = "the names of the driver, the volume or the pod are not fit for paths, or the volume has no handle";
        return Err(fault(SET_UP, words));
    }
    Ok(())
}

/// Stages a volume for the node, unless this incarnation has. Answers where; nothing where the driver does not stage.
async fn stage(
    state: &State,
    driver: &Driver,
    volume: &CsiVolume,
    (id, turn): (&VolumeId, &Turn),
) -> Result<String, String> {
    let can = driver.capabilities().await.map_err(|error| error.to_string())?;
    let folder = state.root.stage(&volume.driver, &volume.handle);
    let at = state.root.global_mount(&volume.driver, &volume.handle);
    let path = text(&at)?;
    state.set_in_use(id, true);
    if !can.contains(&Capability::StageUnstageVolume) {
        return Ok(String::new());
    }
    if state.staged.borrow().contains(id) {
        return Ok(path);
    }
    let data = VolData {
        volume_handle: volume.handle.clone(),
        driver_name: volume.driver.clone(),
        ..VolData::default()
    };
    let own = folder.clone();
    state.on_disk_in(turn, move |_| paths::begin(&own, &data).and_then(|()| paths::make(&at))).await?;
    let request = plan::stage_request(volume, &can, path.clone());
    match state.call_in(turn, driver, |driver| async move { driver.stage(request).await }).await {
        Ok(()) => {
            events::volume_staged(&state.env, &volume.driver, &volume.handle);
            state.staged.borrow_mut().insert(id.clone());
            Ok(path)
        }
        Err(error) => {
            if !error.is_uncertain() {
                // Nothing is there. Should something be mounted all the same, the folder stays and is unstaged later.
                let _kept = state.on_disk_in(turn, move |_| paths::end(&folder, "globalmount")).await;
            }
            Err(error.to_string())
        }
    }
}

/// Shows a volume to its pod. `staged`: where it is, if the driver stages.
async fn publish(
    state: &State,
    driver: &Driver,
    volume: &CsiVolume,
    (staged, is_again): (String, bool),
    (turn, is_needless): (&Turn, &impl Fn() -> bool),
) -> Result<CsiMounted, String> {
    let can = driver.capabilities().await.map_err(|error| error.to_string())?;
    let folder = state.root.volume(&volume.pod_uid, &volume.name);
    let at = folder.join("mount");
    let path = text(&at)?;
    let data = VolData {
        spec_vol_id: volume.name.clone(),
        volume_handle: volume.handle.clone(),
        driver_name: volume.driver.clone(),
        node_name: state.node.clone(),
        volume_lifecycle_mode: if volume.is_inline { "Ephemeral" } else { "Persistent" }.to_owned(),
        attachment_id: attachment_name(&volume.handle, &volume.driver, &state.node),
    };
    // A container that runs sees a mount that is there: it is never taken away for an error of a later call.
    let (own, point) = (folder.clone(), at.clone());
    let was_mounted = state
        .on_disk_in(turn, move |_| paths::begin(&own, &data).and_then(|()| paths::is_mounted(&point)))
        .await?;
    // Looked at behind the file that says whose it is: who unmounts has either seen it or said that it is over.
    if is_needless() {
        if !is_again && !was_mounted {
            state.on_disk_in(turn, move |_| paths::end(&folder, "mount")).await?;
        }
        return Err(NEEDLESS.to_owned());
    }
    let request = plan::publish_request(volume, &can, staged, path);
    let published = state.call_in(turn, driver, |driver| async move { driver.publish(request).await }).await;
    if let Err(error) = published {
        if !error.is_uncertain() && !is_again && !was_mounted {
            let _kept = state.on_disk_in(turn, move |_| paths::end(&folder, "mount")).await;
        }
        return Err(error.to_string());
    }
    let is_there = state.on_disk_in(turn, move |_| paths::has_folder(&at)).await?;
    if !is_there {
        return Err(format!(
            "driver {} says that it published the volume, and made no folder for it",
            volume.driver
        ));
    }
    if !is_again {
        events::volume_published(&state.env, &volume.driver, &volume.handle, &volume.pod_uid);
    }
    Ok(CsiMounted { has_group: can.contains(&Capability::VolumeMountGroup), is_new: !is_again })
}

/// Unmounts the volumes of a pod that are on the disk. What nobody has any more is unstaged then, beside whoever asks.
pub(crate) async fn unmount(state: Rc<State>, pod_uid: String) -> Result<(), CsiFault> {
    if !is_plain(&pod_uid) {
        return Err(fault(TEAR_DOWN, "the pod's uid is not fit for a path"));
    }
    let uid = pod_uid.clone();
    let found = state.on_disk(move |root| root.of_pod(&uid)).await;
    let found = found.map_err(|reason| fault(TEAR_DOWN, reason))?;
    // Beside each other: a driver that hangs holds up its own.
    let ends = join_all(found.iter().map(|volume| end_one(&state, volume))).await;
    ends.into_iter().collect::<Result<(), String>>().map_err(|reason| fault(TEAR_DOWN, reason))
}

async fn end_one(state: &Rc<State>, volume: &PodVolume) -> Result<(), String> {
    if volume.is_block { devices::unmap(state, volume).await } else { unmount_one(state, volume).await }
}

async fn unmount_one(state: &Rc<State>, volume: &PodVolume) -> Result<(), String> {
    let folder = state.root.volume(&volume.pod_uid, &volume.name);
    let Some(data) = volume.data.clone() else {
        // Made, and never given to a driver.
        let why = format!("{} has no vol_data.json that can be read", folder.display());
        return state
            .on_disk(move |_| paths::end_nobodys(&folder, "mount"))
            .await
            .map_err(|error| format!("{why}: {error}"));
    };
    let id = data.id(None);
    let turn = state.turn(&id).await;
    let place = (volume.pod_uid.clone(), volume.name.clone());
    let own = folder.clone();
    // A mount that heard of the end has undone what it began.
    if !state.on_disk_in(&turn, move |_| paths::has_folder(&own)).await? {
        state.published.borrow_mut().remove(&place);
        return Ok(());
    }
    let driver = state.driver(&data.driver_name).ok_or_else(|| {
        format!(
            "kubernetes.io/csi: Unmounter.TearDownAt failed to get CSI client: {}",
            absent(&data.driver_name)
        )
    })?;
    let request = NodeUnpublishVolumeRequest {
        volume_id: data.volume_handle.clone(),
        target_path: text(&folder.join("mount"))?,
    };
    let unpublished =
        state.call_in(&turn, &driver, |driver| async move { driver.unpublish(request).await }).await;
    unpublished.or_else(gone_is_fine).map_err(|error| error.to_string())?;
    state.on_disk_in(&turn, move |_| paths::end(&folder, "mount")).await?;
    state.published.borrow_mut().remove(&place);
    events::volume_unpublished(&state.env, &data.driver_name, &data.volume_handle, &volume.pod_uid);
    drop(turn);
    if !data.is_inline() {
        state.release(id);
    }
    Ok(())
}

/// Unstages a volume if no pod has it any more.
pub(crate) async fn release(state: Rc<State>, id: VolumeId) {
    let turn = state.turn(&id).await;
    // From here on another pod's end is news.
    state.releasing.borrow_mut().remove(&id);
    if let Err(reason) = try_release(&state, &id, &turn).await {
        events::volume_not_unstaged(&state.env, &id.driver, &id.handle, &reason);
    }
}

/// Who has a volume, by the disk.
#[derive(Debug, PartialEq, Eq)]
enum Users {
    None,
    Some,
    /// Perhaps the pod of this mount, of which nothing says what it is.
    Unknown(PathBuf),
}

fn users(root: &Root, id: &VolumeId) -> Result<Users, FileError> {
    let mut found = Users::None;
    for volume in root.of_pods()? {
        if volume.id().as_ref() == Some(id) {
            return Ok(Users::Some);
        }
        let point = root.volume(&volume.pod_uid, &volume.name).join("mount");
        if volume.data.is_none() && !volume.is_block && paths::is_mounted(&point)? {
            found = Users::Unknown(point);
        }
    }
    Ok(found)
}

async fn try_release(state: &State, id: &VolumeId, turn: &Turn) -> Result<(), String> {
    let wanted = id.clone();
    match state.on_disk_in(turn, move |root| users(&root, &wanted)).await? {
        Users::None => {}
        Users::Some => return Ok(()),
        Users::Unknown(point) => {
            return Err(format!("{} is mounted, and nothing says which volume that is", point.display()));
        }
    }
    let wanted = id.clone();
    if state.on_disk_in(turn, move |root| Ok(root.staged()?.contains(&wanted))).await? {
        if let Some(name) = &id.device {
            devices::release(state, (id, turn), name).await?;
            state.staged.borrow_mut().remove(id);
            state.set_in_use(id, false);
            return Ok(());
        }
        let driver = state.driver(&id.driver).ok_or_else(|| absent(&id.driver))?;
        let can = driver.capabilities().await.map_err(|error| error.to_string())?;
        if can.contains(&Capability::StageUnstageVolume) {
            let request = NodeUnstageVolumeRequest {
                volume_id: id.handle.clone(),
                staging_target_path: text(&state.root.global_mount(&id.driver, &id.handle))?,
            };
            let unstaged =
                state.call_in(turn, &driver, |driver| async move { driver.unstage(request).await }).await;
            unstaged.or_else(gone_is_fine).map_err(|error| error.to_string())?;
        }
        let folder = state.root.stage(&id.driver, &id.handle);
        state.on_disk_in(turn, move |_| paths::end(&folder, "globalmount")).await?;
        events::volume_unstaged(&state.env, &id.driver, &id.handle);
    }
    state.staged.borrow_mut().remove(id);
    state.expanded.borrow_mut().remove(id);
    state.set_in_use(id, false);
    Ok(())
}

/// What is staged or in use by the disk, for who begins, and for who looks after what could not be unstaged.
pub(crate) async fn on_disk(state: &State) -> Result<BTreeSet<VolumeId>, String> {
    state
        .on_disk(|root| {
            let mut all = root.staged()?;
            all.extend(root.of_pods()?.iter().filter_map(PodVolume::id));
            Ok(all)
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only root can mount.
    #[test]
    fn a_volume_that_nothing_speaks_of_may_be_anybodys_while_it_is_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root(dir.path().to_owned());
        let id = VolumeId { driver: "d.io".to_owned(), handle: "h".to_owned(), device: None };
        let folder = root.volume("u", "pv");
        paths::make(&folder.join("mount")).unwrap();
        assert_eq!(users(&root, &id).unwrap(), Users::None);
        if rustix::mount::mount_bind(dir.path(), folder.join("mount")).is_err() {
            return;
        }
        assert_eq!(users(&root, &id).unwrap(), Users::Unknown(folder.join("mount")));
        let data = VolData {
            driver_name: id.driver.clone(),
            volume_handle: id.handle.clone(),
            ..VolData::default()
        };
        paths::begin(&root.volume("v", "pv"), &data).unwrap();
        assert_eq!(users(&root, &id).unwrap(), Users::Some);
        // It is undone by ourselves when its pod goes.
        paths::end_nobodys(&folder, "mount").unwrap();
        assert!(!folder.exists() && dir.path().join("pods").exists());
    }
}
