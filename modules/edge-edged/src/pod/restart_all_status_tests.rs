//! The status of pods all of whose containers start again (`RestartAllContainers`).

use serde_json::{Value, json};

use super::tests::{seen, status, told};
use super::*;
use crate::pod::parsed_pod::tests::pod;
use crate::pod::plan::tests::instance;
use crate::runtime::pods::{RuntimeContainer, RuntimeState};

#[test]
fn a_pod_all_of_whose_containers_are_to_start_again_runs_on_whatever_they_were_ended_with() {
    let rule = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
    let pod = pod(json!({
        "restartPolicy": "Never",
        "initContainers": [{"name": "side", "image": "x", "restartPolicy": "Always", "restartPolicyRules": rule}],
        "containers": [{"name": "c", "image": "x"}],
    }));
    let phase = |code: i32| {
        let mut side = instance(&pod, "side", "s", 0, RuntimeState::Exited);
        side.exit_code = code;
        let mut ended = instance(&pod, "c", "s", 0, RuntimeState::Exited);
        ended.exit_code = 137;
        let both = seen(vec![ended, side]);
        status(&pod, &Intent::Run, &both, &SyncState::default(), None)["phase"].clone()
    };
    assert_eq!((phase(42), phase(1)), (json!("Running"), json!("Failed")));
}

/// What a kubelet's `convertToAPIContainerStatuses` says of containers that `RestartAllContainers` removed.
#[test]
fn a_container_that_starts_again_with_all_others_has_the_last_end_that_it_had_if_it_waited() {
    let pod = pod(json!({"containers": [{"name": "c", "image": "x"}, {"name": "d", "image": "x"}]}));
    let exit =
        |code: i32, id: &str| json!({"terminated": {"exitCode": code, "reason": "Error", "containerID": id}});
    let known = |state: Value, last: Value| {
        told(
            json!({"phase": "Running", "containerStatuses": [{"name": "c", "image": "x", "imageID": "", "ready": false,
            "restartCount": 3, "containerID": "containerd://old", "state": state, "lastState": last}]}),
        )
    };
    let removed = SyncState { reset: ["c".to_owned()].into(), ..SyncState::default() };
    let said = |state: &SyncState, seen_now: Vec<RuntimeContainer>, known: &PodStatus| {
        let whole = status(&pod, &Intent::Run, &seen(seen_now), state, Some(known));
        let own = &whole["containerStatuses"][0];
        let last = &own["lastState"]["terminated"];
        let next = SyncState { reported: Some(std::sync::Arc::new(known.clone())), ..state.clone() };
        let words = (
            own["state"]["waiting"]["reason"].as_str().unwrap_or_default().to_owned(),
            format!("{} {}", last["exitCode"], last["reason"].as_str().unwrap_or_default()),
            own["restartCount"].as_i64().unwrap(),
        );
        (words, next.next_attempt(&pod, "c", None), serde_json::from_value::<PodStatus>(whole).unwrap())
    };
    let restarting = ("RestartingAllContainers".to_owned(), "137 RestartingAllContainers".to_owned(), 4);
    // It ran, or had ended as the rule says: told once, and counted once.
    for state in [json!({"running": {}}), exit(42, "containerd://old")] {
        let (words, _, reported) = said(&removed, Vec::new(), &known(state, json!({})));
        assert_eq!(words, restarting);
        let (words, attempt, _) = said(&removed, Vec::new(), &reported);
        assert_eq!((words, attempt), (restarting.clone(), 4), "also when that was reported");
        // After a restart of EdgeCore.
        assert_eq!(said(&SyncState::default(), Vec::new(), &reported).0, restarting);
        let mut again = instance(&pod, "c", "s", 4, RuntimeState::Running);
        let (words, _, reported) = said(&SyncState::default(), vec![again.clone()], &reported);
        assert_eq!(words, (String::new(), restarting.1.clone(), 4));
        // Its next end leaves that behind.
        again.exit_code = 1;
        again.state = RuntimeState::Exited;
        assert_eq!(said(&SyncState::default(), vec![again], &reported).0.1, restarting.1);
    }
    // It waited after a crash.
    let waits = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    let (words, attempt, reported) = said(&removed, Vec::new(), &known(waits, exit(7, "containerd://old")));
    assert_eq!((words, attempt), (("ContainerCreating".to_owned(), "7 Error".to_owned(), 3), 4));
    let again = instance(&pod, "c", "s", 4, RuntimeState::Running);
    assert_eq!(
        said(&SyncState::default(), vec![again.clone()], &reported).0,
        (String::new(), "7 Error".to_owned(), 4)
    );
    // It was made again before anything was reported of that.
    let ended = known(exit(42, "containerd://old"), json!({}));
    assert_eq!(said(&SyncState::default(), vec![again], &ended).0.1, "42 Error");
}
