//! Volumes that pods have as block devices: staged and published without a file system, as a kubelet does it
//! (`pkg/volume/csi/csi_block.go`).
//!
//! The pod's link is made before the driver is asked and removed after its last answer: by it alone a volume is found and undone by
//! whoever comes next.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::rc::Rc;

use apimachinery::volume::attachment_name;
use contract::csi::{CsiFault, CsiMounted, CsiVolume};
use csi::Driver;
use csi::v1::node_service_capability::rpc::Type as Capability;
use csi::v1::{NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest};

use crate::error::FileError;
use crate::events;
use crate::paths::{self, DevicePlaces, PodVolume, VolData, VolumeId};
use crate::plan;
use crate::state::{State, Turn};
use crate::words::{NEEDLESS, absent, fault, gone_is_fine, text};

const SET_UP: &str = "MapVolume.SetUpDevice";
const MAP: &str = "MapVolume.MapPodDevice";

/// Gives a pod a device. Its turn is the caller's. `is_needless`: see [`crate::volumes::mount`].
pub(crate) async fn map(
    state: &State,
    volume: &CsiVolume,
    (id, turn): (&VolumeId, &Turn),
    (is_again, is_needless): (bool, &impl Fn() -> bool),
) -> Result<CsiMounted, CsiFault> {
    let driver = state.driver(&volume.driver).ok_or_else(|| {
        let why = absent(&volume.driver);
        fault(SET_UP, format!("kubernetes.io/csi: blockMapper.SetUpDevice failed to get CSI client: {why}"))
    })?;
    let can = driver.capabilities().await.map_err(|error| fault(SET_UP, error))?;
    let places = state.root.device(&volume.name);
    stage(state, &driver, volume, (id, turn), (&places, &can))
        .await
        .map_err(|reason| fault(SET_UP, reason))?;
    if is_needless() {
        return Err(fault(MAP, NEEDLESS));
    }
    publish(state, &driver, volume, (&places, &can), (turn, is_again, is_needless))
        .await
        .map_err(|reason| fault(MAP, reason))?;
    Ok(CsiMounted { has_group: false, is_new: !is_again })
}

async fn stage(
    state: &State,
    driver: &Driver,
    volume: &CsiVolume,
    (id, turn): (&VolumeId, &Turn),
    (places, can): (&DevicePlaces, &[Capability]),
) -> Result<(), String> {
    let data = VolData {
        spec_vol_id: volume.name.clone(),
        volume_handle: volume.handle.clone(),
        driver_name: volume.driver.clone(),
        node_name: state.node.clone(),
        attachment_id: attachment_name(&volume.handle, &volume.driver, &state.node),
        ..VolData::default()
    };
    let at = places.data.clone();
    state.on_disk_in(turn, move |_| paths::begin(&at, &data)).await?;
    state.set_in_use(id, true);
    if !can.contains(&Capability::StageUnstageVolume) || state.staged.borrow().contains(id) {
        return Ok(());
    }
    let staging = places.staging.clone();
    state.on_disk_in(turn, move |_| paths::make(&staging)).await?;
    let request = plan::stage_request(volume, can, text(&places.staging)?);
    if let Err(error) = state.call_in(turn, driver, |driver| async move { driver.stage(request).await }).await
    {
        if !error.is_uncertain() {
            let places = places.clone();
            // Should another pod have it, or something be mounted, it stays and is unstaged later.
            let _kept = state.on_disk_in(turn, move |_| end(&places)).await;
        }
        return Err(error.to_string());
    }
    events::volume_staged(&state.env, &volume.driver, &volume.handle);
    state.staged.borrow_mut().insert(id.clone());
    Ok(())
}

async fn publish(
    state: &State,
    driver: &Driver,
    volume: &CsiVolume,
    (places, can): (&DevicePlaces, &[Capability]),
    (turn, is_again, is_needless): (&Turn, bool, &impl Fn() -> bool),
) -> Result<(), String> {
    let (target, link) = (places.publish.join(&volume.pod_uid), state.root.pod_device(volume));
    let (folder, own_link, own_target) = (places.publish.clone(), link.clone(), target.clone());
    let was_there = state
        .on_disk_in(turn, move |_| {
            paths::make(&folder)?;
            let was_there = fs::symlink_metadata(&own_target).is_ok();
            make_link(&own_link, &own_target).map(|()| was_there)
        })
        .await?;
    // Looked at behind the link that says whose it is: who unmaps has either seen it or said that it is over.
    if is_needless() {
        if !is_again && !was_there {
            state.on_disk_in(turn, move |_| unlink(&link)).await?;
        }
        return Err(NEEDLESS.to_owned());
    }
    let request = plan::publish_request(volume, can, text(&places.staging)?, text(&target)?);
    let published = state.call_in(turn, driver, |driver| async move { driver.publish(request).await }).await;
    if let Err(error) = published {
        if !error.is_uncertain() && !is_again && !was_there {
            let _kept = state.on_disk_in(turn, move |_| unlink(&link)).await;
        }
        return Err(error.to_string());
    }
    let shown = target.display().to_string();
    // A link may lead to it.
    let is_device = move |_| Ok(fs::metadata(&target).is_ok_and(|found| found.file_type().is_block_device()));
    if !state.on_disk_in(turn, is_device).await? {
        let driver = &volume.driver;
        return Err(format!(
            "driver {driver} says that it published the volume, and {shown} is no block device"
        ));
    }
    if !is_again {
        events::volume_published(&state.env, &volume.driver, &volume.handle, &volume.pod_uid);
    }
    Ok(())
}

/// The pod's link to the device, made anew where it leads elsewhere.
fn make_link(link: &Path, target: &Path) -> Result<(), FileError> {
    if let Some(folder) = link.parent() {
        paths::make(folder)?;
    }
    if fs::read_link(link).is_ok_and(|found| found == target) {
        return Ok(());
    }
    unlink(link)?;
    std::os::unix::fs::symlink(target, link).map_err(|error| FileError::new("make link", link, &error))
}

fn unlink(link: &Path) -> Result<(), FileError> {
    paths::remove(link, fs::remove_file(link))
}

/// Takes the device from a pod again.
pub(crate) async fn unmap(state: &Rc<State>, volume: &PodVolume) -> Result<(), String> {
    let (places, link) = (state.root.device(&volume.name), state.root.pod_device_of(volume));
    let Some(data) = volume.data.clone() else {
        // Nothing says whose it was: it was never given to a driver, or is undone already.
        return state.on_disk(move |_| unlink(&link)).await;
    };
    let id = data.id(Some(&volume.name));
    let turn = state.turn(&id).await;
    let (place, own) = ((volume.pod_uid.clone(), volume.name.clone()), link.clone());
    // A mount that heard of the end has undone what it began.
    if !state.on_disk_in(&turn, move |_| Ok(fs::symlink_metadata(&own).is_ok())).await? {
        state.published.borrow_mut().remove(&place);
        return Ok(());
    }
    let driver = state.driver(&data.driver_name).ok_or_else(|| {
        format!(
            "kubernetes.io/csi: blockMapper.UnmapPodDevice failed to get CSI client: {}",
            absent(&data.driver_name)
        )
    })?;
    let target = places.publish.join(&volume.pod_uid);
    let request =
        NodeUnpublishVolumeRequest { volume_id: data.volume_handle.clone(), target_path: text(&target)? };
    let unpublished =
        state.call_in(&turn, &driver, |driver| async move { driver.unpublish(request).await }).await;
    unpublished.or_else(gone_is_fine).map_err(|error| error.to_string())?;
    state
        .on_disk_in(&turn, move |_| {
            if paths::is_mounted(&target)? {
                return Err(FileError::new("remove", &target, &"it is still mounted"));
            }
            paths::remove(&target, fs::remove_file(&target))?;
            unlink(&link)
        })
        .await?;
    state.published.borrow_mut().remove(&place);
    events::volume_unpublished(&state.env, &data.driver_name, &data.volume_handle, &volume.pod_uid);
    drop(turn);
    state.release(id);
    Ok(())
}

/// Unstages a device that no pod has any more, as its caller has made sure in its turn.
pub(crate) async fn release(state: &State, (id, turn): (&VolumeId, &Turn), name: &str) -> Result<(), String> {
    let places = state.root.device(name);
    let staging = places.staging.clone();
    if state.on_disk_in(turn, move |_| Ok(staging.is_dir())).await? {
        let driver = state.driver(&id.driver).ok_or_else(|| absent(&id.driver))?;
        let can = driver.capabilities().await.map_err(|error| error.to_string())?;
        if can.contains(&Capability::StageUnstageVolume) {
            let request = NodeUnstageVolumeRequest {
                volume_id: id.handle.clone(),
                staging_target_path: text(&places.staging)?,
            };
            let unstaged =
                state.call_in(turn, &driver, |driver| async move { driver.unstage(request).await }).await;
            unstaged.or_else(gone_is_fine).map_err(|error| error.to_string())?;
        }
    }
    state.on_disk_in(turn, move |_| end(&places)).await?;
    events::volume_unstaged(&state.env, &id.driver, &id.handle);
    Ok(())
}

/// Removes what was made for a device, folder by folder, last what says whose it was. No folder goes that is not empty.
fn end(places: &DevicePlaces) -> Result<(), FileError> {
    for folder in [&places.publish, &places.staging] {
        paths::remove(folder, fs::remove_dir(folder))?;
    }
    // There is nothing in it but what says whose it is.
    paths::end(&places.data, "dev")?;
    paths::remove(&places.top, fs::remove_dir(&places.top))
}
