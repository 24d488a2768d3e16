//! The story of the demo on the real actors in one process, with a runtime that runs nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use contract::Change;
use contract::metamanager::{MetaDown, MetaMsg};
use contract::wire::META_MAILBOX;
use harness::{Cluster, LinkTransport, Node, run};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

const IMAGE: &str = "web:1";

async fn pod(cluster: &Cluster, name: &str, node: &Node) {
    let spec = json!({
        "nodeName": node.name(),
        "terminationGracePeriodSeconds": 1,
        "volumes": [{"name": "page", "configMap": {"name": "page"}}],
        "containers": [{
            "name": "web", "image": IMAGE, "volumeMounts": [{"name": "page", "mountPath": "/www"}],
        }],
    });
    cluster
        .apply("v1", "Pod", json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec}))
        .await;
}

async fn page(cluster: &Cluster, text: &str) {
    let pages = cluster.objects("v1", "ConfigMap", Some("default"));
    let patch = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"index.html": text}});
    if pages.get_opt("page").await.unwrap().is_some() {
        pages.patch("page", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    } else {
        let metadata = json!({"name": "page", "namespace": "default"});
        cluster.apply("v1", "ConfigMap", json!({"metadata": metadata, "data": {"index.html": text}})).await;
    }
}

fn container_of(node: &Node, pod: &str) -> Option<String> {
    node.runtime().running().into_iter().find(|container| container.pod == pod).map(|container| container.id)
}

async fn until_runs(cluster: &Cluster, node: &Node, pod: &str) -> String {
    cluster.until("the pod's container runs", || container_of(node, pod).is_some()).await;
    container_of(node, pod).unwrap()
}

async fn status(cluster: &Cluster, pod: &str) -> Value {
    let pods = cluster.objects("v1", "Pod", Some("default"));
    pods.get_opt(pod).await.unwrap().map(|pod| pod.data["status"].clone()).unwrap_or_default()
}

/// The index page as the node's volume holds it.
fn page_on(node: &Node) -> String {
    let pods = std::fs::read_dir(node.folder().join("kubelet/pods")).unwrap();
    let pages = pods.map(|pod| pod.unwrap().path().join("volumes/kubernetes.io~configmap/page/index.html"));
    pages.filter_map(|page| std::fs::read_to_string(page).ok()).next().unwrap_or_default()
}

async fn told_over(carrier: LinkTransport) {
    let mut cluster = Cluster::over(carrier).await;
    let node = cluster.node("edge-1").await;
    cluster.until_ready(&node).await;
    node.runtime().add_image(IMAGE);
    page(&cluster, "one").await;
    pod(&cluster, "web", &node).await;
    let first = until_runs(&cluster, &node, "web").await;
    cluster
        .until_async("the pod is Running in the API", async || {
            status(&cluster, "web").await["phase"] == "Running"
        })
        .await;
    let id = status(&cluster, "web").await["containerStatuses"][0]["containerID"].clone();
    assert!(id.as_str().unwrap().ends_with(&first), "{id} and not {first}");

    node.runtime().kill(&first, 137);
    cluster
        .until("another container runs", || container_of(&node, "web").is_some_and(|id| id != first))
        .await;
    cluster
        .until_async("the restart is counted in the API", async || {
            status(&cluster, "web").await["containerStatuses"][0]["restartCount"] == 1
        })
        .await;
    let second = container_of(&node, "web").unwrap();

    page(&cluster, "two").await;
    cluster.until("the volume follows the config map", || page_on(&node) == "two").await;
    assert_eq!(container_of(&node, "web").as_ref(), Some(&second));
}

#[test]
fn a_pod_goes_down_and_its_state_comes_up_over_memory() {
    run(async || told_over(LinkTransport::Memory).await);
}

#[test]
fn a_pod_goes_down_and_its_state_comes_up_over_quic() {
    run(async || told_over(LinkTransport::Quic).await);
}

#[test]
fn a_pod_goes_down_and_its_state_comes_up_over_websocket_where_udp_is_blocked() {
    run(async || told_over(LinkTransport::WebSocket).await);
}

#[test]
fn a_cut_stops_nothing_and_what_comes_after_it_is_the_difference() {
    run(async || {
        let mut cluster = Cluster::spawn().await;
        let mut node = cluster.node("edge-1").await;
        cluster.until_ready(&node).await;
        node.runtime().add_image(IMAGE);
        page(&cluster, "one").await;
        for name in ["stays", "goes"] {
            pod(&cluster, name, &node).await;
            until_runs(&cluster, &node, name).await;
        }
        cluster
            .until_async("both are Running in the API", async || {
                status(&cluster, "stays").await["phase"] == "Running"
                    && status(&cluster, "goes").await["phase"] == "Running"
            })
            .await;

        node.network_path().cut();
        let old = container_of(&node, "stays").unwrap();
        node.runtime().kill(&old, 137);
        cluster
            .until("it is restarted without the cloud", || {
                container_of(&node, "stays").is_some_and(|id| id != old)
            })
            .await;
        let kept = container_of(&node, "stays").unwrap();
        page(&cluster, "two").await;
        let pods = cluster.objects("v1", "Pod", Some("default"));
        pods.delete("goes", &DeleteParams::default()).await.unwrap();

        // EdgeCore restarts while the link is cut, and finds what it had.
        node.stop().await;
        node.start().await;
        cluster
            .until_async("Edged holds both pods again", async || {
                node.snapshot("edge-edged").await["pods"]["Running"] == 2
            })
            .await;
        assert_eq!(container_of(&node, "stays").as_ref(), Some(&kept));
        assert!(container_of(&node, "goes").is_some());
        assert_eq!(page_on(&node), "one");

        let applied = node.probe(META_MAILBOX, |message: &MetaMsg| match message {
            MetaMsg::Down(MetaDown::Apply { changes, .. }) => Some(changes.len()),
            _ => None,
        });
        node.network_path().mend();
        cluster.until("the volume follows", || page_on(&node) == "two").await;
        cluster.until("the deleted pod ends", || container_of(&node, "goes").is_none()).await;
        cluster
            .until_async("nothing of it is left in the API", async || {
                pods.get_opt("goes").await.unwrap().is_none()
            })
            .await;
        assert_eq!(container_of(&node, "stays").as_ref(), Some(&kept));
        let changes: usize = applied.take().into_iter().sum();
        assert!((2..=6).contains(&changes), "{changes} changes travelled instead of the difference");
    });
}

#[test]
fn a_node_whose_node_is_deleted_keeps_its_pods_running() {
    run(async || {
        let mut cluster = Cluster::spawn().await;
        let node = cluster.node("edge-1").await;
        cluster.until_ready(&node).await;
        node.runtime().add_image(IMAGE);
        page(&cluster, "one").await;
        pod(&cluster, "web", &node).await;
        let container = until_runs(&cluster, &node, "web").await;
        let forgotten = node.probe(META_MAILBOX, |message: &MetaMsg| match message {
            MetaMsg::Down(MetaDown::Apply { changes, .. }) => {
                changes.iter().any(|change| matches!(change, Change::Delete { .. })).then_some(())
            }
            _ => None,
        });
        let nodes = cluster.objects("v1", "Node", None);
        nodes.delete(node.name(), &DeleteParams::default()).await.unwrap();
        // It was sent away, dialled again and was refused: whatever was to come over the old link has come.
        cluster
            .until_async("the node is refused", async || {
                cluster.state().await.counter("cloudhub_nodes_refused") > 0
            })
            .await;
        assert!(forgotten.take().is_empty(), "the node was told to let go of something");
        assert_eq!(container_of(&node, "web"), Some(container));
    });
}

#[test]
fn nodes_find_a_cloudcore_that_comes_back() {
    run(async || {
        let mut cluster = Cluster::over(LinkTransport::Quic).await;
        let node = cluster.node("edge-1").await;
        let other = cluster.node("edge-2").await;
        cluster.until_ready(&node).await;
        cluster.until_ready(&other).await;
        node.runtime().add_image(IMAGE);
        cluster.stop_cloud().await;
        page(&cluster, "one").await;
        pod(&cluster, "web", &node).await;
        cluster.start_cloud().await;
        until_runs(&cluster, &node, "web").await;
        assert!(other.runtime().running().is_empty(), "a pod went to a node that it is not bound to");
    });
}

#[test]
fn cloudcore_may_do_no_more_than_its_account() {
    run(async || {
        let cluster = Cluster::spawn().await;
        let pod = cluster.apply(
            "v1",
            "Pod",
            json!({
                "metadata": {"name": "mine", "namespace": "default"},
                "spec": {"containers": [{"name": "c", "image": IMAGE}]},
            }),
        );
        let mut pod = pod.await;
        let pods = cluster.objects_as(cluster.account(), "v1", "Pod", Some("default"));
        pods.list(&ListParams::default()).await.unwrap();
        pod.metadata = kube::api::ObjectMeta { name: Some("other".to_owned()), ..Default::default() };
        let refused = pods.create(&PostParams::default(), &pod).await.unwrap_err();
        assert!(matches!(&refused, kube::Error::Api(status) if status.code == 403), "{refused}");
    });
}
