//! Pods whose containers all start again because one has ended as a rule says.

use std::fs;

use serde_json::{Value, json};

use crate::node::{Machine, Node, WAITS, condition, container, eventually, pod, run};

#[test]
fn all_containers_start_again_from_the_first_init_container_in_the_same_sandbox() {
    run(async {
        let host = Machine::new("all");
        let folder = host.dir().join("told");
        fs::create_dir_all(&folder).unwrap();
        let tells = |who: &str, then: &str| {
            let mut own = container(who, &format!("echo {who} >> /told/of; {then}"));
            own["volumeMounts"] =
                json!([{"name": "told", "mountPath": "/told"}, {"name": "own", "mountPath": "/own"}]);
            own
        };
        // The first time it ends as the rule says, and later it stays.
        let mut source = tells(
            "source",
            &format!("test -e /own/again || {{ touch /own/again; sleep 1; exit 42; }}; {WAITS}"),
        );
        source["restartPolicy"] = json!("Never");
        source["restartPolicyRules"] =
            json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
        let web = pod(
            "web",
            WAITS,
            json!({
                "restartPolicy": "Never", "terminationGracePeriodSeconds": 30,
                "volumes": [{"name": "told", "hostPath": {"path": folder}}, {"name": "own", "emptyDir": {}}],
                "initContainers": [tells("first", "true")],
                "containers": [source, tells("beside", "while true; do sleep 1; done")],
            }),
        );
        let node = Node::start(&host);
        node.apply(&[web]).await;
        let again = |status: &Value| {
            let all = status["containerStatuses"].as_array().unwrap();
            all.iter().all(|own| own["restartCount"] == 1 && own["ready"] == true)
        };
        let status = node.until("web", "all to run again", again).await;
        assert_eq!(
            (&status["phase"], &status["initContainerStatuses"][0]["restartCount"]),
            (&json!("Running"), &json!(1))
        );
        let beside = &status["containerStatuses"][0];
        assert_eq!(beside["name"], "beside");
        let ended = &beside["lastState"]["terminated"];
        assert_eq!(
            (&ended["exitCode"], &ended["reason"]),
            (&json!(137), &json!("RestartingAllContainers")),
            "{status:#}"
        );
        assert_eq!(condition(&status, "AllContainersRestarting")["status"], "False");
        // A container is ready before its first line is written.
        let told = eventually(async || {
            fs::read_to_string(folder.join("of")).ok().filter(|told| told.lines().count() >= 6)
        });
        let told = told.await.expect("all have said who they are twice");
        let order: Vec<&str> = told.lines().collect();
        assert_eq!((order.iter().filter(|who| **who == "first").count(), order.len()), (2, 6), "{order:?}");
        assert_eq!(order[3], "first", "{order:?}");
        let sandboxes = node.runtime.list_sandboxes(Default::default()).await.unwrap();
        assert_eq!(sandboxes.len(), 1, "the sandbox stays");
        assert!(node.log("web", "beside", 0).len() + node.log("web", "beside", 1).len() == 0);
        let folder = node.settings.logs.join("default_web_uid-of-web/beside");
        let kept = eventually(async || (fs::read_dir(&folder).unwrap().count() == 2).then_some(())).await;
        kept.expect("its logs stay");

        // It ends so again: that waits as after any crash, whoever restarts meanwhile.
        let node = node.restart(&host, async |_, _| {}).await;
        node.until("web", "all to run", again).await;
        assert_eq!(node.status("web").unwrap()["containerStatuses"][1]["restartCount"], 1);
    });
}
