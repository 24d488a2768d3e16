//! Making what is on a volume as large as the volume is.

use std::collections::BTreeMap;
use std::rc::Rc;

use contract::csi::{CsiVolume, ExpandFault};
use csi::CallError;
use csi::v1::node_service_capability::rpc::Type as Capability;

use crate::events;
use crate::paths::VolumeId;
use crate::plan;
use crate::state::State;
use crate::volumes::check;
use crate::words::{absent, text};

/// Asks the driver, unless it was asked for that size and did it. Answers whether it was asked.
pub(crate) async fn of_volume(
    state: &Rc<State>,
    volume: &CsiVolume,
    size: i64,
    secrets: BTreeMap<String, String>,
) -> Result<bool, ExpandFault> {
    check(volume).map_err(|fault| ExpandFault::Failed(fault.reason))?;
    let device = volume.is_block.then(|| volume.name.clone());
    let id = VolumeId { driver: volume.driver.clone(), handle: volume.handle.clone(), device };
    let turn = state.turn(&id).await;
    if state.expanded.borrow().get(&id).is_some_and(|reached| *reached >= size) {
        return Ok(false);
    }
    // Of a driver that is not there, and of what may have happened, nobody knows.
    let driver =
        state.driver(&volume.driver).ok_or_else(|| ExpandFault::Uncertain(absent(&volume.driver)))?;
    let can = driver.capabilities().await.map_err(|error| ExpandFault::Uncertain(error.to_string()))?;
    if !can.contains(&Capability::ExpandVolume) {
        return Err(ExpandFault::NotSupported);
    }
    let (staged, at) = match volume.is_block {
        true => {
            let places = state.root.device(&volume.name);
            (places.staging, places.publish.join(&volume.pod_uid))
        }
        false => (
            state.root.global_mount(&volume.driver, &volume.handle),
            state.root.volume(&volume.pod_uid, &volume.name).join("mount"),
        ),
    };
    let both = text(&staged).and_then(|staged| Ok((staged, text(&at)?))).map_err(ExpandFault::Failed)?;
    let request = plan::expand_request(volume, &can, size, &secrets, both);
    let expanded = state.call_in(&turn, &driver, |driver| async move { driver.expand(request).await }).await;
    expanded.map_err(|error| fault(&error))?;
    events::volume_expanded(&state.env, &volume.driver, &volume.handle, size);
    state.expanded.borrow_mut().insert(id, size);
    Ok(true)
}

fn fault(error: &CallError) -> ExpandFault {
    let words = error.to_string();
    match error.code() {
        "InvalidArgument" | "OutOfRange" | "NotFound" => ExpandFault::Infeasible(words),
        "FailedPrecondition" => ExpandFault::InUse(words),
        _ if error.is_uncertain() => ExpandFault::Uncertain(words),
        _ => ExpandFault::Failed(words),
    }
}
