//! Pods that are held until somebody on the node releases them (KubeEdge's `edge.kubeedge.io/hold-upgrade`): an update arrives, and
//! begins when those who work with the machine are ready for it. Pure.

use std::collections::BTreeSet;

use contract::ids::HOLD_UPGRADE_ANNOTATION;
use contract::pod_status::HELD_UPGRADE;
use k8s_openapi::api::core::v1::PodStatus;

use crate::pod::admission::History;
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::plan::Intent;

/// Why a pod is held, for the pod's own events and what its containers wait for.
const WORDS: &str = "the pod is held by its annotation edge.kubeedge.io/hold-upgrade until it is released on the node (keadm ctl unhold-upgrade)";

/// Whether a pod wants to be held: a new one does, one that runs here already stays.
pub(crate) fn wants(pod: &ParsedPod, history: History) -> bool {
    let annotations = pod.pod.metadata.annotations.as_ref();
    let wants =
        annotations.and_then(|all| all.get(HOLD_UPGRADE_ANNOTATION)).is_some_and(|word| word == "true");
    wants && history == History::New && !pod.is_terminating()
}

/// What becomes of a pod that wants to be held; `None`: it was released. `released`: the uids of those that were.
pub(crate) fn hold(pod: &ParsedPod, history: History, released: &BTreeSet<String>) -> Option<Intent> {
    let held = wants(pod, history) && !released.contains(&pod.id.uid);
    held.then(|| Intent::Hold { reason: HELD_UPGRADE.to_owned(), message: WORDS.to_owned() })
}

/// Whether it is held.
pub(crate) fn is_held(intent: &Intent) -> bool {
    matches!(intent, Intent::Hold { reason, .. } if reason == HELD_UPGRADE)
}

/// Whether it was held when this was reported.
pub(crate) fn was_held(status: &PodStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|own| own.type_ == HELD_UPGRADE && own.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::parsed_pod::tests::pod;
    use serde_json::json;

    #[test]
    fn a_new_pod_is_held_until_it_is_released_and_one_that_runs_stays() {
        let mut own = pod(json!({}));
        let none = BTreeSet::new();
        assert_eq!(hold(&own, History::New, &none), None);
        let mut annotate = |word: &str| {
            own.pod.metadata.annotations =
                Some([(HOLD_UPGRADE_ANNOTATION.to_owned(), word.to_owned())].into());
            own.clone()
        };
        assert_eq!(hold(&annotate("false"), History::New, &none), None);
        let held = annotate("true");
        assert!(hold(&held, History::New, &none).is_some_and(|intent| is_held(&intent)));
        assert_eq!(hold(&held, History::New, &BTreeSet::from([held.id.uid.clone()])), None);
        assert_eq!(hold(&held, History::Admitted, &none), None);
    }
}
