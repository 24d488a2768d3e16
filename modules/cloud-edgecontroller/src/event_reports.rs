//! What of an event that a node reports becomes an Event (core v1), and how many may. Pure.
//!
//! The Event is built of what was parsed and checked; nothing else of the node's text is passed on. Of the rates that about
//! one object is the kubelet's (its event recorder's spam filter); the one of a whole node bounds what it can fill etcd with:
//! an event lives for an hour there.

use std::collections::BTreeMap;
use std::time::Duration;

use beehive::{Bucket, Moment};
use contract::NodeName;
use contract::ids::{DeviceName, Namespace, ObjectName, Uid, is_dns1123_label};
use contract::parsed::PodId;
use contract::report::EVENT_COMPONENT;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::{Value, json};

use crate::status_texts::cut_to;

/// 25 at once about one object, and one more in 300 s; as many warnings beside what is usual, so that a node that starts again and again
/// still says what is wrong with it.
const OF_OBJECT: (u32, Duration) = (25, Duration::from_secs(300));
/// 500 at once of one node, and one more in each second: at the most 4,100 in the hour that an event lives. A node that
/// starts with 110 pods has four of each to tell.
const OF_NODE: (u32, Duration) = (500, Duration::from_secs(1));
/// 256 objects of a node are told apart; beyond that its own rate counts alone.
const OBJECTS_MAX: usize = 256;
/// 1 KiB of the message (Kubernetes).
const MESSAGE_MAX: usize = 1 << 10;
/// 128 bytes of the reason (Kubernetes).
const REASON_MAX: usize = 128;
/// 128 bytes of the path to a container: a container's name has at most 63.
const PATH_MAX: usize = 128;
/// The namespace of events about what has none (Kubernetes).
const CLUSTER: &str = "default";

/// Of which group devices are.
pub(crate) const DEVICE_GROUP: &str = "devices.kubeedge.io";
/// Of which version they are read.
pub(crate) const DEVICE_VERSION: &str = "v1beta1";

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InvolvedObject {
    /// A pod, which is still to be checked.
    Pod(PodId),
    /// The node itself.
    Node,
    /// A device, which is still to be checked.
    Device {
        /// Its name.
        device: DeviceName,
        /// Its uid: the next one of that name is another.
        uid: Uid,
    },
}

/// An event as it was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ParsedEvent {
    pub(crate) involved_object: InvolvedObject,
    field_path: Option<String>,
    is_warning: bool,
    reason: String,
    message: String,
    count: i32,
    first: Option<jiff::Timestamp>,
    last: Option<jiff::Timestamp>,
}

/// Reads an event of `node` in `namespace`.
///
/// # Errors
/// Why it is none that a node may say.
pub(crate) fn parse(node: &NodeName, namespace: &Namespace, text: &str) -> Result<ParsedEvent, &'static str> {
    let event: Value = serde_json::from_str(text).map_err(|_| "an event is no JSON")?;
    let text = |at: &str| event.pointer(at).and_then(Value::as_str);
    let involved_object = match text("/involvedObject/kind") {
        Some("Pod") => {
            let part = |at: &str| text(at).unwrap_or_default();
            if part("/involvedObject/namespace") != namespace.as_str() {
                return Err("an event is about a pod of another namespace");
            }
            let (name, uid) = (part("/involvedObject/name"), part("/involvedObject/uid"));
            let pod = PodId::parse(namespace.as_str(), name, uid);
            InvolvedObject::Pod(pod.map_err(|_| "an event names no pod")?)
        }
        Some("Node") if text("/involvedObject/name") != Some(node.as_str()) => {
            return Err("an event is about another node");
        }
        Some("Node") if namespace.as_str() != CLUSTER => {
            return Err("an event about a node stands in the namespace `default`");
        }
        Some("Node") => InvolvedObject::Node,
        Some("Device") => device_of(namespace, &text)?,
        Some(_) | None => return Err("an event is about neither a pod nor a node nor a device"),
    };
    let is_warning = match text("/type") {
        Some("Normal") => false,
        Some("Warning") => true,
        Some(_) | None => return Err("an event is neither `Normal` nor `Warning`"),
    };
    let reason = text("/reason").unwrap_or_default();
    if reason.is_empty() || reason.len() > REASON_MAX || reason.chars().any(char::is_control) {
        return Err("an event has no reason of at most 128 bytes");
    }
    let field_path = text("/involvedObject/fieldPath").filter(|path| is_field_path(path)).map(str::to_owned);
    let time = |at: &str| text(at).and_then(|time| time.parse().ok());
    let count = event.pointer("/count").and_then(Value::as_i64).unwrap_or(1);
    Ok(ParsedEvent {
        involved_object,
        field_path,
        is_warning,
        reason: reason.to_owned(),
        message: cut_to(text("/message").unwrap_or_default().to_owned(), MESSAGE_MAX),
        count: i32::try_from(count).unwrap_or(i32::MAX).max(1),
        first: time("/firstTimestamp"),
        last: time("/lastTimestamp"),
    })
}

/// The device that an event is about.
fn device_of<'a>(
    namespace: &Namespace,
    text: &impl Fn(&str) -> Option<&'a str>,
) -> Result<InvolvedObject, &'static str> {
    let part = |at: &str| text(at).unwrap_or_default();
    if part("/involvedObject/namespace") != namespace.as_str() {
        return Err("an event is about a device of another namespace");
    }
    let device = DeviceName::parse(namespace.as_str(), part("/involvedObject/name"));
    let uid = Uid::parse(part("/involvedObject/uid"));
    match (device, uid) {
        (Ok(device), Ok(uid)) => Ok(InvolvedObject::Device { device, uid }),
        _ => Err("an event names no device"),
    }
}

/// Whether it is how a kubelet names a container of a pod.
fn is_field_path(path: &str) -> bool {
    let lists = ["spec.containers{", "spec.initContainers{", "spec.ephemeralContainers{"];
    let name = lists.iter().find_map(|list| path.strip_prefix(list)?.strip_suffix('}'));
    path.len() <= PATH_MAX && name.is_some_and(is_dns1123_label)
}

/// The Event of this name. `uid` is the Node's, for one about it.
pub(crate) fn event(
    draft: ParsedEvent,
    node: &NodeName,
    (namespace, name): (&Namespace, &ObjectName),
    uid: Option<String>,
) -> Event {
    let involved_object = match &draft.involved_object {
        InvolvedObject::Pod(pod) => ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(pod.namespace.to_string()),
            name: Some(pod.name.to_string()),
            uid: Some(pod.uid.to_string()),
            field_path: draft.field_path,
            ..ObjectReference::default()
        },
        InvolvedObject::Node => ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node.to_string()),
            uid,
            ..ObjectReference::default()
        },
        InvolvedObject::Device { device, uid } => ObjectReference {
            api_version: Some(format!("{DEVICE_GROUP}/{DEVICE_VERSION}")),
            kind: Some("Device".to_owned()),
            namespace: Some(device.namespace.clone()),
            name: Some(device.name.clone()),
            uid: Some(uid.to_string()),
            ..ObjectReference::default()
        },
    };
    Event {
        metadata: ObjectMeta {
            namespace: Some(namespace.to_string()),
            name: Some(name.to_string()),
            ..ObjectMeta::default()
        },
        involved_object,
        type_: Some(if draft.is_warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(draft.reason),
        message: Some(draft.message),
        count: Some(draft.count),
        first_timestamp: draft.first.map(Time),
        last_timestamp: draft.last.map(Time),
        source: Some(EventSource {
            component: Some(EVENT_COMPONENT.to_owned()),
            host: Some(node.to_string()),
        }),
        reporting_component: Some(EVENT_COMPONENT.to_owned()),
        reporting_instance: Some(node.to_string()),
        ..Event::default()
    }
}

/// What of an Event that is there already is to be changed, so that it shows `told` of the same series, too; `None`: it does.
///
/// A node names a series by what it says, and counts anew when it starts: what it says later is counted on. By the time
/// alone a repeat of what was told is known.
///
/// # Errors
/// When what is there is another's: a name is the node's choice.
pub(crate) fn continuation(held: &Event, told: &Event) -> Result<Option<Value>, &'static str> {
    let host = |event: &Event| event.source.as_ref().and_then(|source| source.host.clone());
    let about = |event: &Event| {
        let ObjectReference { kind, namespace, name, uid, field_path, .. } = event.involved_object.clone();
        (kind, namespace, name, uid, field_path)
    };
    let is_same = host(held) == host(told)
        && about(held) == about(told)
        && (&held.type_, &held.reason) == (&told.type_, &told.reason);
    if !is_same {
        return Err("an event whose name another one has");
    }
    let time = |event: &Event| event.last_timestamp.as_ref().map(|time| time.0);
    if time(told).is_none() || time(told) <= time(held) {
        return Ok(None);
    }
    let (before, now) = (held.count.unwrap_or(1), told.count.unwrap_or(1));
    Ok(Some(json!({
        "metadata": { "resourceVersion": held.metadata.resource_version },
        "count": now.max(before.saturating_add(1)),
        "lastTimestamp": told.last_timestamp,
        "message": told.message,
    })))
}

/// How many events of one node are written.
#[derive(Debug)]
pub(crate) struct EventRates {
    node: Bucket,
    objects: BTreeMap<Series, Bucket>,
    dropped: u64,
}

impl Default for EventRates {
    fn default() -> Self {
        EventRates { node: Bucket::new(OF_NODE.0, OF_NODE.1), objects: BTreeMap::new(), dropped: 0 }
    }
}

impl EventRates {
    /// One more was dropped. Answers how many were.
    pub(crate) fn drop_one(&mut self) -> u64 {
        self.dropped += 1;
        self.dropped
    }

    /// Whether there is room for one more of that. Takes none: a report that could not be written comes again.
    pub(crate) fn has_room(&self, series: &Series, now: Moment) -> bool {
        let (mut node, object) = (self.node, self.objects.get(series).copied());
        node.take(now) && object.is_none_or(|mut object| object.take(now))
    }

    /// Takes the place of one of that, also where others were being written at once and took the last one.
    pub(crate) fn charge(&mut self, series: &Series, now: Moment) {
        self.node.take_on_credit(1, now);
        if self.objects.len() >= OBJECTS_MAX && !self.objects.contains_key(series) {
            self.objects.retain(|_, bucket| !bucket.is_full(now));
        }
        if self.objects.len() >= OBJECTS_MAX && !self.objects.contains_key(series) {
            return;
        }
        let (burst, every) = OF_OBJECT;
        let object = self.objects.entry(series.clone()).or_insert_with(|| Bucket::new(burst, every));
        object.take_on_credit(1, now);
    }
}

/// Events that share a rate: those about one object, warnings by themselves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Series {
    /// Empty for the node itself.
    uid: String,
    is_warning: bool,
}

impl ParsedEvent {
    /// With which others it shares its rate.
    pub(crate) fn series(&self) -> Series {
        let uid = match &self.involved_object {
            InvolvedObject::Pod(pod) => pod.uid.as_str(),
            InvolvedObject::Node => "",
            InvolvedObject::Device { uid, .. } => uid.as_str(),
        };
        Series { uid: uid.to_owned(), is_warning: self.is_warning }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn take(rates: &mut EventRates, series: &Series, now: Moment) -> bool {
        let has_room = rates.has_room(series, now);
        if has_room {
            rates.charge(series, now);
        }
        has_room
    }

    fn node() -> NodeName {
        NodeName::parse("edge-1").unwrap()
    }

    fn namespace(name: &str) -> Namespace {
        Namespace::parse(name).unwrap()
    }

    fn said() -> Value {
        json!({
            "metadata": { "name": "x", "labels": { "a": "b" }, "finalizers": ["f/g"] },
            "involvedObject": {
                "kind": "Pod", "namespace": "shop", "name": "till", "uid": "u1",
                "apiVersion": "evil/v1", "fieldPath": "spec.containers{c}", "resourceVersion": "9",
            },
            "type": "Warning", "reason": "BackOff", "message": "é".repeat(1000), "count": 3,
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "nonsense",
            "related": { "kind": "Node", "name": "control-plane" }, "action": "a", "reportingInstance": "other",
        })
    }

    #[test]
    fn an_event_is_built_of_what_was_understood() {
        let draft = parse(&node(), &namespace("shop"), &said().to_string()).unwrap();
        let name = ObjectName::parse("till.1").unwrap();
        let event = serde_json::to_value(event(draft, &node(), (&namespace("shop"), &name), None)).unwrap();
        let expected = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": { "namespace": "shop", "name": "till.1" },
            "involvedObject": { "apiVersion": "v1", "kind": "Pod", "namespace": "shop", "name": "till", "uid": "u1",
                "fieldPath": "spec.containers{c}" },
            "type": "Warning", "reason": "BackOff", "message": "é".repeat(512), "count": 3,
            "firstTimestamp": "2026-01-01T00:00:00Z",
            "source": { "component": "kubelet", "host": "edge-1" },
            "reportingComponent": "kubelet", "reportingInstance": "edge-1",
        });
        assert_eq!(event, expected);
    }

    #[test]
    fn a_part_of_a_pod_is_a_container_or_none() {
        for (path, fits) in [
            ("spec.initContainers{web-1}", true),
            ("spec.ephemeralContainers{debugger-abcde}", true),
            ("spec.containers{}", false),
            ("spec.containers{A}", false),
            ("spec.volumes{v}", false),
            ("spec.containers{c", false),
        ] {
            assert_eq!(is_field_path(path), fits, "{path}");
        }
        assert!(!is_field_path(&format!("spec.containers{{{}}}", "c".repeat(200))));
    }

    #[test]
    fn a_series_is_counted_on_and_a_repeat_is_not() {
        let told = |count: i32, last: &str| {
            let mut said = said();
            said["count"] = json!(count);
            said["lastTimestamp"] = json!(last);
            let draft = parse(&node(), &namespace("shop"), &said.to_string()).unwrap();
            event(draft, &node(), (&namespace("shop"), &ObjectName::parse("till.1").unwrap()), None)
        };
        let held = told(3, "2026-01-01T00:00:10Z");
        let of =
            |told: &Event| continuation(&held, told).map(|patch| patch.map(|patch| patch["count"].clone()));
        assert_eq!(of(&told(3, "2026-01-01T00:00:10Z")), Ok(None), "the same again");
        assert_eq!(of(&told(2, "2026-01-01T00:00:05Z")), Ok(None), "late");
        assert_eq!(of(&told(5, "2026-01-01T00:00:20Z")), Ok(Some(json!(5))));
        assert_eq!(of(&told(1, "2026-01-01T00:01:00Z")), Ok(Some(json!(4))), "after a restart of the node");
        for change in [
            |event: &mut Event| event.source.as_mut().unwrap().host = Some("edge-2".to_owned()),
            |event: &mut Event| event.involved_object.uid = Some("u2".to_owned()),
            |event: &mut Event| event.involved_object.field_path = None,
            |event: &mut Event| event.reason = Some("Killing".to_owned()),
        ] {
            let mut other = told(5, "2026-01-01T00:00:20Z");
            change(&mut other);
            assert!(of(&other).is_err(), "{other:?}");
        }
    }

    #[test]
    fn an_event_about_anything_else_is_none() {
        let involved_object = |kind: &str, space: &str, name: &str| {
            let mut said = said();
            said["involvedObject"] = json!({ "kind": kind, "namespace": space, "name": name, "uid": "u" });
            said.to_string()
        };
        let read = |space: &str, text: &str| {
            parse(&node(), &namespace(space), text).map(|draft| draft.involved_object)
        };
        assert!(matches!(read("shop", &involved_object("Pod", "shop", "till")), Ok(InvolvedObject::Pod(_))));
        assert_eq!(read("default", &involved_object("Node", "", "edge-1")), Ok(InvolvedObject::Node));
        for (space, text) in [
            ("shop", involved_object("Pod", "kube-system", "till")),
            ("shop", involved_object("Pod", "shop", "../till")),
            ("shop", involved_object("Secret", "shop", "till")),
            ("default", involved_object("Node", "", "control-plane")),
            ("shop", involved_object("Node", "", "edge-1")),
            ("shop", "[]".to_owned()),
            ("shop", "{".to_owned()),
        ] {
            assert!(read(space, &text).is_err(), "{text}");
        }
        for (field, value) in [("type", "Grave"), ("reason", ""), ("reason", "a\nb")] {
            let mut said = said();
            said[field] = json!(value);
            assert!(read("shop", &said.to_string()).is_err(), "{field} {value:?}");
        }
    }

    #[test]
    fn an_event_about_a_device_names_it_and_nothing_else() {
        let mut said = said();
        said["involvedObject"] = json!({ "kind": "Device", "apiVersion": "evil/v1", "namespace": "shop", "name": "gantry",
            "uid": "u9", "fieldPath": "spec.containers{c}" });
        let draft = parse(&node(), &namespace("shop"), &said.to_string()).unwrap();
        assert_eq!(draft.series().uid, "u9");
        let name = ObjectName::parse("gantry.1").unwrap();
        let event = serde_json::to_value(event(draft, &node(), (&namespace("shop"), &name), None)).unwrap();
        let expected = json!({ "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "namespace": "shop",
            "name": "gantry", "uid": "u9" });
        assert_eq!(event["involvedObject"], expected);
        for (field, odd) in [("namespace", "kube-system"), ("name", "../gantry"), ("uid", "")] {
            let mut other = said.clone();
            other["involvedObject"][field] = json!(odd);
            assert!(parse(&node(), &namespace("shop"), &other.to_string()).is_err(), "{field}");
        }
    }

    fn series(n: usize, is_warning: bool) -> Series {
        Series { uid: format!("u{n}"), is_warning }
    }

    #[test]
    fn a_flood_ends_and_an_hour_has_its_bound() {
        let at = |seconds: u64| Moment(Duration::from_secs(seconds));
        let mut rates = EventRates::default();
        assert_eq!((0..10_000).filter(|_| take(&mut rates, &series(0, false), at(0))).count(), 25);
        assert!(take(&mut rates, &series(0, true), at(0)), "what is usual costs no warning");
        let mut rates = EventRates::default();
        let taken = |rates: &mut EventRates, second| {
            (0..10_000).filter(|n| take(rates, &series(n % 5000, true), at(second))).count()
        };
        assert_eq!(taken(&mut rates, 0), 500, "whatever they are about");
        assert!(rates.objects.len() <= OBJECTS_MAX);
        let hour: usize = (1..=3600).step_by(60).map(|second| taken(&mut rates, second)).sum();
        assert!(hour <= 3600, "{hour}");
    }
}
