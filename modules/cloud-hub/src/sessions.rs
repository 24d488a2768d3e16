//! CloudHub's actor: who is linked, and their addresses to whom they concern.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::link::{Acceptor, Arrival, Link, LinkError, PeerName, Refused, Routes};
use beehive::{Actor, Address, Context, Env, Fault};
use contract::NodeName;
use contract::cloudhub::CloudHubMsg;
use contract::devicecontroller::{DeviceControllerMsg, DeviceUp};
use contract::edgecontroller::{ClaimRefused, EdgeControllerMsg, EdgeUp};
use contract::router::{RouterMsg, RouterUp};
use contract::synccontroller::SyncMsg;
use futures::future::Abortable;
use noderegistry::{Heard, Registry};
use tokio::sync::{Mutex, Semaphore};

use crate::admission::Admission;
use crate::roll::{Condemned, Roll};
use crate::threshold::{Entered, Guest, Threshold};

/// What stands before a node's name in its certificate (Kubernetes' node authorizer).
const NODE_PREFIX: &str = "system:node:";
/// 64: nodes that are taken at once; those of a storm that were let through wait for their turn.
const ARRIVALS_MAX: usize = 64;
/// 30 s: what a node is asked to wait that finds the hub full.
const FULL_WAIT: Duration = Duration::from_secs(30);
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
    /// Its number on the roll.
    id: u64,
    link: Link,
}

/// Says who is linked, and over what.
fn say_linked(node: &NodeName, open: &Open) {
    let Open { session, epoch, link, .. } = open;
    let (transport, wire_version) = (link.transport(), link.version().number());
    tracing::info!(%node, session, epoch, %transport, wire_version, capabilities = %link.capabilities(), "node linked");
}

/// The open sessions, shared with the tasks that watch over them.
#[derive(Default)]
struct Sessions {
    last: u64,
    open: BTreeMap<NodeName, Open>,
    roll: Roll,
    /// How many links were ended because of the register.
    condemned: u64,
}

impl Sessions {
    /// Ends who must not be linked any more.
    fn hear(&mut self, heard: Heard) {
        for Condemned { node, id, reason } in self.roll.hear(heard) {
            self.condemned += 1;
            tracing::warn!(%node, reason, "the node's link is ended");
            if let Some(open) = self.open.get(&node).filter(|open| open.id == id) {
                open.link.close();
            }
        }
    }
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

/// Accepts links, lets in whom EdgeController takes, ends who is not to be linked any more, and hands their mailboxes on.
pub struct CloudHub {
    acceptor: Rc<Mutex<Box<dyn Acceptor>>>,
    registry: Registry,
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
        registry: Registry,
        node_limit: usize,
        neighbours: Neighbours,
    ) -> Self {
        let (sessions, refused, threshold) = (Rc::default(), Rc::default(), Threshold::new());
        CloudHub { acceptor, registry, node_limit, neighbours, sessions, refused, threshold }
    }
}

impl Actor for CloudHub {
    type Message = CloudHubMsg;

    async fn started(&mut self, cx: &mut Context<CloudHubMsg>) -> Result<(), Fault> {
        let desk = Rc::new(Desk {
            env: cx.env().clone(),
            node_limit: self.node_limit,
            neighbours: self.neighbours.clone(),
            sessions: Rc::clone(&self.sessions),
            refused: Rc::clone(&self.refused),
            threshold: self.threshold.clone(),
            places: Arc::new(Semaphore::new(ARRIVALS_MAX)),
            admission: RefCell::new(Admission::new(cx.now())),
            myself: cx.myself(),
        });
        let (registry, env, sessions) = (self.registry.clone(), cx.env().clone(), Rc::clone(&self.sessions));
        cx.spawn(async move { registry.watch(&env, |heard| sessions.borrow_mut().hear(heard)).await });
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
            CloudHubMsg::Disowned { node, reason } => self.disowned(&node, &reason),
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
                    "transport": open.link.transport().to_string(), "wireVersion": open.link.version().number(),
                    "capabilities": open.link.capabilities().names().collect::<Vec<_>>(),
                });
                (node.as_str(), view)
            })
            .collect();
        serde_json::json!({
            "nodes": nodes, "refusedArrivals": *self.refused.borrow(), "condemned": sessions.condemned,
        })
    }
}

impl CloudHub {
    async fn opened(&self, node: NodeName, session: u64) {
        let found = {
            let sessions = self.sessions.borrow();
            let open = sessions.open.get(&node).filter(|open| open.session == session);
            open.map(|open| {
                say_linked(&node, open);
                (open.epoch, open.link.traffic(), open.link.remote())
            })
        };
        // It may have ended already, or been replaced.
        let Some((epoch, traffic, meta)) = found else { return };
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

    fn disowned(&self, node: &NodeName, reason: &str) {
        let sessions = self.sessions.borrow();
        if let Some(open) = sessions.open.get(node) {
            let session = open.session;
            tracing::warn!(%node, session, reason, "the node is not ours any more; its link is ended");
            open.link.close();
        }
    }
}

/// Receives arrivals: what their tasks need of the hub.
struct Desk {
    env: Env,
    node_limit: usize,
    neighbours: Neighbours,
    sessions: Rc<RefCell<Sessions>>,
    refused: Rc<RefCell<u64>>,
    threshold: Threshold,
    places: Arc<Semaphore>,
    admission: RefCell<Admission>,
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
        let (node, epoch, listed) = match self.let_in(&peer, &guest).await {
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
        self.keep(node, epoch, link, listed).await;
    }

    /// The newer link of a node wins: the older one is most often a connection whose end nobody has noticed.
    async fn keep(&self, node: NodeName, epoch: u64, link: Link, listed: Listed) {
        let ended = link.ended();
        let session = {
            let mut sessions = self.sessions.borrow_mut();
            // The register has changed since the node was let in.
            if sessions.roll.condemned(&node, listed.id).is_some() {
                return;
            }
            // Two links that arrive together are admitted in any order; they were taken in one.
            if sessions.open.get(&node).is_some_and(|open| open.epoch > epoch) {
                tracing::info!(%node, epoch, "link ended at once: a newer one is open");
                return;
            }
            sessions.last += 1;
            let session = sessions.last;
            sessions.open.insert(node.clone(), Open { session, epoch, id: listed.id, link });
            session
        };
        let _ = self.myself.tell(CloudHubMsg::Opened { node: node.clone(), session }).await;
        let reason = ended.await.to_string();
        let _ = self.myself.tell(CloudHubMsg::Closed { node, session, epoch, reason }).await;
    }

    /// Checks who it is, and takes the node: from now on this CloudCore has it, and every other one has not.
    async fn let_in(&self, peer: &PeerName, guest: &Guest) -> Result<(NodeName, u64, Listed), Refused> {
        self.has_turn(peer, guest)?;
        let _place = self.places.acquire().await;
        let node = self.may_enter(peer)?;
        let listed = Listed::new(&self.sessions, &node, peer.serial());
        let certificate = peer.serial().to_owned();
        let claim = |reply| EdgeControllerMsg::Claim { node: node.clone(), certificate, reply };
        let answer = self.neighbours.edge.ask(CLAIM_DEADLINE, claim).await;
        match answer {
            Ok(Ok(epoch)) => Ok((node, epoch, listed)),
            Ok(Err(ClaimRefused { reason, wait })) => Err(Refused { reason, wait }),
            Err(error) => {
                tracing::error!(%node, %error, "node not taken");
                let reason = "whose the node is cannot be found out now".to_owned();
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

    fn may_enter(&self, peer: &PeerName) -> Result<NodeName, Refused> {
        let refuse = |reason: String, wait| Refused { reason, wait };
        let node =
            peer.as_str().strip_prefix(NODE_PREFIX).and_then(|name| NodeName::parse(name).ok()).ok_or_else(
                || refuse(format!("`{peer}` is not the name of a node: run `keadm join`"), None),
            )?;
        let sessions = self.sessions.borrow();
        if sessions.open.len() >= self.node_limit && !sessions.open.contains_key(&node) {
            let reason = format!("this CloudCore serves its limit of {} nodes", self.node_limit);
            return Err(refuse(reason, Some(FULL_WAIT)));
        }
        Ok(node)
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

/// A place on the roll, left when this goes.
struct Listed {
    sessions: Rc<RefCell<Sessions>>,
    node: NodeName,
    id: u64,
}

impl Listed {
    fn new(sessions: &Rc<RefCell<Sessions>>, node: &NodeName, serial: &str) -> Self {
        let id = sessions.borrow_mut().roll.enter(node, serial);
        Listed { sessions: Rc::clone(sessions), node: node.clone(), id }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.sessions.borrow_mut().roll.leave(&self.node, self.id);
    }
}
