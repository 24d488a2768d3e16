//! Performing the actions of a plan.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::Moment;
use contract::UpReport;
use cri::v1::{LinuxContainerConfig, Signal};
use futures::FutureExt as _;
use futures::future::{AbortRegistration, LocalBoxFuture};
use k8s_openapi::api::core::v1::{Container, PodStatus, ResourceRequirements};
use serde_json::{Map, Value};

use crate::dependencies::{Dependencies, blocking};
use crate::disk::folders;
use crate::disk::layout;
use crate::disk::removal;
use crate::error::StepError;
use crate::images::pull;
use crate::images::volume as image_volumes;
use crate::kubelet_metrics::ContainerType;
use crate::logs::files::{self, LogOf};
use crate::pod::action::Action;
use crate::pod::backoff::Failure;
use crate::pod::container_status::RUN_FAILED;
use crate::pod::external_volumes;
use crate::pod::hooks;
use crate::pod::id::PodId;
use crate::pod::others_paths;
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::recorder::EventType;
use crate::pod::resizing;
use crate::pod::sandbox_step;
use crate::pod::sync_state::ImageReady;
use crate::runtime::bounds;
use crate::runtime::cgroup::{self, Bounds};
use crate::runtime::container::{self, Start};
use crate::runtime::env;
use crate::runtime::expansion::ArgumentSpace;
use crate::runtime::grant;
use crate::runtime::oom_score;
use crate::runtime::pods::RuntimeContainer;
use crate::runtime::resources::Amounts;
use crate::runtime::sandbox;
use crate::runtime::security;
use crate::runtime::slices::{self, Slices};
use crate::runtime::stop_signal;
use crate::runtime::user_namespace;
use crate::volumes::{
    self, EnvFiles, MountContext, Prepared, PreparedVolumes, Teardown, devices, token_requests,
};

/// What became of a job.
#[derive(Debug)]
pub(crate) enum Outcome {
    Volumes(Result<(PreparedVolumes, Option<Moment>), VolumesFailed>),
    Sandbox(Result<String, StepError>),
    Image(Result<ImageReady, Failure>),
    Start(Result<String, StartError>),
    Done(Result<(), StepError>),
    /// What the container was given, or why not.
    Resize(Result<Box<ResourceRequirements>, String>),
    /// What the pod's cgroup was to be, and why it is not.
    Bounded(Bounds, Result<(), String>),
    /// Why a hook has failed.
    Hook(Result<(), String>),
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

/// What an action takes from what the worker knows.
#[derive(Debug)]
pub(crate) enum ActionInput {
    None,
    /// `before`: the pod's volumes, if it has had all of them. `has_run`: containers of it were made, which had them. `pulls`: the
    /// images among them are waited for until this is broken off.
    Volumes {
        before: Option<PreparedVolumes>,
        has_run: bool,
        pulls: AbortRegistration,
    },
    /// `before`: the pull that failed last. `ran_before`: the pod has run this image.
    Image {
        before: Option<Failure>,
        ran_before: bool,
    },
    Start(Box<StartContext>),
    /// The instance that is given other resources, and what it has.
    Resize {
        container: RuntimeContainer,
        before: Amounts,
    },
    /// What the pod's cgroup is to be.
    Bounds(Bounds),
    /// The instance that is removed.
    Container(RuntimeContainer),
    /// The container's name, what is left of the grace, and the event that says why, unless it was said.
    Stop {
        name: String,
        grace: Duration,
        event: Option<String>,
    },
    /// The container whose hook is run, the pod's address, and what is said before.
    Hook {
        container: RuntimeContainer,
        ip: String,
        event: Option<String>,
    },
}

/// The work of an action. A combination that makes no sense, which the worker never asks for, is an error in the pod's
/// events.
pub(crate) fn perform(
    deps: Rc<Dependencies>,
    pod: Arc<ParsedPod>,
    action: Action,
    input: ActionInput,
) -> LocalBoxFuture<'static, Outcome> {
    let id = pod.id.clone();
    match (action, input) {
        (Action::Volumes, ActionInput::Volumes { before, has_run, pulls }) => {
            prepare_volumes(deps, pod, before, (has_run, pulls)).map(Outcome::Volumes).boxed_local()
        }
        (Action::Sandbox { attempt }, _) => {
            sandbox_step::run_sandbox(deps, pod, attempt).map(Outcome::Sandbox).boxed_local()
        }
        (Action::Image { container, .. }, ActionInput::Image { before, ran_before }) => {
            pull::ensure_image(deps, pod, container, before, ran_before).map(Outcome::Image).boxed_local()
        }
        (Action::Start { container, attempt }, ActionInput::Start(context)) => {
            start(deps, pod, container, attempt, *context).map(Outcome::Start).boxed_local()
        }
        (Action::Stop { id: container, .. }, ActionInput::Stop { name, grace, event }) => {
            stop(deps, pod, (container, name), event, grace).map(Outcome::Done).boxed_local()
        }
        (Action::Resize { .. }, ActionInput::Resize { container, before }) => {
            resizing::resize(deps, pod, container, before).map(Outcome::Resize).boxed_local()
        }
        (Action::BoundPod, ActionInput::Bounds(wanted)) => resizing::bound_pod(deps, pod, wanted)
            .map(move |result| Outcome::Bounded(wanted, result))
            .boxed_local(),
        (Action::PostStart { .. }, ActionInput::Hook { container, ip, .. }) => {
            hooks::post_start(deps, pod, container, ip).map(Outcome::Hook).boxed_local()
        }
        (Action::PreStop { .. }, ActionInput::Hook { container, ip, event }) => {
            if let Some(text) = event {
                deps.container_event(&pod, &container.name, EventType::Normal, "Killing", &text);
            }
            hooks::pre_stop(deps, pod, container, ip).map(Outcome::Hook).boxed_local()
        }
        (Action::RemoveContainer { id: container }, ActionInput::Container(seen)) => {
            let log = LogOf { pod: id, container: seen.name, attempt: seen.attempt, id: container };
            remove_container(deps, log).map(Outcome::Done).boxed_local()
        }
        (Action::Reset { id: container }, _) => {
            async move { Outcome::Done(deps.runtime.remove_container(&container).await.map_err(Into::into)) }
                .boxed_local()
        }
        (Action::StopSandbox { id: sandbox }, _) => {
            async move { Outcome::Done(deps.runtime.stop_sandbox(&sandbox).await.map_err(Into::into)) }
                .boxed_local()
        }
        (Action::RemoveSandbox { id: sandbox }, _) => {
            async move { Outcome::Done(deps.runtime.remove_sandbox(&sandbox).await.map_err(Into::into)) }
                .boxed_local()
        }
        (Action::Teardown, _) => teardown(deps, id).map(Outcome::Done).boxed_local(),
        (Action::Unmount, _) => {
            async move { Outcome::Done(external_volumes::tear_down(&deps, &id).await) }.boxed_local()
        }
        (action @ (Action::Image { .. } | Action::Start { .. } | Action::Stop { .. }), _)
        | (action @ (Action::PostStart { .. } | Action::PreStop { .. } | Action::Resize { .. }), _)
        | (action @ (Action::RemoveContainer { .. } | Action::Report | Action::Volumes), _)
        | (action @ Action::BoundPod, _) => {
            let error = StepError::Config(format!("{action:?} without what it needs"));
            futures::future::ready(Outcome::Done(Err(error))).boxed_local()
        }
    }
}

/// Why a pod has not all of its volumes, each by itself; never none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VolumesFailed(pub(crate) Vec<StepError>);

impl From<StepError> for VolumesFailed {
    fn from(error: StepError) -> Self {
        VolumesFailed(vec![error])
    }
}

/// Brings the volumes up to date. As with a kubelet each is tried, whatever becomes of the others.
async fn prepare_volumes(
    deps: Rc<Dependencies>,
    pod: Arc<ParsedPod>,
    before: Option<PreparedVolumes>,
    (has_run, pulls): (bool, AbortRegistration),
) -> Result<(PreparedVolumes, Option<Moment>), VolumesFailed> {
    let wants = token_requests(pod.spec());
    let granted = deps.tokens.of_pod(&pod, &wants, &deps.store, &deps.meta, &deps.env).await;
    let (tokens, refresh_at) = granted.map_err(|reason| StepError::Token {
        account: pod.spec().service_account_name.clone().unwrap_or_else(|| "default".to_owned()),
        reason,
    })?;
    let mounted = external_volumes::set_up(&deps, &pod, before.as_ref()).await?;
    let refresh_at = refresh_at.into_iter().chain(mounted.again).min();
    let (mut external, mut failed) = (mounted.volumes, mounted.failed);
    let images = image_volumes::set_up(&deps, &pod, before.as_ref(), has_run);
    match image_volumes::unless_ended(images, pulls).await {
        Ok(images) => external.extend(images),
        Err(error) => failed.push(error),
    }
    failed.extend(others_paths::check_host_paths(&deps, &pod, before.as_ref()).await);
    let sources = deps.sources(&pod).await?;
    let facts = deps.facts(&[], pod.host_network());
    let root = deps.settings.root.clone();
    let id = pod.id.clone();
    let prepare =
        move || Ok(volumes::prepare(&folders::root(&root)?, &pod, &sources, &tokens, &facts, external));
    let Prepared { volumes, stale, failed: own } =
        blocking(&deps.env, "prepare the volumes in", prepare).await?;
    failed.extend(own);
    if !failed.is_empty() {
        return Err(VolumesFailed(failed));
    }
    for why in stale.into_iter().chain(mounted.stale) {
        deps.event(&id, EventType::Warning, "FailedMount", &why);
    }
    Ok((volumes, refresh_at))
}

/// What a start needs that was made before.
#[derive(Debug)]
pub(crate) struct StartContext {
    pub(crate) sandbox: String,
    pub(crate) sandbox_attempt: u32,
    /// The runtime's handler that the sandbox was made with.
    pub(crate) handler: String,
    pub(crate) ips: Vec<String>,
    pub(crate) image: ImageReady,
    pub(crate) volumes: PreparedVolumes,
    /// Of an ephemeral container with a target: that one's id, if it runs.
    pub(crate) target: Option<String>,
}

/// Creates and starts a container. It counts as the pod's before it runs: it may end before anybody has looked.
async fn start(
    deps: Rc<Dependencies>,
    pod: Arc<ParsedPod>,
    name: String,
    attempt: u32,
    context: StartContext,
) -> Result<String, StartError> {
    let kind = type_of(&pod, &name);
    deps.counts.container_begun(kind);
    let created = create(&deps, &pod, &name, attempt, context).await;
    let id = match created {
        Ok(id) => id,
        Err(error) => {
            let (reason, may_come) = match &error {
                StepError::Missing(_) | StepError::DynamicResources(_) => {
                    ("CreateContainerConfigError", true)
                }
                StepError::Config(_) | StepError::Token { .. } | StepError::File { .. } => {
                    ("CreateContainerConfigError", false)
                }
                StepError::Runtime(_) => ("CreateContainerError", false),
            };
            let message = error.of_container();
            let text = format!("Error: {message}");
            deps.counts.container_failed(kind, reason);
            deps.container_event(&pod, &name, EventType::Warning, "Failed", &text);
            return Err(StartError { reason, message, may_come, ended: false });
        }
    };
    deps.ids.add(&pod.id.uid, &id);
    deps.container_event(&pod, &name, EventType::Normal, "Created", "Container created");
    match deps.runtime.start_container(&id).await {
        Ok(()) => {
            tell_of_stop_signal(&deps, &pod, &name, &id).await;
            let log = LogOf { pod: pod.id.clone(), container: name, attempt, id: id.clone() };
            link_log(&deps, log).await;
            Ok(id)
        }
        Err(error) => {
            let message = error.grpc_message();
            let text = format!("Error: {message}");
            deps.container_event(&pod, &name, EventType::Warning, "Failed", &text);
            deps.counts.container_failed(kind, RUN_FAILED);
            Err(StartError { reason: RUN_FAILED, message, may_come: false, ended: true })
        }
    }
}

async fn create(
    deps: &Rc<Dependencies>,
    pod: &Arc<ParsedPod>,
    name: &str,
    attempt: u32,
    context: StartContext,
) -> Result<String, StepError> {
    let spec = pod.container(name).ok_or_else(|| StepError::Config(format!("no container `{name}`")))?;
    let sources = deps.sources(pod).await?;
    let facts = deps.facts(&context.ips, pod.host_network());
    // As its sandbox was made: the class may have gone or changed since.
    let handler = context.handler.clone();
    let users = sandbox_step::users_of(deps, pod, &handler).await?;
    let features = features_for(deps, pod, spec, &handler).await?;
    let stop_signal = stop_signal::of_container(spec)?;
    let files = env_files(deps, pod, name, &context.volumes).await?;
    let grant = grant::of_container(deps, pod, name).await?;
    let (env, space) = {
        let (pod, name, facts) = (Arc::clone(pod), name.to_owned(), facts.clone());
        let assemble = move || {
            let spec =
                pod.container(&name).ok_or_else(|| StepError::Config(format!("no container `{name}`")))?;
            let mut space = ArgumentSpace::new();
            let env = env::assemble(&pod, spec, &sources, &files, &facts, &mut space)?;
            Ok((env, space))
        };
        // How much there is to look up is the pod's author's choice.
        blocking(&deps.env, "work out the variables of", assemble).await?
    };
    let env = grant::env(&grant, env);
    let mut security =
        security::of_container(pod, spec, &context.image.image, &deps.settings.root, features)?;
    if let Some(target) = pod.ephemeral(name).and_then(|one| one.target.as_ref()) {
        let missing = || StepError::Config(format!("unable to find target container {target}"));
        let id = context.target.clone().ok_or_else(missing)?;
        security.namespace_options = Some(security::beside(pod.spec(), id));
    }
    let linux = LinuxContainerConfig {
        resources: Some(bounds::of_container(pod, spec, &deps.node.borrow().limits)),
        security_context: Some(security),
    };
    let dns = deps.node.borrow().dns.clone();
    let names = deps.place(&dns).names(pod);
    others_paths::show_sub_paths(deps, pod, name, &context.volumes, &env).await?;
    let (mounts, devices) = {
        let (pod, env, name) = (Arc::clone(pod), env.clone(), name.to_owned());
        let (root, ips, volumes) = (deps.settings.root.clone(), context.ips.clone(), context.volumes);
        let logs = deps.settings.logs.clone();
        let make = move || {
            let spec =
                pod.container(&name).ok_or_else(|| StepError::Config(format!("no container `{name}`")))?;
            files::make_folder(&logs, &pod.id, &name)?;
            let root = folders::root(&root)?;
            volumes::write_hosts(&root, &pod, &ips, &names)?;
            let context = MountContext { attempt, volumes: &volumes, env: &env, ips: &ips, features };
            let devices = devices::of_container(root.shown(), spec, &volumes)?;
            Ok((volumes::mounts_of(&root, &pod, spec, &context)?, devices))
        };
        blocking(&deps.env, "make the mounts in", make).await?
    };
    let start = Start {
        attempt,
        image: &context.image.reference,
        env: &env,
        mounts,
        linux,
        node_name: &deps.settings.node_name,
    };
    let mut config = container::config(pod, spec, start, space)?;
    grant::apply(grant, &mut config);
    // Behind those of plugins.
    config.devices.extend(devices);
    oom_score::put(&mut config, pod, spec, facts.node_memory);
    if let Some(signal) = stop_signal {
        config.set_stop_signal(signal);
    }
    user_namespace::put_into_container(&mut config, &users);
    let mut sandbox_config = sandbox::config(pod, context.sandbox_attempt, &deps.place(&dns))?;
    user_namespace::put_into_sandbox(&mut sandbox_config, &users);
    Ok(deps.runtime.create_container(&context.sandbox, config, sandbox_config).await?)
}

fn type_of(pod: &ParsedPod, name: &str) -> ContainerType {
    if pod.ephemeral(name).is_some() {
        ContainerType::Ephemeral
    } else if pod.init_containers().any(|init| init.name == name) {
        ContainerType::Init
    } else {
        ContainerType::Main
    }
}

/// A runtime that does not know stop signals (containerd before 2.1) passes over the field, as it does with a kubelet; here an event
/// says so.
async fn tell_of_stop_signal(deps: &Rc<Dependencies>, pod: &ParsedPod, name: &str, id: &str) {
    let wanted = pod.container(name).and_then(|own| own.lifecycle.as_ref()?.stop_signal.clone());
    let Some(wanted) = wanted else { return };
    let Ok(status) = deps.runtime.container_status(id).await else { return };
    if status.stop_signal() == Signal::RuntimeDefault {
        let text = format!(
            "lifecycle.stopSignal {wanted} has no effect: the container runtime does not know stop signals, and sends the image's"
        );
        deps.container_event(pod, name, EventType::Warning, "StopSignalNotSupported", &text);
    }
}

/// What the runtime can do of the newer parts of CRI that a container needs; nobody is asked for one that needs none.
async fn features_for(
    deps: &Dependencies,
    pod: &ParsedPod,
    container: &Container,
    handler: &str,
) -> Result<cri::Features, StepError> {
    let mut mounts = container.volume_mounts.iter().flatten();
    let policy = pod.spec().security_context.as_ref().and_then(|own| own.supplemental_groups_policy.as_ref());
    if policy.is_none() && !mounts.any(|mount| mount.recursive_read_only.is_some()) {
        return Ok(cri::Features::default());
    }
    Ok(deps.runtime.features().await?.of(handler))
}

/// What is in the files that variables of a container come from.
async fn env_files(
    deps: &Dependencies,
    pod: &Arc<ParsedPod>,
    container: &str,
    volumes: &PreparedVolumes,
) -> Result<EnvFiles, StepError> {
    if pod.newer.file_keys_of(container).next().is_none() {
        return Ok(EnvFiles::new());
    }
    let (pod, name, volumes) = (Arc::clone(pod), container.to_owned(), volumes.clone());
    let root = deps.settings.root.clone();
    let read = move || volumes::read_env_files(&folders::root(&root)?, &pod, &name, &volumes);
    blocking(&deps.env, "read variables from files in", read).await
}

/// Ends a container, politely first.
async fn stop(
    deps: Rc<Dependencies>,
    pod: Arc<ParsedPod>,
    (id, name): (String, String),
    event: Option<String>,
    grace: Duration,
) -> Result<(), StepError> {
    if let Some(text) = event {
        deps.container_event(&pod, &name, EventType::Normal, "Killing", &text);
    }
    Ok(deps.runtime.stop_container(&id, grace).await?)
}

/// Removes an instance and its log.
async fn remove_container(deps: Rc<Dependencies>, log: LogOf) -> Result<(), StepError> {
    deps.runtime.remove_container(&log.id).await?;
    let (links, logs) = (deps.settings.links.clone(), deps.settings.logs.clone());
    blocking(&deps.env, "remove the log in", move || log.remove(&links, &logs)).await
}

/// Makes the link by which collectors find a log. The log manager makes those that fail here.
async fn link_log(deps: &Rc<Dependencies>, log: LogOf) {
    let (links, logs) = (deps.settings.links.clone(), deps.settings.logs.clone());
    if let Err(error) = blocking(&deps.env, "link a log in", move || log.link(&links, &logs)).await {
        tracing::debug!(%error, "link to a log is made later");
    }
}

/// Removes everything of the pod from the disk. How long that takes is the pod's choice, and nobody waits behind it.
async fn teardown(deps: Rc<Dependencies>, pod: PodId) -> Result<(), StepError> {
    external_volumes::tear_down(&deps, &pod).await?;
    deps.tokens.forget(&pod.uid, &deps.store, &deps.env).await;
    let (root, logs) = (deps.settings.root.clone(), deps.settings.logs.clone());
    let (cgroup_root, links) = (deps.settings.cgroup_root.clone(), deps.settings.links.clone());
    let (begun, cgroups) = (deps.now(), deps.settings.cgroups.clone());
    let slices = Slices::of(&deps.settings);
    let begin = move || {
        files::remove_links_of(&links, &logs, &pod)?;
        match slices {
            Some(slices) => slices::say(&pod.name, slices.end(&pod.uid)),
            None => cgroup::remove(&cgroups, &pod.uid, &cgroup_root),
        }
        Teardown::begin(&root, &logs, &pod.uid, &layout::pod_logs(&pod))
    };
    let cleared = removal::clear(&deps.env, begin).await;
    deps.counts.cgroups_changed("destroy", deps.now().since(begun));
    cleared
}

/// Leaves the status for the cloud, which knows the pod under the uid `reader`; `None`: it does not know it, and the status is
/// kept for the next start alone. `newer`: fields that its type does not have.
pub(crate) async fn report_status(
    deps: Rc<Dependencies>,
    pod: PodId,
    reader: Option<String>,
    status: Box<PodStatus>,
    newer: Map<String, Value>,
) -> Result<Box<PodStatus>, String> {
    let mut whole = serde_json::to_value(&status).map_err(|error| error.to_string())?;
    if let Some(fields) = whole.as_object_mut() {
        fields.extend(newer);
    }
    let status_json = whole.to_string();
    let own = UpReport::PodStatus { namespace: pod.namespace, name: pod.name, uid: pod.uid, status_json };
    deps.report_status(own, reader).await?;
    Ok(status)
}
