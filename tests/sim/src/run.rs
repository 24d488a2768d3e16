//! One run: its world, its lots, and what it has done so far.

use std::collections::BTreeMap;
use std::time::Duration;

use beehive::testing::PlannedPanic;
use rand::rngs::StdRng;
use serde_json::Value;

use crate::api::objects;
use crate::fault::Fault;
use crate::outcome::Outcome;
use crate::telemetry::MqttClient;
use crate::violations::note;
use crate::world::{Process, World};

/// A pod that is not restarted when its container ends.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Job {
    /// Its container has ended.
    pub(crate) has_ended: bool,
    /// The runtime has lost it before anybody could know how it stood: it may run once more, or have ended.
    pub(crate) is_open: bool,
}

/// A panic of an actor of one process.
pub(crate) struct PanicPlan {
    pub(crate) process: Process,
    pub(crate) actor: &'static str,
    pub(crate) panic: PlannedPanic,
}

/// See the module.
pub(crate) struct Run {
    pub(crate) world: World,
    pub(crate) random: StdRng,
    pub(crate) outcome: Outcome,
    /// Pods that were made and not deleted: name to node.
    pub(crate) pods: BTreeMap<String, usize>,
    /// Those of all pods ever made that are not restarted, by name.
    pub(crate) jobs: BTreeMap<String, Job>,
    /// Rules that were made and not deleted: name to node.
    pub(crate) rules: BTreeMap<String, usize>,
    /// Pods and rules that were ever made.
    pub(crate) made: usize,
    /// The last speed that each device's node accepted.
    pub(crate) accepted: BTreeMap<String, u64>,
    speed: u64,
    /// A client of each node's broker.
    mqtt_clients: Vec<MqttClient>,
    /// The last telemetry that was accepted, by node and topic.
    pub(crate) kept: BTreeMap<(usize, String), u64>,
    /// How often a container of the pod's uid was killed by the run.
    pub(crate) kills: BTreeMap<String, usize>,
    pub(crate) plans: Vec<PanicPlan>,
}

pub(crate) fn device(node: usize) -> String {
    format!("fan-{node}")
}

impl Run {
    pub(crate) fn new(world: World, random: StdRng) -> Run {
        let mqtt_clients = std::iter::repeat_with(MqttClient::default).take(world.nodes.len()).collect();
        Run {
            world,
            random,
            outcome: Outcome::default(),
            pods: BTreeMap::new(),
            jobs: BTreeMap::new(),
            rules: BTreeMap::new(),
            made: 0,
            accepted: BTreeMap::new(),
            speed: 0,
            mqtt_clients,
            kept: BTreeMap::new(),
            kills: BTreeMap::new(),
            plans: Vec::new(),
        }
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

    /// Waits. No daemon gives up meanwhile: each goes on after whatever strikes its actors.
    pub(crate) async fn wait(&mut self, pause: Duration) {
        self.world.env.sleep(pause).await;
        self.no_daemon_gives_up().await;
    }

    pub(crate) async fn no_daemon_gives_up(&mut self) {
        for reason in self.world.raise_daemons().await {
            self.say(format!("it ended by itself: {reason}"));
            note(&self.world.violations, reason);
        }
    }

    pub(crate) async fn stay_away(&mut self) {
        let away = rand::Rng::random_range(&mut self.random, 0..20_000);
        self.world.env.sleep(Duration::from_millis(away)).await;
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
    pub(crate) async fn publish(&mut self, node: usize, count: usize) {
        let intake = self.world.nodes[node].intake();
        let kept = &mut self.kept;
        let accepted = |topic: &str, number: u64| {
            kept.insert((node, topic.to_owned()), number);
        };
        let burst = self.mqtt_clients[node].publish(&self.world.env, intake, count, accepted).await;
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
