//! CRI over a unix socket.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt as _};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Response, Status};

use crate::bounded::{Bounded, WholeOutput};
use crate::containerd::service::SubscribeRequest;
use crate::containerd::service::events_client::EventsClient;
use crate::runtime::{Answer, Features, RuntimeFeatures};
use crate::v1::image_service_client::ImageServiceClient;
use crate::v1::runtime_service_client::RuntimeServiceClient;
use crate::v1::*;
use crate::{Error, Event, EventStream, Runtime, cgroup_driver, events};

/// 16 MiB: what the kubelet accepts; a node with many images goes over gRPC's usual 4.
const MESSAGE_MAX: usize = 16 << 20;
/// 256 KiB that are read ahead of one answer, and 1 MiB of all together.
const WINDOWS: (u32, u32) = (256 << 10, 1 << 20);
/// A pull goes on as long as it makes progress, which CRI does not tell; half an hour is a large image on a thin line.
const PULL_DEADLINE: Duration = Duration::from_secs(1800);
/// What the runtime may take beyond the grace period to end a container.
const STOP_MARGIN: Duration = Duration::from_secs(120);
/// More handlers are not looked at.
const HANDLERS_MAX: usize = 256;
/// containerd's namespace of CRI's containers.
const NAMESPACE: &str = "k8s.io";

/// A runtime that answers CRI on a unix socket. Connects when first used and again whenever the connection is lost.
#[derive(Clone)]
pub struct Grpc {
    runtime: RuntimeServiceClient<Bounded<Channel>>,
    images: ImageServiceClient<Bounded<Channel>>,
    events: EventsClient<Bounded<Channel>>,
    endpoint: String,
    image_endpoint: String,
    deadline: Duration,
}

impl Grpc {
    /// A client for `endpoint` and `image_endpoint` (`unix:///path`, or a bare path). Must be called within a tokio
    /// runtime. `deadline` holds for every call but pulls and stops.
    ///
    /// # Errors
    /// [`Error::BadEndpoint`].
    pub fn new(endpoint: &str, image_endpoint: &str, deadline: Duration) -> Result<Grpc, Error> {
        let channel = Bounded::new(channel_of(endpoint)?);
        let image_channel = if image_endpoint == endpoint {
            channel.clone()
        } else {
            channel.beside(channel_of(image_endpoint)?)
        };
        Ok(Grpc {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_MAX),
            images: ImageServiceClient::new(image_channel).max_decoding_message_size(MESSAGE_MAX),
            events: EventsClient::new(channel).max_decoding_message_size(MESSAGE_MAX),
            endpoint: endpoint.to_owned(),
            image_endpoint: image_endpoint.to_owned(),
            deadline,
        })
    }

    fn request<T>(&self, body: T) -> Request<T> {
        self.request_within(body, self.deadline)
    }

    fn request_within<T>(&self, body: T, limit: Duration) -> Request<T> {
        let mut request = Request::new(body);
        request.set_timeout(limit);
        request
    }

    fn exec_request(&self, id: &str, command: Vec<String>, limit: Duration) -> Request<ExecSyncRequest> {
        let timeout = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
        let body = ExecSyncRequest { container_id: id.to_owned(), cmd: command, timeout };
        if limit.is_zero() {
            Request::new(body)
        } else {
            self.request_within(body, limit.saturating_add(self.deadline))
        }
    }

    fn answer<'a, R, T>(
        &self,
        call: &'static str,
        reply: impl Future<Output = Result<Response<R>, Status>> + Send + 'a,
        take: impl FnOnce(R) -> T + Send + 'a,
    ) -> Answer<'a, T>
    where
        R: 'a,
    {
        let endpoint = self.endpoint.clone();
        Box::pin(async move {
            match reply.await {
                Ok(response) => Ok(take(response.into_inner())),
                Err(status) => Err(Error::from_status(call, &endpoint, &status)),
            }
        })
    }
}

fn channel_of(endpoint: &str) -> Result<Channel, Error> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint).to_owned();
    if !path.starts_with('/') {
        return Err(Error::BadEndpoint(endpoint.to_owned()));
    }
    // The address is never looked up: the connector below goes to the socket.
    let (of_one, of_all) = WINDOWS;
    let address = Endpoint::from_static("http://runtime.invalid")
        .initial_stream_window_size(of_one)
        .initial_connection_window_size(of_all);
    Ok(address.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move {
            let stream = tokio::net::UnixStream::connect(path).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    })))
}

/// Stopping or removing what is gone already is success.
fn gone_is_fine(answer: Answer<'_, ()>) -> Answer<'_, ()> {
    Box::pin(async move {
        match answer.await {
            Err(Error::NotFound { .. }) => Ok(()),
            other => other,
        }
    })
}

/// Calls `call` with a clone of the client, which is how tonic wants to be used from many places at once.
macro_rules! unary {
    ($self:ident, $client:ident, $method:ident, $name:expr, $request:expr, $take:expr) => {{
        let mut client = $self.$client.clone();
        let request = $request;
        $self.answer($name, async move { client.$method(request).await }, $take)
    }};
}

impl Runtime for Grpc {
    fn version(&self) -> Answer<'_, VersionResponse> {
        let body = VersionRequest { version: "v1".to_owned() };
        unary!(self, runtime, version, "Version", self.request(body), |answer| answer)
    }

    fn status(&self) -> Answer<'_, RuntimeStatus> {
        let body = StatusRequest { verbose: false };
        unary!(self, runtime, status, "Status", self.request(body), |answer: StatusResponse| {
            answer.status.unwrap_or_default()
        })
    }

    fn status_info(&self) -> Answer<'_, HashMap<String, String>> {
        let body = StatusRequest { verbose: true };
        unary!(self, runtime, status, "Status", self.request(body), |answer: StatusResponse| answer.info)
    }

    fn features(&self) -> Answer<'_, RuntimeFeatures> {
        let body = StatusRequest { verbose: false };
        unary!(self, runtime, status, "Status", self.request(body), |answer: StatusResponse| {
            let of = |handler: RuntimeHandler| {
                let can = handler.features.unwrap_or_default();
                let features = Features {
                    recursive_read_only_mounts: can.recursive_read_only_mounts,
                    user_namespaces: can.user_namespaces,
                    ..Features::default()
                };
                (handler.name, features)
            };
            RuntimeFeatures {
                handlers: answer.runtime_handlers.into_iter().take(HANDLERS_MAX).map(of).collect(),
                supplemental_groups_policy: answer.features.map(|can| can.supplemental_groups_policy),
            }
        })
    }

    fn cgroup_driver(&self) -> Answer<'_, Option<CgroupDriver>> {
        Box::pin(async move {
            let body = RuntimeConfigRequest {};
            let asked = unary!(
                self,
                runtime,
                runtime_config,
                "RuntimeConfig",
                self.request(body),
                |answer: RuntimeConfigResponse| { answer.linux.map(|linux| linux.cgroup_driver()) }
            );
            match asked.await {
                // containerd before 2.0: its configuration says it.
                Err(Error::Unsupported { .. }) => Ok(cgroup_driver::of_info(&self.status_info().await?)),
                other => other,
            }
        })
    }

    fn run_sandbox(&self, config: PodSandboxConfig, handler: &str) -> Answer<'_, String> {
        let body = RunPodSandboxRequest { config: Some(config), runtime_handler: handler.to_owned() };
        // Twice the deadline, as the kubelet gives it: network plugins are slow at boot.
        let request = self.request_within(body, self.deadline * 2);
        unary!(self, runtime, run_pod_sandbox, "RunPodSandbox", request, |answer: RunPodSandboxResponse| {
            answer.pod_sandbox_id
        })
    }

    fn stop_sandbox(&self, id: &str) -> Answer<'_, ()> {
        let body = StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(unary!(self, runtime, stop_pod_sandbox, "StopPodSandbox", self.request(body), drop))
    }

    fn remove_sandbox(&self, id: &str) -> Answer<'_, ()> {
        let body = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(unary!(self, runtime, remove_pod_sandbox, "RemovePodSandbox", self.request(body), drop))
    }

    fn sandbox_status(&self, id: &str) -> Answer<'_, PodSandboxStatus> {
        let body = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        unary!(
            self,
            runtime,
            pod_sandbox_status,
            "PodSandboxStatus",
            self.request(body),
            |answer: PodSandboxStatusResponse| { answer.status.unwrap_or_default() }
        )
    }

    fn list_sandboxes(&self, filter: PodSandboxFilter) -> Answer<'_, Vec<PodSandbox>> {
        let body = ListPodSandboxRequest { filter: Some(filter) };
        unary!(
            self,
            runtime,
            list_pod_sandbox,
            "ListPodSandbox",
            self.request(body),
            |answer: ListPodSandboxResponse| { answer.items }
        )
    }

    fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> Answer<'_, String> {
        let body = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        unary!(
            self,
            runtime,
            create_container,
            "CreateContainer",
            self.request(body),
            |answer: CreateContainerResponse| { answer.container_id }
        )
    }

    fn start_container(&self, id: &str) -> Answer<'_, ()> {
        let body = StartContainerRequest { container_id: id.to_owned() };
        unary!(self, runtime, start_container, "StartContainer", self.request(body), drop)
    }

    fn stop_container(&self, id: &str, grace: Duration) -> Answer<'_, ()> {
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let body = StopContainerRequest { container_id: id.to_owned(), timeout };
        let request = self.request_within(body, grace.saturating_add(STOP_MARGIN));
        gone_is_fine(unary!(self, runtime, stop_container, "StopContainer", request, drop))
    }

    fn remove_container(&self, id: &str) -> Answer<'_, ()> {
        let body = RemoveContainerRequest { container_id: id.to_owned() };
        gone_is_fine(unary!(self, runtime, remove_container, "RemoveContainer", self.request(body), drop))
    }

    fn list_containers(&self, filter: ContainerFilter) -> Answer<'_, Vec<Container>> {
        let body = ListContainersRequest { filter: Some(filter) };
        unary!(
            self,
            runtime,
            list_containers,
            "ListContainers",
            self.request(body),
            |answer: ListContainersResponse| { answer.containers }
        )
    }

    fn container_status(&self, id: &str) -> Answer<'_, ContainerStatus> {
        let body = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        unary!(
            self,
            runtime,
            container_status,
            "ContainerStatus",
            self.request(body),
            |answer: ContainerStatusResponse| { answer.status.unwrap_or_default() }
        )
    }

    fn exec_sync(&self, id: &str, command: Vec<String>, limit: Duration) -> Answer<'_, ExecSyncResponse> {
        let request = self.exec_request(id, command, limit);
        unary!(self, runtime, exec_sync, "ExecSync", request, |answer| answer)
    }

    fn exec_sync_whole(
        &self,
        id: &str,
        command: Vec<String>,
        limit: Duration,
    ) -> Answer<'_, ExecSyncResponse> {
        let mut request = self.exec_request(id, command, limit);
        request.extensions_mut().insert(WholeOutput);
        unary!(self, runtime, exec_sync, "ExecSync", request, |answer| answer)
    }

    fn update_resources(&self, id: &str, resources: LinuxContainerResources) -> Answer<'_, ()> {
        let body = UpdateContainerResourcesRequest { container_id: id.to_owned(), linux: Some(resources) };
        let call = "UpdateContainerResources";
        unary!(self, runtime, update_container_resources, call, self.request(body), drop)
    }

    fn reopen_log(&self, id: &str) -> Answer<'_, ()> {
        let body = ReopenContainerLogRequest { container_id: id.to_owned() };
        unary!(self, runtime, reopen_container_log, "ReopenContainerLog", self.request(body), drop)
    }

    fn events(&self) -> EventStream {
        let own = self.clone();
        // A Go server sends its headers with the first event, so asking and waiting for the first event are one thing;
        // a runtime without CRI events says so at once.
        stream::once(async move {
            let first = own.cri_events().await;
            match first {
                Err(Error::Unsupported { .. }) => own.containerd_events().await,
                other => other,
            }
        })
        .flat_map(|opened| match opened {
            Ok(events) => events,
            Err(error) => stream::iter([Err(error)]).boxed(),
        })
        .boxed()
    }

    fn list_images(&self) -> Answer<'_, Vec<Image>> {
        let body = ListImagesRequest { filter: None };
        unary!(self, images, list_images, "ListImages", self.request(body), |answer: ListImagesResponse| {
            answer.images
        })
    }

    fn image_status(&self, image: &str) -> Answer<'_, Option<Image>> {
        let body = ImageStatusRequest { image: Some(spec_of(image)), verbose: false };
        unary!(
            self,
            images,
            image_status,
            "ImageStatus",
            self.request(body),
            |answer: ImageStatusResponse| { answer.image }
        )
    }

    fn pull_image(&self, image: &str, auth: Option<AuthConfig>) -> Answer<'_, String> {
        let body = PullImageRequest { image: Some(spec_of(image)), auth, sandbox_config: None };
        let request = self.request_within(body, PULL_DEADLINE);
        let (mut client, image) = (self.images.clone(), image.to_owned());
        Box::pin(async move {
            match client.pull_image(request).await {
                Ok(response) => Ok(response.into_inner().image_ref),
                Err(status) => Err(Error::from_pull(&image, &self.image_endpoint, &status)),
            }
        })
    }

    fn remove_image(&self, image: &str) -> Answer<'_, ()> {
        let body = RemoveImageRequest { image: Some(spec_of(image)) };
        gone_is_fine(unary!(self, images, remove_image, "RemoveImage", self.request(body), drop))
    }

    fn image_filesystems(&self) -> Answer<'_, Vec<FilesystemUsage>> {
        let body = ImageFsInfoRequest {};
        unary!(
            self,
            images,
            image_fs_info,
            "ImageFsInfo",
            self.request(body),
            |answer: ImageFsInfoResponse| { answer.image_filesystems }
        )
    }

    fn exec(&self, request: ExecRequest) -> Answer<'_, String> {
        unary!(self, runtime, exec, "Exec", self.request(request), |answer: ExecResponse| answer.url)
    }

    fn attach(&self, request: AttachRequest) -> Answer<'_, String> {
        unary!(self, runtime, attach, "Attach", self.request(request), |answer: AttachResponse| answer.url)
    }

    fn port_forward(&self, request: PortForwardRequest) -> Answer<'_, String> {
        let request = self.request(request);
        unary!(self, runtime, port_forward, "PortForward", request, |answer: PortForwardResponse| answer.url)
    }

    fn container_stats(&self, filter: ContainerStatsFilter) -> Answer<'_, Vec<ContainerStats>> {
        let body = ListContainerStatsRequest { filter: Some(filter) };
        unary!(
            self,
            runtime,
            list_container_stats,
            "ListContainerStats",
            self.request(body),
            |answer: ListContainerStatsResponse| { answer.stats }
        )
    }

    fn sandbox_stats(&self, filter: PodSandboxStatsFilter) -> Answer<'_, Vec<PodSandboxStats>> {
        let body = ListPodSandboxStatsRequest { filter: Some(filter) };
        unary!(
            self,
            runtime,
            list_pod_sandbox_stats,
            "ListPodSandboxStats",
            self.request(body),
            |answer: ListPodSandboxStatsResponse| { answer.stats }
        )
    }
}

fn spec_of(image: &str) -> ImageSpec {
    ImageSpec { image: image.to_owned(), ..ImageSpec::default() }
}

type OpenedStream = Result<BoxStream<'static, Result<Event, Error>>, Error>;

impl Grpc {
    fn cri_events(&self) -> BoxFuture<'static, OpenedStream> {
        let (mut client, endpoint) = (self.runtime.clone(), self.endpoint.clone());
        Box::pin(async move {
            let call = "GetContainerEvents";
            let opened = client.get_container_events(Request::new(GetEventsRequest {})).await;
            let stream = opened.map_err(|status| Error::from_status(call, &endpoint, &status))?.into_inner();
            Ok(stream
                .map(move |item| match item {
                    Ok(event) => Ok(events::from_cri(event)),
                    Err(status) => Err(Error::from_status(call, &endpoint, &status)),
                })
                .boxed())
        })
    }

    fn containerd_events(&self) -> BoxFuture<'static, OpenedStream> {
        let (mut client, endpoint) = (self.events.clone(), self.endpoint.clone());
        Box::pin(async move {
            let call = "containerd Events.Subscribe";
            let filter = format!("namespace=={NAMESPACE},topic~=^/tasks/");
            let mut request = Request::new(SubscribeRequest { filters: vec![filter] });
            let namespace = tonic::metadata::MetadataValue::from_static(NAMESPACE);
            request.metadata_mut().insert("containerd-namespace", namespace);
            let opened = client.subscribe(request).await;
            let stream = opened.map_err(|status| Error::from_status(call, &endpoint, &status))?.into_inner();
            Ok(stream
                .filter_map(move |item| {
                    let event = match item {
                        Ok(envelope) => events::from_containerd(envelope).map(Ok),
                        Err(status) => Some(Err(Error::from_status(call, &endpoint, &status))),
                    };
                    std::future::ready(event)
                })
                .boxed())
        })
    }
}
