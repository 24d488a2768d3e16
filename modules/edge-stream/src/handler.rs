//! The node's kubelet API: one handler for the link and for the node itself.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use apimachinery::NamespacedName;
use beehive::{Address, Clock, Liveness, Metrics};
use contract::csi::CsiMsg;
use contract::devicetwin::TwinMsg;
use contract::edged::EdgedMsg;
use contract::edgepage::EdgePageMsg;
use contract::stream::{StreamRequest, header};
use contract::volume_stats::VolumesOfPods;
use cri::Runtime;
use cri::v1::{AttachRequest, ExecRequest, PortForwardRequest};
use edge_store::Store;
use http::StatusCode;
use serde_json::{Value, json};

use crate::answer::{Body, Reply};
use crate::budget::{Budget, Origin, SMALL_CHUNK};
use crate::disk::Disk;
use crate::error::Refusal;
use crate::events;
use crate::health;
use crate::log::changes::Changes;
use crate::log::copy::Logs;
use crate::log::instance;
use crate::log::options::LogOptions;
use crate::log::running::Running;
use crate::node_logs;
use crate::plan::{self, Call, InPod, Streams};
use crate::pod_list::PodList;
use crate::pods::{KnownPod, Pods};
use crate::release::{self, Release, Said};
use crate::rule_servers::RuleServers;
use crate::settings::Settings;
use crate::stats::collect::{Collector, Places};
use crate::stats::summary;
use crate::upgrade;
use crate::zpages;

/// 4 h: a kubelet's own bound for an answer; a command by `run` gets no longer.
pub(crate) const LONGEST: std::time::Duration = std::time::Duration::from_secs(4 * 3600);

/// 3 s for Edged to say what volumes hold; it waits for none that does not answer.
const VOLUMES_WITHIN: std::time::Duration = std::time::Duration::from_secs(3);

/// Answers calls. Shared by all that are under way.
pub(crate) struct Kubelet {
    pub(crate) settings: Settings,
    runtime: Arc<dyn Runtime>,
    pods: Pods,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
    liveness: Option<Liveness>,
    /// Who knows what pods' volumes hold.
    pub(crate) edged: Option<Address<EdgedMsg>>,
    /// Who calls CSI drivers.
    pub(crate) csi: Option<Address<CsiMsg>>,
    /// Who calls methods of devices.
    pub(crate) twin: Option<Address<TwinMsg>>,
    /// The node's page, for who asks at the socket.
    pub(crate) page: Option<Address<EdgePageMsg>>,
    /// Who does what rules bring.
    pub(crate) rules: RuleServers,
    /// The port for agents on the node is asked for, and not ours.
    is_port_missing: AtomicBool,
    pub(crate) disk: Disk,
    budget: Arc<Budget>,
    pub(crate) health: health::Record,
    pub(crate) stats: Collector,
    pub(crate) logs: Logs,
}

impl Kubelet {
    pub(crate) fn new(
        settings: Settings,
        runtime: Arc<dyn Runtime>,
        store: Store,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
        liveness: Option<Liveness>,
    ) -> Kubelet {
        let (disk, budget) = (Disk::default(), Arc::new(Budget::default()));
        let places = Places {
            logs: settings.logs.clone(),
            root: settings.root.clone(),
            cgroups: settings.cgroups.clone(),
            driver: settings.cgroup_driver,
        };
        let logs = Logs {
            runtime: Arc::clone(&runtime),
            clock: Arc::clone(&clock),
            root: settings.logs.clone(),
            disk: disk.clone(),
            budget: Arc::clone(&budget),
            changes: Changes::new(Arc::clone(&clock)),
            running: Running::new(Arc::clone(&runtime), Arc::clone(&clock)),
        };
        Kubelet {
            pods: Pods::new(store, &settings.node),
            stats: Collector::new(Arc::clone(&runtime), Arc::clone(&clock), disk.clone(), places),
            settings,
            runtime,
            clock,
            metrics,
            liveness,
            edged: None,
            csi: None,
            twin: None,
            page: None,
            rules: RuleServers::default(),
            is_port_missing: AtomicBool::new(false),
            disk,
            budget,
            health: health::Record::default(),
            logs,
        }
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Whether the port for agents on the node is not ours although it should be: `/healthz` says so.
    pub(crate) fn set_port_missing(&self, is_missing: bool) {
        self.is_port_missing.store(is_missing, Ordering::Relaxed);
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Releases pods of the node that are held, for somebody on the node.
    pub(crate) async fn release(&self, release: Release, body: String) -> Said {
        let (pods, named) = (self.pods.clone(), move |pods: &Pods| release::found(pods, release, &body));
        let found = match self.disk.blocking(move || Ok(named(&pods))).await {
            Ok(Ok(found)) => found,
            Ok(Err(said)) => return said,
            Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        };
        release::keep(self.pods.store(), release, found).await
    }

    /// Answers a request from `origin`. Answers the call's name, too.
    pub(crate) async fn answer(&self, request: &StreamRequest, origin: Origin) -> (&'static str, Reply) {
        let is_web_socket = upgrade::is_web_socket(&request.headers);
        let (name, reply) = match plan::call(&request.method, &request.target, is_web_socket) {
            Err(refusal) => ("none", Err(refusal)),
            Ok(call) if origin == Origin::Local && !call.is_local() => {
                (call.name(), Err(Refusal::missing("404 page not found\n")))
            }
            Ok(call) => (call.name(), self.counted(call, request, origin).await),
        };
        let mut reply = reply.unwrap_or_else(Reply::from);
        if upgrade::is_upgrade(&request.headers) {
            reply.refuse_upgrade();
        }
        events::called(&self.metrics, name, &request.user, &request.target, reply.status);
        (name, reply)
    }

    /// The answer to a call, which counts in the budget of all from before it is made.
    async fn counted(&self, call: Call, request: &StreamRequest, origin: Origin) -> Result<Reply, Refusal> {
        let full = |refusal| {
            events::answers_full(&self.metrics);
            refusal
        };
        let held = call.is_made_whole().then(|| self.budget.answer(origin)).transpose().map_err(full)?;
        let mut reply = self.call(call, request, origin).await.unwrap_or_else(Reply::from);
        let Body::Whole(bytes) = &mut reply.body else { return Ok(reply) };
        bytes.shrink_to_fit();
        if bytes.len() <= SMALL_CHUNK {
            reply.held = None;
        } else if reply.held.is_none() {
            let mut held = held.unwrap_or_else(|| self.budget.nothing(origin));
            held.fit(bytes.len()).map_err(full)?;
            reply.held = Some(held);
        }
        Ok(reply)
    }

    async fn call(&self, call: Call, request: &StreamRequest, origin: Origin) -> Result<Reply, Refusal> {
        match call {
            Call::Logs { pod, container, options } => self.container_logs(&pod, &container, options).await,
            Call::Exec { of, streams, command } => {
                let id = self.running(&of, &format!("container not found ({:?})", of.container)).await?;
                must_upgrade(request)?;
                let place = self.budget.upgraded()?;
                let exec = ExecRequest {
                    container_id: id,
                    cmd: command,
                    tty: streams.tty,
                    stdin: streams.stdin,
                    stdout: streams.stdout,
                    stderr: streams.stderr,
                };
                let url = self.runtime.exec(exec).await;
                self.upgrade(url, request, place).await
            }
            Call::Attach { of, streams } => self.attach(&of, streams, request).await,
            Call::PortForward { pod, uid, ports } => self.port_forward(&pod, uid, ports, request).await,
            Call::Run { of, command } => self.run(&of, command).await,
            Call::Pods => self.pod_list(origin).await,
            Call::RunningPods => self.running_pods().await,
            Call::Summary { only_cpu_and_memory } => {
                let internal =
                    |error: cri::Error| Refusal::failed(format!("Internal Error: {}", error.grpc_text()));
                let sample = self.stats.sample().await.map_err(internal)?;
                let volumes = if only_cpu_and_memory { VolumesOfPods::new() } else { self.volumes().await };
                let summary = summary::summary(&self.settings.node, &sample, &volumes, only_cpu_and_memory);
                Ok(Reply::json(summary.to_string()))
            }
            Call::Metrics(page) => self.metrics_page(page).await,
            Call::Health { check, verbose, excluded } => {
                let turns = self.liveness.as_ref().is_none_or(|liveness| liveness.blocked().is_none());
                let served = !self.is_port_missing.load(Ordering::Relaxed);
                let down = self.liveness.as_ref().map(Liveness::down).unwrap_or_default();
                let checks = [
                    ("ping", true),
                    ("log", true),
                    ("syncloop", turns),
                    ("readonlyport", served),
                    ("actors", down.is_empty()),
                ];
                self.health.note(&checks, check.as_deref(), &excluded);
                health::answer(&checks, check.as_deref(), verbose, &excluded)
            }
            Call::Configz => {
                Ok(Reply::json(self.settings.shown.to_string()).with("x-content-type-options", "nosniff"))
            }
            Call::Statusz => self.statusz(request).await,
            Call::Flagz => zpages::flagz(header(&request.headers, "accept"), self.settings.kubelet()),
            Call::NodeLogs { path, is_folder } => {
                let root = self.settings.node_logs.clone();
                let look = self.disk.blocking(move || node_logs::look(&root, &path, is_folder)).await;
                look.map_err(|error| Refusal::failed(error.to_string()))?
            }
            Call::Checkpoint { pod, container } => {
                let found = self.pod(&pod, "pod does not exist").await?;
                if found.container(&container).is_none() {
                    return Err(Refusal::missing(format!("container {container} does not exist")));
                }
                let unknown = cri::Error::Unsupported { call: "CheckpointContainer" }.grpc_text();
                let what =
                    format!("checkpointing of {}/{}/{container} failed ({unknown})", pod.namespace, pod.name);
                Err(Refusal::failed(what))
            }
        }
    }

    /// What the pods' volumes hold, as far as Edged says so.
    pub(crate) async fn volumes(&self) -> VolumesOfPods {
        let Some(edged) = &self.edged else { return VolumesOfPods::new() };
        let told = edged.ask(VOLUMES_WITHIN, |reply| EdgedMsg::VolumeStats { reply }).await;
        told.unwrap_or_else(|error| {
            tracing::debug!(%error, "nothing is known of volumes");
            VolumesOfPods::new()
        })
    }

    /// The pods, of which the first has its room already: who finds none is told so.
    async fn pod_list(&self, origin: Origin) -> Result<Reply, Refusal> {
        let held = self.budget.answer(origin).inspect_err(|_| events::answers_full(&self.metrics))?;
        let pods = self.pods.clone();
        let keys = self.disk.blocking(move || pods.keys()).await.map_err(|error| unreadable(&error))?;
        let list = PodList {
            pods: self.pods.clone(),
            keys: keys.into_iter(),
            disk: self.disk.clone(),
            budget: Arc::clone(&self.budget),
            clock: Arc::clone(&self.clock),
            origin,
            held: Some(held),
            written: 0,
        };
        Ok(Reply { body: Body::Pods(Box::new(list)), ..Reply::json("") })
    }

    async fn pod(&self, name: &NamespacedName, missing: &str) -> Result<KnownPod, Refusal> {
        let (pods, name) = (self.pods.clone(), name.clone());
        let found = self.disk.blocking(move || pods.find(&name)).await;
        found.map_err(|error| unreadable(&error))?.ok_or_else(|| Refusal::missing(missing))
    }

    /// Which log a call for one means.
    pub(crate) async fn container_logs(
        &self,
        name: &NamespacedName,
        container: &str,
        options: LogOptions,
    ) -> Result<Reply, Refusal> {
        let pod = self.pod(name, &format!("pod {:?} does not exist", name.name)).await?;
        if pod.container(container).is_none() {
            let text = format!("container {container:?} not found in pod {:?}", name.name);
            return Err(Refusal::missing(text));
        }
        let status = pod.status();
        let instance = instance::choose(&name.name, status, container, options.previous)?;
        Ok(Reply { status: 200, headers: Vec::new(), body: Body::Log(instance, options), held: None })
    }

    async fn attach(&self, of: &InPod, streams: Streams, request: &StreamRequest) -> Result<Reply, Refusal> {
        let NamespacedName { namespace, name } = &of.pod;
        let missing = format!("container {} not found in pod {name}_{namespace}", of.container);
        let pod = self.pod(&of.pod, "pod does not exist").await?;
        let id = self.running(of, &missing).await?;
        must_upgrade(request)?;
        // Whether there is a terminal was decided when the container was made.
        let tty = pod.container(&of.container).is_some_and(|spec| spec.tty);
        let place = self.budget.upgraded()?;
        let attach = AttachRequest {
            container_id: id,
            stdin: streams.stdin,
            tty,
            stdout: streams.stdout,
            stderr: streams.stderr && !tty,
        };
        let url = self.runtime.attach(attach).await;
        self.upgrade(url, request, place).await
    }

    async fn port_forward(
        &self,
        pod: &NamespacedName,
        uid: Option<String>,
        ports: Vec<i32>,
        request: &StreamRequest,
    ) -> Result<Reply, Refusal> {
        let found = self.pod(pod, "pod does not exist").await?;
        if uid.is_some_and(|uid| uid != found.uid()) {
            return Err(Refusal::missing("pod not found"));
        }
        must_upgrade(request)?;
        let sandbox = cri::pods::ready_sandbox(&*self.runtime, found.uid()).await;
        let missing = || Refusal::failed(format!("pod not found (\"{}_{}\")", pod.name, pod.namespace));
        let id = sandbox.map_err(|error| Refusal::of_runtime(&error))?.ok_or_else(missing)?;
        let place = self.budget.upgraded()?;
        let forward = PortForwardRequest { pod_sandbox_id: id, port: ports };
        let url = self.runtime.port_forward(forward).await;
        self.upgrade(url, request, place).await
    }

    /// The running container of a call; `missing`: the words where there is none.
    async fn running(&self, of: &InPod, missing: &str) -> Result<String, Refusal> {
        let pod = self.pod(&of.pod, "pod does not exist").await?;
        let missing = || Refusal::failed(missing);
        if of.uid.as_deref().is_some_and(|uid| uid != pod.uid()) {
            return Err(missing());
        }
        let found = cri::pods::running_container(&*self.runtime, pod.uid(), &of.container).await;
        found.map_err(|error| Refusal::of_runtime(&error))?.ok_or_else(missing)
    }

    async fn upgrade(
        &self,
        url: Result<String, cri::Error>,
        request: &StreamRequest,
        place: tokio::sync::OwnedSemaphorePermit,
    ) -> Result<Reply, Refusal> {
        let url = url.map_err(|error| Refusal::of_runtime(&error))?;
        let upgraded = upgrade::connect(&url, &request.method, &request.headers, place, &*self.clock).await?;
        let headers = upgraded.headers.clone();
        Ok(Reply { status: 101, headers, body: Body::Upgraded(Box::new(upgraded)), held: None })
    }

    async fn run(&self, of: &InPod, command: Vec<String>) -> Result<Reply, Refusal> {
        let id = self.running(of, &format!("container not found ({:?})", of.container)).await?;
        let place = self.budget.run()?;
        let ended = self.runtime.exec_sync_whole(&id, command.clone(), LONGEST).await;
        let ended = ended.map_err(|error| Refusal::of_runtime(&error))?;
        let reply = if ended.exit_code == 0 {
            let mut output = ended.stdout;
            output.extend_from_slice(&ended.stderr);
            Reply::json(output)
        } else {
            let (command, code, mut said) = (command.join(" "), ended.exit_code, ended.stderr);
            said.splice(0..0, format!("command '{command}' exited with {code}: ").into_bytes());
            let failed = Reply::from(Refusal::failed(String::new()));
            Reply { body: Body::Whole(said), ..failed }
        };
        // What it said is held as long as its place is.
        Ok(Reply { held: Some(place), ..reply })
    }

    /// The pods as the runtime has them: names, uid, containers with their images.
    async fn running_pods(&self) -> Result<Reply, Refusal> {
        let sample = self.stats.sample().await.map_err(|error| Refusal::of_runtime(&error))?;
        let pods = sample.pods.iter().map(|pod| {
            let containers = sample.containers_of(&pod.uid);
            let containers: Vec<Value> = containers
                .map(|own| json!({"name": own.name, "image": own.image, "resources": {}}))
                .collect();
            json!({
                "metadata": {"name": pod.pod.name, "namespace": pod.pod.namespace, "uid": pod.uid},
                "spec": {"containers": containers},
                "status": {},
            })
        });
        let items: Vec<Value> = pods.collect();
        let items = if items.is_empty() { Value::Null } else { Value::Array(items) };
        let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items});
        Ok(Reply::json(list.to_string()))
    }
}

fn must_upgrade(request: &StreamRequest) -> Result<(), Refusal> {
    if upgrade::is_upgrade(&request.headers) {
        return Ok(());
    }
    Err(Refusal::failed("Upgrade request required\n"))
}

fn unreadable(error: &io::Error) -> Refusal {
    Refusal::failed(format!("the node's store cannot be read: {error}"))
}
