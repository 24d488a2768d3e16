//! A hub in a hive of its own, over the transport in memory, with probes in its neighbours' places.
#![allow(dead_code)]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use beehive::link::memory::{MemoryPort, NetworkPath, listen};
use beehive::link::{Acceptor, Acceptors, Connection, Dialer, Link, LinkError, PeerName, Routes};
use beehive::testing::Probe;
use beehive::{Actor, Address, Capacity, Context, Env, Fault, Flow, Hive, Policy};
use cloud_hub::{CloudHub, Neighbours};
use contract::cloudhub::CloudHubMsg;
use contract::cloudstream::CloudStreamMsg;
use contract::devicecontroller::DeviceControllerMsg;
use contract::edgecontroller::EdgeControllerMsg;
use contract::nodelease::{ClaimRefused, NodeLeaseMsg};
use contract::router::RouterMsg;
use contract::synccontroller::SyncMsg;
use noderegistry::Registry;
use tokio::sync::Mutex;

/// What a test waits for a fact at the most.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// What the next claims are answered, the last first; empty: the next epoch.
#[derive(Clone, Default)]
pub(crate) struct Answers(pub(crate) Rc<RefCell<Vec<Result<u64, ClaimRefused>>>>);

/// In NodeLease's place: claims every node, and tells a probe the rest.
struct Leases {
    epoch: Rc<Cell<u64>>,
    answers: Answers,
    probe: Address<NodeLeaseMsg>,
}

impl Actor for Leases {
    type Message = NodeLeaseMsg;

    async fn handle(&mut self, message: NodeLeaseMsg, _: &mut Context<NodeLeaseMsg>) -> Result<(), Fault> {
        match message {
            NodeLeaseMsg::Claim { reply, .. } => {
                let answer = self.answers.0.borrow_mut().pop();
                reply.send(answer.unwrap_or_else(|| {
                    self.epoch.set(self.epoch.get() + 1);
                    Ok(self.epoch.get())
                }));
            }
            other => {
                let _ = self.probe.tell(other).await;
            }
        }
        Ok(())
    }
}

pub(crate) struct Bench {
    pub(crate) env: Env,
    pub(crate) port: MemoryPort,
    pub(crate) lease: Probe<NodeLeaseMsg>,
    pub(crate) edge: Probe<EdgeControllerMsg>,
    pub(crate) device: Probe<DeviceControllerMsg>,
    pub(crate) sync: Probe<SyncMsg>,
    pub(crate) stream: Probe<CloudStreamMsg>,
    pub(crate) claims: Answers,
    pub(crate) hub: Address<CloudHubMsg>,
    pub(crate) hive: Hive,
    _router: Probe<RouterMsg>,
}

impl Bench {
    /// A hub that takes at most `limit` nodes, from memory and from `others`.
    pub(crate) fn start(env: &Env, registry: Registry, limit: usize, others: Vec<Box<dyn Acceptor>>) -> Self {
        let (port, over_memory) = listen(PeerName::verified("cloud", "00"));
        let all: Vec<Box<dyn Acceptor>> =
            std::iter::once(Box::new(over_memory) as Box<dyn Acceptor>).chain(others).collect();
        let mut hive = Hive::new("test", env.clone());
        let claims = Answers::default();
        let (lease, lease_to) = Probe::new(env, 4096);
        let lease_mailbox =
            hive.mailbox::<NodeLeaseMsg>("cloud-nodelease", Capacity::new(64, "a test's choice"));
        let (edge, edge_to) = Probe::new(env, 4096);
        let (sync, sync_to) = Probe::new(env, 4096);
        let (stream, stream_to) = Probe::new(env, 4096);
        let ((device, device_to), (router, router_to)) = (Probe::new(env, 4096), Probe::new(env, 16));
        let neighbours = Neighbours {
            lease: hive.grant("cloud-hub", &lease_mailbox, Flow::Ask),
            sync: sync_to,
            edge: edge_to,
            device: device_to,
            stream: stream_to,
            router: router_to,
        };
        let (epoch, answers) = (Rc::default(), claims.clone());
        hive.supervise(lease_mailbox, Policy::default(), move || Leases {
            epoch: Rc::clone(&epoch),
            answers: answers.clone(),
            probe: lease_to.clone(),
        });
        let mailbox = hive.mailbox::<CloudHubMsg>("cloud-hub", Capacity::new(64, "a test's choice"));
        let hub = hive.grant("a test", &mailbox, Flow::Tell);
        let acceptor: Rc<Mutex<Box<dyn Acceptor>>> = Rc::new(Mutex::new(Box::new(Acceptors::new(all))));
        let policy = Policy { backoff_min: Duration::from_millis(10), ..Policy::default() };
        hive.supervise(mailbox, policy, move || {
            CloudHub::new(acceptor.clone(), registry.clone(), limit, neighbours.clone())
        });
        hive.open().unwrap();
        Bench {
            env: env.clone(),
            port,
            lease,
            edge,
            device,
            sync,
            stream,
            claims,
            hub,
            hive,
            _router: router,
        }
    }

    pub(crate) async fn dial(&self, name: &str, serial: &str) -> Box<dyn Connection> {
        self.port.dialer(PeerName::verified(name, serial), NetworkPath::new()).dial().await.unwrap()
    }

    pub(crate) async fn link(&self, name: &str, serial: &str) -> Result<Link, LinkError> {
        greet(&self.env, self.dial(name, serial).await, name).await
    }

    /// The snapshot of the hub.
    pub(crate) async fn snapshot(&self) -> serde_json::Value {
        let report = self.hive.inspector().report(LONG).await;
        report.actor("cloud-hub").unwrap().snapshot.clone()
    }

    /// The sessions that are children of the hub.
    pub(crate) async fn sessions(&self) -> Vec<String> {
        let report = self.hive.inspector().report(LONG).await;
        let sessions = report.actors.iter().filter(|actor| actor.kind == "session");
        sessions.filter_map(|actor| actor.instance.clone()).collect()
    }
}

pub(crate) async fn greet(env: &Env, connection: Box<dyn Connection>, name: &str) -> Result<Link, LinkError> {
    Link::connect(env, connection, &beehive::link::Hello::of(name), Routes::new()).await
}
