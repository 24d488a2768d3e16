use super::*;

/// The sidecar `s`, then the init container `i`, and two containers.
fn pod(status: Value) -> Value {
    json!({
        "spec": {
            "initContainers": [{ "name": "s", "restartPolicy": "Always" }, { "name": "i" }],
            "containers": [{ "name": "a" }, { "name": "b" }],
        },
        "status": status,
    })
}

fn word(status: Value) -> String {
    summary(&pod(status)).word
}

fn ended(code: i64, reason: &str) -> Value {
    json!({ "state": { "terminated": { "exitCode": code, "reason": reason } } })
}

fn runs(ready: bool) -> Value {
    json!({ "ready": ready, "state": { "running": {} } })
}

fn condition(kind: &str, status: &str) -> Value {
    json!([{ "type": kind, "status": status }])
}

#[test]
fn a_pod_without_containers_yet_has_its_phase_or_a_reason() {
    assert_eq!(word(json!({ "phase": "Pending" })), "Pending");
    assert_eq!(word(json!({ "phase": "Failed", "reason": "Evicted" })), "Evicted");
    let gated = json!([{ "type": "PodScheduled", "status": "False", "reason": "SchedulingGated" }]);
    assert_eq!(word(json!({ "phase": "Pending", "conditions": gated })), "SchedulingGated");
}

#[test]
fn the_first_init_container_that_others_wait_for_is_told() {
    let of = |first: Value, second: Value| {
        let named = |name: &str, mut status: Value| {
            status["name"] = json!(name);
            status
        };
        word(json!({ "phase": "Pending", "initContainerStatuses": [named("s", first), named("i", second)] }))
    };
    let up = json!({ "started": true, "state": { "running": {} } });
    let waits = |reason: &str| json!({ "state": { "waiting": { "reason": reason } } });
    assert_eq!(of(waits("PodInitializing"), waits("PodInitializing")), "Init:0/2");
    assert_eq!(of(up.clone(), json!({ "state": { "running": {} } })), "Init:1/2");
    assert_eq!(of(up.clone(), waits("CrashLoopBackOff")), "Init:CrashLoopBackOff");
    assert_eq!(of(up.clone(), ended(1, "Error")), "Init:Error");
    assert_eq!(of(up.clone(), ended(3, "")), "Init:ExitCode:3");
    let killed = json!({ "state": { "terminated": { "exitCode": 137, "signal": 9 } } });
    assert_eq!(of(up.clone(), killed), "Init:Signal:9");
    assert_eq!(of(up, ended(0, "Completed")), "Pending", "none is waited for");
}

/// A sidecar is ended last, and often not gently: that is no failure of a pod that has done its work.
#[test]
fn a_sidecar_that_ended_after_the_pod_was_initialised_says_nothing_of_the_pod() {
    let of = |conditions: Value| {
        let mut sidecar = ended(137, "Error");
        (sidecar["name"], sidecar["started"]) = (json!("s"), json!(false));
        word(json!({
            "phase": "Succeeded", "conditions": conditions, "initContainerStatuses": [sidecar],
            "containerStatuses": [ended(0, "Completed"), ended(0, "Completed")],
        }))
    };
    assert_eq!(of(condition("Initialized", "True")), "Completed");
    assert_eq!(of(condition("Initialized", "False")), "Init:Error");
}

#[test]
fn of_several_containers_the_first_ones_word_counts_but_no_end_hides_a_failure_or_what_runs() {
    let of = |conditions: Value, containers: [Value; 2]| {
        word(json!({ "phase": "Running", "conditions": conditions, "containerStatuses": containers }))
    };
    let (ready, not) = (condition("Ready", "True"), condition("Ready", "False"));
    let done = || ended(0, "Completed");
    let waits = |reason: &str| json!({ "state": { "waiting": { "reason": reason } } });
    assert_eq!(of(not.clone(), [waits("ContainerCreating"), ended(1, "Error")]), "ContainerCreating");
    assert_eq!(of(not.clone(), [ended(2, ""), done()]), "ExitCode:2");
    let killed = json!({ "state": { "terminated": { "exitCode": 137, "signal": 9 } } });
    assert_eq!(of(not.clone(), [killed, done()]), "Signal:9");
    assert_eq!(of(not.clone(), [done(), done()]), "Completed");
    assert_eq!(of(ready.clone(), [done(), runs(true)]), "Running");
    assert_eq!(of(not.clone(), [done(), runs(true)]), "NotReady");
    assert_eq!(of(json!([]), [done(), runs(true)]), "NotReady");
    assert_eq!(of(ready, [done(), runs(false)]), "Completed");
    assert_eq!(of(not, [done(), ended(1, "Error")]), "Error");
}

#[test]
fn a_pod_that_goes_is_terminating_until_it_has_ended() {
    let of = |phase: &str, reason: &str| {
        let status = json!({ "phase": phase, "reason": reason });
        let mut pod = pod(status);
        pod["metadata"] = json!({ "deletionTimestamp": "2026-01-01T00:00:00Z" });
        summary(&pod).word
    };
    assert_eq!(of("Running", ""), "Terminating");
    assert_eq!(of("Running", "NodeLost"), "Unknown");
    assert_eq!(of("Succeeded", ""), "Succeeded");
    assert_eq!(of("Failed", "Evicted"), "Evicted");
}

#[test]
fn restarts_are_those_of_what_goes_on() {
    let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
    let restarted = |name: &str, count: i64, at: &str, mut status: Value| {
        (status["name"], status["restartCount"]) = (json!(name), json!(count));
        status["lastState"] = json!({ "terminated": { "finishedAt": at } });
        status
    };
    let of = |init: Value| {
        let containers = [
            restarted("a", 4, "2026-01-01T00:10:00Z", runs(true)),
            json!({ "name": "b", "restartCount": 0 }),
        ];
        let up = json!({ "started": true, "ready": true, "state": { "running": {} } });
        let pod = pod(json!({
            "initContainerStatuses": [
                restarted("s", 2, "2026-01-01T00:30:00Z", up), restarted("i", 1, "2026-01-01T00:50:00Z", init),
            ],
            "containerStatuses": containers,
        }));
        (ready(&pod), restarts(&pod, now))
    };
    // Initialised: the sidecar's and the container's. Before: of all that came so far.
    assert_eq!(of(ended(0, "Completed")), (json!("2/3"), json!("6 (30m ago)")));
    assert_eq!(of(ended(1, "Error")), (json!("1/3"), json!("3 (10m ago)")));
    assert_eq!(restarts(&json!({}), now), "0");
}

#[test]
fn readiness_gates_are_conditions_that_are_true() {
    let pod = json!({
        "spec": { "readinessGates": [{ "conditionType": "a" }, { "conditionType": "b" }] },
        "status": { "conditions": [{ "type": "a", "status": "True" }, { "type": "b", "status": "False" }] },
    });
    assert_eq!((readiness_gates(&pod), readiness_gates(&json!({}))), (json!("1/2"), json!("<none>")));
}
