//! Services of a pod's namespace, by the variables that name them.

use serde_json::{Value, json};

use crate::node::{Machine, Node, WAITS, container_id, pod, run};

fn service(name: &str, ip: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"clusterIP": ip, "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}]}})
}

#[test]
fn a_container_is_told_the_services_as_they_are_when_it_starts() {
    run(async {
        let host = Machine::new("services");
        let node = Node::start(&host);
        let without = pod("without", WAITS, json!({"enableServiceLinks": false}));
        node.apply(&[service("my-db", "10.96.0.9"), service("kubernetes", "10.96.0.1")]).await;
        node.apply(&[pod("web", WAITS, json!({})), without]).await;
        let first = node.until_ready("web").await;
        let told = node.exec(&first, &["env"]).await;
        assert!(told.contains("MY_DB_SERVICE_HOST=10.96.0.9\n"), "{told}");
        assert!(told.contains("MY_DB_PORT_5432_TCP=tcp://10.96.0.9:5432\n"), "{told}");
        // By this EdgeMesh tells the cloud from the edge.
        assert!(!told.contains("KUBERNETES_PORT"), "{told}");
        let other = node.until_ready("without").await;
        assert!(!node.exec(&other, &["env"]).await.contains("MY_DB"));

        node.apply(&[service("my-db", "10.96.0.10")]).await;
        let asked = node.until_ready("web").await;
        assert_eq!(container_id(&asked), container_id(&first), "a Service that changes ends nothing");
        node.runtime.stop_container(&container_id(&first), std::time::Duration::from_secs(2)).await.unwrap();
        let again = node
            .until("web", "another instance", |status| {
                status["containerStatuses"][0]["ready"] == true
                    && container_id(status) != container_id(&first)
            })
            .await;
        assert!(node.exec(&again, &["env"]).await.contains("MY_DB_SERVICE_HOST=10.96.0.10\n"));
    });
}
