//! An actor of CloudCore panics at one kind of its messages while a node is linked: everything goes on as if it had not.

use std::collections::BTreeMap;
use std::time::Duration;

use beehive::testing::{PanicPoint, PlannedPanic, plan_panic};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::actors::{ACTORS, Daemon};
use crate::api::{create, objects};
use crate::violations::note;
use crate::world::{IMAGE, Process, World};

/// 3 simulated minutes to come to rest.
const LIMIT: Duration = Duration::from_secs(180);

/// What came of a run.
#[derive(Debug)]
pub struct RestartOutcome {
    /// Whether the actor has panicked at that message.
    pub happened: bool,
    /// What was wrong; empty when nothing was.
    pub violations: Vec<String>,
}

/// Plans the first message of that name to make the actor panic after so many awaits, with a node linked, and then everything
/// that a CloudCore does: a change, a new pod, a report, telemetry, a link that falls silent, a new node, and one panic of
/// every actor.
///
/// # Panics
/// When the run itself cannot be made.
pub fn cloud_actor_panics(actor: &str, message: &'static str, awaits: u32) -> RestartOutcome {
    fastrand::seed(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, run(actor, message, awaits))
}

async fn run(actor: &str, message: &'static str, awaits: u32) -> RestartOutcome {
    let mut run = RestartRun {
        world: World::new(1, 1, 1, false).await,
        pods: BTreeMap::new(),
        made: 0,
        value: 0,
        speed: 0,
    };
    run.begin().await;
    run.settle("before the panic").await;
    let planned = run.plan(actor, Some(message), awaits);
    run.change().await;
    run.settle("after a change").await;
    run.reconnect().await;
    run.change().await;
    run.settle("after a new link").await;
    run.new_node().await;
    run.settle("after a new node").await;
    // Whoever begins anew has the others tell it everything again.
    for kind in ACTORS.into_iter().filter(|kind| kind.daemon == Daemon::Cloud && kind.is_top) {
        run.plan(kind.name, None, 0);
        run.change().await;
        run.settle("after every actor has begun anew").await;
    }
    run.delete_node().await;
    let gave_up = run.world.raise_daemons().await;
    let mut violations = std::mem::take(&mut *run.world.violations.lock().expect("nobody panics with it"));
    violations.extend(gave_up);
    violations.extend(run.needless_starts());
    for number in 0..run.world.nodes.len() {
        run.world.kill_node(number).await;
    }
    run.world.kill_cloud(0).await;
    RestartOutcome { happened: planned.has_happened(), violations }
}

struct RestartRun {
    world: World,
    /// By their node.
    pods: BTreeMap<String, usize>,
    made: usize,
    value: u64,
    speed: u64,
}

impl RestartRun {
    fn plan(&self, actor: &str, message: Option<&'static str>, awaits: u32) -> PlannedPanic {
        let inspector = self.world.inspector(Process::Cloud(0)).expect("the cloud runs");
        plan_panic(&inspector, actor, PanicPoint { message, nth: 1, awaits })
    }

    async fn begin(&mut self) {
        let client = self.world.client.clone();
        create(&client, "v1", "ConfigMap", json!({"metadata": {"name": "map"}, "data": {"value": "0"}}))
            .await;
        let properties = json!([{"name": "speed", "type": "INT", "accessMode": "ReadWrite"}]);
        let model =
            json!({"metadata": {"name": "fan"}, "spec": {"protocol": "none", "properties": properties}});
        create(&client, "devices.kubeedge.io/v1beta1", "DeviceModel", model).await;
        let spec = json!({
            "deviceModelRef": {"name": "fan"}, "nodeName": self.world.nodes[0].name.as_str(),
            "protocol": {"protocolName": "none"}, "properties": [{"name": "speed"}],
        });
        create(
            &client,
            "devices.kubeedge.io/v1beta1",
            "Device",
            json!({"metadata": {"name": "fan-0"}, "spec": spec}),
        )
        .await;
        self.pod(0).await;
    }

    async fn pod(&mut self, node: usize) {
        self.made += 1;
        let name = format!("pod-{}", self.made);
        let spec = json!({
            "nodeName": self.world.nodes[node].name.as_str(),
            "automountServiceAccountToken": false,
            "containers": [{"name": "c", "image": IMAGE,
                "env": [{"name": "V", "valueFrom": {"configMapKeyRef": {"name": "map", "key": "value"}}}]}],
        });
        create(&self.world.client, "v1", "Pod", json!({"metadata": {"name": name}, "spec": spec})).await;
        self.pods.insert(name, node);
    }

    /// A change and a new pod in the cloud, a report of a device on the node, and one of the Node that needs the Lease's word.
    async fn change(&mut self) {
        self.value += 1;
        let patch = Patch::Merge(json!({"data": {"value": self.value.to_string()}}));
        let maps = objects(&self.world.client, "v1", "ConfigMap");
        maps.patch("map", &PatchParams::default(), &patch).await.expect("the config map is changed");
        self.pod(0).await;
        let until = self.world.env.now() + LIMIT;
        loop {
            self.speed += 1;
            if self.world.nodes[0].says_speed(&self.world.env, "fan-0", self.speed).await {
                break;
            }
            assert!(self.world.env.now() < until, "the node takes no report");
            self.world.env.sleep(Duration::from_secs(1)).await;
        }
    }

    /// The link falls silent; meanwhile something changes that the node holds.
    async fn reconnect(&mut self) {
        self.world.nodes[0].network_paths.iter().for_each(beehive::link::memory::NetworkPath::fall_silent);
        self.change().await;
        self.world.env.sleep(Duration::from_secs(20)).await;
    }

    async fn new_node(&mut self) {
        let name = format!("edge-{}", self.world.nodes.len());
        self.world.add_node(&name).await;
        let node = self.world.nodes.len() - 1;
        self.pod(node).await;
    }

    /// The second node's Node is deleted: its session ends, and nothing else. Then it may come back.
    async fn delete_node(&mut self) {
        let name = self.world.nodes[1].name.to_string();
        let pods: Vec<String> =
            self.pods.iter().filter(|(_, node)| **node == 1).map(|(pod, _)| pod.clone()).collect();
        objects(&self.world.client, "v1", "Node")
            .delete(&name, &DeleteParams::default())
            .await
            .expect("it is deleted");
        self.world.env.sleep(Duration::from_secs(30)).await;
        let running: Vec<String> =
            self.world.nodes[1].runtime.running().into_iter().map(|seen| seen.pod).collect();
        for pod in pods.iter().filter(|pod| !running.contains(pod)) {
            self.note(format!("{pod} does not run on after its Node was deleted"));
        }
        let inspector = self.world.inspector(Process::Cloud(0)).expect("the cloud runs");
        let report = inspector.report(Duration::from_secs(2)).await;
        let hub = report.actors.iter().find(|one| one.name == "cloud-hub").expect("there is a hub");
        if !hub.snapshot["nodes"][&name].is_null() {
            self.note(format!("{name} is still linked after its Node was deleted"));
        }
        let away: BTreeMap<String, usize> = self.pods.extract_if(.., |_, node| *node == 1).collect();
        self.change().await;
        self.settle("after a Node was deleted").await;
        // Its pods are those of before when an administrator lets it come back, and none of them was stopped.
        let registry = noderegistry::Registry::new(self.world.client.clone());
        let name = self.world.nodes[1].name.clone();
        assert!(registry.allow_back(&name).await.expect("the register answers"), "{name} may come back");
        self.pods.extend(away);
        let (nodes, until) = (objects(&self.world.client, "v1", "Node"), self.world.env.now() + LIMIT);
        while nodes.get_opt(name.as_str()).await.is_ok_and(|found| found.is_none()) {
            assert!(self.world.env.now() < until, "{name} makes no Node");
            self.world.env.sleep(Duration::from_millis(500)).await;
        }
        self.world.env.sleep(Duration::from_secs(10)).await;
        self.settle("after a deleted Node came back").await;
        // Nor does a label end them that somebody takes off and sets again.
        for label in [Value::Null, json!("")] {
            let patch =
                Patch::Merge(json!({"metadata": {"labels": {"node-role.kubernetes.io/edge": label}}}));
            nodes.patch(name.as_str(), &PatchParams::default(), &patch).await.expect("the label is changed");
            self.world.env.sleep(Duration::from_secs(10)).await;
            self.settle("after a Node's label was changed").await;
        }
    }

    fn note(&self, what: String) {
        note(&self.world.violations, what);
    }

    /// Waits until everything is as it should be.
    async fn settle(&mut self, when: &str) {
        let until = self.world.env.now() + LIMIT;
        loop {
            let wrong = self.wrong().await;
            if wrong.is_empty() {
                return;
            }
            if self.world.env.now() > until {
                return self.note(format!("{when}: {wrong:?}"));
            }
            self.world.env.sleep(Duration::from_millis(500)).await;
        }
    }

    async fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let pods = objects(&self.world.client, "v1", "Pod");
        for (name, node) in &self.pods {
            let phase = match pods.get_opt(name).await {
                Ok(Some(pod)) => pod.data["status"]["phase"].clone(),
                Ok(None) | Err(_) => Value::Null,
            };
            if phase != "Running" {
                wrong.push(format!("{name} is {phase} in the API"));
            }
            if !self.world.nodes[*node].runtime.running().iter().any(|seen| seen.pod == *name) {
                wrong.push(format!("{name} does not run"));
            }
        }
        let held = self.world.nodes[0].store().and_then(|store| store.list_objects("configmaps", None).ok());
        let values: Vec<Value> = held
            .into_iter()
            .flatten()
            .filter(|object| object.key.name == "map")
            .filter_map(|object| serde_json::from_slice::<Value>(&object.json).ok())
            .map(|map| map["data"]["value"].clone())
            .collect();
        if values != [json!(self.value.to_string())] {
            wrong.push(format!("the node holds {values:?}, not {}", self.value));
        }
        let statuses = objects(&self.world.client, "devices.kubeedge.io/v1beta1", "DeviceStatus");
        let status = statuses.get_opt("fan-0").await.ok().flatten();
        let reported =
            status.and_then(|status| status.data.pointer("/status/twins/0/reported/value").cloned());
        if self.speed > 0 && reported != Some(json!(self.speed.to_string())) {
            wrong.push(format!("the device turns at {reported:?} in the API, not {}", self.speed));
        }
        wrong
    }

    /// Nobody has killed a container: each has started once.
    fn needless_starts(&self) -> Vec<String> {
        let mut started = BTreeMap::<String, usize>::new();
        for seen in self.world.nodes.iter().flat_map(|node| node.runtime.started()) {
            *started.entry(seen.uid).or_default() += 1;
        }
        let twice = started.into_iter().filter(|(_, times)| *times > 1);
        twice.map(|(uid, times)| format!("{uid} was started {times} times")).collect()
    }
}
