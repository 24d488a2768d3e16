//! What DeviceTwin accepts.

use beehive::{Message, Reply};
use bytes::Bytes;

use crate::devicerules::{DeviceFacts, RuleCondition};
pub use crate::downlink::DeviceDown;
use crate::edgepage::{DevicesView, ViewBounds};
use crate::ids::DeviceName;
use crate::{CallOutcome, ChangedObjects, MethodCall};

/// Who called over DMI, as the kernel says: KubeEdge's mappers carry no name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DmiCaller {
    /// The uid of the pod that the process is in; `None`: it is in none.
    pub pod: Option<String>,
    /// The user id of the process, as the host counts.
    pub uid: u32,
    /// The process: boot id, process id and start, which no other one ever has together.
    pub process: String,
}

/// Why a call over DMI was not taken: a sentence for the mapper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DmiRefusal {
    /// It cannot be done as things are.
    Refused(String),
    /// What it says can never be taken.
    Unfit(String),
    /// This caller may not.
    Denied(String),
    /// What this caller may take of the node is used up.
    UsedUp(String),
}

impl From<String> for DmiRefusal {
    fn from(reason: String) -> Self {
        DmiRefusal::Refused(reason)
    }
}

/// A property as a mapper reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedTwin {
    /// The property.
    pub property: String,
    /// The desired value that the device was given; empty: none.
    pub observed: String,
    /// Why it was not given what is desired.
    pub refusal: Option<String>,
    /// What the device says that it is.
    pub reported: String,
    /// Why there is no such value.
    pub fault: Option<String>,
    /// The sides that the report does not have.
    pub lacks: LackingSides,
}

/// Which sides of a property a report does not have. KubeEdge's edgecore ends at such a one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LackingSides {
    /// `observedDesired`.
    pub observed: bool,
    /// `reported`.
    pub reported: bool,
}

/// A report or registration that came over DMI, already parsed and capped.
#[derive(Debug, Clone)]
pub enum DmiCall {
    /// A mapper says where it is.
    Register {
        /// Its name.
        name: String,
        /// The protocol that it speaks.
        protocol: String,
        /// Path of its own socket.
        address: String,
        /// Version and API version, for people.
        version: String,
        /// Whether it wants its devices and will be called back.
        with_data: bool,
        /// Whether it reads numbers of 64 bits with a fraction in settings.
        doubles: bool,
    },
    /// Twins of a device.
    Twins {
        /// The device's namespace.
        namespace: String,
        /// The device's name.
        name: String,
        /// The properties.
        twins: Vec<ObservedTwin>,
    },
    /// The state of a device.
    State {
        /// The device's namespace.
        namespace: String,
        /// The device's name.
        name: String,
        /// The state as the mapper says it.
        state: String,
        /// Why the device is in it, if the mapper says so.
        reason: Option<String>,
    },
}

/// Which of DeviceTwin's words on an update of a client's somebody listens for: what nobody hears is not said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpdateListeners {
    /// `…/twin/update/result`; a refusal is said in any case.
    pub result: bool,
    /// `…/twin/update/document`.
    pub document: bool,
}

impl UpdateListeners {
    /// Somebody may listen for either.
    pub const ALL: UpdateListeners = UpdateListeners { result: true, document: true };
}

/// Messages to DeviceTwin.
#[derive(Debug)]
pub enum TwinMsg {
    /// Devices, their models or pods changed in the store.
    ObjectsChanged(ChangedObjects),
    /// An MQTT client published on a topic of the twins. Answered after the commit; an error sentence means refused.
    Mqtt {
        /// The topic.
        topic: String,
        /// The payload.
        payload: Bytes,
        /// Who listened for its words when it came.
        listeners: UpdateListeners,
        /// When accepted.
        reply: Reply<Result<(), String>>,
    },
    /// A mapper called. Answered after the commit.
    Dmi {
        /// Who called.
        caller: DmiCaller,
        /// The call.
        call: DmiCall,
        /// The DMI answer: encoded protobuf of the response message, or why not.
        reply: Reply<Result<Vec<u8>, DmiRefusal>>,
    },
    /// From the cloud.
    Down(DeviceDown),
    /// Somebody on the node calls a method of a device. Answered when it is known what became of it.
    CallMethod {
        /// The device.
        device: DeviceName,
        /// The call.
        call: MethodCall,
        /// What became of it.
        reply: Reply<CallOutcome>,
    },
    /// A call of a method has ended.
    MethodCalled {
        /// The device.
        device: DeviceName,
        /// The call.
        id: String,
        /// What became of it.
        outcome: CallOutcome,
    },
    /// The rules of devices ask for all that they have to know: of each device that has rules.
    ListFacts {
        /// That; `None`: the devices have not been read from the store yet, so that nobody knows which have rules.
        reply: Reply<Option<Vec<DeviceFacts>>>,
    },
    /// A rule wants a property to be like that; empty: not any more. Answered after the commit; an error sentence means refused.
    SetDesired {
        /// The device.
        device: DeviceName,
        /// The property.
        property: String,
        /// The value.
        value: String,
        /// When accepted.
        reply: Reply<Result<(), String>>,
    },
    /// What the rules of a device say of themselves, in place of what they said before.
    RulesSay {
        /// The device.
        device: DeviceName,
        /// What does not hold.
        conditions: Vec<RuleCondition>,
    },
    /// Somebody looks at the node's page.
    Describe {
        /// How much is shown.
        bounds: ViewBounds,
        /// The devices.
        reply: Reply<DevicesView>,
    },
    /// Reports on devices that came too fast have waited: it is their turn.
    Report,
    /// Probe whether devices or mappers have fallen silent.
    Probe,
    /// What the mapper of `protocol` should have may not have reached it yet: try again.
    Push {
        /// The protocol.
        protocol: String,
    },
    /// A push to a mapper ended.
    Pushed {
        /// The protocol.
        protocol: String,
        /// Which session of that mapper; what an older one says no longer counts.
        session: u64,
        /// Which calls of the push the mapper took, by their place in it.
        done: Vec<usize>,
        /// Which of them the mapper refused, and why.
        refused: Vec<(usize, String)>,
        /// Why others are to be tried again.
        failure: Option<String>,
    },
}

impl Message for TwinMsg {
    fn name(&self) -> &'static str {
        match self {
            TwinMsg::ObjectsChanged(_) => "ObjectsChanged",
            TwinMsg::Mqtt { .. } => "Mqtt",
            TwinMsg::Dmi { .. } => "Dmi",
            TwinMsg::Down(message) => message.name(),
            TwinMsg::CallMethod { .. } => "CallMethod",
            TwinMsg::MethodCalled { .. } => "MethodCalled",
            TwinMsg::ListFacts { .. } => "ListFacts",
            TwinMsg::SetDesired { .. } => "SetDesired",
            TwinMsg::RulesSay { .. } => "RulesSay",
            TwinMsg::Describe { .. } => "Describe",
            TwinMsg::Report => "Report",
            TwinMsg::Probe => "Probe",
            TwinMsg::Push { .. } => "Push",
            TwinMsg::Pushed { .. } => "Pushed",
        }
    }
}
