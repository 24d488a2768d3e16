//! CloudHub's actor: who is linked, and their addresses to whom they concern.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::link::{Acceptor, Arrival, Link, LinkError, PeerName, Refused, Routes};
use beehive::{Actor, Address, Context, Env, Fault, Moment};
use contract::NodeName;
use contract::cloudhub::CloudHubMsg;
use contract::devicecontroller::{DeviceControllerMsg, DeviceUp};
use contract::edgecontroller::{EdgeControllerMsg, EdgeUp};
use contract::router::{RouterMsg, RouterUp};
use contract::synccontroller::SyncMsg;
use futures::future::Abortable;
use tokio::sync::{Mutex, Semaphore};

use crate::admission::Admission;
use crate::plan::Register;
use crate::threshold::{Entered, Guest, Threshold};
use crate::vault::{Vault, VaultError};

/// 1 s: how long a certificate that was given back may still open a link.
const REGISTER_FRESH: Duration = Duration::from_secs(1);

/// What stands before a node's name in its certificate (Kubernetes' node authorizer).
const NODE_PREFIX: &str = "system:node:";
/// 64: nodes that are taken at once; those of a storm that were let through wait for their turn.
const ARRIVALS_MAX: usize = 64;
/// 30 s: what a node is asked to wait that finds the hub full.
const FULL_WAIT: Duration = Duration::from_secs(30);
/// 5 s: what a node is asked to wait while the register cannot be read.
const REGISTER_WAIT: Duration = Duration::from_secs(5);
/// 5 s for taking a node: half of what its hello waits for an answer. A node that has given up and gone elsewhere is not
/// to be taken from there.
const CLAIM_DEADLINE: Duration = Duration::from_secs(5);
/// 2 s: what a node is asked to wait that could not be taken.
const CLAIM_WAIT: Duration = Duration::from_secs(2);

/// A session that is open.
struct Open {
    /// Its number in this CloudCore.
    session: u64,
    /// Since which epoch this CloudCore has the node.
    epoch: u64,
    link: Link,
}

/// The open sessions, shared with the tasks that watch over them.
#[derive(Default)]
struct Sessions {
    last: u64,
    open: BTreeMap<NodeName, Open>,
}

/// Whom the hub tells, and whom its nodes may reach.
#[derive(Clone)]
pub struct Neighbours {
    /// SyncController.
    pub sync: Address<SyncMsg>,
    /// EdgeController. It is asked, too: it takes the nodes.
    pub edge: Address<EdgeControllerMsg>,
    /// DeviceController.
    pub device: Address<DeviceControllerMsg>,
    /// CloudRouter.
    pub router: Address<RouterMsg>,
}

/// Accepts links, lets in whom the register knows, and hands their mailboxes on.
pub struct CloudHub {
    acceptor: Rc<Mutex<Box<dyn Acceptor>>>,
    vault: Vault,
    node_limit: usize,
    neighbours: Neighbours,
    sessions: Rc<RefCell<Sessions>>,
    refused: Rc<RefCell<u64>>,
    threshold: Threshold,
}

impl CloudHub {
    /// A hub that takes what `acceptor` brings, at most `node_limit` nodes. A later incarnation goes on with the same
    /// acceptor.
    pub fn new(
        acceptor: Rc<Mutex<Box<dyn Acceptor>>>,
        vault: Vault,
        node_limit: usize,
        neighbours: Neighbours,
    ) -> Self {
        let (sessions, refused, threshold) = (Rc::default(), Rc::default(), Threshold::new());
        CloudHub { acceptor, vault, node_limit, neighbours, sessions, refused, threshold }
    }
}

impl Actor for CloudHub {
    type Message = CloudHubMsg;

    async fn started(&mut self, cx: &mut Context<CloudHubMsg>) -> Result<(), Fault> {
        let desk = Rc::new(Desk {
            env: cx.env().clone(),
            vault: self.vault.clone(),
            node_limit: self.node_limit,
            neighbours: self.neighbours.clone(),
            sessions: Rc::clone(&self.sessions),
            refused: Rc::clone(&self.refused),
            threshold: self.threshold.clone(),
            places: Arc::new(Semaphore::new(ARRIVALS_MAX)),
            admission: RefCell::new(Admission::new(cx.now())),
            register: Mutex::new(None),
            myself: cx.myself(),
        });
        let acceptor = Rc::clone(&self.acceptor);
        cx.spawn(async move {
            let mut acceptor = acceptor.lock().await;
            // Taken at once: whoever waits does so under the bounds of the threshold.
            while let Some(connection) = acceptor.accept().await {
                let Some(entered) = desk.threshold.enter(connection, desk.env.now()) else { continue };
                let desk = Rc::clone(&desk);
                let env = desk.env.clone();
                env.spawn(async move { desk.receive(entered).await });
            }
        });
        Ok(())
    }

    async fn handle(&mut self, message: CloudHubMsg, _: &mut Context<CloudHubMsg>) -> Result<(), Fault> {
        match message {
            CloudHubMsg::Opened { node, session } => self.opened(node, session).await,
            CloudHubMsg::Closed { node, session, epoch, reason } => {
                self.closed(node, session, epoch, reason).await;
            }
            CloudHubMsg::Lost { node, epoch } => self.lost(&node, epoch),
        }
        Ok(())
    }

    async fn stopping(&mut self, _: &mut Context<CloudHubMsg>) {
        self.sessions.borrow_mut().open.clear();
    }

    fn snapshot(&self) -> serde_json::Value {
        let sessions = self.sessions.borrow();
        let nodes: BTreeMap<&str, serde_json::Value> = sessions
            .open
            .iter()
            .map(|(node, open)| {
                let traffic = open.link.traffic();
                let view = serde_json::json!({
                    "session": open.session, "epoch": open.epoch, "bytesIn": traffic.received(), "bytesOut": traffic.sent(),
                });
                (node.as_str(), view)
            })
            .collect();
        serde_json::json!({ "nodes": nodes, "refusedArrivals": *self.refused.borrow() })
    }
}

impl CloudHub {
    async fn opened(&self, node: NodeName, session: u64) {
        let found = {
            let sessions = self.sessions.borrow();
            let open = sessions.open.get(&node).filter(|open| open.session == session);
            open.map(|open| (open.epoch, open.link.traffic(), open.link.remote()))
        };
        // It may have ended already, or been replaced.
        let Some((epoch, traffic, meta)) = found else { return };
        tracing::info!(%node, session, epoch, "node linked");
        let up = EdgeControllerMsg::NodeUp { node: node.clone(), epoch, traffic };
        let _ = self.neighbours.edge.tell(up).await;
        let _ = self.neighbours.sync.tell(SyncMsg::NodeUp { node, session, meta }).await;
    }

    async fn closed(&self, node: NodeName, session: u64, epoch: u64, reason: String) {
        {
            let mut sessions = self.sessions.borrow_mut();
            if sessions.open.get(&node).is_some_and(|open| open.session == session) {
                sessions.open.remove(&node);
            }
        }
        tracing::info!(%node, session, epoch, %reason, "node's link ended");
        let _ = self.neighbours.sync.tell(SyncMsg::NodeDown { node: node.clone(), session }).await;
        let _ = self.neighbours.edge.tell(EdgeControllerMsg::NodeDown { node, epoch }).await;
    }

    /// The rest goes as with any link that ends.
    fn lost(&self, node: &NodeName, epoch: u64) {
        let sessions = self.sessions.borrow();
        if let Some(open) = sessions.open.get(node).filter(|open| open.epoch == epoch) {
            let session = open.session;
            tracing::warn!(%node, session, epoch, "another CloudCore has taken the node; its link here is ended");
            open.link.close();
        }
    }
}

/// Receives arrivals: what their tasks need of the hub.
struct Desk {
    env: Env,
    vault: Vault,
    node_limit: usize,
    neighbours: Neighbours,
    sessions: Rc<RefCell<Sessions>>,
    refused: Rc<RefCell<u64>>,
    threshold: Threshold,
    places: Arc<Semaphore>,
    admission: RefCell<Admission>,
    /// The register as it was read last, and when.
    register: Mutex<Option<(Moment, Rc<Register>)>>,
    myself: Address<CloudHubMsg>,
}

impl Desk {
    async fn receive(&self, entered: Entered) {
        let Entered { connection, guest, until } = entered;
        let peer = connection.peer().clone();
        let met = Abortable::new(Arrival::meet(&self.env, connection), until).await;
        let arrival = match met.unwrap_or(Err(LinkError::Late)) {
            Ok(arrival) => arrival,
            // A node that dials more than once goes on with the first that answers.
            Err(error @ LinkError::Broke(_)) => {
                tracing::debug!(%peer, reason = %Fault::from_error(&error).reason, "left before its hello");
                return;
            }
            Err(error) => {
                *self.refused.borrow_mut() += 1;
                tracing::warn!(%peer, reason = %Fault::from_error(&error).reason, "hello not accepted");
                return;
            }
        };
        let (node, epoch) = match self.let_in(&peer, &guest).await {
            Ok(entered) => entered,
            Err(refused) => {
                *self.refused.borrow_mut() += 1;
                tracing::warn!(%peer, reason = refused.reason, "node refused");
                arrival.refuse(refused).await;
                return;
            }
        };
        guest.links();
        let link = match arrival.admit(self.routes(&node, epoch)).await {
            Ok(link) => link,
            Err(error) => {
                tracing::warn!(%node, reason = %Fault::from_error(&error).reason, "link broke during the hello");
                return;
            }
        };
        self.keep(node, epoch, link).await;
    }

    /// The newer link of a node wins: the older one is most often a connection whose end nobody has noticed.
    async fn keep(&self, node: NodeName, epoch: u64, link: Link) {
        let ended = link.ended();
        let session = {
            let mut sessions = self.sessions.borrow_mut();
            // Two links that arrive together are admitted in any order; they were taken in one.
            if sessions.open.get(&node).is_some_and(|open| open.epoch > epoch) {
                tracing::info!(%node, epoch, "link ended at once: a newer one is open");
                return;
            }
            sessions.last += 1;
            let session = sessions.last;
            sessions.open.insert(node.clone(), Open { session, epoch, link });
            session
        };
        let _ = self.myself.tell(CloudHubMsg::Opened { node: node.clone(), session }).await;
        let reason = ended.await.to_string();
        let _ = self.myself.tell(CloudHubMsg::Closed { node, session, epoch, reason }).await;
    }

    /// Checks who it is, and takes the node: from now on this CloudCore has it, and every other one has not.
    async fn let_in(&self, peer: &PeerName, guest: &Guest) -> Result<(NodeName, u64), Refused> {
        self.has_turn(peer, guest)?;
        let _place = self.places.acquire().await;
        let node = self.may_enter(peer).await?;
        let claim = |reply| EdgeControllerMsg::Claim { node: node.clone(), reply };
        let answer = self.neighbours.edge.ask(CLAIM_DEADLINE, claim).await;
        match answer.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(epoch) => Ok((node, epoch)),
            Err(reason) => {
                tracing::error!(%node, reason, "node not taken");
                let reason = "the node's Lease cannot be written now".to_owned();
                Err(Refused { reason, wait: Some(CLAIM_WAIT) })
            }
        }
    }

    /// Before anything is read for it: a storm is sent away cheaply, and one node's storm takes no place of another's.
    fn has_turn(&self, peer: &PeerName, guest: &Guest) -> Result<(), Refused> {
        let refuse = |reason: &str, wait| Refused { reason: reason.to_owned(), wait: Some(wait) };
        guest.asks().map_err(|wait| refuse("other links of this node are not over", wait))?;
        let admitted = self.admission.borrow_mut().arrive(peer.as_str(), self.env.now());
        admitted.map_err(|wait| refuse("too many nodes arrive at once", wait))
    }

    async fn may_enter(&self, peer: &PeerName) -> Result<NodeName, Refused> {
        let refuse = |reason: String, wait| Refused { reason, wait };
        let node =
            peer.as_str().strip_prefix(NODE_PREFIX).and_then(|name| NodeName::parse(name).ok()).ok_or_else(
                || refuse(format!("`{peer}` is not the name of a node: run `keadm join`"), None),
            )?;
        let register = self.register().await.map_err(|error| {
            tracing::error!(%node, reason = %Fault::from_error(&error).reason, "register not read");
            refuse("the register of certificates cannot be read now".to_owned(), Some(REGISTER_WAIT))
        })?;
        if register.is_revoked(peer.serial()) {
            let reason = format!("the certificate of `{node}` was given back: run `keadm join` again");
            return Err(refuse(reason, Some(Duration::from_secs(60))));
        }
        let sessions = self.sessions.borrow();
        if sessions.open.len() >= self.node_limit && !sessions.open.contains_key(&node) {
            let reason = format!("this CloudCore serves its limit of {} nodes", self.node_limit);
            return Err(refuse(reason, Some(FULL_WAIT)));
        }
        Ok(node)
    }

    /// The register, read once a second at the most: it has a line for each node, and in a storm each of them asks.
    async fn register(&self) -> Result<Rc<Register>, VaultError> {
        let mut kept = self.register.lock().await;
        let now = self.env.now();
        if let Some((at, register)) = kept.as_ref()
            && now.since(*at) < REGISTER_FRESH
        {
            return Ok(Rc::clone(register));
        }
        let register = Rc::new(self.vault.register().await?);
        *kept = Some((self.env.now(), Rc::clone(&register)));
        Ok(register)
    }

    /// What the node says is of this node, whatever it says.
    fn routes(&self, node: &NodeName, epoch: u64) -> Routes {
        let (edge_node, device_node, router_node) = (node.clone(), node.clone(), node.clone());
        Routes::new()
            .accept(self.neighbours.edge.clone(), move |message: EdgeUp, _: &PeerName| {
                EdgeControllerMsg::Up { node: edge_node.clone(), epoch, message }
            })
            .accept(self.neighbours.device.clone(), move |message: DeviceUp, _: &PeerName| {
                DeviceControllerMsg::Up { node: device_node.clone(), epoch, message }
            })
            .accept(self.neighbours.router.clone(), move |message: RouterUp, _: &PeerName| RouterMsg::Up {
                node: router_node.clone(),
                message,
            })
    }
}
