//! From a connection to a session: the hello, the claim of the node, the answer.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use beehive::link::{Acceptor, Connection, IncomingLink, Link, LinkError, PeerName, Refused, Routes};
use beehive::{Address, Env, Fault};
use contract::cloudhub::CloudHubMsg;
use contract::cloudtaskmanager::{CloudTaskMsg, TaskUp};
use contract::devicecontroller::{DeviceControllerMsg, DeviceUp};
use contract::edgecontroller::{EdgeControllerMsg, EdgeUp};
use contract::nodelease::{CLAIM_DEADLINE, CLAIM_WAIT, ClaimRefused, NodeLeaseMsg};
use contract::router::{RouterMsg, RouterUp};
use contract::uplink::HubUp;
use contract::{NodeName, capability};
use futures::StreamExt;
use futures::future::Abortable;
use futures::stream::FuturesUnordered;
use pki::NODE_PREFIX;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

use crate::addresses::Addresses;
use crate::certificates::Renewals;
use crate::connection_limiter::{ConnectionLimiter, CountedConnection, Progress};
use crate::events;
use crate::known_certificates::{Holder, KnownCertificates};
use crate::leaving::{Arrival, Leaving};
use crate::plan::{NodeLimit, NodePermit};
use crate::revocation::CertificateCheck;
use crate::session_rate::SessionRateLimiter;

/// 64: nodes that are claimed at once; those of a storm that were let through wait for their turn.
const CLAIMS_MAX: usize = 64;
/// 32 more at once whose certificates nobody knows to be good: the register is asked about each.
const UNKNOWN_CLAIMS_MAX: usize = 32;
/// 30 s: what a node is asked to wait that finds the hub full.
const FULL_WAIT: Duration = Duration::from_secs(30);
/// 4 s for its turn: with [`CLAIM_DEADLINE`] less than the 10 s that its hello waits for an answer. A node that has given up and gone
/// elsewhere is not to be taken from there, and where claims are slow those that still wait go before those that have left.
const TURN_DEADLINE: Duration = Duration::from_secs(4);

/// 30 s for a node to have a certificate renewed that has ended.
const RENEWAL_WITHIN: Duration = Duration::from_secs(30);
/// 60 s: what a node is asked to wait whose certificate has ended and cannot be renewed.
const ENDED_WAIT: Duration = Duration::from_secs(60);

/// A link that was admitted and has no session yet.
pub(crate) struct AdmittedLink {
    pub(crate) link: Link,
    pub(crate) permit: LinkPermit,
}

/// A node that is linked or about to be: it counts against the limit, and its certificate is held against the register.
pub(crate) struct LinkPermit {
    pub(crate) certificate: TrackedCertificate,
    _counted: NodePermit,
}

/// A certificate that is held against the register, until this is dropped.
pub(crate) struct TrackedCertificate {
    check: Rc<RefCell<CertificateCheck>>,
    node: NodeName,
    pub(crate) id: u64,
}

impl TrackedCertificate {
    fn new(check: &Rc<RefCell<CertificateCheck>>, node: &NodeName, serial: &str) -> Self {
        let id = check.borrow_mut().enter(node, serial);
        TrackedCertificate { check: Rc::clone(check), node: node.clone(), id }
    }

    /// The serial of the certificate that the node has now.
    pub(crate) fn serial(&self) -> String {
        self.serials().into_iter().next().unwrap_or_default()
    }

    /// The same, and behind it those that were given over this link since.
    pub(crate) fn serials(&self) -> Vec<String> {
        self.check.borrow().serials(&self.node, self.id)
    }

    /// When the certificate that the node has now begins and ends, in seconds since 1970, if it was given over this link.
    pub(crate) fn given_valid(&self) -> Option<(u64, u64)> {
        self.check.borrow().given_valid(&self.node, self.id)
    }

    /// Why it is not good any more, if it is not.
    pub(crate) fn revoked(&self) -> Option<&'static str> {
        self.check.borrow().revoked(&self.node, self.id)
    }
}

impl Drop for TrackedCertificate {
    fn drop(&mut self) {
        self.check.borrow_mut().leave(&self.node, self.id);
    }
}

/// Links that were admitted, for the hub to open their sessions.
pub(crate) type AdmittedLinks = Rc<RefCell<BTreeMap<(NodeName, u64), AdmittedLink>>>;

/// What arrivals need of the hub. It is of one incarnation: its end ends every connection here.
pub(crate) struct LinkAcceptor {
    env: Env,
    addresses: Addresses,
    limiter: ConnectionLimiter,
    rates: RefCell<SessionRateLimiter>,
    claims: Arc<Semaphore>,
    unknown_claims: Arc<Semaphore>,
    known: KnownCertificates,
    nodes: NodeLimit,
    check: Rc<RefCell<CertificateCheck>>,
    admitted: AdmittedLinks,
    leaving: Rc<Leaving>,
    hub: Address<CloudHubMsg>,
    /// Renews certificates over links, if they are.
    renewals: Option<Renewals>,
}

impl LinkAcceptor {
    pub(crate) fn new(
        env: Env,
        addresses: Addresses,
        node_limit: usize,
        (check, known): (Rc<RefCell<CertificateCheck>>, KnownCertificates),
        (admitted, leaving): (AdmittedLinks, Rc<Leaving>),
        hub: Address<CloudHubMsg>,
    ) -> Self {
        LinkAcceptor {
            limiter: ConnectionLimiter::new(known.clone()),
            rates: RefCell::new(SessionRateLimiter::new(env.now())),
            claims: Arc::new(Semaphore::new(CLAIMS_MAX)),
            unknown_claims: Arc::new(Semaphore::new(UNKNOWN_CLAIMS_MAX)),
            known,
            nodes: NodeLimit::new(node_limit),
            env,
            addresses,
            check,
            admitted,
            leaving,
            hub,
            renewals: None,
        }
    }

    /// The same, over whose links `renewals` renews certificates.
    pub(crate) fn renewing(self, renewals: Option<Renewals>) -> Self {
        LinkAcceptor { renewals, ..self }
    }

    /// Takes connections at once, whatever the earlier ones do: whoever waits does so under the bounds of the limiter.
    pub(crate) async fn run(self, acceptor: Rc<Mutex<Box<dyn Acceptor>>>) {
        let acceptor = acceptor.lock().await;
        let connections = futures::stream::unfold(acceptor, async |mut acceptor| {
            acceptor.accept().await.map(|connection| (connection, acceptor))
        });
        let mut connections = std::pin::pin!(connections.fuse());
        let mut arrivals = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(()) = arrivals.next() => {}
                Some(connection) = connections.next() => arrivals.extend(self.arrive(connection)),
                else => return,
            }
        }
    }

    fn arrive(&self, connection: Box<dyn Connection>) -> Option<impl Future<Output = ()>> {
        let counted = self.limiter.enter(connection, self.env.now())?;
        Some(self.receive(counted, self.leaving.arrival()))
    }

    async fn receive(&self, counted: CountedConnection, to_be_answered: Arrival) {
        let CountedConnection { connection, progress, until } = counted;
        let peer = connection.peer().clone();
        let met = Abortable::new(IncomingLink::read_hello(&self.env, connection), until).await;
        let arrival = match met.unwrap_or(Err(LinkError::Late)) {
            Ok(arrival) => arrival,
            Err(error @ LinkError::Broke(_)) => {
                return events::left_early(&self.env, &peer, &Fault::from_error(&error).reason);
            }
            Err(error) => return events::hello_refused(&self.env, &peer, &Fault::from_error(&error).reason),
        };
        if has_ended(&peer, self.judged_by()) {
            return self.renew_alone(arrival, &progress, to_be_answered).await;
        }
        let claimed = self.leaving.unless(self.claim(&peer, &progress)).await;
        let (node, session, permit) = match claimed {
            Ok(claimed) => claimed,
            Err(refused) => {
                events::node_refused(&self.env, &peer, &refused.reason);
                return arrival.refuse(refused).await;
            }
        };
        progress.session(&Holder::known(&peer));
        match arrival.admit(self.routes(&node, session)).await {
            Ok(link) => {
                self.admitted.borrow_mut().insert((node.clone(), session), AdmittedLink { link, permit });
                let _ = self.hub.tell(CloudHubMsg::Opened { node, session }).await;
            }
            Err(error) => events::left_early(&self.env, &peer, &Fault::from_error(&error).reason),
        }
    }

    /// The time by which it is judged whether a certificate has ended: the clock's, but not before this program was made. The transport goes
    /// by the same (its own certificate begins then at the earliest), so that none that it has let through ended is taken for one that lives. While the
    /// clock is in doubt that is the earlier of two: one that may have ended has its session, and none is signed for it before they agree.
    fn judged_by(&self) -> SystemTime {
        let made = SystemTime::UNIX_EPOCH + Duration::from_secs(pki::MADE_AT_UNIX);
        self.renewals.as_ref().map_or_else(|| self.env.wall().max(made), |by| by.judged_by(&self.env))
    }

    /// A node whose certificate has ended gets no session: it may have that renewed, and reaches nothing else.
    async fn renew_alone(&self, arrival: IncomingLink, progress: &Progress, to_be_answered: Arrival) {
        let peer = arrival.peer().clone();
        let understands = arrival.capabilities().has(capability::TRUST);
        let judged = self.leaving.unless(self.judge_ended(&peer, progress, understands)).await;
        let node = match judged {
            Ok(node) => node,
            Err(refused) => {
                events::node_refused(&self.env, &peer, &refused.reason);
                return arrival.refuse(refused).await;
            }
        };
        progress.session(&Holder::known(&peer));
        let routes =
            Routes::new().accept(self.hub.clone(), hub_route(&node, None)).saying(capability::RENEWAL_ONLY);
        match arrival.admit(routes).await {
            Ok(link) => {
                drop(to_be_answered);
                events::ended_certificate_let_in(&self.env, &node);
                // The link goes when it is dropped here.
                let _ = self.env.timeout(RENEWAL_WITHIN, link.ended()).await;
            }
            Err(error) => events::left_early(&self.env, &peer, &Fault::from_error(&error).reason),
        }
    }

    /// Whether a node whose certificate has ended may have it renewed: the register is asked before its link has a place.
    async fn judge_ended(
        &self,
        peer: &PeerName,
        progress: &Progress,
        understands: bool,
    ) -> Result<NodeName, Refused> {
        let holder = self.take_turn(peer, progress)?;
        let node = node_of(peer)?;
        let Some(renewals) = self.renewals.as_ref().filter(|_| understands) else {
            let reason = "this node's certificate has ended: run `keadm reset --force` and join again with a token for its name (`keadm gettoken --edgenode-name`)".to_owned();
            return Err(Refused { reason, wait: Some(ENDED_WAIT) });
        };
        let _turn = self.turn(&holder).await?;
        let judged = self.env.timeout(CLAIM_DEADLINE, renewals.judge(&node, peer.serial())).await;
        let unanswered = || {
            let reason = "whose the node is cannot be found out now".to_owned();
            Err(Refused { reason, wait: Some(CLAIM_WAIT) })
        };
        judged.unwrap_or_else(unanswered)?;
        self.known.note(&node, peer.serial());
        Ok(node)
    }

    /// A place among those about whom the register is asked.
    async fn turn(&self, holder: &Holder) -> Result<SemaphorePermit<'_>, Refused> {
        let turns = if holder.is_known() { &self.claims } else { &self.unknown_claims };
        let turn = self.env.timeout(TURN_DEADLINE, turns.acquire()).await;
        turn.and_then(Result::ok).ok_or_else(|| {
            let reason = "nodes are claimed more slowly than they arrive".to_owned();
            Refused { reason, wait: Some(CLAIM_WAIT) }
        })
    }

    /// Checks who it is, and claims the node: from now on this CloudCore has it, and every other one has not.
    async fn claim(
        &self,
        peer: &PeerName,
        progress: &Progress,
    ) -> Result<(NodeName, u64, LinkPermit), Refused> {
        let holder = self.take_turn(peer, progress)?;
        let _turn = self.turn(&holder).await?;
        let node = node_of(peer)?;
        // One whose certificate is yet to be judged takes no place of a node's: it counts from when it is.
        let counted = if holder.is_known() {
            self.nodes.enter(&node).map(Some)
        } else {
            self.nodes.has_room(&node).then_some(None)
        };
        let counted = counted.ok_or_else(|| {
            let reason = format!("this CloudCore serves its limit of {} nodes", self.nodes.most());
            Refused { reason, wait: Some(FULL_WAIT) }
        })?;
        let certificate = TrackedCertificate::new(&self.check, &node, peer.serial());
        let serial = peer.serial().to_owned();
        let claim = |reply| NodeLeaseMsg::Claim { node: node.clone(), certificate: serial, reply };
        match self.addresses.lease.ask(CLAIM_DEADLINE, claim).await {
            Ok(Ok(session)) => {
                self.known.note(&node, peer.serial());
                let counted = counted.unwrap_or_else(|| self.nodes.enter_anyway(&node));
                Ok((node, session, LinkPermit { certificate, _counted: counted }))
            }
            Ok(Err(ClaimRefused { reason, wait })) => Err(Refused { reason, wait }),
            Err(error) => {
                events::claim_failed(&self.env, &node, &error.to_string());
                let reason = "whose the node is cannot be found out now".to_owned();
                Err(Refused { reason, wait: Some(CLAIM_WAIT) })
            }
        }
    }

    /// Before anything is read for it: a storm is sent away cheaply, and one node's storm takes nothing of another's. Answers whose
    /// places it takes.
    fn take_turn(&self, peer: &PeerName, progress: &Progress) -> Result<Holder, Refused> {
        let holder = self.known.holder(peer);
        let refuse = |reason: &str, wait| Refused { reason: reason.to_owned(), wait: Some(wait) };
        progress.hello(&holder).map_err(|wait| refuse("other links of this node are not over", wait))?;
        let taken = self.rates.borrow_mut().take(&holder, self.env.now());
        taken.map_err(|wait| refuse("too many nodes arrive at once", wait))?;
        Ok(holder)
    }

    /// What the node says is of this node and this session, whatever it says.
    fn routes(&self, node: &NodeName, session: u64) -> Routes {
        let (edge_node, device_node) = (node.clone(), node.clone());
        let (router_node, task_node) = (node.clone(), node.clone());
        let routes = Routes::new();
        let routes = if self.renewals.is_some() {
            routes.accept(self.hub.clone(), hub_route(node, Some(session)))
        } else {
            routes
        };
        routes
            .accept(self.addresses.edge.clone(), move |message: EdgeUp, _: &PeerName| EdgeControllerMsg::Up {
                node: edge_node.clone(),
                session,
                message,
            })
            .accept(self.addresses.device.clone(), move |message: DeviceUp, _: &PeerName| {
                DeviceControllerMsg::Up { node: device_node.clone(), session, message }
            })
            .accept(self.addresses.router.clone(), move |message: RouterUp, _: &PeerName| RouterMsg::Up {
                node: router_node.clone(),
                message,
            })
            .accept(self.addresses.tasks.clone(), move |message: TaskUp, _: &PeerName| CloudTaskMsg::Up {
                node: task_node.clone(),
                session,
                message,
            })
    }
}

/// What the node says to the hub itself, under the certificate that it has shown.
fn hub_route(
    node: &NodeName,
    session: Option<u64>,
) -> impl Fn(HubUp, &PeerName) -> CloudHubMsg + Send + Sync + use<> {
    let node = node.clone();
    move |message, peer| CloudHubMsg::Up {
        node: node.clone(),
        session,
        certificate: peer.serial().to_owned(),
        message,
    }
}

/// Whether the certificate of the other end has ended, though its transport let it through.
fn has_ended(peer: &PeerName, now: SystemTime) -> bool {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    peer.validity_unix().is_some_and(|(_, ends)| ends < now)
}

fn node_of(peer: &PeerName) -> Result<NodeName, Refused> {
    let name = peer.as_str().strip_prefix(NODE_PREFIX).and_then(|name| NodeName::parse(name).ok());
    name.ok_or_else(|| Refused {
        reason: format!("`{peer}` is not the name of a node: run `keadm join`"),
        wait: None,
    })
}
