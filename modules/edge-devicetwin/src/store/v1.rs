//! Version 1 of the rows, frozen. What DeviceTwin works with is made of these structs and turned into them, so that a
//! change of the one leaves the other alone; another layout is another version, in a file beside this one.

use std::collections::{BTreeMap, BTreeSet};

use contract::{CallOrigin, CallOutcome, CallState, DeviceCondition};
use serde::{Deserialize, Serialize};

use crate::calls::{Calls, Remembered};
use crate::identity::MapperIdentity;
use crate::mapper::MapperRecord;
use crate::twin::{Side, State, Twin, Version};

#[derive(Serialize, Deserialize)]
pub(super) struct StateV1 {
    uid: String,
    state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_online: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    unreported: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    conditions: Vec<ConditionV1>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    named: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mapper: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct ConditionV1 {
    kind: String,
    reason: String,
    message: String,
    since: String,
}

impl From<&State> for StateV1 {
    fn from(state: &State) -> Self {
        let State { uid, state, last_online, reason, unreported, conditions, named, mapper } = state.clone();
        let conditions = conditions.iter().map(ConditionV1::from).collect();
        StateV1 { uid, state, last_online, unreported, conditions, reason, named, mapper }
    }
}

impl From<StateV1> for State {
    fn from(row: StateV1) -> Self {
        let StateV1 { uid, state, last_online, unreported, conditions, reason, named, mapper } = row;
        let conditions = conditions.into_iter().map(DeviceCondition::from).collect();
        State { uid, state, last_online, reason, unreported, conditions, named, mapper }
    }
}

impl From<&DeviceCondition> for ConditionV1 {
    fn from(DeviceCondition { kind, reason, message, since }: &DeviceCondition) -> Self {
        let (kind, reason) = (kind.clone(), reason.clone());
        ConditionV1 { kind, reason, message: message.clone(), since: since.clone() }
    }
}

impl From<ConditionV1> for DeviceCondition {
    fn from(ConditionV1 { kind, reason, message, since }: ConditionV1) -> Self {
        DeviceCondition { kind, reason, message, since }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct SideV1 {
    value: String,
    timestamp: i64,
}

impl From<&Side> for SideV1 {
    fn from(Side { value, timestamp }: &Side) -> Self {
        SideV1 { value: value.clone(), timestamp: *timestamp }
    }
}

impl From<SideV1> for Side {
    fn from(SideV1 { value, timestamp }: SideV1) -> Self {
        Side { value, timestamp }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct CountsV1 {
    cloud: u64,
    edge: u64,
}

impl From<Version> for CountsV1 {
    fn from(Version { cloud, edge }: Version) -> Self {
        CountsV1 { cloud, edge }
    }
}

impl From<CountsV1> for Version {
    fn from(CountsV1 { cloud, edge }: CountsV1) -> Self {
        Version { cloud, edge }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct TwinV1 {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expected: Option<SideV1>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    actual: Option<SideV1>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    observed: Option<SideV1>,
    expected_version: CountsV1,
    actual_version: CountsV1,
    optional: bool,
    value_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    desired: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    edge_desired: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    actual_error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    observed_error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stale: Option<i64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    unreported: bool,
}

impl From<&Twin> for TwinV1 {
    fn from(twin: &Twin) -> Self {
        let side = |side: &Option<Side>| side.as_ref().map(SideV1::from);
        TwinV1 {
            expected: side(&twin.expected),
            actual: side(&twin.actual),
            observed: side(&twin.observed),
            expected_version: twin.expected_version.into(),
            actual_version: twin.actual_version.into(),
            optional: twin.optional,
            value_type: twin.value_type.clone(),
            desired: twin.desired.clone(),
            edge_desired: twin.edge_desired.clone(),
            actual_error: twin.actual_error.clone(),
            observed_error: twin.observed_error.clone(),
            stale: twin.stale,
            deleted: twin.deleted,
            unreported: twin.unreported,
        }
    }
}

impl From<TwinV1> for Twin {
    fn from(row: TwinV1) -> Self {
        Twin {
            expected: row.expected.map(Side::from),
            actual: row.actual.map(Side::from),
            observed: row.observed.map(Side::from),
            expected_version: row.expected_version.into(),
            actual_version: row.actual_version.into(),
            optional: row.optional,
            value_type: row.value_type,
            desired: row.desired,
            edge_desired: row.edge_desired,
            actual_error: row.actual_error,
            observed_error: row.observed_error,
            stale: row.stale,
            deleted: row.deleted,
            unreported: row.unreported,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum IdentityV1 {
    Workload { namespace: String, account: String, kind: String, name: String },
    User { uid: u32 },
}

impl From<&MapperIdentity> for IdentityV1 {
    fn from(identity: &MapperIdentity) -> Self {
        match identity.clone() {
            MapperIdentity::Workload { namespace, account, kind, name } => {
                IdentityV1::Workload { namespace, account, kind, name }
            }
            MapperIdentity::User { uid } => IdentityV1::User { uid },
        }
    }
}

impl From<IdentityV1> for MapperIdentity {
    fn from(row: IdentityV1) -> Self {
        match row {
            IdentityV1::Workload { namespace, account, kind, name } => {
                MapperIdentity::Workload { namespace, account, kind, name }
            }
            IdentityV1::User { uid } => MapperIdentity::User { uid },
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct MapperV1 {
    name: String,
    address: String,
    version: String,
    identity: IdentityV1,
    uid: u32,
    process: String,
    with_data: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    doubles: bool,
}

impl From<&MapperRecord> for MapperV1 {
    fn from(mapper: &MapperRecord) -> Self {
        MapperV1 {
            name: mapper.name.clone(),
            address: mapper.address.clone(),
            version: mapper.version.clone(),
            identity: (&mapper.identity).into(),
            uid: mapper.uid,
            process: mapper.process.clone(),
            with_data: mapper.with_data,
            doubles: mapper.doubles,
        }
    }
}

impl From<MapperV1> for MapperRecord {
    fn from(row: MapperV1) -> Self {
        let MapperV1 { name, address, version, identity, uid, process, with_data, doubles } = row;
        MapperRecord { name, address, version, identity: identity.into(), uid, process, with_data, doubles }
    }
}

/// The digest of a device or model that a mapper has.
#[derive(Serialize, Deserialize)]
pub(super) struct AcknowledgedV1 {
    pub(super) digest: u64,
}

/// The calls of a device's methods.
#[derive(Serialize, Deserialize)]
pub(super) struct CallsV1 {
    calls: Vec<CallV1>,
}

#[derive(Serialize, Deserialize)]
struct CallV1 {
    id: String,
    method: String,
    values: BTreeMap<String, String>,
    by: String,
    state: String,
    code: u16,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    message: String,
    time: String,
}

impl From<&Calls> for CallsV1 {
    fn from(calls: &Calls) -> Self {
        CallsV1 { calls: calls.all().iter().map(CallV1::from).collect() }
    }
}

impl From<CallsV1> for Vec<Remembered> {
    fn from(CallsV1 { calls }: CallsV1) -> Self {
        calls.into_iter().map(Remembered::from).collect()
    }
}

impl From<&Remembered> for CallV1 {
    fn from(Remembered { id, method, values, by, outcome, time }: &Remembered) -> Self {
        CallV1 {
            id: id.clone(),
            method: method.clone(),
            values: values.clone(),
            by: by.word().to_owned(),
            state: outcome.state.word().to_owned(),
            code: outcome.code,
            message: outcome.message.clone(),
            time: time.clone(),
        }
    }
}

impl From<CallV1> for Remembered {
    /// A word that is none here is a later release's: nobody knows then.
    fn from(CallV1 { id, method, values, by, state, code, message, time }: CallV1) -> Self {
        let by = CallOrigin::of_word(&by).unwrap_or(CallOrigin::Node);
        let state = CallState::of_word(&state).unwrap_or(CallState::Unknown);
        Remembered { id, method, values, by, outcome: CallOutcome { state, code, message }, time }
    }
}
