//! Who writes what of a pod's status: its node, or somebody in the cloud.

/// The types of conditions that a node reports of its pods, and nobody else: Kubernetes' own that a kubelet writes, and
/// ours. All others belong to controllers (readiness gates, `DisruptionTarget`).
pub const POD_CONDITIONS: [&str; 6] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    FIELDS_NOT_HONOURED,
];

/// The condition that names the fields of a pod that have no effect on its node.
pub const FIELDS_NOT_HONOURED: &str = "kubehive.io/FieldsNotHonoured";

/// The reason of the condition Ready of a pod whose containers are ready and of whose readiness gates one is not (kubelet:
/// `ReadinessGatesNotReady`).
pub const READINESS_GATES_NOT_READY: &str = "ReadinessGatesNotReady";

/// Whether a pod in this phase has ended for good: no container of it ever starts again, and no other phase follows
/// (Kubernetes: pod lifecycle).
pub fn is_terminal(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

/// The terminal phase that the pod's node reported, as [`REPORTED_ANNOTATION`](crate::ids::REPORTED_ANNOTATION) holds it
/// behind the report's version: `EPOCH.ROW/UID/PHASE`. So a terminal phase that somebody else wrote is told from one that the
/// node knows. `None` when the node reported none, or the annotation is of another object.
pub fn reported_terminal_phase<'a>(annotation: &'a str, uid: &str) -> Option<&'a str> {
    let (_, rest) = annotation.split_once('/')?;
    let (of, phase) = rest.split_once('/')?;
    (of == uid && is_terminal(phase)).then_some(phase)
}

/// The terminal phase that the node is to be known for after its report `said` was written over a pod which is in phase
/// `held` under the annotation `before`: a phase that somebody else wrote stays theirs, also when the node repeats it.
pub fn phase_to_record<'a>(held: &str, before: Option<&'a str>, uid: &str, said: &'a str) -> Option<&'a str> {
    let before = before.and_then(|annotation| reported_terminal_phase(annotation, uid));
    if is_terminal(held) { before } else { Some(said).filter(|said| is_terminal(said)) }
}

/// The text of [`REPORTED_ANNOTATION`](crate::ids::REPORTED_ANNOTATION) with the end that the node reported, if it did.
pub fn annotation_with_phase(annotation: &str, end: Option<&str>) -> String {
    match end {
        Some(end) => format!("{annotation}/{end}"),
        None => annotation.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_phase_of_the_node_is_told_from_one_that_others_wrote() {
        assert_eq!(reported_terminal_phase("3.4/u/Succeeded", "u"), Some("Succeeded"));
        for annotation in ["3.4/u", "3.4/v/Succeeded", "3.4/u/Running", "3.4", ""] {
            assert_eq!(reported_terminal_phase(annotation, "u"), None, "{annotation}");
        }
        assert_eq!(phase_to_record("Running", None, "u", "Failed"), Some("Failed"), "the node was first");
        assert_eq!(phase_to_record("Running", Some("3.4/u"), "u", "Running"), None);
        assert_eq!(phase_to_record("Failed", Some("3.4/u"), "u", "Failed"), None, "others were first");
        assert_eq!(
            phase_to_record("Failed", Some("3.4/u/Failed"), "u", "Failed"),
            Some("Failed"),
            "a repeat"
        );
        assert_eq!(annotation_with_phase("3.4/u", Some("Failed")), "3.4/u/Failed");
        assert_eq!(annotation_with_phase("3.4/u", None), "3.4/u");
    }
}
