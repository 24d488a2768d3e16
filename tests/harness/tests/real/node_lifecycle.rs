//! A node's life in a real cluster.

use harness::{Cluster, Node, RealCluster, resource, run};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
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
            .until_async("the pod is Running, and a cut will not move it", async || {
                let pod = pods.get("web").await.unwrap();
                let tolerations = pod.data["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
                pod.data["status"]["phase"] == "Running"
                    && tolerations.iter().all(|toleration| toleration.get("tolerationSeconds").is_none())
            })
            .await;
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
        let leases: Api<DynamicObject> = Api::namespaced_with(
            admin.clone(),
            "kube-node-lease",
            &resource("coordination.k8s.io/v1", "Lease"),
        );
        assert!(leases.get(node.name()).await.unwrap().data["spec"]["renewTime"].is_string());
        node.stop().await;
        cluster.stop_cloud().await;
        let now = DeleteParams::default();
        for (version, kind) in [("v1", "Node"), ("kubehive.io/v1alpha1", "EdgeNode")] {
            let _ = cluster.objects(version, kind, None).delete(node.name(), &now).await;
        }
        let _ = cluster.objects("v1", "Namespace", None).delete(&namespace, &now).await;
    });
}
