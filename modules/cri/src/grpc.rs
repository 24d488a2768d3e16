//! CRI over a unix socket.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt as _};
use prost::Message;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use unixgrpc::{Answers, Client, Connector, Method};

use crate::bounded::{Bounded, WholeOutput};
use crate::containerd::service::{Envelope, SubscribeRequest};
use crate::methods::{events as containerd, image, runtime};
use crate::runtime::{Answer, Features, RuntimeFeatures};
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
pub(crate) const NAMESPACE: &str = "k8s.io";

/// A runtime that answers CRI on a unix socket. Connects when first used and again whenever the connection is lost.
#[derive(Clone)]
pub struct Grpc {
    runtime: Client,
    images: Client,
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
            runtime: Client::new(channel, MESSAGE_MAX),
            images: Client::new(image_channel, MESSAGE_MAX),
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

    fn answer<'a, Q, A, T>(
        &self,
        client: &Client,
        method: Method<Q, A>,
        request: Request<Q>,
        take: impl FnOnce(A) -> T + Send + 'a,
    ) -> Answer<'a, T>
    where
        Q: Message + 'a,
        A: Message + Default + 'a,
    {
        let (endpoint, answer) = (self.endpoint.clone(), client.call(method, request));
        Box::pin(async move {
            match answer.await {
                Ok(answer) => Ok(take(answer)),
                Err(status) => Err(Error::from_status(method.name(), &endpoint, &status)),
            }
        })
    }

    /// Asks the service of pods.
    fn ask<'a, Q, A, T>(
        &self,
        method: Method<Q, A>,
        body: Q,
        take: impl FnOnce(A) -> T + Send + 'a,
    ) -> Answer<'a, T>
    where
        Q: Message + 'a,
        A: Message + Default + 'a,
    {
        self.answer(&self.runtime, method, self.request(body), take)
    }

    /// Asks the service of images.
    fn ask_of_images<'a, Q, A, T>(
        &self,
        method: Method<Q, A>,
        body: Q,
        take: impl FnOnce(A) -> T + Send + 'a,
    ) -> Answer<'a, T>
    where
        Q: Message + 'a,
        A: Message + Default + 'a,
    {
        self.answer(&self.images, method, self.request(body), take)
    }
}

pub(crate) fn channel_of(endpoint: &str) -> Result<Channel, Error> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint).to_owned();
    if !path.starts_with('/') {
        return Err(Error::BadEndpoint(endpoint.to_owned()));
    }
    // The address is never looked up: the connector goes to the socket.
    let (of_one, of_all) = WINDOWS;
    let address = Endpoint::from_static("http://runtime.invalid")
        .initial_stream_window_size(of_one)
        .initial_connection_window_size(of_all);
    Ok(Connector::new(move || tokio::net::UnixStream::connect(path.clone())).lazy(&address))
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

impl Runtime for Grpc {
    fn version(&self) -> Answer<'_, VersionResponse> {
        let body = VersionRequest { version: "v1".to_owned() };
        self.ask(runtime::VERSION, body, |answer| answer)
    }

    fn status(&self) -> Answer<'_, RuntimeStatus> {
        let body = StatusRequest { verbose: false };
        self.ask(runtime::STATUS, body, |answer| answer.status.unwrap_or_default())
    }

    fn status_info(&self) -> Answer<'_, HashMap<String, String>> {
        let body = StatusRequest { verbose: true };
        self.ask(runtime::STATUS, body, |answer| answer.info)
    }

    fn features(&self) -> Answer<'_, RuntimeFeatures> {
        let body = StatusRequest { verbose: false };
        self.ask(runtime::STATUS, body, |answer| {
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
        let asked = self.ask(runtime::RUNTIME_CONFIG, RuntimeConfigRequest {}, |answer| {
            answer.linux.map(|linux| linux.cgroup_driver())
        });
        Box::pin(async move {
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
        self.answer(&self.runtime, runtime::RUN_POD_SANDBOX, request, |answer| answer.pod_sandbox_id)
    }

    fn stop_sandbox(&self, id: &str) -> Answer<'_, ()> {
        let body = StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(self.ask(runtime::STOP_POD_SANDBOX, body, drop))
    }

    fn remove_sandbox(&self, id: &str) -> Answer<'_, ()> {
        let body = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(self.ask(runtime::REMOVE_POD_SANDBOX, body, drop))
    }

    fn sandbox_status(&self, id: &str) -> Answer<'_, PodSandboxStatus> {
        let body = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        self.ask(runtime::POD_SANDBOX_STATUS, body, |answer| answer.status.unwrap_or_default())
    }

    fn list_sandboxes(&self, filter: PodSandboxFilter) -> Answer<'_, Vec<PodSandbox>> {
        let body = ListPodSandboxRequest { filter: Some(filter) };
        self.ask(runtime::LIST_POD_SANDBOX, body, |answer| answer.items)
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
        self.ask(runtime::CREATE_CONTAINER, body, |answer| answer.container_id)
    }

    fn start_container(&self, id: &str) -> Answer<'_, ()> {
        let body = StartContainerRequest { container_id: id.to_owned() };
        self.ask(runtime::START_CONTAINER, body, drop)
    }

    fn stop_container(&self, id: &str, grace: Duration) -> Answer<'_, ()> {
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let body = StopContainerRequest { container_id: id.to_owned(), timeout };
        let request = self.request_within(body, grace.saturating_add(STOP_MARGIN));
        gone_is_fine(self.answer(&self.runtime, runtime::STOP_CONTAINER, request, drop))
    }

    fn remove_container(&self, id: &str) -> Answer<'_, ()> {
        let body = RemoveContainerRequest { container_id: id.to_owned() };
        gone_is_fine(self.ask(runtime::REMOVE_CONTAINER, body, drop))
    }

    fn list_containers(&self, filter: ContainerFilter) -> Answer<'_, Vec<Container>> {
        let body = ListContainersRequest { filter: Some(filter) };
        self.ask(runtime::LIST_CONTAINERS, body, |answer| answer.containers)
    }

    fn container_status(&self, id: &str) -> Answer<'_, ContainerStatus> {
        let body = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        self.ask(runtime::CONTAINER_STATUS, body, |answer| answer.status.unwrap_or_default())
    }

    fn exec_sync(&self, id: &str, command: Vec<String>, limit: Duration) -> Answer<'_, ExecSyncResponse> {
        let request = self.exec_request(id, command, limit);
        self.answer(&self.runtime, runtime::EXEC_SYNC, request, |answer| answer)
    }

    fn exec_sync_whole(
        &self,
        id: &str,
        command: Vec<String>,
        limit: Duration,
    ) -> Answer<'_, ExecSyncResponse> {
        let mut request = self.exec_request(id, command, limit);
        request.extensions_mut().insert(WholeOutput);
        self.answer(&self.runtime, runtime::EXEC_SYNC, request, |answer| answer)
    }

    fn update_resources(&self, id: &str, resources: LinuxContainerResources) -> Answer<'_, ()> {
        let body = UpdateContainerResourcesRequest { container_id: id.to_owned(), linux: Some(resources) };
        self.ask(runtime::UPDATE_CONTAINER_RESOURCES, body, drop)
    }

    fn reopen_log(&self, id: &str) -> Answer<'_, ()> {
        let body = ReopenContainerLogRequest { container_id: id.to_owned() };
        self.ask(runtime::REOPEN_CONTAINER_LOG, body, drop)
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
        self.ask_of_images(image::LIST_IMAGES, body, |answer| answer.images)
    }

    fn image_status(&self, image: &str) -> Answer<'_, Option<Image>> {
        let body = ImageStatusRequest { image: Some(spec_of(image)), verbose: false };
        self.ask_of_images(image::IMAGE_STATUS, body, |answer| answer.image)
    }

    fn pull_image(&self, image: &str, auth: Option<AuthConfig>) -> Answer<'_, String> {
        let body = PullImageRequest { image: Some(spec_of(image)), auth, sandbox_config: None };
        let request = self.request_within(body, PULL_DEADLINE);
        let (answer, image) = (self.images.call(image::PULL_IMAGE, request), image.to_owned());
        Box::pin(async move {
            match answer.await {
                Ok(pulled) => Ok(pulled.image_ref),
                Err(status) => Err(Error::from_pull(&image, &self.image_endpoint, &status)),
            }
        })
    }

    fn remove_image(&self, image: &str) -> Answer<'_, ()> {
        let body = RemoveImageRequest { image: Some(spec_of(image)) };
        gone_is_fine(self.ask_of_images(image::REMOVE_IMAGE, body, drop))
    }

    fn image_filesystems(&self) -> Answer<'_, Vec<FilesystemUsage>> {
        let body = ImageFsInfoRequest {};
        self.ask_of_images(image::IMAGE_FS_INFO, body, |answer| answer.image_filesystems)
    }

    fn exec(&self, request: ExecRequest) -> Answer<'_, String> {
        self.ask(runtime::EXEC, request, |answer| answer.url)
    }

    fn attach(&self, request: AttachRequest) -> Answer<'_, String> {
        self.ask(runtime::ATTACH, request, |answer| answer.url)
    }

    fn port_forward(&self, request: PortForwardRequest) -> Answer<'_, String> {
        self.ask(runtime::PORT_FORWARD, request, |answer| answer.url)
    }

    fn container_stats(&self, filter: ContainerStatsFilter) -> Answer<'_, Vec<ContainerStats>> {
        let body = ListContainerStatsRequest { filter: Some(filter) };
        self.ask(runtime::LIST_CONTAINER_STATS, body, |answer| answer.stats)
    }

    fn sandbox_stats(&self, filter: PodSandboxStatsFilter) -> Answer<'_, Vec<PodSandboxStats>> {
        let body = ListPodSandboxStatsRequest { filter: Some(filter) };
        self.ask(runtime::LIST_POD_SANDBOX_STATS, body, |answer| answer.stats)
    }
}

fn spec_of(image: &str) -> ImageSpec {
    ImageSpec { image: image.to_owned(), ..ImageSpec::default() }
}

type OpenedStream = Result<BoxStream<'static, Result<Event, Error>>, Error>;

impl Grpc {
    fn cri_events(&self) -> BoxFuture<'static, OpenedStream> {
        let opened = self.runtime.stream(runtime::GET_CONTAINER_EVENTS, Request::new(GetEventsRequest {}));
        let endpoint = self.endpoint.clone();
        Box::pin(async move {
            let failed = move |status: Status| Error::from_status("GetContainerEvents", &endpoint, &status);
            let answers = opened.await.map_err(&failed)?;
            Ok(items::<ContainerEventResponse>(answers)
                .map(move |item| item.map(events::from_cri).map_err(&failed))
                .boxed())
        })
    }

    fn containerd_events(&self) -> BoxFuture<'static, OpenedStream> {
        let filter = format!("namespace=={NAMESPACE},topic~=^/tasks/");
        let mut request = Request::new(SubscribeRequest { filters: vec![filter] });
        let namespace = tonic::metadata::MetadataValue::from_static(NAMESPACE);
        request.metadata_mut().insert("containerd-namespace", namespace);
        let opened = self.runtime.stream(containerd::SUBSCRIBE, request);
        let endpoint = self.endpoint.clone();
        Box::pin(async move {
            let failed =
                move |status: Status| Error::from_status("containerd Events.Subscribe", &endpoint, &status);
            let answers = opened.await.map_err(&failed)?;
            Ok(items::<Envelope>(answers)
                .filter_map(move |item| {
                    let event = match item {
                        Ok(envelope) => events::from_containerd(envelope).map(Ok),
                        Err(status) => Some(Err(failed(status))),
                    };
                    std::future::ready(event)
                })
                .boxed())
        })
    }
}

/// What a stream brings, until its end or its first error.
pub(crate) fn items<A: Message + Default>(answers: Answers) -> BoxStream<'static, Result<A, Status>> {
    let next = |answers: Option<Answers>| async move {
        let mut answers = answers?;
        match answers.next_as().await {
            Ok(item) => Some((Ok(item?), Some(answers))),
            Err(status) => Some((Err(status), None)),
        }
    };
    stream::unfold(Some(answers), next).boxed()
}
