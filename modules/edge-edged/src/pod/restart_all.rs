//! All containers of a pod start again, from the first init container on, because one of them has ended as a rule says
//! (`RestartAllContainers`). Pure.
//!
//! The sandbox and the volumes stay. What has ended for it is removed last: so whoever begins anew in between sees it, and goes
//! on.

use beehive::Moment;

use crate::pod::action::{Action, StopReason};
use crate::pod::parsed_pod::{ParsedPod, all_of};
use crate::pod::planned::Plan;
use crate::pod::restart_policy::restarts_all;
use crate::pod::stopping::stop;
use crate::pod::sync_state::SyncState;
use crate::runtime::pods::{RuntimeContainer, RuntimePod};

/// Whether a pod has such a rule.
pub(crate) fn has_rule(pod: &ParsedPod) -> bool {
    pod.restart_rules.values().flatten().any(|rule| rule.is_for_all())
}

/// The containers that ended so.
fn sources<'a>(pod: &ParsedPod, seen: &'a RuntimePod) -> Vec<&'a RuntimeContainer> {
    let newest = all_of(pod.spec()).filter_map(|container| seen.newest(&container.name));
    newest.filter(|instance| restarts_all(pod, instance)).collect()
}

/// Whether it is to be done, be it later: until then the pod has not ended, whatever its containers were ended with for it.
pub(crate) fn is_wanted(pod: &ParsedPod, seen: &RuntimePod) -> bool {
    !sources(pod, seen).is_empty()
}

/// Whether it is under way.
pub(crate) fn is_due(pod: &ParsedPod, seen: &RuntimePod, state: &SyncState, now: Moment) -> bool {
    let sources = sources(pod, seen);
    // One that ended so soon after the last time waits as after any crash, and the others go on.
    let waits = |own: &&RuntimeContainer| state.crash_until(own).is_some_and(|(_, until)| until > now);
    !sources.is_empty() && !sources.iter().any(waits)
}

/// Ends and removes the containers. False when nothing has to be: they start as those of a new pod.
pub(crate) fn plan(
    pod: &ParsedPod,
    seen: &RuntimePod,
    state: &SyncState,
    now: Moment,
    plan: &mut Plan,
) -> bool {
    if !is_due(pod, seen, state, now) {
        return false;
    }
    let is_own = |instance: &&RuntimeContainer| all_of(pod.spec()).any(|own| own.name == instance.name);
    let own: Vec<&RuntimeContainer> = seen.containers.iter().filter(is_own).collect();
    let running: Vec<&&RuntimeContainer> = own.iter().filter(|instance| state.may_run(instance)).collect();
    let starting = state.is_busy(|action| matches!(action, Action::Start { .. }));
    if !running.is_empty() || starting {
        for instance in running {
            stop(pod, instance, StopReason::RestartAll, state, now, plan);
        }
        return true;
    }
    let (last, first): (Vec<&RuntimeContainer>, Vec<&RuntimeContainer>) =
        own.into_iter().partition(|instance| restarts_all(pod, instance));
    let removed = if first.is_empty() { last } else { first };
    plan.actions.extend(removed.into_iter().map(|instance| Action::Reset { id: instance.id.clone() }));
    true
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::pod::parsed_pod::tests::pod;
    use crate::pod::plan::is_done;
    use crate::pod::plan::tests::instance;
    use crate::runtime::pods::RuntimeState;

    fn with_rule() -> ParsedPod {
        let rule =
            json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
        pod(json!({
            "restartPolicy": "Never",
            "initContainers": [{"name": "i", "image": "x"}],
            "containers": [
                {"name": "c", "image": "x", "restartPolicy": "Never", "restartPolicyRules": rule},
                {"name": "d", "image": "x"},
            ],
        }))
    }

    fn seen(pod: &ParsedPod, code: i32, d: RuntimeState) -> RuntimePod {
        let mut c = instance(pod, "c", "s", 0, RuntimeState::Exited);
        c.exit_code = code;
        let containers =
            vec![instance(pod, "i", "s", 0, RuntimeState::Exited), c, instance(pod, "d", "s", 0, d)];
        RuntimePod { containers, ..RuntimePod::default() }
    }

    fn planned(pod: &ParsedPod, seen: &RuntimePod, state: &SyncState) -> Option<Vec<Action>> {
        let mut planned = Plan::default();
        plan(pod, seen, state, Moment(Duration::from_secs(100)), &mut planned).then_some(planned.actions)
    }

    #[test]
    fn the_others_are_ended_and_removed_before_the_one_that_ended_so() {
        let (pod, state) = (with_rule(), SyncState::default());
        assert_eq!(planned(&pod, &seen(&pod, 1, RuntimeState::Running), &state), None, "another code");
        let running = seen(&pod, 42, RuntimeState::Running);
        let id = |name: &str| running.newest(name).unwrap().id.clone();
        let stopped = planned(&pod, &running, &state).unwrap();
        let Action::Stop { id: of, why: StopReason::RestartAll, grace } = &stopped[0] else {
            panic!("{stopped:?}")
        };
        assert_eq!((of.as_str(), *grace, stopped.len()), (id("d").as_str(), Duration::ZERO, 1));
        let mut ended = seen(&pod, 42, RuntimeState::Exited);
        let reset = |name: &str| Action::Reset { id: id(name) };
        assert_eq!(planned(&pod, &ended, &state), Some(vec![reset("i"), reset("d")]));
        ended.containers.retain(|own| own.name == "c");
        assert_eq!(planned(&pod, &ended, &state), Some(vec![reset("c")]));
        assert_eq!(planned(&pod, &RuntimePod::default(), &state), None, "they start as of a new pod");
    }

    #[test]
    fn a_pod_whose_sidecar_ended_so_has_not_ended_with_the_containers_that_were_ended_for_it() {
        let rule =
            json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
        let pod = pod(json!({
            "restartPolicy": "Never",
            "initContainers": [{"name": "side", "image": "x", "restartPolicy": "Always", "restartPolicyRules": rule}],
            "containers": [{"name": "d", "image": "x"}],
        }));
        let mut side = instance(&pod, "side", "s", 0, RuntimeState::Exited);
        side.exit_code = 42;
        let mut main = instance(&pod, "d", "s", 0, RuntimeState::Exited);
        main.exit_code = 137;
        let state = SyncState::default();
        let mut seen = RuntimePod { containers: vec![side, main], ..RuntimePod::default() };
        assert!(!is_done(&pod, &seen, &state));
        assert_eq!(planned(&pod, &seen, &state).map(|actions| actions.len()), Some(1), "d is removed first");
        seen.containers[0].exit_code = 1;
        assert!(is_done(&pod, &seen, &state), "as without the rule");
    }

    #[test]
    fn one_that_ends_so_again_and_again_waits_as_after_any_crash() {
        let pod = with_rule();
        let running = seen(&pod, 42, RuntimeState::Running);
        let source = running.newest("c").unwrap();
        let mut state = SyncState::default();
        state.crashes.insert("c".to_owned(), Duration::from_secs(10));
        state.ended.insert(source.id.clone(), Moment(Duration::from_secs(95)));
        assert_eq!(planned(&pod, &running, &state), None);
        state.ended.insert(source.id.clone(), Moment(Duration::from_secs(90)));
        assert!(planned(&pod, &running, &state).is_some());
    }
}
