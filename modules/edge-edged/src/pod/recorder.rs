//! Events of pods and of the node as a kubelet writes them, named as client-go names them: by the object and when they began.

use std::cell::RefCell;

use beehive::Moment;
use contract::UpReport;
use contract::edgepage::EventView;
use contract::report::EVENT_COMPONENT;
use serde_json::{Value, json};

pub(crate) use crate::pod::event_series::EventType;
use crate::pod::event_series::{EventSeries, Said};
use crate::pod::id::PodId;
use crate::pod::recent_events::RecentEvents;

/// An API server takes so much.
const MESSAGE_MAX: usize = 1024;
/// Of the object's name so much is in the event's, so that the rest of that has room.
const NAME_MAX: usize = 200;

/// What an event is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About<'a> {
    pub(crate) pod: &'a PodId,
    /// Which part of the pod, as `spec.containers{c}`; empty: the whole.
    pub(crate) field_path: &'a str,
}

/// Makes events.
#[derive(Debug)]
pub(crate) struct Recorder {
    node: String,
    series: RefCell<EventSeries>,
    /// For the node's page.
    pub(crate) recent: RecentEvents,
}

impl Recorder {
    /// A recorder for `node`.
    pub(crate) fn new(node: &str) -> Self {
        Recorder { node: node.to_owned(), series: RefCell::default(), recent: RecentEvents::default() }
    }

    /// An event about a pod; `None` when there are too many.
    pub(crate) fn event(
        &self,
        about: &About<'_>,
        (kind, reason, message): (EventType, &str, &str),
        now: Moment,
        wall: jiff::Timestamp,
    ) -> Option<UpReport> {
        let About { pod, field_path } = *about;
        let mut object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "namespace": pod.namespace, "name": pod.name, "uid": pod.uid,
        });
        if !field_path.is_empty() {
            object["fieldPath"] = json!(field_path);
        }
        let said = Said { uid: &pod.uid, field_path, kind, reason, message };
        self.tell(&said, (&pod.namespace, &pod.name), object, now, wall)
    }

    /// An event about the node; `None` when there are too many.
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
        let said = Said { uid: "node", field_path: "", kind, reason, message };
        self.tell(&said, ("default", &self.node), object, now, wall)
    }

    fn tell(
        &self,
        said: &Said<'_>,
        (namespace, name): (&str, &str),
        object: Value,
        now: Moment,
        wall: jiff::Timestamp,
    ) -> Option<UpReport> {
        let message: String = said.message.chars().take(MESSAGE_MAX).collect();
        let told = self.series.borrow_mut().take(&Said { message: &message, ..*said }, now, wall)?;
        let in_seconds =
            |time: jiff::Timestamp| jiff::Timestamp::from_second(time.as_second()).unwrap_or_default();
        // The node has no namespace; its events do.
        let about = match object["kind"] == "Node" {
            true => format!("Node {name}"),
            false => format!("Pod {namespace}/{name}"),
        };
        let event = EventView {
            unix: wall.as_second(),
            is_warning: false,
            about,
            reason: said.reason.to_owned(),
            message: told.message.clone(),
            count: told.count.into(),
        };
        self.recent.add(told.series, said.kind, event);
        let head: String = name.chars().take(NAME_MAX).collect();
        let name = format!("{}.{:016x}", head.trim_end_matches(['.', '-']), told.series);
        let kind = match said.kind {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        };
        let event = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": object,
            "type": kind,
            "reason": said.reason,
            "message": told.message,
            "source": {"component": EVENT_COMPONENT, "host": self.node},
            "reportingComponent": EVENT_COMPONENT,
            "reportingInstance": self.node,
            "firstTimestamp": in_seconds(told.first).to_string(),
            "lastTimestamp": in_seconds(wall).to_string(),
            "count": told.count,
        });
        Some(UpReport::Event { namespace: namespace.to_owned(), name, event_json: event.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_event_is_a_kubelets() {
        let recorder = Recorder::new("edge-1");
        let pod = PodId { namespace: "d".into(), name: "p".into(), uid: "u".into() };
        let say = |field_path: &str, second: i64| {
            let about = About { pod: &pod, field_path };
            let wall = jiff::Timestamp::from_second(second).unwrap();
            let told = (EventType::Normal, "Created", "Container created");
            let told = recorder.event(&about, told, Moment(Duration::from_secs(9)), wall);
            let Some(UpReport::Event { name, event_json, .. }) = told else { panic!("no event") };
            (name, serde_json::from_str::<Value>(&event_json).unwrap())
        };
        let (name, first) = say("spec.containers{c}", 0);
        let (again, second) = say("spec.containers{c}", 60);
        assert!(name == again && name.starts_with("p.") && name.len() == 2 + 16, "{name}");
        let (later, _) = say("spec.containers{d}", 1_796_000_000);
        assert_eq!(later, format!("p.{:x}", 1_796_000_000_000_000_000_i64), "as client-go writes it");
        assert_eq!((&first["count"], &second["count"]), (&json!(1), &json!(2)));
        assert_eq!(second["firstTimestamp"], "1970-01-01T00:00:00Z");
        assert_eq!(second["lastTimestamp"], "1970-01-01T00:01:00Z");
        assert_eq!(second["involvedObject"]["fieldPath"], "spec.containers{c}");
        assert_eq!(second["source"], json!({"component": "kubelet", "host": "edge-1"}));
        let (other, whole) = say("", 0);
        assert!(other != name && whole["involvedObject"].get("fieldPath").is_none());
    }
}
