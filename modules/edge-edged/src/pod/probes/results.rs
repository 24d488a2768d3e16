//! What the probes say of containers. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodStatus;

use crate::pod::probes::plan::{ProbeKind, Verdict};
use crate::runtime::pods::{RuntimePod, RuntimeState};

/// What is known of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Verdicts {
    by_kind: BTreeMap<ProbeKind, Verdict>,
    known_before: bool,
}

/// What the probes say, by the container's id in the runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ProbeResults(BTreeMap<String, Verdicts>);

impl ProbeResults {
    /// Takes in what the runtime has. A container that was reported as started or ready before anybody here has probed it,
    /// before a restart of EdgeCore or of the pod's worker, is so until its probe says otherwise.
    pub(crate) fn observe(&mut self, seen: &RuntimePod, reported: Option<&PodStatus>) {
        self.0.retain(|id, _| seen.containers.iter().any(|container| container.id == *id));
        for container in seen.containers.iter().filter(|container| container.state == RuntimeState::Running) {
            if !self.0.contains_key(&container.id) {
                self.0.insert(container.id.clone(), before(&container.id, reported));
            }
        }
    }

    /// What a probe of a kind says of a container; `None`: nothing yet.
    pub(crate) fn get(&self, id: &str, kind: ProbeKind) -> Option<Verdict> {
        self.0.get(id)?.by_kind.get(&kind).copied()
    }

    /// Whether a container ran before this worker.
    pub(crate) fn is_known_before(&self, id: &str) -> bool {
        self.0.get(id).is_some_and(|verdicts| verdicts.known_before)
    }

    /// Takes in what a probe says. A container that is gone doesn't matter.
    pub(crate) fn set(&mut self, id: &str, kind: ProbeKind, verdict: Verdict) {
        if let Some(verdicts) = self.0.get_mut(id) {
            verdicts.by_kind.insert(kind, verdict);
        }
    }
}

fn before(id: &str, reported: Option<&PodStatus>) -> Verdicts {
    let all = reported
        .into_iter()
        .flat_map(|status| status.init_container_statuses.iter().chain(&status.container_statuses).flatten());
    let is_same = |known: &str| known.split_once("://").is_some_and(|(_, known)| known == id);
    let mut same = all.filter(|status| status.container_id.as_deref().is_some_and(is_same));
    let Some(status) = same.next() else { return Verdicts::default() };
    let runs = status.state.as_ref().is_some_and(|state| state.running.is_some());
    let started = runs && status.started == Some(true);
    let known = [(ProbeKind::Startup, started), (ProbeKind::Readiness, started && status.ready)];
    let by_kind = known.into_iter().filter(|(_, holds)| *holds).map(|(kind, _)| (kind, Verdict::Success));
    Verdicts { by_kind: by_kind.collect(), known_before: true }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::parsed_pod::tests::pod;
    use crate::pod::plan::tests::instance;
    use serde_json::json;

    fn seen(attempt: u32, state: RuntimeState) -> RuntimePod {
        let container = instance(&pod(json!({})), "c", "s", attempt, state);
        RuntimePod { containers: vec![container], ..RuntimePod::default() }
    }

    fn reported(started: bool, ready: bool) -> PodStatus {
        let state = json!({"running": {}});
        serde_json::from_value(json!({"containerStatuses": [{"name": "c", "containerID": "containerd://c-0",
            "restartCount": 0, "image": "x", "imageID": "", "started": started, "ready": ready, "state": state}]}))
        .unwrap()
    }

    #[test]
    fn what_was_reported_of_a_container_holds_until_it_is_probed() {
        for (started, ready) in [(false, false), (true, false), (true, true)] {
            let mut results = ProbeResults::default();
            results.observe(&seen(0, RuntimeState::Running), Some(&reported(started, ready)));
            let says = |kind| results.get("c-0", kind) == Some(Verdict::Success);
            assert_eq!((says(ProbeKind::Startup), says(ProbeKind::Readiness)), (started, ready));
            assert!(results.is_known_before("c-0"));
            assert_eq!(results.get("c-0", ProbeKind::Liveness), None);
            results.set("c-0", ProbeKind::Readiness, Verdict::Failure);
            // What is reported meanwhile changes nothing.
            results.observe(&seen(0, RuntimeState::Running), Some(&reported(true, true)));
            assert_eq!(results.get("c-0", ProbeKind::Readiness), Some(Verdict::Failure));
        }
    }

    #[test]
    fn of_a_new_container_nothing_is_known() {
        let mut results = ProbeResults::default();
        results.observe(&seen(1, RuntimeState::Running), Some(&reported(true, true)));
        assert_eq!(results.get("c-1", ProbeKind::Readiness), None);
        assert!(!results.is_known_before("c-1"));
        results.set("c-1", ProbeKind::Startup, Verdict::Success);
        results.set("gone", ProbeKind::Startup, Verdict::Success);
        assert_eq!(results.0.len(), 1);
        results.observe(&seen(2, RuntimeState::Running), None);
        assert_eq!(results.get("c-1", ProbeKind::Startup), None, "forgotten with it");
    }
}
