//! Jobs on nodes, both sides together: over restarts of either one, and with nodes that are away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use harness::{Cluster, LONG, LinkTransport, Node, run};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

const V1ALPHA2: &str = "operations.kubeedge.io/v1alpha2";

/// These edgecores are no programs that could be exchanged, and say so; how an exchange goes is shown where there is one
/// (`edge/keadm/tests/upgrade`), and what becomes of its end in the tests of `edge-taskmanager`.
#[test]
fn an_upgrade_of_a_fleet_stops_at_the_first_node_that_cannot_and_says_why() {
    run(async || {
        let mut cluster = cluster().await;
        let first = node(&mut cluster, "edge-1").await;
        let second = node(&mut cluster, "edge-2").await;
        let upgrade = async |name: &str, spec: Value| {
            cluster
                .apply(V1ALPHA2, "NodeUpgradeJob", json!({"metadata": {"name": name}, "spec": spec}))
                .await;
            let jobs = cluster.objects(V1ALPHA2, "NodeUpgradeJob", None);
            let looking = async {
                loop {
                    let status =
                        jobs.get(name).await.unwrap().data.get("status").cloned().unwrap_or_default();
                    if status["phase"] == "Failure" {
                        return status;
                    }
                    cluster.env().sleep(std::time::Duration::from_millis(50)).await;
                }
            };
            cluster.env().timeout(LONG, looking).await.expect("it fails")
        };
        let nodes = json!(["edge-1", "edge-2"]);
        let spec = json!({"version": "v9.0.0", "image": "r.example/package", "nodeNames": nodes, "timeoutSeconds": 60});
        let status = upgrade("spring", spec).await;
        assert_eq!(phases(&status), ["Failure", "Pending"], "{status}");
        let of = &status["nodeStatus"][0];
        assert_eq!(
            (&of["actionFlow"][0]["action"], &of["actionFlow"][0]["status"]),
            (&json!("Check"), &json!("False"))
        );
        assert!(of["reason"].as_str().unwrap().contains("keadm upgrade edge"), "{status}");
        let hostile = json!({"version": "v1.0.0;reboot", "image": "r.example/package", "nodeNames": nodes});
        let status = upgrade("shell", hostile).await;
        assert!(status["reason"].as_str().unwrap().contains("version is no release"), "{status}");
        drop((first, second));
    });
}

/// What keadm does with it is shown where there is one (`edge/keadm/tests/upgrade`): here it finds that nothing is left to do.
#[test]
fn values_of_settings_are_judged_in_the_cloud_and_on_the_node_and_a_fleet_stops_where_they_are_refused() {
    run(async || {
        let mut cluster = cluster().await;
        let mut first = node(&mut cluster, "edge-1").await;
        let mut second = node(&mut cluster, "edge-2").await;
        let mut files = Vec::new();
        for (node, heartbeat) in [(&mut first, 15), (&mut second, 20)] {
            cluster.until_ready(node).await;
            node.stop().await;
            let text = format!("modules:\n  edgeHub:\n    heartbeat: {heartbeat}\n");
            files.push((node.exchange_settings_by(Path::new("/bin/true"), &text), text));
            node.start().await;
            cluster.until_ready(node).await;
        }
        let update = async |name: &str, fields: Value| {
            let spec = json!({"updateFields": fields, "labelSelector": {"matchLabels": {"kubernetes.io/os": "linux"}}});
            cluster
                .apply(V1ALPHA2, "ConfigUpdateJob", json!({"metadata": {"name": name}, "spec": spec}))
                .await;
            let jobs = cluster.objects(V1ALPHA2, "ConfigUpdateJob", None);
            let looking = async {
                loop {
                    let status =
                        jobs.get(name).await.unwrap().data.get("status").cloned().unwrap_or_default();
                    if status["phase"] == "Failure" || status["phase"] == "Completed" {
                        return status;
                    }
                    cluster.env().sleep(std::time::Duration::from_millis(50)).await;
                }
            };
            cluster.env().timeout(LONG, looking).await.expect("it ends")
        };
        let status = update("calm", json!({"modules.edgeHub.heartbeat": "20"})).await;
        assert_eq!(
            (&status["phase"], phases(&status)),
            (&json!("Completed"), vec!["Successful".to_owned(); 2]),
            "{status}"
        );
        let of = |status: &Value, node: usize| status["nodeStatus"][node].clone();
        assert_eq!(of(&status, 0)["actionFlow"][0]["action"], "Check");
        assert!(of(&status, 1)["reason"].as_str().unwrap().contains("nothing was changed"), "{status}");
        for (name, fields, said) in [
            (
                "mistyped",
                json!({"modules.edgeHub.heartbeet": "20"}),
                "`modules.edgeHub.heartbeet` is no setting",
            ),
            (
                "stolen",
                json!({"modules.edgeHub.quic.server": "evil.example:1"}),
                "may be changed by no job: it decides to which cloud",
            ),
        ] {
            let status = update(name, fields).await;
            assert_eq!(phases(&status), ["Failure", "Pending"], "{status}");
            assert_eq!(of(&status, 0)["actionFlow"][0]["status"], "False");
            assert!(of(&status, 0)["reason"].as_str().unwrap().contains(said), "{status}");
        }
        let status = update("lines", json!({"modules.edgeHub.heartbeat": "20\nkind: CloudCore"})).await;
        assert!(status["reason"].as_str().unwrap().contains("has a line break"), "{status}");
        assert!(status.get("nodeStatus").is_none(), "{status}");
        for (file, text) in files {
            assert_eq!(std::fs::read_to_string(file).unwrap(), text);
        }
    });
}

async fn cluster() -> Cluster {
    cluster_over(LinkTransport::Memory).await
}

async fn cluster_over(carrier: LinkTransport) -> Cluster {
    let mut cluster = Cluster::over(carrier).await;
    cluster.reconfigure_cloud(|settings| settings.modules.task_manager.enable = true).await;
    cluster
}

async fn node(cluster: &mut Cluster, name: &str) -> Node {
    let mut node = cluster.node(name).await;
    // One that is ended in the middle of its first link is let in again a minute later.
    cluster.until_ready(&node).await;
    node.stop().await;
    node.configure(|settings| settings.modules.task_manager.enable = true);
    node.start().await;
    node
}

async fn job(cluster: &Cluster, name: &str, template: Value) {
    let object = json!({"metadata": {"name": name}, "spec": {"imagePrePullTemplate": template}});
    cluster.apply(V1ALPHA2, "ImagePrePullJob", object).await;
}

async fn status(cluster: &Cluster, name: &str) -> Value {
    let jobs = cluster.objects(V1ALPHA2, "ImagePrePullJob", None);
    let found: DynamicObject = jobs.get(name).await.unwrap();
    found.data.get("status").cloned().unwrap_or_default()
}

async fn until(cluster: &Cluster, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let looking = async {
        loop {
            let status = status(cluster, name).await;
            if holds(&status) {
                return status;
            }
            cluster.env().sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    match cluster.env().timeout(LONG, looking).await {
        Some(status) => status,
        None => panic!("waited in vain: {what}: {}", status(cluster, name).await),
    }
}

fn phases(status: &Value) -> Vec<String> {
    let nodes = status["nodeStatus"].as_array().cloned().unwrap_or_default();
    nodes.iter().map(|node| node["phase"].as_str().unwrap_or_default().to_owned()).collect()
}

/// The jobs that a node holds.
fn held(node: &Node) -> usize {
    node.core().store().list_objects("imageprepulljobs.operations.kubeedge.io", None).unwrap().len()
}

#[test]
fn images_are_pulled_on_one_node_after_the_other_and_what_becomes_of_each_stands_in_the_status() {
    run(async || {
        let mut cluster = cluster().await;
        let first = node(&mut cluster, "edge-1").await;
        let second = node(&mut cluster, "edge-2").await;
        for node in [&first, &second] {
            node.runtime().add_image("web:1");
        }
        second.runtime().add_image("only-here:1");
        let template = json!({
            "images": ["web:1", "only-here:1"], "labelSelector": {"matchLabels": {"kubernetes.io/os": "linux"}},
            "checkItems": ["mem"], "failureTolerate": "0.5",
        });
        job(&cluster, "night", template).await;
        let status = until(&cluster, "night", "it ends", |status| status["phase"] == "Completed").await;
        assert_eq!(phases(&status), ["Failure", "Successful"], "{status}");
        let of = &status["nodeStatus"][0];
        assert_eq!(
            (&of["nodeName"], &of["actionFlow"][0]["action"], &of["actionFlow"][0]["status"]),
            (&json!("edge-1"), &json!("Check"), &json!("True"))
        );
        assert_eq!(
            (&of["actionFlow"][1]["action"], &of["actionFlow"][1]["status"]),
            (&json!("Pull"), &json!("False"))
        );
        assert_eq!(
            (
                &of["imageStatus"][0]["status"],
                &of["imageStatus"][1]["image"],
                &of["imageStatus"][1]["status"]
            ),
            (&json!("True"), &json!("only-here:1"), &json!("False"))
        );
        assert!(!of["imageStatus"][1]["reason"].as_str().unwrap().is_empty(), "{status}");
        // What is through leaves the nodes.
        cluster.until("the nodes hold no job any more", || held(&first) + held(&second) == 0).await;
        // A node that is no edge node of this cluster, and a job that makes no sense.
        job(&cluster, "nobody", json!({"images": ["web:1"], "nodeNames": ["edge-9"]})).await;
        let status = until(&cluster, "nobody", "it fails", |status| status["phase"] == "Failure").await;
        assert_eq!(status["nodeStatus"][0]["reason"], "there is no Node of this name");
        job(&cluster, "both", json!({"images": ["web:1"]})).await;
        let status = until(&cluster, "both", "it fails", |status| status["phase"] == "Failure").await;
        assert!(status["reason"].as_str().unwrap().contains("write nodeNames"), "{status}");
        job(&cluster, "shell", json!({"images": ["$(reboot)"], "nodeNames": ["edge-1"]})).await;
        let status = until(&cluster, "shell", "it fails", |status| status["phase"] == "Failure").await;
        assert!(status["reason"].as_str().unwrap().contains("is no image"), "{status}");
    });
}

#[test]
fn a_job_goes_on_over_restarts_of_both_sides_and_while_the_node_is_away() {
    run(async || {
        let mut cluster = cluster_over(LinkTransport::Quic).await;
        let mut node = node(&mut cluster, "edge-1").await;
        let template = json!({
            "images": ["web:1"], "nodeNames": ["edge-1"], "checkItems": ["mem"], "timeoutSeconds": 600, "retryTimes": 9,
        });
        job(&cluster, "away", template).await;
        // The image is not there yet: the node tries again for a while, and the cloud goes meanwhile.
        until(&cluster, "away", "the node is at it", |status| {
            status["nodeStatus"][0]["actionFlow"][0]["action"] == "Check"
        })
        .await;
        assert_eq!(held(&node), 1);
        cluster.stop_cloud().await;
        node.runtime().add_image("web:1");
        cluster
            .until_async("the node is through without the cloud", async || {
                let parts = node.snapshot("edge-taskmanager").await["parts"].clone();
                parts.as_object().unwrap().values().any(|phase| phase == "Successful")
            })
            .await;
        node.stop().await;
        node.start().await;
        cluster.start_cloud().await;
        let status =
            until(&cluster, "away", "the end arrives", |status| status["phase"] == "Completed").await;
        assert_eq!(phases(&status), ["Successful"], "{status}");
        cluster.until("the node holds no job any more", || held(&node) == 0).await;
        let jobs = cluster.objects(V1ALPHA2, "ImagePrePullJob", None);
        jobs.delete("away", &DeleteParams::default()).await.unwrap();
    });
}

#[test]
fn a_job_stays_as_it_was_made() {
    run(async || {
        let cluster = Cluster::over(LinkTransport::Memory).await;
        job(&cluster, "night", json!({"images": ["web:1"], "nodeNames": ["edge-9"]})).await;
        let jobs = cluster.objects(V1ALPHA2, "ImagePrePullJob", None);
        let patched = async |patch: Value| {
            jobs.patch("night", &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop)
        };
        for spec in [json!({"imagePrePullTemplate": {"images": ["web:2"]}}), json!(null)] {
            let refused = patched(json!({ "spec": spec })).await.unwrap_err();
            assert!(refused.to_string().contains("make another one"), "{spec}: {refused}");
        }
        patched(json!({"metadata": {"labels": {"a": "b"}}})).await.unwrap();
    });
}

#[test]
fn a_node_that_does_no_jobs_fails_and_says_what_to_do() {
    run(async || {
        let mut cluster = cluster().await;
        let node = cluster.node("edge-1").await;
        cluster.until_ready(&node).await;
        job(&cluster, "off", json!({"images": ["web:1"], "nodeNames": ["edge-1"]})).await;
        let status = until(&cluster, "off", "it fails", |status| status["phase"] == "Failure").await;
        let reason = status["nodeStatus"][0]["reason"].as_str().unwrap();
        assert!(reason.contains("modules.taskManager.enable"), "{status}");
    });
}

#[test]
fn a_job_while_the_cloud_does_none_says_so_until_it_does() {
    run(async || {
        let mut cluster = Cluster::over(LinkTransport::Memory).await;
        job(&cluster, "off", json!({"images": ["web:1"], "nodeNames": ["edge-9"]})).await;
        let status = until(&cluster, "off", "it says so", |status| status["reason"].is_string()).await;
        let reason = status["reason"].as_str().unwrap();
        assert!(reason.contains("modules.taskManager.enable is false in cloudcore.yaml"), "{status}");
        assert_eq!((&status["phase"], phases(&status).len()), (&json!(""), 0), "nobody has begun it");
        cluster.reconfigure_cloud(|settings| settings.modules.task_manager.enable = true).await;
        let status = until(&cluster, "off", "it is looked at", |status| status["phase"] == "Failure").await;
        assert_eq!(status["nodeStatus"][0]["reason"], "there is no Node of this name");
        assert!(status["reason"].as_str().unwrap().contains("1 of 1 nodes failed"), "{status}");
    });
}

#[test]
fn a_job_that_is_too_large_to_be_read_has_failed_and_says_so_and_holds_up_no_other() {
    run(async || {
        let cluster = cluster().await;
        let images = vec!["a"; kubewatch::VALUES_MAX];
        job(&cluster, "large", json!({"images": images, "nodeNames": ["edge-9"]})).await;
        let status = until(&cluster, "large", "it fails", |status| status["phase"] == "Failure").await;
        let reason = status["reason"].as_str().unwrap();
        assert!(reason.contains("CloudCore does not read the job: it is too large"), "{status}");
        assert!(phases(&status).is_empty(), "{status}");
        job(&cluster, "small", json!({"images": ["web:1"], "nodeNames": ["edge-9"]})).await;
        let status = until(&cluster, "small", "it is looked at", |status| status["phase"] == "Failure").await;
        assert_eq!(status["nodeStatus"][0]["reason"], "there is no Node of this name");
    });
}
