//! A cloud, its API and some nodes under one simulated clock.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use beehive::link::PeerName;
use beehive::link::memory::{NetworkPath, listen};
use beehive::{Actor, Address, Clock, Context, Ended, Env, Fault, Hive, Reply};
use contract::NodeName;
use contract::devicetwin::{TwinMsg, UpdateListeners};
use contract::eventbus::EventBusMsg;
use contract::metamanager::MetaMsg;
use edge::{Dependencies, EdgeCore};
use edge_eventbus::Uploader;
use edge_hub::{Endpoints, Server as CloudServer};
use edge_store::{Options, StandInDisk, Store, WallClock};
use harness::StandInRuntime;
use noderegistry::Registry;
use serde_json::{Value, json};

use crate::actors::DeliveredMessages;
use crate::api::{Path, Server, create};
use crate::api_store::WantedPods;
use crate::authority::KeptAuthority;
use crate::clock::MachineClock;
use crate::daemon::Daemon;
use crate::link::{ListenAddress, ToCloud};
use crate::probes::{AnswerLoss, CloudProbes, Newest, NodeProbes};
use crate::telemetry::UploadLog;
use crate::trace::Trace;
use crate::violations::Violations;

/// 10 s between renewals of a node's Lease: the default.
const LEASE_PERIOD: Duration = Duration::from_secs(10);
/// Nobody calls a node here.
const CALLS: nodecalls::Limits = nodecalls::Limits { of_node: 0, of_user: 0, all: 0 };
/// 1 s: a daemon that does not use up its turns by then is killed where it stands.
const TURNS_WITHIN: Duration = Duration::from_secs(1);
/// 60 s for a daemon that is told to stop.
const STOP: Duration = Duration::from_secs(60);
/// A bound of the outbox that a run reaches: a burst of telemetry is more, and so is what a node has to tell that is cut
/// off for a while.
pub(crate) const OUTBOX_ROWS: u64 = 12;
/// Of every node's certificate.
const SERIAL: &str = "01";
/// What runs in every pod.
pub(crate) const IMAGE: &str = "web:1";

/// A process of a run, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Process {
    Cloud(usize),
    Node(usize),
}

/// In EventBus' place: MQTT and its threads stay outside. It lets a run speak to DeviceTwin as the bus would, and brings
/// telemetry into the outbox with the bus' own code.
struct EventBusStandIn {
    intake: Uploader,
    store: Store,
    meta: Address<MetaMsg>,
}

impl Actor for EventBusStandIn {
    type Message = EventBusMsg;

    async fn started(&mut self, cx: &mut Context<EventBusMsg>) -> Result<(), Fault> {
        cx.spawn(self.intake.keep(cx.env().clone(), self.store.clone(), self.meta.clone()));
        Ok(())
    }

    async fn handle(&mut self, _: EventBusMsg, _: &mut Context<EventBusMsg>) -> Result<(), Fault> {
        Ok(())
    }
}

/// How a run speaks to a node's broker, while it runs.
#[derive(Clone)]
struct EventBusHandles {
    twin: Address<TwinMsg>,
    intake: Uploader,
}

/// An edge node. Its folder, its runtime and its network path outlive its EdgeCore.
pub(crate) struct Node {
    pub(crate) name: NodeName,
    settings: config::edge::EdgeCore,
    /// One to each CloudCore.
    pub(crate) network_paths: Vec<NetworkPath>,
    pub(crate) answer_loss: AnswerLoss,
    endpoints: Endpoints,
    pub(crate) runtime: StandInRuntime,
    /// The machine's, for EdgeCore and the runtime.
    pub(crate) clock: Arc<MachineClock>,
    pub(crate) disk_full: Arc<AtomicBool>,
    core: Option<(Daemon, EdgeCore, Store)>,
    bus: Rc<RefCell<Option<EventBusHandles>>>,
    newest: Newest,
}

/// A CloudCore. Its place outlives it.
pub(crate) struct Cloud {
    place: ListenAddress,
    pub(crate) clock: Arc<MachineClock>,
    pub(crate) path: Path,
    running: Option<(Daemon, Hive)>,
}

/// See the module.
pub(crate) struct World {
    pub(crate) env: Env,
    pub(crate) api: Server,
    /// The run's own client.
    pub(crate) client: kube::Client,
    pub(crate) authority: KeptAuthority,
    pub(crate) violations: Violations,
    pub(crate) delivered: DeliveredMessages,
    wanted: WantedPods,
    pub(crate) trace: Trace,
    pub(crate) upload_log: UploadLog,
    answer_losses: Arc<Mutex<BTreeMap<NodeName, AnswerLoss>>>,
    pub(crate) clouds: Vec<Cloud>,
    pub(crate) nodes: Vec<Node>,
    folder: tempfile::TempDir,
}

impl World {
    /// A cluster of `nodes` nodes and `clouds` CloudCores, everything started.
    pub(crate) async fn new(seed: u64, nodes: usize, clouds: usize, keep_trace: bool) -> World {
        let env = Env::seeded(seed).without_threads();
        let (violations, trace) = (Violations::default(), Trace::new(env.clock(), keep_trace));
        let wanted = WantedPods::default();
        let api = Server::new(&env, &trace, &violations, &wanted);
        let client = api.own_client();
        for name in ["default", "kubeedge", "kube-node-lease"] {
            create(&client, "v1", "Namespace", json!({"metadata": {"name": name}})).await;
        }
        create(&client, "v1", "ServiceAccount", json!({"metadata": {"name": "default"}})).await;
        cloud::apply_definitions(&client, &env).await.expect("the definitions are taken");
        // In memory: a run is about what is written, not about how long that takes.
        let folder = tempfile::Builder::new().prefix("kubehive-sim").tempdir_in("/dev/shm");
        let folder = folder.or_else(|_| tempfile::tempdir()).expect("a folder for the run");
        let authority = KeptAuthority::made(&client, &env).await;
        let mut world = World {
            env,
            api,
            client,
            authority,
            upload_log: UploadLog::new(&violations),
            violations,
            delivered: DeliveredMessages::default(),
            wanted,
            trace,
            answer_losses: Arc::default(),
            clouds: Vec::new(),
            nodes: Vec::new(),
            folder,
        };
        for number in 0..clouds {
            let clock = MachineClock::new(world.env.clock());
            world.clouds.push(Cloud {
                place: ListenAddress::default(),
                clock,
                path: Path::default(),
                running: None,
            });
            world.start_cloud(number).await;
        }
        for number in 0..nodes {
            world.add_node(&format!("edge-{number}")).await;
        }
        world
    }

    /// A node joins.
    pub(crate) async fn add_node(&mut self, name: &str) {
        harness::enter(self.client.clone(), name, SERIAL, self.env.wall()).await;
        let node = self.node(name);
        self.nodes.push(node);
        self.start_node(self.nodes.len() - 1).await;
    }

    /// Reads the actors of a process, while it runs.
    pub(crate) fn inspector(&self, process: Process) -> Option<beehive::Inspector> {
        match process {
            Process::Cloud(number) => self.clouds[number].running.as_ref().map(|(_, hive)| hive.inspector()),
            Process::Node(number) => self.nodes[number].core().map(EdgeCore::inspector),
        }
    }

    fn node(&self, name: &str) -> Node {
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(&folder).expect("a node's folder");
        let mut settings = config::edge::EdgeCore::default();
        // The machine's own plugins are none of a test's.
        settings.modules.edged.device_plugin_path = Default::default();
        settings.modules.edged.pod_resources_path = Default::default();
        settings.database.data_source = folder.join("edgecore.db");
        let edged = &mut settings.modules.edged;
        edged.hostname_override = name.to_owned();
        edged.node_ip = "127.0.0.1".to_owned();
        edged.root_directory = folder.join("kubelet");
        edged.tailored_kubelet_config.pod_logs_dir = folder.join("logs");
        edged.tailored_kubelet_config.read_only_port = 0;
        edged.tailored_kubelet_config.cgroup_driver = config::edge::CgroupDriver::Systemd;
        edged.tailored_kubelet_config.eviction_hard.nodefs_available = config::Threshold::Part(0);
        edged.tailored_kubelet_config.eviction_hard.imagefs_available = config::Threshold::Part(0);
        edged.tailored_kubelet_config.image_gc_high_threshold_percent = 100;
        settings.modules.edge_stream.socket = std::path::PathBuf::new();
        settings.modules.device_twin.dmi_sock_path = folder;
        // It follows rules; its port is a socket, which the simulation has none of.
        settings.modules.service_bus.enable = true;
        settings.modules.service_bus.server = String::new();
        let clock = MachineClock::new(self.env.clock());
        let runtime = StandInRuntime::with_clock(Arc::clone(&clock) as Arc<dyn Clock>);
        runtime.add_image(IMAGE);
        let network_paths: Vec<NetworkPath> = self.clouds.iter().map(|_| NetworkPath::new()).collect();
        let server = |(number, cloud): (usize, &Cloud)| {
            let me = PeerName::verified(format!("system:node:{name}"), SERIAL);
            let dialer =
                ToCloud { place: cloud.place.clone(), network_path: network_paths[number].clone(), me };
            CloudServer { name: format!("cloud-{number}"), quic: Some(Rc::new(dialer)), websocket: None }
        };
        let endpoints = Endpoints(self.clouds.iter().enumerate().map(server).collect());
        let answer_loss = AnswerLoss::at(&network_paths);
        let name = NodeName::parse(name).expect("a node's name");
        self.answer_losses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.clone(), answer_loss.clone());
        Node {
            name,
            settings,
            network_paths,
            answer_loss,
            endpoints,
            runtime,
            clock,
            disk_full: Arc::default(),
            core: None,
            bus: Rc::default(),
            newest: Arc::default(),
        }
    }

    /// Starts the actors of a CloudCore, if they do not run.
    pub(crate) async fn start_cloud(&mut self, number: usize) {
        let cloud = &mut self.clouds[number];
        if cloud.running.is_some() {
            return;
        }
        let name = format!("cloud-{number}");
        let (port, acceptor) = listen(PeerName::verified(&name, "00"));
        cloud.place.set(Some(port));
        let client = self.api.client(&cloud.path);
        let probes = CloudProbes {
            name,
            trace: self.trace.clone(),
            upload_log: self.upload_log.clone(),
            answer_losses: Arc::clone(&self.answer_losses),
            delivered: self.delivered.clone(),
        };
        let router = config::router::Router { enable: true, ..Default::default() };
        let keeping = self.authority.keeping(&client).await;
        let make = |env: Env| async move {
            let dependencies = cloud::topology::Dependencies {
                registry: Registry::new(client.clone()),
                client,
                acceptor: Box::new(acceptor),
                node_limit: 1000,
                lease_period: LEASE_PERIOD,
                pod_addresses: cloud::topology::PodAddresses::Any,
                linked: cloud_hub::LinkedNodes::default(),
                identity: cloud::identity(&env),
                read_as: kubewatch::ReadAs::CloudCore,
                interruptions: kubewatch::Interruptions::default(),
                calls: nodecalls::NodeCalls::new(CALLS, env.metrics().clone(), env.clock()),
                checks: Default::default(),
                serving: None,
                does_jobs: false,
                rules: cloud::topology::RuleSettings { settings: router, door: None, peers: None },
                renewal: None,
                known: cloud_hub::KnownCertificates::default(),
            };
            let mut hive = Hive::new("cloudcore", env);
            let mailboxes = cloud::topology::mailboxes(&mut hive);
            keeping.wire(&mut hive, &mailboxes);
            probes.watch(&hive);
            cloud::topology::actors(&mut hive, mailboxes, dependencies);
            hive.open().expect("the map of CloudCore is right");
            hive
        };
        let env = self.env.clone().with_clock(Arc::clone(&cloud.clock) as Arc<dyn Clock>);
        cloud.running = Some(Daemon::start(&env, make).await);
    }

    /// Lets a process take so many more turns, or live a second.
    pub(crate) async fn limit_turns(&self, process: Process, turns: u64) {
        let daemon = match process {
            Process::Cloud(number) => self.clouds[number].running.as_ref().map(|(daemon, _)| daemon),
            Process::Node(number) => self.nodes[number].core.as_ref().map(|(daemon, ..)| daemon),
        };
        if let Some(daemon) = daemon {
            daemon.limit_turns(turns);
            self.env.timeout(TURNS_WITHIN, daemon.over()).await;
        }
    }

    /// Starts a process, if it does not run.
    pub(crate) async fn start(&mut self, process: Process) {
        match process {
            Process::Cloud(number) => self.start_cloud(number).await,
            Process::Node(number) => self.start_node(number).await,
        }
    }

    /// Stops a process in order, if it runs, and ends it.
    pub(crate) async fn stop(&mut self, process: Process) -> Option<Ended> {
        match process {
            Process::Cloud(number) => {
                let cloud = &mut self.clouds[number];
                let (daemon, hive) = cloud.running.take()?;
                cloud.place.set(None);
                let ended = hive.shutdown(STOP).await;
                daemon.kill().await;
                Some(ended)
            }
            Process::Node(number) => {
                let node = &mut self.nodes[number];
                let (daemon, core, store) = node.core.take()?;
                node.bus.replace(None);
                drop(store);
                let ended = core.stop(STOP).await;
                daemon.kill().await;
                Some(ended)
            }
        }
    }

    /// Kills a CloudCore at whatever await it stands.
    pub(crate) async fn kill_cloud(&mut self, number: usize) {
        let cloud = &mut self.clouds[number];
        if let Some((daemon, hive)) = cloud.running.take() {
            cloud.place.set(None);
            daemon.kill().await;
            drop(hive);
        }
    }

    /// Starts a node's EdgeCore, if it does not run.
    pub(crate) async fn start_node(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let env = self.env.clone().with_clock(Arc::clone(&node.clock) as Arc<dyn Clock>);
        if node.core.is_some() {
            return;
        }
        let clock = env.clock();
        let full = Arc::clone(&node.disk_full);
        let mut options = Options::new(env.random_id());
        options.threadless = true;
        options.outbox_rows = OUTBOX_ROWS;
        options.disk = Some(StandInDisk::new(move || full.load(Ordering::Relaxed)));
        options.clock = Some(WallClock::new(move || {
            let since = clock.wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        }));
        let store = Store::open(&node.settings.database.data_source, options).expect("the store opens");
        let parts = Dependencies {
            node: node.name.clone(),
            common_name: format!("system:node:{}", node.name),
            endpoints: node.endpoints.clone(),
            certificates: None,
            network: None,
            programs: None,
            checks: None,
            runtime: Arc::new(node.runtime.clone()),
            store: store.clone(),
        };
        let (settings, bus, kept) = (node.settings.clone(), Rc::clone(&node.bus), store.clone());
        let bus = move |twin, meta, _| {
            let intake = Uploader::default();
            bus.replace(Some(EventBusHandles { twin, intake: intake.clone() }));
            EventBusStandIn { intake, store: kept.clone(), meta }
        };
        let make = |env: Env| async move {
            EdgeCore::start_over(&settings, parts, env, bus).await.expect("the map of EdgeCore is right")
        };
        let (daemon, core) = Daemon::start(&env, make).await;
        let probes = NodeProbes {
            name: node.name.clone(),
            trace: self.trace.clone(),
            answer_loss: node.answer_loss.clone(),
            newest: Arc::clone(&node.newest),
            violations: Arc::clone(&self.violations),
            delivered: self.delivered.clone(),
            wanted: self.wanted.clone(),
        };
        probes.watch(&core);
        node.core = Some((daemon, core, store));
    }

    /// Kills a node's EdgeCore at whatever await it stands.
    pub(crate) async fn kill_node(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        if let Some((daemon, core, store)) = node.core.take() {
            node.bus.replace(None);
            drop((core, store));
            daemon.kill().await;
        }
    }

    /// The reports of the actors of all CloudCores.
    pub(crate) async fn cloud_reports(&self) -> Vec<beehive::HiveReport> {
        let mut reports = Vec::new();
        for (_, hive) in self.clouds.iter().filter_map(|cloud| cloud.running.as_ref()) {
            reports.push(hive.inspector().report(Duration::from_secs(5)).await);
        }
        reports
    }

    /// Starts again every daemon that has ended by itself, as its supervisor does, and says why they did.
    pub(crate) async fn raise_daemons(&mut self) -> Vec<String> {
        let mut reasons = Vec::new();
        for number in 0..self.clouds.len() {
            let Some((_, hive)) = &mut self.clouds[number].running else { continue };
            let ended = self.env.timeout(Duration::ZERO, hive.gave_up()).await;
            let Some(reason) = ended else { continue };
            reasons.push(format!("cloud-{number} gave up: {reason}"));
            self.kill_cloud(number).await;
            self.start_cloud(number).await;
        }
        for number in 0..self.nodes.len() {
            let Some((_, core, _)) = &mut self.nodes[number].core else { continue };
            let ended = self.env.timeout(Duration::ZERO, core.gave_up()).await;
            let Some(reason) = ended else { continue };
            reasons.push(format!("{} gave up: {reason}", self.nodes[number].name));
            self.kill_node(number).await;
            self.start_node(number).await;
        }
        reasons
    }
}

impl Node {
    /// Its store, while its EdgeCore runs.
    pub(crate) fn store(&self) -> Option<&Store> {
        self.core.as_ref().map(|(_, _, store)| store)
    }

    /// Its EdgeCore, while it runs.
    pub(crate) fn core(&self) -> Option<&EdgeCore> {
        self.core.as_ref().map(|(_, core, _)| core)
    }

    /// The way of telemetry, while its broker runs.
    pub(crate) fn intake(&self) -> Option<Uploader> {
        self.bus.borrow().as_ref().map(|bus| bus.intake.clone())
    }

    /// Says, as a client of the node's broker, that the device's speed is `value`. Whether that was accepted.
    pub(crate) async fn says_speed(&self, env: &Env, device: &str, value: u64) -> bool {
        let Some(EventBusHandles { twin, .. }) = self.bus.borrow().clone() else { return false };
        let payload: Value = json!({"event_id": "", "timestamp": 0, "twin": {"speed": {"actual": {"value": value.to_string()}}}});
        let message = |reply: Reply<Result<(), String>>| TwinMsg::Mqtt {
            topic: format!("$hw/events/device/default/{device}/twin/update"),
            payload: payload.to_string().into(),
            listeners: UpdateListeners::ALL,
            reply,
        };
        let asked = twin.ask(Duration::from_secs(5), message);
        matches!(env.timeout(Duration::from_secs(6), asked).await, Some(Ok(Ok(()))))
    }
}
