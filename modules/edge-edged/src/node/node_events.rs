//! What a kubelet tells of its node when its state changes, as events about it (`pkg/kubelet/nodestatus`, `kubelet_node_status.go`).
//! Pure.

use edge_store::Opened;
use serde_json::Value;

use crate::pod::recorder::EventType;

/// An event about the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeEvent {
    pub(crate) kind: EventType,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// The conditions of what the node may be short of: the reasons when it is, and when it is not.
const PRESSURES: [(&str, &str, &str); 3] = [
    ("MemoryPressure", "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
    ("DiskPressure", "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
    ("PIDPressure", "NodeHasInsufficientPID", "NodeHasSufficientPID"),
];

/// What a report tells beside the one before. `is_first`: this run has reported nothing yet; `before` is then what was reported
/// before it, as far as that is known.
pub(crate) fn of_report(
    name: &str,
    before: Option<&Value>,
    report: &Value,
    is_first: bool,
) -> Vec<NodeEvent> {
    let mut told = Vec::new();
    let is_now = |reason: &'static str| NodeEvent {
        kind: EventType::Normal,
        reason,
        message: format!("Node {name} status is now: {reason}"),
    };
    if is_first {
        let message = "Starting kubelet.".to_owned();
        told.push(NodeEvent { kind: EventType::Normal, reason: "Starting", message });
    }
    let boot =
        |node: &Value| node.pointer("/status/nodeInfo/bootID").and_then(Value::as_str).map(str::to_owned);
    let (old, new) = (before.and_then(boot).unwrap_or_default(), boot(report).unwrap_or_default());
    if !old.is_empty() && !new.is_empty() && old != new {
        let message = format!("Node {name} has been rebooted, boot id: {new}");
        told.push(NodeEvent { kind: EventType::Warning, reason: "Rebooted", message });
    }
    for (kind, pressed, free) in PRESSURES {
        let status = condition(report, kind);
        if status.is_some() && (is_first || before.and_then(|before| condition(before, kind)) != status) {
            told.push(is_now(if status == Some("True") { pressed } else { free }));
        }
    }
    let was_ready = before.and_then(|before| condition(before, "Ready")) == Some("True");
    match condition(report, "Ready") {
        Some("True") if !was_ready => told.push(is_now("NodeReady")),
        Some(status) if status != "True" && was_ready => told.push(is_now("NodeNotReady")),
        Some(_) | None => {}
    }
    told
}

/// What is told of a machine where no cgroups are mounted: nothing else names it before pods fail one by one, by the runtime's words.
pub(crate) fn no_cgroups(root: &str) -> NodeEvent {
    let message = format!(
        "no cgroups are mounted at {root}, and runtimes start no container without: mount them (`mount -t cgroup2 none {root}`), or run the \
         runtime and edgecore where they are (`ip netns exec` hides them)"
    );
    NodeEvent { kind: EventType::Warning, reason: "NoCgroups", message }
}

/// What is told of how the node's store was found, if not well: who looks after nodes does not read each one's log. Ours alone, a kubelet
/// has no store. `put_back`: the words of the run before about files that were taken away from it.
pub(crate) fn of_store(opened: &Opened, put_back: Option<&str>) -> Vec<NodeEvent> {
    let of = |reason: &'static str, message: String| NodeEvent { kind: EventType::Warning, reason, message };
    let found = match opened {
        Opened::Clean | Opened::Fresh => None,
        Opened::Emptied => Some(of(
            "StoreEmptied",
            "the node's store was empty or gone, though it had one: what waited in it for the cloud is lost, and the rest comes from there \
             again"
                .to_owned(),
        )),
        Opened::Quarantined { path, salvaged, lost, uncounted } => {
            let more = if uncounted.is_empty() { String::new() } else { format!(", and more in: {}", uncounted.join(", ")) };
            Some(of(
                "StoreQuarantined",
                format!(
                    "the node's store was broken and is set aside as {}: {salvaged} of its rows were carried over, {lost} are lost{more}",
                    path.display()
                ),
            ))
        }
    };
    found.into_iter().chain(put_back.map(|words| of("StorePutBack", words.to_owned()))).collect()
}

/// What is told when pods may not be scheduled to the node any more, or may again.
pub(crate) fn of_cordon(name: &str, is_cordoned: bool) -> NodeEvent {
    let reason = if is_cordoned { "NodeNotSchedulable" } else { "NodeSchedulable" };
    NodeEvent { kind: EventType::Normal, reason, message: format!("Node {name} status is now: {reason}") }
}

fn condition<'a>(node: &'a Value, kind: &str) -> Option<&'a str> {
    let list = node.pointer("/status/conditions")?.as_array()?;
    list.iter().find(|own| own["type"] == kind)?["status"].as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(boot: &str, memory: &str, ready: &str) -> Value {
        let of = |kind: &str, status: &str| json!({"type": kind, "status": status});
        json!({"status": {"nodeInfo": {"bootID": boot}, "conditions": [of("MemoryPressure", memory),
            of("DiskPressure", "False"), of("PIDPressure", "False"), of("Ready", ready)]}})
    }

    fn reasons(before: Option<&Value>, now: &Value, is_first: bool) -> Vec<&'static str> {
        of_report("edge-1", before, now, is_first).into_iter().map(|event| event.reason).collect()
    }

    #[test]
    fn a_start_tells_how_the_node_is_and_later_only_changes_are_told() {
        let calm = report("b1", "False", "True");
        let fresh = reasons(None, &calm, true);
        let usual = ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID"];
        assert_eq!(fresh, [&["Starting"], &usual[..], &["NodeReady"]].concat());
        assert_eq!(reasons(Some(&calm), &calm, true), [&["Starting"], &usual[..]].concat());
        assert!(reasons(Some(&calm), &calm, false).is_empty());
        let pressed = report("b1", "True", "False");
        assert_eq!(reasons(Some(&calm), &pressed, false), ["NodeHasInsufficientMemory", "NodeNotReady"]);
        assert_eq!(reasons(Some(&pressed), &calm, false), ["NodeHasSufficientMemory", "NodeReady"]);
        let told = of_report("edge-1", Some(&pressed), &calm, false);
        assert_eq!(told[1].message, "Node edge-1 status is now: NodeReady");
    }

    #[test]
    fn another_boot_is_told() {
        let (before, after) = (report("b1", "False", "True"), report("b2", "False", "True"));
        let told = of_report("edge-1", Some(&before), &after, true);
        assert_eq!((told[1].kind, told[1].reason), (EventType::Warning, "Rebooted"));
        assert_eq!(told[1].message, "Node edge-1 has been rebooted, boot id: b2");
        assert!(!reasons(Some(&json!({"status": {}})), &after, true).contains(&"Rebooted"));
    }

    #[test]
    fn a_store_that_was_not_found_well_is_told_of_the_node() {
        let said = |opened: &Opened, put_back| {
            let told = of_store(opened, put_back);
            told.into_iter().map(|event| (event.reason, event.message)).collect::<Vec<_>>()
        };
        assert_eq!((said(&Opened::Clean, None), said(&Opened::Fresh, None)), (vec![], vec![]));
        assert_eq!(said(&Opened::Clean, Some("words")), [("StorePutBack", "words".to_owned())]);
        assert_eq!(said(&Opened::Emptied, None)[0].0, "StoreEmptied");
        let path = "/s/edgecore.db.broken-2".into();
        let broken = Opened::Quarantined { path, salvaged: 7, lost: 2, uncounted: vec!["log"] };
        let words = "the node's store was broken and is set aside as /s/edgecore.db.broken-2: 7 of its rows were carried over, 2 are \
                     lost, and more in: log";
        assert_eq!(said(&broken, None), [("StoreQuarantined", words.to_owned())]);
    }
}
