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

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::link::memory::{MemoryPort, NetworkPath, listen};
use beehive::link::{Dialer, Hello, Link, LinkError, PeerName, Routes};
use beehive::{Env, Message};
use cloud::{CloudCore, StartError, Transport};
use config::Threshold;
use config::edge::CgroupDriver;
use contract::NodeName;
use contract::metamanager::MetaDown;
use edge::{Dependencies, EdgeCore};
use edge_hub::Endpoints;
use edge_taskmanager::NodePrograms;
use kube::api::{Api, DynamicObject, PostParams};
use serde_json::Value;

use crate::real::{ClusterApi, RealCluster};
use crate::resource::objects;
use crate::{Recorded, StandInRuntime, account, enter, identity};

/// 60 s of the environment's clock: what a test waits for a fact at the most.
pub const LONG: Duration = Duration::from_secs(60);
/// A day.
const DAY: Duration = Duration::from_secs(86_400);
/// 20 ms between looks at a fact.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What carries the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkTransport {
    /// A network path in memory, that can be cut.
    Memory,
    /// Real QUIC on loopback, with certificates of the cluster's own CA.
    Quic,
    /// Real WebSocket on loopback; UDP goes to a wall that answers nothing.
    WebSocket,
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
    settings: config::cloud::CloudCore,
    /// How long the certificate lives that a node joins with.
    first_life: Duration,
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
        let websocket = &mut settings.modules.cloud_hub.websocket;
        websocket.enable = carrier == LinkTransport::WebSocket;
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
            settings,
            first_life: DAY,
        };
        cluster.start_cloud().await;
        cluster
    }

    /// Starts CloudCore, at the addresses that an earlier one had.
    pub async fn start_cloud(&mut self) {
        let begun = self.env.now();
        let cloud = loop {
            let transport = match self.carrier {
                LinkTransport::Quic | LinkTransport::WebSocket => Transport::Quic,
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
        node.stand_in = Some(runtime);
        // Nothing runs, so nothing is bounded: the runtime is said to make the pods' cgroups.
        node.settings.modules.edged.tailored_kubelet_config.cgroup_driver = CgroupDriver::Systemd;
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
        std::fs::create_dir_all(&folder).unwrap();
        Node {
            name: NodeName::parse(name).unwrap(),
            env: self.env.clone(),
            settings,
            folder,
            network_path,
            endpoints,
            runtime,
            stand_in: None,
            programs: None,
            core: None,
        }
    }

    fn node_settings(&self, name: &str) -> config::edge::EdgeCore {
        let folder = self.folder_of(name);
        let mut settings = config::edge::EdgeCore::default();
        // The machine's own plugins are none of a test's.
        settings.modules.edged.device_plugin_path = Default::default();
        settings.modules.edged.pod_resources_path = Default::default();
        settings.database.data_source = folder.join("edgecore.db");
        settings.modules.edged.hostname_override = name.to_owned();
        settings.modules.edged.node_ip = "127.0.0.1".to_owned();
        settings.modules.edged.root_directory = folder.join("kubelet");
        settings.modules.edged.tailored_kubelet_config.pod_logs_dir = folder.join("logs");
        // Many nodes share this machine.
        settings.modules.edged.tailored_kubelet_config.read_only_port = 0;
        settings.modules.edge_stream.socket = PathBuf::new();
        // A test is not about how full this machine's disk is.
        settings.modules.edged.tailored_kubelet_config.eviction_hard.nodefs_available = Threshold::Part(0);
        settings.modules.edged.tailored_kubelet_config.eviction_hard.imagefs_available = Threshold::Part(0);
        settings.modules.edged.tailored_kubelet_config.image_gc_high_threshold_percent = 100;
        settings.modules.event_bus.mqtt_server_internal = "127.0.0.1:0".to_owned();
        let hub = &mut settings.modules.edge_hub;
        let (quic, websocket) = self.lists();
        hub.websocket.enable = !websocket.is_empty();
        hub.quic.server = quic;
        if hub.websocket.enable {
            hub.websocket.server = websocket;
        }
        hub.tls_ca_file = folder.join("pki/rootCA.crt");
        hub.tls_cert_file = folder.join("pki/server.crt");
        hub.tls_private_key_file = folder.join("pki/server.key");
        settings.modules.device_twin.dmi_sock_path = folder;
        settings
    }

    /// Over a network path in memory; `None` where the node dials by its own files, which are written here.
    async fn endpoints(&self, name: &str, network_path: &NetworkPath) -> Option<Endpoints> {
        let Some(port) = &self.port else {
            let settings = self.node_settings(name);
            identity::join(self.client(), name, self.first_life, &settings, &self.env).await;
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
            let Ok(Some(found)) = nodes.get_opt(node.name.as_str()).await else { return false };
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

/// An EdgeCore of a cluster.
pub struct Node {
    name: NodeName,
    env: Env,
    settings: config::edge::EdgeCore,
    folder: PathBuf,
    network_path: NetworkPath,
    /// `None`: by its own files.
    endpoints: Option<Endpoints>,
    runtime: Arc<dyn cri::Runtime>,
    stand_in: Option<StandInRuntime>,
    /// What jobs exchange; `None`: nothing.
    programs: Option<NodePrograms>,
    core: Option<EdgeCore>,
}

impl Node {
    /// Its name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Its folder: store, volumes, `dmi.sock`.
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// The network path to the cloud. A carrier of packets has none that can be cut: use a relay.
    pub fn network_path(&self) -> &NetworkPath {
        &self.network_path
    }

    /// Its runtime in memory.
    ///
    /// # Panics
    /// When it was made over another one.
    pub fn runtime(&self) -> &StandInRuntime {
        self.stand_in.as_ref().unwrap()
    }

    /// The EdgeCore itself: its store and its actors.
    ///
    /// # Panics
    /// While it is stopped.
    pub fn core(&self) -> &EdgeCore {
        self.core.as_ref().unwrap()
    }

    /// Puts a probe at one of its mailboxes: what `pick` makes of each message is noted before the actor is handed
    /// it. A mailbox has room for one probe, and an EdgeCore that is started again has none.
    ///
    /// # Panics
    /// When no mailbox of `M` has that name.
    pub fn probe<M: Message, T: Send + 'static>(
        &self,
        mailbox: &str,
        pick: impl Fn(&M) -> Option<T> + Send + Sync + 'static,
    ) -> Recorded<T> {
        let recorded = Recorded::default();
        self.core().tap(mailbox, recorded.tap(pick)).unwrap();
        recorded
    }

    /// The snapshot of one of its actors.
    pub async fn snapshot(&self, actor: &str) -> Value {
        let report = self.core().inspector().report(LONG).await;
        report.actors.into_iter().find(|a| a.name == actor).map(|a| a.snapshot).unwrap_or_default()
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        self.core.is_some()
    }

    /// Its settings, as `edgecore.yaml` would have them.
    pub fn settings(&self) -> &config::edge::EdgeCore {
        &self.settings
    }

    /// Other settings, for its next start.
    pub fn configure(&mut self, set: impl FnOnce(&mut config::edge::EdgeCore)) {
        set(&mut self.settings);
    }

    /// Starts it. Neither the cloud nor the runtime has to be there.
    pub async fn start(&mut self) {
        // The tasks of one that was stopped a moment ago may still hold the store: a process would have ended.
        let opened = async {
            loop {
                match edge::open_store(&self.settings, &self.name, &self.env) {
                    Err(edge_store::StoreError::InUse { .. }) => self.env.sleep(LOOK_EVERY).await,
                    other => return other.unwrap(),
                }
            }
        };
        let store = self.env.timeout(LONG, opened).await.expect("the store is let go");
        let (endpoints, certificates) = match self.endpoints.clone() {
            Some(endpoints) => (endpoints, None),
            None => {
                let (endpoints, certificates, named) = identity::identity(&self.settings, &store, &self.env);
                (endpoints, Some((certificates, named)))
            }
        };
        let parts = Dependencies {
            node: self.name.clone(),
            common_name: format!("system:node:{}", self.name),
            endpoints,
            certificates,
            network: None,
            programs: self.programs.clone(),
            runtime: Arc::clone(&self.runtime),
            store,
        };
        self.core = Some(EdgeCore::start(&self.settings, parts, self.env.clone()).await.unwrap());
    }

    /// Has jobs exchange an `edgecore.yaml` that says this and nothing else, by this `keadm`, from the next start on. Answers where it is.
    pub fn exchange_settings_by(&mut self, keadm: &Path, text: &str) -> PathBuf {
        let config = self.folder.join("edgecore.yaml");
        std::fs::write(&config, text).unwrap();
        self.programs = Some(NodePrograms {
            keadm: keadm.to_owned(),
            config: config.clone(),
            store: self.settings.database.data_source.clone(),
            runtime_endpoint: String::new(),
            settings: Arc::new(config::edge::EdgeCore::load(&config).unwrap()),
        });
        config
    }

    /// Ends it and starts it with other settings.
    pub async fn reconfigure(&mut self, set: impl FnOnce(&mut config::edge::EdgeCore)) {
        self.stop().await;
        set(&mut self.settings);
        self.start().await;
    }

    /// As when `edgecore` has begun so often in one boot of the machine, each time soon after the last, and nobody told it to end.
    ///
    /// # Panics
    /// While it runs.
    pub async fn begin_runs(&self, times: usize) {
        assert!(self.core.is_none(), "the store is in use");
        let boot_id = self.settings.database.data_source.with_extension("boot_id");
        std::fs::write(&boot_id, "one boot").unwrap();
        let store = edge::open_store(&self.settings, &self.name, &self.env).unwrap();
        for _ in 0..times {
            edge::begin_run(&store, &self.env, &boot_id).await.unwrap();
        }
    }

    /// Takes its store away, as when its disk was replaced; the settings and the certificate stay.
    ///
    /// # Panics
    /// While it runs.
    pub fn lose_store(&self) {
        assert!(self.core.is_none(), "the store is in use");
        let path = &self.settings.database.data_source;
        let folder = path.parent().unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_name().to_str().is_some_and(|found| found.starts_with(name)) {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
    }

    /// Ends it in order; containers go on.
    pub async fn stop(&mut self) {
        if let Some(core) = self.core.take() {
            core.stop(LONG).await;
        }
    }
}
