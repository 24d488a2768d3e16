//! What Edged and its pods' workers share.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use apimachinery::PodReferences;
use beehive::trace::Span;
use beehive::{Address, Env, Lookups, Moment};
use contract::containermanager::{ContainerManagerMsg, DeviceReport};
use contract::csi::CsiMsg;
use contract::csi_node::CsiNodeDriver;
use contract::edged::EdgedMsg;
use contract::edgepage::ResourceView;
use contract::eventbus::BrokerReport;
use contract::ids::PODS;
use contract::metamanager::MetaMsg;
use contract::{ObjectKey, UpReport, traced};
use cri::Runtime;
use nodechecks::Finding;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::error::StepError;
use crate::events;
use crate::eviction::pressure::Pressure;
use crate::eviction::shortage::Shortage;
use crate::images::collection::ImageUses;
use crate::images::pulls::Pulls;
use crate::json_error;
use crate::kubelet_metrics::KubeletMetrics;
use crate::node::enforced::Enforcement;
use crate::pod::id::PodId;
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::recorder::{About, EventType, Recorder};
use crate::pod::sources::Sources;
use crate::pod::tokens::TokenManager;
use crate::pod::turns::NodeTurns;
use crate::prober::LOOKUPS_AT_ONCE;
use crate::runtime::bounds::NodeLimits;
use crate::runtime::dns::NodeDns;
use crate::runtime::fields::FieldValues;
use crate::runtime::ids::RuntimeIds;
use crate::runtime::kubepods::NodeBounds;
use crate::runtime::sandbox::SandboxContext;
use crate::said_lately::SaidLately;
use crate::settings::{JOB_PULLS, Settings};
use crate::static_pods::source::StaticPods;
use crate::store::EdgedStore;
use crate::typed_json;

/// What is known of the node.
#[derive(Debug, Clone)]
pub(crate) struct NodeInfo {
    /// `containerd`, as the runtime names itself.
    pub(crate) runtime: String,
    /// What it can do; `None` while it has not said.
    pub(crate) features: Option<cri::RuntimeFeatures>,
    /// Who makes its cgroups, as far as it has said.
    pub(crate) cgroup_driver: Option<cri::v1::CgroupDriver>,
    pub(crate) host_ips: Vec<String>,
    pub(crate) cpu_milli: u64,
    pub(crate) memory: u64,
    pub(crate) disk: u64,
    pub(crate) dns: NodeDns,
    pub(crate) limits: NodeLimits,
    /// What all pods together may have.
    pub(crate) all_pods: NodeBounds,
}

/// What EdgeCsi says of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CsiVolumes {
    pub(crate) drivers: Vec<CsiNodeDriver>,
    /// As `status.volumesInUse` names them.
    pub(crate) in_use: BTreeSet<String>,
}

/// Shared by Edged and its pods' workers, which live on one thread; made anew with each incarnation of Edged.
pub(crate) struct Dependencies {
    pub(crate) settings: Settings,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) store: EdgedStore,
    pub(crate) meta: Address<MetaMsg>,
    /// The actor itself.
    pub(crate) edged: Address<EdgedMsg>,
    /// Who mounts CSI volumes.
    pub(crate) csi: Option<Address<CsiMsg>>,
    /// The CSI drivers of the node and the volumes that are mounted, once EdgeCsi has said.
    pub(crate) csi_volumes: RefCell<Option<CsiVolumes>>,
    /// Whether the MQTT brokers can be used, once EventBus has said.
    pub(crate) mqtt_broker: RefCell<Option<BrokerReport>>,
    /// The checks of the machine that fail, once they were looked at.
    pub(crate) checks: RefCell<Option<Vec<Finding>>>,
    pub(crate) env: Env,
    /// Of the names in checks of pods.
    pub(crate) lookups: Lookups,
    pub(crate) ids: RuntimeIds,
    pub(crate) tokens: TokenManager,
    pub(crate) recorder: Recorder,
    /// Whose turn it is to pull for a pod (`serializeImagePulls`).
    pub(crate) pulls: Semaphore,
    /// The same for jobs of the cloud, which no pod waits for.
    pub(crate) job_pulls: Semaphore,
    /// Held by who gives a pod users of its own.
    pub(crate) user_namespaces: Arc<Mutex<()>>,
    /// What a kubelet counts, too.
    pub(crate) counts: KubeletMetrics,
    /// Which pods the runtime works for.
    pub(crate) turns: NodeTurns,
    /// The pulls that are under way, by the image's name.
    pub(crate) pulling: RefCell<BTreeMap<String, Pulls>>,
    /// Which images there are and when they were used.
    pub(crate) image_uses: RefCell<ImageUses>,
    /// Where the runtime's images lie, once it has said so.
    pub(crate) images_mount: RefCell<Option<PathBuf>>,
    /// The pods that should run and have not ended.
    pub(crate) active_pods: RefCell<Vec<Arc<ParsedPod>>>,
    /// The pods that files of the node describe.
    pub(crate) static_pods: RefCell<StaticPods>,
    /// The machine is about to end.
    pub(crate) shutting_down: Cell<bool>,
    /// The node has said that it knows no DNS of the cluster, once in this run.
    pub(crate) told_no_cluster_dns: Cell<bool>,
    /// What was said of what all pods together may have.
    pub(crate) enforcement: Enforcement,
    /// What the node is short of, once that was measured.
    pub(crate) shortages: RefCell<Option<Vec<Shortage>>>,
    /// What the log need not say again.
    pub(crate) said: RefCell<SaidLately>,
    /// What it has left, as it was measured last.
    pub(crate) measured: RefCell<Vec<ResourceView>>,
    /// The images of the pods that are wanted here.
    pub(crate) images_wanted: RefCell<BTreeSet<String>>,
    /// Held by who works on the records of images.
    pub(crate) image_records: tokio::sync::Mutex<()>,
    pub(crate) node: RefCell<NodeInfo>,
    /// Who gives devices and CPUs.
    pub(crate) containers: Option<Address<ContainerManagerMsg>>,
    /// The node's devices, once ContainerManager has told of them.
    pub(crate) devices: RefCell<Option<DeviceReport>>,
}

impl Dependencies {
    pub(crate) fn new(
        settings: Settings,
        runtime: Arc<dyn Runtime>,
        store: EdgedStore,
        meta: Address<MetaMsg>,
        edged: Address<EdgedMsg>,
        env: Env,
        node: NodeInfo,
    ) -> Self {
        let recorder = Recorder::new(&settings.node_name);
        let pulls = Semaphore::new(settings.pulls_at_once());
        let job_pulls = Semaphore::new(JOB_PULLS);
        let turns = NodeTurns::of_machine(env.processors());
        let node = RefCell::new(node);
        let (ids, tokens) = (RuntimeIds::default(), TokenManager::default());
        let (pulling, image_uses, images_wanted, image_records) = Default::default();
        let (images_mount, active_pods, static_pods, shortages, said) = Default::default();
        let (shutting_down, (containers, devices, measured)) = (Cell::new(false), Default::default());
        let (csi, csi_volumes, mqtt_broker, checks) = Default::default();
        let counts = KubeletMetrics::new(env.metrics());
        Dependencies {
            settings,
            runtime,
            store,
            meta,
            edged,
            csi,
            csi_volumes,
            mqtt_broker,
            checks,
            env,
            lookups: Lookups::at_most(LOOKUPS_AT_ONCE),
            ids,
            tokens,
            recorder,
            pulls,
            job_pulls,
            user_namespaces: Arc::default(),
            counts,
            turns,
            pulling,
            image_uses,
            images_wanted,
            images_mount,
            active_pods,
            static_pods,
            shutting_down,
            told_no_cluster_dns: Cell::new(false),
            enforcement: Enforcement::default(),
            shortages,
            said,
            measured,
            image_records,
            node,
            containers,
            devices,
        }
    }

    /// With who gives devices and CPUs.
    pub(crate) fn with_containers(mut self, containers: Option<Address<ContainerManagerMsg>>) -> Self {
        self.containers = containers;
        self
    }

    pub(crate) fn now(&self) -> Moment {
        self.env.now()
    }

    /// What turns pods away.
    pub(crate) fn pressure(&self) -> Pressure {
        self.shortages.borrow().as_deref().map(Pressure::of).unwrap_or_default()
    }

    /// Whether the log has to say this about `what`: what was said a moment ago is not said again.
    pub(crate) fn is_news(&self, what: &str, words: &dyn std::fmt::Display) -> bool {
        self.said.borrow_mut().is_news(what, &words.to_string(), self.now())
    }

    /// Wall time in whole seconds, as the API server keeps it.
    pub(crate) fn wall(&self) -> jiff::Timestamp {
        jiff::Timestamp::from_second(self.exact_wall().as_second()).unwrap_or_default()
    }

    /// The same with what is less than a second.
    fn exact_wall(&self) -> jiff::Timestamp {
        jiff::Timestamp::try_from(self.env.wall()).unwrap_or_default()
    }

    pub(crate) fn facts(&self, pod_ips: &[String], host_network: bool) -> FieldValues {
        let node = self.node.borrow();
        FieldValues {
            pod_ips: if host_network { node.host_ips.clone() } else { pod_ips.to_vec() },
            host_ips: node.host_ips.clone(),
            node_name: self.settings.node_name.clone(),
            node_cpu_milli: node.cpu_milli,
            node_memory: node.memory,
            node_disk: node.disk,
        }
    }

    pub(crate) fn place<'a>(&'a self, dns: &'a NodeDns) -> SandboxContext<'a> {
        SandboxContext {
            node_name: &self.settings.node_name,
            logs: &self.settings.logs,
            dns,
            cgroup_driver: self.settings.cgroup_driver,
            cgroup_root: &self.settings.cgroup_root,
        }
    }

    /// Reads what a pod names from the store. An object that cannot be read counts as missing, with a word.
    ///
    /// # Errors
    /// When the reading itself failed.
    pub(crate) async fn sources(&self, pod: &ParsedPod) -> Result<Sources, StepError> {
        let store = self.store.clone();
        let (namespace, wanted) = (pod.id.namespace.clone(), pod.references.clone());
        let read = move || Ok(read_sources(&store, &namespace, wanted));
        blocking(&self.env, "read objects from the store", read).await
    }

    /// Puts a report into the outbox and nudges MetaManager.
    pub(crate) async fn report(&self, report: &UpReport) -> Result<(), String> {
        let mut span = self.reporting(report);
        let kept = self.store.report(report).await;
        self.reported(|| report.newest_key(), &mut span, &kept);
        kept?;
        // A full mailbox already holds a nudge to look.
        let _ = self.meta.try_tell(MetaMsg::OutboxGrew);
        Ok(())
    }

    /// The same with a pod's status, which the cloud reads under the uid `reader`, if it has a reader there.
    pub(crate) async fn report_status(&self, own: UpReport, reader: Option<String>) -> Result<(), String> {
        let mut span = self.reporting(&own);
        let key = reader.as_deref().filter(|_| span.is_followed()).map(UpReport::pod_status_key);
        let kept = self.store.report_status(own, reader).await;
        self.reported(|| key, &mut span, &kept);
        kept?;
        let _ = self.meta.try_tell(MetaMsg::OutboxGrew);
        Ok(())
    }

    /// The step of a pod's trace in which something of it is reported.
    fn reporting(&self, report: &UpReport) -> Span {
        let (UpReport::PodStatus { namespace, name, uid, .. } | UpReport::PodGone { namespace, name, uid }) =
            report
        else {
            return Span::none();
        };
        let traces = self.env.traces();
        if !traces.is_on() {
            return Span::none();
        }
        let key = ObjectKey::new(PODS, namespace, name);
        let span = traces.step("Edged report status", traces.of(|| traced::held(&key)));
        traced::named(span, &key).with("k8s.pod.uid", || uid.as_str())
    }

    /// It is in the outbox under this key, or could not be kept.
    fn reported(&self, key: impl FnOnce() -> Option<String>, span: &mut Span, kept: &Result<(), String>) {
        if !span.is_followed() {
            return;
        }
        match (kept, key()) {
            (Ok(()), Some(key)) => self.env.traces().follow(|| traced::reported(&key), span.context()),
            (Ok(()), None) => {}
            (Err(why), _) => span.fail(|| why.as_str()),
        }
    }

    /// Raises an event about a pod as a whole beside what goes on. One that cannot be kept is logged and forgotten.
    pub(crate) fn event(self: &Rc<Self>, pod: &PodId, kind: EventType, reason: &str, message: &str) {
        self.event_of(&About { pod, field_path: "" }, kind, reason, message);
    }

    /// The same about one of its containers.
    pub(crate) fn container_event(
        self: &Rc<Self>,
        pod: &ParsedPod,
        container: &str,
        kind: EventType,
        reason: &str,
        message: &str,
    ) {
        let field_path = pod.field_path(container);
        self.event_of(&About { pod: &pod.id, field_path: &field_path }, kind, reason, message);
    }

    /// The same about a part of it.
    pub(crate) fn event_of(self: &Rc<Self>, about: &About<'_>, kind: EventType, reason: &str, message: &str) {
        let said = (kind, reason, message);
        let Some(report) = self.recorder.event(about, said, self.now(), self.exact_wall()) else { return };
        let pod = about.pod;
        let PodId { name, namespace, uid } = pod;
        // The container, as an event names it; a field without a value is not written.
        let of = (!about.field_path.is_empty()).then_some(about.field_path);
        match kind {
            EventType::Normal => {
                tracing::info!(pod = %name, %namespace, %uid, of, reason, message, "pod event");
            }
            EventType::Warning => {
                tracing::warn!(pod = %name, %namespace, %uid, of, reason, message, "pod event");
            }
        }
        // Of some remains nobody knows whose they were.
        if pod.name.is_empty() || pod.namespace.is_empty() {
            return;
        }
        if kind == EventType::Normal && !self.settings.report_events {
            return;
        }
        self.send_event(report, reason);
    }

    /// Raises an event of the node's, as [`Dependencies::event`] does for a pod. The log has a Warning that repeats now and then: what the
    /// node is short of is told with each look.
    pub(crate) fn node_event(self: &Rc<Self>, kind: EventType, reason: &str, message: &str) {
        let Some(report) = self.recorder.node_event(kind, reason, message, self.now(), self.exact_wall())
        else {
            return;
        };
        match kind {
            EventType::Normal => tracing::info!(reason, message, "node event"),
            EventType::Warning if self.is_news(reason, &message) => {
                tracing::warn!(reason, message, "node event");
            }
            EventType::Warning => tracing::debug!(reason, message, "node event, again"),
        }
        if kind == EventType::Warning || self.settings.report_events {
            self.send_event(report, reason);
        }
    }

    fn send_event(self: &Rc<Self>, report: UpReport, reason: &str) {
        let (deps, reason) = (Rc::clone(self), reason.to_owned());
        self.env.spawn(async move {
            if let Err(error) = deps.report(&report).await {
                events::report_not_kept(&deps.env, &reason, &error);
            }
        });
    }
}

fn read_sources(store: &EdgedStore, namespace: &str, wanted: PodReferences) -> Sources {
    let mut sources = Sources::default();
    for name in wanted.config_maps {
        let found = read(store.config_map(namespace, &name), &name);
        sources.config_maps.insert(name, found);
    }
    for name in wanted.secrets {
        let found = read(store.secret(namespace, &name), &name);
        sources.secrets.insert(name, found);
    }
    sources.services = store.services(namespace).unwrap_or_else(|error| {
        tracing::error!(namespace, %error, "services cannot be read from the store");
        Vec::new()
    });
    sources
}

fn read<T: DeserializeOwned>(
    found: Result<Option<Vec<u8>>, edge_store::StoreError>,
    name: &str,
) -> Option<T> {
    let bytes = match found {
        Ok(bytes) => bytes?,
        Err(error) => {
            tracing::error!(name, %error, "object cannot be read from the store");
            return None;
        }
    };
    match typed_json::read(&bytes) {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::error!(
                name,
                "object in the store is not what its key says: it {}",
                json_error::describe(&error)
            );
            None
        }
    }
}

/// Runs what blocks beside the hive's thread.
#[track_caller]
pub(crate) fn blocking<T: Send + 'static>(
    env: &Env,
    what: &'static str,
    work: impl FnOnce() -> Result<T, StepError> + Send + 'static,
) -> impl Future<Output = Result<T, StepError>> {
    let done = env.blocking(work);
    async move { done.await.unwrap_or_else(|fault| Err(StepError::file(what, Path::new(""), &fault))) }
}
