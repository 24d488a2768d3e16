//! A volume from the API to its mount and back: what stands behind a claim goes down, what the node's drivers are goes up. The
//! runtime runs nothing; the driver takes nothing but what CSI allows, and mounts, as root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use harness::{Cluster, Node, run};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use strictdriver::{Options, StrictDriver};

const DRIVER: &str = "strict.example.com";
const STORAGE: &str = "storage.k8s.io/v1";

async fn pod(cluster: &Cluster, node: &Node) {
    let spec = json!({
        "nodeName": node.name(), "terminationGracePeriodSeconds": 1,
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        "containers": [{"name": "db", "image": "web:1", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
    });
    let metadata = json!({"name": "db", "namespace": "default"});
    cluster.apply("v1", "Pod", json!({"metadata": metadata, "spec": spec})).await;
}

/// A claim, its volume, the driver and a Secret of another namespace that the driver wants for staging.
async fn storage(cluster: &Cluster) -> String {
    cluster.apply("v1", "Namespace", json!({"metadata": {"name": "storage"}})).await;
    let secret =
        json!({"metadata": {"name": "stage", "namespace": "storage"}, "stringData": {"key": "hush"}});
    cluster.apply("v1", "Secret", secret).await;
    let driver =
        json!({"metadata": {"name": DRIVER}, "spec": {"attachRequired": true, "podInfoOnMount": true}});
    cluster.apply(STORAGE, "CSIDriver", driver).await;
    let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeName": "pv"});
    let claim = json!({"metadata": {"name": "data", "namespace": "default"}, "spec": spec});
    cluster.apply("v1", "PersistentVolumeClaim", claim).await.metadata.uid.unwrap()
}

async fn bind(cluster: &Cluster, claim: &str) {
    let csi = json!({"driver": DRIVER, "volumeHandle": "h", "fsType": "ext4",
        "nodePublishSecretRef": {"name": "stage", "namespace": "storage"}});
    let reference = json!({"namespace": "default", "name": "data", "uid": claim, "kind": "PersistentVolumeClaim", "apiVersion": "v1"});
    let spec = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "claimRef": reference, "csi": csi});
    cluster.apply("v1", "PersistentVolume", json!({"metadata": {"name": "pv"}, "spec": spec})).await;
    let bound = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "status": {"phase": "Bound"}});
    let claims = cluster.objects("v1", "PersistentVolumeClaim", Some("default"));
    claims.patch_status("data", &PatchParams::default(), &Patch::Merge(bound)).await.unwrap();
}

async fn attach(cluster: &Cluster, node: &Node) {
    let name = apimachinery::volume::attachment_name("h", DRIVER, node.name());
    let spec = json!({"attacher": DRIVER, "nodeName": node.name(), "source": {"persistentVolumeName": "pv"}});
    cluster.apply(STORAGE, "VolumeAttachment", json!({"metadata": {"name": name}, "spec": spec})).await;
    let done = json!({"apiVersion": STORAGE, "kind": "VolumeAttachment",
        "status": {"attached": true, "attachmentMetadata": {"device": "/dev/x"}}});
    let attachments = cluster.objects(STORAGE, "VolumeAttachment", None);
    attachments.patch_status(&name, &PatchParams::default(), &Patch::Merge(done)).await.unwrap();
}

/// Waits for an event of the pod that says so.
async fn until_said(cluster: &Cluster, words: &str) {
    let events = cluster.objects("v1", "Event", Some("default"));
    cluster
        .until_async(words, async || {
            let all = events.list(&Default::default()).await.unwrap();
            let says = |event: &Value| {
                event["reason"] == "FailedMount"
                    && event["message"].as_str().is_some_and(|text| text.contains(words))
            };
            all.items.iter().any(|event| says(&event.data))
        })
        .await;
}

#[test]
fn a_claim_is_followed_to_its_mount_and_the_node_says_its_drivers_and_volumes() {
    run(async || {
        let mut cluster = Cluster::spawn().await;
        let node = cluster.node("edge-1").await;
        cluster.until_ready(&node).await;
        node.runtime().add_image("web:1");
        let claim = storage(&cluster).await;
        pod(&cluster, &node).await;
        until_said(&cluster, "error processing PVC default/data: PVC is not bound").await;
        let driver =
            StrictDriver::start(&node.folder().join("kubelet"), &Options::new(DRIVER), None).unwrap();

        // The cluster learns of the driver: the CSINode, the Node's annotation and the label of its topology.
        let csi_nodes = cluster.objects(STORAGE, "CSINode", None);
        cluster
            .until_async("the CSINode", async || {
                let Ok(Some(found)) = csi_nodes.get_opt("edge-1").await else { return false };
                let driver = &found.data["spec"]["drivers"][0];
                let owner = found.metadata.owner_references.unwrap_or_default();
                driver["name"] == DRIVER
                    && driver["nodeID"] == "strict.example.com-edge-1"
                    && driver["allocatable"]["count"] == 7
                    && driver["topologyKeys"] == json!(["topology.strict.example.com/node"])
                    && owner.len() == 1
                    && owner[0].kind == "Node"
            })
            .await;
        let nodes = cluster.objects("v1", "Node", None);
        let own = nodes.get("edge-1").await.unwrap().metadata;
        assert_eq!(own.labels.unwrap()["topology.strict.example.com/node"], "edge-1");
        let ids = own.annotations.unwrap()["csi.volume.kubernetes.io/nodeid"].clone();
        assert_eq!(ids, r#"{"strict.example.com":"strict.example.com-edge-1"}"#);

        bind(&cluster, &claim).await;
        until_said(&cluster, "MountVolume.WaitForAttach failed for volume \"pv\"").await;
        attach(&cluster, &node).await;
        cluster.until("the pod runs", || node.runtime().running().iter().any(|one| one.pod == "db")).await;
        let told = driver.published_with();
        for (key, value) in
            [("secret:key", "hush"), ("attached:device", "/dev/x"), ("csi.storage.k8s.io/pod.name", "db")]
        {
            assert_eq!(told.get(key).map(String::as_str), Some(value), "{key} in {told:?}");
        }
        let in_use = async |wanted: Value| {
            let node = nodes.get("edge-1").await.unwrap();
            node.data["status"].get("volumesInUse").cloned().unwrap_or(json!([])) == wanted
        };
        cluster
            .until_async("volumesInUse", async || {
                in_use(json!(["kubernetes.io/csi/strict.example.com^h"])).await
            })
            .await;

        let pods = cluster.objects("v1", "Pod", Some("default"));
        pods.delete("db", &Default::default()).await.unwrap();
        cluster.until_async("the pod is gone", async || pods.get_opt("db").await.unwrap().is_none()).await;
        cluster.until("nothing is mounted", || driver.is_idle()).await;
        cluster.until_async("no volume in use", async || in_use(json!([])).await).await;
        driver.remove_sockets();
        cluster
            .until_async("the CSINode has no driver", async || {
                let found = csi_nodes.get("edge-1").await.unwrap();
                found.data["spec"]["drivers"].as_array().is_none_or(Vec::is_empty)
            })
            .await;
        assert_eq!(driver.faults(), [] as [String; 0]);
    });
}
