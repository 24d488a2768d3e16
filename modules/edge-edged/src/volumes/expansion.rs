//! Whether what is on a claim's volume has to become larger, and what becomes of it. Pure (kubelet:
//! `pkg/volume/util/operationexecutor/node_expander.go`).

use std::collections::BTreeMap;

use apimachinery::Quantity;
use contract::UpReport;
use contract::csi::ExpandFault;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;

const STORAGE: &str = "storage";
const PENDING: &str = "NodeResizePending";
const IN_PROGRESS: &str = "NodeResizeInProgress";

/// A claim's volume that is to become larger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expansion {
    namespace: String,
    claim: String,
    uid: String,
    /// As the claim or its volume says it.
    size: String,
    pub(crate) bytes: i64,
    /// Nobody has said yet that the node has begun.
    pub(crate) is_pending: bool,
    /// For the driver, or why they are not known.
    pub(crate) secrets: Result<BTreeMap<String, String>, String>,
}

fn bytes(amount: Option<&Amount>) -> Option<i64> {
    amount?.0.parse::<Quantity>().ok().map(Quantity::units)
}

/// Whether a volume is to become larger; the secrets are the caller's to find.
pub(crate) fn wanted(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<Expansion> {
    let status = claim.status.as_ref()?;
    let of_claim = status.capacity.as_ref().and_then(|capacity| capacity.get(STORAGE));
    let of_volume = volume.spec.as_ref()?.capacity.as_ref()?.get(STORAGE)?;
    if bytes(of_claim).unwrap_or(0) >= bytes(Some(of_volume))? {
        return None;
    }
    let allocated = status.allocated_resources.as_ref().and_then(|all| all.get(STORAGE));
    let state = status.allocated_resource_statuses.as_ref().and_then(|all| all.get(STORAGE));
    let size = match (state.map(String::as_str), allocated) {
        // An older resizer says nothing of what it gives.
        (None, None) => of_volume,
        (Some(PENDING | IN_PROGRESS), Some(allocated)) => allocated,
        // The controller has not come so far, or it can never be.
        _ => return None,
    };
    Some(Expansion {
        namespace: claim.metadata.namespace.clone().unwrap_or_default(),
        claim: claim.metadata.name.clone().unwrap_or_default(),
        uid: claim.metadata.uid.clone().unwrap_or_default(),
        size: size.0.clone(),
        bytes: bytes(Some(size))?,
        is_pending: state.is_some_and(|state| state == PENDING),
        secrets: Ok(BTreeMap::new()),
    })
}

impl Expansion {
    /// With what its driver is given.
    pub(crate) fn with(self, secrets: Result<BTreeMap<String, String>, String>) -> Expansion {
        Expansion { secrets, ..self }
    }

    /// Says how far it is.
    pub(crate) fn report(&self, state: &str, message: &str) -> UpReport {
        let cut = message.floor_char_boundary(contract::parsed::EXPANSION_MAX);
        UpReport::ClaimExpansion {
            namespace: self.namespace.clone(),
            name: self.claim.clone(),
            uid: self.uid.clone(),
            size: self.size.clone(),
            state: state.to_owned(),
            message: message.get(..cut).unwrap_or_default().to_owned(),
        }
    }
}

/// What is done about a volume that has not become larger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    /// The state that is reported; `None`: nobody knows.
    pub(crate) state: Option<&'static str>,
    /// Why, in the kubelet's words.
    pub(crate) why: String,
    pub(crate) is_tried_again: bool,
}

/// What an answer comes to.
pub(crate) fn failed(driver: &str, fault: ExpandFault) -> Failed {
    let (state, why, is_tried_again) = match fault {
        ExpandFault::NotSupported => {
            (Some("Failed"), format!("NodeExpand is not supported by the CSI driver {driver}"), true)
        }
        ExpandFault::Infeasible(why) => {
            (Some("Infeasible"), format!("Expander.NodeExpand failed to expand the volume {why}"), false)
        }
        ExpandFault::InUse(why) => {
            (Some("Failed"), format!("Expander.NodeExpand failed to expand the volume : {why}"), false)
        }
        ExpandFault::Failed(why) => {
            (Some("Failed"), format!("Expander.NodeExpand failed to expand the volume : {why}"), true)
        }
        ExpandFault::Uncertain(why) => {
            (None, format!("Expander.NodeExpand failed to expand the volume : {why}"), true)
        }
    };
    Failed { state, why, is_tried_again }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(status: Value, size: &str) -> Option<Expansion> {
        let claim = json!({"metadata": {"namespace": "d", "name": "data", "uid": "c1"}, "status": status});
        let volume = json!({"metadata": {"name": "pv"}, "spec": {"capacity": {"storage": size}}});
        wanted(&serde_json::from_value(claim).unwrap(), &serde_json::from_value(volume).unwrap())
    }

    #[test]
    fn a_volume_becomes_larger_once_its_controller_is_done_and_to_the_size_that_it_gave() {
        let status = |state: &str| {
            json!({"capacity": {"storage": "1Gi"}, "allocatedResources": {"storage": "2Gi"},
                "allocatedResourceStatuses": {"storage": state}})
        };
        let wanted = of(status(PENDING), "2Gi").unwrap();
        assert_eq!((wanted.bytes, wanted.is_pending), (2 << 30, true));
        assert!(!of(status(IN_PROGRESS), "2Gi").unwrap().is_pending);
        for state in ["ControllerResizeInProgress", "NodeResizeInfeasible", "ControllerResizeInfeasible"] {
            assert_eq!(of(status(state), "2Gi"), None, "{state}");
        }
        assert_eq!(of(status(PENDING), "1Gi"), None, "the volume itself is no larger");
        assert_eq!(of(json!({"capacity": {"storage": "1Gi"}}), "2Gi").unwrap().size, "2Gi");
        assert_eq!(of(json!({"capacity": {"storage": "2048Mi"}}), "2Gi"), None);
    }

    #[test]
    fn what_can_never_be_is_not_tried_again() {
        let told = failed("d.io", ExpandFault::Infeasible("x".into()));
        assert_eq!((told.state, told.is_tried_again), (Some("Infeasible"), false));
        assert_eq!(failed("d.io", ExpandFault::Uncertain("x".into())).state, None);
        let told = failed("d.io", ExpandFault::NotSupported);
        assert_eq!(told.why, "NodeExpand is not supported by the CSI driver d.io");
    }
}
