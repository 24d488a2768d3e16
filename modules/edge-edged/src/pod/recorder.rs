//! Events of pods as the API server knows them, named so that a repeat is recognised.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use beehive::Moment;
use contract::UpReport;
use serde_json::{Value, json};

use crate::pod::id::PodId;
use crate::pod::parsed_pod::fnv1a;

/// The same words about the same pod are sent once in this time.
const QUIET: Duration = Duration::from_secs(600);
/// How many events are remembered for that.
const REMEMBERED: usize = 1024;
/// Of one pod and type so many events at once, and one more in each of these spans; others are dropped: what a probe prints may
/// differ each second (client-go: `EventSourceObjectSpamFilter`).
const BURST: u32 = 25;
const ONE_MORE_IN: Duration = Duration::from_secs(300);
/// An API server takes so much.
const MESSAGE_MAX: usize = 1024;

/// How grave an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventType {
    Normal,
    Warning,
}

/// Makes events: each has a name of its own, from this start's number and a counter.
#[derive(Debug)]
pub(crate) struct Recorder {
    node: String,
    start: String,
    count: Cell<u64>,
    said: RefCell<BTreeMap<u64, Moment>>,
    /// Since when, by pod and type, as many events would have been allowed as were: see [`Recorder::has_room`].
    used: RefCell<BTreeMap<u64, Moment>>,
}

impl Recorder {
    /// A recorder for `node`. `start` is random, so that no two starts of EdgeCore use one name twice.
    pub(crate) fn new(node: &str, start: [u8; 16]) -> Self {
        let start = start.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        Recorder {
            node: node.to_owned(),
            start,
            count: Cell::new(0),
            said: RefCell::default(),
            used: RefCell::default(),
        }
    }

    /// Takes one of the events that a pod may have of a type. Each costs a span; what was spent lies ahead of the clock, at
    /// most a burst of spans.
    fn has_room(&self, uid: &str, kind: EventType, now: Moment) -> bool {
        let mut used = self.used.borrow_mut();
        if used.len() >= REMEMBERED {
            used.retain(|_, spent| *spent > now);
        }
        let key = fnv1a(format!("{uid}\n{kind:?}").as_bytes());
        let spent = used.get(&key).copied().filter(|spent| *spent > now).unwrap_or(now) + ONE_MORE_IN;
        if spent.since(now) > ONE_MORE_IN * BURST {
            return false;
        }
        used.insert(key, spent);
        true
    }

    /// An event about a pod; `None` when the same was said a short while ago, or too much.
    pub(crate) fn event(
        &self,
        pod: &PodId,
        kind: EventType,
        reason: &str,
        message: &str,
        now: Moment,
        wall: jiff::Timestamp,
    ) -> Option<UpReport> {
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "namespace": pod.namespace, "name": pod.name, "uid": pod.uid,
        });
        self.about((&pod.namespace, &pod.name, &pod.uid), object, (kind, reason, message), now, wall)
    }

    /// An event about the node; `None` when the same was said a short while ago.
    pub(crate) fn node_event(
        &self,
        kind: EventType,
        reason: &str,
        message: &str,
        now: Moment,
        wall: jiff::Timestamp,
    ) -> Option<UpReport> {
        // CloudCore knows its uid.
        let object = json!({"apiVersion": "v1", "kind": "Node", "name": self.node});
        self.about(("default", &self.node, ""), object, (kind, reason, message), now, wall)
    }

    fn about(
        &self,
        (namespace, name, uid): (&str, &str, &str),
        object: Value,
        (kind, reason, message): (EventType, &str, &str),
        now: Moment,
        wall: jiff::Timestamp,
    ) -> Option<UpReport> {
        let print = fnv1a(format!("{uid}\n{reason}\n{message}").as_bytes());
        let mut said = self.said.borrow_mut();
        if said.get(&print).is_some_and(|at| now.since(*at) < QUIET) || !self.has_room(uid, kind, now) {
            return None;
        }
        if said.len() >= REMEMBERED {
            said.retain(|_, at| now.since(*at) < QUIET);
        }
        if said.len() >= REMEMBERED {
            said.clear();
        }
        said.insert(print, now);
        self.count.set(self.count.get() + 1);
        let head: String = name.chars().take(200).collect();
        let name = format!("{}.{}{:x}", head.trim_end_matches(['.', '-']), self.start, self.count.get());
        let kind = match kind {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        };
        let time = wall.to_string();
        let message: String = message.chars().take(MESSAGE_MAX).collect();
        let event = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": object,
            "type": kind,
            "reason": reason,
            "message": message,
            "source": {"component": "edged", "host": self.node},
            "reportingComponent": "edged",
            "reportingInstance": self.node,
            "firstTimestamp": time,
            "lastTimestamp": time,
            "count": 1,
        });
        Some(UpReport::Event { namespace: namespace.to_owned(), name, event_json: event.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_words_are_said_once() {
        let recorder = Recorder::new("edge-1", [0xab; 16]);
        let pod = PodId { namespace: "d".into(), name: "p".into(), uid: "u".into() };
        let wall = jiff::Timestamp::from_second(0).unwrap();
        let say = |message: &str, at: u64| {
            recorder.event(&pod, EventType::Normal, "Pulled", message, Moment(Duration::from_secs(at)), wall)
        };
        assert!(say("one", 0).is_some());
        assert!(say("one", 10).is_none());
        assert!(say("two", 10).is_some());
        let Some(UpReport::Event { name, event_json, .. }) = say("one", 700) else { panic!("no event") };
        assert_eq!(name, "p.abababab3");
        assert!(event_json.contains("1970-01-01T00:00:00Z"));
    }

    #[test]
    fn a_pod_that_says_something_else_each_second_is_heard_seldom() {
        let recorder = Recorder::new("edge-1", [0; 16]);
        let pod = |uid: &str| PodId { namespace: "d".into(), name: "p".into(), uid: uid.into() };
        let wall = jiff::Timestamp::from_second(0).unwrap();
        let say = |uid: &str, kind, second: u64| {
            let now = Moment(Duration::from_secs(second));
            recorder.event(&pod(uid), kind, "Unhealthy", &second.to_string(), now, wall).is_some()
        };
        let heard = (0..3000).filter(|second| say("u", EventType::Warning, *second)).count();
        assert_eq!(heard, 25 + 9, "a burst, and one more in each five minutes");
        assert!(say("u", EventType::Normal, 3000) && say("v", EventType::Warning, 3000));
        assert!(!say("u", EventType::Warning, 3000) || !say("u", EventType::Warning, 3001));
    }
}
