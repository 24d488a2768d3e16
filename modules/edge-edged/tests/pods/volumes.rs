//! Volumes as containers see them: modes, owners, sizes, and what becomes of them when their objects go.

use std::time::Duration;

use cri::Runtime;
use edge_store::{ObjectKey, Store, Write};
use serde_json::{Value, json};

use crate::node::{
    Machine, Node, WAITS, condition, container, container_id, eventually, first, pod, run, text,
};

fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-of-{name}")}, "data": data})
}

async fn put_service(store: &Store, name: &str, spec: Value) {
    let object = json!({"metadata": {"name": name, "namespace": "default", "uid": name}, "spec": spec});
    let service = Write::PutObject {
        key: ObjectKey::new("services", "default", name),
        uid: name.to_owned(),
        content_hash: name.to_owned(),
        resource_version: "1".to_owned(),
        json: serde_json::to_vec(&object).unwrap(),
    };
    store.commit(vec![service]).await.unwrap();
}

/// A pod of one user and one group, with a volume of each kind.
fn owned() -> Value {
    let mut main = container("c", WAITS);
    main["env"] = json!([
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "FILED", "valueFrom": {"fileKeyRef": {"volumeName": "data", "path": "made/env", "key": "KEY"}}},
        {"name": "MAYBE", "valueFrom": {"fileKeyRef":
            {"volumeName": "data", "path": "made/env", "key": "NONE", "optional": true}}},
    ]);
    main["volumeMounts"] = json!([
        {"name": "secret", "mountPath": "/secret"}, {"name": "map", "mountPath": "/map"},
        {"name": "all", "mountPath": "/all"}, {"name": "memory", "mountPath": "/memory"},
        {"name": "data", "mountPath": "/data", "subPathExpr": "$(POD)/logs"},
        {"name": "data", "mountPath": "relative/data", "recursiveReadOnly": "IfPossible", "readOnly": true},
    ]);
    let mut init = container("i", "mkdir /data/made && echo \"KEY='from a file'\" > /data/made/env");
    init["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    let mut owned = pod(
        "owned",
        "",
        json!({
            "containers": [main], "initContainers": [init],
            "securityContext": {"runAsUser": 1000, "runAsGroup": 3000, "fsGroup": 2000},
            "volumes": [
                {"name": "secret", "secret": {"secretName": "key", "defaultMode": 0o400}},
                {"name": "map", "configMap": {"name": "settings", "items": [{"key": "a", "path": "deep/a", "mode": 0o600}]}},
                {"name": "all", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "token", "audience": "us"}},
                    {"downwardAPI": {"items": [
                        {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}},
                        {"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"}}]}}]}},
                {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "10Mi"}},
                {"name": "data", "emptyDir": {}},
                {"name": "unused", "secret": {"secretName": "not there"}},
            ],
        }),
    );
    owned["metadata"]["annotations"] = json!({"builder": "j\u{fc}rgen \"x\"\n"});
    owned
}

#[test]
fn every_volume_has_the_modes_and_owners_that_a_kubelet_gives() {
    run(async {
        let host = Machine::new("owners");
        let node = Node::start(&host);
        put_service(&node.store, "web-db", json!({"clusterIP": "10.0.0.9", "ports": [{"port": 5432}]})).await;
        put_service(&node.store, "kubernetes", json!({"clusterIP": "10.0.0.1", "ports": [{"port": 443}]}))
            .await;
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": {"pass": "aHVzaA=="},
            "metadata": {"name": "key", "namespace": "default", "uid": "s"}});
        node.apply(&[secret, config_map("settings", json!({"a": "1", "b": "2"})), owned()]).await;
        let status = node.until_ready("owned").await;
        let shell = async |script: &str| node.exec(&status, &["/bin/sh", "-c", script]).await;
        for (path, access) in [
            ("/secret", "3777 0 2000"),
            ("/secret/pass", "440 0 2000"),
            ("/map", "2777 0 2000"),
            ("/map/deep", "2755 0 2000"),
            ("/map/deep/a", "640 0 2000"),
            // For the one user that all containers are, and for the group.
            ("/all/token", "640 1000 2000"),
            ("/all/annotations", "644 0 2000"),
            ("/memory", "3777 0 2000"),
            ("/data", "2777 0 2000"),
            ("/relative/data", "2777 0 2000"),
        ] {
            let found = shell(&format!("stat -L -c '%a %u %g' {path}")).await;
            assert_eq!(found.trim(), access, "{path}");
        }
        assert_eq!(shell("df -k /memory | tail -1 | awk '{print $2}'").await.trim(), "10240");
        assert_eq!(shell("ls /map").await.trim(), "deep", "only the chosen key");
        assert_eq!(shell("cat /all/annotations").await, "builder=\"j\u{fc}rgen \\\"x\\\"\\n\"");
        assert!(shell("touch /data/x && ls /relative/data/owned/logs").await.contains('x'));
        assert!(shell("touch /relative/data/y").await.contains("Read-only"));
        let env = shell("env").await;
        for line in ["FILED=from a file", "WEB_DB_PORT=tcp://10.0.0.9:5432", "KUBERNETES_SERVICE_HOST="] {
            assert!(env.lines().any(|own| own == line), "{line} is not in {env}");
        }
        assert!(!env.contains("MAYBE") && !env.contains("KUBERNETES_PORT"), "{env}");
        assert!(!node.pod_folder("owned").join("volumes/kubernetes.io~secret/unused").exists());
    });
}

#[test]
fn an_object_that_is_deleted_takes_nothing_from_a_pod_that_has_it() {
    run(async {
        let host = Machine::new("objectless");
        let node = Node::start(&host);
        let mut main = container("c", WAITS);
        main["volumeMounts"] =
            json!([{"name": "v", "mountPath": "/v"}, {"name": "maybe", "mountPath": "/maybe"}]);
        let volumes = json!([{"name": "v", "configMap": {"name": "settings"}},
            {"name": "maybe", "configMap": {"name": "extra", "optional": true}}]);
        let maps = [config_map("settings", json!({"a": "1"})), config_map("extra", json!({"b": "2"}))];
        node.apply(&maps).await;
        node.apply(&[pod("p", "", json!({"containers": [main], "volumes": volumes}))]).await;
        let status = node.until_ready("p").await;
        assert_eq!(node.exec(&status, &["/bin/cat", "/v/a", "/maybe/b"]).await, "12");
        // Both objects go, edgecore is started anew, and the container is killed.
        let id = container_id(&status);
        let meanwhile = async |store: &Store, runtime: &dyn Runtime| {
            let gone = |name: &str| Write::DeleteObject {
                key: ObjectKey::new("configmaps", "default", name),
                uid: None,
            };
            store.commit(vec![gone("settings"), gone("extra")]).await.unwrap();
            runtime.stop_container(&id, Duration::ZERO).await.unwrap();
        };
        let node = node.restart(&host, meanwhile).await;
        let status = node
            .until("p", "a restart", |status| {
                first(status)["restartCount"] == 1 && condition(status, "Ready")["status"] == "True"
            })
            .await;
        assert_eq!(node.exec(&status, &["/bin/cat", "/v/a"]).await, "1");
        assert_eq!(
            node.exec(&status, &["/bin/ls", "/maybe"]).await,
            "",
            "what is optional goes with its object"
        );
        let words = "MountVolume.SetUp failed for volume \"v\" : configmap \"settings\" not found";
        let told = eventually(async || {
            let told = |(reason, message): &(String, String)| reason == "FailedMount" && message == words;
            node.events("p").iter().any(told).then_some(())
        });
        told.await.unwrap_or_else(|| panic!("{:#?}", node.events("p")));
        assert_eq!(text(&status["phase"]), "Running");
    });
}

#[test]
fn a_sub_path_that_is_wrong_is_refused_until_the_pod_says_another() {
    run(async {
        let host = Machine::new("expressions");
        let node = Node::start(&host);
        let with = |value: &str| {
            let mut main = container("c", WAITS);
            main["env"] = json!([{"name": "AT", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['at']"}}}]);
            main["volumeMounts"] = json!([{"name": "v", "mountPath": "/v", "subPathExpr": "$(AT)"}]);
            let mut pod =
                pod("p", "", json!({"containers": [main], "volumes": [{"name": "v", "emptyDir": {}}]}));
            pod["metadata"]["annotations"] = json!({"at": value});
            pod
        };
        for (value, words) in [
            ("../up", "unable to provision SubPath `$(AT)`: must not contain '..'"),
            ("/abs", "error SubPath `$(AT)` must not be an absolute path"),
            ("", "missing value for AT"),
        ] {
            node.apply(&[with(value)]).await;
            let status =
                node.until("p", words, |status| first(status)["state"]["waiting"]["message"] == words).await;
            assert_eq!(first(&status)["state"]["waiting"]["reason"], "CreateContainerConfigError");
        }
        node.apply(&[with("fine")]).await;
        node.until_ready("p").await;
        let made = node.pod_folder("p").join("volumes/kubernetes.io~empty-dir/v");
        let names: Vec<_> =
            std::fs::read_dir(made).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["fine"]);
    });
}
