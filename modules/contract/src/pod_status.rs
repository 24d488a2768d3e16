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

/// Whether a pod in this phase has ended for good: no container of it ever starts again, and no other phase follows
/// (Kubernetes: pod lifecycle).
pub fn is_terminal(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

/// What [`REPORTED_ANNOTATION`](crate::ids::REPORTED_ANNOTATION) says of the end of a pod: the terminal phase that its node reported. It stands behind the
/// mark, `EPOCH.ROW/UID/PHASE`, so that a terminal phase that somebody else wrote is told from one that the node knows.
/// `None` when the node reported none, or the mark is of another object.
pub fn reported_end<'a>(mark: &'a str, uid: &str) -> Option<&'a str> {
    let (_, rest) = mark.split_once('/')?;
    let (of, phase) = rest.split_once('/')?;
    (of == uid && is_terminal(phase)).then_some(phase)
}

/// The terminal phase that the node is to be known for after its report `said` was written over a pod which is in phase
/// `held` under the mark `before`: a phase that somebody else wrote stays theirs, also when the node repeats it.
pub fn end_to_note<'a>(held: &str, before: Option<&'a str>, uid: &str, said: &'a str) -> Option<&'a str> {
    let before = before.and_then(|mark| reported_end(mark, uid));
    if is_terminal(held) { before } else { Some(said).filter(|said| is_terminal(said)) }
}

/// The text of [`REPORTED_ANNOTATION`](crate::ids::REPORTED_ANNOTATION) with the end that the node reported, if it did.
pub fn mark_with_end(mark: &str, end: Option<&str>) -> String {
    match end {
        Some(end) => format!("{mark}/{end}"),
        None => mark.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_the_node_reported_is_told_from_one_that_others_wrote() {
        assert_eq!(reported_end("3.4/u/Succeeded", "u"), Some("Succeeded"));
        for mark in ["3.4/u", "3.4/v/Succeeded", "3.4/u/Running", "3.4", ""] {
            assert_eq!(reported_end(mark, "u"), None, "{mark}");
        }
        assert_eq!(end_to_note("Running", None, "u", "Failed"), Some("Failed"), "the node was first");
        assert_eq!(end_to_note("Running", Some("3.4/u"), "u", "Running"), None);
        assert_eq!(end_to_note("Failed", Some("3.4/u"), "u", "Failed"), None, "others were first");
        assert_eq!(end_to_note("Failed", Some("3.4/u/Failed"), "u", "Failed"), Some("Failed"), "a repeat");
        assert_eq!(mark_with_end("3.4/u", Some("Failed")), "3.4/u/Failed");
        assert_eq!(mark_with_end("3.4/u", None), "3.4/u");
    }
}
