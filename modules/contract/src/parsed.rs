//! What a node reported or asked, parsed: the only form in which a controller of the cloud can read it.
//!
//! A node's reports and questions travel as [`Unparsed`], which nobody can look into. Whoever wants to know what they say
//! parses each by itself, so that one with an odd name or size is refused alone, and no name that was not checked can come
//! into a URL.

use thiserror::Error;

use crate::device_call::{CALLS_MAX, CallOrigin, CallRecord, CallState, MESSAGE_MAX, MethodCall, WITHIN};
pub use crate::ids::DeviceName;
use crate::ids::{Namespace, ObjectName, ParseIdError, PropertyName, Uid};
use crate::node_task::{
    self, ACTIONS_MAX, IMAGES_MAX, REASON_MAX, TaskAction, TaskImage, TaskKind, TaskPhase, TaskProgress,
    WORD_MAX,
};
use crate::{DeviceCondition, TokenQuery, TwinValue, UpReport};

/// 128 KiB: the largest status of a node or a pod. A kubelet's largest have some tens of KiB.
pub const STATUS_MAX: usize = 128 << 10;
/// 16 KiB: the largest event; what is taken of it is much less.
pub const EVENT_MAX: usize = 16 << 10;
/// 128 KiB: the largest static pod of which there is a mirror.
pub const MIRROR_MAX: usize = 128 << 10;
/// 4 KiB: the longest word on why a claim's volume is not larger.
pub const EXPANSION_MAX: usize = 4 << 10;
/// 64 bytes: the longest size of one.
pub const SIZE_MAX: usize = 64;
/// 1024 twins of a device, and in a message about one (KubeEdge has no bound). With the longest values that is more than an API server
/// takes, and refused there.
pub const TWINS_MAX: usize = 1024;
/// 4 KiB: the longest value of a twin, whoever says it.
pub const VALUE_MAX: usize = 4 << 10;
/// 16 entries of a value's metadata.
pub const METADATA_MAX: usize = 16;
/// 512 bytes: the longest key or value of a value's metadata.
pub const METADATA_BYTES_MAX: usize = 512;
/// 128 bytes: the longest state of a device, and the longest time.
pub const STATE_MAX: usize = 128;
/// What a device may be (KubeEdge), in small letters: nodes pass it on as a mapper wrote it.
pub const DEVICE_STATES: [&str; 5] = ["online", "offline", "ok", "unhealthy", "unknown"];
/// 16 things that are wrong with a device.
pub const CONDITIONS_MAX: usize = 16;
/// 2 KiB of words on each.
pub const CONDITION_MAX: usize = 2 << 10;
/// 8 audiences of one token.
pub const AUDIENCES_MAX: usize = 8;
/// 1 KiB: the longest audience.
pub const AUDIENCE_MAX: usize = 1 << 10;

/// What came from a node, or goes there, and is not to be read before it is parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unparsed<T>(pub(crate) T);

impl<T> From<T> for Unparsed<T> {
    fn from(raw: T) -> Self {
        Unparsed(raw)
    }
}

/// Why something that a node said is not taken. It never will be: it is confirmed, so that the node forgets it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidReport {
    /// A name is none.
    #[error(transparent)]
    Name(#[from] ParseIdError),
    /// A word is none of those that there are.
    #[error("{what} is none")]
    Word {
        /// Of what.
        what: &'static str,
    },
    /// Something is too large.
    #[error("{what} has {found}, and may have {max}")]
    Size {
        /// What, and the unit.
        what: &'static str,
        /// How much there is.
        found: usize,
        /// How much there may be.
        max: usize,
    },
}

fn within(what: &'static str, found: usize, max: usize) -> Result<(), InvalidReport> {
    if found <= max { Ok(()) } else { Err(InvalidReport::Size { what, found, max }) }
}

/// One claim, for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimId {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: ObjectName,
    /// Its uid.
    pub uid: Uid,
}

/// How far a claim's volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expansion {
    /// The driver is being asked.
    InProgress,
    /// It is as large as it is to be.
    Finished,
    /// It never can be, and why.
    Infeasible(String),
    /// It is not, and is tried again; and why.
    Failed(String),
}

/// One pod, for good.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodId {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: ObjectName,
    /// Its uid.
    pub uid: Uid,
}

impl PodId {
    /// Parses one.
    ///
    /// # Errors
    /// When a part is no such name.
    pub fn parse(namespace: &str, name: &str, uid: &str) -> Result<Self, ParseIdError> {
        Ok(PodId {
            namespace: Namespace::parse(namespace)?,
            name: ObjectName::parse(name)?,
            uid: Uid::parse(uid)?,
        })
    }
}

impl std::fmt::Display for PodId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} ({})", self.namespace, self.name, self.uid)
    }
}

/// A report by the controller that takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParsedReport {
    /// The edge controller.
    OfNode(NodeReport),
    /// The device controller: of this device, this.
    OfDevice(DeviceName, DeviceReport),
    /// The task manager.
    OfTask(Box<TaskReport>),
}

/// A report for the edge controller; the fields as in [`UpReport`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeReport {
    /// The node as it sees itself.
    Node {
        /// A Node, of which labels, taints and status count.
        node_json: String,
    },
    /// The status of a pod.
    PodStatus {
        /// The pod.
        pod: PodId,
        /// A PodStatus.
        status_json: String,
    },
    /// Nothing of the pod runs any more.
    PodGone {
        /// The pod.
        pod: PodId,
    },
    /// A claim whose volume is made larger.
    ClaimExpansion {
        /// The claim.
        claim: ClaimId,
        /// Which size it is to have.
        size: String,
        /// How far it is.
        expansion: Expansion,
    },
    /// An event.
    Event {
        /// Its namespace.
        namespace: Namespace,
        /// Its name.
        name: ObjectName,
        /// An Event, of which a few fields count.
        event_json: String,
    },
    /// The mirror of a static pod.
    MirrorPod {
        /// Its namespace.
        namespace: Namespace,
        /// Its name.
        name: ObjectName,
        /// A Pod; `None`: there is to be none.
        pod_json: Option<String>,
    },
}

/// A report for the task manager; the fields as in [`TaskProgress`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskReport {
    /// The kind of the job.
    pub kind: TaskKind,
    /// The job.
    pub job: ObjectName,
    /// The job's uid.
    pub uid: Uid,
    /// How far the node is.
    pub phase: TaskPhase,
    /// Why.
    pub reason: String,
    /// What has ended.
    pub actions: Vec<TaskAction>,
    /// Of an ImagePrePullJob.
    pub images: Vec<TaskImage>,
    /// Of a NodeUpgradeJob.
    pub from_version: String,
    /// Of a NodeUpgradeJob.
    pub to_version: String,
}

/// A report of a device; the fields as in [`UpReport`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceReport {
    /// A property of its twin.
    Twin {
        /// The property.
        property: PropertyName,
        /// What the device reported.
        reported: Option<TwinValue>,
        /// The desired value as the node knows it.
        observed_desired: Option<TwinValue>,
    },
    /// All that is wrong with it.
    Conditions {
        /// At most [`CONDITIONS_MAX`].
        conditions: Vec<DeviceCondition>,
    },
    /// The calls of its methods, all that its node remembers.
    Calls {
        /// At most [`CALLS_MAX`].
        calls: Vec<CallRecord>,
    },
    /// Its state.
    State {
        /// The state.
        state: String,
        /// When it was last online.
        last_online_time: Option<String>,
    },
}

impl ParsedReport {
    /// Which object it is about, for people: `Pod default/web`.
    pub fn about(&self) -> String {
        match self {
            ParsedReport::OfNode(report) => report.about(),
            ParsedReport::OfDevice(device, _) => format!("Device {device}"),
            ParsedReport::OfTask(report) => format!("{} {}", report.kind.word(), report.job),
        }
    }
}

impl NodeReport {
    /// Which object it is about, for people: `Pod default/web`.
    pub fn about(&self) -> String {
        match self {
            NodeReport::Node { .. } => "its Node".to_owned(),
            NodeReport::PodStatus { pod, .. } | NodeReport::PodGone { pod } => {
                format!("Pod {}/{}", pod.namespace, pod.name)
            }
            NodeReport::ClaimExpansion { claim, .. } => {
                format!("PersistentVolumeClaim {}/{}", claim.namespace, claim.name)
            }
            NodeReport::Event { namespace, name, .. } => format!("Event {namespace}/{name}"),
            NodeReport::MirrorPod { namespace, name, .. } => format!("mirror Pod {namespace}/{name}"),
        }
    }
}

impl Unparsed<UpReport> {
    /// Its key in its node's outbox, under which a newer one replaces it: for the node, whose own word it is.
    pub fn newest_key(&self) -> Option<String> {
        self.0.newest_key()
    }

    /// What kind of object it is about: all of it that nobody has to check.
    pub fn kind(&self) -> &'static str {
        match &self.0 {
            UpReport::Node { .. } => "a Node",
            UpReport::PodStatus { .. } | UpReport::PodGone { .. } => "a Pod",
            UpReport::Event { .. } => "an Event",
            UpReport::MirrorPod { .. } => "a mirror Pod",
            UpReport::ClaimExpansion { .. } => "a PersistentVolumeClaim",
            UpReport::Twin { .. }
            | UpReport::DeviceConditions { .. }
            | UpReport::MethodCalls { .. }
            | UpReport::DeviceState { .. } => "a Device",
            UpReport::NodeTask(_) => "a job",
        }
    }

    /// What it says.
    ///
    /// # Errors
    /// See [`InvalidReport`].
    pub fn parse(self) -> Result<ParsedReport, InvalidReport> {
        Ok(match self.0 {
            UpReport::Node { node_json } => {
                within("a Node, in bytes,", node_json.len(), STATUS_MAX)?;
                ParsedReport::OfNode(NodeReport::Node { node_json })
            }
            UpReport::PodStatus { namespace, name, uid, status_json } => {
                within("the status of a pod, in bytes,", status_json.len(), STATUS_MAX)?;
                let pod = PodId::parse(&namespace, &name, &uid)?;
                ParsedReport::OfNode(NodeReport::PodStatus { pod, status_json })
            }
            UpReport::PodGone { namespace, name, uid } => {
                ParsedReport::OfNode(NodeReport::PodGone { pod: PodId::parse(&namespace, &name, &uid)? })
            }
            UpReport::Event { namespace, name, event_json } => {
                within("an event, in bytes,", event_json.len(), EVENT_MAX)?;
                let (namespace, name) = (Namespace::parse(&namespace)?, ObjectName::parse(&name)?);
                ParsedReport::OfNode(NodeReport::Event { namespace, name, event_json })
            }
            UpReport::MirrorPod { namespace, name, pod_json } => {
                let size = pod_json.as_ref().map_or(0, String::len);
                within("a mirror pod, in bytes,", size, MIRROR_MAX)?;
                let (namespace, name) = (Namespace::parse(&namespace)?, ObjectName::parse(&name)?);
                ParsedReport::OfNode(NodeReport::MirrorPod { namespace, name, pod_json })
            }
            UpReport::ClaimExpansion { namespace, name, uid, size, state, message } => {
                within("the size of a claim, in bytes,", size.len(), SIZE_MAX)?;
                within("why a volume is not larger, in bytes,", message.len(), EXPANSION_MAX)?;
                let (namespace, name) = (Namespace::parse(&namespace)?, ObjectName::parse(&name)?);
                let claim = ClaimId { namespace, name, uid: Uid::parse(&uid)? };
                let expansion = match state.as_str() {
                    "InProgress" => Expansion::InProgress,
                    "Finished" => Expansion::Finished,
                    "Infeasible" => Expansion::Infeasible(message),
                    "Failed" => Expansion::Failed(message),
                    _ => return Err(InvalidReport::Word { what: "the state of a claim's volume" }),
                };
                ParsedReport::OfNode(NodeReport::ClaimExpansion { claim, size, expansion })
            }
            UpReport::Twin { namespace, name, property, reported, observed_desired } => {
                let device = DeviceName::parse(&namespace, &name)?;
                let property = PropertyName::parse(&property)?;
                for value in [&reported, &observed_desired].into_iter().flatten() {
                    check_value(value)?;
                }
                ParsedReport::OfDevice(device, DeviceReport::Twin { property, reported, observed_desired })
            }
            UpReport::DeviceConditions { namespace, name, conditions } => {
                let device = DeviceName::parse(&namespace, &name)?;
                within("what is wrong with a device", conditions.len(), CONDITIONS_MAX)?;
                for DeviceCondition { kind, reason, message, since } in &conditions {
                    for word in [kind, reason, since] {
                        within("a word on what is wrong with a device, in bytes,", word.len(), STATE_MAX)?;
                    }
                    within("why something is wrong with a device, in bytes,", message.len(), CONDITION_MAX)?;
                    if [kind, reason, since].into_iter().any(|word| word.contains(char::is_control)) {
                        return Err(InvalidReport::Word { what: "a word on what is wrong with a device" });
                    }
                }
                ParsedReport::OfDevice(device, DeviceReport::Conditions { conditions })
            }
            UpReport::MethodCalls { namespace, name, calls } => {
                let device = DeviceName::parse(&namespace, &name)?;
                within("the calls of a device", calls.len(), CALLS_MAX)?;
                calls.iter().try_for_each(check_call)?;
                ParsedReport::OfDevice(device, DeviceReport::Calls { calls })
            }
            UpReport::NodeTask(progress) => ParsedReport::OfTask(Box::new(task(progress)?)),
            UpReport::DeviceState { namespace, name, state, last_online_time } => {
                let device = DeviceName::parse(&namespace, &name)?;
                for text in [Some(&state), last_online_time.as_ref()].into_iter().flatten() {
                    within("the state of a device, in bytes,", text.len(), STATE_MAX)?;
                }
                if !DEVICE_STATES.contains(&state.to_ascii_lowercase().as_str()) {
                    return Err(InvalidReport::Word { what: "the state of a device" });
                }
                ParsedReport::OfDevice(device, DeviceReport::State { state, last_online_time })
            }
        })
    }
}

fn task(progress: TaskProgress) -> Result<TaskReport, InvalidReport> {
    let TaskProgress { kind, job, uid, phase, reason, actions, images, from_version, to_version } = progress;
    within("the actions of a job", actions.len(), ACTIONS_MAX)?;
    within("the images of a job", images.len(), IMAGES_MAX)?;
    let reasons = actions.iter().map(|action| &action.reason).chain(images.iter().map(|image| &image.reason));
    for text in reasons.chain([&reason]) {
        within("what is said of a job, in bytes,", text.len(), REASON_MAX)?;
        is_plain("what is said of a job", text)?;
    }
    let words = actions.iter().flat_map(|action| [&action.action, &action.time]);
    for text in words.chain([&from_version, &to_version]) {
        within("a word of a job, in bytes,", text.len(), WORD_MAX)?;
        is_plain("a word of a job", text)?;
    }
    for image in &images {
        node_task::check_image(&image.image)
            .map_err(|_| InvalidReport::Word { what: "an image of a job" })?;
    }
    Ok(TaskReport {
        kind: TaskKind::of_word(&kind).ok_or(InvalidReport::Word { what: "the kind of a job" })?,
        job: ObjectName::parse(&job)?,
        uid: Uid::parse(&uid)?,
        phase: TaskPhase::of_word(&phase).ok_or(InvalidReport::Word { what: "the phase of a job" })?,
        reason,
        actions,
        images,
        from_version,
        to_version,
    })
}

fn is_plain(what: &'static str, text: &str) -> Result<(), InvalidReport> {
    if text.contains(char::is_control) { Err(InvalidReport::Word { what }) } else { Ok(()) }
}

fn check_call(call: &CallRecord) -> Result<(), InvalidReport> {
    let CallRecord { id, method, values, by, state, message, time } = call;
    within("what became of a call, in bytes,", message.len(), MESSAGE_MAX)?;
    within("the time of a call, in bytes,", time.len(), STATE_MAX)?;
    let known = CallOrigin::of_word(by).is_some() && CallState::of_word(state).is_some();
    let checked = MethodCall::new(id, method, values.clone(), WITHIN);
    if known && checked.is_ok() {
        Ok(())
    } else {
        Err(InvalidReport::Word { what: "a call of a device's method" })
    }
}

fn check_value(TwinValue { value, metadata }: &TwinValue) -> Result<(), InvalidReport> {
    within("the value of a twin, in bytes,", value.len(), VALUE_MAX)?;
    within("the metadata of a twin", metadata.len(), METADATA_MAX)?;
    for text in metadata.iter().flat_map(|(key, value)| [key, value]) {
        within("the metadata of a twin, in bytes,", text.len(), METADATA_BYTES_MAX)?;
    }
    Ok(())
}

/// A question for a token; the fields as in [`TokenQuery`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedTokenQuery {
    /// The pod that will mount it.
    pub pod: PodId,
    /// The account, in the pod's namespace.
    pub service_account: ObjectName,
    /// Audiences; empty means the API server's own.
    pub audiences: Vec<String>,
    /// How long it should live, in seconds.
    pub expiration_seconds: i64,
}

impl Unparsed<TokenQuery> {
    /// What is asked for.
    ///
    /// # Errors
    /// See [`InvalidReport`].
    pub fn parse(self) -> Result<ParsedTokenQuery, InvalidReport> {
        let TokenQuery { namespace, service_account, audiences, expiration_seconds, pod_name, pod_uid } =
            self.0;
        within("a token's list of audiences", audiences.len(), AUDIENCES_MAX)?;
        for audience in &audiences {
            within("an audience, in bytes,", audience.len(), AUDIENCE_MAX)?;
        }
        Ok(ParsedTokenQuery {
            pod: PodId::parse(&namespace, &pod_name, &pod_uid)?,
            service_account: ObjectName::parse(&service_account)?,
            audiences,
            expiration_seconds,
        })
    }
}
