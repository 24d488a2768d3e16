//! postStart and preStop hooks on real containers.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::node::{Machine, Node, WAITS, container, deleted, eventually, first, pod, run, text};

fn hooked(name: &str, script: &str, lifecycle: Value) -> Value {
    let mut container = container("c", script);
    container["lifecycle"] = lifecycle;
    pod(name, "", json!({"containers": [container]}))
}

fn exec(script: &str) -> Value {
    json!({"exec": {"command": ["sh", "-c", script]}})
}

#[test]
fn a_post_start_hook_holds_up_the_next_container_and_its_failure_kills_its_own() {
    run(async {
        let host = Machine::with_uplink("poststart");
        let node = Node::start(&host);
        let held = "while ! test -f /go; do sleep 0.1; done; echo hooked > /dev/termination-log";
        let mut own = hooked("held", WAITS, json!({"postStart": exec(held)}));
        let second = container("second", WAITS);
        own["spec"]["containers"].as_array_mut().unwrap().push(second);
        let web = "mkdir /www; httpd -p 8080 -h /www; trap 'exit 0' TERM; while true; do sleep 0.1; done";
        let asked = json!({"postStart": {"httpGet": {"path": "/not-there", "port": 8080}}});
        let fails = "echo no >&2; exit 3";
        node.apply(&[
            own,
            hooked("web", web, asked),
            hooked("fails", WAITS, json!({"postStart": exec(fails)})),
            hooked("never", WAITS, json!({"postStart": {"tcpSocket": {"port": 1}}})),
        ])
        .await;
        // The hook runs in the container, which still counts as being made.
        let held = eventually(async || {
            let status = node.status("held")?;
            text(&first(&status)["containerID"]).strip_prefix("containerd://").map(|_| status)
        });
        let held = held.await.expect("the first container is there");
        assert_eq!(first(&held)["state"]["waiting"]["reason"], "ContainerCreating", "{held:#}");
        assert_eq!(held["containerStatuses"][1]["containerID"], Value::Null, "the second waits: {held:#}");
        node.exec(&held, &["touch", "/go"]).await;
        let ready = node.until_ready("held").await;
        assert_eq!(first(&ready)["restartCount"], 0);

        // Any answer is well, as soon as there is one.
        node.until_ready("web").await;
        let failed = node.until("fails", "its failure", |status| {
            first(status)["state"]["waiting"]["reason"] == "PostStartHookError"
        });
        let failed = failed.await;
        let why = text(&first(&failed)["state"]["waiting"]["message"]);
        assert_eq!(
            why,
            "Exec lifecycle hook ([sh -c echo no >&2; exit 3]) for Container \"c\" in Pod \"fails_default(uid-of-fails)\" \
             failed - error: command 'sh -c echo no >&2; exit 3' exited with 3: no\n, message: \"no\\n\""
        );
        node.until_event("fails", "FailedPostStartHook", "PostStartHook failed").await;
        node.until_event("fails", "Killing", "FailedPostStartHook").await;
        node.until_event("never", "FailedPostStartHook", "PostStartHook failed").await;
        node.until("fails", "its restart", |status| first(status)["restartCount"].as_u64() >= Some(1)).await;
    });
}

#[test]
fn a_pre_stop_hook_runs_within_the_grace_and_a_container_that_ends_by_itself_is_not_waited_for() {
    run(async {
        let host = Machine::new("prestop");
        let node = Node::start(&host);
        let polite = "trap 'cat /said > /dev/termination-log; exit 0' TERM; while true; do sleep 0.1; done";
        let said = hooked(
            "said",
            polite,
            json!({"preStop": exec("echo hook > /said; sleep 1; echo done >> /said")}),
        );
        let sleeps = hooked("sleeps", WAITS, json!({"preStop": {"sleep": {"seconds": 600}}}));
        // It is told to end at once: whoever does not listen yet has all its grace.
        let listens = "trap 'exit 0' TERM; touch /on; while true; do sleep 0.1; done";
        let fails = hooked("fails", listens, json!({"preStop": exec("exit 1")}));
        let by_itself = hooked(
            "itself",
            "while ! test -f /end; do sleep 0.1; done",
            json!({"preStop": exec("touch /end; sleep 600")}),
        );
        let all = [said, sleeps, fails, by_itself];
        node.apply(&all).await;
        for own in &all {
            node.until_ready(own["metadata"]["name"].as_str().unwrap()).await;
        }
        let runs = node.status("fails").unwrap();
        node.exec(&runs, &["sh", "-c", "until test -f /on; do sleep 0.1; done"]).await;
        let begun = Instant::now();
        let graces = [600, 3, 600, 600];
        let ending: Vec<Value> = all.iter().zip(graces).map(|(own, grace)| deleted(own, grace)).collect();
        node.apply(&ending).await;
        let ended = |status: &Value| first(status)["state"]["terminated"].is_object();
        let status = node.until("said", "its end", ended).await;
        assert_eq!(first(&status)["state"]["terminated"]["message"], "hook\ndone\n");
        for own in ["said", "fails", "itself"] {
            node.until_gone(own).await;
        }
        node.until_event("fails", "FailedPreStopHook", "PreStopHook failed").await;
        node.until_gone("sleeps").await;
        assert!(begun.elapsed() >= Duration::from_secs(3), "the hook has the grace");
        // Said twice it would be the same event, with a count.
        let killed: Vec<Value> = node.event_objects("said");
        let killed = killed.iter().filter(|event| event["reason"] == "Killing");
        let counts: Vec<&Value> = killed.map(|event| &event["count"]).collect();
        assert_eq!(counts, [&json!(1)], "{:#?}", node.events("said"));
    });
}

#[test]
fn a_restart_of_edgecore_within_a_pre_stop_hook_takes_nothing_of_the_pods_end() {
    run(async {
        let host = Machine::new("within");
        let node = Node::start(&host);
        let polite = "trap 'cp /said /dev/termination-log; exit 0' TERM; while true; do sleep 0.1; done";
        let hook = "echo begun >> /said; while ! test -f /go; do sleep 0.1; done; echo ended >> /said";
        let own = hooked("p", polite, json!({"preStop": exec(hook)}));
        node.apply(std::slice::from_ref(&own)).await;
        let ready = node.until_ready("p").await;
        node.apply(&[deleted(&own, 60)]).await;
        let begun = async |node: &Node, times: usize| {
            let begun = async || node.exec(&ready, &["cat", "/said"]).await.matches("begun").count() >= times;
            eventually(async || begun().await.then_some(())).await.expect("the hook runs");
        };
        begun(&node, 1).await;
        let node = node.restart(&host, async |_, _| {}).await;
        // A kubelet that is started anew runs the hook anew, too.
        begun(&node, 2).await;
        assert!(first(&node.status("p").unwrap())["state"]["running"].is_object());
        node.exec(&ready, &["touch", "/go"]).await;
        let ended = |status: &Value| first(status)["state"]["terminated"].is_object();
        let status = node.until("p", "its end", ended).await;
        let said = text(&first(&status)["state"]["terminated"]["message"]);
        assert!(said.contains("ended"), "{said}");
        assert_eq!(first(&status)["state"]["terminated"]["exitCode"], 0);
        node.until_gone("p").await;
    });
}
