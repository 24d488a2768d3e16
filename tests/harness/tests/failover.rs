//! Two whole CloudCores and a node that knows both.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use beehive::link::memory::{MemoryPort, NetworkPath, listen};
use beehive::link::{Dialer, PeerName};
use beehive::{Ended, Env};
use cloud::{CloudCore, Transport};
use cloud_nodelease::lease::CLOUDCORE_ANNOTATION;
use config::Threshold;
use config::edge::CgroupDriver;
use contract::NodeName;
use edge::{Dependencies, EdgeCore};
use edge_hub::{Endpoints, Server};
use harness::{Cluster, LONG, StandInRuntime, run};
use serde_json::{Value, json};

const NODE: &str = "edge-1";
const IMAGE: &str = "web:1";

/// A CloudCore with its own way to it, as the account that ships.
struct Cloud {
    core: CloudCore,
    port: MemoryPort,
}

impl Cloud {
    async fn start(cluster: &Cluster) -> Cloud {
        let mut settings = config::cloud::CloudCore::default();
        let endpoint = &mut settings.modules.cloud_stream.kubelet_endpoint;
        (endpoint.bind_address, endpoint.first_port) = ("127.0.0.1".to_owned(), 0);
        settings.common_config.monitor_server.bind_address = "127.0.0.1:0".to_owned();
        settings.modules.edge_controller.node_update_frequency = 1;
        settings.modules.cloud_hub.https.address = "127.0.0.1".to_owned();
        settings.modules.cloud_hub.https.port = 0;
        let (port, acceptor) = listen(PeerName::verified("cloud", "00"));
        let transport = Transport::Given(Box::new(acceptor));
        let core = CloudCore::start(&settings, cluster.account(), transport, Env::real()).await.unwrap();
        Cloud { core, port }
    }

    async fn snapshot(&self, actor: &str) -> Value {
        let report = self.core.inspector().report(LONG).await;
        report.actors.into_iter().find(|a| a.name == actor).map(|a| a.snapshot).unwrap_or_default()
    }

    async fn identity(&self) -> String {
        loop {
            // An actor that has not begun yet shows nothing.
            if let Some(identity) = self.snapshot("cloud-nodelease").await["cloudCore"].as_str() {
                return identity.to_owned();
            }
            tokio::task::yield_now().await;
        }
    }

    async fn has_a_session(&self) -> bool {
        self.snapshot("cloud-hub").await["nodes"].get(NODE).is_some()
    }

    fn server(&self, name: &str, network_path: &NetworkPath) -> Server {
        let me = PeerName::verified(format!("system:node:{NODE}"), "01");
        let dialer: Rc<dyn Dialer> = Rc::new(self.port.dialer(me, network_path.clone()));
        Server { name: name.to_owned(), quic: Some(dialer), websocket: None }
    }
}

async fn edge(folder: &Path, servers: Vec<Server>, runtime: &StandInRuntime) -> EdgeCore {
    let mut settings = config::edge::EdgeCore::default();
    settings.database.data_source = folder.join("edgecore.db");
    let edged = &mut settings.modules.edged;
    edged.hostname_override = NODE.to_owned();
    edged.node_ip = "127.0.0.1".to_owned();
    edged.root_directory = folder.join("kubelet");
    edged.tailored_kubelet_config.pod_logs_dir = folder.join("logs");
    edged.tailored_kubelet_config.read_only_port = 0;
    edged.tailored_kubelet_config.cgroup_driver = CgroupDriver::Systemd;
    edged.tailored_kubelet_config.eviction_hard.nodefs_available = Threshold::Part(0);
    edged.tailored_kubelet_config.eviction_hard.imagefs_available = Threshold::Part(0);
    edged.tailored_kubelet_config.image_gc_high_threshold_percent = 100;
    settings.modules.edge_stream.socket = std::path::PathBuf::new();
    settings.modules.event_bus.mqtt_server_internal = "127.0.0.1:0".to_owned();
    settings.modules.device_twin.dmi_sock_path = folder.to_owned();
    let env = Env::real();
    let node = NodeName::parse(NODE).unwrap();
    let parts = Dependencies {
        node: node.clone(),
        common_name: format!("system:node:{NODE}"),
        endpoints: Endpoints(servers),
        certificates: None,
        network: None,
        programs: None,
        checks: None,
        runtime: Arc::new(runtime.clone()),
        store: edge::open_store(&settings, &node, &env).unwrap(),
    };
    EdgeCore::start(&settings, parts, env).await.unwrap()
}

async fn pod(cluster: &Cluster, name: &str) {
    let containers = json!([{ "name": "web", "image": IMAGE }]);
    let spec = json!({ "nodeName": NODE, "terminationGracePeriodSeconds": 1, "containers": containers });
    let metadata = json!({ "name": name, "namespace": "default" });
    cluster.apply("v1", "Pod", json!({ "metadata": metadata, "spec": spec })).await;
}

/// Waits until the API shows the pod as Running; answers its container's id.
async fn until_runs(cluster: &Cluster, name: &str) -> Value {
    let pods = cluster.objects("v1", "Pod", Some("default"));
    let status = async || pods.get(name).await.unwrap().data["status"].clone();
    cluster.until_async("the pod is Running", async || status().await["phase"] == "Running").await;
    status().await["containerStatuses"][0]["containerID"].clone()
}

async fn holder(cluster: &Cluster) -> (String, u64) {
    let leases = cluster.objects("coordination.k8s.io/v1", "Lease", Some("kube-node-lease"));
    let Some(lease) = leases.get_opt(NODE).await.unwrap() else { return Default::default() };
    let annotations = lease.metadata.annotations.unwrap_or_default();
    let holder = annotations.get(CLOUDCORE_ANNOTATION).cloned().unwrap_or_default();
    (holder, lease.data["spec"]["leaseTransitions"].as_u64().unwrap())
}

#[test]
fn a_node_goes_on_with_the_other_cloudcore_and_comes_back() {
    run(async || {
        let mut cluster = Cluster::spawn().await;
        cluster.stop_cloud().await;
        let (a, b) = futures::join!(Cloud::start(&cluster), Cloud::start(&cluster));
        let names = (a.identity().await, b.identity().await);
        assert_ne!(names.0, names.1);
        let folder = tempfile::tempdir().unwrap();
        let network_paths = (NetworkPath::new(), NetworkPath::new());
        // At first there is no way to the second one.
        network_paths.1.cut();
        harness::enter(cluster.client(), NODE, "01", std::time::SystemTime::now()).await;
        let servers = vec![a.server("a", &network_paths.0), b.server("b", &network_paths.1)];
        let runtime = StandInRuntime::default();
        runtime.add_image(IMAGE);
        let node = edge(folder.path(), servers, &runtime).await;
        cluster.until_async("the first one has the node", async || a.has_a_session().await).await;
        cluster
            .until_async("the node is registered", async || {
                cluster.objects("v1", "Node", None).get_opt(NODE).await.unwrap().is_some()
            })
            .await;
        pod(&cluster, "one").await;
        let container = until_runs(&cluster, "one").await;
        let (first, epoch) = holder(&cluster).await;
        assert_eq!(first, names.0);

        // The way to the first one is gone and the first one is not: it does not know yet that its session is over.
        network_paths.0.cut();
        network_paths.1.mend();
        cluster.until_async("the second one has the node", async || b.has_a_session().await).await;
        let (second, later) = holder(&cluster).await;
        assert!(second == names.1 && later > epoch, "{second} {later}");
        pod(&cluster, "two").await;
        until_runs(&cluster, "two").await;
        assert_eq!(until_runs(&cluster, "one").await, container, "nothing was restarted");
        cluster.until_async("the first one has let it go", async || !a.has_a_session().await).await;
        assert_eq!(holder(&cluster).await, (second, later), "and has not taken it back");

        // The second one ends; the first one is reached again.
        network_paths.0.mend();
        assert_eq!(b.core.stop(LONG).await, Ended::InOrder);
        cluster.until_async("the first one has the node again", async || a.has_a_session().await).await;
        pod(&cluster, "three").await;
        until_runs(&cluster, "three").await;
        assert_eq!(until_runs(&cluster, "one").await, container);
        let (third, last) = holder(&cluster).await;
        assert!(third == names.0 && last > later, "{third} {last}");
        node.stop(LONG).await;
        a.core.stop(LONG).await;
    });
}
