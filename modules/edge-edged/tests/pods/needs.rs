//! What a pod needs, and what it gets.

use std::time::Duration;

use cri::Runtime;
use edge_store::Store;
use serde_json::{Value, json};

use crate::node::{
    Machine, Node, WAITS, condition, container, container_id, deleted, eventually, first, pod, run, text,
};

/// `key=value` lines of a container's environment.
fn has(env: &str, line: &str) -> bool {
    env.lines().any(|own| own == line)
}

fn config_map(value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "settings", "namespace": "default", "uid": "m"},
        "data": {"colour": value, "size": "7"}})
}

fn secret() -> Value {
    // "hush"
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key", "namespace": "default", "uid": "s"},
        "type": "Opaque", "data": {"pass": "aHVzaA=="}})
}

fn needy() -> Value {
    let mut main = container("c", &format!("echo hello; {WAITS}"));
    main["env"] = json!([
        {"name": "PLAIN", "value": "one"},
        {"name": "NESTED", "value": "$(PLAIN)-two"},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}},
        {"name": "PASS", "valueFrom": {"secretKeyRef": {"name": "key", "key": "pass"}}},
        {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
    ]);
    main["envFrom"] = json!([{"prefix": "ALL_", "configMapRef": {"name": "settings"}}]);
    main["resources"] = json!({"limits": {"memory": "32Mi", "cpu": "500m"}});
    main["volumeMounts"] = json!([
        {"name": "scratch", "mountPath": "/scratch"},
        {"name": "map", "mountPath": "/map"},
        {"name": "secret", "mountPath": "/secret", "readOnly": true},
        {"name": "all", "mountPath": "/all"},
        {"name": "memory", "mountPath": "/memory"},
        {"name": "map", "mountPath": "/one/colour", "subPath": "colour"},
        {"name": "machine", "mountPath": "/machine", "readOnly": true},
    ]);
    let mut init = container("i", "echo made > /scratch/by-init");
    init["volumeMounts"] = json!([{"name": "scratch", "mountPath": "/scratch"}]);
    pod(
        "needy",
        "",
        json!({
            "containers": [main],
            "initContainers": [init],
            "volumes": [
                {"name": "scratch", "emptyDir": {}},
                {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                {"name": "map", "configMap": {"name": "settings", "defaultMode": 0o444}},
                {"name": "secret", "secret": {"secretName": "key"}},
                {"name": "machine", "hostPath": {"path": "/etc", "type": "Directory"}},
                {"name": "all", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600, "audience": "us"}},
                    {"configMap": {"name": "settings", "items": [{"key": "size", "path": "deep/size"}]}},
                    {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                ]}},
            ],
        }),
    )
}

#[test]
fn a_pod_gets_all_it_needs_and_leaves_nothing() {
    run(async {
        let host = Machine::new("needs");
        let node = Node::start(&host);
        // The pod is there before what it needs.
        node.apply(&[needy()]).await;
        node.until("needy", "a volume to miss", |status| {
            text(&status["initContainerStatuses"][0]["state"]["waiting"]["message"]).contains("not found")
        })
        .await;
        node.apply(&[config_map("red"), secret()]).await;
        let status = node.until_ready("needy").await;

        assert_eq!(status["phase"], "Running");
        assert!(text(&status["podIP"]).starts_with(&host.pod_prefix()), "{status}");
        assert_eq!((&status["hostIP"], &status["qosClass"]), (&json!("192.0.2.1"), &json!("Burstable")));
        for kind in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
            assert_eq!(condition(&status, kind)["status"], "True", "{kind}");
        }
        assert_eq!(status["initContainerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
        assert_eq!((&first(&status)["restartCount"], &first(&status)["ready"]), (&json!(0), &json!(true)));

        let env = node.exec(&status, &["/bin/env"]).await;
        let ip = format!("IP={}", text(&status["podIP"]));
        for line in [
            "PLAIN=one",
            "NESTED=one-two",
            "NODE=edge-1",
            &ip,
            "COLOUR=red",
            "PASS=hush",
            "MEM=32",
            "ALL_size=7",
            "HOSTNAME=needy",
        ] {
            assert!(has(&env, line), "{line} is not in {env}");
        }
        for (path, want) in [
            ("/scratch/by-init", "made\n"),
            ("/map/colour", "red"),
            ("/secret/pass", "hush"),
            ("/all/token", "token 0"),
            ("/all/deep/size", "7"),
            ("/all/labels", "app=\"needy\""),
            ("/one/colour", "red"),
        ] {
            assert_eq!(node.exec(&status, &["/bin/cat", path]).await, want, "{path}");
        }
        assert!(!node.exec(&status, &["/bin/cat", "/machine/passwd"]).await.contains("can't open"));
        assert!(node.exec(&status, &["/bin/cat", "/etc/hosts"]).await.contains("\tneedy\n"));
        assert!(node.exec(&status, &["/bin/touch", "/machine/x"]).await.contains("Read-only"));
        let full =
            node.exec(&status, &["/bin/dd", "if=/dev/zero", "of=/memory/f", "bs=1k", "count=2000"]).await;
        assert!(full.contains("No space left"), "{full}");
        let query = node.heard.borrow().queries[0].clone();
        assert_eq!((query.audiences, query.pod_name), (vec!["us".to_owned()], "needy".to_owned()));
        let log = node.settings.logs.join("default_needy_uid-of-needy/c/0.log");
        let said = async || std::fs::read_to_string(&log).ok()?.contains("stdout F hello").then_some(());
        eventually(said).await.expect("its first line is in its log");

        // Files follow the config map while the container runs; what was mounted by subPath stays.
        node.apply(&[config_map("blue")]).await;
        let changed = eventually(async || {
            (node.exec(&status, &["/bin/cat", "/map/colour"]).await == "blue").then_some(())
        });
        changed.await.expect("the file follows the config map");
        assert_eq!(node.exec(&status, &["/bin/cat", "/one/colour"]).await, "red");
        assert_eq!(node.status("needy").unwrap()["containerStatuses"], status["containerStatuses"]);

        // Without the cloud, and with Edged started anew, the pod runs with what the store holds.
        node.heard.borrow_mut().offline = true;
        let id = container_id(&status);
        let kill = async |_: &Store, runtime: &dyn Runtime| {
            runtime.stop_container(&id, Duration::ZERO).await.unwrap();
        };
        let node = node.restart(&host, kill).await;
        let status = node
            .until("needy", "a restart without the cloud", |status| {
                first(status)["restartCount"] == 1 && condition(status, "Ready")["status"] == "True"
            })
            .await;
        assert_eq!(node.exec(&status, &["/bin/cat", "/all/token"]).await, "token 0");
        assert_eq!(node.exec(&status, &["/bin/cat", "/one/colour"]).await, "blue");
        assert_eq!(node.exec(&status, &["/bin/cat", "/scratch/by-init"]).await, "made\n");
        assert_eq!(status["initContainerStatuses"][0]["restartCount"], 0);

        node.apply(&[deleted(&needy(), 2)]).await;
        node.until_gone("needy").await;
        assert!(!node.pod_folder("needy").exists());
        assert!(!node.settings.logs.join("default_needy_uid-of-needy").exists());
        let mounts = mountinfo::here().unwrap();
        assert!(!mounts.iter().any(|mount| mount.point.starts_with(node.pod_folder("needy"))));
    });
}

#[test]
fn what_cannot_be_honoured_is_named_and_what_is_unsafe_does_not_run() {
    run(async {
        let host = Machine::new("fields");
        let node = Node::start(&host);
        let mut odd = container("c", WAITS);
        odd["brandNew"] = json!({"of": "a later Kubernetes"});
        let odd = pod("odd", "", json!({"containers": [odd]}));
        let portworx = json!([{"name": "v", "portworxVolume": {"volumeID": "x"}}]);
        let unsafe_one = pod("unsafe", WAITS, json!({"volumes": portworx}));
        let attached = pod(
            "attached",
            WAITS,
            json!({"volumes": [
            {"name": "v", "iscsi": {"targetPortal": "x", "iqn": "y", "lun": 0}}]}),
        );
        node.apply(&[odd, unsafe_one.clone(), attached]).await;

        let status = node.until_ready("odd").await;
        let named = condition(&status, "kubehive.io/FieldsNotHonoured");
        assert!(text(&named["message"]).contains("spec.containers[c].brandNew"), "{named}");
        for (pod, field) in
            [("unsafe", "spec.volumes[v].portworxVolume"), ("attached", "spec.volumes[v].iscsi")]
        {
            let status =
                node.until(pod, "its refusal", |status| status["reason"] == "FieldsNotSupported").await;
            assert_eq!(status["phase"], "Pending");
            let named = condition(&status, "kubehive.io/FieldsNotHonoured");
            assert!(text(&named["message"]).contains(field), "{named}");
            assert_eq!(first(&status)["state"]["waiting"]["reason"], "FieldsNotSupported");
        }
        let told = |pod: &str, reason: &str, field: &str| {
            node.events(pod).iter().any(|(own, message)| own == reason && message.contains(field))
        };
        let events = eventually(async || {
            let all = told("odd", "FieldsNotHonoured", "brandNew")
                && told("unsafe", "FieldsNotSupported", "portworxVolume")
                && told("attached", "FieldsNotSupported", "iscsi");
            all.then_some(())
        });
        events.await.expect("events that name the fields");
        let sandboxes = node.runtime.list_sandboxes(Default::default()).await.unwrap();
        assert_eq!(sandboxes.len(), 1, "only the pod that may run has a sandbox");
        // A refused pod can be deleted.
        node.apply(&[deleted(&unsafe_one, 2)]).await;
        node.until_gone("unsafe").await;
    });
}
