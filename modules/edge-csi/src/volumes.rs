//! Staging, publishing, and their reverse.

use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;

use apimachinery::volume::attachment_name;
use contract::csi::{CsiFault, CsiMounted, CsiVolume};
use contract::csi_node::is_driver_name;
use csi::Driver;
use csi::v1::node_service_capability::rpc::Type as Capability;
use csi::v1::{NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest};
use futures::future::join_all;

use crate::paths::{self, PodVolume, VolData, VolumeId, is_plain};
use crate::plan;
use crate::state::State;
use crate::words::{absent, fault, gone_is_fine, text};
use crate::{devices, events};

const MOUNT_DEVICE: &str = "MountVolume.MountDevice";
const SET_UP: &str = "MountVolume.SetUp";
const TEAR_DOWN: &str = "UnmountVolume.TearDown";

/// Mounts a volume for a pod.
pub(crate) async fn mount(state: Rc<State>, volume: CsiVolume) -> Result<CsiMounted, CsiFault> {
    check(&volume)?;
    let device = volume.is_block.then(|| volume.name.clone());
    let id = VolumeId { driver: volume.driver.clone(), handle: volume.handle.clone(), device };
    let _turn = state.turn(&id).await;
    let place = (volume.pod_uid.clone(), volume.name.clone());
    let before = state.published.borrow().get(&place).copied();
    if let Some(mounted) = before.filter(|_| !volume.republish) {
        return Ok(CsiMounted { is_new: false, ..mounted });
    }
    if volume.is_block {
        let mapped = devices::map(&state, &volume, &id, before.is_some()).await?;
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
        stage(&state, driver, &volume, &id).await.map_err(|reason| fault(MOUNT_DEVICE, reason))?
    };
    let Some(driver) = driver else {
        let why = absent(&volume.driver);
        let why = format!("kubernetes.io/csi: mounter.SetUpAt failed to get CSI client: {why}");
        return Err(fault(SET_UP, why));
    };
    let mounted = publish(&state, &driver, &volume, staged, before.is_some())
        .await
        .map_err(|reason| fault(SET_UP, reason))?;
    state.published.borrow_mut().insert(place, mounted);
    Ok(mounted)
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
    state: &Rc<State>,
    driver: &Driver,
    volume: &CsiVolume,
    id: &VolumeId,
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
    state.on_disk(move |_| paths::begin(&own, &data).and_then(|()| paths::make(&at))).await?;
    match driver.stage(plan::stage_request(volume, &can, path.clone())).await {
        Ok(()) => {
            events::volume_staged(&state.env, &volume.driver, &volume.handle);
            state.staged.borrow_mut().insert(id.clone());
            Ok(path)
        }
        Err(error) => {
            if !error.is_uncertain() {
                // Nothing is there. Should something be mounted all the same, the folder stays and is unstaged later.
                let _kept = state.on_disk(move |_| paths::end(&folder, "globalmount")).await;
            }
            Err(error.to_string())
        }
    }
}

/// Shows a volume to its pod.
async fn publish(
    state: &Rc<State>,
    driver: &Driver,
    volume: &CsiVolume,
    staged: String,
    is_again: bool,
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
    let was_mounted =
        state.on_disk(move |_| paths::begin(&own, &data).and_then(|()| paths::is_mounted(&point))).await?;
    let request = plan::publish_request(volume, &can, staged, path);
    if let Err(error) = driver.publish(request).await {
        if !error.is_uncertain() && !is_again && !was_mounted {
            let _kept = state.on_disk(move |_| paths::end(&folder, "mount")).await;
        }
        return Err(error.to_string());
    }
    let is_there = state.on_disk(move |_| Ok(is_folder(&at))).await?;
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

fn is_folder(at: &Path) -> bool {
    std::fs::symlink_metadata(at).is_ok_and(|found| found.is_dir())
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
    if !volume.is_block {
        return unmount_one(state, volume).await;
    }
    if let Some(id) = devices::unmap(state, volume).await? {
        release_beside(state, id);
    }
    Ok(())
}

async fn unmount_one(state: &Rc<State>, volume: &PodVolume) -> Result<(), String> {
    let folder = state.root.volume(&volume.pod_uid, &volume.name);
    let Some(data) = volume.data.clone() else {
        // Made, and never given to a driver.
        let why = format!("{} has no vol_data.json that can be read", folder.display());
        return state
            .on_disk(move |_| paths::end(&folder, "mount"))
            .await
            .map_err(|error| format!("{why}: {error}"));
    };
    let id = data.id(None);
    let turn = state.turn(&id).await;
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
    driver.unpublish(request).await.or_else(gone_is_fine).map_err(|error| error.to_string())?;
    state.on_disk(move |_| paths::end(&folder, "mount")).await?;
    state.published.borrow_mut().remove(&(volume.pod_uid.clone(), volume.name.clone()));
    events::volume_unpublished(&state.env, &data.driver_name, &data.volume_handle, &volume.pod_uid);
    drop(turn);
    if !data.is_inline() {
        release_beside(state, id);
    }
    Ok(())
}

/// Unstages a volume if no pod has it any more, in a task of its own.
pub(crate) fn release_beside(state: &Rc<State>, id: VolumeId) {
    if !state.releasing.borrow_mut().insert(id.clone()) {
        return;
    }
    let state = Rc::clone(state);
    let env = state.env.clone();
    env.spawn(async move {
        let turn = state.turn(&id).await;
        // From here on another pod's end is news.
        state.releasing.borrow_mut().remove(&id);
        if let Err(reason) = try_release(&state, &id).await {
            events::volume_not_unstaged(&state.env, &id.driver, &id.handle, &reason);
        }
        drop(turn);
    });
}

async fn try_release(state: &Rc<State>, id: &VolumeId) -> Result<(), String> {
    let wanted = id.clone();
    let has_it = move |volume: &PodVolume| {
        volume.data.as_ref().is_some_and(|data| {
            let device = volume.is_block.then_some(volume.name.as_str());
            !data.is_inline() && data.id(device) == wanted
        })
    };
    if state.on_disk(move |root| Ok(root.of_pods()?.iter().any(has_it))).await? {
        return Ok(());
    }
    let wanted = id.clone();
    if state.on_disk(move |root| Ok(root.staged()?.contains(&wanted))).await? {
        if let Some(name) = &id.device {
            devices::release(state, id, name).await?;
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
            driver.unstage(request).await.or_else(gone_is_fine).map_err(|error| error.to_string())?;
        }
        let folder = state.root.stage(&id.driver, &id.handle);
        state.on_disk(move |_| paths::end(&folder, "globalmount")).await?;
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
            let id = |volume: PodVolume| {
                let data = volume.data.filter(|data| !data.is_inline())?;
                Some(data.id(volume.is_block.then_some(volume.name.as_str())))
            };
            all.extend(root.of_pods()?.into_iter().filter_map(id));
            Ok(all)
        })
        .await
}
