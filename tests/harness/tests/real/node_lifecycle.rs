//! A node's life in a real cluster.

use harness::{Cluster, Node, RealCluster, run};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, LogParams, Patch, PatchParams};
use serde_json::json;

/// What a file of a pod's volume on the node holds.
fn on_disk(node: &Node, uid: &str, volume: &str, file: &str) -> String {
    let pods = node.folder().join("kubelet/pods").join(uid).join("volumes");
    let folder = walk(&pods).into_iter().find(|path| path.ends_with(format!("{volume}/{file}")));
    folder.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default()
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let below = |path: std::path::PathBuf| if path.is_dir() { walk(&path) } else { vec![path] };
    entries.flat_map(|entry| below(entry.path())).collect()
}

#[test]
fn a_node_lives_in_a_real_cluster_by_the_account_that_ships() {
    run(async || {
        let Some(real) = RealCluster::named().await else { return };
        let (admin, id) = (real.admin(), std::process::id());
        let mut cluster = Cluster::beside(real).await;
        let namespace = format!("kubehive-life-{id}");
        let ns = Some(namespace.as_str());
        cluster.apply("v1", "Namespace", json!({"metadata": {"name": namespace}})).await;
        cluster
            .apply("v1", "ServiceAccount", json!({"metadata": {"name": "plain", "namespace": namespace}}))
            .await;
        let page = json!({"metadata": {"name": "page", "namespace": namespace}, "data": {"text": "one"}});
        cluster.apply("v1", "ConfigMap", page).await;
        let key =
            json!({"metadata": {"name": "key", "namespace": namespace}, "stringData": {"text": "secret"}});
        cluster.apply("v1", "Secret", key).await;

        let mut node = cluster.node(&format!("kubehive-life-{id}")).await;
        cluster.until_ready(&node).await;
        node.runtime().add_image("web:1");
        // Its ServiceAccount's token comes with it, and the cluster's CA in a config map that another controller makes.
        let pod = json!({"metadata": {"name": "web", "namespace": namespace}, "spec": {
            "nodeName": node.name(), "serviceAccountName": "plain", "terminationGracePeriodSeconds": 1,
            "volumes": [{"name": "page", "configMap": {"name": "page"}}, {"name": "key", "secret": {"secretName": "key"}}],
            "containers": [{"name": "web", "image": "web:1", "volumeMounts": [
                {"name": "page", "mountPath": "/page"}, {"name": "key", "mountPath": "/key"}]}]}});
        let uid = cluster.apply("v1", "Pod", pod).await.metadata.uid.unwrap();
        cluster.until("its container runs", || node.runtime().running().iter().any(|c| c.uid == uid)).await;
        assert_eq!(on_disk(&node, &uid, "key", "text"), "secret");
        assert_eq!(on_disk(&node, &uid, "page", "text"), "one");
        let pods = cluster.objects("v1", "Pod", ns);
        cluster
            .until_async("the pod is Running", async || {
                pods.get("web").await.unwrap().data["status"]["phase"] == "Running"
            })
            .await;
        let generation = pods.get("web").await.unwrap().metadata.generation;
        assert_eq!(generation, Some(1), "CloudCore changed its spec");
        let patch = Patch::Merge(json!({"data": {"text": "two"}}));
        let maps = cluster.objects("v1", "ConfigMap", ns);
        maps.patch("page", &PatchParams::default(), &patch).await.unwrap();
        cluster.until("the volume follows", || on_disk(&node, &uid, "page", "text") == "two").await;

        // Another CloudCore lists everything again, and takes nothing away.
        cluster.stop_cloud().await;
        cluster.start_cloud().await;
        pods.delete("web", &DeleteParams::default()).await.unwrap();
        cluster.until("its container is gone", || node.runtime().running().is_empty()).await;
        cluster.until_async("the pod is gone", async || pods.get_opt("web").await.unwrap().is_none()).await;
        let lease = "coordination.k8s.io/v1";
        let leases = harness::objects(admin.clone(), lease, "Lease", Some("kube-node-lease"));
        assert!(leases.get(node.name()).await.unwrap().data["spec"]["renewTime"].is_string());
        let uid = cluster.objects("v1", "Node", None).get(node.name()).await.unwrap().metadata.uid.unwrap();
        cluster
            .until_async("the Lease goes with its Node, as a kubelet's does", async || {
                let owners =
                    leases.get(node.name()).await.unwrap().metadata.owner_references.unwrap_or_default();
                owners.iter().any(|owner| owner.kind == "Node" && owner.uid == uid)
            })
            .await;
        node.stop().await;
        cluster.stop_cloud().await;
        let now = DeleteParams::default();
        for (version, kind) in [("v1", "Node"), ("kubehive.io/v1alpha1", "EdgeNode")] {
            let _ = cluster.objects(version, kind, None).delete(node.name(), &now).await;
        }
        let _ = cluster.objects("v1", "Namespace", None).delete(&namespace, &now).await;
    });
}

/// By the policy of `eviction.yaml`, which takes off what the node lifecycle controller and everybody else puts there.
#[test]
fn a_node_that_is_cut_off_keeps_its_pods_and_those_that_ask_for_it_are_evicted() {
    run(async || {
        let Some(real) = RealCluster::named().await else { return };
        let id = std::process::id();
        let mut cluster = Cluster::beside(real).await;
        let (namespace, name) = (format!("kubehive-cut-{id}"), format!("kubehive-cut-{id}"));
        let ns = Some(namespace.as_str());
        cluster.apply("v1", "Namespace", json!({"metadata": {"name": namespace}})).await;
        cluster
            .apply("v1", "ServiceAccount", json!({"metadata": {"name": "plain", "namespace": namespace}}))
            .await;
        let mut node = cluster.node(&name).await;
        cluster.until_ready(&node).await;
        node.runtime().add_image("web:1");
        let pods = cluster.objects("v1", "Pod", ns);
        for (pod, asks) in [("stays", "false"), ("leaves", "true")] {
            let tolerates = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1});
            let labels = json!({"kubehive.io/keep-eviction": asks});
            let metadata = json!({"name": pod, "namespace": namespace, "labels": labels});
            let spec = json!({"nodeName": name, "serviceAccountName": "plain", "containers": [{"name": "c", "image": "web:1"}],
                "tolerations": [tolerates("node.kubernetes.io/unreachable"), tolerates("node.kubernetes.io/not-ready")]});
            cluster.apply("v1", "Pod", json!({"metadata": metadata, "spec": spec})).await;
            cluster
                .until_async(&format!("{pod} runs"), async || {
                    pods.get(pod).await.unwrap().data["status"]["phase"] == "Running"
                })
                .await;
        }
        node.stop().await;
        // As the node lifecycle controller writes it by itself after 50 s; the taints are its own.
        let nodes = cluster.objects("v1", "Node", None);
        let silent =
            Patch::Strategic(json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}));
        nodes.patch_status(&name, &PatchParams::default(), &silent).await.unwrap();
        let taints = async || {
            let taints = nodes.get(&name).await.unwrap().data["spec"]["taints"].clone();
            let taints = taints.as_array().cloned().unwrap_or_default();
            let shown = taints.iter().map(|taint| {
                format!("{}:{}", taint["key"].as_str().unwrap(), taint["effect"].as_str().unwrap())
            });
            shown.collect::<Vec<_>>()
        };
        cluster
            .until_async("the pod that asks for it is evicted", async || {
                // Without its node it stays until somebody forces its end.
                pods.get_opt("leaves")
                    .await
                    .unwrap()
                    .is_none_or(|pod| pod.metadata.deletion_timestamp.is_some())
            })
            .await;
        cluster
            .until_async("no new pod goes there", async || {
                taints().await.contains(&"node.kubernetes.io/unreachable:NoSchedule".to_owned())
            })
            .await;
        let driven = Patch::Merge(json!({"spec": {"taints": [
            {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"},
            {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]}}));
        nodes.patch(&name, &PatchParams::default(), &driven).await.unwrap();
        assert_eq!(taints().await, ["node.kubernetes.io/unreachable:NoSchedule"]);
        let stays = pods.get("stays").await.unwrap();
        assert_eq!((stays.metadata.deletion_timestamp, stays.metadata.generation), (None, Some(1)));
        cluster.stop_cloud().await;
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        for pod in ["stays", "leaves"] {
            let _ = pods.delete(pod, &now).await;
        }
        for (version, kind) in [("v1", "Node"), ("kubehive.io/v1alpha1", "EdgeNode")] {
            let _ = cluster.objects(version, kind, None).delete(&name, &now).await;
        }
        let _ = cluster.objects("v1", "Namespace", None).delete(&namespace, &now).await;
    });
}

#[test]
fn whoever_reads_a_log_of_a_node_that_is_cut_off_is_told_so_by_the_api_server() {
    run(async || {
        let Some(real) = RealCluster::named().await else { return };
        let admin = real.admin();
        let mut cluster = Cluster::beside(real).await;
        let mut node = cluster.node(&format!("kubehive-log-{}", std::process::id())).await;
        cluster.until_ready(&node).await;
        let name = node.name().to_owned();
        let pod = json!({"metadata": {"name": name, "namespace": "default"}, "spec": {
            "nodeName": name, "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
            "containers": [{"name": "web", "image": "none:1"}]}});
        cluster.apply("v1", "Pod", pod).await;
        let nodes = cluster.objects("v1", "Node", None);
        let port = async || {
            let found = nodes.get(&name).await.unwrap();
            found.data["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64()
        };
        let is_ours = async || port().await.is_some_and(|port| (12_000..13_000).contains(&port));
        cluster.until_async("the Node says its port", is_ours).await;
        let pods: Api<Pod> = Api::namespaced(admin, "default");
        let words = async || match pods.logs(&name, &LogParams::default()).await {
            Ok(log) => panic!("nothing runs there that could say `{log}`"),
            Err(error) => error.to_string(),
        };
        let said = format!("node `{name}` is not linked to this CloudCore: see `kubectl get node {name}`");
        assert!(!words().await.contains(&said), "it is linked");
        node.stop().await;
        cluster.until_async("it is said", async || words().await.contains(&said)).await;
        // Also by another CloudCore at that address, which has never had the node.
        cluster.stop_cloud().await;
        assert!(!words().await.contains(&said), "nobody is there");
        cluster.start_cloud().await;
        cluster.until_async("it is said again", async || words().await.contains(&said)).await;
        // There is no Node that leads there any more: the port is given back.
        let port = u16::try_from(port().await.unwrap()).unwrap();
        drop(pods.delete(&name, &DeleteParams::default().grace_period(0)).await);
        nodes.delete(&name, &DeleteParams::default()).await.unwrap();
        let is_closed = || std::net::TcpStream::connect(("127.0.0.1", port)).is_err();
        cluster.until("the port is closed", is_closed).await;
        cluster.stop_cloud().await;
        let register = cluster.objects("kubehive.io/v1alpha1", "EdgeNode", None);
        drop(register.delete(&name, &DeleteParams::default()).await);
    });
}
