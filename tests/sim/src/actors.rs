//! The actors of both daemons and the messages that each takes: what panics are planned for.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// An actor, or the children of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ActorKind {
    /// Its name in its hive.
    pub name: &'static str,
    /// Of which daemon it is.
    pub daemon: Daemon,
    /// It is no child of another actor.
    pub is_top: bool,
    /// The names of its messages, as [`beehive::Message::name`] has them.
    pub messages: &'static [&'static str],
}

/// A daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Daemon {
    /// CloudCore.
    Cloud,
    /// EdgeCore.
    Edge,
}

/// All of them. A run holds every actor that a hive reports against this list, and every message that one with a probe is
/// delivered.
pub const ACTORS: [ActorKind; 27] = [
    ActorKind {
        name: "cloud-nodelease",
        daemon: Daemon::Cloud,
        is_top: true,
        messages: &[
            "Claim",
            "AllNodesDown",
            "NodeUp",
            "NodeDown",
            "CertificateRenewed",
            "Session",
            "NodeCreated",
            "NodeMissing",
            "Holds",
            "Holder",
            "Renew",
            "ShowSynced",
        ],
    },
    ActorKind {
        name: "cloud-synccontroller",
        daemon: Daemon::Cloud,
        is_top: true,
        messages: &[
            "ListBegins",
            "Upsert",
            "Delete",
            "Flush",
            "ListComplete",
            "Current",
            "AllNodesDown",
            "NodeUp",
            "NodeDown",
            "Inventory",
            "ObjectVersions",
            "Applied",
            "Retry",
            "Tick",
            "StatusWritten",
        ],
    },
    ActorKind {
        name: "cloud-edgecontroller",
        daemon: Daemon::Cloud,
        is_top: true,
        messages: &[
            "AllNodesDown",
            "NodeUp",
            "NodeDown",
            "ListAgain",
            "Reports",
            "Alive",
            "Token",
            "Reconcile",
        ],
    },
    ActorKind { name: "eviction-probe", daemon: Daemon::Cloud, is_top: false, messages: &["Ask"] },
    ActorKind {
        name: "cloud-devicecontroller",
        daemon: Daemon::Cloud,
        is_top: true,
        messages: &[
            "Up",
            "AllNodesDown",
            "NodeUp",
            "NodeDown",
            "ListAgain",
            "Reconcile",
            "StatusWritten",
            "LookForNodes",
            "NodesLookedUp",
        ],
    },
    ActorKind {
        name: "cloud-router",
        daemon: Daemon::Cloud,
        is_top: true,
        messages: &[
            "Telemetry",
            "AllNodesDown",
            "NodeUp",
            "NodeDown",
            "ListAgain",
            "Reconcile",
            "WriteStatus",
            "StatusWritten",
        ],
    },
    ActorKind {
        name: "cloud-taskmanager",
        daemon: Daemon::Cloud,
        is_top: true,
        messages: &["AllNodesDown", "NodeUp", "NodeDown", "ListAgain", "Reconcile", "Gathered", "Tick"],
    },
    ActorKind {
        name: "cloud-hub",
        daemon: Daemon::Cloud,
        is_top: true,
        messages: &[
            "Opened",
            "Closed",
            "SessionOver",
            "CertificatesChanged",
            "RenewCertificate",
            "CertificateKept",
            "TrustChanged",
            "TellSessions",
        ],
    },
    ActorKind { name: "certificates", daemon: Daemon::Cloud, is_top: true, messages: &["Reconcile"] },
    ActorKind { name: "session", daemon: Daemon::Cloud, is_top: false, messages: &["LinkEnded"] },
    ActorKind {
        name: "cloud-stream",
        daemon: Daemon::Cloud,
        is_top: true,
        messages: &[
            "AllNodesDown",
            "NodeUp",
            "NodeDown",
            "TellEndpoints",
            "PortsSaid",
            "PortSaid",
            "RegisterChanged",
            "Listening",
            "PortRefused",
            "OpenAgain",
            "ClientCa",
            "RenewCertificate",
            "ServerEnded",
        ],
    },
    ActorKind {
        name: "edge-hub",
        daemon: Daemon::Edge,
        is_top: true,
        messages: &[
            "Dial",
            "Probe",
            "QuicPasses",
            "NetworkChanged",
            "LinkUp",
            "LinkSilent",
            "LinkHeard",
            "LinkEnded",
            "MetaBegan",
            "Trust",
            "LookAtCertificate",
            "RenewalEnded",
            "ServersChanged",
            "CertificateSuperseded",
        ],
    },
    ActorKind {
        name: "edge-taskmanager",
        daemon: Daemon::Edge,
        is_top: true,
        messages: &["ObjectsChanged", "Tick"],
    },
    ActorKind { name: "edge-servicebus", daemon: Daemon::Edge, is_top: true, messages: &["ObjectsChanged"] },
    ActorKind {
        name: "edge-metamanager",
        daemon: Daemon::Edge,
        is_top: true,
        messages: &[
            "LinkUp",
            "LinkDown",
            "Inventory",
            "ObjectVersions",
            "Apply",
            "OutboxGrew",
            "EdgedAlive",
            "Delivered",
            "Token",
        ],
    },
    ActorKind {
        name: "edge-devicetwin",
        daemon: Daemon::Edge,
        is_top: true,
        messages: &["ObjectsChanged", "Mqtt", "Dmi", "Report", "Probe", "Push", "Pushed", "ListFacts"],
    },
    ActorKind {
        name: "edge-devicerules",
        daemon: Daemon::Edge,
        is_top: true,
        messages: &["TwinsBegan", "Facts", "Acted", "Wake"],
    },
    ActorKind {
        name: "edge-eventbus",
        daemon: Daemon::Edge,
        is_top: true,
        messages: &["Publish", "ObjectsChanged", "RouterDied"],
    },
    ActorKind {
        name: "edge-edged",
        daemon: Daemon::Edge,
        is_top: true,
        messages: &[
            "ObjectsChanged",
            "Reconcile",
            "RuntimeEvent",
            "RuntimeRelisted",
            "PodStopped",
            "PodRemoved",
            "EvictPod",
            "ShutdownCancelled",
            "Devices",
            "ResourcesDecided",
            "CsiDrivers",
            "ReportNode",
            "Tick",
        ],
    },
    ActorKind {
        name: "pod-worker",
        daemon: Daemon::Edge,
        is_top: false,
        messages: &[
            "Updated",
            "ObjectsChanged",
            "RuntimeChanged",
            "StatusRead",
            "ActionEnded",
            "ActionFailed",
            "Probed",
            "EndReported",
            "Wake",
        ],
    },
    ActorKind {
        name: "eviction-manager",
        daemon: Daemon::Edge,
        is_top: false,
        messages: &["Measure", "Observed", "Counted", "Acted"],
    },
    ActorKind {
        name: "image-collector",
        daemon: Daemon::Edge,
        is_top: false,
        messages: &["Collect", "Collected"],
    },
    ActorKind { name: "log-manager", daemon: Daemon::Edge, is_top: false, messages: &["Rotate", "Rotated"] },
    ActorKind { name: "static-pods", daemon: Daemon::Edge, is_top: false, messages: &["Read"] },
    ActorKind {
        name: "edge-csi",
        daemon: Daemon::Edge,
        is_top: true,
        messages: &["Mount", "Unmount", "TellDrivers", "Look", "Found"],
    },
    ActorKind {
        name: "edge-containermanager",
        daemon: Daemon::Edge,
        is_top: true,
        messages: &[
            "Admit",
            "Admitted",
            "Grant",
            "ActivePods",
            "KnownPods",
            "Registered",
            "Listed",
            "PluginGone",
            "Query",
            "Tick",
            "Pin",
        ],
    },
    ActorKind { name: "publisher", daemon: Daemon::Edge, is_top: false, messages: &["Publish"] },
];

/// Actors that a run's hives have and that are never told anything there: their doors are sockets, the machine's logind, callers of
/// the node's kubelet API and browsers, which the simulation has none of. Their restarts are looked at in their own crates' tests.
pub(crate) const SILENT: [&str; 5] =
    ["dmi-server", "edge-page", "edge-stream", "node-shutdown", "volume-stats"];

/// An actor and one of its messages.
pub type ActorMessage = (&'static str, &'static str);

/// Which messages the actors with a probe were given.
#[derive(Clone, Default)]
pub(crate) struct DeliveredMessages(Arc<Mutex<BTreeSet<ActorMessage>>>);

impl DeliveredMessages {
    pub(crate) fn note(&self, actor: &'static str, message: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((actor, message));
    }

    pub(crate) fn all(&self) -> BTreeSet<ActorMessage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
