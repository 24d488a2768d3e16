//! What Edged accepts.

use std::collections::BTreeSet;
use std::time::Duration;

use apimachinery::NamespacedName;
use beehive::{Message, Reply};

use crate::ChangedObjects;
use crate::containermanager::{DeviceReport, Rejection};
use crate::csi_node::CsiNodeDriver;
use crate::edgepage::{NodeView, ViewBounds};
use crate::eventbus::BrokerReport;
use crate::volume_stats::VolumesOfPods;

/// Messages to Edged.
#[derive(Debug)]
pub enum EdgedMsg {
    /// Objects changed in the store: pods, what they need, or the node.
    ObjectsChanged(ChangedObjects),
    /// Desired pods or what they need may have changed in the store: bring the node in line with it. Says nothing about
    /// what changed.
    Reconcile,
    /// The runtime told of an event of one sandbox or container.
    RuntimeEvent {
        /// Its id in the runtime.
        id: String,
    },
    /// Everything in the runtime was listed.
    RuntimeRelisted,
    /// A pod's worker: nothing of the pod is in the runtime any more, another of its name may start.
    PodStopped {
        /// The pod's uid.
        uid: String,
    },
    /// A pod's worker: nothing of the pod is left, and its worker ends.
    PodRemoved {
        /// The pod's uid.
        uid: String,
    },
    /// The eviction manager: the node is short of something, or the machine ends, and this pod has to go.
    EvictPod {
        /// The pod's uid.
        uid: String,
        /// Why, in the word of its status.
        reason: &'static str,
        /// What the pod's status says of it.
        message: String,
        /// How long its containers have to end.
        grace: Duration,
    },
    /// Somebody on the node asks for what runs of a pod to begin again. Answered when its worker knows; why not, else.
    RestartPod {
        /// The pod.
        pod: NamespacedName,
        /// Whether it is done.
        reply: Reply<Result<(), String>>,
    },
    /// The machine does not end after all: static pods that were to go for it run again.
    ShutdownCancelled,
    /// ContainerManager: these are the node's devices now.
    Devices(DeviceReport),
    /// A pod has its devices, CPUs and memory, or can't.
    ResourcesDecided {
        /// The pod's uid.
        uid: String,
        /// Why it can't.
        outcome: Result<(), Rejection>,
    },
    /// EdgeCsi: these CSI drivers are registered, and these volumes are mounted or may be.
    CsiDrivers {
        /// The drivers, by name.
        drivers: Vec<CsiNodeDriver>,
        /// The volumes, as `status.volumesInUse` names them.
        in_use: BTreeSet<String>,
    },
    /// EventBus: whether the MQTT brokers that the settings name can be used.
    MqttBroker(BrokerReport),
    /// Say what the volumes of the pods hold. What was never measured is waited for a moment, and no volume that does not answer.
    VolumeStats {
        /// By the pods' uids.
        reply: Reply<VolumesOfPods>,
    },
    /// Pull an image before a pod needs it. Answered when it is here, or with a sentence why not. It ends when the asker has gone.
    PullImage {
        /// The image, as a container would name it.
        image: String,
        /// A Secret with credentials for registries, as JSON.
        secret: Option<String>,
        /// What became of it.
        reply: Reply<Result<(), String>>,
    },
    /// There is a new link: whoever watches nodes may have written over the node's conditions while nothing was heard of it, and
    /// only the node's own report undoes that. Report the node although nothing has changed.
    ReportNode,
    /// Somebody looks at the node's page.
    Describe {
        /// How much is shown.
        bounds: ViewBounds,
        /// The node and its pods.
        reply: Reply<NodeView>,
    },
    /// Time to say that Edged makes progress, and to look whether the node is to be reported.
    Tick,
}

impl Message for EdgedMsg {
    fn name(&self) -> &'static str {
        match self {
            EdgedMsg::ObjectsChanged(_) => "ObjectsChanged",
            EdgedMsg::Reconcile => "Reconcile",
            EdgedMsg::RuntimeEvent { .. } => "RuntimeEvent",
            EdgedMsg::RuntimeRelisted => "RuntimeRelisted",
            EdgedMsg::PodStopped { .. } => "PodStopped",
            EdgedMsg::PodRemoved { .. } => "PodRemoved",
            EdgedMsg::EvictPod { .. } => "EvictPod",
            EdgedMsg::RestartPod { .. } => "RestartPod",
            EdgedMsg::ShutdownCancelled => "ShutdownCancelled",
            EdgedMsg::Devices(_) => "Devices",
            EdgedMsg::ResourcesDecided { .. } => "ResourcesDecided",
            EdgedMsg::CsiDrivers { .. } => "CsiDrivers",
            EdgedMsg::MqttBroker(_) => "MqttBroker",
            EdgedMsg::VolumeStats { .. } => "VolumeStats",
            EdgedMsg::PullImage { .. } => "PullImage",
            EdgedMsg::ReportNode => "ReportNode",
            EdgedMsg::Describe { .. } => "Describe",
            EdgedMsg::Tick => "Tick",
        }
    }
}
