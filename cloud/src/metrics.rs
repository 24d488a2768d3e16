//! `/metrics`, in Prometheus' text format, from a hive's report.
//!
//! A counter of an event becomes `kubehive_EVENT_total`; gauges have the names that they were measured by.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use beehive::{ActorReport, HiveReport, Sample};

/// What the series say that are for people outside this repository.
const HELP: [(&str, &str); 27] = [
    ("KubeEdge_CloudCore_connected_nodes", "Number of nodes that connected to the cloudHub instance"),
    ("kubehive_node_linked", "Whether this CloudCore has a session with the node"),
    ("kubehive_node_in_sync", "Whether the node has confirmed all that it should hold"),
    ("kubehive_node_objects_desired", "Objects that the node should hold"),
    ("kubehive_node_objects_waiting", "Objects that the node has not confirmed"),
    ("kubehive_node_oldest_waiting_seconds", "How long the object that waits longest has waited"),
    ("kubehive_node_last_confirmed_timestamp_seconds", "When the node last confirmed anything, since 1970"),
    ("kubehive_node_refused_batches_total", "Batches that the node refused"),
    ("kubehive_node_link_received_bytes_total", "Bytes of frames from the node in this session"),
    ("kubehive_node_link_sent_bytes_total", "Bytes of frames to the node in this session"),
    (
        "kubehive_node_telemetry_received_total",
        "Messages of MQTT clients of the node that arrived, each counted once",
    ),
    ("kubehive_check_failed", "Whether a named check has failed: /healthz says what cures it"),
    ("kubehive_node_kubelet_calls", "Calls of the node's kubelet endpoint that are open"),
    ("kubehive_node_telemetry_repeats_total", "Messages of MQTT clients of the node that arrived again"),
    ("kubehive_node_telemetry_missing_total", "Messages of QoS 0 that the node had no room for"),
    ("kubehive_node_telemetry_refused_total", "Messages that CloudCore had no room to count"),
    ("kubehive_actor_handled_total", "Messages that an actor, or all children of a kind, have handled"),
    (
        "kubehive_actor_refused_total",
        "Messages that found the mailbox of an actor, or of children of a kind, full",
    ),
    ("kubehive_actor_restarts_total", "Restarts of an actor, or of all children of a kind, after a fault"),
    ("kubehive_actor_queued", "Messages that wait in the mailbox of an actor, or of all children of a kind"),
    ("kubehive_nodelease_sessions", "Nodes that have a session with this CloudCore, linked or not"),
    (
        "kubehive_router_peers_unreached",
        "CloudCores that were not reached when a rule's call was last passed on to them",
    ),
    ("kubehive_watch_broken", "Whether the watch of a resource has broken off and has not listed again"),
    ("kubehive_nodelease_linked", "Nodes with a session whose link is up"),
    (
        "kubehive_apiserver_controller_backing_off",
        "Objects of which a controller waits before it tries again",
    ),
    ("kubehive_apiserver_controller_pass_seconds", "How long the last pass of a controller took"),
    ("kubehive_apiserver_informer_objects", "Objects that an informer holds"),
];

/// One value of an actor, or of all children of a kind together: children come and go, and their names are others' choice.
type OfActor = (&'static str, fn(&ActorReport) -> u64);

const OF_ACTORS: [OfActor; 4] = [
    ("kubehive_actor_handled_total", |actor| actor.handled),
    ("kubehive_actor_refused_total", |actor| actor.refused),
    ("kubehive_actor_restarts_total", |actor| actor.restarts),
    ("kubehive_actor_queued", |actor| actor.queued as u64),
];

/// The page.
pub(crate) fn text(report: &HiveReport) -> String {
    let mut series: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for Sample { name, labels, value } in &report.gauges {
        let labels = labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value)));
        let labels: Vec<String> = labels.collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        series.entry((*name).to_owned()).or_default().push(format!("{labels} {value}"));
    }
    for (event, count) in &report.counters {
        series.entry(format!("kubehive_{event}_total")).or_default().push(format!(" {count}"));
    }
    for (name, of) in OF_ACTORS {
        let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
        for actor in &report.actors {
            *kinds.entry(actor.kind).or_default() += of(actor);
        }
        let lines = kinds.into_iter().map(|(kind, count)| format!("{{actor=\"{}\"}} {count}", escaped(kind)));
        series.insert(name.to_owned(), lines.collect());
    }
    let mut text = String::new();
    for (name, lines) in series {
        let _ = writeln!(text, "# HELP {name} {}", help(&name));
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        let _ = writeln!(text, "# TYPE {name} {kind}");
        for line in lines {
            let _ = writeln!(text, "{name}{line}");
        }
    }
    text
}

/// What a series means: in words of its own where it has some, else by the event that is counted.
fn help(name: &str) -> String {
    if let Some((_, help)) = HELP.iter().find(|(of, _)| *of == name) {
        return (*help).to_owned();
    }
    match name.strip_prefix("kubehive_").and_then(|name| name.strip_suffix("_total")) {
        Some(event) => format!("How often the event {event} was counted since CloudCore began"),
        None => format!("The value that CloudCore measures as {name}"),
    }
}

/// A label's value as Prometheus reads it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use beehive::ActorState;

    fn actor(name: &str, kind: &'static str, restarts: u64) -> ActorReport {
        ActorReport {
            name: name.to_owned(),
            kind,
            instance: None,
            parent: None,
            state: ActorState::Running,
            queued: 1,
            capacity: 4,
            handled: 5,
            refused: 0,
            restarts,
            busy_with: None,
            busy_ms: None,
            last_fault: None,
            snapshot: serde_json::Value::Null,
        }
    }

    #[test]
    fn counters_gauges_and_actors_have_their_lines_and_children_share_those_of_their_kind() {
        let report = HiveReport {
            daemon: "cloudcore",
            actors: vec![
                actor("hub", "hub", 2),
                actor("hub/session:a/1", "session", 0),
                actor("hub/session:b/2", "session", 1),
            ],
            counters: BTreeMap::from([("cloudhub_sessions_opened", 7)]),
            gauges: vec![
                Sample::new("kubehive_node_linked", 1.0).of("node", "b"),
                Sample::new("KubeEdge_CloudCore_connected_nodes", 2.0),
                Sample::new("kubehive_node_linked", 0.0).of("node", "a\"\n").of("more", "c\\d"),
                Sample::new("kubehive_node_link_sent_bytes_total", 3_000_000_000.0).of("node", "b"),
            ],
        };
        let text = text(&report);
        for line in [
            "# HELP KubeEdge_CloudCore_connected_nodes Number of nodes that connected to the cloudHub instance",
            "# TYPE KubeEdge_CloudCore_connected_nodes gauge",
            "KubeEdge_CloudCore_connected_nodes 2",
            "# HELP kubehive_cloudhub_sessions_opened_total How often the event cloudhub_sessions_opened was counted \
             since CloudCore began",
            "# TYPE kubehive_cloudhub_sessions_opened_total counter",
            "kubehive_cloudhub_sessions_opened_total 7",
            "kubehive_node_linked{node=\"b\"} 1",
            "kubehive_node_linked{node=\"a\\\"\\n\",more=\"c\\\\d\"} 0",
            "# TYPE kubehive_node_link_sent_bytes_total counter",
            "kubehive_node_link_sent_bytes_total{node=\"b\"} 3000000000",
            "kubehive_actor_restarts_total{actor=\"hub\"} 2",
            "kubehive_actor_restarts_total{actor=\"session\"} 1",
            "kubehive_actor_handled_total{actor=\"session\"} 10",
        ] {
            assert_eq!(text.lines().filter(|shown| *shown == line).count(), 1, "{line}\n{text}");
        }
        let series = |kind: &str| text.lines().filter(|line| line.starts_with(kind)).count();
        assert_eq!(series("# HELP "), series("# TYPE "), "each series says what it means");
        let types = text.lines().filter(|line| line.starts_with("# TYPE kubehive_node_linked ")).count();
        assert_eq!(types, 1, "a series has its lines together");
    }
}
