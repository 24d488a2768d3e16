//! What happens in a run: people change things in the API, devices report, faults strike, and everything is put right.

use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::actors::ACTORS;
use crate::api::{create, objects};
use crate::check;
use crate::fault::Fault;
use crate::outcome::Outcome;
use crate::run::{Job, Run, device};
use crate::world::{IMAGE, World};

/// Of rules and their ends.
pub(crate) const RULES_VERSION: &str = "rules.kubeedge.io/v1";
/// 46 things that happen in a run.
const STEPS: usize = 46;
/// At most so many pods at once.
const PODS_MAX: usize = 8;
/// At most so many rules at once.
const RULES_MAX: usize = 4;
/// Config maps that pods refer to.
const MAPS: usize = 4;

fn config_map(number: usize) -> String {
    format!("map-{number}")
}

/// Tells the story of a seed.
pub(crate) async fn tell(seed: u64, keep_trace: bool) -> Outcome {
    let mut random = StdRng::seed_from_u64(seed);
    let nodes = random.random_range(1..=3);
    let clouds = random.random_range(1..=2);
    let world = World::new(seed, nodes, clouds, keep_trace).await;
    let mut run = Run::new(world, random);
    run.begin().await;
    for _ in 0..STEPS {
        run.step().await;
        check::bounds(&mut run).await;
        let pause = run.random.random_range(1..8_000);
        run.wait(Duration::from_millis(pause)).await;
    }
    run.heal().await;
    for number in 0..nodes {
        run.publish(number, 0).await;
    }
    check::converges(&mut run).await;
    // Once more without a reconnect, which would put right what was lost on the way.
    for _ in 0..4 {
        run.change().await;
    }
    run.say("the last changes are made".to_owned());
    check::converges(&mut run).await;
    run.end().await
}

impl Run {
    async fn end(mut self) -> Outcome {
        let answers_lost = self.world.nodes.iter().map(|node| node.answer_loss.struck()).sum();
        self.struck(Fault::AnswerLost, answers_lost);
        self.count_panics();
        self.outcome.panics = self.panics();
        self.outcome.handed = self.world.delivered.all();
        let known =
            |actor, message| ACTORS.iter().any(|kind| kind.name == actor && kind.messages.contains(&message));
        let unknown: Vec<_> =
            self.outcome.handed.iter().filter(|(actor, message)| !known(*actor, *message)).collect();
        assert!(unknown.is_empty(), "`actors::ACTORS` is out of date: {unknown:?}");
        self.outcome.violations =
            std::mem::take(&mut *self.world.violations.lock().expect("nobody panics with it"));
        for number in 0..self.world.nodes.len() {
            self.world.kill_node(number).await;
        }
        for number in 0..self.world.clouds.len() {
            self.world.kill_cloud(number).await;
        }
        (self.outcome.fingerprint, self.outcome.trace) = self.world.trace.end();
        self.outcome
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
        for kind in ["servicebus", "rest"] {
            let endpoint = json!({"metadata": {"name": kind}, "spec": {"ruleEndpointType": kind}});
            create(&client, RULES_VERSION, "RuleEndpoint", endpoint).await;
        }
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
        match self.random.random_range(0..14) {
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
            9..=10 => {
                for _ in 0..self.random.random_range(1..=3) {
                    self.plan_a_panic();
                }
            }
            _ => self.strike().await,
        }
    }

    /// Somebody changes something in the API.
    async fn change(&mut self) {
        let client = self.world.client.clone();
        let roll = self.random.random_range(0..11);
        if roll == 10 {
            self.change_rules().await;
        } else if roll < 4 && self.pods.len() < PODS_MAX {
            let node = self.random.random_range(0..self.world.nodes.len());
            self.made += 1;
            let name = format!("pod-{}", self.made);
            let map = config_map(self.random.random_range(0..MAPS));
            let is_job = self.random.random_range(0..3) == 0;
            let spec = json!({
                "nodeName": self.world.nodes[node].name.as_str(),
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 1,
                "restartPolicy": if is_job { "Never" } else { "Always" },
                "containers": [{"name": "c", "image": IMAGE,
                    "env": [{"name": "V", "valueFrom": {"configMapKeyRef": {"name": map, "key": "value"}}}]}],
            });
            create(&client, "v1", "Pod", json!({"metadata": {"name": name}, "spec": spec})).await;
            self.say(format!("pod {name} on node {node} with {map}, a job: {is_job}"));
            if is_job {
                self.jobs.insert(name.clone(), Job::default());
            }
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
    /// Somebody makes or deletes a rule by which applications of a node call a target.
    async fn change_rules(&mut self) {
        let client = self.world.client.clone();
        let is_full = self.rules.len() >= RULES_MAX;
        if is_full || !self.rules.is_empty() && self.random.random_range(0..2) == 0 {
            let at = self.random.random_range(0..self.rules.len());
            let Some(name) = self.rules.keys().nth(at).cloned() else { return };
            self.rules.remove(&name);
            let deleted =
                objects(&client, RULES_VERSION, "Rule").delete(&name, &DeleteParams::default()).await;
            deleted.unwrap_or_else(|error| panic!("{name} is not deleted: {error}"));
            self.say(format!("rule {name} is deleted"));
            return;
        }
        let node = self.random.random_range(0..self.world.nodes.len());
        self.made += 1;
        let name = format!("rule-{}", self.made);
        let spec = json!({
            "source": "servicebus", "target": "rest",
            "sourceResource": {
                "target_url": format!("http://target/{name}"),
                "node_name": self.world.nodes[node].name.as_str(),
            },
            "targetResource": {"resource": "http://target.test/"},
        });
        create(&client, RULES_VERSION, "Rule", json!({"metadata": {"name": name}, "spec": spec})).await;
        self.say(format!("rule {name} on node {node}"));
        self.rules.insert(name, node);
    }
}
