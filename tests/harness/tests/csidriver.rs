//! `csidriver` between sidecars in the cloud and a CSI driver on an edge node: through CloudCore's socket, and through the API server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;

use beehive::{Capacity, Hive, Policy};
use contract::NodeName;
use csi::v1::{
    ControllerGetCapabilitiesRequest, GetPluginCapabilitiesRequest, GetPluginInfoRequest, ProbeRequest,
};
use csi::{controller, identity};
use csidriver::{CsiDriver, Settings, Way};
use harness::{Cluster, LONG, Node, run};
use kube::config::{KubeConfigOptions, Kubeconfig};
use strictdriver::{Behaviour, Options, Sidecar, StrictDriver};
use tonic::Code;

const DRIVER: &str = "strict.example.com";

struct Fixture {
    cluster: Cluster,
    node: Node,
    driver: StrictDriver,
    kubeedge_socket: PathBuf,
}

/// A sidecar beside its `csidriver`.
struct Beside {
    sidecar: Sidecar,
    hive: Hive,
}

impl std::ops::Deref for Beside {
    type Target = Sidecar;

    fn deref(&self) -> &Sidecar {
        &self.sidecar
    }
}

impl Fixture {
    async fn new() -> Fixture {
        let mut cluster = Cluster::spawn().await;
        let kubeedge_socket = cluster.folder_of("cloud").join("kubeedge.sock");
        let address = format!("unix://{}", kubeedge_socket.display());
        cluster
            .reconfigure_cloud(|settings| {
                let socket = &mut settings.modules.cloud_hub.unixsocket;
                (socket.enable, socket.address) = (true, address);
            })
            .await;
        let node = cluster.node("edge-1").await;
        cluster.until_ready(&node).await;
        let root = node.folder().join("kubelet");
        let driver = StrictDriver::start(&root, &Options::new(DRIVER), None).unwrap();
        Fixture { cluster, node, driver, kubeedge_socket }
    }

    fn sidecar(&self, name: &str, way: Way) -> Beside {
        let socket = self.cluster.folder_of(name).join("csi.sock");
        let settings = Settings {
            socket: socket.clone(),
            driver: DRIVER.to_owned(),
            node: NodeName::parse("edge-1").unwrap(),
            way,
        };
        let mut hive = Hive::new("csidriver", self.cluster.env().clone());
        let mailbox = hive.mailbox("csidriver", Capacity::new(1, "a test's choice"));
        hive.supervise(mailbox, Policy::default(), move || CsiDriver::new(settings.clone()));
        hive.open().unwrap();
        Beside { sidecar: Sidecar::new(&socket, &format!("{DRIVER}-edge-1")), hive }
    }

    /// Waits until the driver answers there.
    async fn until_answered(&self, sidecar: &Sidecar) {
        let answers = async || sidecar.delete("none").await.is_ok();
        self.cluster.until_async("the driver answers", answers).await;
    }
}

/// An administrator at the API's port, as `csidriver` has it: calls of nodes are answered there alone.
async fn over_https(cluster: &Cluster) -> kube::Client {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
    let config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    kube::Client::try_from(config).unwrap()
}

#[test]
fn volumes_are_made_and_attached_by_the_driver_on_the_node_by_either_way() {
    run(async || {
        let fixture = Fixture::new().await;
        let by_socket = fixture.sidecar("a", Way::Socket(fixture.kubeedge_socket.clone()));
        let info = async || by_socket.call(identity::GET_PLUGIN_INFO, GetPluginInfoRequest {}).await.ok();
        fixture.cluster.until_async("csidriver listens", async || info().await.is_some()).await;
        assert_eq!(info().await.unwrap().name, DRIVER);
        by_socket.call(identity::PROBE, ProbeRequest {}).await.unwrap();
        let plugin =
            by_socket.call(identity::GET_PLUGIN_CAPABILITIES, GetPluginCapabilitiesRequest {}).await.unwrap();
        assert_eq!(plugin.capabilities.len(), 1);
        let can = by_socket
            .call(controller::CONTROLLER_GET_CAPABILITIES, ControllerGetCapabilitiesRequest {})
            .await;
        assert_eq!(can.unwrap().capabilities.len(), 2);
        fixture.until_answered(&by_socket).await;
        by_socket.a_volumes_life("one").await;
        let by_api = fixture.sidecar("b", Way::ApiServer(over_https(&fixture.cluster).await));
        fixture.until_answered(&by_api).await;
        by_api.a_volumes_life("two").await;
        // CloudCore's own account has no right to it.
        let as_cloud = fixture.sidecar("c", Way::ApiServer(fixture.cluster.account()));
        let refused = async || as_cloud.delete("vol-one").await.unwrap_err();
        fixture
            .cluster
            .until_async("it is refused", async || refused().await.code() == Code::PermissionDenied)
            .await;
        assert_eq!(fixture.driver.faults(), [""; 0]);
        assert_eq!(fixture.driver.made(), 2);
        for sidecar in [by_socket, by_api, as_cloud] {
            sidecar.hive.shutdown(LONG).await;
        }
    });
}

#[test]
fn a_sidecar_that_gives_up_ends_the_drivers_call_by_either_way() {
    run(async || {
        let fixture = Fixture::new().await;
        let (cluster, driver) = (&fixture.cluster, &fixture.driver);
        let by_socket = fixture.sidecar("a", Way::Socket(fixture.kubeedge_socket.clone()));
        let by_api = fixture.sidecar("b", Way::ApiServer(over_https(cluster).await));
        for (sidecar, name) in [(by_socket, "one"), (by_api, "two")] {
            fixture.until_answered(&sidecar).await;
            driver.behave(Behaviour::Hangs);
            tokio::select! {
                done = sidecar.create(name, 5) => panic!("{done:?}"),
                () = cluster.until("the driver works", || driver.under_way() == 1) => {}
            }
            cluster.until("the driver hears that nobody waits", || driver.under_way() == 0).await;
            driver.behave(Behaviour::Right);
            sidecar.create(name, 5).await.unwrap();
            sidecar.hive.shutdown(LONG).await;
        }
        assert_eq!(driver.faults(), [""; 0]);
    });
}

#[test]
fn a_node_that_is_offline_or_begins_anew_in_the_middle_makes_each_volume_once() {
    run(async || {
        let mut fixture = Fixture::new().await;
        let sidecar = fixture.sidecar("a", Way::Socket(fixture.kubeedge_socket.clone()));
        fixture.until_answered(&sidecar).await;
        let Fixture { cluster, node, driver, .. } = &mut fixture;
        // EdgeCore ends while the driver works.
        driver.behave(Behaviour::Hangs);
        let begun = async || driver.calls().contains(&"create one".to_owned());
        let (cut, ()) = tokio::join!(sidecar.create("one", 5), async {
            cluster.until_async("the driver works", begun).await;
            node.stop().await;
        });
        let cut = cut.unwrap_err();
        assert_eq!(cut.code(), Code::Unavailable, "{cut}");
        let offline = async || {
            let said = sidecar.create("one", 5).await.unwrap_err();
            assert_eq!(said.code(), Code::Unavailable, "{said}");
            said.message().contains("node `edge-1` is not linked to this CloudCore")
        };
        cluster.until_async("CloudCore says that the node is offline", offline).await;
        driver.behave(Behaviour::Right);
        node.start().await;
        let made = async || sidecar.create("one", 5).await.is_ok();
        cluster.until_async("it is made when the node is back", made).await;
        // The way is cut, and comes back.
        node.network_path().cut();
        let is_cut =
            async || sidecar.create("two", 5).await.is_err_and(|status| status.code() == Code::Unavailable);
        cluster.until_async("the node is unavailable", is_cut).await;
        node.network_path().mend();
        let made = async || sidecar.create("two", 5).await.is_ok();
        cluster.until_async("it is made when the way is back", made).await;
        cluster.stop_cloud().await;
        let gone = sidecar.delete("vol-one").await.unwrap_err();
        assert_eq!(gone.code(), Code::Unavailable, "{gone}");
        assert!(gone.message().contains("modules.cloudHub.unixsocket"), "{gone}");
        assert_eq!(driver.made(), 2);
        assert_eq!(driver.faults(), [""; 0]);
        sidecar.hive.shutdown(LONG).await;
    });
}
