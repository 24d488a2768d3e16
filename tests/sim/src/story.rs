//! What happens in a run: people change things in the API, devices report, and faults strike.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::api::{create, objects};
use crate::check;
use crate::strike::Fault;
use crate::telemetry::Meter;
use crate::trace::Fingerprint;
use crate::world::{IMAGE, World};

/// 40 things that happen in a run.
const STEPS: usize = 40;
/// At most so many pods at once.
const PODS_MAX: usize = 8;
/// Config maps that pods refer to.
const MAPS: usize = 4;

/// What one run came to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// What was wrong; empty when nothing was.
    pub violations: Vec<String>,
    /// How often each fault struck.
    pub faults: BTreeMap<Fault, usize>,
    /// The most events and telemetry that an outbox held at once.
    pub fullest: u64,
    /// Publishes of QoS 1 that were accepted.
    pub accepted: usize,
    /// Publishes that an outbox at its bound has refused.
    pub refused: usize,
    /// What was told, in order.
    pub tale: Vec<String>,
    /// Everything that happened, as one number.
    pub fingerprint: Fingerprint,
    /// Everything that happened, if it was asked for.
    pub trace: Vec<String>,
}

/// A run with its seed.
pub(crate) struct Story {
    pub(crate) world: World,
    pub(crate) random: StdRng,
    outcome: Outcome,
    /// Pods that were made and not deleted: name to node.
    pub(crate) pods: BTreeMap<String, usize>,
    made: usize,
    /// The last speed that each device's node accepted.
    pub(crate) accepted: BTreeMap<String, u64>,
    speed: u64,
    /// A client of each node's broker.
    meters: Vec<Meter>,
    /// The last telemetry that was accepted, by node and topic.
    pub(crate) kept: BTreeMap<(usize, String), u64>,
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
    pub(crate) async fn tell(seed: u64, keep_trace: bool) -> Outcome {
        let mut random = StdRng::seed_from_u64(seed);
        let nodes = random.random_range(1..=3);
        let clouds = random.random_range(1..=2);
        let world = World::new(seed, nodes, clouds, keep_trace).await;
        let mut story = Story {
            world,
            random,
            outcome: Outcome::default(),
            pods: BTreeMap::new(),
            made: 0,
            accepted: BTreeMap::new(),
            speed: 0,
            meters: std::iter::repeat_with(Meter::default).take(nodes).collect(),
            kept: BTreeMap::new(),
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
        for number in 0..nodes {
            story.publish(number, 0).await;
        }
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
        let answers_lost = self.world.nodes.iter().map(|node| node.ambush.struck()).sum();
        self.struck(Fault::AnswerLost, answers_lost);
        for number in 0..self.world.nodes.len() {
            self.world.kill_node(number).await;
        }
        for number in 0..self.world.clouds.len() {
            self.world.kill_cloud(number).await;
        }
        (self.outcome.fingerprint, self.outcome.trace) = self.world.trace.end();
        self.outcome
    }

    /// A fault has struck so often.
    pub(crate) fn struck(&mut self, fault: Fault, times: usize) {
        if times > 0 {
            *self.outcome.faults.entry(fault).or_default() += times;
        }
    }

    pub(crate) fn say(&mut self, what: String) {
        let at = self.world.env.now().0.as_secs_f64();
        tracing::info!("{at:.3} {what}");
        self.world.trace.note("story", format_args!("{what}"));
        self.outcome.tale.push(format!("{at:.3} {what}"));
    }

    pub(crate) async fn wait(&mut self, pause: Duration) {
        self.world.env.sleep(pause).await;
        for reason in self.world.raise_clouds().await {
            self.say(format!("it ended by itself: {reason}"));
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
        match self.random.random_range(0..12) {
            0..=3 => self.change().await,
            4..=5 => {
                let node = self.random.random_range(0..self.world.nodes.len());
                self.report(node).await;
            }
            6..=7 => {
                let node = self.random.random_range(0..self.world.nodes.len());
                // Now and then more than the outbox has room for.
                let most = if self.random.random_range(0..4) == 0 { 20 } else { 4 };
                let count = self.random.random_range(1..=most);
                self.publish(node, count).await;
            }
            8 => self.mend().await,
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
    pub(crate) async fn report(&mut self, node: usize) {
        self.speed += 1;
        let (speed, name) = (self.speed, device(node));
        if self.world.nodes[node].says_speed(&self.world.env, &name, speed).await {
            self.say(format!("{name} turns at {speed}"));
            self.accepted.insert(name, speed);
        }
    }

    /// A client of the node's broker publishes for the cloud, what was not acknowledged before first.
    async fn publish(&mut self, node: usize, count: usize) {
        let intake = self.world.nodes[node].intake();
        let kept = &mut self.kept;
        let accepted = |topic: &str, number: u64| {
            kept.insert((node, topic.to_owned()), number);
        };
        let burst = self.meters[node].publish(&self.world.env, intake, count, accepted).await;
        self.outcome.accepted += burst.accepted;
        self.outcome.refused += burst.full;
        self.say(format!("telemetry of node {node}: {burst:?}"));
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
