//! A pod by the bare CRI calls that no node can do without: what Edged's starts and ends are measured beside. They ask for what a
//! kubelet asks for with every pod, since it is the runtime that pays for it: the sandbox's seccomp profile (a quarter of
//! `RunPodSandbox`), and what of `/proc` and `/sys` is kept from a container.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use cri::proc_mount::{MASKED, READ_ONLY};
use cri::v1::security_profile::ProfileType;
use cri::v1::{
    ContainerConfig, ContainerMetadata, ImageSpec, LinuxContainerConfig, LinuxContainerSecurityContext,
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, PodSandboxConfig, PodSandboxMetadata,
    SecurityProfile,
};
use cri::{Grpc, Runtime};

/// A pod with one container that runs.
pub(crate) struct BarePod {
    sandbox: String,
    container: String,
}

/// When each of the calls that start one had been answered, since the first was made.
pub(crate) struct Started {
    pub(crate) sandboxed: Duration,
    pub(crate) created: Duration,
    pub(crate) whole: Duration,
}

impl BarePod {
    /// Starts the pod `name` whose container runs `command`; its log lies below `folder`.
    pub(crate) async fn start(
        runtime: &Grpc,
        folder: &Path,
        name: &str,
        command: &[&str],
    ) -> Result<(BarePod, Started)> {
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: format!("bare-{name}"),
                uid: format!("bare-{name}"),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            hostname: "bare".to_owned(),
            log_directory: folder.join("bare").join(name).display().to_string(),
            linux: Some(sandbox_of_a_kubelet()),
            ..PodSandboxConfig::default()
        };
        let container = ContainerConfig {
            metadata: Some(ContainerMetadata { name: "c".to_owned(), attempt: 0 }),
            image: Some(ImageSpec { image: testhost::BUSYBOX.to_owned(), ..ImageSpec::default() }),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            log_path: "c.log".to_owned(),
            linux: Some(container_of_a_kubelet()),
            ..ContainerConfig::default()
        };
        let begun = Instant::now();
        let sandbox = runtime.run_sandbox(config.clone(), "").await?;
        let sandboxed = begun.elapsed();
        let id = runtime.create_container(&sandbox, container, config).await?;
        let created = begun.elapsed();
        runtime.start_container(&id).await?;
        let whole = begun.elapsed();
        Ok((BarePod { sandbox, container: id }, Started { sandboxed, created, whole }))
    }

    /// Ends it and leaves nothing. The container has `grace` to end by itself.
    pub(crate) async fn end(self, runtime: &Grpc, grace: Duration) -> Result<()> {
        runtime.stop_container(&self.container, grace).await?;
        runtime.stop_sandbox(&self.sandbox).await?;
        runtime.remove_sandbox(&self.sandbox).await?;
        Ok(())
    }
}

fn sandbox_of_a_kubelet() -> LinuxPodSandboxConfig {
    let seccomp =
        SecurityProfile { profile_type: ProfileType::RuntimeDefault.into(), localhost_ref: String::new() };
    LinuxPodSandboxConfig {
        security_context: Some(LinuxSandboxSecurityContext {
            seccomp: Some(seccomp),
            ..LinuxSandboxSecurityContext::default()
        }),
        ..LinuxPodSandboxConfig::default()
    }
}

fn container_of_a_kubelet() -> LinuxContainerConfig {
    let list = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
    LinuxContainerConfig {
        security_context: Some(LinuxContainerSecurityContext {
            masked_paths: list(&MASKED),
            readonly_paths: list(&READ_ONLY),
            ..LinuxContainerSecurityContext::default()
        }),
        ..LinuxContainerConfig::default()
    }
}
