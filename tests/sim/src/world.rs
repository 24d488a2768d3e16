//! A cloud, its API and some nodes under one simulated clock.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use beehive::link::PeerName;
use beehive::link::memory::{Cable, listen};
use beehive::{Actor, Address, Context, Env, Fault, Hive, Reply};
use cloud_hub::Vault;
use contract::NodeName;
use contract::devicetwin::TwinMsg;
use contract::eventbus::EventBusMsg;
use contract::metamanager::{MetaDown, MetaMsg};
use contract::wire::META_MAILBOX;
use contract::{Change, ObjectKey};
use edge::{EdgeCore, Parts};
use edge_store::{Options, StandInDisk, Store, WallClock};
use harness::StandInRuntime;
use serde_json::{Value, json};

use crate::api::{Server, create};
use crate::daemon::Daemon;
use crate::link::{Place, ToCloud};

/// 10 s between renewals of a node's Lease: the default.
const LEASE_PERIOD: Duration = Duration::from_secs(10);
/// A bound of the outbox that a run reaches: a node that is cut off for a while has more to tell.
pub(crate) const OUTBOX_ROWS: u64 = 12;
/// What runs in every pod.
pub(crate) const IMAGE: &str = "web:1";

/// What a run found wrong.
pub(crate) type Violations = Arc<Mutex<Vec<String>>>;

pub(crate) fn note(violations: &Violations, what: String) {
    violations.lock().unwrap_or_else(PoisonError::into_inner).push(what);
}

/// In EventBus' place: MQTT and its threads stay outside. It lets a run speak to DeviceTwin as the bus would.
struct Bus;

impl Actor for Bus {
    type Message = EventBusMsg;

    async fn handle(&mut self, _: EventBusMsg, _: &mut Context<EventBusMsg>) -> Result<(), Fault> {
        Ok(())
    }
}

/// An edge node. Its folder, its runtime and its cable outlive its EdgeCore.
pub(crate) struct Node {
    pub(crate) name: NodeName,
    settings: config::edge::EdgeCore,
    pub(crate) cable: Cable,
    dialer: Rc<ToCloud>,
    pub(crate) runtime: StandInRuntime,
    pub(crate) disk_full: Arc<AtomicBool>,
    core: Option<(Daemon, EdgeCore, Store)>,
    twin: Rc<std::cell::RefCell<Option<Address<TwinMsg>>>>,
    /// The newest version of each object that was ever committed.
    newest: Arc<Mutex<BTreeMap<ObjectKey, u64>>>,
}

/// See the module.
pub(crate) struct World {
    pub(crate) env: Env,
    pub(crate) api: Server,
    /// The run's own client.
    pub(crate) client: kube::Client,
    pub(crate) violations: Violations,
    place: Place,
    cloud: Option<(Daemon, Hive)>,
    pub(crate) nodes: Vec<Node>,
    folder: tempfile::TempDir,
}

impl World {
    /// A cluster of `nodes` nodes, everything started.
    pub(crate) async fn new(seed: u64, nodes: usize) -> World {
        let env = Env::seeded(seed).without_threads();
        let api = Server::new(&env);
        let client = api.own_client();
        for name in ["default", "kubeedge", "kube-node-lease"] {
            create(&client, "v1", "Namespace", json!({"metadata": {"name": name}})).await;
        }
        create(&client, "v1", "ServiceAccount", json!({"metadata": {"name": "default"}})).await;
        cloud::apply_definitions(&client, &env).await.expect("the definitions are taken");
        // In memory: a run is about what is written, not about how long that takes.
        let folder = tempfile::Builder::new().prefix("kubehive-sim").tempdir_in("/dev/shm");
        let folder = folder.or_else(|_| tempfile::tempdir()).expect("a folder for the run");
        let mut world = World {
            env,
            api,
            client,
            violations: Violations::default(),
            place: Place::default(),
            cloud: None,
            nodes: Vec::new(),
            folder,
        };
        world.start_cloud().await;
        for number in 0..nodes {
            let node = world.node(&format!("edge-{number}"));
            world.nodes.push(node);
            world.start_node(number).await;
        }
        world
    }

    fn node(&self, name: &str) -> Node {
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(&folder).expect("a node's folder");
        let mut settings = config::edge::EdgeCore::default();
        settings.database.data_source = folder.join("edgecore.db");
        let edged = &mut settings.modules.edged;
        edged.hostname_override = name.to_owned();
        edged.node_ip = "127.0.0.1".to_owned();
        edged.root_directory = folder.join("kubelet");
        edged.tailored_kubelet_config.pod_logs_dir = folder.join("logs");
        edged.tailored_kubelet_config.cgroup_driver = config::edge::CgroupDriver::Systemd;
        edged.tailored_kubelet_config.eviction_hard.nodefs_available = config::Threshold::Part(0);
        settings.modules.device_twin.dmi_sock_path = folder;
        let runtime = StandInRuntime::with_clock(self.env.clock());
        runtime.add_image(IMAGE);
        let cable = Cable::new();
        let dialer = ToCloud {
            place: self.place.clone(),
            cable: cable.clone(),
            me: PeerName::verified(format!("system:node:{name}"), "01"),
        };
        Node {
            name: NodeName::parse(name).expect("a node's name"),
            settings,
            cable,
            dialer: Rc::new(dialer),
            runtime,
            disk_full: Arc::default(),
            core: None,
            twin: Rc::default(),
            newest: Arc::default(),
        }
    }

    /// Starts CloudCore's actors, if they do not run.
    pub(crate) async fn start_cloud(&mut self) {
        if self.cloud.is_some() {
            return;
        }
        let (port, acceptor) = listen(PeerName::verified("cloud", "00"));
        self.place.set(Some(port));
        let (client, env) = (self.api.client(), self.env.clone());
        let make = async move {
            let parts = cloud::topology::Parts {
                vault: Vault::new(client.clone()),
                client,
                acceptor: Box::new(acceptor),
                node_limit: 1000,
                lease_period: LEASE_PERIOD,
            };
            let mut hive = Hive::new("cloudcore", env);
            let seats = cloud::topology::seats(&mut hive);
            cloud::topology::actors(&mut hive, seats, parts);
            hive.open().expect("the map of CloudCore is right");
            hive
        };
        self.cloud = Some(Daemon::start(make).await);
    }

    /// Kills CloudCore at whatever await it stands.
    pub(crate) async fn kill_cloud(&mut self) {
        if let Some((daemon, hive)) = self.cloud.take() {
            self.place.set(None);
            daemon.kill().await;
            drop(hive);
        }
    }

    /// Starts a node's EdgeCore, if it does not run.
    pub(crate) async fn start_node(&mut self, number: usize) {
        let (env, violations) = (self.env.clone(), Arc::clone(&self.violations));
        let node = &mut self.nodes[number];
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
        let parts = Parts {
            node: node.name.clone(),
            common_name: format!("system:node:{}", node.name),
            ways: (Rc::clone(&node.dialer) as Rc<dyn beehive::link::Dialer>).into(),
            surroundings: None,
            runtime: Arc::new(node.runtime.clone()),
            store: store.clone(),
        };
        let (settings, twin) = (node.settings.clone(), Rc::clone(&node.twin));
        let bus = move |address, _| {
            twin.replace(Some(address));
            Bus
        };
        let make = async move {
            EdgeCore::start_over(&settings, parts, env, bus).await.expect("the map of EdgeCore is right")
        };
        let (daemon, core) = Daemon::start(make).await;
        let (newest, name) = (Arc::clone(&node.newest), node.name.clone());
        let watch = move |message: &MetaMsg| {
            if let MetaMsg::Down(MetaDown::Apply { changes, .. }) = message {
                no_older_after_newer(&name, &newest, changes, &violations);
            }
        };
        core.tap(META_MAILBOX, watch).expect("nobody else looks on");
        node.core = Some((daemon, core, store));
    }

    /// Kills a node's EdgeCore at whatever await it stands.
    pub(crate) async fn kill_node(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        if let Some((daemon, core, store)) = node.core.take() {
            node.twin.replace(None);
            drop((core, store));
            daemon.kill().await;
        }
    }

    /// The reports of CloudCore's actors.
    pub(crate) async fn cloud_report(&self) -> Option<beehive::HiveReport> {
        let (_, hive) = self.cloud.as_ref()?;
        Some(hive.inspector().report(Duration::from_secs(5)).await)
    }

    /// Whether CloudCore has ended by itself.
    pub(crate) async fn cloud_gave_up(&mut self) -> Option<String> {
        let env = self.env.clone();
        let (_, hive) = self.cloud.as_mut()?;
        env.timeout(Duration::ZERO, hive.gave_up()).await
    }
}

/// A version that is older than one which was handed in before is never applied: versions of the API only grow.
fn no_older_after_newer(
    node: &NodeName,
    newest: &Mutex<BTreeMap<ObjectKey, u64>>,
    changes: &[Change],
    violations: &Violations,
) {
    let mut newest = newest.lock().unwrap_or_else(PoisonError::into_inner);
    for change in changes {
        let Change::Upsert(object) = change else { continue };
        let version = object.version.parse().unwrap_or(0);
        let held = newest.entry(object.key.clone()).or_default();
        if version < *held {
            note(violations, format!("{node}: {} at {version} after {held}", object.key.name));
        }
        *held = version.max(*held);
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

    /// Says, as a client of the node's broker, that the device's speed is `value`. Whether that was accepted.
    pub(crate) async fn says_speed(&self, env: &Env, device: &str, value: u64) -> bool {
        let Some(twin) = self.twin.borrow().clone() else { return false };
        let payload: Value = json!({"event_id": "", "timestamp": 0, "twin": {"speed": {"actual": {"value": value.to_string()}}}});
        let message = |reply: Reply<Result<(), String>>| TwinMsg::Mqtt {
            topic: format!("$hw/events/device/default/{device}/twin/update"),
            payload: payload.to_string().into(),
            reply,
        };
        let asked = twin.ask(Duration::from_secs(5), message);
        matches!(env.timeout(Duration::from_secs(6), asked).await, Some(Ok(Ok(()))))
    }
}
