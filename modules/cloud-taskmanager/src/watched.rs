//! The kinds of jobs, as the API server has them.

use contract::node_task::TaskKind;
use kubewatch::WatchedKind;
use serde_json::{Value, json};

use crate::job::JobStatus;

/// How jobs of a kind are watched, where jobs have an effect: of one that is over nothing is kept but that.
pub(crate) fn watched(kind: TaskKind) -> WatchedKind {
    let plural = match kind {
        TaskKind::NodeUpgrade => "nodeupgradejobs",
        TaskKind::ImagePrePull => "imageprepulljobs",
        TaskKind::ConfigUpdate => "configupdatejobs",
    };
    WatchedKind {
        group_resource: kind.resource(),
        group: crd::OPERATIONS_GROUP,
        version: crd::OPERATIONS_VERSION,
        ..WatchedKind::core(plural, kind.word()).keeping(rest_of_ended)
    }
}

/// The same where they have none: of each nothing is kept but what has been said of it.
pub(crate) fn watched_without_effect(kind: TaskKind) -> WatchedKind {
    watched(kind).keeping(said)
}

fn rest_of_ended(job: &Value) -> Option<Value> {
    JobStatus::of(job).is_ended().then(|| said(job)).flatten()
}

fn said(job: &Value) -> Option<Value> {
    let JobStatus { phase, reason, .. } = JobStatus::of(job);
    Some(json!({ "status": { "phase": phase, "reason": reason } }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_job_that_is_over_nothing_is_kept_but_that() {
        let job = |phase: &str, node: &str| {
            json!({
                "spec": { "imagePrePullTemplate": { "images": ["a:1"] } },
                "status": { "phase": phase, "reason": "r", "nodeStatus": [{ "nodeName": "n", "phase": node }] },
            })
        };
        let kept = json!({ "status": { "phase": "Failure", "reason": "r" } });
        let watched = watched(TaskKind::ImagePrePull);
        assert_eq!((watched.rest)(&job("Failure", "Failure")), Some(kept));
        for (phase, node) in [("", ""), ("InProgress", "Failure"), ("Failure", "InProgress")] {
            assert_eq!((watched.rest)(&job(phase, node)), None, "{phase}");
        }
        let without_effect = watched_without_effect(TaskKind::ImagePrePull);
        let kept = json!({ "status": { "phase": "InProgress", "reason": "r" } });
        assert_eq!((without_effect.rest)(&job("InProgress", "InProgress")), Some(kept));
    }
}
