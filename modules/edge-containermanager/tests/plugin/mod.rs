//! A device plugin that is strict: it gives only devices that it has and calls healthy, and remembers whom it was asked for.

// Each test uses its part of it.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kubeletapi::deviceplugin::device_plugin_server::{DevicePlugin, DevicePluginServer};
use kubeletapi::deviceplugin::registration_client::RegistrationClient;
use kubeletapi::deviceplugin::*;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{oneshot, watch};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status};

/// What a plugin does, and what it was asked.
#[derive(Default)]
pub(crate) struct Book {
    /// The devices of each call of Allocate, in order.
    pub(crate) allocated: Vec<Vec<String>>,
    /// Likewise of PreStartContainer.
    pub(crate) prepared: Vec<Vec<String>>,
    /// Allocate never answers.
    pub(crate) hangs: bool,
    /// Allocate says no.
    pub(crate) refuses: Option<String>,
    /// GetPreferredAllocation names these.
    pub(crate) prefers: Vec<String>,
    /// What a container has beside its variables.
    pub(crate) response: ContainerAllocateResponse,
}

#[derive(Clone)]
struct Service {
    options: DevicePluginOptions,
    devices: watch::Receiver<Vec<Device>>,
    book: Arc<Mutex<Book>>,
}

/// A plugin that runs on a thread of its own, so that it can be killed.
pub(crate) struct Plugin {
    folder: PathBuf,
    name: String,
    pub(crate) resource: String,
    options: DevicePluginOptions,
    devices: watch::Sender<Vec<Device>>,
    pub(crate) book: Arc<Mutex<Book>>,
    running: Option<(oneshot::Sender<()>, std::thread::JoinHandle<()>)>,
}

/// Devices by their names; `!` behind one: unhealthy.
pub(crate) fn devices(text: &str) -> Vec<Device> {
    let device = |name: &str| Device {
        id: name.trim_end_matches('!').to_owned(),
        health: if name.ends_with('!') { "Unhealthy" } else { "Healthy" }.to_owned(),
        topology: None,
    };
    text.split_whitespace().map(device).collect()
}

impl Plugin {
    pub(crate) fn new(folder: &Path, name: &str, resource: &str, list: &str) -> Plugin {
        Plugin {
            folder: folder.to_owned(),
            name: format!("{name}.sock"),
            resource: resource.to_owned(),
            options: DevicePluginOptions::default(),
            devices: watch::channel(devices(list)).0,
            book: Arc::default(),
            running: None,
        }
    }

    pub(crate) fn with_options(
        mut self,
        pre_start_required: bool,
        get_preferred_allocation_available: bool,
    ) -> Plugin {
        self.options = DevicePluginOptions { pre_start_required, get_preferred_allocation_available };
        self
    }

    /// Listens.
    pub(crate) fn start(&mut self) {
        let path = self.folder.join(&self.name);
        drop(std::fs::remove_file(&path));
        let service = Service {
            options: self.options,
            devices: self.devices.subscribe(),
            book: Arc::clone(&self.book),
        };
        let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (kill, killed) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.spawn(async move {
                let incoming = UnixListenerStream::new(UnixListener::from_std(listener).unwrap());
                let server = tonic::transport::Server::builder();
                server.serve_with_incoming(DevicePluginServer::new(service), incoming).await.unwrap();
            });
            // Its connections end with it.
            drop(runtime.block_on(killed));
        });
        self.running = Some((kill, thread));
    }

    /// Registers as any client does, with whatever it says of itself.
    pub(crate) async fn register_as(
        &self,
        version: &str,
        endpoint: &str,
        resource: &str,
    ) -> Result<(), Status> {
        let path = self.folder.join("kubelet.sock");
        let request = RegisterRequest {
            version: version.to_owned(),
            endpoint: endpoint.to_owned(),
            resource_name: resource.to_owned(),
            options: Some(self.options),
        };
        // The socket may be made anew just now.
        for _ in 0..200 {
            if UnixStream::connect(&path).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let channel = unixgrpc::channel_by(move || UnixStream::connect(path.clone()));
        RegistrationClient::new(channel).register(request).await.map(drop)
    }

    pub(crate) async fn register(&self) {
        self.register_as("v1beta1", &self.name, &self.resource).await.unwrap();
    }

    /// Starts and registers.
    pub(crate) async fn begin(&mut self) {
        self.start();
        self.register().await;
    }

    /// Ends as a process does that is killed: its socket's file stays.
    pub(crate) fn kill(&mut self) {
        if let Some((kill, thread)) = self.running.take() {
            drop(kill);
            thread.join().unwrap();
        }
    }

    pub(crate) fn set_devices(&self, list: &str) {
        self.devices.send_replace(devices(list));
    }

    pub(crate) fn allocated(&self) -> Vec<Vec<String>> {
        self.book.lock().unwrap().allocated.clone()
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.kill();
    }
}

#[tonic::async_trait]
impl DevicePlugin for Service {
    type ListAndWatchStream = ReceiverStream<Result<ListAndWatchResponse, Status>>;

    async fn get_device_plugin_options(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(self.options))
    }

    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let mut devices = self.devices.clone();
        tokio::spawn(async move {
            loop {
                let list = ListAndWatchResponse { devices: devices.borrow_and_update().clone() };
                if sender.send(Ok(list)).await.is_err() || devices.changed().await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        if !self.options.get_preferred_allocation_available {
            return Err(Status::unimplemented("nobody is to ask"));
        }
        let [own] = &request.get_ref().container_requests[..] else {
            return Err(Status::invalid_argument("not one container"));
        };
        let prefers = self.book.lock().unwrap().prefers.clone();
        let device_i_ds = prefers.into_iter().filter(|id| own.available_device_i_ds.contains(id)).collect();
        let container_responses = vec![ContainerPreferredAllocationResponse { device_i_ds }];
        Ok(Response::new(PreferredAllocationResponse { container_responses }))
    }

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let [own] = &request.get_ref().container_requests[..] else {
            return Err(Status::invalid_argument("not one container"));
        };
        for id in &own.devices_ids {
            let devices = self.devices.borrow();
            let known = devices.iter().find(|device| device.id == *id);
            if known.is_none_or(|device| device.health != "Healthy") {
                return Err(Status::invalid_argument(format!("no healthy device {id}")));
            }
        }
        let (hangs, refuses, mut response) = {
            let mut book = self.book.lock().unwrap();
            book.allocated.push(own.devices_ids.clone());
            (book.hangs, book.refuses.clone(), book.response.clone())
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        if let Some(reason) = refuses {
            return Err(Status::unknown(reason));
        }
        response.envs.insert("DEVICES".to_owned(), own.devices_ids.join(","));
        Ok(Response::new(AllocateResponse { container_responses: vec![response] }))
    }

    async fn pre_start_container(
        &self,
        request: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        if !self.options.pre_start_required {
            return Err(Status::unimplemented("nobody is to ask"));
        }
        self.book.lock().unwrap().prepared.push(request.into_inner().devices_ids);
        Ok(Response::new(PreStartContainerResponse {}))
    }
}
