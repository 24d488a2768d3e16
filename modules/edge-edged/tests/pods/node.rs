//! A node for the tests: a real runtime, a real store, Edged alone in a hive, and a probe in MetaManager's place.

use std::cell::RefCell;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::testing::{self, PanicPoint, PlannedPanic, Probe};
use beehive::{ActorReport, Address, Capacity, Ended, Env, Flow, Hive, Policy};
use contract::edged::EdgedMsg;
use contract::metamanager::{MetaMsg, NoToken};
use contract::{TokenGrant, TokenQuery, UpReport, rows};
use cri::{Grpc, Runtime};
use edge_edged::{Edged, Settings};
use edge_store::{ObjectKey, Options, Store, Write};
use serde_json::{Value, json};
use testhost::TestHost;

use crate::faults::{Faults, FaultyEdged, FaultyRuntime};

/// For a cold, shared machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A test host whose pods' cgroups go with it.
pub(crate) struct Machine {
    // Ends first: what runs holds its cgroups.
    host: TestHost,
    _cgroups: Cgroups,
}

impl Machine {
    pub(crate) fn new(name: &str) -> Machine {
        Machine::made_by(TestHost::builder(name))
    }

    /// One whose pods Edged reaches by their addresses.
    pub(crate) fn with_uplink(name: &str) -> Machine {
        Machine::made_by(TestHost::builder(name).uplink())
    }

    fn made_by(builder: testhost::Builder) -> Machine {
        let host = builder.start().unwrap();
        let _cgroups = Cgroups(host.netns().to_owned());
        Machine { host, _cgroups }
    }
}

impl Deref for Machine {
    type Target = TestHost;
    fn deref(&self) -> &TestHost {
        &self.host
    }
}

impl DerefMut for Machine {
    fn deref_mut(&mut self) -> &mut TestHost {
        &mut self.host
    }
}

/// The cgroups below this name, in every hierarchy.
struct Cgroups(String);

impl Drop for Cgroups {
    fn drop(&mut self) {
        for top in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path()) {
            remove_cgroup(&top.join(&self.0));
        }
    }
}

/// The deepest first; one that was never made is no matter.
fn remove_cgroup(path: &Path) {
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    drop(std::fs::remove_dir(path));
}

/// What was told to MetaManager.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) alive: usize,
    /// Without a cloud no token is granted.
    pub(crate) offline: bool,
    pub(crate) queries: Vec<TokenQuery>,
}

/// Edged and what it works with.
pub(crate) struct Node {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) store: Store,
    pub(crate) heard: Rc<RefCell<Heard>>,
    pub(crate) settings: Settings,
    pub(crate) edged: Address<EdgedMsg>,
    /// Panics of Edged at its messages.
    pub(crate) edged_faults: Rc<Faults>,
    /// Panics of Edged and its workers at their calls of the runtime; `runtime` itself has none.
    pub(crate) runtime_faults: Arc<Faults>,
    env: Env,
    hive: Hive,
    meta: Address<MetaMsg>,
}

/// Runs a test on one thread, as a daemon's hive does.
pub(crate) fn run<F: Future>(test: F) -> F::Output {
    actix_rt::System::new().block_on(test)
}

impl Node {
    /// A node with an empty store.
    pub(crate) fn start(host: &Machine) -> Node {
        Node::start_with(host, Env::real(), |runtime| runtime)
    }

    /// The same with other settings.
    pub(crate) fn start_set(host: &Machine, set: impl FnOnce(&mut Settings)) -> Node {
        Node::start_all(host, Env::real(), |runtime| runtime, set)
    }

    /// The same in another environment, with something between Edged and the runtime.
    pub(crate) fn start_with(
        host: &Machine,
        env: Env,
        between: impl FnOnce(Arc<dyn Runtime>) -> Arc<dyn Runtime>,
    ) -> Node {
        Node::start_all(host, env, between, |_| {})
    }

    fn start_all(
        host: &Machine,
        env: Env,
        between: impl FnOnce(Arc<dyn Runtime>) -> Arc<dyn Runtime>,
        set: impl FnOnce(&mut Settings),
    ) -> Node {
        let mut edged = config::edge::Edged::default();
        // The disk of the machine that runs the tests may be as full as it likes.
        let hard = &mut edged.tailored_kubelet_config.eviction_hard;
        hard.nodefs_available = config::Threshold::Part(0);
        hard.imagefs_available = config::Threshold::Part(0);
        let mut settings = Settings::new("edge-1", &edged);
        settings.image_collection.high_percent = 100;
        settings.root = host.dir().join("kubelet");
        settings.logs = host.dir().join("pods");
        settings.links = host.dir().join("containers");
        settings.homes = Vec::new();
        settings.node_ips = vec!["192.0.2.1".to_owned()];
        settings.cgroup_root = format!("/{}", host.netns());
        settings.report_node_every = Duration::from_millis(500);
        set(&mut settings);
        let runtime = Grpc::new(&host.endpoint(), &host.endpoint(), SOON).unwrap();
        let runtime = between(Arc::new(runtime));
        let store = Store::open(host.dir().join("edge.db"), Options::new([1; 16])).unwrap();
        let (probe, meta) = Probe::new(&env, 64);
        let heard = Rc::new(RefCell::new(Heard::default()));
        actix_rt::spawn(listen(probe, Rc::clone(&heard)));
        let (edged_faults, runtime_faults) = (Rc::default(), Arc::default());
        let (hive, edged) = begin(&env, &settings, &runtime, &store, &meta, (&edged_faults, &runtime_faults));
        Node { runtime, store, heard, settings, edged, edged_faults, runtime_faults, env, hive, meta }
    }

    /// Ends Edged as a daemon ends, does something, and starts it again on the store as it is then.
    pub(crate) async fn restart(
        self,
        host: &Machine,
        meanwhile: impl AsyncFnOnce(&Store, &dyn Runtime),
    ) -> Node {
        let stopped = self.stop(host).await;
        meanwhile(&stopped.store, stopped.runtime.as_ref()).await;
        stopped.start()
    }

    /// Ends Edged as a daemon ends. The store is open again then.
    pub(crate) async fn stop(self, host: &Machine) -> Stopped {
        let Node { runtime, store, heard, settings, edged, edged_faults, runtime_faults, env, hive, meta } =
            self;
        assert_eq!(hive.shutdown(Duration::from_secs(10)).await, Ended::InOrder);
        drop((edged, store));
        let path = host.dir().join("edge.db");
        // Tasks that were ended let go of the file a moment later.
        let again = async || Store::open(&path, Options::new([1; 16])).ok();
        let store = eventually(again).await.expect("the store opens again");
        Stopped { runtime, store, heard, settings, edged_faults, runtime_faults, env, meta }
    }

    /// Puts objects into the store as MetaManager does, and says so.
    pub(crate) async fn apply(&self, objects: &[Value]) {
        put(&self.store, objects).await;
        self.edged.tell(EdgedMsg::Reconcile).await.unwrap();
    }

    /// Forgets a pod and says so.
    pub(crate) async fn forget(&self, pod: &str) {
        forget(&self.store, pod).await;
        self.edged.tell(EdgedMsg::Reconcile).await.unwrap();
    }

    /// What Edged tells of itself.
    pub(crate) async fn snapshot(&self) -> Value {
        self.hive.inspector().report(SOON).await.actors[0].snapshot.clone()
    }

    /// Plans a panic of an actor of that full name or kind when it is handed the next message of that name.
    pub(crate) fn plan_panic(&self, actor: &str, message: &'static str) -> PlannedPanic {
        let point = PanicPoint { message: Some(message), nth: 1, awaits: 0 };
        testing::plan_panic(&self.hive.inspector(), actor, point)
    }

    /// How an actor fares, by its full name.
    pub(crate) async fn actor(&self, name: &str) -> ActorReport {
        let report = self.hive.inspector().report(SOON).await;
        report.actors.into_iter().find(|actor| actor.name == name).unwrap()
    }

    /// Everything in the outbox, the oldest first.
    pub(crate) fn reports(&self) -> Vec<UpReport> {
        let rows = self.store.outbox_head(10_000, 64 << 20).unwrap();
        rows.iter().map(|row| rows::decode_report(&row.body).unwrap()).collect()
    }

    /// The newest status of a pod.
    pub(crate) fn status(&self, pod: &str) -> Option<Value> {
        self.reports().into_iter().rev().find_map(|report| match report {
            UpReport::PodStatus { name, status_json, .. } if name == pod => {
                serde_json::from_str(&status_json).ok()
            }
            _ => None,
        })
    }

    /// The newest report of the node.
    pub(crate) fn node(&self) -> Option<Value> {
        self.reports().into_iter().rev().find_map(|report| match report {
            UpReport::Node { node_json } => serde_json::from_str(&node_json).ok(),
            _ => None,
        })
    }

    /// The events of a pod: reason and message.
    pub(crate) fn events(&self, pod: &str) -> Vec<(String, String)> {
        self.event_objects(pod).map(|event| (text(&event["reason"]), text(&event["message"]))).collect()
    }

    /// The same as they are told.
    pub(crate) fn event_objects(&self, pod: &str) -> impl Iterator<Item = Value> {
        let events = self.reports().into_iter().filter_map(|report| match report {
            UpReport::Event { event_json, .. } => serde_json::from_str::<Value>(&event_json).ok(),
            _ => None,
        });
        events.filter(move |event| event["involvedObject"]["name"] == pod)
    }

    /// Waits for a status of a pod.
    pub(crate) async fn until(&self, pod: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let found = eventually(async || self.status(pod).filter(|status| holds(status))).await;
        found.unwrap_or_else(|| {
            let shown = self.status(pod).map(|status| format!("{status:#}")).unwrap_or_default();
            panic!("waited in vain for {what}; {pod} is {shown}; events: {:#?}", self.events(pod))
        })
    }

    /// Waits until a pod is ready.
    pub(crate) async fn until_ready(&self, pod: &str) -> Value {
        self.until(pod, "Ready", |status| condition(status, "Ready")["status"] == "True").await
    }

    /// Waits until the end of a pod is reported.
    pub(crate) async fn until_gone(&self, pod: &str) {
        let gone = |report: &UpReport| matches!(report, UpReport::PodGone { name, .. } if name == pod);
        let found = eventually(async || self.reports().iter().any(gone).then_some(())).await;
        assert!(found.is_some(), "{pod} does not end; {:#?}", self.events(pod));
    }

    /// Waits for the node's condition Ready to be `wanted`.
    pub(crate) async fn until_node_is(&self, wanted: &str) -> Value {
        let ready = |node: &Value| {
            let conditions = node["status"]["conditions"].as_array().unwrap();
            conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == wanted)
        };
        eventually(async || self.node().filter(|node| ready(node))).await.expect("the node says how it fares")
    }

    /// Runs a command in a pod's container and answers what it printed.
    pub(crate) async fn exec(&self, status: &Value, command: &[&str]) -> String {
        let command = command.iter().map(|part| (*part).to_owned()).collect();
        let done =
            self.runtime.exec_sync(&container_id(status), command, Duration::from_secs(30)).await.unwrap();
        String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr)
    }

    /// Waits for an event of a pod with that reason, whose message holds `text`.
    pub(crate) async fn until_event(&self, pod: &str, reason: &str, text: &str) {
        let told = || self.events(pod).iter().any(|(own, message)| own == reason && message.contains(text));
        let told = eventually(async || told().then_some(())).await;
        told.unwrap_or_else(|| panic!("no {reason} `{text}` among {:#?}", self.events(pod)));
    }

    /// What a pod's container has written to its log in its `attempt`.
    pub(crate) fn log(&self, pod: &str, container: &str, attempt: u32) -> String {
        let folder = self.settings.logs.join(format!("default_{pod}_{}", uid(pod)));
        std::fs::read_to_string(folder.join(format!("{container}/{attempt}.log"))).unwrap_or_default()
    }

    /// Where a pod's volumes lie.
    pub(crate) fn pod_folder(&self, pod: &str) -> PathBuf {
        self.settings.root.join("pods").join(uid(pod))
    }
}

/// A node whose Edged was ended.
pub(crate) struct Stopped {
    runtime: Arc<dyn Runtime>,
    store: Store,
    heard: Rc<RefCell<Heard>>,
    settings: Settings,
    edged_faults: Rc<Faults>,
    runtime_faults: Arc<Faults>,
    env: Env,
    meta: Address<MetaMsg>,
}

impl Stopped {
    /// It starts with other settings.
    pub(crate) fn set(mut self, set: impl FnOnce(&mut Settings)) -> Stopped {
        set(&mut self.settings);
        self
    }

    /// The runtime does not say what pods use until it is told to.
    pub(crate) fn without_stats(self) -> Stopped {
        self.runtime_faults.refuse_stats();
        self
    }

    /// Starts Edged again.
    pub(crate) fn start(self) -> Node {
        let Stopped { runtime, store, heard, settings, edged_faults, runtime_faults, env, meta } = self;
        let (hive, edged) = begin(&env, &settings, &runtime, &store, &meta, (&edged_faults, &runtime_faults));
        Node { runtime, store, heard, settings, edged, edged_faults, runtime_faults, env, hive, meta }
    }
}

fn begin(
    env: &Env,
    settings: &Settings,
    runtime: &Arc<dyn Runtime>,
    store: &Store,
    meta: &Address<MetaMsg>,
    faults: (&Rc<Faults>, &Arc<Faults>),
) -> (Hive, Address<EdgedMsg>) {
    let mut hive = Hive::new("edgecore", env.clone());
    let mailbox = hive.mailbox::<EdgedMsg>("edged", Capacity::new(128, "a test's choice"));
    let address = hive.grant("test", &mailbox, Flow::Tell);
    let (settings, store, meta) = (settings.clone(), store.clone(), meta.clone());
    let runtime = FaultyRuntime { runtime: Arc::clone(runtime), faults: Arc::clone(faults.1) };
    let (runtime, faults): (Arc<dyn Runtime>, _) = (Arc::new(runtime), Rc::clone(faults.0));
    let made = move || {
        let edged = Edged::new(settings.clone(), Arc::clone(&runtime), store.clone(), meta.clone());
        FaultyEdged { edged, faults: Rc::clone(&faults) }
    };
    // More than a test's faults on purpose.
    let policy = Policy { budget: 100, backoff_max: Duration::from_millis(200), ..Policy::default() };
    hive.supervise(mailbox, policy, made);
    hive.open().unwrap();
    (hive, address)
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

/// Looks again and again until there is something, or [`SOON`] is over.
pub(crate) async fn eventually<T>(mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let looks = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(SOON, looks).await.ok()
}

/// Puts objects into a store.
pub(crate) async fn put(store: &Store, objects: &[Value]) {
    let writes = objects.iter().map(|object| {
        let resource = match object["kind"].as_str().unwrap() {
            "Pod" => "pods",
            "ConfigMap" => "configmaps",
            "Secret" => "secrets",
            "Service" => "services",
            "RuntimeClass" => "runtimeclasses.node.k8s.io",
            other => panic!("no resource for {other}"),
        };
        let metadata = &object["metadata"];
        let json = serde_json::to_vec(object).unwrap();
        let namespace = if resource.contains("runtimeclasses") { "" } else { "default" };
        Write::PutObject {
            key: ObjectKey::new(resource, namespace, text(&metadata["name"])),
            uid: text(&metadata["uid"]),
            // Any text that differs when the object does.
            content_hash: format!("{}-{}", json.len(), json.iter().map(|b| u64::from(*b)).sum::<u64>()),
            resource_version: "1".to_owned(),
            json,
        }
    });
    store.commit(writes.collect()).await.unwrap();
}

/// Forgets a pod in a store.
pub(crate) async fn forget(store: &Store, pod: &str) {
    let key = ObjectKey::new("pods", "default", pod);
    store.commit(vec![Write::DeleteObject { key, uid: None }]).await.unwrap();
}

fn uid(pod: &str) -> String {
    format!("uid-of-{pod}")
}

/// A pod of one busybox container `c` that runs `script`, with `spec` merged over it.
pub(crate) fn pod(name: &str, script: &str, spec: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": uid(name), "labels": {"app": name},
            "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "containers": [container("c", script)],
            "restartPolicy": "Always", "nodeName": "edge-1", "terminationGracePeriodSeconds": 2,
            "serviceAccountName": "default", "dnsPolicy": "Default",
        },
    });
    for (key, value) in spec.as_object().cloned().unwrap_or_default() {
        pod["spec"][key] = value;
    }
    pod
}

/// A busybox container that runs `script`.
pub(crate) fn container(name: &str, script: &str) -> Value {
    json!({"name": name, "image": testhost::BUSYBOX, "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c", script]})
}

/// A script that runs until it is asked to end, and ends well.
pub(crate) const WAITS: &str = "trap 'exit 0' TERM; while true; do sleep 0.1; done";

/// The pod as the API server has it after `kubectl delete`.
pub(crate) fn deleted(pod: &Value, grace: u32) -> Value {
    let mut pod = pod.clone();
    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
    pod
}

pub(crate) fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let list = status["conditions"].as_array().unwrap();
    list.iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

/// The first container's status.
pub(crate) fn first(status: &Value) -> &Value {
    &status["containerStatuses"][0]
}

/// The first container's id in the runtime.
pub(crate) fn container_id(status: &Value) -> String {
    text(&first(status)["containerID"]).trim_start_matches("containerd://").to_owned()
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
