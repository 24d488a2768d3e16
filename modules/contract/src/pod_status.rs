//! Who writes what of the status of a pod or a Node: the node, or somebody in the cloud.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// The types of conditions that a node reports of its pods, and nobody else: Kubernetes' own that a kubelet writes, and
/// ours. All others belong to controllers (readiness gates, `DisruptionTarget`).
pub const POD_CONDITIONS: [&str; 10] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    RESIZE_PENDING,
    RESIZE_IN_PROGRESS,
    ALL_RESTARTING,
    FIELDS_NOT_HONOURED,
    HELD_UPGRADE,
];

/// Those of them that are there only while they hold: one that a node does not report is over.
pub const PASSING_CONDITIONS: [&str; 3] = [RESIZE_PENDING, RESIZE_IN_PROGRESS, HELD_UPGRADE];

/// Why a pod was ended before its time (Kubernetes). Controllers write it, too: a node only with [`BY_KUBELET`].
pub const DISRUPTION_TARGET: &str = "DisruptionTarget";
/// The reason of that condition where the node ended the pod.
pub const BY_KUBELET: &str = "TerminationByKubelet";

/// The pod is held until somebody on the node releases it (KubeEdge).
pub const HELD_UPGRADE: &str = "HeldUpgrade";
/// The reason of that condition.
pub const HELD_BY_ANNOTATION: &str = "HoldUpgradeEnabled";

/// A resize of the pod waits (Kubernetes).
pub const RESIZE_PENDING: &str = "PodResizePending";
/// A resize of the pod is being done (Kubernetes).
pub const RESIZE_IN_PROGRESS: &str = "PodResizeInProgress";
/// All containers of the pod are being restarted (Kubernetes).
pub const ALL_RESTARTING: &str = "AllContainersRestarting";

/// Whether devices and applications of the node have their MQTT broker, see [`crate::eventbus::BrokerReport`].
pub const MQTT_BROKER: &str = "kubehive.io/MqttBroker";

/// Whether the checks of the node's machine pass that stop pods, or the node: the reason is the gravest one's name, the message its cure.
pub const CHECKS: &str = "kubehive.io/Checks";

/// The types of conditions that a node reports of itself: a kubelet's, [`MQTT_BROKER`] and [`CHECKS`]. `NetworkUnavailable` and
/// `kubehive.io/Synced` are others' to say.
pub const NODE_CONDITIONS: [&str; 6] =
    ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure", MQTT_BROKER, CHECKS];

/// The condition that names the fields of a pod that have no effect on its node.
pub const FIELDS_NOT_HONOURED: &str = "kubehive.io/FieldsNotHonoured";

/// 4 KiB of what one container left behind as its termination message (kubelet: `MaxContainerTerminationMessageLength`).
pub const TERMINATION_MESSAGE_MAX: usize = 4 << 10;
/// 12 KiB of those of a pod: each of its containers has an equal share (kubelet: `MaxPodTerminationMessageLogLength`).
pub const TERMINATION_MESSAGES_MAX: usize = 12 << 10;

/// How much of a container's termination message a pod's status holds, of so many containers.
pub fn termination_message_max(containers: usize) -> usize {
    TERMINATION_MESSAGE_MAX.min(TERMINATION_MESSAGES_MAX / containers.max(1))
}

/// Whether a pod in this phase has ended for good: no container of it ever starts again, and no other phase follows
/// (Kubernetes: pod lifecycle).
pub fn is_terminal(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

/// What [`REPORTED_ANNOTATION`](crate::ids::REPORTED_ANNOTATION) holds of a pod behind the report's version and the pod's uid:
/// `EPOCH.ROW/UID/FINGERPRINT`, and `/PHASE` when the node reported that the pod has ended. `None` when it is of another object.
fn behind_uid<'a>(annotation: &'a str, uid: &str) -> Option<(&'a str, Option<&'a str>)> {
    let (_, rest) = annotation.split_once('/')?;
    let (of, rest) = rest.split_once('/')?;
    let (fingerprint, phase) =
        rest.split_once('/').map_or((rest, None), |(fingerprint, phase)| (fingerprint, Some(phase)));
    (of == uid).then_some((fingerprint, phase))
}

/// The terminal phase that the pod's node reported. So a terminal phase that somebody else wrote is told from one that the
/// node knows. `None` when the node reported none, or the annotation is of another object.
pub fn reported_terminal_phase<'a>(annotation: &'a str, uid: &str) -> Option<&'a str> {
    behind_uid(annotation, uid)?.1.filter(|phase| is_terminal(phase))
}

/// The [`fingerprint`] of the status that was written with the node's last report.
pub fn reported_fingerprint<'a>(annotation: &'a str, uid: &str) -> Option<&'a str> {
    Some(behind_uid(annotation, uid)?.0)
}

/// Of a pod's status what is the node's to say and what others decide by, in 16 hexadecimal digits: its phase, its address,
/// what its conditions of [`POD_CONDITIONS`] say, and of its containers whether they are ready and how often they were
/// restarted. It tells when somebody else has written there: what was written with the node's report had another one.
pub fn fingerprint(status: &Value) -> String {
    let list = |name: &str| status[name].as_array().into_iter().flatten();
    let mut conditions: Vec<String> = list("conditions")
        .filter(|one| one["type"].as_str().is_some_and(|kind| POD_CONDITIONS.contains(&kind)))
        .map(|one| format!("{} {}", one["type"], one["status"]))
        .collect();
    let mut containers: Vec<String> = list("containerStatuses")
        .map(|one| {
            let restarts = one["restartCount"].as_u64().unwrap_or_default();
            format!("{} {} {restarts}", one["name"], one["ready"].as_bool().unwrap_or_default())
        })
        .collect();
    conditions.sort();
    containers.sort();
    let of = [status["phase"].as_str(), status["podIP"].as_str()].map(Option::unwrap_or_default);
    let text = [of.join(" "), conditions.join(" "), containers.join(" ")].join("\n");
    let mut hash = Sha256::digest(text.as_bytes()).to_vec();
    hash.truncate(8);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The terminal phase that the node is to be known for after its report `said` was written over a pod which is in phase
/// `held` under the annotation `before`: a phase that somebody else wrote stays theirs, also when the node repeats it.
pub fn phase_to_record<'a>(held: &str, before: Option<&'a str>, uid: &str, said: &'a str) -> Option<&'a str> {
    let before = before.and_then(|annotation| reported_terminal_phase(annotation, uid));
    if is_terminal(held) { before } else { Some(said).filter(|said| is_terminal(said)) }
}

/// The text of [`REPORTED_ANNOTATION`](crate::ids::REPORTED_ANNOTATION) of a pod: the report's version and the pod's uid, the
/// [`fingerprint`] of the status that is written with it, and the end that the node reported, if it did.
pub fn annotation(of_object: &str, fingerprint: &str, end: Option<&str>) -> String {
    match end {
        Some(end) => format!("{of_object}/{fingerprint}/{end}"),
        None => format!("{of_object}/{fingerprint}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_terminal_phase_of_the_node_is_told_from_one_that_others_wrote() {
        assert_eq!(reported_terminal_phase("3.4/u/f/Succeeded", "u"), Some("Succeeded"));
        for annotation in ["3.4/u", "3.4/u/f", "3.4/v/f/Succeeded", "3.4/u/f/Running", "3.4", ""] {
            assert_eq!(reported_terminal_phase(annotation, "u"), None, "{annotation}");
        }
        assert_eq!(phase_to_record("Running", None, "u", "Failed"), Some("Failed"), "the node was first");
        assert_eq!(phase_to_record("Running", Some("3.4/u/f"), "u", "Running"), None);
        assert_eq!(phase_to_record("Failed", Some("3.4/u/f"), "u", "Failed"), None, "others were first");
        assert_eq!(
            phase_to_record("Failed", Some("3.4/u/f/Failed"), "u", "Failed"),
            Some("Failed"),
            "a repeat"
        );
        for end in [None, Some("Failed")] {
            let text = annotation("3.4/u", "f", end);
            assert_eq!(
                (reported_fingerprint(&text, "u"), reported_terminal_phase(&text, "u")),
                (Some("f"), end)
            );
            assert_eq!(reported_fingerprint(&text, "v"), None);
        }
    }

    #[test]
    fn a_fingerprint_moves_with_what_is_the_nodes_to_say_and_with_nothing_else() {
        let status = json!({
            "phase": "Running", "podIP": "10.0.0.2", "startTime": "2026-11-28T07:00:00Z",
            "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-28T07:00:00Z"},
                {"type": "ContainersReady", "status": "True"},
            ],
            "containerStatuses": [{"name": "a", "ready": true, "restartCount": 1}, {"name": "b"}],
        });
        let moves = |pointer: &str, to: Value| {
            let mut other = status.clone();
            *other.pointer_mut(pointer).unwrap() = to;
            fingerprint(&other) != fingerprint(&status)
        };
        assert!(moves("/phase", json!("Pending")) && moves("/podIP", json!("1.2.3.4")));
        assert!(moves("/conditions/0/status", json!("False")) && moves("/conditions", json!([])));
        assert!(moves("/containerStatuses/0/ready", json!(false)));
        assert!(moves("/containerStatuses/1", json!({"name": "b", "restartCount": 1})));
        assert!(!moves("/startTime", json!("2026-11-28T08:00:00Z")));
        assert!(!moves("/conditions/0/lastTransitionTime", json!("2026-11-28T08:00:00Z")));
        let mut more = status.clone();
        let conditions = more["conditions"].as_array_mut().unwrap();
        conditions.reverse();
        conditions.push(json!({"type": "example.com/gate", "status": "True"}));
        assert_eq!(fingerprint(&more), fingerprint(&status));
        assert_eq!(fingerprint(&json!(null)).len(), 16);
    }
}
