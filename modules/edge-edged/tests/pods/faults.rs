//! Faults on purpose: Edged panics at a message, and whoever calls the runtime panics at a call.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use beehive::{Actor, Context, Fault, Message as _};
use contract::edged::EdgedMsg;
use cri::v1::{
    AuthConfig, CgroupDriver, Container, ContainerConfig, ContainerFilter, ContainerStats,
    ContainerStatsFilter, ContainerStatus, ExecSyncResponse, FilesystemUsage, Image, LinuxContainerResources,
    PodSandbox, PodSandboxConfig, PodSandboxFilter, PodSandboxStats, PodSandboxStatsFilter, PodSandboxStatus,
    RuntimeStatus, VersionResponse,
};
use cri::{Answer, EventStream, Runtime};
use edge_edged::Edged;
use futures::FutureExt as _;

/// On which side of a message or a call the panic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    After,
}

#[derive(Debug, Clone)]
struct Armed {
    at: String,
    when: When,
    /// Only calls for this pod, where the call names one.
    pod: Option<String>,
    /// Once, or until it is disarmed.
    again: bool,
}

/// The fault that is waiting to happen.
#[derive(Default)]
pub(crate) struct Faults {
    armed: Mutex<Option<Armed>>,
    /// How many sandboxes are being made by a runtime that is slow, and goes on although its caller has gone.
    pub(crate) slow_sandboxes: Mutex<Option<usize>>,
    /// How often a runtime was asked for statistics that does not give them.
    refused_stats: Mutex<Option<usize>>,
    /// The containers that are being stopped, and how many calls each has for that.
    stops: Mutex<HashMap<String, usize>>,
}

/// A call that stops a container, until this is dropped.
struct Stop<'a>(&'a Faults, String);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        let mut stops = self.0.stops.lock().unwrap();
        let calls = stops.get_mut(&self.1).unwrap();
        *calls -= 1;
        if *calls == 0 {
            stops.remove(&self.1);
        }
    }
}

impl Faults {
    /// One panic at the next message or call of that name.
    pub(crate) fn arm(&self, at: &str, when: When) {
        *self.armed.lock().unwrap() = Some(Armed { at: at.to_owned(), when, pod: None, again: false });
    }

    /// A panic at each call of that name that is for that pod.
    pub(crate) fn arm_for(&self, at: &str, pod: &str) {
        let pod = Some(pod.to_owned());
        *self.armed.lock().unwrap() = Some(Armed { at: at.to_owned(), when: When::Before, pod, again: true });
    }

    pub(crate) fn refuse_stats(&self) {
        *self.refused_stats.lock().unwrap() = Some(0);
    }

    pub(crate) fn give_stats(&self) {
        *self.refused_stats.lock().unwrap() = None;
    }

    pub(crate) fn stats_asked(&self) -> usize {
        self.refused_stats.lock().unwrap().unwrap_or_default()
    }

    /// How many containers are being stopped.
    pub(crate) fn stops(&self) -> usize {
        self.stops.lock().unwrap().len()
    }

    fn stop(&self, id: &str) -> Stop<'_> {
        *self.stops.lock().unwrap().entry(id.to_owned()).or_default() += 1;
        Stop(self, id.to_owned())
    }

    pub(crate) fn disarm(&self) {
        *self.armed.lock().unwrap() = None;
    }

    /// Whether the fault has happened.
    pub(crate) fn has_happened(&self) -> bool {
        self.armed.lock().unwrap().is_none()
    }

    fn at(&self, name: &str, when: When, pod: Option<&str>) {
        let mut armed = self.armed.lock().unwrap();
        let fits = |armed: &Armed| {
            armed.at == name && armed.when == when && (armed.pod.is_none() || armed.pod.as_deref() == pod)
        };
        let Some(found) = armed.clone().filter(fits) else { return };
        if !found.again {
            *armed = None;
        }
        drop(armed);
        panic!("a fault on purpose: {when:?} {name}");
    }
}

/// Edged, which panics when it is told to.
pub(crate) struct FaultyEdged {
    pub(crate) edged: Edged,
    pub(crate) faults: Rc<Faults>,
}

impl Actor for FaultyEdged {
    type Message = EdgedMsg;

    async fn started(&mut self, cx: &mut Context<EdgedMsg>) -> Result<(), Fault> {
        self.edged.started(cx).await
    }

    async fn handle(&mut self, message: EdgedMsg, cx: &mut Context<EdgedMsg>) -> Result<(), Fault> {
        let name = message.name();
        self.faults.at(name, When::Before, None);
        self.edged.handle(message, cx).await?;
        self.faults.at(name, When::After, None);
        Ok(())
    }

    async fn stopping(&mut self, cx: &mut Context<EdgedMsg>) {
        self.edged.stopping(cx).await;
    }

    fn snapshot(&self) -> serde_json::Value {
        self.edged.snapshot()
    }
}

/// A runtime whose caller panics when it is told to.
pub(crate) struct FaultyRuntime {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) faults: Arc<Faults>,
}

impl FaultyRuntime {
    fn call<'a, T>(&'a self, name: &'static str, pod: Option<String>, answer: Answer<'a, T>) -> Answer<'a, T>
    where
        T: Send + 'a,
    {
        async move {
            self.faults.at(name, When::Before, pod.as_deref());
            let answer = answer.await;
            self.faults.at(name, When::After, pod.as_deref());
            answer
        }
        .boxed()
    }
}

fn pod_of(config: &PodSandboxConfig) -> Option<String> {
    config.metadata.as_ref().map(|metadata| metadata.name.clone())
}

impl Runtime for FaultyRuntime {
    fn version(&self) -> Answer<'_, VersionResponse> {
        self.call("version", None, self.runtime.version())
    }
    fn status(&self) -> Answer<'_, RuntimeStatus> {
        self.call("status", None, self.runtime.status())
    }
    fn features(&self) -> Answer<'_, cri::RuntimeFeatures> {
        self.call("features", None, self.runtime.features())
    }
    fn cgroup_driver(&self) -> Answer<'_, Option<CgroupDriver>> {
        self.call("cgroup_driver", None, self.runtime.cgroup_driver())
    }
    fn run_sandbox(&self, config: PodSandboxConfig, handler: &str) -> Answer<'_, String> {
        if let Some(begun) = self.faults.slow_sandboxes.lock().unwrap().as_mut() {
            *begun += 1;
            let (runtime, handler) = (Arc::clone(&self.runtime), handler.to_owned());
            let made = tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(2)).await;
                runtime.run_sandbox(config, &handler).await
            });
            return async move { made.await.unwrap() }.boxed();
        }
        self.call("run_sandbox", pod_of(&config), self.runtime.run_sandbox(config, handler))
    }
    fn stop_sandbox(&self, id: &str) -> Answer<'_, ()> {
        self.call("stop_sandbox", None, self.runtime.stop_sandbox(id))
    }
    fn remove_sandbox(&self, id: &str) -> Answer<'_, ()> {
        self.call("remove_sandbox", None, self.runtime.remove_sandbox(id))
    }
    fn sandbox_status(&self, id: &str) -> Answer<'_, PodSandboxStatus> {
        self.call("sandbox_status", None, self.runtime.sandbox_status(id))
    }
    fn list_sandboxes(&self, filter: PodSandboxFilter) -> Answer<'_, Vec<PodSandbox>> {
        self.call("list_sandboxes", None, self.runtime.list_sandboxes(filter))
    }
    fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> Answer<'_, String> {
        let pod = pod_of(&sandbox_config);
        self.call("create_container", pod, self.runtime.create_container(sandbox, config, sandbox_config))
    }
    fn start_container(&self, id: &str) -> Answer<'_, ()> {
        self.call("start_container", None, self.runtime.start_container(id))
    }
    fn stop_container(&self, id: &str, grace: Duration) -> Answer<'_, ()> {
        let stop = self.faults.stop(id);
        let stopped = self.runtime.stop_container(id, grace);
        let counted = async move {
            let _until_dropped = stop;
            stopped.await
        };
        self.call("stop_container", None, counted.boxed())
    }
    fn remove_container(&self, id: &str) -> Answer<'_, ()> {
        self.call("remove_container", None, self.runtime.remove_container(id))
    }
    fn list_containers(&self, filter: ContainerFilter) -> Answer<'_, Vec<Container>> {
        self.call("list_containers", None, self.runtime.list_containers(filter))
    }
    fn container_status(&self, id: &str) -> Answer<'_, ContainerStatus> {
        self.call("container_status", None, self.runtime.container_status(id))
    }
    fn exec_sync(&self, id: &str, command: Vec<String>, limit: Duration) -> Answer<'_, ExecSyncResponse> {
        self.call("exec_sync", None, self.runtime.exec_sync(id, command, limit))
    }
    fn status_info(&self) -> Answer<'_, HashMap<String, String>> {
        self.runtime.status_info()
    }
    fn container_stats(&self, filter: ContainerStatsFilter) -> Answer<'_, Vec<ContainerStats>> {
        self.runtime.container_stats(filter)
    }
    fn sandbox_stats(&self, filter: PodSandboxStatsFilter) -> Answer<'_, Vec<PodSandboxStats>> {
        if let Some(asked) = self.faults.refused_stats.lock().unwrap().as_mut() {
            *asked += 1;
            let message = "failed to decode sandbox container metrics".to_owned();
            let error = cri::Error::Failed { call: "ListPodSandboxStats", message };
            return async move { Err(error) }.boxed();
        }
        self.runtime.sandbox_stats(filter)
    }
    fn update_resources(&self, id: &str, resources: LinuxContainerResources) -> Answer<'_, ()> {
        self.runtime.update_resources(id, resources)
    }
    fn reopen_log(&self, id: &str) -> Answer<'_, ()> {
        self.runtime.reopen_log(id)
    }
    fn events(&self) -> EventStream {
        self.runtime.events()
    }
    fn list_images(&self) -> Answer<'_, Vec<Image>> {
        self.call("list_images", None, self.runtime.list_images())
    }
    fn image_status(&self, image: &str) -> Answer<'_, Option<Image>> {
        self.call("image_status", None, self.runtime.image_status(image))
    }
    fn pull_image(&self, image: &str, auth: Option<AuthConfig>) -> Answer<'_, String> {
        self.call("pull_image", None, self.runtime.pull_image(image, auth))
    }
    fn remove_image(&self, image: &str) -> Answer<'_, ()> {
        self.runtime.remove_image(image)
    }
    fn image_filesystems(&self) -> Answer<'_, Vec<FilesystemUsage>> {
        self.runtime.image_filesystems()
    }
}
