//! What Edged needs of a container runtime.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures::future::BoxFuture;

use crate::v1::{
    AttachRequest, AuthConfig, CgroupDriver, Container, ContainerConfig, ContainerFilter, ContainerStats,
    ContainerStatsFilter, ContainerStatus, ExecRequest, ExecSyncResponse, FilesystemUsage, Image,
    LinuxContainerResources, PodSandbox, PodSandboxConfig, PodSandboxFilter, PodSandboxStats,
    PodSandboxStatsFilter, PodSandboxStatus, PortForwardRequest, RuntimeStatus, VersionResponse,
};
use crate::{Error, EventStream};

/// What a call answers.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Error>>;

/// What of the newer parts of CRI a runtime can do with the pods of one handler. An older one ignores a field that asks for
/// them, without a word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features {
    /// `Mount.recursive_read_only`, since containerd 2.0.
    pub recursive_read_only_mounts: bool,
    /// `NamespaceOption.userns_options`, since containerd 2.0 and by the handler's own runtime.
    pub user_namespaces: bool,
    /// `supplemental_groups_policy`, since containerd 2.0.
    pub supplemental_groups_policy: bool,
}

/// What a runtime says that it can do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeFeatures {
    /// By the names of its handlers; that of pods without a runtime class has none. Empty: it does not know the question.
    pub handlers: BTreeMap<String, Features>,
    /// `supplemental_groups_policy`, with whichever handler; `None`: it has not said.
    pub supplemental_groups_policy: Option<bool>,
}

impl RuntimeFeatures {
    /// What it can do with the pods of a handler. With one that it does not name, nothing.
    #[must_use]
    pub fn of(&self, handler: &str) -> Features {
        Features {
            supplemental_groups_policy: self.supplemental_groups_policy.unwrap_or_default(),
            ..self.handlers.get(handler).copied().unwrap_or_default()
        }
    }
}

/// A container runtime as CRI describes it. Every call has a deadline; stopping and removing what is gone succeeds.
pub trait Runtime: Send + Sync {
    /// Name and version.
    fn version(&self) -> Answer<'_, VersionResponse>;
    /// Whether the runtime and its network are ready.
    fn status(&self) -> Answer<'_, RuntimeStatus>;
    /// What the runtime tells of itself beyond that, as JSON by name; nothing of it is promised.
    fn status_info(&self) -> Answer<'_, HashMap<String, String>> {
        unsupported("Status")
    }
    /// What of the newer parts of CRI the runtime can do. One that does not know the question can do none of it.
    fn features(&self) -> Answer<'_, RuntimeFeatures> {
        Box::pin(std::future::ready(Ok(RuntimeFeatures::default())))
    }
    /// Who makes the cgroups of containers; `None`: the runtime does not say.
    fn cgroup_driver(&self) -> Answer<'_, Option<CgroupDriver>> {
        Box::pin(std::future::ready(Ok(None)))
    }
    /// Makes and starts a sandbox by one of the runtime's handlers, of which the usual one has no name; answers its id.
    fn run_sandbox(&self, config: PodSandboxConfig, handler: &str) -> Answer<'_, String>;
    /// Ends what runs in a sandbox and takes its network down.
    fn stop_sandbox(&self, id: &str) -> Answer<'_, ()>;
    /// Removes a sandbox and its containers.
    fn remove_sandbox(&self, id: &str) -> Answer<'_, ()>;
    /// One sandbox, with its addresses.
    fn sandbox_status(&self, id: &str) -> Answer<'_, PodSandboxStatus>;
    /// The sandboxes that pass the filter.
    fn list_sandboxes(&self, filter: PodSandboxFilter) -> Answer<'_, Vec<PodSandbox>>;
    /// Makes a container; answers its id.
    fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> Answer<'_, String>;
    /// Starts a container.
    fn start_container(&self, id: &str) -> Answer<'_, ()>;
    /// Ends a container: politely, then after `grace` by force.
    fn stop_container(&self, id: &str, grace: Duration) -> Answer<'_, ()>;
    /// Removes a container.
    fn remove_container(&self, id: &str) -> Answer<'_, ()>;
    /// The containers that pass the filter.
    fn list_containers(&self, filter: ContainerFilter) -> Answer<'_, Vec<Container>>;
    /// One container.
    fn container_status(&self, id: &str) -> Answer<'_, ContainerStatus>;
    /// Runs a command in a container and waits for its end, at most `limit`: whole seconds, and none when it is zero, as
    /// CRI has it. Of each of its outputs the first 10 KiB are answered, which is what a kubelet looks at of a probe or a hook:
    /// what a container prints is its own choice.
    fn exec_sync(&self, id: &str, command: Vec<String>, limit: Duration) -> Answer<'_, ExecSyncResponse>;
    /// The same with all that it printed, up to 16 MiB: for who keeps a place for so much.
    fn exec_sync_whole(
        &self,
        id: &str,
        command: Vec<String>,
        limit: Duration,
    ) -> Answer<'_, ExecSyncResponse> {
        self.exec_sync(id, command, limit)
    }
    /// What the runtime tells of its own accord, from now on. The stream's first item can be
    /// [`Error::Unsupported`]: then the caller has to look from time to time.
    fn events(&self) -> EventStream;
    /// All images.
    fn list_images(&self) -> Answer<'_, Vec<Image>>;
    /// One image, or `None` when it is not here.
    fn image_status(&self, image: &str) -> Answer<'_, Option<Image>>;
    /// Fetches an image; answers its reference.
    fn pull_image(&self, image: &str, auth: Option<AuthConfig>) -> Answer<'_, String>;
    /// Removes an image.
    fn remove_image(&self, image: &str) -> Answer<'_, ()>;
    /// The file systems that hold the images.
    fn image_filesystems(&self) -> Answer<'_, Vec<FilesystemUsage>>;
    /// Changes what a container that runs may use.
    fn update_resources(&self, id: &str, resources: LinuxContainerResources) -> Answer<'_, ()> {
        let _ = (id, resources);
        unsupported("UpdateContainerResources")
    }
    /// Has a running container's log written to a new file at its path, after the one there was renamed.
    fn reopen_log(&self, id: &str) -> Answer<'_, ()> {
        let _ = id;
        unsupported("ReopenContainerLog")
    }
    /// Prepares a command in a container; answers the URL that takes one connection for it.
    fn exec(&self, request: ExecRequest) -> Answer<'_, String> {
        drop(request);
        unsupported("Exec")
    }
    /// Prepares a connection to a container's own process; answers the URL that takes it.
    fn attach(&self, request: AttachRequest) -> Answer<'_, String> {
        drop(request);
        unsupported("Attach")
    }
    /// Prepares a connection to ports of a sandbox; answers the URL that takes it.
    fn port_forward(&self, request: PortForwardRequest) -> Answer<'_, String> {
        drop(request);
        unsupported("PortForward")
    }
    /// What the running containers that pass the filter use.
    fn container_stats(&self, filter: ContainerStatsFilter) -> Answer<'_, Vec<ContainerStats>> {
        drop(filter);
        unsupported("ListContainerStats")
    }
    /// What the sandboxes that pass the filter use.
    fn sandbox_stats(&self, filter: PodSandboxStatsFilter) -> Answer<'_, Vec<PodSandboxStats>> {
        drop(filter);
        unsupported("ListPodSandboxStats")
    }
}

/// The answer of a runtime that does not have a call.
fn unsupported<'a, T: Send + 'a>(call: &'static str) -> Answer<'a, T> {
    Box::pin(std::future::ready(Err(Error::Unsupported { call })))
}
