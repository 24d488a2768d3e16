//! Containers that somebody on the node has asked to begin again (`keadm ctl restart pod`). Pure.
//!
//! They are ended as at the pod's end: with their hooks and their grace, the main ones before the sidecars. Nothing of the pod
//! begins before all of them have ended; then they begin as any that has ended, by the pod's policy. Whoever asks is refused where
//! that would not have them begin again. An edgecore that ends in between has forgotten it: what it had not ended runs on.

use std::collections::BTreeSet;

use beehive::Moment;

use crate::pod::action::StopReason;
use crate::pod::parsed_pod::{ParsedPod, is_sidecar};
use crate::pod::planned::Plan;
use crate::pod::stopping::stop;
use crate::pod::sync_state::SyncState;
use crate::runtime::pods::{RuntimeContainer, RuntimePod};

/// The containers that run now and are to begin again, by their ids: main ones and sidecars. An init container that is at its work
/// begins the pod already.
pub(crate) fn running(pod: &ParsedPod, seen: &RuntimePod, state: &SyncState) -> BTreeSet<String> {
    let meant = |instance: &&RuntimeContainer| {
        let sidecar = pod.init_containers().any(|own| own.name == instance.name && is_sidecar(own));
        sidecar || pod.spec().containers.iter().any(|own| own.name == instance.name)
    };
    let running = seen.containers.iter().filter(|instance| state.may_run(instance));
    running.filter(meant).map(|instance| instance.id.clone()).collect()
}

/// Ends them. False when none of them runs any more.
pub(crate) fn plan(
    pod: &ParsedPod,
    seen: &RuntimePod,
    state: &SyncState,
    now: Moment,
    plan: &mut Plan,
) -> bool {
    let asked = |instance: &&RuntimeContainer| state.asked.contains(&instance.id) && state.may_run(instance);
    let running: Vec<&RuntimeContainer> = seen.containers.iter().filter(asked).collect();
    if running.is_empty() {
        return false;
    }
    let sidecars: Vec<&str> =
        pod.init_containers().filter(|own| is_sidecar(own)).map(|own| own.name.as_str()).collect();
    let (beside, main): (Vec<&RuntimeContainer>, Vec<&RuntimeContainer>) =
        running.into_iter().partition(|instance| sidecars.contains(&instance.name.as_str()));
    // The sidecars one after another, the last started first.
    let last = sidecars.iter().rev().find_map(|name| beside.iter().find(|own| own.name == **name));
    let turn = if main.is_empty() { last.into_iter().copied().collect() } else { main };
    for instance in turn {
        stop(pod, instance, StopReason::Asked, state, now, plan);
    }
    true
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::pod::action::Action;
    use crate::pod::parsed_pod::tests::pod;
    use crate::pod::plan::tests::instance;
    use crate::runtime::pods::RuntimeState;

    fn with_sidecars() -> ParsedPod {
        pod(json!({
            "terminationGracePeriodSeconds": 7,
            "initContainers": [
                {"name": "i", "image": "x"},
                {"name": "first", "image": "x", "restartPolicy": "Always"},
                {"name": "second", "image": "x", "restartPolicy": "Always"},
            ],
            "containers": [{"name": "c", "image": "x"}, {"name": "d", "image": "x"}],
        }))
    }

    fn stopped(pod: &ParsedPod, seen: &RuntimePod, state: &SyncState) -> Option<Vec<String>> {
        let mut planned = Plan::default();
        let is_due = plan(pod, seen, state, Moment(Duration::from_secs(100)), &mut planned);
        let names = planned.actions.iter().map(|action| {
            let Action::Stop { id, why: StopReason::Asked, grace } = action else { panic!("{action:?}") };
            assert_eq!(*grace, Duration::from_secs(7));
            seen.containers.iter().find(|own| own.id == *id).unwrap().name.clone()
        });
        let names = names.collect();
        is_due.then_some(names)
    }

    #[test]
    fn main_containers_end_before_the_sidecars_and_what_began_since_is_left_alone() {
        let pod = with_sidecars();
        let all = |running: &[&str]| {
            let state = |name: &str| {
                if running.contains(&name) { RuntimeState::Running } else { RuntimeState::Exited }
            };
            let names = ["i", "first", "second", "c", "d"];
            let containers = names.map(|name| instance(&pod, name, "s", 0, state(name))).to_vec();
            RuntimePod { containers, ..RuntimePod::default() }
        };
        let begun = all(&["first", "second", "c", "d"]);
        let mut state = SyncState::default();
        assert_eq!(stopped(&pod, &begun, &state), None, "nobody has asked");
        state.asked = running(&pod, &begun, &state);
        assert_eq!(state.asked.len(), 4, "not the one that has ended");
        assert_eq!(stopped(&pod, &begun, &state), Some(vec!["c".to_owned(), "d".to_owned()]));
        assert_eq!(
            stopped(&pod, &all(&["first", "second", "d"]), &state),
            Some(vec!["d".to_owned()]),
            "and nothing begins meanwhile"
        );
        assert_eq!(stopped(&pod, &all(&["first", "second"]), &state), Some(vec!["second".to_owned()]));
        assert_eq!(stopped(&pod, &all(&["first"]), &state), Some(vec!["first".to_owned()]));
        let mut again = all(&[]);
        again.containers.push(instance(&pod, "c", "s", 1, RuntimeState::Running));
        assert_eq!(stopped(&pod, &again, &state), None);
    }
}
