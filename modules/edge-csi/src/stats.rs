//! What a volume holds, as its driver says it.

use std::time::UNIX_EPOCH;

use contract::csi::CsiFault;
use contract::volume_stats::VolumeUsage;
use csi::v1::node_service_capability::rpc::Type as Capability;
use csi::v1::volume_usage::Unit;
use csi::v1::{NodeGetVolumeStatsRequest, VolumeUsage as Told};

use crate::paths::is_plain;
use crate::state::State;
use crate::words::absent;

const STEP: &str = "GetMetrics";

/// Asks the driver of a pod's volume. No turn of the volume's is waited for or taken: a driver that does not answer here holds up
/// neither the volume's end nor anybody else.
pub(crate) async fn of_volume(
    state: &State,
    pod_uid: &str,
    name: &str,
) -> Result<Option<VolumeUsage>, CsiFault> {
    let fault = |reason: String| CsiFault { step: STEP, reason };
    if !is_plain(pod_uid) || !is_plain(name) {
        return Err(fault("the names of the volume or the pod are not fit for paths".to_owned()));
    }
    let uid = pod_uid.to_owned();
    let volumes = state.on_disk(move |root| root.of_pod(&uid)).await.map_err(fault)?;
    let Some(found) = volumes.into_iter().find(|volume| volume.name == name) else { return Ok(None) };
    let is_block = found.is_block;
    let Some(data) = found.data else { return Ok(None) };
    let driver = state.driver(&data.driver_name).ok_or_else(|| fault(absent(&data.driver_name)))?;
    let can = driver.capabilities().await.map_err(|error| fault(error.to_string()))?;
    if !can.contains(&Capability::GetVolumeStats) {
        return Ok(None);
    }
    let path = match is_block {
        true => state.root.device(name).publish.join(pod_uid),
        false => state.root.volume(pod_uid, name).join("mount"),
    };
    let request = NodeGetVolumeStatsRequest {
        volume_id: data.volume_handle,
        volume_path: path.to_string_lossy().into_owned(),
        // As a kubelet's.
        staging_target_path: String::new(),
    };
    let told = driver.stats(request).await.map_err(|error| fault(error.to_string()))?;
    let at = state.env.wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    usage(&told, i64::try_from(at).unwrap_or(i64::MAX)).map(Some).map_err(fault)
}

/// What a driver says of bytes and inodes. A unit that is not known counts for nothing.
fn usage(told: &[Told], at: i64) -> Result<VolumeUsage, String> {
    if told.is_empty() {
        return Err("failed to get usage from response. usage is nil".to_owned());
    }
    let amount = |value: i64| u64::try_from(value).unwrap_or(0);
    let mut usage = VolumeUsage { at, ..VolumeUsage::default() };
    for one in told {
        let (available, total, used) = (amount(one.available), amount(one.total), amount(one.used));
        match one.unit() {
            Unit::Bytes => (usage.available, usage.capacity, usage.used) = (available, total, used),
            Unit::Inodes => {
                (usage.inodes_free, usage.inodes, usage.inodes_used) = (available, total, used);
            }
            Unit::Unknown => {}
        }
    }
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_inodes_are_told_apart_and_nothing_is_no_answer() {
        let one = |unit: Unit, available, total, used| Told { available, total, used, unit: unit.into() };
        let told = [one(Unit::Inodes, 1, 2, 3), one(Unit::Unknown, 9, 9, 9), one(Unit::Bytes, 4, 5, -6)];
        let expected = VolumeUsage {
            at: 7,
            available: 4,
            capacity: 5,
            used: 0,
            inodes_free: 1,
            inodes: 2,
            inodes_used: 3,
        };
        assert_eq!(usage(&told, 7), Ok(expected));
        assert!(usage(&[], 7).unwrap_err().contains("usage is nil"));
    }
}
