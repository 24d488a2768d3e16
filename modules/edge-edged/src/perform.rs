//! Doing the jobs of a plan.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::Moment;
use contract::UpReport;
use cri::Error as RuntimeError;
use cri::v1::LinuxContainerConfig;
use k8s_openapi::api::core::v1::PodStatus;

use crate::backoff::Fault;
use crate::container::{self, Start};
use crate::desired::{Desired, PodId};
use crate::error::StepError;
use crate::events::Kind;
use crate::image::{self, PullPolicy};
use crate::plan::{ImageReady, StopReason};
use crate::tools::{CGROUPS, Tools, blocking};
use crate::volumes::{self, Prepared, token_wants};
use crate::{cgroup, env, layout, resources, sandbox, security};

/// What became of a job.
#[derive(Debug)]
pub(crate) enum Outcome {
    Volumes(Result<(Prepared, Option<Moment>), StepError>),
    Sandbox(Result<String, StepError>),
    Image(Result<ImageReady, Fault>),
    Start(Result<String, StartFault>),
    Done(Result<(), StepError>),
    Report(Result<Box<PodStatus>, String>),
}

/// Why a container did not start.
#[derive(Debug)]
pub(crate) struct StartFault {
    /// As in `state.waiting.reason`.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// Something that is missing may come.
    pub(crate) may_come: bool,
    /// The instance exists and has ended: its restart waits as after any end.
    pub(crate) ended: bool,
}

/// Brings the volumes up to date.
pub(crate) async fn prepare_volumes(
    tools: Rc<Tools>,
    pod: Arc<Desired>,
) -> Result<(Prepared, Option<Moment>), StepError> {
    let wants = token_wants(pod.spec());
    let granted = tools.tokens.of_pod(&pod, &wants, &tools.desk, &tools.meta, &tools.env).await;
    let (tokens, refresh_at) = granted.map_err(|reason| StepError::Token {
        account: pod.spec().service_account_name.clone().unwrap_or_else(|| "default".to_owned()),
        reason,
    })?;
    let sources = tools.sources(&pod.id.namespace, pod.spec());
    let facts = tools.facts(&[], pod.host_network());
    let root = tools.settings.root.clone();
    let prepare = move || volumes::prepare(&root, &pod, &sources, &tokens, &facts);
    let prepared = blocking(&tools.env, "prepare the volumes in", prepare).await?;
    Ok((prepared, refresh_at))
}

/// Makes the sandbox.
pub(crate) async fn run_sandbox(
    tools: Rc<Tools>,
    pod: Arc<Desired>,
    attempt: u32,
) -> Result<String, StepError> {
    let dns = tools.node.borrow().dns.clone();
    if crate::dns::misses_cluster_dns(pod.spec(), &dns)
        && pod.spec().dns_policy.as_deref() == Some("ClusterFirstWithHostNet")
    {
        let text = "edged has no clusterDNS configured and cannot create the pod with ClusterFirstWithHostNet; falling back to the node's resolver";
        tools.event(&pod.id, Kind::Warning, "MissingClusterDNS", text);
    }
    let config = sandbox::config(&pod, attempt, &tools.place(&dns))?;
    let (driver, root) = (tools.settings.cgroup_driver, tools.settings.cgroup_root.clone());
    let logs = PathBuf::from(&config.log_directory);
    let id = pod.id.clone();
    let make = move || {
        std::fs::create_dir_all(&logs).map_err(|error| StepError::file("make folder", &logs, &error))?;
        // The containers keep their own limits without the pod's.
        if let Err(error) = cgroup::make(CGROUPS.as_ref(), &pod, driver, &root) {
            tracing::warn!(pod = %pod.id.name, %error, "cgroup of a pod could not be made with its limits");
        }
        Ok(())
    };
    blocking(&tools.env, "make the log folder in", make).await?;
    let made = tools.runtime.run_sandbox(config).await;
    made.map_err(|error| {
        tracing::warn!(pod = %id.name, %error, "sandbox did not start");
        StepError::Runtime(error)
    })
}

/// Sees to it that a container's image is here. `ran_before`: this pod has run this image, so it was fetched with this
/// pod's credentials once.
pub(crate) async fn ensure_image(
    tools: Rc<Tools>,
    pod: Arc<Desired>,
    name: String,
    before: Option<Fault>,
    ran_before: bool,
) -> Result<ImageReady, Fault> {
    let Some(spec) = pod.container(&name) else {
        return Err(Fault::steady("InvalidImageName", format!("no container `{name}`"), false, tools.now()));
    };
    let image = image::name(spec);
    let policy = image::policy(spec);
    let fault =
        |error: &RuntimeError| Fault::after(before.as_ref(), "ErrImagePull", error.to_string(), tools.now());
    if policy != PullPolicy::Always {
        match tools.runtime.image_status(&image).await {
            Ok(Some(found)) => return Ok(ready(found)),
            Ok(None) if policy == PullPolicy::Never => {
                let text = format!("Container image \"{image}\" is not present with pull policy of Never");
                tools.event(&pod.id, Kind::Warning, "ErrImageNeverPull", &text);
                return Err(Fault::steady("ErrImageNeverPull", text, false, tools.now()));
            }
            Ok(None) => {}
            Err(error) => {
                return Err(Fault::after(
                    before.as_ref(),
                    "ImageInspectError",
                    error.to_string(),
                    tools.now(),
                ));
            }
        }
    }
    let error = match pull(&tools, &pod, &image).await {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    // Without a way to the registry a node goes on with what it had.
    if ran_before && let Ok(Some(found)) = tools.runtime.image_status(&image).await {
        let text = format!(
            "Image \"{image}\" could not be pulled; its container restarts with the one at hand: {error}"
        );
        tools.event(&pod.id, Kind::Warning, "ImageNotRefreshed", &text);
        return Ok(ready(found));
    }
    Err(fault(&error))
}

fn ready(image: cri::v1::Image) -> ImageReady {
    ImageReady { reference: image.id.clone(), image }
}

async fn pull(tools: &Rc<Tools>, pod: &Desired, image: &str) -> Result<ImageReady, RuntimeError> {
    // Never closed, so an error cannot come; without a permit the pull is merely not counted.
    let _turn = tools.pulls.acquire().await.ok();
    tools.event(&pod.id, Kind::Normal, "Pulling", &format!("Pulling image \"{image}\""));
    let sources = tools.sources(&pod.id.namespace, pod.spec());
    let names: Vec<String> =
        pod.spec().image_pull_secrets.iter().flatten().map(|secret| secret.name.clone()).collect();
    let mut tries: Vec<_> = image::credentials(image, &names, &sources).into_iter().map(Some).collect();
    if tries.is_empty() {
        tries.push(None);
    }
    let mut last = RuntimeError::Failed { call: "PullImage", message: "nothing was tried".to_owned() };
    for auth in tries {
        match tools.runtime.pull_image(image, auth).await {
            Ok(_) => {
                let found = tools.runtime.image_status(image).await?;
                tools.event(&pod.id, Kind::Normal, "Pulled", &format!("Pulled image \"{image}\""));
                let missing = || RuntimeError::ImageNotFound {
                    image: image.to_owned(),
                    message: "gone after the pull".to_owned(),
                };
                return found.map(ready).ok_or_else(missing);
            }
            Err(error) => last = error,
        }
    }
    let text = format!("Failed to pull image \"{image}\": {last}");
    tools.event(&pod.id, Kind::Warning, "Failed", &text);
    Err(last)
}

/// What a start needs that was made before.
pub(crate) struct Ground {
    pub(crate) sandbox: String,
    pub(crate) sandbox_attempt: u32,
    pub(crate) ips: Vec<String>,
    pub(crate) image: ImageReady,
    pub(crate) volumes: Prepared,
}

/// Creates and starts a container; `made` is told its id before it runs.
pub(crate) async fn start(
    tools: Rc<Tools>,
    pod: Arc<Desired>,
    name: String,
    attempt: u32,
    ground: Ground,
    made: impl FnOnce(&str),
) -> Result<String, StartFault> {
    let created = create(&tools, &pod, &name, attempt, ground).await;
    let id = match created {
        Ok(id) => id,
        Err(error) => {
            let (reason, may_come) = match &error {
                StepError::Missing(_) => ("CreateContainerConfigError", true),
                StepError::Config(_) | StepError::Token { .. } | StepError::File { .. } => {
                    ("CreateContainerConfigError", false)
                }
                StepError::Runtime(_) => ("CreateContainerError", false),
            };
            tools.event(&pod.id, Kind::Warning, "Failed", &format!("Error: {error}"));
            return Err(StartFault { reason, message: error.to_string(), may_come, ended: false });
        }
    };
    made(&id);
    match tools.runtime.start_container(&id).await {
        Ok(()) => Ok(id),
        Err(error) => {
            tools.event(&pod.id, Kind::Warning, "Failed", &format!("Error: {error}"));
            let message = error.to_string();
            Err(StartFault { reason: "RunContainerError", message, may_come: false, ended: true })
        }
    }
}

async fn create(
    tools: &Rc<Tools>,
    pod: &Arc<Desired>,
    name: &str,
    attempt: u32,
    ground: Ground,
) -> Result<String, StepError> {
    let spec = pod.container(name).ok_or_else(|| StepError::Config(format!("no container `{name}`")))?;
    let sources = tools.sources(&pod.id.namespace, pod.spec());
    let facts = tools.facts(&ground.ips, pod.host_network());
    let env = env::assemble(pod, spec, &sources, &facts)?;
    let context = security::of_container(pod.spec(), spec, &ground.image.image, &tools.settings.root)?;
    let linux = LinuxContainerConfig {
        resources: Some(resources::of_container(pod.qos, spec, facts.node_memory)),
        security_context: Some(context),
    };
    let mounts = {
        let (pod, env, name) = (Arc::clone(pod), env.clone(), name.to_owned());
        let (root, node) = (tools.settings.root.clone(), tools.settings.node_name.clone());
        let (ips, volumes) = (ground.ips.clone(), ground.volumes);
        let logs = layout::pod_logs(&tools.settings.logs, &pod.id).join(&name);
        let make = move || {
            let spec =
                pod.container(&name).ok_or_else(|| StepError::Config(format!("no container `{name}`")))?;
            std::fs::create_dir_all(&logs).map_err(|error| StepError::file("make folder", &logs, &error))?;
            volumes::write_hosts(&layout::etc_hosts(&root, &pod.id.uid), &pod, &ips, &node)?;
            volumes::mounts_of(&root, &pod, spec, attempt, &volumes, &env)
        };
        blocking(&tools.env, "make the mounts in", make).await?
    };
    let start = Start {
        attempt,
        image: &ground.image.reference,
        env: &env,
        mounts,
        linux,
        node_name: &tools.settings.node_name,
    };
    let config = container::config(pod, spec, start);
    let dns = tools.node.borrow().dns.clone();
    let sandbox_config = sandbox::config(pod, ground.sandbox_attempt, &tools.place(&dns))?;
    Ok(tools.runtime.create_container(&ground.sandbox, config, sandbox_config).await?)
}

/// Ends a container, politely first.
pub(crate) async fn stop(
    tools: Rc<Tools>,
    pod: PodId,
    id: String,
    name: String,
    why: StopReason,
    grace: Duration,
) -> Result<(), StepError> {
    let text = match why {
        StopReason::Ending => format!("Stopping container {name}"),
        StopReason::Changed => format!("Container {name} definition changed, will be restarted"),
        StopReason::SandboxLost => format!("Container {name} has lost its sandbox and will be restarted"),
    };
    tools.event(&pod, Kind::Normal, "Killing", &text);
    Ok(tools.runtime.stop_container(&id, grace).await?)
}

/// Removes an instance and its log.
pub(crate) async fn remove_container(tools: Rc<Tools>, id: String, log: PathBuf) -> Result<(), StepError> {
    tools.runtime.remove_container(&id).await?;
    if log.is_absolute() {
        drop(std::fs::remove_file(log));
    }
    Ok(())
}

/// Removes everything of the pod from the disk.
pub(crate) async fn teardown(tools: Rc<Tools>, pod: PodId) -> Result<(), StepError> {
    tools.tokens.forget(&pod.uid, &tools.desk).await;
    let root = tools.settings.root.clone();
    let cgroup_root = tools.settings.cgroup_root.clone();
    let logs = layout::pod_logs(&tools.settings.logs, &pod);
    blocking(&tools.env, "clear away", move || {
        volumes::teardown(&root, &pod.uid, Some(&logs))?;
        cgroup::remove(CGROUPS.as_ref(), &pod.uid, &cgroup_root);
        Ok(())
    })
    .await
}

/// Leaves the status for the cloud.
pub(crate) async fn report(
    tools: Rc<Tools>,
    pod: PodId,
    status: Box<PodStatus>,
) -> Result<Box<PodStatus>, String> {
    let status_json = serde_json::to_string(&status).map_err(|error| error.to_string())?;
    let report = UpReport::PodStatus { namespace: pod.namespace, name: pod.name, uid: pod.uid, status_json };
    tools.report(&report).await?;
    Ok(status)
}
