//! The devices, and what each has said last.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::testbed::NODE;

const MODEL: &str = "load";
/// What a device reports: the milliseconds since the stage began, so that whoever reads it knows how old it is.
pub(super) const REPORTED: &str = "at";
/// What is wanted of the first [`WANTED`] devices. They never get there, so that each of their reports brings the difference.
pub(super) const GOAL: &str = "goal";
/// Devices that something is wanted of.
pub(super) const WANTED: usize = 20;
/// Topics of the full-rate road, a rule each.
pub(super) const ROADS: usize = 10;

/// All devices of a stage.
pub(super) struct Fleet {
    /// The value that was accepted last, of each.
    newest: Vec<AtomicU64>,
    begun: Instant,
}

pub(super) fn name(number: usize) -> String {
    format!("load-{number:04}")
}

/// The number in a name; none of another device's.
pub(super) fn number(name: &str) -> Option<usize> {
    name.strip_prefix("load-")?.parse().ok()
}

pub(super) fn topic(number: usize, end: &str) -> String {
    format!("$hw/events/device/default/{}/twin/{end}", name(number))
}

/// The topic that a device's readings take.
pub(super) fn road(number: usize) -> String {
    format!("readings-{}", number % ROADS)
}

/// The properties of a device, with what is wanted of it.
pub(super) fn properties(goal: Option<u64>) -> Value {
    let reported = json!({"name": REPORTED, "reportToCloud": true});
    match goal {
        None => json!([reported]),
        Some(goal) => json!([reported, {"name": GOAL, "desired": {"value": goal.to_string()}}]),
    }
}

impl Fleet {
    pub(super) fn new(devices: usize, begun: Instant) -> Fleet {
        Fleet { newest: (0..devices).map(|_| AtomicU64::new(0)).collect(), begun }
    }

    pub(super) fn devices(&self) -> usize {
        self.newest.len()
    }

    /// Milliseconds since the stage began.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// How long ago a value was reported.
    pub(super) fn age(&self, value: u64) -> Duration {
        Duration::from_millis(self.now().saturating_sub(value))
    }

    pub(super) fn said(&self, number: usize, value: u64) {
        if let Some(newest) = self.newest.get(number) {
            newest.store(value, Ordering::Relaxed);
        }
    }

    pub(super) fn newest(&self) -> Vec<u64> {
        self.newest.iter().map(|value| value.load(Ordering::Relaxed)).collect()
    }

    pub(super) fn models() -> [Value; 1] {
        let property = |name: &str, mode: &str| json!({"name": name, "type": "INT", "accessMode": mode});
        [json!({
            "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel", "metadata": {"name": MODEL},
            "spec": {"protocol": "mqtt", "properties": [property(REPORTED, "ReadOnly"), property(GOAL, "ReadWrite")]},
        })]
    }

    pub(super) fn objects(&self) -> Vec<Value> {
        let device = |number: usize| {
            json!({
                "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": {"name": name(number)},
                "spec": {
                    "deviceModelRef": {"name": MODEL}, "nodeName": NODE, "protocol": {"protocolName": "mqtt"},
                    "properties": properties((number < WANTED).then_some(0)),
                },
            })
        };
        (0..self.devices()).map(device).collect()
    }

    /// The full-rate road: a rule for each topic, to one collector.
    pub(super) fn rules(collector: SocketAddr) -> Vec<Value> {
        let object = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "rules.kubeedge.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
        let mut all = vec![
            object("RuleEndpoint", "here", json!({"ruleEndpointType": "eventbus"})),
            object("RuleEndpoint", "there", json!({"ruleEndpointType": "rest"})),
        ];
        all.extend((0..ROADS).map(|number| {
            let topic = road(number);
            let target = format!("http://{collector}/{topic}");
            object(
                "Rule",
                &topic,
                json!({
                    "source": "here", "sourceResource": {"topic": topic, "node_name": NODE},
                    "target": "there", "targetResource": {"resource": target},
                }),
            )
        }));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_its_number_and_a_device_without_a_goal_has_no_such_property() {
        assert_eq!(number(&name(17)), Some(17));
        assert_eq!(number("other-0017"), None);
        assert_eq!(properties(None).as_array().map(Vec::len), Some(1));
    }
}
