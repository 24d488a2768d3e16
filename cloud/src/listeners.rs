//! What listens in CloudCore beside the link: enrolment, the link over WebSocket, the admin endpoint; and what keeps the certificates good
//! that they show. Each is an actor, and none of them is told anything by another.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use beehive::link::Connection;
use beehive::{Capacity, Hive, Mailbox, Policy};
use cloud_hub::{
    CertificateKeeper, CertificatesMsg, Enrolment, EnrolmentMsg, EnrolmentSettings, KeeperDependencies,
    KnownCertificates, WebSocketListener, WebSocketMsg,
};
use https::{Port, Tls};
use nodecalls::NodeCalls;
use tokio::sync::mpsc;

use crate::csi_socket::{CsiSocket, CsiSocketMsg};
use crate::monitor::{Monitor, MonitorMsg, MonitorPorts, Watched};

const ENROLMENT: &str = "enrolment";
const WEBSOCKET: &str = "websocket";
const MONITOR: &str = "monitor";
const CSI_SOCKET: &str = "csi-socket";
/// Who keeps certificates good.
pub(crate) const CERTIFICATES: &str = "certificates";

/// Their mailboxes.
pub struct ListenerMailboxes {
    websocket: Option<Mailbox<WebSocketMsg>>,
    enrolment: Mailbox<EnrolmentMsg>,
    monitor: Mailbox<MonitorMsg>,
    csi_socket: Option<Mailbox<CsiSocketMsg>>,
    certificates: Mailbox<CertificatesMsg>,
}

/// What they are made of.
pub struct ListenerDependencies {
    /// Where machines become nodes.
    pub enrolment: EnrolmentListener,
    /// Where nodes arrive whose UDP is blocked, if anywhere.
    pub fallback: Option<FallbackListener>,
    /// The ports of the admin endpoint.
    pub monitor: MonitorPorts,
    /// What the admin endpoint says beside the state of the actors.
    pub watched: Watched,
    /// Where `csidriver` asks that is on the same machine, if anywhere, and the way to the nodes.
    pub csi_socket: Option<(PathBuf, NodeCalls)>,
    /// What the hub knows of nodes' certificates.
    pub known: KnownCertificates,
}

/// Enrolment's port, its certificate, and what it decides with.
pub struct EnrolmentListener {
    /// Its port.
    pub port: Rc<Port>,
    /// Its certificate.
    pub tls: Tls,
    /// What it decides with.
    pub settings: Arc<EnrolmentSettings>,
}

/// The port of the link over WebSocket, its certificate, and where its connections go.
pub struct FallbackListener {
    /// Its port.
    pub port: Rc<Port>,
    /// Its certificate.
    pub tls: Tls,
    /// Where its connections go.
    pub arrivals: mpsc::Sender<Box<dyn Connection>>,
}

/// Registers their mailboxes. `has_websocket`: whether nodes arrive over WebSocket, too. `has_csi_socket`: whether there is the one
/// for `csidriver`.
pub fn mailboxes(hive: &mut Hive, has_websocket: bool, has_csi_socket: bool) -> ListenerMailboxes {
    ListenerMailboxes {
        csi_socket: has_csi_socket
            .then(|| hive.mailbox(CSI_SOCKET, Capacity::new(2, "its server ends once, and is tried again"))),
        websocket: has_websocket.then(|| hive.mailbox(WEBSOCKET, Capacity::new(1, "its server ends once"))),
        enrolment: hive.mailbox(ENROLMENT, Capacity::new(1, "its server ends once")),
        monitor: hive.mailbox(MONITOR, Capacity::new(16, "readers at once")),
        certificates: hive.mailbox(CERTIFICATES, Capacity::new(1, "one look at a time")),
    }
}

/// Makes the actors.
pub fn actors(
    hive: &mut Hive,
    mailboxes: ListenerMailboxes,
    dependencies: ListenerDependencies,
    keeper: KeeperDependencies,
) {
    hive.supervise(mailboxes.certificates, Policy::default(), move || CertificateKeeper::new(keeper.clone()));
    if let (Some(mailbox), Some(fallback)) = (mailboxes.websocket, dependencies.fallback) {
        let FallbackListener { port, tls, arrivals } = fallback;
        let known = dependencies.known;
        hive.supervise(mailbox, Policy::default(), move || {
            WebSocketListener::new(Rc::clone(&port), tls.clone(), arrivals.clone()).knowing(known.clone())
        });
    }
    if let (Some(mailbox), Some((path, calls))) = (mailboxes.csi_socket, dependencies.csi_socket) {
        hive.supervise(mailbox, Policy::default(), move || CsiSocket::new(path.clone(), calls.clone()));
    }
    let EnrolmentListener { port, tls, settings } = dependencies.enrolment;
    hive.supervise(mailboxes.enrolment, Policy::default(), move || {
        Enrolment::new(Rc::clone(&port), tls.clone(), Arc::clone(&settings))
    });
    let (ports, inspector) = (dependencies.monitor, hive.inspector());
    let watched = dependencies.watched;
    hive.supervise(mailboxes.monitor, Policy::default(), move || {
        Monitor::new(ports.clone(), inspector.clone(), watched.clone())
    });
}
