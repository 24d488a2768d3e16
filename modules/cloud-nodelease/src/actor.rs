//! NodeLease's actor. Whatever asks the API server goes on beside it, so that no message waits for another.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use beehive::{Actor, Address, Context, Fault, Moment, Reply, Sample};
use contract::NodeName;
use contract::cloudhub::{CloudHubMsg, SessionReader};
use contract::ids::{NODES, PODS};
use contract::nodelease::{ClaimRefused, NodeHolder, NodeLeaseMsg, SessionState};
use contract::synccontroller::SyncStatus;
use kubewatch::Interruptions;
use noderegistry::Registry;

use crate::claim::{ClaimHandler, Resolved, not_now};
use crate::condition::{ConditionWriter, NewestWrites, Outcome, Synced};
use crate::last_conditions::LastConditions;
use crate::lease::NamedCloudCore;
use crate::lease_client::{LeaseClient, LeaseOwnership};
use crate::plan::{Renewal, Sessions};
use crate::{events, nodes};

/// 1 s, doubled at each time up to 4 s, before a renewal that failed is tried again, until the next one is due.
const RENEWAL_PAUSE: Duration = Duration::from_secs(1);
const RENEWAL_PAUSE_MAX: Duration = Duration::from_secs(4);
/// 10 s for each try, as a kubelet gives it.
const RENEWAL_WITHIN: Duration = Duration::from_secs(10);
const TAKEN_BY_ANOTHER: &str = "another CloudCore has taken the node, or it has gone on to a later session";

/// What a NodeLease is made of.
#[derive(Clone)]
pub struct Dependencies {
    /// The API server.
    pub client: kube::Client,
    /// CloudHub, which is told of sessions that are over.
    pub hub: Address<CloudHubMsg>,
    /// Who this CloudCore is among those that run: the same in all incarnations of this actor.
    pub cloudcore: String,
    /// Where other CloudCores reach this one, if they do.
    pub address: Option<SocketAddr>,
    /// How often the Lease of a node that is alive is renewed, at most.
    pub lease_period: Duration,
    /// Whether the controllers' watches are whole: a CloudCore that lags behind in Nodes or pods takes no node.
    pub interruptions: Interruptions,
}

/// Takes nodes, renews their Leases, and says what their sessions are worth.
pub struct NodeLease {
    dependencies: Dependencies,
    registry: Registry,
    leases: LeaseClient,
    sessions: Rc<RefCell<Sessions>>,
    newest_writes: NewestWrites,
    last_conditions: Rc<RefCell<LastConditions>>,
}

impl NodeLease {
    /// One that knows of no session yet.
    pub fn new(dependencies: Dependencies) -> Self {
        let sessions = Rc::<RefCell<Sessions>>::default();
        let registry = Registry::new(dependencies.client.clone());
        let own = NamedCloudCore {
            cloudcore: dependencies.cloudcore.clone(),
            address: dependencies.address.map(|address| address.to_string()),
        };
        let leases = LeaseClient::new(dependencies.client.clone(), own, Rc::clone(&sessions));
        NodeLease {
            dependencies,
            registry,
            leases,
            sessions,
            newest_writes: NewestWrites::default(),
            last_conditions: Rc::default(),
        }
    }
}

impl Actor for NodeLease {
    type Message = NodeLeaseMsg;

    async fn started(&mut self, cx: &mut Context<NodeLeaseMsg>) -> Result<(), Fault> {
        let (client, sessions) = (self.dependencies.client.clone(), Rc::clone(&self.sessions));
        cx.spawn(nodes::watch(client, cx.env().clone(), sessions, cx.myself()));
        cx.spawn_tell(&self.dependencies.hub, CloudHubMsg::TellSessions { to: SessionReader::NodeLease });
        Ok(())
    }

    async fn handle(&mut self, message: NodeLeaseMsg, cx: &mut Context<NodeLeaseMsg>) -> Result<(), Fault> {
        match message {
            NodeLeaseMsg::Claim { node, certificate, reply } => self.claim(node, certificate, reply, cx),
            NodeLeaseMsg::AllNodesDown => {
                self.sessions.borrow_mut().all_down();
                self.last_conditions.borrow_mut().clear();
            }
            NodeLeaseMsg::NodeUp { node, session, certificate, link } => {
                let is_unknown = self.sessions.borrow_mut().up(&node, session, &certificate, link);
                if is_unknown {
                    self.resolve(node, session, cx);
                }
            }
            NodeLeaseMsg::CertificateRenewed { node, session, certificate, valid } => {
                self.sessions.borrow_mut().certificate_renewed(&node, session, &certificate, valid);
            }
            NodeLeaseMsg::NodeDown { node, session, revoked } => {
                self.sessions.borrow_mut().down(&node, session, revoked);
                self.last_conditions.borrow_mut().forget(&node, session);
            }
            NodeLeaseMsg::Session { node, session, reply } => reply.send(self.state(&node, session, cx)),
            NodeLeaseMsg::NodeCreated { node, session, reply } => self.node_created(node, session, reply, cx),
            NodeLeaseMsg::NodeMissing { node, session } => self.check(node, session, cx),
            NodeLeaseMsg::Holds { node, session, reply } => self.holds(node, session, reply, cx),
            NodeLeaseMsg::Holder { node, reply } => self.holder(node, reply, cx),
            NodeLeaseMsg::Renew { node, session } => self.renew(node, session, cx),
            NodeLeaseMsg::ShowSynced { node, status, reply } => self.show_synced(node, status, reply, cx),
        }
        Ok(())
    }

    fn snapshot(&self) -> serde_json::Value {
        let (sessions, linked) = self.sessions.borrow().counts();
        serde_json::json!({ "cloudCore": self.dependencies.cloudcore, "sessions": sessions, "linked": linked })
    }

    fn samples(&self) -> Vec<Sample> {
        let (sessions, linked) = self.sessions.borrow().counts();
        // Far below 2^53.
        let mut samples = vec![
            Sample::new("kubehive_nodelease_sessions", sessions as f64),
            Sample::new("kubehive_nodelease_linked", linked as f64),
        ];
        let broken = self.dependencies.interruptions.list().into_keys();
        samples.extend(
            broken.map(|resource| Sample::new("kubehive_watch_broken", 1.0).of("resource", resource)),
        );
        samples
    }
}

impl NodeLease {
    fn admission(&self, cx: &Context<NodeLeaseMsg>) -> ClaimHandler {
        ClaimHandler {
            env: cx.env().clone(),
            registry: self.registry.clone(),
            leases: self.leases.clone(),
            sessions: Rc::clone(&self.sessions),
        }
    }

    fn ending(&self, cx: &Context<NodeLeaseMsg>) -> SessionEnder {
        SessionEnder {
            hub: self.dependencies.hub.clone(),
            sessions: Rc::clone(&self.sessions),
            env: cx.env().clone(),
        }
    }

    fn claim(
        &self,
        node: NodeName,
        certificate: String,
        reply: Reply<Result<u64, ClaimRefused>>,
        cx: &Context<NodeLeaseMsg>,
    ) {
        // Whoever asked may have been sent away meanwhile: its node has another link by now.
        if reply.is_abandoned() {
            return;
        }
        // What a node is told it may hold or must let go of waits for the watches that this is read from: each controller says
        // of a session what it knows only while its own are whole. So a watch of another kind is no reason to send a node away;
        // without Nodes and pods, though, another CloudCore that sees them serves it better.
        if !self.dependencies.interruptions.are_whole(&[NODES, PODS]) {
            let reason = "the watch of Nodes or of pods has broken off and has not listed again";
            return reply.send(Err(not_now(reason)));
        }
        let admission = self.admission(cx);
        cx.spawn(async move { admission.claim(&node, &certificate, reply).await });
    }

    fn resolve(&self, node: NodeName, session: u64, cx: &Context<NodeLeaseMsg>) {
        let (admission, ending) = (self.admission(cx), self.ending(cx));
        cx.spawn(async move {
            if let Resolved::Over(reason) = admission.resolve(&node, session).await {
                ending.end(&node, session, &reason).await;
            }
        });
    }

    /// Where it is in doubt, it is looked into.
    fn state(&self, node: &NodeName, session: u64, cx: &Context<NodeLeaseMsg>) -> SessionState {
        let state = self.sessions.borrow_mut().state(node, session);
        let session_in_doubt = self.sessions.borrow().session_in_doubt(node);
        if state == SessionState::InDoubt && session_in_doubt == Some(session) {
            self.check(node.clone(), session, cx);
        }
        state
    }

    fn check(&self, node: NodeName, session: u64, cx: &Context<NodeLeaseMsg>) {
        if !self.sessions.borrow_mut().begin_check(&node, session) {
            return;
        }
        let (admission, ending) = (self.admission(cx), self.ending(cx));
        cx.spawn(async move {
            if let Resolved::Over(reason) = admission.check(&node, session).await {
                ending.tell(&node, session, &reason).await;
            }
        });
    }

    fn node_created(
        &self,
        node: NodeName,
        session: u64,
        reply: Reply<Result<SessionState, String>>,
        cx: &Context<NodeLeaseMsg>,
    ) {
        let (admission, ending) = (self.admission(cx), self.ending(cx));
        cx.spawn(async move {
            match admission.node_created(&node, session).await {
                Ok(Resolved::GoesOn) => reply.send(Ok(admission.state(&node, session))),
                Ok(Resolved::Over(reason)) => {
                    reply.send(Ok(SessionState::Ended));
                    ending.end(&node, session, &reason).await;
                }
                Err(reason) => reply.send(Err(reason)),
            }
        });
    }

    fn holds(
        &self,
        node: NodeName,
        session: u64,
        reply: Reply<Result<bool, String>>,
        cx: &Context<NodeLeaseMsg>,
    ) {
        let (leases, ending) = (self.leases.clone(), self.ending(cx));
        cx.spawn(async move {
            let holding = leases.holds(&node, session).await;
            reply.send(match &holding {
                Ok(holding) => Ok(*holding == LeaseOwnership::Ours),
                Err(error) => Err(Fault::from_error(error).reason),
            });
            ending.lost(&node, session, holding.ok()).await;
        });
    }

    /// Whoever calls a rule may name any node: the API server is asked about those alone that the watch shows.
    fn holder(
        &self,
        node: NodeName,
        reply: Reply<Result<Option<NodeHolder>, String>>,
        cx: &Context<NodeLeaseMsg>,
    ) {
        if self.sessions.borrow().node(&node).is_none() {
            let is_listed = self.sessions.borrow().are_nodes_listed();
            return reply.send(match is_listed && self.dependencies.interruptions.are_whole(&[NODES]) {
                true => Ok(None),
                false => Err("the watch of Nodes has not listed them".to_owned()),
            });
        }
        let leases = self.leases.clone();
        cx.spawn(async move {
            // Whoever asked may have given up by now.
            if !reply.is_abandoned() {
                let holder = leases.holder(&node).await;
                reply.send(holder.map_err(|error| Fault::from_error(&error).reason));
            }
        });
    }

    fn renew(&self, node: NodeName, session: u64, cx: &Context<NodeLeaseMsg>) {
        if self.sessions.borrow().is_superseded(&node, session) {
            // The link that the later one was claimed for may never come: the node gave that dial up, or CloudHub did. Nothing that is said
            // in this one counts any more, and the node is not to go on with it.
            let ending = self.ending(cx);
            cx.spawn(async move { ending.tell(&node, session, TAKEN_BY_ANOTHER).await });
            return;
        }
        let SessionState::Open { node_uid } = self.state(&node, session, cx) else { return };
        self.say_conditions_again(&node, session, cx);
        let (period, now) = (self.dependencies.lease_period, cx.now());
        let renewal = self.sessions.borrow_mut().sign_of_life(&node, session, period, now);
        if renewal == Renewal::None {
            return;
        }
        let renewer =
            Renewer { leases: self.leases.clone(), ending: self.ending(cx), node, session, node_uid };
        cx.spawn(async move {
            match renewal {
                Renewal::None => {}
                Renewal::Now => renewer.renew(now).await,
                Renewal::After(pause) => renewer.renew_after(pause).await,
            }
        });
    }

    fn show_synced(
        &self,
        node: NodeName,
        status: SyncStatus,
        reply: Reply<bool>,
        cx: &Context<NodeLeaseMsg>,
    ) {
        let session = self.sessions.borrow().newest(&node);
        if let Some(session) = session {
            self.last_conditions.borrow_mut().said(&node, session, status.clone());
        }
        let (writer, synced, env) =
            (self.condition_writer(), self.synced(&node, status, cx), cx.env().clone());
        let last = Rc::clone(&self.last_conditions);
        cx.spawn(async move {
            let outcome = writer.write(&env, &node, &synced).await;
            note(&last, &node, &synced, outcome.as_ref());
            // Nothing is left to do: it is there, or is not ours to write.
            reply.send(!matches!(outcome, None | Some(Outcome::Later)));
        });
    }

    /// The node is alive: if its Node says something else of it than CloudCore did, CloudCore says it again.
    fn say_conditions_again(&self, node: &NodeName, session: u64, cx: &Context<NodeLeaseMsg>) {
        let version = self.sessions.borrow().node(node).and_then(|node| node.resource_version.clone());
        let Some(version) = version.filter(|_| !self.newest_writes.is_any(node)) else { return };
        let mut last = self.last_conditions.borrow_mut();
        let Some(status) = last.status(node, session) else { return };
        let synced = self.synced(node, status, cx);
        if !last.begin_look(node, session, (&version, synced.content()), cx.now()) {
            return;
        }
        drop(last);
        let (writer, last) = (self.condition_writer(), Rc::clone(&self.last_conditions));
        let (node, env) = (node.clone(), cx.env().clone());
        cx.spawn(async move {
            let outcome = writer.write(&env, &node, &synced).await;
            if note(&last, &node, &synced, outcome.as_ref()) {
                events::condition_said_again(&env, &node);
            }
        });
    }

    fn synced(&self, node: &NodeName, status: SyncStatus, cx: &Context<NodeLeaseMsg>) -> Synced {
        let now = jiff::Timestamp::try_from(cx.wall()).unwrap_or_default();
        let sessions = self.sessions.borrow();
        let certificate_valid = sessions.certificate_valid(node);
        Synced { status, link: sessions.link(node), certificate_valid, revoked: sessions.revoked(node), now }
    }

    fn condition_writer(&self) -> ConditionWriter {
        ConditionWriter {
            client: self.dependencies.client.clone(),
            leases: self.leases.clone(),
            sessions: Rc::clone(&self.sessions),
            newest: self.newest_writes.clone(),
        }
    }
}

/// Keeps what the Node says now. Answers whether CloudCore wrote there what it had written before: somebody else has been there since.
fn note(last: &RefCell<LastConditions>, node: &NodeName, synced: &Synced, outcome: Option<&Outcome>) -> bool {
    let mut last = last.borrow_mut();
    match outcome {
        Some(Outcome::Said(Some(version))) => {
            last.seen(node, &synced.status, version, synced.content());
            false
        }
        Some(Outcome::Written) => last.told(node, &synced.status, synced.content()),
        Some(Outcome::Said(None) | Outcome::NotOurs | Outcome::Later) | None => false,
    }
}

/// Renews a Lease once.
struct Renewer {
    leases: LeaseClient,
    ending: SessionEnder,
    node: NodeName,
    session: u64,
    node_uid: String,
}

impl Renewer {
    async fn renew_after(&self, pause: Duration) {
        let SessionEnder { env, sessions, .. } = &self.ending;
        env.sleep(pause).await;
        let now = env.now();
        let is_wanted = sessions.borrow_mut().begin_planned(&self.node, self.session, now);
        if is_wanted {
            self.renew(now).await;
        }
    }

    /// The renewal that began at `began`. One that fails is tried again soon: a Lease counts for four periods, and an API server that
    /// is away for most of them may answer in between.
    async fn renew(&self, began: Moment) {
        let SessionEnder { env, sessions, .. } = &self.ending;
        let mut pause = RENEWAL_PAUSE;
        let mut is_first = true;
        loop {
            let wall = jiff::Timestamp::try_from(env.wall()).unwrap_or_default();
            let renewal = self.leases.renew(&self.node, self.session, wall, &self.node_uid, env);
            let reason = match env.timeout(RENEWAL_WITHIN, renewal).await {
                Some(Ok(holding)) => return self.ending.lost(&self.node, self.session, Some(holding)).await,
                Some(Err(error)) => Fault::from_error(&error).reason,
                None => format!("the API server did not answer within {} s", RENEWAL_WITHIN.as_secs()),
            };
            events::lease_not_renewed(env, &self.node, &reason, is_first);
            is_first = false;
            env.sleep(env.jitter(pause)).await;
            pause = (2 * pause).min(RENEWAL_PAUSE_MAX);
            if !sessions.borrow().may_retry(&self.node, self.session, began) {
                return;
            }
        }
    }
}

/// Ends sessions. The hub is told without waiting in the actor: it asks this one.
struct SessionEnder {
    hub: Address<CloudHubMsg>,
    sessions: Rc<RefCell<Sessions>>,
    env: beehive::Env,
}

impl SessionEnder {
    /// Nothing that is said in the session counts any more, and its link is ended.
    async fn end(&self, node: &NodeName, session: u64, reason: &str) {
        if self.sessions.borrow_mut().end(node, session) {
            self.tell(node, session, reason).await;
        }
    }

    /// Another CloudCore has the node. What is said here is still judged by the Lease, so the session keeps its place.
    async fn lost(&self, node: &NodeName, session: u64, holding: Option<LeaseOwnership>) {
        if holding == Some(LeaseOwnership::Lost) {
            self.tell(node, session, TAKEN_BY_ANOTHER).await;
        }
    }

    async fn tell(&self, node: &NodeName, session: u64, reason: &str) {
        events::session_over(&self.env, node, session, reason);
        let over = CloudHubMsg::SessionOver { node: node.clone(), session, reason: reason.to_owned() };
        // CloudHub that has stopped has no sessions.
        let _ = self.hub.tell(over).await;
    }
}
