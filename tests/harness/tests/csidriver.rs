//! `csidriver` between sidecars in the cloud and a CSI driver on an edge node: through CloudCore's socket, and through the API server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;

use beehive::{Capacity, Hive, Policy};
use contract::NodeName;
use csi::v1::{
    ControllerGetCapabilitiesRequest, ControllerPublishVolumeRequest, ControllerUnpublishVolumeRequest,
    CreateVolumeRequest, DeleteVolumeRequest, GetPluginCapabilitiesRequest, GetPluginInfoRequest,
    ProbeRequest, VolumeCapability,
};
use csi::{controller, identity};
use csidriver::{CsiDriver, Settings, Way};
use harness::{Cluster, LONG, Node, run};
use kube::config::{KubeConfigOptions, Kubeconfig};
use strictdriver::{Behaviour, Options, StrictDriver};
use tonic::{Code, Request, Status};
use unixgrpc::{Client, Method};

const DRIVER: &str = "strict.example.com";

struct Fixture {
    cluster: Cluster,
    node: Node,
    driver: StrictDriver,
    kubeedge_socket: PathBuf,
}

/// A sidecar beside its `csidriver`.
struct Sidecar {
    client: Client,
    hive: Hive,
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

    fn sidecar(&self, name: &str, way: Way) -> Sidecar {
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
        let channel = unixgrpc::channel_by(move || tokio::net::UnixStream::connect(socket.clone()));
        Sidecar { client: Client::new(channel, 4 << 20), hive }
    }

    /// Waits until the driver answers there.
    async fn until_answered(&self, sidecar: &Sidecar) {
        let answers = async || sidecar.delete("none").await.is_ok();
        self.cluster.until_async("the driver answers", answers).await;
    }
}

impl Sidecar {
    async fn call<Q, A>(&self, method: Method<Q, A>, message: Q) -> Result<A, Status>
    where
        Q: prost::Message,
        A: prost::Message + Default,
    {
        let mut request = Request::new(message);
        request.set_timeout(LONG);
        self.client.call(method, request).await
    }

    async fn create(&self, name: &str, bytes: i64) -> Result<String, Status> {
        let range = csi::v1::CapacityRange { required_bytes: bytes, limit_bytes: 0 };
        let message = CreateVolumeRequest {
            name: name.to_owned(),
            capacity_range: Some(range),
            volume_capabilities: vec![VolumeCapability::default()],
            ..CreateVolumeRequest::default()
        };
        Ok(self.call(controller::CREATE_VOLUME, message).await?.volume.unwrap().volume_id)
    }

    async fn delete(&self, handle: &str) -> Result<(), Status> {
        let message = DeleteVolumeRequest { volume_id: handle.to_owned(), ..DeleteVolumeRequest::default() };
        self.call(controller::DELETE_VOLUME, message).await.map(drop)
    }

    async fn attach(&self, handle: &str, readonly: bool) -> Result<String, Status> {
        let message = ControllerPublishVolumeRequest {
            volume_id: handle.to_owned(),
            node_id: format!("{DRIVER}-edge-1"),
            readonly,
            ..ControllerPublishVolumeRequest::default()
        };
        let answered = self.call(controller::CONTROLLER_PUBLISH_VOLUME, message).await?;
        Ok(answered.publish_context["device"].clone())
    }

    async fn detach(&self, handle: &str) -> Result<(), Status> {
        let message = ControllerUnpublishVolumeRequest {
            volume_id: handle.to_owned(),
            node_id: format!("{DRIVER}-edge-1"),
            ..ControllerUnpublishVolumeRequest::default()
        };
        self.call(controller::CONTROLLER_UNPUBLISH_VOLUME, message).await.map(drop)
    }

    /// The life of a volume, with what goes wrong in it, and each call twice.
    async fn a_volumes_life(&self, name: &str) {
        let handle = format!("vol-{name}");
        for _ in 0..2 {
            assert_eq!(self.create(name, 5).await.unwrap(), handle);
        }
        let code = |result: Result<String, Status>| result.unwrap_err().code();
        assert_eq!(code(self.create(name, 6).await), Code::AlreadyExists);
        assert_eq!(code(self.create("large", strictdriver::SIZE + 1).await), Code::ResourceExhausted);
        for _ in 0..2 {
            assert_eq!(self.attach(&handle, false).await.unwrap(), format!("/dev/{handle}"));
        }
        assert_eq!(code(self.attach(&handle, true).await), Code::AlreadyExists);
        let held = self.delete(&handle).await.unwrap_err();
        assert_eq!((held.code(), held.message()), (Code::FailedPrecondition, "it is attached"));
        for _ in 0..2 {
            self.detach(&handle).await.unwrap();
        }
        for _ in 0..2 {
            self.delete(&handle).await.unwrap();
        }
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
