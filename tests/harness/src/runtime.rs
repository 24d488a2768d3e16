//! A container runtime in memory: it keeps what CRI says about sandboxes and containers, and runs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use beehive::{Clock, TokioClock};
use cri::v1::{
    AuthConfig, Container, ContainerConfig, ContainerFilter, ContainerState, ContainerStatus,
    ExecSyncResponse, FilesystemUsage, Image, PodSandbox, PodSandboxConfig, PodSandboxFilter,
    PodSandboxNetworkStatus, PodSandboxState, PodSandboxStatus, RuntimeCondition, RuntimeStatus,
    VersionResponse,
};
use cri::{Answer, Error, Event, EventKind, EventStream, Runtime};
use futures::StreamExt;
use tokio::sync::broadcast;

/// 1,024 events that a slow reader may be behind.
const EVENTS: usize = 1024;

struct Sandbox {
    config: PodSandboxConfig,
    ready: bool,
    number: usize,
    /// By the clock as it stood then, as a real runtime writes it down.
    created_at: i64,
}

struct ContainerRecord {
    sandbox: String,
    config: ContainerConfig,
    state: ContainerState,
    created_at: i64,
    finished_at: i64,
    exit_code: i32,
}

#[derive(Default)]
struct State {
    made: usize,
    started: Vec<StartedContainer>,
    sandboxes: BTreeMap<String, Sandbox>,
    containers: BTreeMap<String, ContainerRecord>,
}

/// A runtime without containers. Cheap to clone; what it holds outlives the EdgeCore that uses it, as a real one's does.
#[derive(Clone)]
pub struct StandInRuntime {
    state: Arc<Mutex<State>>,
    images: Arc<Mutex<BTreeSet<String>>>,
    events: broadcast::Sender<Event>,
    clock: Arc<dyn Clock>,
}

impl Default for StandInRuntime {
    fn default() -> Self {
        StandInRuntime::with_clock(Arc::new(TokioClock::real()))
    }
}

/// A container as a test sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartedContainer {
    /// Its id.
    pub id: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
    /// The container's name.
    pub name: String,
}

impl StandInRuntime {
    /// A runtime whose times are those of `clock`.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        StandInRuntime {
            state: Arc::default(),
            images: Arc::default(),
            events: broadcast::channel(EVENTS).0,
            clock,
        }
    }

    fn now(&self) -> i64 {
        let since = self.clock.wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    }

    /// Every container that was ever started, in order.
    pub fn started(&self) -> Vec<StartedContainer> {
        self.state.lock().unwrap().started.clone()
    }

    /// The runtime holds this image from now on; others are pulled from nowhere and are not found.
    pub fn add_image(&self, image: &str) {
        self.images.lock().unwrap().insert(image.to_owned());
    }

    /// The containers that run.
    pub fn running(&self) -> Vec<StartedContainer> {
        let state = self.state.lock().unwrap();
        let runs = state.containers.iter().filter(|(_, held)| held.state == ContainerState::ContainerRunning);
        runs.map(|(id, held)| seen(id, held)).collect()
    }

    /// Ends a container from outside, as `kill -9` does.
    pub fn kill(&self, id: &str, exit_code: i32) {
        if let Some(held) = self.state.lock().unwrap().containers.get_mut(id) {
            held.state = ContainerState::ContainerExited;
            held.finished_at = self.now();
            held.exit_code = exit_code;
        }
        self.tell(id, EventKind::Stopped);
    }

    /// Loses everything but its images, as when its disk was replaced: what ran is gone.
    pub fn wipe(&self) {
        let lost: Vec<String> = {
            let mut state = self.state.lock().unwrap();
            let sandboxes = std::mem::take(&mut state.sandboxes).into_keys();
            sandboxes.chain(std::mem::take(&mut state.containers).into_keys()).collect()
        };
        for id in lost {
            self.tell(&id, EventKind::Deleted);
        }
    }

    /// Ends the sandbox of a container from outside, with all that runs in it.
    pub fn lose_sandbox(&self, container: &str) {
        let sandbox = self.state.lock().unwrap().containers.get(container).map(|held| held.sandbox.clone());
        if let Some(sandbox) = sandbox {
            // Answered at once.
            drop(self.stop_sandbox(&sandbox));
        }
    }

    fn tell(&self, id: &str, kind: EventKind) {
        // Nobody listens: nobody hears.
        let _ = self.events.send(Event { id: id.to_owned(), kind });
    }
}

fn seen(id: &str, held: &ContainerRecord) -> StartedContainer {
    let label = |key: &str| held.config.labels.get(key).cloned().unwrap_or_default();
    StartedContainer {
        id: id.to_owned(),
        pod: label("io.kubernetes.pod.name"),
        uid: label("io.kubernetes.pod.uid"),
        name: label("io.kubernetes.container.name"),
    }
}

fn answer<T: Send + 'static>(value: Result<T, Error>) -> Answer<'static, T> {
    Box::pin(async { value })
}

fn matches(
    labels: &std::collections::HashMap<String, String>,
    selector: &std::collections::HashMap<String, String>,
) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn missing(call: &'static str, id: &str) -> Error {
    Error::NotFound { call, message: format!("{id} is not known") }
}

impl Runtime for StandInRuntime {
    fn version(&self) -> Answer<'_, VersionResponse> {
        answer(Ok(VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "stand-in".into(),
            runtime_version: "1".into(),
            runtime_api_version: "v1".into(),
        }))
    }

    fn status(&self) -> Answer<'_, RuntimeStatus> {
        let condition =
            |kind: &str| RuntimeCondition { r#type: kind.into(), status: true, ..Default::default() };
        answer(Ok(RuntimeStatus { conditions: vec![condition("RuntimeReady"), condition("NetworkReady")] }))
    }

    fn run_sandbox(&self, config: PodSandboxConfig, handler: &str) -> Answer<'_, String> {
        if !handler.is_empty() {
            let message = format!("failed to get sandbox runtime: no runtime for {handler:?} is configured");
            return answer(Err(Error::Failed { call: "RunPodSandbox", message }));
        }
        let id = {
            let mut state = self.state.lock().unwrap();
            if state.sandboxes.values().any(|sandbox| sandbox.config.metadata == config.metadata) {
                return answer(Err(reserved("RunPodSandbox", &format!("{:?}", config.metadata))));
            }
            state.made += 1;
            let number = state.made;
            let id = format!("sandbox-{number}");
            let sandbox = Sandbox { config, ready: true, number, created_at: self.now() };
            state.sandboxes.insert(id.clone(), sandbox);
            id
        };
        self.tell(&id, EventKind::Started);
        answer(Ok(id))
    }

    fn stop_sandbox(&self, id: &str) -> Answer<'_, ()> {
        let ended = {
            let mut state = self.state.lock().unwrap();
            if let Some(sandbox) = state.sandboxes.get_mut(id) {
                sandbox.ready = false;
            }
            let mut ended = Vec::new();
            for (container, held) in &mut state.containers {
                if held.sandbox == id && held.state == ContainerState::ContainerRunning {
                    held.state = ContainerState::ContainerExited;
                    held.finished_at = self.now();
                    held.exit_code = 137;
                    ended.push(container.clone());
                }
            }
            ended
        };
        for container in ended {
            self.tell(&container, EventKind::Stopped);
        }
        answer(Ok(()))
    }

    fn remove_sandbox(&self, id: &str) -> Answer<'_, ()> {
        let mut state = self.state.lock().unwrap();
        state.sandboxes.remove(id);
        state.containers.retain(|_, held| held.sandbox != id);
        answer(Ok(()))
    }

    fn sandbox_status(&self, id: &str) -> Answer<'_, PodSandboxStatus> {
        let state = self.state.lock().unwrap();
        answer(state.sandboxes.get(id).ok_or_else(|| missing("PodSandboxStatus", id)).map(|sandbox| {
            let network = PodSandboxNetworkStatus {
                ip: format!("10.200.{}.{}", sandbox.number / 250, sandbox.number % 250 + 1),
                additional_ips: Vec::new(),
            };
            PodSandboxStatus {
                id: id.to_owned(),
                metadata: sandbox.config.metadata.clone(),
                state: sandbox_state(sandbox) as i32,
                created_at: sandbox.created_at,
                network: Some(network),
                labels: sandbox.config.labels.clone(),
                annotations: sandbox.config.annotations.clone(),
            }
        }))
    }

    fn list_sandboxes(&self, filter: PodSandboxFilter) -> Answer<'_, Vec<PodSandbox>> {
        let state = self.state.lock().unwrap();
        let found = state.sandboxes.iter().filter(|(id, sandbox)| {
            (filter.id.is_empty() || filter.id == **id)
                && filter.state.as_ref().is_none_or(|wanted| wanted.state == sandbox_state(sandbox) as i32)
                && matches(&sandbox.config.labels, &filter.label_selector)
        });
        let all = found.map(|(id, sandbox)| PodSandbox {
            id: id.clone(),
            metadata: sandbox.config.metadata.clone(),
            state: sandbox_state(sandbox) as i32,
            created_at: sandbox.created_at,
            labels: sandbox.config.labels.clone(),
            annotations: sandbox.config.annotations.clone(),
            ..PodSandbox::default()
        });
        answer(Ok(all.collect()))
    }

    fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
        _: PodSandboxConfig,
    ) -> Answer<'_, String> {
        let mut state = self.state.lock().unwrap();
        if !state.sandboxes.get(sandbox).is_some_and(|sandbox| sandbox.ready) {
            return answer(Err(missing("CreateContainer", sandbox)));
        }
        let uid = |config: &ContainerConfig| config.labels.get("io.kubernetes.pod.uid").cloned();
        let same = |held: &ContainerRecord| {
            held.config.metadata == config.metadata && uid(&held.config) == uid(&config)
        };
        if state.containers.values().any(same) {
            return answer(Err(reserved("CreateContainer", &format!("{:?}", config.metadata))));
        }
        state.made += 1;
        let id = format!("container-{}", state.made);
        let held = ContainerRecord {
            sandbox: sandbox.to_owned(),
            config,
            state: ContainerState::ContainerCreated,
            created_at: self.now(),
            finished_at: 0,
            exit_code: 0,
        };
        state.containers.insert(id.clone(), held);
        answer(Ok(id))
    }

    fn start_container(&self, id: &str) -> Answer<'_, ()> {
        {
            let state = &mut *self.state.lock().unwrap();
            let Some(held) = state.containers.get_mut(id) else {
                return answer(Err(missing("StartContainer", id)));
            };
            held.state = ContainerState::ContainerRunning;
            state.started.push(seen(id, held));
        }
        self.tell(id, EventKind::Started);
        answer(Ok(()))
    }

    fn stop_container(&self, id: &str, _: Duration) -> Answer<'_, ()> {
        self.kill(id, 0);
        answer(Ok(()))
    }

    fn remove_container(&self, id: &str) -> Answer<'_, ()> {
        self.state.lock().unwrap().containers.remove(id);
        self.tell(id, EventKind::Deleted);
        answer(Ok(()))
    }

    fn list_containers(&self, filter: ContainerFilter) -> Answer<'_, Vec<Container>> {
        let state = self.state.lock().unwrap();
        let found = state.containers.iter().filter(|(id, held)| {
            (filter.id.is_empty() || filter.id == **id)
                && (filter.pod_sandbox_id.is_empty() || filter.pod_sandbox_id == held.sandbox)
                && filter.state.as_ref().is_none_or(|wanted| wanted.state == held.state as i32)
                && matches(&held.config.labels, &filter.label_selector)
        });
        let all = found.map(|(id, held)| Container {
            id: id.clone(),
            pod_sandbox_id: held.sandbox.clone(),
            metadata: held.config.metadata.clone(),
            image: held.config.image.clone(),
            image_ref: held.config.image.clone().unwrap_or_default().image,
            state: held.state as i32,
            created_at: held.created_at,
            labels: held.config.labels.clone(),
            annotations: held.config.annotations.clone(),
        });
        answer(Ok(all.collect()))
    }

    fn container_status(&self, id: &str) -> Answer<'_, ContainerStatus> {
        let state = self.state.lock().unwrap();
        let found = state.containers.get(id).ok_or_else(|| missing("ContainerStatus", id));
        answer(found.map(|held| ContainerStatus {
            id: id.to_owned(),
            metadata: held.config.metadata.clone(),
            state: held.state as i32,
            created_at: held.created_at,
            started_at: held.created_at,
            finished_at: held.finished_at,
            exit_code: held.exit_code,
            image: held.config.image.clone(),
            image_ref: held.config.image.clone().unwrap_or_default().image,
            reason: match (held.state, held.exit_code) {
                (ContainerState::ContainerExited, 0) => "Completed".into(),
                (ContainerState::ContainerExited, _) => "Error".into(),
                _ => String::new(),
            },
            message: String::new(),
            labels: held.config.labels.clone(),
            annotations: held.config.annotations.clone(),
            log_path: held.config.log_path.clone(),
            stop_signal: held.config.stop_signal,
            user: None,
        }))
    }

    fn reopen_log(&self, _: &str) -> Answer<'_, ()> {
        answer(Ok(()))
    }

    fn exec_sync(&self, id: &str, _: Vec<String>, _: Duration) -> Answer<'_, ExecSyncResponse> {
        answer(Err(Error::Failed { call: "ExecSync", message: format!("nothing runs in {id}") }))
    }

    fn events(&self) -> EventStream {
        let events = self.events.subscribe();
        futures::stream::unfold(events, |mut events| async move {
            match events.recv().await {
                Ok(event) => Some((Ok(event), events)),
                Err(_) => {
                    let lost =
                        Error::Failed { call: "GetContainerEvents", message: "events were lost".into() };
                    Some((Err(lost), events))
                }
            }
        })
        .boxed()
    }

    fn list_images(&self) -> Answer<'_, Vec<Image>> {
        let images = self.images.lock().unwrap().iter().map(|name| image(name)).collect();
        answer(Ok(images))
    }

    fn image_status(&self, wanted: &str) -> Answer<'_, Option<Image>> {
        let held = self.images.lock().unwrap().contains(wanted);
        answer(Ok(held.then(|| image(wanted))))
    }

    fn pull_image(&self, wanted: &str, _: Option<AuthConfig>) -> Answer<'_, String> {
        if self.images.lock().unwrap().contains(wanted) {
            return answer(Ok(wanted.to_owned()));
        }
        let message = "no registry is behind this runtime".into();
        answer(Err(Error::ImageNotFound { image: wanted.to_owned(), message }))
    }

    fn remove_image(&self, wanted: &str) -> Answer<'_, ()> {
        self.images.lock().unwrap().remove(wanted);
        answer(Ok(()))
    }

    fn image_filesystems(&self) -> Answer<'_, Vec<FilesystemUsage>> {
        answer(Ok(Vec::new()))
    }
}

/// As containerd refuses a second one of a name and attempt.
fn reserved(call: &'static str, name: &str) -> Error {
    Error::Failed { call, message: format!("failed to reserve name {name}: it is reserved") }
}

fn sandbox_state(sandbox: &Sandbox) -> PodSandboxState {
    if sandbox.ready { PodSandboxState::SandboxReady } else { PodSandboxState::SandboxNotready }
}

fn image(name: &str) -> Image {
    Image { id: name.to_owned(), repo_tags: vec![name.to_owned()], size: 1, ..Image::default() }
}
