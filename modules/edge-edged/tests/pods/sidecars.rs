//! Sidecars: init containers that go on running.

use serde_json::{Value, json};

use crate::node::{Machine, Node, WAITS, container, deleted, first, pod, run};

fn sidecar(name: &str, script: &str) -> Value {
    let mut container = container(name, script);
    container["restartPolicy"] = json!("Always");
    container
}

/// A script that notes its name in a file that all see, when it starts and when it is told to end.
fn noting(name: &str) -> String {
    format!(
        "trap 'echo -{name} >> /all/notes; exit 0' TERM; echo +{name} >> /all/notes; while true; do sleep 0.1; done"
    )
}

fn share(mut pod: Value, volume: Value) -> Value {
    for list in ["initContainers", "containers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            container["volumeMounts"] = json!([{"name": "all", "mountPath": "/all"}]);
        }
    }
    let mut all = json!({"name": "all"});
    all.as_object_mut().unwrap().extend(volume.as_object().unwrap().clone());
    pod["spec"]["volumes"] = json!([all]);
    pod
}

/// As grafana's chart has it (case b12), with a restart of Edged in the middle.
#[test]
fn the_main_container_waits_for_a_sidecars_startup_probe_over_a_restart_of_edgecore() {
    run(async {
        let host = Machine::new("b12");
        let node = Node::start(&host);
        let mut proxy = sidecar("proxy", WAITS);
        proxy["startupProbe"] = json!({"exec": {"command": ["test", "-f", "/all/ready"]}, "periodSeconds": 1, "failureThreshold": 60});
        let main = "test -f /all/ready && echo started-after-sidecar || echo TOO-EARLY; sleep 3600";
        let own = pod("b12", main, json!({"initContainers": [proxy]}));
        node.apply(&[share(own, json!({"emptyDir": {}}))]).await;
        node.until_event("b12", "Unhealthy", "Startup probe failed: ").await;
        let waits = node.status("b12").unwrap();
        assert_eq!(first(&waits)["state"]["waiting"]["reason"], "PodInitializing");
        assert_eq!(waits["initContainerStatuses"][0]["started"], false);
        let id = waits["initContainerStatuses"][0]["containerID"].clone();
        let node = node.restart(&host, async |_, _| {}).await;
        let file = node.pod_folder("b12").join("volumes/kubernetes.io~empty-dir/all/ready");
        std::fs::write(file, "").unwrap();
        let ready = node.until_ready("b12").await;
        assert_eq!(ready["initContainerStatuses"][0]["containerID"], id);
        assert_eq!(ready["initContainerStatuses"][0]["started"], true);
        let log = crate::node::eventually(async || {
            Some(node.log("b12", "c", 0)).filter(|log| log.contains("-sidecar") || log.contains("EARLY"))
        });
        assert!(log.await.unwrap().contains("started-after-sidecar"));
    });
}

#[test]
fn sidecars_start_in_order_and_end_in_reverse_after_the_main_container() {
    run(async {
        let host = Machine::new("order");
        let node = Node::start(&host);
        let dir = host.dir().join("all");
        std::fs::create_dir_all(&dir).unwrap();
        let volume = json!({"hostPath": {"path": dir}});
        let own = pod(
            "order",
            &noting("main"),
            json!({"terminationGracePeriodSeconds": 20, "initContainers": [
            sidecar("one", &noting("one")), container("init", "echo +init >> /all/notes"),
            sidecar("two", &noting("two"))]}),
        );
        let own = share(own, volume);
        node.apply(std::slice::from_ref(&own)).await;
        node.until_ready("order").await;
        let notes = || std::fs::read_to_string(dir.join("notes")).unwrap_or_default();
        // Whoever has noted its start hears of its end.
        let started = |notes: &String| ["+one", "+two", "+main"].iter().all(|name| notes.contains(name));
        let all = crate::node::eventually(async || Some(notes()).filter(started)).await;
        assert!(all.is_some(), "{}", notes());
        node.apply(&[deleted(&own, 20)]).await;
        node.until_gone("order").await;
        let text = notes();
        let ends: Vec<&str> = text.lines().filter(|line| line.starts_with('-')).collect();
        assert_eq!(ends, ["-main", "-two", "-one"], "{text}");
    });
}

#[test]
fn the_pod_of_a_job_ends_with_its_main_container_and_a_sidecar_that_dies_before_comes_back() {
    run(async {
        let host = Machine::new("job");
        let node = Node::start(&host);
        let main = "while ! test -f /all/go; do sleep 0.1; done; exit 0";
        let job =
            pod("job", main, json!({"restartPolicy": "Never", "initContainers": [sidecar("side", WAITS)]}));
        node.apply(&[share(job, json!({"emptyDir": {}}))]).await;
        let runs = node.until_ready("job").await;
        let side = |status: &Value| status["initContainerStatuses"][0].clone();
        let id = side(&runs)["containerID"].as_str().unwrap().trim_start_matches("containerd://").to_owned();
        node.runtime.stop_container(&id, std::time::Duration::ZERO).await.unwrap();
        node.until("job", "the sidecar's restart", |status| {
            side(status)["restartCount"] == 1 && side(status)["ready"] == true
        })
        .await;
        let before = side(&node.status("job").unwrap());
        let node = node.restart(&host, async |_, _| {}).await;
        let folder = node.pod_folder("job").join("volumes/kubernetes.io~empty-dir/all");
        std::fs::write(folder.join("go"), "").unwrap();
        let done = node.until("job", "its end", |status| status["phase"] == "Succeeded").await;
        assert!(side(&done)["state"]["terminated"].is_object(), "{done:#}");
        assert_eq!(side(&done)["containerID"], before["containerID"]);
        assert_eq!(first(&done)["state"]["terminated"]["exitCode"], 0);
    });
}

#[test]
fn a_containers_own_policy_and_rules_decide_about_its_restart() {
    run(async {
        let host = Machine::new("rules");
        let node = Node::start(&host);
        // The first time it ends with 42, which is another try, and then with 3, which is the end.
        let script = "if test -f /all/again; then exit 3; fi; touch /all/again; exit 42";
        let mut own = pod("rules", script, json!({"restartPolicy": "Always"}));
        own["spec"]["containers"][0]["restartPolicy"] = json!("Never");
        own["spec"]["containers"][0]["restartPolicyRules"] =
            json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
        node.apply(&[share(own, json!({"emptyDir": {}}))]).await;
        let done = node.until("rules", "its end", |status| status["phase"] == "Failed").await;
        assert_eq!(first(&done)["restartCount"], 1);
        assert_eq!(first(&done)["state"]["terminated"]["exitCode"], 3);
        assert_eq!(first(&done)["lastState"]["terminated"]["exitCode"], 42);
    });
}

/// As `kubectl debug --target=c` adds it; and `--profile=sysadmin`, privileged in a pod that was made without.
#[test]
fn an_ephemeral_container_starts_in_a_pod_that_runs_and_sees_its_targets_processes() {
    run(async {
        let host = Machine::new("debug");
        let node = Node::start(&host);
        let own = pod("p", WAITS, json!({}));
        node.apply(std::slice::from_ref(&own)).await;
        let before = node.until_ready("p").await;
        let mut debugged = own.clone();
        let mut debugger = container("debug", "ps > /dev/termination-log; exit 3");
        debugger["targetContainerName"] = json!("c");
        let mut astray = container("astray", "true");
        astray["targetContainerName"] = json!("nobody");
        let mut powerful = container("powerful", "exit 4");
        powerful["securityContext"] = json!({"privileged": true});
        debugged["spec"]["ephemeralContainers"] = json!([debugger, astray, powerful]);
        node.apply(&[debugged]).await;
        let of = |status: &Value, at: usize| status["ephemeralContainerStatuses"][at]["state"].clone();
        let status =
            node.until("p", "the debugger's end", |status| of(status, 1)["terminated"].is_object()).await;
        let told = &of(&status, 1)["terminated"];
        assert_eq!(told["exitCode"], 3);
        assert!(told["message"].as_str().unwrap().contains("while true; do sleep 0.1"), "{told:#}");
        let is_over = |status: &Value| of(status, 2)["terminated"]["exitCode"] == 4;
        node.until("p", "the end of a privileged one", is_over).await;
        let status = node.until("p", "a refusal", |status| {
            of(status, 0)["waiting"]["reason"] == "CreateContainerConfigError"
        });
        let status = status.await;
        assert_eq!(of(&status, 0)["waiting"]["message"], "unable to find target container nobody");
        assert_eq!((first(&status), &status["phase"]), (first(&before), &json!("Running")));
        assert!(status["conditions"].to_string().contains("Ready"));
    });
}
