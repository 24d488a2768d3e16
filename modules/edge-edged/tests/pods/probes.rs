//! Probes on real containers: by a command, over HTTP and over TCP.

use serde_json::{Value, json};

use crate::faults::When;
use crate::node::{Machine, Node, WAITS, condition, container, container_id, eventually, first, pod, run};

/// A pod of a container that runs `script` and has these probes.
fn probed(name: &str, script: &str, probes: Value) -> Value {
    let mut container = container("c", script);
    for (kind, probe) in probes.as_object().unwrap() {
        container[kind] = probe.clone();
    }
    pod(name, "", json!({"containers": [container]}))
}

fn is_ready(status: &Value, wanted: &str) -> bool {
    condition(status, "Ready")["status"] == wanted
}

#[test]
fn readiness_over_http_comes_and_goes_and_restarts_nothing() {
    run(async {
        let host = Machine::with_uplink("readiness");
        let node = Node::start(&host);
        let script = "mkdir /www; httpd -p 8080 -h /www; trap 'exit 0' TERM; while true; do sleep 0.1; done";
        let probe = json!({"httpGet": {"path": "/health", "port": "web"}, "periodSeconds": 1,
            "failureThreshold": 1});
        let mut own = probed("web", script, json!({"readinessProbe": probe}));
        own["spec"]["containers"][0]["ports"] = json!([{"name": "web", "containerPort": 8080}]);
        node.apply(std::slice::from_ref(&own)).await;
        node.until_event(
            "web",
            "Unhealthy",
            "Readiness probe failed: HTTP probe failed with statuscode: 404",
        )
        .await;
        let unready =
            node.until("web", "a container that is not ready", |status| status["phase"] == "Running").await;
        assert_eq!((&first(&unready)["started"], &first(&unready)["ready"]), (&json!(true), &json!(false)));
        assert_eq!(condition(&unready, "ContainersReady")["message"], "containers with unready status: [c]");
        node.exec(&unready, &["touch", "/www/health"]).await;
        let ready = node.until_ready("web").await;
        node.exec(&ready, &["rm", "/www/health"]).await;
        let unready = node.until("web", "readiness that is lost", |status| is_ready(status, "False")).await;
        assert_eq!(container_id(&unready), container_id(&ready));
        assert_eq!(first(&unready)["restartCount"], 0);
    });
}

#[test]
fn a_failing_liveness_probe_restarts_its_container_and_says_why() {
    run(async {
        let host = Machine::with_uplink("liveness");
        let node = Node::start(&host);
        let liveness = |mut probe: Value| {
            probe["periodSeconds"] = json!(1);
            probe["failureThreshold"] = json!(2);
            json!({"livenessProbe": probe})
        };
        let deaf = "trap '' TERM; while true; do sleep 0.1; done";
        let mut never = probed(
            "never",
            "trap 'exit 9' TERM; while true; do sleep 0.1; done",
            liveness(json!({"exec": {"command": ["false"]}})),
        );
        never["spec"]["restartPolicy"] = json!("Never");
        let mut graceful = probed(
            "graceful",
            deaf,
            liveness(json!({"exec": {"command": ["false"]}, "terminationGracePeriodSeconds": 3})),
        );
        graceful["spec"]["terminationGracePeriodSeconds"] = json!(500);
        node.apply(&[
            probed("tcp", WAITS, liveness(json!({"tcpSocket": {"port": 81}}))),
            probed("slow", WAITS, liveness(json!({"exec": {"command": ["sleep", "20"]}}))),
            probed("well", WAITS, liveness(json!({"exec": {"command": ["true"]}, "timeoutSeconds": 30}))),
            never,
            graceful,
        ])
        .await;
        for (pod, why) in [
            ("tcp", ":81: connect: connection refused"),
            ("slow", "Liveness probe failed: command timed out: \"sleep 20\" timed out after 1s"),
            ("graceful", "Liveness probe failed: "),
        ] {
            let again = |status: &Value| first(status)["restartCount"].as_u64() >= Some(1);
            node.until(pod, "a restart", again).await;
            node.until_event(pod, "Unhealthy", why).await;
            node.until_event(pod, "Killing", "Container c failed liveness probe, will be restarted").await;
        }
        // One that may not start again is killed all the same.
        node.until("never", "its end", |status| status["phase"] == "Failed").await;
        assert!(node.events("never").iter().any(|(_, text)| text == "Container c failed liveness probe"));
        assert_eq!(first(&node.until_ready("well").await)["restartCount"], 0);
    });
}

#[test]
fn what_a_startup_probe_waits_for_is_not_killed_by_the_others() {
    run(async {
        let host = Machine::new("startup");
        let node = Node::start(&host);
        let probes = json!({
            "startupProbe": {"exec": {"command": ["test", "-f", "/started"]}, "periodSeconds": 1, "failureThreshold": 60},
            "livenessProbe": {"exec": {"command": ["test", "-f", "/started"]}, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 30},
        });
        let late = probed("late", WAITS, probes);
        let never = probed(
            "never",
            WAITS,
            json!({
            "startupProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 2}}),
        );
        node.apply(&[late, never]).await;
        node.until_event("late", "Unhealthy", "Startup probe failed: ").await;
        let starting = node.until("late", "a container", |status| status["phase"] == "Running").await;
        assert_eq!(
            (&first(&starting)["started"], &first(&starting)["ready"]),
            (&json!(false), &json!(false))
        );
        node.exec(&starting, &["touch", "/started"]).await;
        let started = node.until_ready("late").await;
        assert_eq!(
            (&first(&started)["started"], &first(&started)["restartCount"]),
            (&json!(true), &json!(0))
        );
        node.until_event("never", "Killing", "Container c failed startup probe, will be restarted").await;
        node.until("never", "a restart", |status| first(status)["restartCount"].as_u64() >= Some(1)).await;
    });
}

#[test]
fn a_container_that_was_ready_is_so_after_a_restart_of_edgecore_until_its_probe_says_otherwise() {
    run(async {
        let host = Machine::new("stays");
        let node = Node::start(&host);
        // Within the second probe nothing is known but what was reported.
        let command = "test -f /hold || exit 0; while test -f /hold; do sleep 0.1; done; exit 1";
        let probe = json!({"exec": {"command": ["sh", "-c", command]}, "periodSeconds": 1, "timeoutSeconds": 50,
            "failureThreshold": 1});
        let own = probed(
            "p",
            WAITS,
            json!({"readinessProbe": probe, "startupProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1}}),
        );
        node.apply(std::slice::from_ref(&own)).await;
        let before = node.until_ready("p").await;
        node.exec(&before, &["touch", "/hold"]).await;
        let node = node.restart(&host, async |_, _| {}).await;
        let mut newer = own.clone();
        newer["metadata"]["generation"] = json!(2);
        node.apply(&[newer]).await;
        let after = node.until("p", "a newer status", |status| status["observedGeneration"] == 2).await;
        assert!(is_ready(&after, "True"), "{after:#}");
        assert_eq!(first(&after), first(&before));
        // The probe that ran while Edged was ended has gone with it.
        node.exec(&after, &["rm", "/hold"]).await;
        node.exec(&after, &["touch", "/hold"]).await;
        let runs = eventually(async || {
            let all = node.exec(&after, &["ps"]).await;
            all.contains("while test -f /hold").then_some(())
        });
        runs.await.expect("the probe is made again");
        node.exec(&after, &["rm", "/hold"]).await;
        node.until_event("p", "Unhealthy", "Readiness probe failed: ").await;
        assert_eq!(first(&node.status("p").unwrap())["restartCount"], 0);
    });
}

#[test]
fn a_fault_in_a_probe_costs_a_restart_of_the_pods_worker_and_no_container() {
    run(async {
        let host = Machine::new("faulty");
        let node = Node::start(&host);
        let ready = json!({"readinessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1},
            "livenessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1}});
        let planned = node.plan_panic("pod-worker", "Probed");
        node.apply(&[probed("p", WAITS, ready.clone())]).await;
        let first_of = first(&node.until_ready("p").await).clone();
        assert!(planned.has_happened());
        // Both before the call and after it.
        for when in [When::Before, When::After] {
            node.runtime_faults.arm("exec_sync", when);
            let happened = eventually(async || node.runtime_faults.has_happened().then_some(())).await;
            happened.expect("a probe is made");
        }
        let told = eventually(async || {
            let events = node.events("p");
            events
                .iter()
                .any(|(reason, text)| reason == "FailedSync" && text.contains("3 times"))
                .then_some(())
        });
        told.await.unwrap_or_else(|| panic!("{:#?}", node.events("p")));
        let after = node.until_ready("p").await;
        assert_eq!(first(&after)["containerID"], first_of["containerID"]);
        assert_eq!(node.actor("edged").await.restarts, 0);
    });
}
