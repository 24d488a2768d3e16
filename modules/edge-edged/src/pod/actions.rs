//! Doing the jobs of a plan.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::Moment;
use contract::UpReport;
use cri::v1::LinuxContainerConfig;
use k8s_openapi::api::core::v1::PodStatus;

use crate::disk::beneath::{Access, Folder};
use crate::disk::folders;
use crate::disk::layout;
use crate::disk::removal;
use crate::error::StepError;
use crate::pod::backoff::Failure;
use crate::pod::parsed_pod::{ParsedPod, PodId};
use crate::pod::plan::{ImageReady, StopReason};
use crate::pod::recorder::Kind;
use crate::runtime::cgroup;
use crate::runtime::container::{self, Start};
use crate::runtime::env;
use crate::runtime::resources;
use crate::runtime::sandbox;
use crate::runtime::security;
use crate::tools::{CGROUPS, Tools, blocking};
use crate::volumes::{self, Prepared, Teardown, token_requests};

/// As the kubelet's: collectors of logs pass. The logs themselves are the runtime's, 0640.
const LOGS: u32 = 0o755;

/// What became of a job.
#[derive(Debug)]
pub(crate) enum Outcome {
    Volumes(Result<(Prepared, Option<Moment>), StepError>),
    Sandbox(Result<String, StepError>),
    Image(Result<ImageReady, Failure>),
    Start(Result<String, StartError>),
    Done(Result<(), StepError>),
    Report(Result<Box<PodStatus>, String>),
}

/// Why a container did not start.
#[derive(Debug)]
pub(crate) struct StartError {
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
    pod: Arc<ParsedPod>,
) -> Result<(Prepared, Option<Moment>), StepError> {
    let wants = token_requests(pod.spec());
    let granted = tools.tokens.of_pod(&pod, &wants, &tools.desk, &tools.meta, &tools.env).await;
    let (tokens, refresh_at) = granted.map_err(|reason| StepError::Token {
        account: pod.spec().service_account_name.clone().unwrap_or_else(|| "default".to_owned()),
        reason,
    })?;
    let sources = tools.sources(&pod.id.namespace, pod.spec());
    let facts = tools.facts(&[], pod.host_network());
    let root = tools.settings.root.clone();
    let prepare = move || volumes::prepare(&folders::root(&root)?, &pod, &sources, &tokens, &facts);
    let prepared = blocking(&tools.env, "prepare the volumes in", prepare).await?;
    Ok((prepared, refresh_at))
}

/// Makes the sandbox.
pub(crate) async fn run_sandbox(
    tools: Rc<Tools>,
    pod: Arc<ParsedPod>,
    attempt: u32,
) -> Result<String, StepError> {
    let dns = tools.node.borrow().dns.clone();
    if crate::runtime::dns::misses_cluster_dns(pod.spec(), &dns)
        && pod.spec().dns_policy.as_deref() == Some("ClusterFirstWithHostNet")
    {
        let text = "edged has no clusterDNS configured and cannot create the pod with ClusterFirstWithHostNet; falling back to the node's resolver";
        tools.event(&pod.id, Kind::Warning, "MissingClusterDNS", text);
    }
    let config = sandbox::config(&pod, attempt, &tools.place(&dns))?;
    let (driver, root) = (tools.settings.cgroup_driver, tools.settings.cgroup_root.clone());
    let logs = tools.settings.logs.clone();
    let id = pod.id.clone();
    let make = move || {
        Folder::make_root(&logs, LOGS)?.make(&layout::pod_logs(&pod.id), Access::mode(LOGS))?;
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
    pod: Arc<ParsedPod>,
    name: String,
    attempt: u32,
    ground: Ground,
    made: impl FnOnce(&str),
) -> Result<String, StartError> {
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
            return Err(StartError { reason, message: error.to_string(), may_come, ended: false });
        }
    };
    made(&id);
    match tools.runtime.start_container(&id).await {
        Ok(()) => Ok(id),
        Err(error) => {
            tools.event(&pod.id, Kind::Warning, "Failed", &format!("Error: {error}"));
            let message = error.to_string();
            Err(StartError { reason: "RunContainerError", message, may_come: false, ended: true })
        }
    }
}

async fn create(
    tools: &Rc<Tools>,
    pod: &Arc<ParsedPod>,
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
        let logs = tools.settings.logs.clone();
        let make = move || {
            let spec =
                pod.container(&name).ok_or_else(|| StepError::Config(format!("no container `{name}`")))?;
            let log = layout::pod_logs(&pod.id).join(&name);
            Folder::make_root(&logs, LOGS)?.make(&log, Access::mode(LOGS))?;
            let root = folders::root(&root)?;
            volumes::write_hosts(&root, &pod, &ips, &node)?;
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
    let logs = tools.settings.logs.clone();
    let remove = move || Folder::find_root(&logs)?.map_or(Ok(()), |logs| logs.remove(&log));
    blocking(&tools.env, "remove the log in", remove).await
}

/// Removes everything of the pod from the disk. How long that takes is the pod's choice, and nobody waits behind it.
pub(crate) async fn teardown(tools: Rc<Tools>, pod: PodId) -> Result<(), StepError> {
    tools.tokens.forget(&pod.uid, &tools.desk).await;
    let (root, logs) = (tools.settings.root.clone(), tools.settings.logs.clone());
    let cgroup_root = tools.settings.cgroup_root.clone();
    let begin = move || {
        cgroup::remove(CGROUPS.as_ref(), &pod.uid, &cgroup_root);
        Teardown::begin(&root, &logs, &pod.uid, &layout::pod_logs(&pod))
    };
    removal::clear(&tools.env, begin).await
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
