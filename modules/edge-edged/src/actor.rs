//! Edged's actor: what it is told, and the node's own report. Which pods have a worker is in [`reconcile`](crate::reconcile).

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::Discriminant;
use std::rc::Rc;
use std::sync::Arc;

use beehive::{Actor, Address, Context, Env, Fault, Moment, Reply, Sample};
use contract::containermanager::{ActivePod, ContainerManagerMsg};
use contract::csi::CsiMsg;
use contract::edged::EdgedMsg;
use contract::metamanager::MetaMsg;
use cri::Runtime;
use edge_store::Store;
use serde_json::Value;

use crate::dependencies::{CsiVolumes, Dependencies, blocking};
use crate::disk::folders;
use crate::events;
use crate::eviction::actor::{EVICTION_MANAGER, EvictionManager};
use crate::images::collector::{IMAGE_COLLECTOR, ImageCollector};
use crate::images::pull;
use crate::logs::actor::{LOG_MANAGER, LogManager};
use crate::node::checks::{self, MachineChecks};
use crate::node::report::NodeReporter;
use crate::pod::allocation::Allocations;
use crate::pod::entry::Eviction;
use crate::pod::id::PodId;
use crate::pod::late_node::LateNode;
use crate::pod::manager::PodManager;
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::resource_admission::ResourceAdmission;
use crate::runs::{CarefulStart, RunRecord, Why};
use crate::runtime::app_armor;
use crate::runtime::pleg::{Listing, Pleg};
use crate::settings::Settings;
use crate::shutdown::actor::{NODE_SHUTDOWN, NodeShutdown};
use crate::static_pods;
use crate::static_pods::actor::{STATIC_PODS, StaticPodsSource};
use crate::static_pods::mirrors::Requests;
use crate::store::{EdgedStore, Versions};
use crate::volume_stats::actor::{VOLUME_STATS, VolumeStatsKeeper, VolumeStatsMsg};

/// Runs the node's pods.
pub struct Edged {
    pub(crate) settings: Settings,
    runtime: Arc<dyn Runtime>,
    pub(crate) store: EdgedStore,
    meta: Address<MetaMsg>,
    csi: Option<Address<CsiMsg>>,
    pub(crate) deps: Option<Rc<Dependencies>>,
    pub(crate) node: Rc<NodeReporter>,
    pub(crate) pods: PodManager,
    pub(crate) parsed: BTreeMap<u64, Arc<ParsedPod>>,
    /// The uids of the pods in the store; `None` when it could not be read the last time.
    pub(crate) wanted: Option<BTreeSet<String>>,
    /// Of the config maps and Secrets when the store was read last.
    pub(crate) versions: Option<Versions>,
    pub(crate) listing: Listing,
    /// Whether the host has AppArmor.
    pub(crate) app_armor: bool,
    pub(crate) late_node: LateNode,
    pub(crate) mirrors: Requests,
    /// When the timer goes off that reconciles though nothing changes.
    pub(crate) wakes: Option<Moment>,
    /// A new pod waits, for another of its name to stop or for what others still hold.
    pub(crate) is_waited_for: bool,
    /// What the runtime and the disk had when they were last listed, and that had no worker.
    pub(crate) left: Option<Vec<(PodId, Option<u32>)>>,
    pub(crate) allocations: Allocations,
    /// Who says what volumes hold.
    volume_stats: Option<Address<VolumeStatsMsg>>,
    /// The static pods that were kept for the node's kubelet API, by their hashes.
    pub(crate) static_kept: Option<Vec<String>>,
    /// Who gives devices and CPUs.
    pub(crate) containers: Option<Address<ContainerManagerMsg>>,
    pub(crate) resources: ResourceAdmission,
    /// How this run began, which pods it holds back, and of which that was told.
    pub(crate) run: RunRecord,
    pub(crate) careful: CarefulStart,
    /// The pods of which something runs, while that decides which begin.
    pub(crate) run_here: BTreeSet<String>,
    pub(crate) told_held: BTreeMap<String, Discriminant<Why>>,
    /// What ContainerManager was told last, and whether these are all.
    pub(crate) told_active: Option<(bool, BTreeMap<String, ActivePod>)>,
    /// No pod may be scheduled to the node, as was seen last.
    pub(crate) is_cordoned: bool,
    /// The machine's checks; `None`: nobody looks.
    checks: Option<MachineChecks>,
}

impl Edged {
    /// Edged over `runtime` and `store`, made anew by its factory after a fault.
    ///
    /// `settings` come from [`Settings::new`]. `runtime` is shared by all incarnations; a [`cri::Grpc`] connects when
    /// it is used, so nothing has to be there yet. `meta` must allow asking: tokens come that way, and nudges and the
    /// sign of life go there. Whoever commits objects to `store` tells Edged [`EdgedMsg::Reconcile`].
    pub fn new(settings: Settings, runtime: Arc<dyn Runtime>, store: Store, meta: Address<MetaMsg>) -> Self {
        Edged {
            settings,
            runtime,
            store: EdgedStore::new(store),
            meta,
            csi: None,
            deps: None,
            node: Rc::default(),
            pods: PodManager::default(),
            parsed: BTreeMap::new(),
            wanted: None,
            versions: None,
            listing: Listing::default(),
            app_armor: false,
            late_node: LateNode::default(),
            mirrors: Requests::default(),
            wakes: None,
            is_waited_for: false,
            left: None,
            allocations: Allocations::default(),
            volume_stats: None,
            static_kept: None,
            containers: None,
            resources: ResourceAdmission::default(),
            run: RunRecord::default(),
            careful: CarefulStart::default(),
            run_here: BTreeSet::new(),
            told_held: BTreeMap::new(),
            told_active: None,
            is_cordoned: false,
            checks: None,
        }
    }

    /// With who gives devices and CPUs; without it the node has none that are given by the piece.
    #[must_use]
    pub fn with_containers(mut self, containers: Address<ContainerManagerMsg>) -> Self {
        self.containers = Some(containers);
        self
    }

    /// With looks at what of the machine stops pods, which the log and a condition of the Node then say; without it nobody looks.
    #[must_use]
    pub fn checking(self, checks: Option<MachineChecks>) -> Self {
        Edged { checks, ..self }
    }

    /// With EdgeCsi, which must allow asking, for volumes of CSI drivers.
    #[must_use]
    pub fn mounting_by(self, csi: Address<CsiMsg>) -> Self {
        Edged { csi: Some(csi), ..self }
    }
}

impl Actor for Edged {
    type Message = EdgedMsg;

    async fn started(&mut self, cx: &mut Context<EdgedMsg>) -> Result<(), Fault> {
        self.secure_folders(cx.env()).await?;
        self.app_armor = cx.env().blocking(app_armor::is_enabled).await.map_err(|e| Fault::from_error(&e))?;
        let info = self.node.look(&self.settings, cx.env()).await.map_err(|e| Fault::from_error(&e))?;
        let (settings, runtime) = (self.settings.clone(), Arc::clone(&self.runtime));
        let (store, meta) = (self.store.clone(), self.meta.clone());
        let deps =
            Dependencies::new(settings, runtime, store, meta, cx.for_children(), cx.env().clone(), info);
        let deps = Dependencies { csi: self.csi.clone(), ..deps };
        let deps = Rc::new(deps.with_containers(self.containers.clone()));
        if let Some(csi) = &self.csi {
            // One that has just begun says it by itself.
            let _ = csi.try_tell(CsiMsg::TellDrivers);
        }
        self.deps = Some(Rc::clone(&deps));
        // Before anything is taken for nobody's. What cannot be looked at now is said by the child.
        let _ = static_pods::actor::look(&deps).await;
        let source = Rc::clone(&deps);
        cx.child(STATIC_PODS, StaticPodsSource::policy(), move || StaticPodsSource::new(Rc::clone(&source)));
        let evicting = Rc::clone(&deps);
        cx.child(EVICTION_MANAGER, EvictionManager::policy(), move || {
            EvictionManager::new(Rc::clone(&evicting))
        });
        let collecting = Rc::clone(&deps);
        cx.child(IMAGE_COLLECTOR, ImageCollector::policy(), move || {
            ImageCollector::new(Rc::clone(&collecting))
        });
        let ending = Rc::clone(&deps);
        cx.child(NODE_SHUTDOWN, NodeShutdown::policy(), move || NodeShutdown::new(Rc::clone(&ending)));
        let measuring = Rc::clone(&deps);
        self.volume_stats = Some(cx.child(VOLUME_STATS, VolumeStatsKeeper::policy(), move || {
            VolumeStatsKeeper::new(Rc::clone(&measuring))
        }));
        let keeping = Rc::clone(&deps);
        cx.child(LOG_MANAGER, LogManager::policy(), move || LogManager::new(Rc::clone(&keeping)));
        let pleg = Pleg {
            runtime: Arc::clone(&self.runtime),
            node: self.settings.node_name.clone(),
            root: self.settings.root.clone(),
            logs: self.settings.logs.clone(),
            env: cx.env().clone(),
            edged: cx.myself(),
            listing: Rc::clone(&self.listing),
            lost: Cell::new(false),
            relisted_at: Cell::new(None),
            deps: Rc::clone(&deps),
        };
        cx.spawn(pleg.run());
        if let Some(of_machine) = self.checks.clone() {
            cx.spawn(checks::look_for_ever(of_machine, Rc::clone(&deps)));
        }
        cx.every(self.settings.report_node_every, || EdgedMsg::Tick);
        for event in self.store.found() {
            deps.node_event(event.kind, event.reason, &event.message);
        }
        self.recall_runs(cx).await;
        self.reconcile(cx).await;
        self.tick(cx);
        Ok(())
    }

    async fn handle(&mut self, message: EdgedMsg, cx: &mut Context<EdgedMsg>) -> Result<(), Fault> {
        match message {
            EdgedMsg::ObjectsChanged(_) | EdgedMsg::Reconcile => self.reconcile(cx).await,
            EdgedMsg::RuntimeEvent { id } => self.runtime_event(&id),
            EdgedMsg::RuntimeRelisted => self.relisted(cx),
            EdgedMsg::PodStopped { uid } => {
                self.pods.set_stopped(&uid);
                self.pod_ended(cx).await;
            }
            EdgedMsg::PodRemoved { uid } => {
                self.pods.set_removed(&uid);
                self.pod_ended(cx).await;
            }
            EdgedMsg::EvictPod { uid, reason, message, grace } => {
                self.pods.evict(&uid, Eviction { reason, message, grace });
            }
            EdgedMsg::RestartPod { pod, reply } => reply.send(self.pods.restart(&pod)),
            EdgedMsg::ShutdownCancelled => self.pods.begin_again(),
            EdgedMsg::Devices(report) => self.devices_changed(report, cx).await,
            EdgedMsg::ResourcesDecided { uid, outcome } => {
                self.resources.decided(&uid, outcome);
                self.reconcile(cx).await;
            }
            EdgedMsg::CsiDrivers { drivers, in_use } => self.csi_drivers(CsiVolumes { drivers, in_use }, cx),
            EdgedMsg::MqttBroker(report) => {
                if let Some(deps) = &self.deps {
                    deps.mqtt_broker.replace(Some(report));
                }
                self.tick(cx);
            }
            EdgedMsg::VolumeStats { reply } => {
                if let Some(stats) = &self.volume_stats {
                    // Whoever asks hears that there is no answer.
                    let _ = stats.try_tell(VolumeStatsMsg::Wanted(reply));
                }
            }
            EdgedMsg::PullImage { image, secret, reply } => self.pull_image(image, secret, reply, cx),
            EdgedMsg::Describe { bounds, reply } => reply.send(self.describe(bounds)),
            EdgedMsg::ReportNode => {
                self.node.force();
                self.tick(cx);
                if self.careful.link_is_up(cx.now()) {
                    self.reconcile(cx).await;
                }
            }
            EdgedMsg::Tick => self.tick(cx),
        }
        Ok(())
    }

    fn snapshot(&self) -> Value {
        serde_json::json!({"pods": self.pods.phases(), "ready": self.node.ready()})
    }

    fn samples(&self) -> Vec<Sample> {
        let phases = self.pods.phases().into_iter();
        phases.map(|(phase, pods)| Sample::new("edged_pods", pods as f64).of("phase", phase)).collect()
    }
}

impl Edged {
    /// Pulls an image beside the actor. When whoever asked has given up, so does the runtime: what nobody waits for takes no place, no line
    /// and no disk.
    fn pull_image(
        &self,
        image: String,
        secret: Option<String>,
        mut reply: Reply<Result<(), String>>,
        cx: &Context<EdgedMsg>,
    ) {
        // Whoever asks an Edged that has not begun hears that there is no answer.
        let Some(deps) = self.deps.clone() else { return };
        cx.spawn(async move {
            let pulled = tokio::select! {
                biased;
                // The pull is dropped by it, also where it still waits for its turn.
                () = reply.abandoned() => return,
                pulled = pull::ensure_for_job(deps, image, secret) => pulled,
            };
            reply.send(pulled);
        });
    }

    /// Nothing is put where others can look.
    async fn secure_folders(&self, env: &Env) -> Result<(), Fault> {
        let root = self.settings.root.clone();
        let secured = blocking(env, "close the folders in", move || folders::secure(&root)).await;
        for repaired in secured.map_err(|error| Fault::from_error(&error))? {
            events::folder_closed(env, &repaired);
        }
        Ok(())
    }

    fn runtime_event(&self, id: &str) {
        let owner = self.deps.as_ref().and_then(|deps| deps.ids.owner(id));
        if let Some(uid) = owner {
            self.pods.runtime_changed(&uid);
        }
    }

    /// What was asked of a driver that was not there is asked again, and the node says which drivers and volumes it has.
    fn csi_drivers(&mut self, told: CsiVolumes, cx: &Context<EdgedMsg>) {
        let Some(deps) = &self.deps else { return };
        self.node.drivers_told(&told.drivers, deps.now());
        let before = deps.csi_volumes.replace(Some(told.clone()));
        if before.as_ref() == Some(&told) {
            return;
        }
        if before.is_none_or(|before| before.drivers != told.drivers) {
            self.pods.drivers_changed();
        }
        self.node.force();
        self.tick(cx);
    }

    /// Says that Edged makes progress, and reports the node.
    pub(crate) fn tick(&mut self, cx: &Context<EdgedMsg>) {
        if self.node.is_stuck(cx.now()) {
            events::node_report_stuck(cx.env());
        } else {
            // A full mailbox: the next tick says it.
            let _ = self.meta.try_tell(MetaMsg::EdgedAlive);
        }
        let Some(deps) = self.deps.clone() else { return };
        if self.node.begin(cx.now()) {
            let node = Rc::clone(&self.node);
            // Beside the actor: a disk that doesn't answer holds up the report alone.
            cx.spawn(async move { node.report(&deps).await });
        }
    }
}
