//! Edged's actor: one worker per pod, and the node's own report.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::{Actor, Address, Context, Env, Fault};
use contract::edged::EdgedMsg;
use contract::metamanager::MetaMsg;
use cri::Runtime;
use edge_store::Store;
use futures::FutureExt as _;
use serde_json::Value;

use crate::admission::{Admission, Room};
use crate::desired::{Desired, PodId, fnv1a};
use crate::dns::{self, NodeDns};
use crate::error::{DesiredError, StepError};
use crate::folders;
use crate::inbox::{Assignment, Inbox};
use crate::machine::{self, Machine};
use crate::node;
use crate::objects::references;
use crate::plan::Intent;
use crate::reported::{Reported, report_node};
use crate::settings::Settings;
use crate::store::{Desk, Versions};
use crate::sysctls::Sysctls;
use crate::tools::{NodeView, Tools, blocking};
use crate::watch::{Listing, Watch};
use crate::worker::Worker;

/// Before a worker that panicked is made anew.
const WORKER_PAUSE: Duration = Duration::from_secs(5);
/// A report that takes longer has come to a stop.
const REPORT_WITHIN: Duration = Duration::from_secs(60);

/// One pod and its worker.
struct Station {
    id: PodId,
    inbox: Rc<Inbox>,
    print: Vec<(String, i32)>,
}

/// Runs the node's pods.
pub struct Edged {
    settings: Settings,
    runtime: Arc<dyn Runtime>,
    desk: Desk,
    meta: Address<MetaMsg>,
    tools: Option<Rc<Tools>>,
    /// As it was seen last.
    machine: Rc<RefCell<Machine>>,
    stations: BTreeMap<String, Station>,
    parsed: BTreeMap<u64, Arc<Desired>>,
    versions: Versions,
    listing: Listing,
    /// The pods of the store were read the last time.
    has_looked: bool,
    reported: Rc<Reported>,
}

impl Edged {
    /// Edged over `runtime` and `store`, made anew by its factory after a fault.
    ///
    /// `settings` come from [`Settings::new`]. `runtime` is shared by all incarnations; a [`cri::Grpc`] connects when
    /// it is used, so nothing has to be there yet. `meta` must allow asking: tokens come that way, and nudges and the
    /// sign of life go there. Whoever commits objects to `store` tells Edged [`EdgedMsg::Look`].
    pub fn new(settings: Settings, runtime: Arc<dyn Runtime>, store: Store, meta: Address<MetaMsg>) -> Self {
        Edged {
            settings,
            runtime,
            desk: Desk::new(store),
            meta,
            tools: None,
            machine: Rc::default(),
            stations: BTreeMap::new(),
            parsed: BTreeMap::new(),
            versions: Versions::default(),
            listing: Listing::default(),
            has_looked: false,
            reported: Rc::default(),
        }
    }
}

impl Actor for Edged {
    type Message = EdgedMsg;

    async fn started(&mut self, cx: &mut Context<EdgedMsg>) -> Result<(), Fault> {
        self.secure_folders(cx.env()).await?;
        let machine = look_at_machine(&self.settings, cx.env()).await;
        self.machine.replace(machine.map_err(|error| Fault::from_error(&error))?);
        let view = view(&self.settings, &self.machine.borrow(), "containerd");
        let (settings, runtime) = (self.settings.clone(), Arc::clone(&self.runtime));
        let (desk, meta) = (self.desk.clone(), self.meta.clone());
        let tools = Tools::new(settings, runtime, desk, meta, cx.myself(), cx.env().clone(), view);
        self.tools = Some(Rc::new(tools));
        let watch = Watch {
            runtime: Arc::clone(&self.runtime),
            node: self.settings.node_name.clone(),
            root: self.settings.root.clone(),
            logs: self.settings.logs.clone(),
            env: cx.env().clone(),
            edged: cx.myself(),
            listing: Rc::clone(&self.listing),
            lost: Cell::new(false),
            relist_every: self.settings.relist_every,
            poll_every: self.settings.poll_every,
        };
        cx.spawn(watch.run());
        cx.every(self.settings.report_node_every, || EdgedMsg::Tick);
        self.versions = self.desk.versions().unwrap_or_default();
        self.look(cx);
        self.tick(cx);
        Ok(())
    }

    async fn handle(&mut self, message: EdgedMsg, cx: &mut Context<EdgedMsg>) -> Result<(), Fault> {
        match message {
            EdgedMsg::ObjectsChanged(_) | EdgedMsg::Look => self.look_again(cx),
            EdgedMsg::RuntimeChanged { id } => {
                self.runtime_changed(id.as_deref(), cx);
                // A runtime that answers again makes the node Ready now, not at the next tick.
                if id.is_none() && !self.reported_ready() {
                    self.tick(cx);
                }
            }
            EdgedMsg::PodMoved { uid } => self.pod_moved(&uid, cx),
            EdgedMsg::ReportAnew => {
                self.reported.anew.set(true);
                self.tick(cx);
            }
            EdgedMsg::Tick => self.tick(cx),
        }
        Ok(())
    }

    fn snapshot(&self) -> Value {
        let mut phases: BTreeMap<String, usize> = BTreeMap::new();
        for station in self.stations.values().filter(|station| !station.inbox.has_ended()) {
            *phases.entry(station.inbox.phase()).or_default() += 1;
        }
        let ready = self.reported.ready();
        serde_json::json!({"pods": phases, "ready": ready})
    }
}

impl Edged {
    fn reported_ready(&self) -> bool {
        self.reported.ready().is_some_and(|status| status == "True")
    }

    /// Nothing is put where others can look.
    async fn secure_folders(&self, env: &Env) -> Result<(), Fault> {
        let root = self.settings.root.clone();
        let secured = blocking(env, "close the folders in", move || folders::secure(&root)).await;
        for repaired in secured.map_err(|error| Fault::from_error(&error))? {
            tracing::warn!("other users of this machine could look into pods: {repaired}");
        }
        Ok(())
    }

    /// The store may have changed: assigns, and lets the workers look at their objects.
    fn look_again(&mut self, cx: &Context<EdgedMsg>) {
        self.look(cx);
        let changed = match self.desk.versions() {
            Ok(versions) => {
                let changed = versions.changed_since(&self.versions);
                self.versions = versions;
                changed
            }
            Err(error) => {
                tracing::error!(%error, "versions of objects cannot be read from the store");
                return;
            }
        };
        if changed.is_empty() {
            return;
        }
        for station in self.stations.values() {
            let pod = station.inbox.assignment().pod;
            if references(pod.spec()).meet(&pod.id.namespace, &changed) {
                station.inbox.objects_changed();
            }
        }
    }

    /// Brings the workers in line with the store.
    fn look(&mut self, cx: &Context<EdgedMsg>) {
        let stored = match self.desk.pods() {
            Ok(stored) => stored,
            Err(error) => {
                tracing::error!(%error, "pods cannot be read from the store");
                self.has_looked = false;
                return;
            }
        };
        self.has_looked = true;
        let wanted = self.assignments(&stored);
        let mut uids: BTreeSet<String> =
            wanted.iter().map(|assignment| assignment.pod.id.uid.clone()).collect();
        uids.extend(self.unreadable());
        self.dismiss(&uids);
        for assignment in wanted {
            let id = assignment.pod.id.clone();
            match self.stations.get(&id.uid) {
                Some(station) => station.inbox.assign(assignment),
                // Another pod of this name has to be gone first; its end leads back here.
                None if self.name_is_taken(&id) => {}
                None => self.hire(assignment, cx),
            }
        }
    }

    /// The pods whose rows in the store cannot be read: they go on as they are until the cloud has sent them again.
    fn unreadable(&self) -> Vec<String> {
        if self.desk.is_whole() {
            return Vec::new();
        }
        let damaged = self.desk.damaged_pods().unwrap_or_else(|error| {
            tracing::error!(%error, "damaged rows of the store cannot be named");
            self.stations
                .values()
                .map(|station| (station.id.namespace.clone(), station.id.name.clone()))
                .collect()
        });
        let own = |id: &PodId| damaged.contains(&(id.namespace.clone(), id.name.clone()));
        self.stations
            .values()
            .filter(|station| own(&station.id))
            .map(|station| station.id.uid.clone())
            .collect()
    }

    /// What should become of each pod in the store.
    fn assignments(&mut self, stored: &[Vec<u8>]) -> Vec<Assignment> {
        let mut parsed = BTreeMap::new();
        let mut wanted = Vec::new();
        let mut held = Vec::new();
        for json in stored {
            let print = fnv1a(json);
            match self.parsed.get(&print).cloned().map_or_else(|| Desired::parse(json).map(Arc::new), Ok) {
                Ok(pod) => {
                    parsed.insert(print, Arc::clone(&pod));
                    wanted.push(pod);
                }
                Err(DesiredError::NotAPod { id, reason }) => {
                    tracing::error!(pod = %id.name, namespace = %id.namespace, %reason, "pod is refused");
                    let intent = Intent::Hold { reason: "InvalidPod".to_owned(), message: reason };
                    held.push(Assignment { pod: Arc::new(Desired::nameless(*id)), intent, in_cloud: true });
                }
                Err(error) => {
                    tracing::error!(error = %Fault::from_error(&error), "pod in the store is passed over")
                }
            }
        }
        self.parsed = parsed;
        let labels = self.labels();
        let sysctls = Sysctls::new(&self.settings.allowed_sysctls, &self.machine.borrow().kernel);
        let mut admission = Admission::new(self.room(), &labels, &sysctls);
        let admitted = |uid: &str| {
            self.stations.get(uid).is_some_and(|station| station.inbox.assignment().intent == Intent::Run)
        };
        // Those that have started before keep their place.
        let rank = |pod: &Arc<Desired>| {
            let started = pod.cloud_status().and_then(|status| status.start_time.as_ref().map(|time| time.0));
            let made = pod.pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (!admitted(&pod.id.uid), started.is_none(), started.or(made), pod.id.uid.clone())
        };
        wanted.sort_by_cached_key(rank);
        let decided = wanted.into_iter().map(|pod| {
            let running = pod.cloud_status().and_then(|status| status.phase.as_deref()) == Some("Running");
            let intent = match self.stations.get(&pod.id.uid).map(|station| station.inbox.assignment().intent)
            {
                // A pod that was turned away stays so.
                Some(Intent::Fail { reason, message }) if !pod.is_leaving() => {
                    Intent::Fail { reason, message }
                }
                before => admission.decide(&pod, running || before == Some(Intent::Run)),
            };
            Assignment { pod, intent, in_cloud: true }
        });
        decided.chain(held).collect()
    }

    fn room(&self) -> Room {
        let (cpu_milli, memory) = node::allocatable(&self.settings, &self.machine.borrow());
        Room { pods: u64::from(self.settings.max_pods), cpu_milli, memory }
    }

    /// The node's labels as the cloud has them, else as they are reported.
    fn labels(&self) -> BTreeMap<String, String> {
        let stored = self.desk.node(&self.settings.node_name).ok().flatten();
        let node = stored.and_then(|json| serde_json::from_slice::<Value>(&json).ok());
        let labels =
            node.and_then(|node| serde_json::from_value(node.pointer("/metadata/labels")?.clone()).ok());
        labels.unwrap_or_else(|| node::labels(&self.settings))
    }

    /// Pods that are no longer in the store end; those that have ended are forgotten.
    fn dismiss(&mut self, wanted: &BTreeSet<String>) {
        self.stations.retain(|uid, station| wanted.contains(uid) || !station.inbox.has_ended());
        for station in
            self.stations.iter().filter(|(uid, _)| !wanted.contains(*uid)).map(|(_, station)| station)
        {
            let mut assignment = station.inbox.assignment();
            assignment.intent = Intent::Leave;
            assignment.in_cloud = false;
            station.inbox.assign(assignment);
        }
    }

    fn name_is_taken(&self, id: &PodId) -> bool {
        let same =
            |other: &PodId| other.name == id.name && other.namespace == id.namespace && other.uid != id.uid;
        self.stations.values().any(|station| same(&station.id) && !station.inbox.has_left_runtime())
    }

    fn hire(&mut self, assignment: Assignment, cx: &Context<EdgedMsg>) {
        let id = assignment.pod.id.clone();
        let inbox = Rc::new(Inbox::new(assignment));
        self.employ(&id, &inbox, cx);
        self.stations.insert(id.uid.clone(), Station { id, inbox, print: Vec::new() });
    }

    /// A worker for the inbox. When it ends, or panics, the actor hears of it.
    fn employ(&self, id: &PodId, inbox: &Rc<Inbox>, cx: &Context<EdgedMsg>) {
        let Some(tools) = self.tools.clone() else { return };
        let worker = Worker::new(tools, Rc::clone(inbox));
        let (env, edged, uid, name) = (cx.env().clone(), cx.myself(), id.uid.clone(), id.name.clone());
        cx.spawn(async move {
            if AssertUnwindSafe(worker.run()).catch_unwind().await.is_err() {
                tracing::error!(pod = %name, "worker of a pod panicked and is made anew");
                env.sleep(WORKER_PAUSE).await;
            }
            let _ = edged.tell(EdgedMsg::PodMoved { uid }).await;
        });
    }

    /// A worker is done, or has to be made anew.
    fn pod_moved(&mut self, uid: &str, cx: &Context<EdgedMsg>) {
        let Some(station) = self.stations.get(uid) else { return };
        if station.inbox.has_ended() {
            self.look(cx);
        } else {
            self.employ(&station.id, &station.inbox, cx);
        }
    }

    /// The runtime spoke of one thing, or was looked at as a whole.
    fn runtime_changed(&mut self, id: Option<&str>, cx: &Context<EdgedMsg>) {
        if let Some(id) = id {
            for station in self.stations.values().filter(|station| station.inbox.has(id)) {
                station.inbox.runtime_changed();
            }
            return;
        }
        let Some(found) = self.listing.borrow_mut().take() else { return };
        for (uid, station) in &mut self.stations {
            let print = found.get(uid).map(|pod| pod.print.clone()).unwrap_or_default();
            if print != station.print {
                station.print = print;
                station.inbox.runtime_changed();
            }
        }
        for (uid, pod) in found {
            if !self.stations.contains_key(&uid) {
                self.orphan(PodId { namespace: pod.namespace, name: pod.name, uid }, cx);
            }
        }
    }

    /// Something runs, or is left on the disk, of a pod that nobody wants.
    fn orphan(&mut self, id: PodId, cx: &Context<EdgedMsg>) {
        // What could not be read says nothing of who is wanted.
        if !self.has_looked {
            return;
        }
        if !self.desk.absence_counts() {
            tracing::warn!(pod = %id.name, uid = %id.uid, "pod is not in the store, which is new or has lost rows: left alone");
            return;
        }
        // One whose object waits for another of its name is no orphan.
        if self.parsed.values().any(|pod| pod.id.uid == id.uid) {
            return;
        }
        tracing::info!(pod = %id.name, namespace = %id.namespace, uid = %id.uid, "pod is wanted no more and ends");
        let pod = Arc::new(Desired::nameless(id));
        self.hire(Assignment { pod, intent: Intent::Leave, in_cloud: false }, cx);
    }

    /// Says that Edged makes progress, and reports the node.
    fn tick(&mut self, cx: &Context<EdgedMsg>) {
        let stuck = self.reported.since.get().is_some_and(|since| cx.now().since(since) > REPORT_WITHIN);
        if stuck {
            tracing::error!(
                "no report of the node could be made for a minute: edged does not count as alive"
            );
        } else {
            // A full mailbox: the next tick says it.
            let _ = self.meta.try_tell(MetaMsg::EdgedAlive);
        }
        let Some(tools) = self.tools.clone() else { return };
        if self.reported.since.get().is_some() {
            return;
        }
        self.reported.since.set(Some(cx.now()));
        let (reported, machine) = (Rc::clone(&self.reported), Rc::clone(&self.machine));
        // Beside the actor: a disk that doesn't answer holds up the report alone.
        cx.spawn(async move {
            match look_at_machine(&tools.settings, &tools.env).await {
                Ok(seen) => drop(machine.replace(seen)),
                Err(error) => tracing::error!(%error, "machine cannot be looked at"),
            }
            let seen = machine.borrow().clone();
            let runtime = tools.node.borrow().runtime.clone();
            tools.node.replace(view(&tools.settings, &seen, &runtime));
            report_node(&tools, &reported, seen).await;
            reported.since.set(None);
        });
    }
}

async fn look_at_machine(settings: &Settings, env: &Env) -> Result<Machine, StepError> {
    let (root, ips) = (settings.root.clone(), settings.node_ips.clone());
    blocking(env, "look at the machine from", move || Ok(machine::look(&root, &ips))).await
}

fn view(settings: &Settings, machine: &Machine, runtime: &str) -> NodeView {
    let (cpu_milli, memory) = node::allocatable(settings, machine);
    let resolv_conf = match std::fs::metadata(&settings.resolv_conf) {
        Ok(metadata) if metadata.len() <= dns::FILE_MAX => {
            std::fs::read_to_string(&settings.resolv_conf).unwrap_or_default()
        }
        Ok(_) | Err(_) => String::new(),
    };
    NodeView {
        runtime: runtime.to_owned(),
        host_ips: machine.ips.clone(),
        cpu_milli,
        memory,
        dns: NodeDns {
            cluster_servers: settings.cluster_dns.clone(),
            cluster_domain: settings.cluster_domain.clone(),
            resolv_conf,
        },
    }
}
