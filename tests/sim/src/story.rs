//! What happens in a run: people change things in the API, devices report, and faults strike.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::api::{create, objects};
use crate::check;
use crate::world::{IMAGE, World};

/// 40 things that happen in a run.
const STEPS: usize = 40;
/// At most so many pods at once.
const PODS_MAX: usize = 8;
/// Config maps that pods refer to.
const MAPS: usize = 4;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A cable is cut both ways.
    Cut,
    /// Nothing goes up any more.
    CutUp,
    /// Nothing comes down any more.
    CutDown,
    /// A cable carries little.
    Slow,
    /// EdgeCore is killed, and started again.
    NodeKilled,
    /// CloudCore is killed, and started again.
    CloudKilled,
    /// A node's disk takes no writes.
    DiskFull,
    /// The API server is away.
    ApiAway,
    /// A container is killed.
    ContainerKilled,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 9] = [
        Fault::Cut,
        Fault::CutUp,
        Fault::CutDown,
        Fault::Slow,
        Fault::NodeKilled,
        Fault::CloudKilled,
        Fault::DiskFull,
        Fault::ApiAway,
        Fault::ContainerKilled,
    ];
}

/// What one run came to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// What was wrong; empty when nothing was.
    pub violations: Vec<String>,
    /// How often each fault struck.
    pub faults: BTreeMap<Fault, usize>,
    /// The most events and telemetry that an outbox held at once.
    pub fullest: u64,
    /// What happened, in order.
    pub trace: Vec<String>,
}

/// A run with its seed.
pub(crate) struct Story {
    pub(crate) world: World,
    random: StdRng,
    outcome: Outcome,
    /// Pods that were made and not deleted: name to node.
    pub(crate) pods: BTreeMap<String, usize>,
    made: usize,
    /// The last speed that each device's node accepted.
    pub(crate) accepted: BTreeMap<String, u64>,
    speed: u64,
    /// How often a container of the pod's uid was killed by the run.
    pub(crate) kills: BTreeMap<String, usize>,
    /// The most events that an outbox held.
    pub(crate) fullest: u64,
}

pub(crate) fn device(node: usize) -> String {
    format!("fan-{node}")
}

fn config_map(number: usize) -> String {
    format!("map-{number}")
}

impl Story {
    pub(crate) async fn tell(seed: u64) -> Outcome {
        let mut random = StdRng::seed_from_u64(seed);
        let nodes = random.random_range(1..=3);
        let world = World::new(seed, nodes).await;
        let mut story = Story {
            world,
            random,
            outcome: Outcome::default(),
            pods: BTreeMap::new(),
            made: 0,
            accepted: BTreeMap::new(),
            speed: 0,
            kills: BTreeMap::new(),
            fullest: 0,
        };
        story.begin().await;
        for _ in 0..STEPS {
            story.step().await;
            check::bounds(&mut story).await;
            let pause = story.random.random_range(1..8_000);
            story.wait(Duration::from_millis(pause)).await;
        }
        story.heal().await;
        check::converges(&mut story).await;
        // Once more without a reconnect, which would put right what was lost on the way.
        for _ in 0..4 {
            story.change().await;
        }
        story.say("the last changes are made".to_owned());
        check::converges(&mut story).await;
        story.end().await
    }

    async fn end(mut self) -> Outcome {
        let found = std::mem::take(&mut *self.world.violations.lock().expect("nobody panics with it"));
        self.outcome.violations = found;
        self.outcome.fullest = self.fullest;
        for number in 0..self.world.nodes.len() {
            self.world.kill_node(number).await;
        }
        self.world.kill_cloud().await;
        self.outcome
    }

    fn say(&mut self, what: String) {
        let at = self.world.env.now().0.as_secs_f64();
        tracing::info!("{at:.3} {what}");
        self.outcome.trace.push(format!("{at:.3} {what}"));
    }

    async fn wait(&mut self, pause: Duration) {
        self.world.env.sleep(pause).await;
        // A CloudCore that ends by itself is started again, as a Deployment does.
        if let Some(reason) = self.world.cloud_gave_up().await {
            self.say(format!("cloudcore ended: {reason}"));
            self.world.kill_cloud().await;
            self.world.start_cloud().await;
        }
    }

    async fn begin(&mut self) {
        let client = self.world.client.clone();
        for number in 0..MAPS {
            let map = json!({"metadata": {"name": config_map(number)}, "data": {"value": "0"}});
            create(&client, "v1", "ConfigMap", map).await;
        }
        let properties = json!([{"name": "speed", "type": "INT", "accessMode": "ReadWrite"}]);
        let model =
            json!({"metadata": {"name": "fan"}, "spec": {"protocol": "none", "properties": properties}});
        create(&client, "devices.kubeedge.io/v1beta1", "DeviceModel", model).await;
        for (number, node) in self.world.nodes.iter().enumerate() {
            let spec = json!({
                "deviceModelRef": {"name": "fan"}, "nodeName": node.name.as_str(),
                "protocol": {"protocolName": "none"}, "properties": [{"name": "speed"}],
            });
            let object = json!({"metadata": {"name": device(number)}, "spec": spec});
            create(&client, "devices.kubeedge.io/v1beta1", "Device", object).await;
        }
    }

    async fn step(&mut self) {
        match self.random.random_range(0..10) {
            0..=3 => self.change().await,
            4..=5 => self.report().await,
            6 => self.mend().await,
            _ => self.strike().await,
        }
    }

    /// Somebody changes something in the API.
    async fn change(&mut self) {
        let client = self.world.client.clone();
        let roll = self.random.random_range(0..10);
        if roll < 4 && self.pods.len() < PODS_MAX {
            let node = self.random.random_range(0..self.world.nodes.len());
            self.made += 1;
            let name = format!("pod-{}", self.made);
            let map = config_map(self.random.random_range(0..MAPS));
            let spec = json!({
                "nodeName": self.world.nodes[node].name.as_str(),
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "c", "image": IMAGE,
                    "env": [{"name": "V", "valueFrom": {"configMapKeyRef": {"name": map, "key": "value"}}}]}],
            });
            create(&client, "v1", "Pod", json!({"metadata": {"name": name}, "spec": spec})).await;
            self.say(format!("pod {name} on node {node} with {map}"));
            self.pods.insert(name, node);
        } else if roll < 6 && !self.pods.is_empty() {
            let at = self.random.random_range(0..self.pods.len());
            let Some(name) = self.pods.keys().nth(at).cloned() else { return };
            self.pods.remove(&name);
            let deleted = objects(&client, "v1", "Pod").delete(&name, &DeleteParams::default()).await;
            deleted.unwrap_or_else(|error| panic!("{name} is not deleted: {error}"));
            self.say(format!("pod {name} is deleted"));
        } else {
            let (map, value) = (config_map(self.random.random_range(0..MAPS)), self.random.random::<u32>());
            let patch = Patch::Merge(json!({"data": {"value": value.to_string()}}));
            let patched =
                objects(&client, "v1", "ConfigMap").patch(&map, &PatchParams::default(), &patch).await;
            patched.unwrap_or_else(|error| panic!("{map} is not changed: {error}"));
            self.say(format!("{map} is {value}"));
        }
    }

    /// A device says something over MQTT.
    async fn report(&mut self) {
        let node = self.random.random_range(0..self.world.nodes.len());
        self.speed += 1;
        let (speed, name) = (self.speed, device(node));
        if self.world.nodes[node].says_speed(&self.world.env, &name, speed).await {
            self.say(format!("{name} turns at {speed}"));
            self.accepted.insert(name, speed);
        }
    }

    async fn strike(&mut self) {
        let fault = Fault::ALL[self.random.random_range(0..Fault::ALL.len())];
        let number = self.random.random_range(0..self.world.nodes.len());
        let node = &self.world.nodes[number];
        match fault {
            Fault::Cut => node.cable.cut(),
            Fault::CutUp => node.cable.cut_way(beehive::link::memory::Way::ToAcceptor),
            Fault::CutDown => node.cable.cut_way(beehive::link::memory::Way::ToDialler),
            Fault::Slow => {
                let rate = self.random.random_range(500..20_000);
                node.cable.slow_down(&self.world.env.clock(), rate);
            }
            Fault::NodeKilled => {
                let after = self.random.random_range(0..200);
                self.world.env.sleep(Duration::from_millis(after)).await;
                self.world.kill_node(number).await;
                let away = self.random.random_range(0..20_000);
                self.world.env.sleep(Duration::from_millis(away)).await;
                self.world.start_node(number).await;
            }
            Fault::CloudKilled => {
                let after = self.random.random_range(0..200);
                self.world.env.sleep(Duration::from_millis(after)).await;
                self.world.kill_cloud().await;
                let away = self.random.random_range(0..20_000);
                self.world.env.sleep(Duration::from_millis(away)).await;
                self.world.start_cloud().await;
            }
            Fault::DiskFull => node.disk_full.store(true, Ordering::Relaxed),
            Fault::ApiAway => self.world.api.set_away(true),
            Fault::ContainerKilled => {
                let running = node.runtime.running();
                if running.is_empty() {
                    return;
                }
                let victim = &running[self.random.random_range(0..running.len())];
                node.runtime.kill(&victim.id, 137);
                *self.kills.entry(victim.uid.clone()).or_default() += 1;
            }
        }
        *self.outcome.faults.entry(fault).or_default() += 1;
        self.say(format!("{fault:?} at node {number}"));
    }

    /// One thing is put right.
    async fn mend(&mut self) {
        let number = self.random.random_range(0..self.world.nodes.len());
        match self.random.random_range(0..3) {
            0 => self.world.nodes[number].cable.mend(),
            1 => self.world.nodes[number].disk_full.store(false, Ordering::Relaxed),
            _ => self.world.api.set_away(false),
        }
        self.say(format!("something is mended at node {number}"));
    }

    /// Everything is put right.
    async fn heal(&mut self) {
        self.world.api.set_away(false);
        for node in &self.world.nodes {
            node.cable.mend();
            node.cable.speed_up();
            node.disk_full.store(false, Ordering::Relaxed);
        }
        self.world.start_cloud().await;
        for number in 0..self.world.nodes.len() {
            self.world.start_node(number).await;
        }
        self.say("everything is put right".to_owned());
    }

    /// The pods of the API on a node.
    pub(crate) async fn pods_of(&self, node: usize) -> Vec<Value> {
        let name = self.world.nodes[node].name.as_str();
        let listed = objects(&self.world.client, "v1", "Pod").list(&kube::api::ListParams::default()).await;
        let pods = listed.map(|list| list.items).unwrap_or_default();
        let values = pods.into_iter().filter_map(|pod| serde_json::to_value(pod).ok());
        values.filter(|pod| pod["spec"]["nodeName"] == name).collect()
    }
}
