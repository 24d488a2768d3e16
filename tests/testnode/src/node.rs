//! The node itself: what its actors are made of, its start, its end, and its start on what it has left.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::testing::Probe;
use beehive::{Actor, Address, Capacity, Ended, Env, Flow, Hive, Mailbox, Policy};
use config::edge::TailoredKubeletConfig;
use contract::csi::CsiMsg;
use contract::edged::EdgedMsg;
use contract::metamanager::{MetaMsg, NoToken};
use contract::volume_stats::VolumesOfPods;
use contract::{TokenGrant, TokenQuery, UpReport};
use cri::{Grpc, Runtime};
use edge_containermanager::ContainerManager;
use edge_csi::EdgeCsi;
use edge_edged::{Edged, Settings};
use edge_store::{Options, Store};
use serde_json::Value;
use testhost::TestHost;

use crate::objects::{container_id, forget, put, uid};
use crate::reports::Reports;
use crate::{SOON, eventually};

/// What was told to MetaManager.
#[derive(Default)]
pub struct Heard {
    /// How often Edged said that it makes progress.
    pub alive: usize,
    /// Without a cloud no token is granted.
    pub offline: bool,
    /// The tokens that were asked for.
    pub queries: Vec<TokenQuery>,
}

/// Supervises Edged: a test may put something around it.
type Supervise = Rc<dyn Fn(&mut Hive, Mailbox<EdgedMsg>, Rc<dyn Fn() -> Edged>)>;

/// What a node is made of.
#[derive(Clone)]
pub struct Plan {
    env: Env,
    edged: config::edge::Edged,
    settings: Settings,
    /// Who works with the runtime, and who stands between it and Edged.
    runtime: Arc<dyn Runtime>,
    of_edged: Arc<dyn Runtime>,
    supervise: Supervise,
    mounts: bool,
    gives: bool,
}

impl Plan {
    /// A node on what the host's folder holds: its disk may be as full as it likes, and its cgroups lie apart.
    pub fn of(host: &TestHost) -> Plan {
        Plan::configured(host, |_| {})
    }

    /// The same with other settings of a kubelet.
    pub fn configured(host: &TestHost, set: impl FnOnce(&mut TailoredKubeletConfig)) -> Plan {
        let mut edged = config::edge::Edged {
            device_plugin_path: host.dir().join("plugins"),
            pod_resources_path: host.dir().join("pod-resources"),
            ..config::edge::Edged::default()
        };
        let hard = &mut edged.tailored_kubelet_config.eviction_hard;
        hard.nodefs_available = config::Threshold::Part(0);
        hard.imagefs_available = config::Threshold::Part(0);
        set(&mut edged.tailored_kubelet_config);
        let mut settings = Settings::new("edge-1", &edged);
        settings.image_collection.high_percent = 100;
        settings.root = host.dir().join("kubelet");
        settings.logs = host.dir().join("pods");
        settings.links = host.dir().join("containers");
        settings.homes = Vec::new();
        settings.node_ips = vec!["192.0.2.1".to_owned()];
        settings.cgroup_root = format!("/{}", host.netns());
        settings.report_node_every = Duration::from_millis(500);
        let runtime: Arc<dyn Runtime> =
            Arc::new(Grpc::new(&host.endpoint(), &host.endpoint(), SOON).unwrap());
        let of_edged = Arc::clone(&runtime);
        let supervise: Supervise =
            Rc::new(|hive, mailbox, make| hive.supervise(mailbox, Policy::default(), move || make()));
        let env = Env::real();
        Plan { env, edged, settings, runtime, of_edged, supervise, mounts: false, gives: false }
    }

    /// In another environment.
    #[must_use]
    pub fn within(mut self, env: Env) -> Plan {
        self.env = env;
        self
    }

    /// With other settings of Edged's.
    #[must_use]
    pub fn set(mut self, set: impl FnOnce(&mut Settings)) -> Plan {
        set(&mut self.settings);
        self
    }

    /// With something between the node and its runtime.
    #[must_use]
    pub fn between(mut self, between: impl FnOnce(Arc<dyn Runtime>) -> Arc<dyn Runtime>) -> Plan {
        self.runtime = between(self.runtime);
        self.of_edged = Arc::clone(&self.runtime);
        self
    }

    /// With something between Edged and the runtime that the test itself does not meet.
    #[must_use]
    pub fn between_edged(mut self, between: impl FnOnce(Arc<dyn Runtime>) -> Arc<dyn Runtime>) -> Plan {
        self.of_edged = between(Arc::clone(&self.runtime));
        self
    }

    /// With something around Edged.
    #[must_use]
    pub fn around<A: Actor<Message = EdgedMsg>>(
        mut self,
        policy: Policy,
        around: impl Fn(Edged) -> A + 'static,
    ) -> Plan {
        let around = Rc::new(around);
        self.supervise = Rc::new(move |hive, mailbox, make| {
            let around = Rc::clone(&around);
            hive.supervise(mailbox, policy, move || around(make()));
        });
        self
    }

    /// With EdgeCsi.
    #[must_use]
    pub fn mounting(mut self) -> Plan {
        self.mounts = true;
        self
    }

    /// With ContainerManager.
    #[must_use]
    pub fn giving(mut self) -> Plan {
        self.gives = true;
        self
    }

    /// Starts it on the store in the host's folder.
    pub fn start(self, host: &TestHost) -> Node {
        let store = Store::open(host.dir().join("edge.db"), Options::new([1; 16])).unwrap();
        let (probe, meta) = Probe::new(&self.env, 64);
        let heard = Rc::new(RefCell::new(Heard::default()));
        actix_rt::spawn(listen(probe, Rc::clone(&heard)));
        Node::begin(self, store, meta, heard)
    }
}

/// Edged and what it works with.
pub struct Node {
    /// The runtime.
    pub runtime: Arc<dyn Runtime>,
    /// The node's store.
    pub store: Store,
    /// What was told to MetaManager.
    pub heard: Rc<RefCell<Heard>>,
    /// Edged's settings.
    pub settings: Settings,
    /// Edged.
    pub edged: Address<EdgedMsg>,
    /// EdgeCsi, where there is one.
    pub csi: Option<Address<CsiMsg>>,
    /// What they run in.
    pub hive: Hive,
    meta: Address<MetaMsg>,
    plan: Plan,
}

impl Node {
    fn begin(plan: Plan, store: Store, meta: Address<MetaMsg>, heard: Rc<RefCell<Heard>>) -> Node {
        let room = || Capacity::new(128, "a test's choice");
        let mut hive = Hive::new("edgecore", plan.env.clone());
        let mailbox = hive.mailbox::<EdgedMsg>("edged", room());
        let edged = hive.grant("test", &mailbox, Flow::Ask);
        let volumes = plan.mounts.then(|| hive.mailbox::<CsiMsg>("edge-csi", room()));
        let given = plan.gives.then(|| hive.mailbox("containers", room()));
        let csi = volumes.as_ref().map(|volumes| hive.grant("test", volumes, Flow::Ask));
        let to_csi = volumes.as_ref().map(|volumes| hive.grant("edged", volumes, Flow::Ask));
        let to_given = given.as_ref().map(|given| hive.grant("edged", given, Flow::Ask));
        let settings = plan.settings.clone();
        if let Some(volumes) = volumes {
            let to_edged = hive.grant("edge-csi", &mailbox, Flow::TryTell);
            let of_csi = edge_csi::Settings::new(settings.root.clone(), &settings.node_name)
                .times(Duration::from_secs(5), Duration::from_millis(100));
            hive.supervise(volumes, Policy::default(), move || {
                EdgeCsi::new(of_csi.clone(), to_edged.clone())
            });
        }
        if let Some(given) = given {
            let to_edged = hive.grant("containers", &mailbox, Flow::TryTell);
            let of_given = edge_containermanager::Settings::new(&plan.edged);
            let (kept, runtime, name) =
                (store.clone(), Arc::clone(&plan.runtime), settings.node_name.clone());
            hive.supervise(given, Policy::default(), move || {
                ContainerManager::new(of_given.clone(), kept.clone(), to_edged.clone())
                    .pinning(&name, Arc::clone(&runtime))
            });
        }
        let (of_edged, kept, to_meta, runtime) =
            (settings.clone(), store.clone(), meta.clone(), Arc::clone(&plan.of_edged));
        let make = move || {
            let edged = Edged::new(of_edged.clone(), Arc::clone(&runtime), kept.clone(), to_meta.clone());
            let edged = match &to_csi {
                Some(csi) => edged.mounting_by(csi.clone()),
                None => edged,
            };
            match &to_given {
                Some(given) => edged.with_containers(given.clone()),
                None => edged,
            }
        };
        (plan.supervise)(&mut hive, mailbox, Rc::new(make));
        hive.open().unwrap();
        let runtime = Arc::clone(&plan.runtime);
        Node { runtime, store, heard, settings, edged, csi, hive, meta, plan }
    }

    /// Ends Edged as a daemon ends, does something, and starts it again on the store as it is then.
    pub async fn restart(self, host: &TestHost, meanwhile: impl AsyncFnOnce(&Store, &dyn Runtime)) -> Node {
        let stopped = self.stop(host).await;
        meanwhile(&stopped.store, stopped.plan.runtime.as_ref()).await;
        stopped.start()
    }

    /// Ends the node as a daemon ends. The store is open again then.
    pub async fn stop(self, host: &TestHost) -> Stopped {
        let Node { store, heard, edged, csi, hive, meta, plan, .. } = self;
        assert_eq!(hive.shutdown(crate::SOON).await, Ended::InOrder);
        drop((edged, csi, store));
        let path = host.dir().join("edge.db");
        // Tasks that were ended let go of the file a moment later.
        let again = async || Store::open(&path, Options::new([1; 16])).ok();
        let store = eventually(again).await.expect("the store opens again");
        Stopped { store, heard, meta, plan }
    }

    /// Puts objects into the store as MetaManager does, and says so.
    pub async fn apply(&self, objects: &[Value]) {
        put(&self.store, objects).await;
        self.edged.tell(EdgedMsg::Reconcile).await.unwrap();
    }

    /// Forgets a pod and says so.
    pub async fn forget(&self, pod: &str) {
        forget(&self.store, pod).await;
        self.edged.tell(EdgedMsg::Reconcile).await.unwrap();
    }

    /// What the node reports.
    pub fn said(&self) -> Reports<'_> {
        Reports(&self.store)
    }

    /// Everything in the outbox, the oldest first.
    pub fn reports(&self) -> Vec<UpReport> {
        self.said().all()
    }

    /// The newest status of a pod.
    pub fn status(&self, pod: &str) -> Option<Value> {
        self.said().status(pod)
    }

    /// The newest report of the node.
    pub fn node(&self) -> Option<Value> {
        self.said().node()
    }

    /// The events of a pod: reason and message.
    pub fn events(&self, pod: &str) -> Vec<(String, String)> {
        self.said().events(pod)
    }

    /// The same as they are told.
    pub fn event_objects(&self, pod: &str) -> Vec<Value> {
        Reports(&self.store).event_objects(pod)
    }

    /// What Edged says that the volumes of its pods hold.
    pub async fn volumes(&self) -> VolumesOfPods {
        self.edged.ask(Duration::from_secs(10), |reply| EdgedMsg::VolumeStats { reply }).await.unwrap()
    }

    /// Waits for a status of a pod.
    pub async fn until(&self, pod: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        self.said().until(pod, what, holds).await
    }

    /// Waits until a pod is ready.
    pub async fn until_ready(&self, pod: &str) -> Value {
        self.said().until_ready(pod).await
    }

    /// Waits until a pod has a phase.
    pub async fn until_phase(&self, pod: &str, phase: &str) -> Value {
        self.said().until_phase(pod, phase).await
    }

    /// Waits until the end of a pod is reported.
    pub async fn until_gone(&self, pod: &str) {
        self.said().until_gone(pod).await;
    }

    /// Waits for the node's condition Ready to be `wanted`.
    pub async fn until_node_is(&self, wanted: &str) -> Value {
        self.said().until_node_has("Ready", wanted).await
    }

    /// Waits for an event of a pod with that reason, whose message holds `words`.
    pub async fn until_event(&self, pod: &str, reason: &str, words: &str) {
        self.said().until_event(pod, reason, words).await;
    }

    /// Runs a command in a pod's container and answers what it printed.
    pub async fn exec(&self, status: &Value, command: &[&str]) -> String {
        let command = command.iter().map(|part| (*part).to_owned()).collect();
        let done =
            self.runtime.exec_sync(&container_id(status), command, Duration::from_secs(30)).await.unwrap();
        String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr)
    }

    /// Runs a script in a pod's container and answers what it printed, without the blanks around it.
    pub async fn shell(&self, status: &Value, script: &str) -> String {
        self.exec(status, &["/bin/sh", "-c", script]).await.trim().to_owned()
    }

    /// What a pod's container has written to its log in its `attempt`.
    pub fn log(&self, pod: &str, container: &str, attempt: u32) -> String {
        let folder = self.settings.logs.join(format!("default_{pod}_{}", uid(pod)));
        std::fs::read_to_string(folder.join(format!("{container}/{attempt}.log"))).unwrap_or_default()
    }

    /// Where a pod's volumes lie.
    pub fn pod_folder(&self, pod: &str) -> PathBuf {
        self.settings.root.join("pods").join(uid(pod))
    }

    /// Where ContainerManager's registration socket is.
    pub fn plugins(&self) -> PathBuf {
        self.plan.edged.device_plugin_path.clone()
    }
}

/// A node whose Edged was ended.
pub struct Stopped {
    /// Its store.
    pub store: Store,
    heard: Rc<RefCell<Heard>>,
    meta: Address<MetaMsg>,
    plan: Plan,
}

impl Stopped {
    /// It starts with other settings.
    #[must_use]
    pub fn set(mut self, set: impl FnOnce(&mut Settings)) -> Stopped {
        set(&mut self.plan.settings);
        self
    }

    /// Starts it again.
    pub fn start(self) -> Node {
        Node::begin(self.plan, self.store, self.meta, self.heard)
    }
}

async fn listen(mut probe: Probe<MetaMsg>, heard: Rc<RefCell<Heard>>) {
    loop {
        match probe.next(Duration::from_secs(3600)).await {
            Some(MetaMsg::EdgedAlive) => heard.borrow_mut().alive += 1,
            Some(MetaMsg::Token { reply, .. }) if heard.borrow().offline => {
                reply.send(Err(NoToken::OutOfReach));
            }
            Some(MetaMsg::Token { query, reply }) => {
                let token = format!("token {}", heard.borrow().queries.len());
                heard.borrow_mut().queries.push(query);
                // An hour from the machine's own clock.
                let expires_unix = jiff::Timestamp::now().as_second() + 3600;
                reply.send(Ok(TokenGrant { token, expires_unix, lifetime_seconds: 3600 }));
            }
            Some(_) => {}
            None => return,
        }
    }
}
