//! How pods live and end.

use std::time::Duration;

use contract::rows;
use cri::v1::{ContainerFilter, ContainerState};
use serde_json::json;

use crate::node::{
    Machine, Node, WAITS, condition, container, container_id, deleted, eventually, first, forget, pod, put,
    run, text,
};

#[test]
fn a_pod_that_was_active_for_too_long_says_so_whatever_it_does_at_an_end() {
    run(async {
        let host = Machine::new("overdue");
        let node = Node::start(&host);
        let limited = |name: &str, policy: &str| {
            pod(name, WAITS, json!({"activeDeadlineSeconds": 2, "restartPolicy": policy}))
        };
        let policies = ["Never", "OnFailure", "Always"];
        let pods = policies.map(|policy| limited(&policy.to_lowercase(), policy));
        node.apply(&pods).await;
        for policy in policies {
            let pod = policy.to_lowercase();
            let status = node.until(&pod, "its end", |status| status["phase"] == "Failed").await;
            assert_eq!(status["reason"], "DeadlineExceeded", "{status:#}");
            assert!(text(&status["message"]).contains("longer than the specified deadline"));
        }
    });
}

#[test]
fn a_killed_container_comes_back_and_a_restart_of_edged_touches_nothing() {
    run(async {
        let host = Machine::new("lives");
        let node = Node::start(&host);
        node.apply(&[pod("p", WAITS, json!({})), pod("q", WAITS, json!({}))]).await;
        let before = node.until_ready("p").await;
        let untouched = node.until_ready("q").await;
        node.runtime.stop_container(&container_id(&before), Duration::ZERO).await.unwrap();
        let after = node
            .until("p", "a restart", |status| {
                first(status)["restartCount"] == 1 && condition(status, "Ready")["status"] == "True"
            })
            .await;
        assert_ne!(container_id(&after), container_id(&before));
        assert_eq!(first(&after)["lastState"]["terminated"]["exitCode"], 137);
        assert_eq!(after["podIP"], before["podIP"]);

        // While Edged is away, one container dies and one pod is deleted for good.
        let killed = container_id(&after);
        let node = node
            .restart(&host, async |_, runtime| runtime.stop_container(&killed, Duration::ZERO).await.unwrap())
            .await;
        let again = node
            .until("p", "a second restart", |status| {
                first(status)["restartCount"] == 2 && condition(status, "Ready")["status"] == "True"
            })
            .await;
        assert_eq!(again["podIP"], before["podIP"]);
        let same = node.until_ready("q").await;
        assert_eq!(first(&same), first(&untouched));
        let seen = node.runtime.container_status(&container_id(&untouched)).await.unwrap();
        assert_eq!(seen.state(), ContainerState::ContainerRunning);

        // Of another, which was torn down when the power went, only folders are left.
        let folder = node.pod_folder("torn");
        let logs = node.settings.logs.join("default_torn_uid-of-torn");
        let meanwhile = async |store: &edge_store::Store, _: &dyn cri::Runtime| {
            forget(store, "p").await;
            std::fs::create_dir_all(folder.join("volumes/kubernetes.io~empty-dir/v")).unwrap();
            std::fs::write(folder.join("volumes/kubernetes.io~empty-dir/v/f"), "x").unwrap();
            std::fs::create_dir_all(logs.join("c")).unwrap();
        };
        let node = node.restart(&host, meanwhile).await;
        let cleared = eventually(async || (!folder.exists() && !logs.exists()).then_some(())).await;
        cleared.expect("what is left on the disk of a pod that is gone is removed");
        assert!(node.pod_folder("q").exists(), "a pod that is wanted keeps its folder");
        let left = eventually(async || {
            let left = node.runtime.list_containers(ContainerFilter::default()).await.unwrap();
            (left.len() == 1 && !node.pod_folder("p").exists()).then_some(left)
        });
        let left = left.await.expect("what nobody wants ends");
        assert_eq!(left[0].id, container_id(&untouched));

        // Another pod of the same name starts however long the end of the one before takes: here something is mounted in
        // the way of its removal.
        let in_the_way = node.settings.logs.join("default_q_uid-of-q/in the way");
        std::fs::create_dir(&in_the_way).unwrap();
        let mount = |program: &str, arguments: &[&str]| {
            let done = std::process::Command::new(program).args(arguments).arg(&in_the_way).status();
            assert!(done.unwrap().success(), "{program} {arguments:?}");
        };
        mount("mount", &["-t", "tmpfs", "tmpfs"]);
        let mut other = pod("q", WAITS, json!({}));
        other["metadata"]["uid"] = json!("another");
        node.apply(&[other]).await;
        let started = eventually(async || {
            let left = node.runtime.list_containers(ContainerFilter::default()).await.unwrap();
            let other = left.iter().all(|container| container.labels["io.kubernetes.pod.uid"] == "another");
            (left.len() == 1 && other).then_some(())
        });
        let started = started.await;
        let was_there = node.pod_folder("q").exists();
        mount("umount", &["-l"]);
        started.expect("the other pod takes the place of the first");
        assert!(was_there, "the first was still being removed");
        let gone =
            eventually(async || (!node.pod_folder("q").exists() && !in_the_way.exists()).then_some(()));
        gone.await.expect("the removal is tried again");

        node.forget("q").await;
        let empty = eventually(async || {
            let left = node.runtime.list_sandboxes(Default::default()).await.unwrap();
            (left.is_empty() && !node.settings.root.join("pods/another").exists()).then_some(())
        });
        empty.await.expect("a pod that is gone from the store ends");
    });
}

#[test]
fn a_dead_sandbox_is_replaced_and_an_image_at_hand_serves_when_its_registry_does_not() {
    run(async {
        let host = Machine::new("sandbox");
        let node = Node::start(&host);
        let mut always = container("c", WAITS);
        always["imagePullPolicy"] = json!("Always");
        let stale = pod("stale", "", json!({"containers": [always]}));
        let on_host = pod("onhost", WAITS, json!({"hostNetwork": true}));
        node.apply(&[pod("p", WAITS, json!({})), stale.clone(), on_host]).await;
        let before = node.until_ready("p").await;
        assert_eq!(node.until_ready("onhost").await["podIP"], "192.0.2.1");
        let failed = node.until("stale", "a failed pull", |status| {
            text(&first(status)["state"]["waiting"]["reason"]).contains("Pull")
        });
        // A new pod with policy Always does not get an image past its registry.
        failed.await;

        let id = node.runtime.container_status(&container_id(&before)).await.unwrap().id;
        let list = node.runtime.list_containers(ContainerFilter::default()).await.unwrap();
        let sandbox = list.iter().find(|container| container.id == id).unwrap().pod_sandbox_id.clone();
        assert!(host.ctr().args(["tasks", "kill", "--signal", "KILL", &sandbox]).status().unwrap().success());
        let after = node
            .until("p", "another sandbox", |status| {
                container_id(status) != id && condition(status, "Ready")["status"] == "True"
            })
            .await;
        assert_eq!(first(&after)["restartCount"], 1);
        assert_ne!(after["podIP"], before["podIP"]);
        let status = node.runtime.list_sandboxes(Default::default()).await.unwrap();
        assert!(status.iter().filter(|sandbox| sandbox.metadata.as_ref().unwrap().name == "p").count() <= 2);

        // As if the registry had gone since the pod was started.
        let mut gone = pod("p", WAITS, json!({}));
        gone["spec"]["containers"][0]["imagePullPolicy"] = json!("Always");
        let node = node.restart(&host, async |store, _| put(store, &[gone]).await).await;
        node.runtime.stop_container(&container_id(&after), Duration::ZERO).await.unwrap();
        node.until("p", "a restart with the image at hand", |status| {
            container_id(status) != container_id(&after) && condition(status, "Ready")["status"] == "True"
        })
        .await;
        let named = eventually(async || {
            node.events("p").iter().any(|(reason, _)| reason == "ImageNotRefreshed").then_some(())
        });
        named.await.expect("an event that says so");
    });
}

#[test]
fn grace_is_given_and_then_taken() {
    run(async {
        let host = Machine::new("grace");
        let node = Node::start(&host);
        let polite = pod(
            "polite",
            "trap 'echo bye > /dev/termination-log; exit 3' TERM; touch /on; while true; do sleep 0.1; done",
            json!({}),
        );
        const DEAF: &str = "trap '' TERM; while true; do sleep 0.1; done";
        let deaf = pod("deaf", DEAF, json!({}));
        node.apply(&[polite.clone(), deaf.clone(), pod("forced", DEAF, json!({}))]).await;
        let runs = node.until_ready("polite").await;
        node.exec(&runs, &["sh", "-c", "until test -f /on; do sleep 0.1; done"]).await;
        node.until_ready("deaf").await;
        // One is asked with much grace and needs none of it, one is deaf; then its grace is shortened.
        node.apply(&[deleted(&polite, 600), deleted(&deaf, 600)]).await;
        let ended =
            node.until("polite", "its end", |status| first(status)["state"]["terminated"].is_object()).await;
        assert_eq!(first(&ended)["state"]["terminated"]["exitCode"], 3);
        assert_eq!(first(&ended)["state"]["terminated"]["message"], "bye\n");
        assert_eq!(ended["phase"], "Failed");
        node.until_gone("polite").await;
        let deaf_now = node.status("deaf").unwrap();
        assert!(first(&deaf_now)["state"]["running"].is_object(), "{deaf_now}");
        node.apply(&[deleted(&deaf, 1)]).await;
        node.until_gone("deaf").await;

        // Deleted by force, and made anew under its name: the new one waits for nothing of the old one, which has its grace.
        let old = node.until_ready("forced").await;
        let mut new = pod("forced", WAITS, json!({}));
        new["metadata"]["uid"] = json!("another");
        node.apply(&[new]).await;
        let both = eventually(async || {
            let found = node.runtime.list_containers(ContainerFilter::default()).await.unwrap();
            let runs = found.iter().filter(|own| own.state() == ContainerState::ContainerRunning);
            let runs: Vec<_> = runs.filter(|own| own.labels["io.kubernetes.pod.name"] == "forced").collect();
            (runs.len() == 2 && runs.iter().any(|own| own.id == container_id(&old))).then_some(())
        });
        both.await.expect("both run side by side");
    });
}

#[test]
fn ends_follow_the_policy_and_crashes_wait() {
    run(async {
        let host = Machine::new("ends");
        let node = Node::start(&host);
        node.apply(&[
            pod("crashes", "echo broken > /dev/termination-log; exit 7", json!({})),
            pod("works", "exit 0", json!({"restartPolicy": "OnFailure"})),
            pod("fails", "exit 4", json!({"restartPolicy": "Never"})),
        ])
        .await;
        let status = node
            .until("crashes", "a crash loop", |status| {
                first(status)["state"]["waiting"]["reason"] == "CrashLoopBackOff"
            })
            .await;
        // The first restart is at once, the second waits.
        assert_eq!(first(&status)["restartCount"], 1);
        assert!(text(&first(&status)["state"]["waiting"]["message"]).starts_with("back-off 10s restarting"));
        let last = &first(&status)["lastState"]["terminated"];
        assert_eq!((&last["exitCode"], &last["message"]), (&json!(7), &json!("broken\n")));
        assert_eq!(
            (&status["phase"], &condition(&status, "Ready")["status"]),
            (&json!("Running"), &json!("False"))
        );
        let done = node.until("works", "success", |status| status["phase"] == "Succeeded").await;
        assert_eq!(condition(&done, "Ready")["reason"], "PodCompleted");
        let failed = node.until("fails", "failure", |status| status["phase"] == "Failed").await;
        assert_eq!(first(&failed)["state"]["terminated"]["exitCode"], 4);
        node.until("crashes", "the second restart", |status| {
            first(status)["restartCount"] == 2
                && text(&first(status)["state"]["waiting"]["message"]).starts_with("back-off 20s")
        })
        .await;
        // A crash loop is not waited for when the pod goes.
        node.apply(&[deleted(&pod("crashes", "exit 7", json!({})), 30)]).await;
        node.until_gone("crashes").await;
    });
}

#[test]
fn a_node_tells_how_it_fares_and_outlives_its_runtime() {
    run(async {
        let mut host = Machine::new("fares");
        let node = Node::start(&host);
        let report = node.until_node_is("True").await;
        assert_eq!(report["metadata"]["labels"]["node-role.kubernetes.io/edge"], "");
        assert_eq!(report["metadata"]["labels"]["kubernetes.io/hostname"], "edge-1");
        assert_eq!(report["status"]["addresses"][0], json!({"type": "InternalIP", "address": "192.0.2.1"}));
        assert!(text(&report["status"]["nodeInfo"]["containerRuntimeVersion"]).starts_with("containerd://"));
        assert!(report["status"]["allocatable"]["pods"] == "110");
        node.apply(&[
            pod("p", WAITS, json!({})),
            pod(
                "waits",
                "exit 1",
                json!({
            "containers": [{"name": "c", "image": "kubehive.test/absent:1", "imagePullPolicy": "Never"}]}),
            ),
        ])
        .await;
        let before = node.until_ready("p").await;
        node.until("waits", "its reason", |status| {
            first(status)["state"]["waiting"]["reason"] == "ErrImageNeverPull"
        })
        .await;
        let snapshot = node.snapshot().await;
        assert_eq!(snapshot, json!({"pods": {"Running": 1, "Pending": 1}, "ready": "True"}));

        host.kill_runtime().unwrap();
        let report = node.until_node_is("False").await;
        assert!(report.to_string().contains("container runtime is down"));
        let alive = node.heard.borrow().alive;
        let goes_on = eventually(async || (node.heard.borrow().alive > alive + 1).then_some(()));
        goes_on.await.expect("a dead runtime does not stop Edged");
        host.restart_runtime().unwrap();
        node.until_node_is("True").await;
        // What happens after the runtime is back is seen again.
        node.runtime.stop_container(&container_id(&before), Duration::ZERO).await.unwrap();
        node.until("p", "a restart", |status| {
            first(status)["restartCount"] == 1 && condition(status, "Ready")["status"] == "True"
        })
        .await;
    });
}

#[test]
fn a_disk_that_does_not_answer_holds_up_no_sign_of_life() {
    let mut threads = tokio::runtime::Builder::new_current_thread();
    threads.enable_all().max_blocking_threads(1);
    actix_rt::System::with_tokio_rt(move || threads.build().unwrap()).block_on(async {
        let host = Machine::new("disk");
        let node = Node::start(&host);
        node.until_node_is("True").await;
        // The only thread for files is held, as by a call that the kernel doesn't come back from.
        let (go, may_go) = std::sync::mpsc::channel::<()>();
        let held = tokio::task::spawn_blocking(move || may_go.recv());
        let before = node.heard.borrow().alive;
        let alive = eventually(async || (node.heard.borrow().alive >= before + 4).then_some(())).await;
        alive.expect("Edged says that it makes progress");
        assert!(!held.is_finished());
        go.send(()).unwrap();
        held.await.unwrap().unwrap();
        // And the report that waited is made.
        node.apply(&[pod("p", WAITS, json!({}))]).await;
        node.until_ready("p").await;
    });
}

/// KubeEdge's hold of upgrades: what has arrived waits on the node until it is released there, over a restart too.
#[test]
fn a_held_pod_waits_until_it_is_released_on_the_node() {
    run(async {
        let host = Machine::new("held");
        let node = Node::start(&host);
        let mut held = pod("held", WAITS, json!({}));
        held["metadata"]["annotations"] = json!({"edge.kubeedge.io/hold-upgrade": "true"});
        node.apply(std::slice::from_ref(&held)).await;
        let status = node
            .until("held", "its hold", |status| condition(status, "HeldUpgrade")["status"] == "True")
            .await;
        assert_eq!(status["phase"], "Pending");
        assert_eq!(condition(&status, "HeldUpgrade")["reason"], "HoldUpgradeEnabled");
        let node = node.restart(&host, async |_, _| {}).await;
        let status = node.until("held", "its hold", |status| status["reason"] == "HeldUpgrade").await;
        assert!(first(&status)["containerID"].is_null());
        let released = edge_store::Write::PutRow {
            table: edge_store::Table::Facts,
            key1: rows::RELEASED_PODS_FACT.to_owned(),
            key2: "uid-of-held".to_owned(),
            value: Vec::new(),
        };
        node.store.commit(vec![released]).await.unwrap();
        let status = node.until_ready("held").await;
        assert!(condition(&status, "HeldUpgrade").is_null(), "{status}");
        let node = node.restart(&host, async |_, _| {}).await;
        node.until_ready("held").await;
        node.apply(&[deleted(&held, 2)]).await;
        node.until_gone("held").await;
        node.forget("held").await;
        let left = || node.store.list_rows(edge_store::Table::Facts, Some(rows::RELEASED_PODS_FACT)).unwrap();
        eventually(async || left().is_empty().then_some(())).await.expect("its release is forgotten with it");
    });
}
