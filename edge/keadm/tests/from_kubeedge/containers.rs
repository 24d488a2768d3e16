//! The whole way with a real runtime: what KubeEdge's edged ran runs on under Edged, by what was in KubeEdge's database and without the
//! cloud.

use harness::{EnrolmentCloud, StandAlone};
use keadm::join_from_kubeedge;
use serde_json::json;
use testnode::{Machine, Plan, SOON, WAITS, container_id, first, made_by_a_kubelet, pod, run, uid};

use crate::machine::Edge;

#[test]
fn pods_keep_their_containers_over_the_move_and_mount_what_was_imported_when_they_start_again() {
    run(async {
        let host = Machine::new("moves");
        let runtime = cri::Grpc::new(&host.endpoint(), &host.endpoint(), SOON).unwrap();
        let mount = json!({ "volumes": [{ "name": "prices", "configMap": { "name": "prices" } }] });
        let mut till = pod(
            "till",
            "read apple < /prices/apple; echo \"$apple\"; trap 'exit 0' TERM; while true; do sleep 0.1; done",
            mount,
        );
        till["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "prices", "mountPath": "/prices" }]);
        let plain = pod("plain", WAITS, json!({}));
        let made = [
            made_by_a_kubelet(&host, &runtime, &till).await,
            made_by_a_kubelet(&host, &runtime, &plain).await,
        ];
        let edge = Edge::with_store(host.dir().join("edge.db"));
        for pod in [&till, &plain] {
            edge.meta(&format!("default/pod/{}", pod["metadata"]["name"].as_str().unwrap()), "pod", pod);
        }
        let prices = json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": { "apple": "three\n" },
            "metadata": { "namespace": "default", "name": "prices", "uid": "u-prices" } });
        edge.meta("default/configmap/prices", "configmap", &prices);

        let env = beehive::Env::real();
        let api = StandAlone::start(&env).await;
        let cloud = EnrolmentCloud::start(api.client(), &env).await;
        let order = edge.order(&cloud, cloud.token(3600, None).await);
        join_from_kubeedge(&order, &edge.settings(), &edge.machine(), &env, &mut |_| {}).await.unwrap();
        cloud.server.stop().await;

        let node = Plan::of(&host).start(&host);
        for (name, id) in ["till", "plain"].into_iter().zip(&made) {
            let status = node.until_ready(name).await;
            assert_eq!(
                (container_id(&status), first(&status)["restartCount"].as_i64()),
                (id.clone(), Some(0))
            );
        }
        let sandboxes = node.runtime.list_sandboxes(Default::default()).await.unwrap();
        assert_eq!(sandboxes.len(), 2);
        // Without the cloud one ends, and the next has what was imported.
        node.runtime.stop_container(&made[0], std::time::Duration::ZERO).await.unwrap();
        let again =
            |status: &serde_json::Value| first(status)["restartCount"] == 1 && first(status)["ready"] == true;
        node.until("till", "runs again", again).await;
        let log = testnode::eventually(async || {
            let log = node.log("till", "c", 1);
            log.contains("three").then_some(log)
        });
        log.await.expect("it reads the config map");
        let other = node.status("plain").unwrap();
        assert_eq!(container_id(&other), made[1], "{}", uid("plain"));
    });
}
