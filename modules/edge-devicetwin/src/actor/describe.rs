//! The devices as the node's page shows them.

use contract::edgepage::{ConditionView, DeviceView, DevicesView, PropertyView, ViewBounds};
use contract::ids::DeviceName;

use super::DeviceTwin;
use crate::catalog;
use crate::members::Member;
use crate::plan;
use crate::twin::Twin;

impl DeviceTwin {
    /// The devices: first those of which something is wrong. What is left out costs a look at its state.
    pub(super) fn describe(&self, bounds: ViewBounds) -> DevicesView {
        let (good, troubled): (Vec<_>, Vec<_>) = self.members.iter().partition(|(_, member)| is_well(member));
        let devices = troubled.into_iter().chain(good).take(bounds.rows);
        DevicesView {
            devices: devices.map(|(id, member)| self.describe_device(id, member, bounds)).collect(),
            devices_in_all: self.members.len(),
        }
    }

    fn describe_device(&self, id: &DeviceName, member: &Member, bounds: ViewBounds) -> DeviceView {
        let state = &member.state;
        let protocol = self.catalog.protocol_of(id).unwrap_or_default();
        let living = || member.twins.iter().filter(|(_, twin)| !twin.deleted);
        let conditions = state.conditions.iter().take(bounds.parts).map(|condition| ConditionView {
            kind: condition.kind.clone(),
            status: "False".to_owned(),
            reason: bounds.cut(&condition.reason),
            message: bounds.cut(&condition.message),
            since: condition.since.clone(),
        });
        DeviceView {
            namespace: id.namespace.clone(),
            name: id.name.clone(),
            state: bounds.cut(&state.state),
            reason: state.reason.as_ref().map(|reason| bounds.cut(reason)),
            last_online: state.last_online.clone(),
            protocol: bounds.cut(&catalog::shown(protocol)),
            conditions: conditions.collect(),
            properties: living()
                .take(bounds.parts)
                .map(|(name, twin)| property(name, twin, bounds))
                .collect(),
            properties_in_all: living().count(),
        }
    }
}

/// Whether nothing is to be said against a device.
fn is_well(member: &Member) -> bool {
    member.state.conditions.is_empty() && plan::is_online(&member.state.state) == Some(true)
}

fn property(name: &str, twin: &Twin, bounds: ViewBounds) -> PropertyView {
    let desired = twin.expected.as_ref().or(twin.observed.as_ref());
    let error = twin.actual_error.as_ref().or(twin.observed_error.as_ref());
    PropertyView {
        name: bounds.cut(name),
        reported: twin.actual.as_ref().map(|side| bounds.cut(&side.value)),
        reported_unix_ms: twin.actual.as_ref().map(|side| side.timestamp),
        desired: desired.map(|side| bounds.cut(&side.value)),
        error: error.map(|error| bounds.cut(error)),
        is_stale: twin.stale.is_some(),
    }
}
