//! A device plugin on the node, as a service of the machine: it starts with it, and registers whenever EdgeCore begins to listen.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use kubeletapi::deviceplugin::device_plugin_server::{DevicePlugin, DevicePluginServer};
use kubeletapi::deviceplugin::registration_client::RegistrationClient;
use kubeletapi::deviceplugin::{
    AllocateRequest, AllocateResponse, ContainerAllocateResponse, Device, DevicePluginOptions, Empty,
    ListAndWatchResponse, PreStartContainerRequest, PreStartContainerResponse, PreferredAllocationRequest,
    PreferredAllocationResponse, RegisterRequest,
};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status};

/// What pods ask for.
pub(super) const RESOURCE: &str = "kubehive.test/widget";
/// The variable in which a container finds its device.
pub(super) const VARIABLE: &str = "WIDGET";
/// Its own socket.
const SOCKET: &str = "widget.sock";
/// 100 ms between looks whether EdgeCore listens anew.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A running plugin. Dropping it ends it.
pub(super) struct Plugin {
    _tasks: JoinSet<()>,
}

impl Plugin {
    /// Listens in EdgeCore's folder of plugins.
    ///
    /// # Errors
    /// When it cannot.
    pub(super) fn start(folder: PathBuf) -> Result<Plugin> {
        std::fs::create_dir_all(&folder).context("make the folder of device plugins")?;
        let own = folder.join(SOCKET);
        // What is left of the boot before.
        drop(std::fs::remove_file(&own));
        let listener = UnixListener::bind(&own).context("listen as a device plugin")?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (server, incoming) = (tonic::transport::Server::builder(), UnixListenerStream::new(listener));
            // It ends with the plugin.
            let _ = server.serve_with_incoming(DevicePluginServer::new(Widgets), incoming).await;
        });
        tasks.spawn(register(folder.join("kubelet.sock")));
        Ok(Plugin { _tasks: tasks })
    }
}

/// Registers once with each socket that is there.
async fn register(socket: PathBuf) {
    let mut known = None;
    loop {
        let there = std::fs::metadata(&socket).ok().map(|socket| socket.ino());
        if there.is_some() && there != known && register_at(&socket).await.is_ok() {
            known = there;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn register_at(socket: &Path) -> Result<(), Status> {
    let request = RegisterRequest {
        version: "v1beta1".to_owned(),
        endpoint: SOCKET.to_owned(),
        resource_name: RESOURCE.to_owned(),
        options: Some(DevicePluginOptions::default()),
    };
    let socket = socket.to_owned();
    let channel = unixgrpc::channel_by(move || UnixStream::connect(socket.clone()));
    RegistrationClient::new(channel).register(request).await.map(drop)
}

/// Two of them.
struct Widgets;

#[tonic::async_trait]
impl DevicePlugin for Widgets {
    type ListAndWatchStream = ReceiverStream<Result<ListAndWatchResponse, Status>>;

    async fn get_device_plugin_options(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(DevicePluginOptions::default()))
    }

    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            let device =
                |id: &str| Device { id: id.to_owned(), health: "Healthy".to_owned(), topology: None };
            let list = ListAndWatchResponse { devices: ["widget-0", "widget-1"].map(device).to_vec() };
            // Who has gone wants no more.
            let _ = sender.send(Ok(list)).await;
            sender.closed().await;
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn get_preferred_allocation(
        &self,
        _: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        Err(Status::unimplemented("one is as good as the other"))
    }

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let all = request.into_inner().container_requests.into_iter();
        let given = all.map(|own| ContainerAllocateResponse {
            envs: BTreeMap::from([(VARIABLE.to_owned(), own.devices_ids.join(","))]),
            ..ContainerAllocateResponse::default()
        });
        Ok(Response::new(AllocateResponse { container_responses: given.collect() }))
    }

    async fn pre_start_container(
        &self,
        _: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        Err(Status::unimplemented("nothing is to be done before"))
    }
}
