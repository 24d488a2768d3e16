//! Reports as version 1 writes them. A row of the outbox in format 1 holds the same bytes (module `rows`): while that
//! format is readable these structs stay, whatever becomes of the wire's version.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::batch::BatchEntry;
use crate::batch::SkipReason;
use crate::device_call::CallRecord;
use crate::node_task::{TaskAction, TaskImage, TaskProgress};
use crate::wire::WireError;
use crate::wire::codec;
use crate::{DeviceCondition, Report, TwinValue, UpReport};

const NODE: u16 = 1;
const POD_STATUS: u16 = 2;
const POD_GONE: u16 = 3;
const EVENT: u16 = 4;
const TWIN: u16 = 5;
const DEVICE_STATE: u16 = 6;
const MIRROR_POD: u16 = 7;
const CLAIM_EXPANSION: u16 = 8;
const DEVICE_CONDITIONS: u16 = 9;
const METHOD_CALLS: u16 = 10;
const NODE_TASK: u16 = 11;

#[derive(Serialize, Deserialize)]
struct NodeV1 {
    node_json: String,
}

#[derive(Serialize, Deserialize)]
struct PodStatusV1 {
    namespace: String,
    name: String,
    uid: String,
    status_json: String,
}

#[derive(Serialize, Deserialize)]
struct PodGoneV1 {
    namespace: String,
    name: String,
    uid: String,
}

#[derive(Serialize, Deserialize)]
struct EventV1 {
    namespace: String,
    name: String,
    event_json: String,
}

#[derive(Serialize, Deserialize)]
struct TwinV1 {
    namespace: String,
    name: String,
    property: String,
    reported: Option<TwinValueV1>,
    observed_desired: Option<TwinValueV1>,
}

#[derive(Serialize, Deserialize)]
struct TwinValueV1 {
    value: String,
    metadata: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct DeviceStateV1 {
    namespace: String,
    name: String,
    state: String,
    last_online_time: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct DeviceConditionsV1 {
    namespace: String,
    name: String,
    conditions: Vec<DeviceConditionV1>,
}

#[derive(Serialize, Deserialize)]
struct DeviceConditionV1 {
    kind: String,
    reason: String,
    message: String,
    since: String,
}

#[derive(Serialize, Deserialize)]
struct MethodCallsV1 {
    namespace: String,
    name: String,
    calls: Vec<CallRecordV1>,
}

#[derive(Serialize, Deserialize)]
struct CallRecordV1 {
    id: String,
    method: String,
    values: BTreeMap<String, String>,
    by: String,
    state: String,
    message: String,
    time: String,
}

#[derive(Serialize, Deserialize)]
struct MirrorPodV1 {
    namespace: String,
    name: String,
    pod_json: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct ClaimExpansionV1 {
    namespace: String,
    name: String,
    uid: String,
    size: String,
    state: String,
    message: String,
}

#[derive(Serialize, Deserialize)]
struct NodeTaskV1 {
    kind: String,
    job: String,
    uid: String,
    phase: String,
    reason: String,
    actions: Vec<TaskActionV1>,
    images: Vec<TaskImageV1>,
    from_version: String,
    to_version: String,
}

#[derive(Serialize, Deserialize)]
struct TaskActionV1 {
    action: String,
    succeeded: bool,
    reason: String,
    time: String,
}

#[derive(Serialize, Deserialize)]
struct TaskImageV1 {
    image: String,
    succeeded: bool,
    reason: String,
}

/// The kind of a report, and its bytes.
pub(crate) fn encode(report: UpReport) -> Result<(u16, Vec<u8>), WireError> {
    Ok(match report {
        UpReport::Node { node_json } => (NODE, codec::encode(&NodeV1 { node_json })?),
        UpReport::PodStatus { namespace, name, uid, status_json } => {
            (POD_STATUS, codec::encode(&PodStatusV1 { namespace, name, uid, status_json })?)
        }
        UpReport::PodGone { namespace, name, uid } => {
            (POD_GONE, codec::encode(&PodGoneV1 { namespace, name, uid })?)
        }
        UpReport::Event { namespace, name, event_json } => {
            (EVENT, codec::encode(&EventV1 { namespace, name, event_json })?)
        }
        UpReport::MirrorPod { namespace, name, pod_json } => {
            (MIRROR_POD, codec::encode(&MirrorPodV1 { namespace, name, pod_json })?)
        }
        UpReport::ClaimExpansion { namespace, name, uid, size, state, message } => {
            let body = ClaimExpansionV1 { namespace, name, uid, size, state, message };
            (CLAIM_EXPANSION, codec::encode(&body)?)
        }
        UpReport::NodeTask(progress) => (NODE_TASK, codec::encode(&NodeTaskV1::from(progress))?),
        UpReport::Twin { namespace, name, property, reported, observed_desired } => {
            let (reported, observed_desired) = (reported.map(Into::into), observed_desired.map(Into::into));
            (TWIN, codec::encode(&TwinV1 { namespace, name, property, reported, observed_desired })?)
        }
        UpReport::DeviceConditions { namespace, name, conditions } => {
            let conditions = conditions.into_iter().map(Into::into).collect();
            (DEVICE_CONDITIONS, codec::encode(&DeviceConditionsV1 { namespace, name, conditions })?)
        }
        UpReport::MethodCalls { namespace, name, calls } => {
            let calls = calls.into_iter().map(Into::into).collect();
            (METHOD_CALLS, codec::encode(&MethodCallsV1 { namespace, name, calls })?)
        }
        UpReport::DeviceState { namespace, name, state, last_online_time } => {
            (DEVICE_STATE, codec::encode(&DeviceStateV1 { namespace, name, state, last_online_time })?)
        }
    })
}

/// The report of this kind that the bytes are.
pub(crate) fn decode(kind: u16, bytes: &[u8]) -> Result<UpReport, SkipReason> {
    match kind {
        NODE => read::<NodeV1>(kind, bytes),
        POD_STATUS => read::<PodStatusV1>(kind, bytes),
        POD_GONE => read::<PodGoneV1>(kind, bytes),
        EVENT => read::<EventV1>(kind, bytes),
        TWIN => read::<TwinV1>(kind, bytes),
        DEVICE_STATE => read::<DeviceStateV1>(kind, bytes),
        MIRROR_POD => read::<MirrorPodV1>(kind, bytes),
        CLAIM_EXPANSION => read::<ClaimExpansionV1>(kind, bytes),
        DEVICE_CONDITIONS => read::<DeviceConditionsV1>(kind, bytes),
        METHOD_CALLS => read::<MethodCallsV1>(kind, bytes),
        NODE_TASK => read::<NodeTaskV1>(kind, bytes),
        kind => Err(SkipReason::Unknown { kind }),
    }
}

fn read<T: DeserializeOwned + Into<UpReport>>(kind: u16, bytes: &[u8]) -> Result<UpReport, SkipReason> {
    codec::decode::<T>(bytes).map(Into::into).map_err(|_| SkipReason::Malformed { kind })
}

/// An entry of a batch.
pub(crate) fn entry(Report { row, repeat, report }: Report) -> Result<BatchEntry, WireError> {
    let (kind, body) = encode(report.0)?;
    Ok(BatchEntry { row, repeat, kind, body })
}

/// A report from an entry of a batch.
pub(crate) fn item(row: i64, repeat: bool, kind: u16, body: &[u8]) -> Result<Report, SkipReason> {
    Ok(Report { row, repeat, report: decode(kind, body)?.into() })
}

impl From<NodeV1> for UpReport {
    fn from(NodeV1 { node_json }: NodeV1) -> Self {
        UpReport::Node { node_json }
    }
}

impl From<PodStatusV1> for UpReport {
    fn from(PodStatusV1 { namespace, name, uid, status_json }: PodStatusV1) -> Self {
        UpReport::PodStatus { namespace, name, uid, status_json }
    }
}

impl From<PodGoneV1> for UpReport {
    fn from(PodGoneV1 { namespace, name, uid }: PodGoneV1) -> Self {
        UpReport::PodGone { namespace, name, uid }
    }
}

impl From<EventV1> for UpReport {
    fn from(EventV1 { namespace, name, event_json }: EventV1) -> Self {
        UpReport::Event { namespace, name, event_json }
    }
}

impl From<MirrorPodV1> for UpReport {
    fn from(MirrorPodV1 { namespace, name, pod_json }: MirrorPodV1) -> Self {
        UpReport::MirrorPod { namespace, name, pod_json }
    }
}

impl From<ClaimExpansionV1> for UpReport {
    fn from(ClaimExpansionV1 { namespace, name, uid, size, state, message }: ClaimExpansionV1) -> Self {
        UpReport::ClaimExpansion { namespace, name, uid, size, state, message }
    }
}

impl From<TwinV1> for UpReport {
    fn from(TwinV1 { namespace, name, property, reported, observed_desired }: TwinV1) -> Self {
        let (reported, observed_desired) = (reported.map(Into::into), observed_desired.map(Into::into));
        UpReport::Twin { namespace, name, property, reported, observed_desired }
    }
}

impl From<DeviceStateV1> for UpReport {
    fn from(DeviceStateV1 { namespace, name, state, last_online_time }: DeviceStateV1) -> Self {
        UpReport::DeviceState { namespace, name, state, last_online_time }
    }
}

impl From<DeviceConditionsV1> for UpReport {
    fn from(DeviceConditionsV1 { namespace, name, conditions }: DeviceConditionsV1) -> Self {
        let conditions = conditions.into_iter().map(Into::into).collect();
        UpReport::DeviceConditions { namespace, name, conditions }
    }
}

impl From<MethodCallsV1> for UpReport {
    fn from(MethodCallsV1 { namespace, name, calls }: MethodCallsV1) -> Self {
        UpReport::MethodCalls { namespace, name, calls: calls.into_iter().map(Into::into).collect() }
    }
}

impl From<NodeTaskV1> for UpReport {
    fn from(body: NodeTaskV1) -> Self {
        let NodeTaskV1 { kind, job, uid, phase, reason, actions, images, from_version, to_version } = body;
        let actions = actions.into_iter().map(Into::into).collect();
        let images = images.into_iter().map(Into::into).collect();
        UpReport::NodeTask(TaskProgress {
            kind,
            job,
            uid,
            phase,
            reason,
            actions,
            images,
            from_version,
            to_version,
        })
    }
}

impl From<TaskProgress> for NodeTaskV1 {
    fn from(progress: TaskProgress) -> Self {
        let TaskProgress { kind, job, uid, phase, reason, actions, images, from_version, to_version } =
            progress;
        let actions = actions.into_iter().map(Into::into).collect();
        let images = images.into_iter().map(Into::into).collect();
        NodeTaskV1 { kind, job, uid, phase, reason, actions, images, from_version, to_version }
    }
}

impl From<TaskAction> for TaskActionV1 {
    fn from(TaskAction { action, succeeded, reason, time }: TaskAction) -> Self {
        TaskActionV1 { action, succeeded, reason, time }
    }
}

impl From<TaskActionV1> for TaskAction {
    fn from(TaskActionV1 { action, succeeded, reason, time }: TaskActionV1) -> Self {
        TaskAction { action, succeeded, reason, time }
    }
}

impl From<TaskImage> for TaskImageV1 {
    fn from(TaskImage { image, succeeded, reason }: TaskImage) -> Self {
        TaskImageV1 { image, succeeded, reason }
    }
}

impl From<TaskImageV1> for TaskImage {
    fn from(TaskImageV1 { image, succeeded, reason }: TaskImageV1) -> Self {
        TaskImage { image, succeeded, reason }
    }
}

impl From<CallRecord> for CallRecordV1 {
    fn from(CallRecord { id, method, values, by, state, message, time }: CallRecord) -> Self {
        CallRecordV1 { id, method, values, by, state, message, time }
    }
}

impl From<CallRecordV1> for CallRecord {
    fn from(CallRecordV1 { id, method, values, by, state, message, time }: CallRecordV1) -> Self {
        CallRecord { id, method, values, by, state, message, time }
    }
}

impl From<DeviceCondition> for DeviceConditionV1 {
    fn from(DeviceCondition { kind, reason, message, since }: DeviceCondition) -> Self {
        DeviceConditionV1 { kind, reason, message, since }
    }
}

impl From<DeviceConditionV1> for DeviceCondition {
    fn from(DeviceConditionV1 { kind, reason, message, since }: DeviceConditionV1) -> Self {
        DeviceCondition { kind, reason, message, since }
    }
}

impl From<TwinValue> for TwinValueV1 {
    fn from(TwinValue { value, metadata }: TwinValue) -> Self {
        TwinValueV1 { value, metadata }
    }
}

impl From<TwinValueV1> for TwinValue {
    fn from(TwinValueV1 { value, metadata }: TwinValueV1) -> Self {
        TwinValue { value, metadata }
    }
}
