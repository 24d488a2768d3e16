//! What a node reports, as its outbox has it.

use contract::UpReport;
use edge_store::Store;
use serde_json::Value;

use crate::eventually;
use crate::objects::{condition, outbox, text};

/// What a node reports, read from its store at each look.
pub struct Reports<'a>(pub(crate) &'a Store);

impl<'a> Reports<'a> {
    /// Those of whose store this is.
    pub fn of(store: &'a Store) -> Self {
        Reports(store)
    }
}

impl Reports<'_> {
    /// Everything in the outbox, the oldest first.
    pub fn all(&self) -> Vec<UpReport> {
        outbox(self.0)
    }

    /// The newest status of a pod.
    pub fn status(&self, pod: &str) -> Option<Value> {
        self.all().into_iter().rev().find_map(|report| match report {
            UpReport::PodStatus { name, status_json, .. } if name == pod => {
                serde_json::from_str(&status_json).ok()
            }
            _ => None,
        })
    }

    /// The newest report of the node.
    pub fn node(&self) -> Option<Value> {
        self.all().into_iter().rev().find_map(|report| match report {
            UpReport::Node { node_json } => serde_json::from_str(&node_json).ok(),
            _ => None,
        })
    }

    /// The events of a pod: reason and message.
    pub fn events(&self, pod: &str) -> Vec<(String, String)> {
        self.event_objects(pod)
            .iter()
            .map(|event| (text(&event["reason"]), text(&event["message"])))
            .collect()
    }

    /// The same as they are told.
    pub fn event_objects(&self, pod: &str) -> Vec<Value> {
        let events = self.all().into_iter().filter_map(|report| match report {
            UpReport::Event { event_json, .. } => serde_json::from_str::<Value>(&event_json).ok(),
            _ => None,
        });
        events.filter(|event| event["involvedObject"]["name"] == pod).collect()
    }

    /// Waits for a status of a pod.
    pub async fn until(&self, pod: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let found = eventually(async || self.status(pod).filter(|status| holds(status))).await;
        found.unwrap_or_else(|| {
            let shown = self.status(pod).map(|status| format!("{status:#}")).unwrap_or_default();
            panic!("waited in vain for {what}; {pod} is {shown}; events: {:#?}", self.events(pod))
        })
    }

    /// Waits until a pod is ready.
    pub async fn until_ready(&self, pod: &str) -> Value {
        self.until(pod, "Ready", |status| condition(status, "Ready")["status"] == "True").await
    }

    /// Waits until a pod has a phase.
    pub async fn until_phase(&self, pod: &str, phase: &str) -> Value {
        self.until(pod, phase, |status| status["phase"] == phase).await
    }

    /// Waits until the end of a pod is reported.
    pub async fn until_gone(&self, pod: &str) {
        let gone = |report: &UpReport| matches!(report, UpReport::PodGone { name, .. } if name == pod);
        let found = eventually(async || self.all().iter().any(gone).then_some(())).await;
        assert!(found.is_some(), "{pod} does not end; {:#?}", self.events(pod));
    }

    /// Waits for an event of a pod with that reason, whose message holds `words`.
    pub async fn until_event(&self, pod: &str, reason: &str, words: &str) {
        let told = || self.events(pod).iter().any(|(own, message)| own == reason && message.contains(words));
        let told = eventually(async || told().then_some(())).await;
        told.unwrap_or_else(|| panic!("no {reason} `{words}` among {:#?}", self.events(pod)));
    }

    /// Waits for a report of the node of which something holds.
    pub async fn until_node(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let found = eventually(async || self.node().filter(|node| holds(node))).await;
        found.unwrap_or_else(|| {
            panic!("waited in vain for {what}; the node is {:#}", self.node().unwrap_or_default())
        })
    }

    /// Waits for a condition of the node to be `wanted`.
    pub async fn until_node_has(&self, kind: &str, wanted: &str) -> Value {
        let what = format!("{kind} to be {wanted}");
        self.until_node(&what, |node| condition(&node["status"], kind)["status"] == wanted).await
    }
}
