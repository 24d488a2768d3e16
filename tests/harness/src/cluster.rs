//! A whole cluster in one process: an API, a CloudCore and any number of EdgeCores, on the real actors.
//!
//! ```
//! # fn main() {
//! use std::time::Duration;
//! use harness::{Cluster, StandInRuntime, run};
//!
//! run(async || {
//!     let mut cluster = Cluster::spawn().await;
//!     let node = cluster.node("edge-1").await;
//!     cluster.until_ready(&node).await;
//!     node.runtime().add_image("web:1");
//!     cluster.apply("v1", "Pod", serde_json::json!({
//!         "metadata": {"name": "web", "namespace": "default"},
//!         "spec": {"containers": [{"name": "web", "image": "web:1"}]},
//!     })).await;
//!     cluster.until("web runs", || node.runtime().running().iter().any(|c| c.pod == "web")).await;
//!     node.network_path().cut();
//! });
//! # }
//! ```

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::link::memory::{MemoryPort, NetworkPath, listen};
use beehive::link::{Dialer, Hello, Link, LinkError, PeerName, Routes};
use beehive::{Env, Message};
use cloud::{CloudCore, StartError, Transport};
use contract::metamanager::MetaDown;
use edge_hub::Endpoints;
use kube::api::{Api, DynamicObject, PostParams};
use pkcs11key::TokenUri;
use serde_json::Value;

use crate::node::{LONG, LOOK_EVERY, Node};
use crate::real::{ClusterApi, RealCluster};
use crate::resource::objects;
use crate::udp_gate::UdpGate;
use crate::{Recorded, StandInRuntime, account, enter, identity};

/// A day.
const DAY: Duration = Duration::from_secs(86_400);

/// What carries the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkTransport {
    /// A network path in memory, that can be cut.
    Memory,
    /// Real QUIC on loopback, with certificates of the cluster's own CA.
    Quic,
    /// Real WebSocket on loopback; UDP goes to a wall that answers nothing.
    WebSocket,
    /// Both on loopback; UDP passes once [`Cluster::open_udp`] lets it.
    WebSocketBeforeQuic,
}

/// Runs a test on an actix system of its own.
pub fn run(test: impl AsyncFnOnce()) {
    actix_rt::System::new().block_on(async { test().await });
}

/// A cluster. Everything of it lies in one temporary folder and goes with it. CloudCore is the service account of
/// the chart's `rbac.yaml` and may do what that says, nothing else.
pub struct Cluster {
    folder: tempfile::TempDir,
    env: Env,
    api: ClusterApi,
    account: kube::Client,
    cloud: Option<CloudCore>,
    carrier: LinkTransport,
    port: Option<MemoryPort>,
    /// Where UDP goes that gets no answer.
    wall: std::net::UdpSocket,
    /// Where it passes when it may.
    gate: Option<UdpGate>,
    settings: config::cloud::CloudCore,
    /// How long the certificate lives that a node joins with.
    first_life: Duration,
    /// Where the keys of nodes are made; `None`: in files.
    token: Option<TokenUri>,
}

impl Cluster {
    /// A cluster whose links are network paths in memory.
    pub async fn spawn() -> Cluster {
        Cluster::over(LinkTransport::Memory).await
    }

    /// A cluster with this carrier.
    pub async fn over(carrier: LinkTransport) -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let env = Env::real();
        let server = cloud_apiserver::Settings {
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir: folder.path().join("api"),
            ..cloud_apiserver::Settings::default()
        };
        let api = cloud_apiserver::start(server, env.clone()).await.unwrap();
        let account = account::of_stand_alone(&api.client(), api.kubeconfig_path()).await;
        Cluster::with(folder, env, ClusterApi::StandAlone(Box::new(api)), account, carrier).await
    }

    /// A stand-alone API into which `install` brings CloudCore's account, as the administrator of the kubeconfig that it is given; links
    /// are QUIC on loopback.
    pub async fn installed_by(install: impl AsyncFnOnce(PathBuf)) -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let env = Env::real();
        let server = cloud_apiserver::Settings {
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir: folder.path().join("api"),
            ..cloud_apiserver::Settings::default()
        };
        let api = cloud_apiserver::start(server, env.clone()).await.unwrap();
        install(api.kubeconfig_path().to_owned()).await;
        let account =
            account::become_account(&api.client(), api.kubeconfig_path(), "kubeedge", "cloudcore").await;
        Cluster::with(folder, env, ClusterApi::StandAlone(Box::new(api)), account, LinkTransport::Quic).await
    }

    /// A CloudCore of its own beside a real API server, as the account that ships, with nodes whose links are QUIC on
    /// loopback. Names there are for the test to choose: others may use the cluster, too.
    pub async fn beside(real: RealCluster) -> Cluster {
        let account = real.account().await;
        let folder = tempfile::tempdir().unwrap();
        Cluster::with(folder, Env::real(), ClusterApi::Real(real), account, LinkTransport::Quic).await
    }

    async fn with(
        folder: tempfile::TempDir,
        env: Env,
        api: ClusterApi,
        account: kube::Client,
        carrier: LinkTransport,
    ) -> Cluster {
        let mut settings = config::cloud::CloudCore::default();
        settings.common_config.monitor_server.bind_address = "127.0.0.1:0".to_owned();
        settings.modules.edge_controller.node_update_frequency = 2;
        for listener in [&mut settings.modules.cloud_hub.quic, &mut settings.modules.cloud_hub.https] {
            listener.address = "127.0.0.1".to_owned();
            listener.port = 0;
        }
        let endpoint = &mut settings.modules.cloud_stream.kubelet_endpoint;
        endpoint.bind_address = "127.0.0.1".to_owned();
        // A real API server holds CloudCore's account to the ports that policy.yaml names.
        endpoint.first_port = if matches!(api, ClusterApi::Real(_)) { 12_000 } else { 0 };
        // Many clusters share this machine.
        settings.modules.router.peers.bind_address = "127.0.0.1".to_owned();
        settings.modules.router.peers.port = 0;
        let websocket = &mut settings.modules.cloud_hub.websocket;
        websocket.enable = matches!(carrier, LinkTransport::WebSocket | LinkTransport::WebSocketBeforeQuic);
        websocket.address = "127.0.0.1".to_owned();
        websocket.port = 0;
        let wall = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut cluster = Cluster {
            folder,
            env,
            api,
            account,
            cloud: None,
            carrier,
            port: None,
            wall,
            gate: None,
            settings,
            first_life: DAY,
            token: None,
        };
        cluster.start_cloud().await;
        if carrier == LinkTransport::WebSocketBeforeQuic {
            let quic = cluster.settings.modules.cloud_hub.quic.port;
            cluster.gate = Some(UdpGate::to(([127, 0, 0, 1], quic).into()).await);
        }
        cluster
    }

    /// Lets UDP pass from now on.
    ///
    /// # Panics
    /// Where the carrier is not [`LinkTransport::WebSocketBeforeQuic`].
    pub fn open_udp(&self) {
        self.gate.as_ref().expect("a gate for UDP").open();
    }

    /// Starts CloudCore, at the addresses that an earlier one had.
    pub async fn start_cloud(&mut self) {
        let begun = self.env.now();
        let cloud = loop {
            let transport = match self.carrier {
                LinkTransport::Quic | LinkTransport::WebSocket | LinkTransport::WebSocketBeforeQuic => {
                    Transport::Quic
                }
                LinkTransport::Memory => {
                    let (port, acceptor) = listen(PeerName::verified("cloud", "00"));
                    self.port = Some(port);
                    Transport::Given(Box::new(acceptor))
                }
            };
            let account = self.account.clone();
            match CloudCore::start(&self.settings, account, transport, self.env.clone()).await {
                // The endpoint of one that has ended a moment ago may still have the port: a process would have ended.
                Err(StartError::Link(_)) if self.env.now().since(begun) < LONG => {
                    self.env.sleep(LOOK_EVERY).await;
                }
                started => break started.unwrap(),
            }
        };
        if let Some(address) = cloud.link_address() {
            // A CloudCore that comes back is found where it was.
            self.settings.modules.cloud_hub.quic.port = address.port();
        }
        if let Some(address) = cloud.websocket_address() {
            self.settings.modules.cloud_hub.websocket.port = address.port();
        }
        if let ClusterApi::StandAlone(api) = &self.api {
            api.reach_nodes(cloud.calls());
        }
        self.cloud = Some(cloud);
    }

    /// Where HTTP clients call what rules lead to nodes.
    ///
    /// # Panics
    /// When the settings open no such door, or CloudCore is stopped.
    pub fn rule_door(&self) -> std::net::SocketAddr {
        self.cloud.as_ref().unwrap().rule_door_address().unwrap()
    }

    /// A client of the API, as its admin.
    pub fn client(&self) -> kube::Client {
        self.api.admin()
    }

    /// A client that is CloudCore's account.
    pub fn account(&self) -> kube::Client {
        self.account.clone()
    }

    /// The kubeconfig of the API, for `kubectl`.
    pub fn kubeconfig(&self) -> PathBuf {
        self.api.kubeconfig().to_owned()
    }

    /// The state of CloudCore's actors.
    pub async fn state(&self) -> beehive::HiveReport {
        self.cloud.as_ref().unwrap().inspector().report(LONG).await
    }

    /// Puts a probe at one of CloudCore's mailboxes: see [`Node::probe`].
    ///
    /// # Panics
    /// When no mailbox of `M` has that name, or CloudCore is stopped.
    pub fn probe<M: Message, T: Send + 'static>(
        &self,
        mailbox: &str,
        pick: impl Fn(&M) -> Option<T> + Send + Sync + 'static,
    ) -> Recorded<T> {
        let recorded = Recorded::default();
        self.cloud.as_ref().unwrap().tap(mailbox, recorded.tap(pick)).unwrap();
        recorded
    }

    /// Ends CloudCore and starts it with other settings.
    pub async fn reconfigure_cloud(&mut self, set: impl FnOnce(&mut config::cloud::CloudCore)) {
        self.stop_cloud().await;
        set(&mut self.settings);
        self.start_cloud().await;
    }

    /// How long the certificate lives that nodes join with from now on: a day, unless told.
    pub fn joining_for(&mut self, life: Duration) {
        self.first_life = life;
    }

    /// In which PKCS#11 token (a URI) the keys are made of nodes that join from now on: they lie in files, unless told.
    ///
    /// # Panics
    /// When it is no such URI.
    pub fn joining_with_key_in(&mut self, token: &str) {
        self.token = Some(TokenUri::parse(token).unwrap());
    }

    /// Where enrolment listens.
    ///
    /// # Panics
    /// When CloudCore is stopped.
    pub fn enrolment_port(&self) -> u16 {
        self.cloud.as_ref().unwrap().enrolment_address().port()
    }

    /// Its settings.
    pub fn settings(&self) -> &config::cloud::CloudCore {
        &self.settings
    }

    /// Ends CloudCore; the API goes on.
    pub async fn stop_cloud(&mut self) {
        if let Some(cloud) = self.cloud.take() {
            cloud.stop(LONG).await;
        }
    }

    /// Makes an EdgeCore over a runtime in memory, with the store of an earlier one of this name if there was one.
    pub async fn node(&mut self, name: &str) -> Node {
        let network_path = NetworkPath::new();
        let endpoints = self.endpoints(name, &network_path).await;
        self.over_stand_in(name, network_path, endpoints).await
    }

    /// The same for a node that has joined by itself, with its own endpoints to whatever CloudCores there are.
    pub async fn node_by(&mut self, name: &str, endpoints: Endpoints) -> Node {
        self.over_stand_in(name, NetworkPath::new(), Some(endpoints)).await
    }

    async fn over_stand_in(
        &mut self,
        name: &str,
        network_path: NetworkPath,
        endpoints: Option<Endpoints>,
    ) -> Node {
        let runtime = StandInRuntime::default();
        let mut node = self.unstarted(name, Arc::new(runtime.clone()), network_path, endpoints);
        node.stands_on(runtime);
        node.start().await;
        node
    }

    /// Makes an EdgeCore over any runtime.
    pub async fn node_over(&mut self, name: &str, runtime: Arc<dyn cri::Runtime>) -> Node {
        let network_path = NetworkPath::new();
        let endpoints = self.endpoints(name, &network_path).await;
        let mut node = self.unstarted(name, runtime, network_path, endpoints);
        node.start().await;
        node
    }

    /// Where everything lies that a node of this name has: a test may put a disk of its own there before it makes the node.
    /// What is mounted there goes with the cluster.
    pub fn folder_of(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn unstarted(
        &mut self,
        name: &str,
        runtime: Arc<dyn cri::Runtime>,
        network_path: NetworkPath,
        endpoints: Option<Endpoints>,
    ) -> Node {
        let (folder, settings) = (self.folder_of(name), self.node_settings(name));
        Node::unstarted((name, folder), settings, runtime, (network_path, endpoints), self.env.clone())
    }

    fn node_settings(&self, name: &str) -> config::edge::EdgeCore {
        Node::settings_in(self.folder_of(name), name, self.lists())
    }

    /// Over a network path in memory; `None` where the node dials by its own files, which are written here.
    async fn endpoints(&self, name: &str, network_path: &NetworkPath) -> Option<Endpoints> {
        let Some(port) = &self.port else {
            let settings = self.node_settings(name);
            let key = (self.first_life, self.token.as_ref());
            identity::join(self.client(), name, key, &settings, &self.env).await;
            return None;
        };
        enter(self.client(), name, "01", self.env.wall()).await;
        let me = PeerName::verified(format!("system:node:{name}"), "01");
        Some(Rc::new(port.dialer(me, network_path.clone())).into())
    }

    /// QUIC's and WebSocket's lists.
    fn lists(&self) -> (String, String) {
        let hub = &self.settings.modules.cloud_hub;
        match self.carrier {
            LinkTransport::WebSocket => {
                (self.wall.local_addr().unwrap().to_string(), format!("127.0.0.1:{}", hub.websocket.port))
            }
            LinkTransport::WebSocketBeforeQuic => {
                let gate = self.gate.as_ref().expect("a gate for UDP");
                (gate.address().to_string(), format!("127.0.0.1:{}", hub.websocket.port))
            }
            LinkTransport::Memory | LinkTransport::Quic => {
                (format!("127.0.0.1:{}", hub.quic.port), String::new())
            }
        }
    }

    /// A link of whoever holds a certificate of this serial for `node`, with nothing of ours at the other end. What CloudCore
    /// says there is given to `heard`.
    ///
    /// # Errors
    /// As the hub refuses it.
    ///
    /// # Panics
    /// When the links are no network paths in memory.
    pub async fn dial_as(
        &self,
        node: &str,
        serial: &str,
        heard: beehive::Address<MetaDown>,
    ) -> Result<Link, LinkError> {
        let me = PeerName::verified(format!("system:node:{node}"), serial);
        let port = self.port.as_ref().expect("the links are network paths in memory");
        let dialled = port.dialer(me.clone(), NetworkPath::new()).dial().await;
        let connection = dialled.map_err(|error| LinkError::Broke(error.to_string()))?;
        let routes = Routes::new().accept(heard, |message: MetaDown, _: &PeerName| message);
        Link::connect(&self.env, connection, &Hello::of(me.as_str()), routes).await
    }

    /// The clock and the lots of this cluster.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// Creates an object.
    pub async fn apply(&self, api_version: &str, kind: &str, mut object: Value) -> DynamicObject {
        object["apiVersion"] = Value::from(api_version);
        object["kind"] = Value::from(kind);
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let namespace = object.metadata.namespace.clone();
        self.objects(api_version, kind, namespace.as_deref())
            .create(&PostParams::default(), &object)
            .await
            .unwrap()
    }

    /// Objects of a kind. The plural is the kind's name in small letters with an `s` (`es` after `s`).
    pub fn objects(&self, api_version: &str, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
        self.objects_as(self.client(), api_version, kind, namespace)
    }

    /// Objects of a kind, as whoever the client is.
    pub fn objects_as(
        &self,
        client: kube::Client,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
    ) -> Api<DynamicObject> {
        objects(client, api_version, kind, namespace)
    }

    /// Waits until `holds`; panics with `what` after 60 s.
    pub async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        self.until_async(what, async || holds()).await;
    }

    /// Waits until `holds`, which may ask the API; panics with `what` after 60 s.
    pub async fn until_async(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let waiting = async {
            while !holds().await {
                self.env.sleep(LOOK_EVERY).await;
            }
        };
        assert!(self.env.timeout(LONG, waiting).await.is_some(), "waited in vain: {what}");
    }

    /// Waits until the API shows the node as Ready.
    pub async fn until_ready(&self, node: &Node) {
        let nodes = self.objects("v1", "Node", None);
        self.until_async("the node is Ready", async || {
            let Ok(Some(found)) = nodes.get_opt(node.name()).await else { return false };
            let conditions = found.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
        })
        .await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Volumes in memory outlive a node, as they do in a real one that stops.
        let mounts = mountinfo::here().unwrap_or_default().into_iter().map(|mount| mount.point);
        for point in mounts.filter(|point| point.starts_with(self.folder.path())) {
            // A node that was not stopped may still have files open there.
            let _ = std::process::Command::new("umount").arg("--lazy").arg(point).status();
        }
    }
}
