//! What has come on the topics of a device, and for whom.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use framework::{Fault, Subscription, Value};
use tokio::sync::watch;

use crate::address::Visitor;

/// Shared by a session and the task that hears for it.
#[derive(Debug, Clone)]
pub(crate) struct Topics {
    inside: Arc<Mutex<Inside>>,
    /// How many publishes the broker has acknowledged.
    pub(crate) acknowledged: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inside {
    /// What came last, by topic.
    last: BTreeMap<String, Vec<u8>>,
    places: Vec<Visitor>,
    values: Option<Subscription>,
    /// Topics whose subscriptions have not been answered yet, in their order.
    asked: Vec<String>,
}

impl Topics {
    pub(crate) fn new() -> Self {
        Topics { inside: Arc::default(), acknowledged: watch::channel(0).0 }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are wanted from now on. The topics to subscribe to.
    pub(crate) fn want(&self, visitors: &[&Visitor], values: Subscription) -> Vec<String> {
        let mut inside = self.inside();
        inside.places = visitors.iter().map(|visitor| (*visitor).clone()).collect();
        inside.values = Some(values);
        let mut topics: Vec<String> = inside.places.iter().map(|visitor| visitor.topic.clone()).collect();
        topics.sort();
        topics.dedup();
        inside.asked.clone_from(&topics);
        topics
    }

    /// The broker has answered a subscription: the topics that it refuses say so.
    pub(crate) fn granted(&self, granted: &[bool]) {
        let inside = self.inside();
        let refused: Vec<&String> = inside
            .asked
            .iter()
            .zip(granted)
            .filter(|(_, granted)| !**granted)
            .map(|(topic, _)| topic)
            .collect();
        let Some(values) = &inside.values else { return };
        for (place, visitor) in inside.places.iter().enumerate() {
            if refused.contains(&&visitor.topic) {
                let sentence = format!("the broker refuses the subscription to {}", visitor.topic);
                values.push(place, Err(Fault::Device(sentence)));
            }
        }
    }

    /// Something was published.
    pub(crate) fn published(&self, topic: &str, said: &[u8]) {
        let mut inside = self.inside();
        if !inside.places.iter().any(|visitor| visitor.topic == topic) {
            return;
        }
        inside.last.insert(topic.to_owned(), said.to_vec());
        let Some(values) = &inside.values else { return };
        for (place, visitor) in inside.places.iter().enumerate() {
            if visitor.topic != topic {
                continue;
            }
            match visitor.payload.value(said) {
                // In a message with many values, one that is left out is not null.
                Err(Fault::NoValue(_)) if !says_null(visitor, said) => {}
                outcome => values.push(place, outcome),
            }
        }
    }

    /// The session has ended.
    pub(crate) fn ended(&self, reason: &str) {
        if let Some(values) = &self.inside().values {
            values.push(0, Err(Fault::Link(reason.to_owned())));
        }
    }

    /// What is known of a property.
    pub(crate) fn value(&self, visitor: &Visitor) -> Result<Value, Fault> {
        match self.inside().last.get(&visitor.topic) {
            Some(said) => visitor.payload.value(said),
            None => Err(Fault::NoValue(format!("nothing has come on {} yet", visitor.topic))),
        }
    }
}

fn says_null(visitor: &Visitor, said: &[u8]) -> bool {
    let Some(pointer) = &visitor.payload.pointer else { return true };
    let parsed: Option<serde_json::Value> = serde_json::from_slice(said).ok();
    parsed.is_some_and(|json| json.pointer(pointer).is_some_and(serde_json::Value::is_null))
}
