//! What a node reports, and what it asks for on behalf of its pods.

use crate::capability;
use crate::device_call::CallRecord;
use crate::node_task::TaskProgress;
use crate::parsed::Unparsed;

/// As whom a node tells Events, as kubelets do: consumers select by it.
pub const EVENT_COMPONENT: &str = "kubelet";

/// A value of a twin with its metadata (`timestamp` in milliseconds as text, `type`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwinValue {
    /// The value as text.
    pub value: String,
    /// Metadata, sorted by key.
    pub metadata: std::collections::BTreeMap<String, String>,
}

/// Something that is wrong with a device, as its node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceCondition {
    /// What does not hold: `Served`, `Reporting` or `DesiredApplied`.
    pub kind: String,
    /// One word.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// RFC 3339, since when, by the node's clock.
    pub since: String,
}

/// A row of a node's outbox on its way to a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The row's seq, by which it is confirmed.
    pub row: i64,
    /// The node may have sent this row before.
    pub repeat: bool,
    /// What it says.
    pub report: Unparsed<UpReport>,
}

/// One report on its way up, as the node writes it and as a row of its outbox holds it. The cloud reads it as
/// [`crate::parsed::ParsedReport`]. JSON bodies are text of the named Kubernetes type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpReport {
    /// The node as Edged sees it: a `Node` as JSON with metadata.labels, spec.taints and status. Newest wins.
    Node {
        /// The Node.
        node_json: String,
    },
    /// A pod's status: `PodStatus` as JSON. Newest wins per pod.
    PodStatus {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        name: String,
        /// The pod's uid; the status of another incarnation is dropped.
        uid: String,
        /// The PodStatus.
        status_json: String,
    },
    /// A pod that was to go is gone: nothing of it runs any more.
    PodGone {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        name: String,
        /// The pod's uid.
        uid: String,
    },
    /// An `Event` (core v1) as JSON, its name made by the node so that a repeat is recognised.
    Event {
        /// The event's namespace.
        namespace: String,
        /// The event's name.
        name: String,
        /// The Event.
        event_json: String,
    },
    /// The mirror of a static pod: a `Pod` as JSON, to be made, also in the place of another one of that name; `None`: there is
    /// no static pod of that name, so no mirror of it either. Newest wins per name.
    MirrorPod {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        name: String,
        /// The Pod.
        pod_json: Option<String>,
    },
    /// What became of making a claim's volume larger on the node. Newest wins per claim.
    ClaimExpansion {
        /// The claim's namespace.
        namespace: String,
        /// The claim's name.
        name: String,
        /// The claim's uid.
        uid: String,
        /// Which size it is to have, as the claim's status or its volume says it.
        size: String,
        /// `InProgress`, `Finished`, `Infeasible` or `Failed`.
        state: String,
        /// Why it is not larger.
        message: String,
    },
    /// One property of a device's twin. Newest wins per property. `None` means: deleted.
    Twin {
        /// The device's namespace.
        namespace: String,
        /// The device's name.
        name: String,
        /// The property.
        property: String,
        /// What the device reported.
        reported: Option<TwinValue>,
        /// The desired value as the node knows it.
        observed_desired: Option<TwinValue>,
    },
    /// What is wrong with a device, all of it: what is not named any more is mended.
    DeviceConditions {
        /// The device's namespace.
        namespace: String,
        /// The device's name.
        name: String,
        /// At most 16.
        conditions: Vec<DeviceCondition>,
    },
    /// The calls of a device's methods, all that the node remembers, the newest last. Newest wins per device.
    MethodCalls {
        /// The device's namespace.
        namespace: String,
        /// The device's name.
        name: String,
        /// At most [`crate::device_call::CALLS_MAX`].
        calls: Vec<CallRecord>,
    },
    /// How far the node is with its part of a job. Newest wins per job.
    NodeTask(TaskProgress),
    /// A device's state.
    DeviceState {
        /// The device's namespace.
        namespace: String,
        /// The device's name.
        name: String,
        /// As reported: online, offline, ok, unhealthy or unknown.
        state: String,
        /// RFC 3339, when it was last online.
        last_online_time: Option<String>,
    },
}

impl UpReport {
    /// The outbox key of the status of a pod of this uid.
    pub fn pod_status_key(uid: &str) -> String {
        format!("pod/{uid}")
    }

    /// The outbox key under which a newer report replaces an older one; `None` for reports that all count.
    pub fn newest_key(&self) -> Option<String> {
        match self {
            UpReport::Node { .. } => Some("node".to_owned()),
            UpReport::PodStatus { uid, .. } => Some(UpReport::pod_status_key(uid)),
            // Not the same key as the status: both must arrive.
            UpReport::PodGone { uid, .. } => Some(format!("gone/{uid}")),
            UpReport::Event { .. } => None,
            UpReport::MirrorPod { namespace, name, .. } => Some(format!("mirror/{namespace}/{name}")),
            UpReport::ClaimExpansion { uid, .. } => Some(format!("claim/{uid}")),
            UpReport::Twin { namespace, name, property, .. } => {
                Some(format!("twin/{namespace}/{name}/{property}"))
            }
            UpReport::DeviceConditions { namespace, name, .. } => {
                Some(format!("conditions/{namespace}/{name}"))
            }
            UpReport::MethodCalls { namespace, name, .. } => Some(format!("calls/{namespace}/{name}")),
            UpReport::NodeTask(progress) => Some(format!("task/{}", progress.uid)),
            UpReport::DeviceState { namespace, name, .. } => Some(format!("state/{namespace}/{name}")),
        }
    }

    /// In which queue of the outbox it waits.
    pub fn queue(&self) -> OutboxQueue {
        match self {
            UpReport::Twin { .. }
            | UpReport::DeviceConditions { .. }
            | UpReport::MethodCalls { .. }
            | UpReport::DeviceState { .. } => OutboxQueue::Devices,
            UpReport::Node { .. }
            | UpReport::PodStatus { .. }
            | UpReport::PodGone { .. }
            | UpReport::Event { .. }
            | UpReport::MirrorPod { .. }
            | UpReport::ClaimExpansion { .. } => OutboxQueue::Node,
            UpReport::NodeTask(_) => OutboxQueue::Tasks,
        }
    }

    /// The capability that a cloud must have named for this report to be sent to it.
    pub fn capability(&self) -> &'static str {
        match self {
            UpReport::Node { .. } => capability::REPORT_NODE,
            UpReport::PodStatus { .. } => capability::REPORT_POD_STATUS,
            UpReport::PodGone { .. } => capability::REPORT_POD_GONE,
            UpReport::Event { .. } => capability::REPORT_EVENT,
            UpReport::MirrorPod { .. } => capability::REPORT_MIRROR_POD,
            UpReport::ClaimExpansion { .. } => capability::REPORT_CLAIM_EXPANSION,
            UpReport::Twin { .. } => capability::REPORT_TWIN,
            UpReport::DeviceConditions { .. } => capability::REPORT_DEVICE_CONDITIONS,
            UpReport::MethodCalls { .. } => capability::REPORT_METHOD_CALLS,
            UpReport::NodeTask(_) => capability::REPORT_NODE_TASK,
            UpReport::DeviceState { .. } => capability::REPORT_DEVICE_STATE,
        }
    }
}

/// What leaves the outbox side by side: neither a backlog of telemetry nor devices whose status cannot be written hold up
/// the status of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OutboxQueue {
    /// Status and events of the node and its pods, for the edge controller.
    Node,
    /// Twins and states of devices, for the device controller.
    Devices,
    /// Telemetry, for the router.
    Telemetry,
    /// What clients published for rules, for the router. A key is a topic, and each topic waits for its own target alone.
    Rules,
    /// Parts of jobs, for the task manager.
    Tasks,
}

impl OutboxQueue {
    /// All of them.
    pub const ALL: [OutboxQueue; 5] = [
        OutboxQueue::Node,
        OutboxQueue::Devices,
        OutboxQueue::Telemetry,
        OutboxQueue::Rules,
        OutboxQueue::Tasks,
    ];
}

/// A request for a service-account token (authentication.k8s.io/v1 ParsedTokenQuery), bound to a pod of the asking node. The
/// cloud reads it as [`crate::parsed::ParsedTokenQuery`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenQuery {
    /// Namespace of the pod and of the account.
    pub namespace: String,
    /// The service account.
    pub service_account: String,
    /// Audiences; empty means the API server's own.
    pub audiences: Vec<String>,
    /// How long it should live, in seconds.
    pub expiration_seconds: i64,
    /// The pod that will mount it.
    pub pod_name: String,
    /// The pod's uid.
    pub pod_uid: String,
}

/// A token as granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenGrant {
    /// The bearer token.
    pub token: String,
    /// When it ends, in seconds since 1970 by the cloud's clock.
    pub expires_unix: i64,
    /// How long it lives from being issued, in seconds: what a node with a wrong clock goes by.
    pub lifetime_seconds: i64,
}
