//! CloudHub's actor: which sessions are open, told to whom they concern.

mod renewals;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use beehive::defect::{self, Defect};
use beehive::link::{Acceptor, ByteStreams, Capabilities, WireVersion};
use beehive::{Actor, Address, Clock, Context, Fault, Sample};
use contract::NodeName;
use contract::cloudhub::{CloudHubMsg, SessionReader};
use contract::cloudstream::CloudStreamMsg;
use contract::cloudtaskmanager::CloudTaskMsg;
use contract::devicecontroller::DeviceControllerMsg;
use contract::downlink::{DeviceDown, HubDown};
use contract::edgecontroller::EdgeControllerMsg;
use contract::metamanager::MetaDown;
use contract::nodelease::{NodeLeaseMsg, OpenLink};
use contract::router::RouterMsg;
use contract::synccontroller::SyncMsg;
use noderegistry::{Registry, RegistryEvent};
use tokio::sync::{Mutex, Notify};

use crate::addresses::Addresses;
use crate::certificates::{RenewalSettings, Renewals, days_left};
use crate::events;
use crate::known_certificates::KnownCertificates;
use crate::leaving::Leaving;
use crate::link_acceptor::{AdmittedLink, AdmittedLinks, LinkAcceptor, LinkPermit};
use crate::linked_nodes::LinkedNodes;
use crate::plan::{SessionDecision, decide};
use crate::revocation::CertificateCheck;
use crate::session::{ENDS_WITHIN, Session};

/// Everybody who is told of sessions, in this order: what others have NodeLease show, it knows before.
const READERS: [SessionReader; 7] = [
    SessionReader::NodeLease,
    SessionReader::SyncController,
    SessionReader::EdgeController,
    SessionReader::DeviceController,
    SessionReader::CloudStream,
    SessionReader::CloudRouter,
    SessionReader::CloudTaskManager,
];

/// 2 s in which those who are not linked yet are told that the hub stops: for as long as one that hears nothing may take.
const TOLD_WITHIN: Duration = Duration::from_secs(2);

/// A session that is open.
struct OpenSession {
    session: u64,
    link: OpenLink,
    /// The serial of the certificate of which others know.
    certificate: String,
    version: WireVersion,
    /// What the node's end understands beyond its wire version.
    capabilities: Capabilities,
    meta: Address<MetaDown>,
    twin: Address<DeviceDown>,
    hub: Address<HubDown>,
    /// Whether the node has taken what it is to trust.
    trusts: Rc<Cell<bool>>,
    streams: ByteStreams,
    permit: LinkPermit,
}

/// Accepts links, opens a session for each node that NodeLease claims, ends those that are not to be any more, and hands the
/// nodes' mailboxes on. All of that is of one incarnation: with it every link ends, and its successor begins with none.
pub struct CloudHub {
    acceptor: Rc<Mutex<Box<dyn Acceptor>>>,
    registry: Registry,
    node_limit: usize,
    addresses: Addresses,
    open: BTreeMap<NodeName, OpenSession>,
    admitted: AdmittedLinks,
    leaving: Rc<Leaving>,
    check: Rc<RefCell<CertificateCheck>>,
    known: KnownCertificates,
    linked: LinkedNodes,
    renewals: Option<Renewals>,
    clock: Option<Arc<dyn Clock>>,
}

impl CloudHub {
    /// A hub that takes what `acceptor` brings, at most `node_limit` nodes. A later incarnation goes on with the same
    /// acceptor.
    pub fn new(
        acceptor: Rc<Mutex<Box<dyn Acceptor>>>,
        registry: Registry,
        node_limit: usize,
        addresses: Addresses,
    ) -> Self {
        CloudHub {
            acceptor,
            registry,
            node_limit,
            addresses,
            open: BTreeMap::new(),
            admitted: Rc::default(),
            leaving: Rc::default(),
            check: Rc::default(),
            known: KnownCertificates::default(),
            linked: LinkedNodes::default(),
            renewals: None,
            clock: None,
        }
    }

    /// The same, which says in `known` which certificates are good. Others who count by names go by it as well; it outlives the
    /// incarnation.
    #[must_use]
    pub fn knowing(mut self, known: KnownCertificates) -> Self {
        self.known = known;
        self
    }

    /// The same, which says in `linked` who is linked. It outlives the incarnation.
    #[must_use]
    pub fn showing(mut self, linked: LinkedNodes) -> Self {
        self.linked = linked;
        self
    }

    /// The same, which renews certificates over links and tells nodes whom to trust. `settings` outlive the incarnation.
    #[must_use]
    pub fn renewing(mut self, settings: RenewalSettings) -> Self {
        self.renewals = Some(Renewals::new(settings, self.registry.clone()));
        self
    }
}

impl Actor for CloudHub {
    type Message = CloudHubMsg;

    async fn started(&mut self, cx: &mut Context<CloudHubMsg>) -> Result<(), Fault> {
        // The links of an earlier incarnation have ended with it.
        self.linked.none();
        for reader in READERS {
            self.tell_none(reader).await;
        }
        self.watch_register(cx);
        let link_acceptor = LinkAcceptor::new(
            cx.env().clone(),
            self.addresses.clone(),
            self.node_limit,
            (Rc::clone(&self.check), self.known.clone()),
            (Rc::clone(&self.admitted), Rc::clone(&self.leaving)),
            cx.myself(),
        )
        .renewing(self.renewals.clone());
        self.clock = Some(cx.env().clock());
        let acceptor = Rc::clone(&self.acceptor);
        cx.spawn(async move { link_acceptor.run(acceptor).await });
        Ok(())
    }

    async fn handle(&mut self, message: CloudHubMsg, cx: &mut Context<CloudHubMsg>) -> Result<(), Fault> {
        match message {
            CloudHubMsg::Opened { node, session } => self.opened(node, session, cx).await,
            CloudHubMsg::Closed { node, session, reason } => {
                self.closed(node, session, &reason, cx).await;
            }
            CloudHubMsg::SessionOver { node, session, reason } => {
                if self.has(&node, session) {
                    events::session_over(cx.env(), &node, session, &reason);
                    self.end(node, session, &reason, None, cx).await;
                }
            }
            CloudHubMsg::CertificatesChanged => {
                self.end_revoked(cx).await;
                self.note_renewed().await;
            }
            CloudHubMsg::Up { node, session, certificate, message } => {
                self.up(node, session, certificate, message, cx);
            }
            CloudHubMsg::TrustChanged => {
                for (node, open) in &self.open {
                    self.tell_trust(node, open, cx);
                }
            }
            CloudHubMsg::TellSessions { .. } if defect::is_planted(Defect::SessionsNotTold) => {}
            CloudHubMsg::TellSessions { to } => self.tell_all(to).await,
        }
        Ok(())
    }

    /// The sessions have ended before.
    async fn stopping(&mut self, cx: &mut Context<CloudHubMsg>) {
        self.leaving.begin();
        cx.env().timeout(TOLD_WITHIN, self.leaving.everybody_told()).await;
        // Of those that were let in while the hub stopped, nobody opens a session.
        self.admitted.borrow_mut().clear();
    }

    fn snapshot(&self) -> serde_json::Value {
        let nodes: BTreeMap<&str, serde_json::Value> = self
            .open
            .iter()
            .map(|(node, open)| {
                let (bytes_in, bytes_out) = (open.link.traffic.received(), open.link.traffic.sent());
                let view = serde_json::json!({
                    "session": open.session, "bytesIn": bytes_in, "bytesOut": bytes_out,
                    "transport": open.link.transport.to_string(), "wireVersion": open.version.number(),
                    "capabilities": open.capabilities.names().collect::<Vec<_>>(),
                    "certificate": open.certificate, "trustTaken": open.trusts.get(),
                    "certificateEndsUnix": open.link.certificate_valid.map(|(_, ends)| ends),
                });
                (node.as_str(), view)
            })
            .collect();
        serde_json::json!({ "nodes": nodes, "admitted": self.admitted.borrow().len() })
    }

    fn samples(&self) -> Vec<Sample> {
        let mut samples = vec![Sample::new("KubeEdge_CloudCore_connected_nodes", self.open.len() as f64)];
        for (node, open) in &self.open {
            let of = |name, bytes: u64| Sample::new(name, bytes as f64).of("node", node.as_str());
            samples.push(of("kubehive_node_link_received_bytes_total", open.link.traffic.received()));
            samples.push(of("kubehive_node_link_sent_bytes_total", open.link.traffic.sent()));
            samples.push(of("kubehive_node_trust_taken", open.trusts.get().into()));
            if let (Some(clock), Some((_, ends))) = (&self.clock, open.link.certificate_valid) {
                let ends = SystemTime::UNIX_EPOCH + Duration::from_secs(ends);
                let left = Sample::new("kubehive_node_certificate_days_left", days_left(ends, clock.wall()));
                samples.push(left.of("node", node.as_str()));
            }
        }
        samples
    }
}

/// Whether names may have become fewer that are good for anything, or are known for the first time.
fn is_fewer(event: &RegistryEvent) -> bool {
    match event {
        RegistryEvent::Init => false,
        RegistryEvent::InitDone | RegistryEvent::Delete(_) => true,
        RegistryEvent::Apply(_, status) => status.clone().good().is_empty(),
    }
}

impl CloudHub {
    fn has(&self, node: &NodeName, session: u64) -> bool {
        self.open.get(node).is_some_and(|open| open.session == session)
    }

    /// Holds the certificates of sessions, open or about to be, against the register from now on.
    fn watch_register(&self, cx: &Context<CloudHubMsg>) {
        let changed = Rc::new(Notify::new());
        let (registry, env, check) = (self.registry.clone(), cx.env().clone(), Rc::clone(&self.check));
        let (found, known, myself) = (Rc::clone(&changed), self.known.clone(), cx.myself());
        let (fewer, stream) = (Rc::new(Notify::new()), self.addresses.stream.clone());
        let told = Rc::clone(&fewer);
        cx.spawn(async move {
            let apply = |event| {
                known.apply(&event);
                if is_fewer(&event) {
                    told.notify_one();
                }
                if check.borrow_mut().apply(event) {
                    found.notify_one();
                }
            };
            registry.watch(&env, apply).await;
        });
        cx.spawn(async move {
            loop {
                fewer.notified().await;
                let _ = stream.tell(CloudStreamMsg::RegisterChanged).await;
            }
        });
        cx.spawn(async move {
            loop {
                changed.notified().await;
                let _ = myself.tell(CloudHubMsg::CertificatesChanged).await;
            }
        });
    }

    /// Ends the sessions whose certificates the register has revoked.
    async fn end_revoked(&mut self, cx: &Context<CloudHubMsg>) {
        let revoked: Vec<_> = self
            .open
            .iter()
            .filter_map(|(node, open)| Some((node.clone(), open.session, open.permit.certificate.revoked()?)))
            .collect();
        for (node, session, reason) in revoked {
            events::certificate_revoked(cx.env(), &node, reason);
            self.end(node, session, reason, Some(reason), cx).await;
        }
    }

    async fn opened(&mut self, node: NodeName, session: u64, cx: &Context<CloudHubMsg>) {
        let admitted = self.admitted.borrow_mut().remove(&(node.clone(), session));
        // Of an earlier incarnation: its link has ended with that.
        let Some(AdmittedLink { link, permit }) = admitted else { return };
        // The register has changed since the node was claimed.
        if let Some(reason) = permit.certificate.revoked() {
            return events::certificate_revoked(cx.env(), &node, reason);
        }
        match decide(self.open.get(&node).map(|open| open.session), session) {
            SessionDecision::IsOlder => return events::session_was_older(cx.env(), &node, session),
            SessionDecision::Opens { replaces: Some(older) } => {
                self.end(node.clone(), older, "a later session of the node has opened", None, cx).await;
            }
            SessionDecision::Opens { replaces: None } => {}
        }
        events::session_opened(cx.env(), &node, session, &link);
        let open = OpenSession {
            session,
            link: OpenLink {
                transport: link.transport(),
                traffic: link.traffic(),
                certificate_valid: link.peer().validity_unix(),
            },
            certificate: permit.certificate.serial(),
            version: link.version(),
            capabilities: link.capabilities().clone(),
            meta: link.remote(),
            twin: link.remote(),
            hub: link.remote(),
            trusts: Rc::default(),
            streams: link.byte_streams(),
            permit,
        };
        self.linked.began(&node, session);
        for reader in READERS {
            self.tell_up(reader, &node, &open).await;
        }
        self.tell_trust(&node, &open, cx);
        self.open.insert(node.clone(), open);
        let name = Session::name(&node, session);
        cx.child(name, Session::policy(), Session::factory(node, session, link, cx.for_children()));
    }

    /// A session's link has ended.
    async fn closed(&mut self, node: NodeName, session: u64, reason: &str, cx: &Context<CloudHubMsg>) {
        if self.has(&node, session) {
            self.end(node, session, reason, None, cx).await;
        }
    }

    /// `revoked`: why its certificate is good for nothing any more, if that is why.
    async fn end(
        &mut self,
        node: NodeName,
        session: u64,
        reason: &str,
        revoked: Option<&'static str>,
        cx: &Context<CloudHubMsg>,
    ) {
        self.open.remove(&node);
        self.linked.ended(&node, session);
        // It goes on by itself; a child that has ended is not there any more.
        drop(cx.stop_child(Session::name(&node, session), ENDS_WITHIN));
        events::session_ended(cx.env(), &node, session, reason);
        // SyncController's word that there is no link is shown by what NodeLease knows of it: that comes first, as with a session that
        // opens.
        let down = NodeLeaseMsg::NodeDown { node: node.clone(), session, revoked };
        let _ = self.addresses.lease.tell(down).await;
        let _ = self.addresses.sync.tell(SyncMsg::NodeDown { node: node.clone(), session }).await;
        let _ = self.addresses.edge.tell(EdgeControllerMsg::NodeDown { node: node.clone(), session }).await;
        let _ =
            self.addresses.device.tell(DeviceControllerMsg::NodeDown { node: node.clone(), session }).await;
        let _ = self.addresses.stream.tell(CloudStreamMsg::NodeDown { node: node.clone(), session }).await;
        let _ = self.addresses.router.tell(RouterMsg::NodeDown { node: node.clone(), session }).await;
        let _ = self.addresses.tasks.tell(CloudTaskMsg::NodeDown { node, session }).await;
    }

    /// Says to one who has begun anew which sessions are open.
    async fn tell_all(&self, to: SessionReader) {
        self.tell_none(to).await;
        for (node, open) in &self.open {
            self.tell_up(to, node, open).await;
        }
    }

    async fn tell_none(&self, to: SessionReader) {
        let Addresses { lease, sync, edge, device, stream, router, tasks } = &self.addresses;
        let _ = match to {
            SessionReader::NodeLease => lease.tell(NodeLeaseMsg::AllNodesDown).await,
            SessionReader::SyncController => sync.tell(SyncMsg::AllNodesDown).await,
            SessionReader::EdgeController => edge.tell(EdgeControllerMsg::AllNodesDown).await,
            SessionReader::DeviceController => device.tell(DeviceControllerMsg::AllNodesDown).await,
            SessionReader::CloudStream => stream.tell(CloudStreamMsg::AllNodesDown).await,
            SessionReader::CloudRouter => router.tell(RouterMsg::AllNodesDown).await,
            SessionReader::CloudTaskManager => tasks.tell(CloudTaskMsg::AllNodesDown).await,
        };
    }

    async fn tell_up(&self, to: SessionReader, node: &NodeName, open: &OpenSession) {
        let Addresses { lease, sync, edge, device, stream, router, tasks } = &self.addresses;
        let (node, session) = (node.clone(), open.session);
        let _ = match to {
            SessionReader::NodeLease => {
                let (certificate, link) = (open.certificate.clone(), open.link.clone());
                lease.tell(NodeLeaseMsg::NodeUp { node, session, certificate, link }).await
            }
            SessionReader::SyncController => {
                sync.tell(SyncMsg::NodeUp { node, session, meta: open.meta.clone() }).await
            }
            SessionReader::EdgeController => edge.tell(EdgeControllerMsg::NodeUp { node, session }).await,
            SessionReader::DeviceController => {
                device.tell(DeviceControllerMsg::NodeUp { node, session, twin: open.twin.clone() }).await
            }
            SessionReader::CloudStream => {
                let (streams, version) = (open.streams.clone(), open.version);
                stream.tell(CloudStreamMsg::NodeUp { node, session, streams, version }).await
            }
            SessionReader::CloudRouter => router.tell(RouterMsg::NodeUp { node, session }).await,
            SessionReader::CloudTaskManager => tasks.tell(CloudTaskMsg::NodeUp { node, session }).await,
        };
    }
}
