//! CloudStream with real TLS at real ports, over a link in memory to a node that answers byte streams, and an API server that
//! knows a few users.

mod api;
mod client;
mod node;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::link::memory::{MemoryPort, listen};
use beehive::link::{Acceptor, Dialer, Hello, IncomingLink, Link, PeerName, Routes};
use beehive::testing::Probe;
use beehive::{Address, Capacity, Env, Flow, Hive, Policy};
use cloud_stream::{CloudStream, Parts, Serving, ServingCertificate};
use contract::NodeName;
use contract::cloudhub::CloudHubMsg;
use contract::cloudstream::{CloudStreamMsg, KubeletEndpoint};
use contract::edgecontroller::EdgeControllerMsg;
use nodecalls::{Limits, NodeCalls};
use tokio::sync::Mutex;

pub(crate) use api::Api;
pub(crate) use client::read_until;
pub(crate) use node::FakeNode;

/// What a test waits for a fact at the most.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) struct Bench {
    pub(crate) env: Env,
    pub(crate) api: Api,
    pub(crate) node: FakeNode,
    pub(crate) calls: NodeCalls,
    pub(crate) stream: Address<CloudStreamMsg>,
    pub(crate) edge: Probe<EdgeControllerMsg>,
    /// The CA of CloudCore, which nodes and their endpoints are of.
    pub(crate) ours: pki::Authority,
    pub(crate) hive: Hive,
    _hub: Probe<CloudHubMsg>,
    port: MemoryPort,
    acceptor: Mutex<Box<dyn Acceptor>>,
}

/// A node's link, both ends of it.
pub(crate) struct Linked {
    cloud: Link,
    _edge: Link,
}

pub(crate) fn node(name: &str) -> NodeName {
    NodeName::parse(name).unwrap()
}

impl Bench {
    pub(crate) async fn start() -> Bench {
        Bench::with(Limits { of_node: 4, of_user: 3, all: 64 }).await
    }

    pub(crate) async fn with(limits: Limits) -> Bench {
        Bench::at(limits, 0).await
    }

    /// With ports from `first` on.
    pub(crate) async fn at(limits: Limits, first_port: u16) -> Bench {
        let env = Env::real();
        let ours = pki::Authority::create(env.wall(), env.random_id()).unwrap();
        let api = Api::new(&env);
        let mut hive = Hive::new("test", env.clone());
        let mailbox = hive.mailbox::<CloudStreamMsg>("cloud-stream", Capacity::new(64, "a test's choice"));
        hive.declare_child("cloud-stream", cloud_stream::ENDPOINT);
        let stream = hive.grant("a test", &mailbox, Flow::Tell);
        let ((hub, to_hub), (edge, to_edge)) = (Probe::new(&env, 16), Probe::new(&env, 64));
        let calls = NodeCalls::new(limits, env.metrics().clone(), env.clock());
        let loopback = [127, 0, 0, 1].into();
        let same = pki::Authority::from_pem(ours.cert_pem(), ours.key_pem()).unwrap();
        let serving = Serving {
            bind: loopback,
            first_port,
            ports: 8,
            address: Some(loopback),
            certificate: Rc::new(ServingCertificate::new(same, vec![loopback], vec![])),
        };
        let parts = Parts {
            client: api.client(),
            hub: to_hub,
            edge: to_edge,
            calls: calls.clone(),
            serving: Some(serving),
        };
        hive.supervise(mailbox, Policy::default(), move || CloudStream::new(parts.clone()));
        hive.open().unwrap();
        let (port, acceptor) = listen(PeerName::verified("cloud", "00"));
        let acceptor = Mutex::new(Box::new(acceptor) as Box<dyn Acceptor>);
        let node = FakeNode::default();
        Bench { env, api, node, calls, stream, edge, ours, hive, _hub: hub, port, acceptor }
    }

    /// Links a node, and tells CloudStream of session `session`.
    pub(crate) async fn link(&self, name: &str, session: u64) -> Linked {
        let me = PeerName::verified(format!("system:node:{name}"), "01");
        let dialled = self.port.dialer(me.clone(), Default::default()).dial().await.unwrap();
        let routes = Routes::new().byte_streams(Arc::new(self.node.clone()));
        let hello = Hello::of(me.as_str());
        let connect = Link::connect(&self.env, dialled, &hello, routes);
        let accept = async {
            let connection = self.acceptor.lock().await.accept().await.unwrap();
            let arrival = IncomingLink::read_hello(&self.env, connection).await.unwrap();
            arrival.admit(Routes::new()).await.unwrap()
        };
        let (edge, cloud) = tokio::join!(connect, accept);
        let (streams, version) = (cloud.byte_streams(), cloud.version());
        let up = CloudStreamMsg::NodeUp { node: node(name), session, streams, version };
        self.stream.tell(up).await.unwrap();
        Linked { cloud, _edge: edge.unwrap() }
    }

    /// The endpoint that EdgeController is told next.
    pub(crate) async fn endpoint(&mut self, name: &str, session: u64) -> KubeletEndpoint {
        match self.edge.next(LONG).await.unwrap() {
            EdgeControllerMsg::KubeletEndpoint { node: told, session: of, endpoint } => {
                assert_eq!((told, of), (node(name), session));
                endpoint
            }
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the API server's CA is known.
    pub(crate) async fn until_client_ca(&self) {
        self.until("the client CA is known", async || {
            let report = self.hive.inspector().report(LONG).await;
            report.actor("cloud-stream").unwrap().snapshot["clientCa"] == true
        })
        .await;
    }

    pub(crate) async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let look = async {
            while !holds().await {
                self.env.sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(self.env.timeout(LONG, look).await.is_some(), "waited in vain: {what}");
    }
}

impl Linked {
    pub(crate) fn close(&self) {
        self.cloud.close();
    }
}
