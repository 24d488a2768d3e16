//! ContainerManager's actor.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::{Actor, Address, Capacity, Context, Fault, Policy, Reply, Sample};
use contract::containermanager::{
    ActivePod, ContainerManagerMsg, DeviceReport, PluginRegistration, PodDemand, Rejection, ResourceQuery,
};
use contract::edged::EdgedMsg;
use cri::Runtime;
use edge_store::{Store, Write};
use futures::future::AbortHandle;
use kubeletapi::podresources::ListPodResourcesResponse;
use prost::Message as _;
use serde_json::Value;

use crate::admission;
use crate::events;
use crate::machine::Machine;
use crate::pinning::{self, Pinned};
use crate::plan::ledger::{Changes, Ledger};
use crate::plan::placement::CpuPolicy;
use crate::plan::query;
use crate::pod_resources::PodResourcesSocket;
use crate::registration::RegistrationSocket;
use crate::settings::Settings;
use crate::shared::Shared;
use crate::store;
use crate::watch::{PluginWatch, WATCH};

/// 10 s between looks at plugins that are away.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// 1 s for the watch of a plugin that has been replaced.
const WATCH_ENDS_WITHIN: Duration = Duration::from_secs(1);

/// A pod that is being given what it asks for.
struct Admitting {
    replies: Vec<Reply<Result<(), Rejection>>>,
    task: AbortHandle,
    /// Edged has named it among its pods.
    was_active: bool,
}

/// Keeps the books of the node's devices and CPUs.
pub struct ContainerManager {
    settings: Settings,
    store: Store,
    edged: Address<EdgedMsg>,
    shared: Option<Rc<Shared>>,
    admitting: BTreeMap<String, Admitting>,
    told: Option<DeviceReport>,
    pinned: Option<Pinned>,
    /// The CPUs that the runtime was told last, by the containers' ids.
    cpus: Rc<RefCell<BTreeMap<String, String>>>,
    is_pinning: Rc<Cell<bool>>,
}

impl ContainerManager {
    /// Over `store`, made anew by its factory after a fault. `edged` hears of devices.
    pub fn new(settings: Settings, store: Store, edged: Address<EdgedMsg>) -> Self {
        ContainerManager {
            settings,
            store,
            edged,
            shared: None,
            admitting: BTreeMap::new(),
            told: None,
            pinned: None,
            cpus: Rc::default(),
            is_pinning: Rc::default(),
        }
    }

    /// Keeps the containers of `node` that run in `runtime` on their CPUs. Without it cpuManagerPolicy static reaches only
    /// those that are made.
    #[must_use]
    pub fn pinning(mut self, node: &str, runtime: Arc<dyn Runtime>) -> Self {
        self.pinned = Some(Pinned { node: node.to_owned(), runtime });
        self
    }
}

impl Actor for ContainerManager {
    type Message = ContainerManagerMsg;

    async fn started(&mut self, cx: &mut Context<ContainerManagerMsg>) -> Result<(), Fault> {
        let shared = self.load(cx).await?;
        self.shared = Some(Rc::clone(&shared));
        self.tell_edged(&shared);
        if !self.settings.plugins.as_os_str().is_empty() {
            let (folder, manager) = (self.settings.plugins.clone(), cx.for_children());
            cx.child("registration-socket", server_policy(), move || {
                RegistrationSocket::new(folder.clone(), manager.clone())
            });
        }
        if !self.settings.pod_resources.as_os_str().is_empty() {
            let (folder, manager) = (self.settings.pod_resources.clone(), cx.for_children());
            cx.child("pod-resources-socket", server_policy(), move || {
                PodResourcesSocket::new(folder.clone(), manager.clone())
            });
        }
        cx.every(LOOK_EVERY, || ContainerManagerMsg::Tick);
        if shared.machine.cpu_policy != CpuPolicy::None {
            cx.every(self.settings.cpus.every, || ContainerManagerMsg::Pin);
        }
        Ok(())
    }

    async fn handle(
        &mut self,
        message: ContainerManagerMsg,
        cx: &mut Context<ContainerManagerMsg>,
    ) -> Result<(), Fault> {
        let Some(shared) = self.shared.clone() else { return Ok(()) };
        match message {
            ContainerManagerMsg::Admit { pod, reply } => self.admit(&shared, pod, reply, cx),
            ContainerManagerMsg::Admitted { uid, outcome } => {
                self.admitted(&shared, &uid, outcome);
                self.pin(&shared, cx);
            }
            ContainerManagerMsg::Grant { pod, container, reply } => {
                cx.spawn(async move { reply.send(admission::grant(shared, pod, container).await) });
            }
            ContainerManagerMsg::ActivePods(pods) => self.set_active(&shared, pods, true, cx),
            ContainerManagerMsg::KnownPods(pods) => self.set_active(&shared, pods, false, cx),
            ContainerManagerMsg::Registered(registration) => self.registered(&shared, registration, cx),
            ContainerManagerMsg::Listed { resource, session, devices } => {
                let changes = shared.ledger.borrow_mut().listed(&resource, session, devices);
                keep(&shared, changes, cx);
                self.plugins_changed(&shared);
            }
            ContainerManagerMsg::PluginGone { resource, session, reason } => {
                shared.forget_client(session);
                if shared.ledger.borrow_mut().plugin_gone(&resource, session, cx.now()) {
                    events::plugin_gone(cx.env(), &resource, &reason);
                }
                self.plugins_changed(&shared);
            }
            ContainerManagerMsg::Query(query) => answer(&shared, query),
            ContainerManagerMsg::Tick => self.tick(&shared, cx),
            ContainerManagerMsg::Pin => self.pin(&shared, cx),
        }
        Ok(())
    }

    fn snapshot(&self) -> Value {
        let resources = self.told.as_ref().map(|told| &told.resources);
        let shown: BTreeMap<&String, Value> = resources
            .into_iter()
            .flatten()
            .map(|(name, count)| {
                (name, serde_json::json!({"capacity": count.capacity, "allocatable": count.allocatable}))
            })
            .collect();
        serde_json::json!({"resources": shown, "admitting": self.admitting.len()})
    }

    fn samples(&self) -> Vec<Sample> {
        let resources = self.told.iter().flat_map(|told| &told.resources);
        resources
            .map(|(name, count)| {
                Sample::new("containermanager_healthy_devices", count.allocatable as f64)
                    .of("resource", name.clone())
            })
            .collect()
    }
}

fn server_policy() -> Policy {
    let capacity = Capacity::new(16, "its own end, and a few refusals that are only counted");
    Policy { capacity, budget: usize::MAX, ..Policy::default() }
}

impl ContainerManager {
    async fn load(&self, cx: &Context<ContainerManagerMsg>) -> Result<Rc<Shared>, Fault> {
        let (kept_store, cpus) = (self.store.clone(), self.settings.cpus.clone());
        let memory = self.settings.memory.clone();
        let (kept, machine) =
            cx.env().blocking(move || (store::load(&kept_store), Machine::read(&cpus, &memory))).await?;
        let store::Kept { mut pods, resources } = kept.map_err(|error| Fault::from_error(&error))?;
        let machine = machine.map_err(Fault::new)?;
        // CPUs that nobody can have by the policy of today are nobody's.
        let all = match &machine.cpu_policy {
            CpuPolicy::None => BTreeSet::new(),
            CpuPolicy::Static { .. } => machine.cpus.all(),
        };
        for (uid, pod) in &mut pods {
            for container in pod.containers.values_mut().filter(|one| !one.cpus.is_subset(&all)) {
                tracing::warn!(
                    uid,
                    "a container has CPUs that it can't have any more: it shares from now on"
                );
                container.cpus.clear();
            }
            for (name, container) in &mut pod.containers {
                let before = container.memory.len();
                container.memory.retain(|block| machine.memory.has(block));
                if container.memory.len() < before {
                    events::memory_differs(cx.env(), uid, name);
                }
            }
        }
        let ledger = Ledger::new(machine.boot.clone(), pods, resources, cx.now());
        Ok(Shared::new(self.settings.clone(), cx.env().clone(), self.store.clone(), machine, ledger))
    }

    fn admit(
        &mut self,
        shared: &Rc<Shared>,
        pod: PodDemand,
        reply: Reply<Result<(), Rejection>>,
        cx: &Context<ContainerManagerMsg>,
    ) {
        if let Some(admitting) = self.admitting.get_mut(&pod.uid) {
            admitting.replies.push(reply);
            return;
        }
        let uid = pod.uid.clone();
        let was_active = shared.ledger.borrow().is_active(&uid);
        let (shared, myself, own) = (Rc::clone(shared), cx.myself(), uid.clone());
        let task = cx.spawn(async move {
            let outcome = admission::admit(shared, pod).await;
            let _ = myself.tell(ContainerManagerMsg::Admitted { uid: own, outcome }).await;
        });
        self.admitting.insert(uid, Admitting { replies: vec![reply], task, was_active });
    }

    fn admitted(&mut self, shared: &Rc<Shared>, uid: &str, outcome: Result<(), Rejection>) {
        for reply in self.admitting.remove(uid).into_iter().flat_map(|admitting| admitting.replies) {
            reply.send(outcome.clone());
        }
        self.tell_edged(shared);
    }

    /// What pods had that are gone is free; unless these are all, also of those that were never named. One that goes while it is being given something is given up.
    fn set_active(
        &mut self,
        shared: &Rc<Shared>,
        pods: BTreeMap<String, ActivePod>,
        are_all: bool,
        cx: &Context<ContainerManagerMsg>,
    ) {
        self.admitting.retain(|uid, admitting| {
            admitting.was_active |= pods.contains_key(uid);
            let is_gone = admitting.was_active && !pods.contains_key(uid);
            if is_gone {
                admitting.task.abort();
            }
            !is_gone
        });
        let admitting = self.admitting.keys().cloned().collect();
        let changes = shared.ledger.borrow_mut().set_active(pods, are_all, &admitting);
        if !changes.freed.is_empty() {
            keep(shared, changes, cx);
            self.plugins_changed(shared);
        }
    }

    fn registered(
        &mut self,
        shared: &Rc<Shared>,
        registration: PluginRegistration,
        cx: &Context<ContainerManagerMsg>,
    ) {
        let (resource, endpoint) = (registration.resource.clone(), registration.endpoint.clone());
        let before = shared.ledger.borrow().live_plugin(&resource).map(|live| live.session);
        let is_new = !shared.ledger.borrow().is_known(&resource);
        if let Some(gone) = shared.ledger.borrow_mut().make_room(&resource) {
            self.write(vec![store::forget_resource(&gone)], cx);
        }
        let Some(session) = shared.ledger.borrow_mut().registered(registration.clone(), cx.now()) else {
            return events::registration_refused(
                cx.env(),
                &resource,
                "the node has 48 resources of plugins already",
            );
        };
        events::plugin_registered(cx.env(), &resource, &endpoint);
        let name = |session: u64| (WATCH, format!("{resource}/{session}"));
        if let Some(before) = before {
            shared.forget_client(before);
            let stopped = cx.stop_child(name(before), WATCH_ENDS_WITHIN);
            cx.spawn(async move {
                let _ = stopped.await;
            });
        }
        let client = shared.add_client(session, &registration);
        let (manager, watched) = (cx.for_children(), resource.clone());
        cx.child(name(session), PluginWatch::policy(), move || {
            PluginWatch::new(&watched, session, client.clone(), manager.clone())
        });
        if is_new {
            self.write(vec![store::put_resource(&resource)], cx);
        }
        self.plugins_changed(shared);
    }

    fn write(&self, writes: Vec<Write>, cx: &Context<ContainerManagerMsg>) {
        let (committed, env) = (self.store.commit(writes), cx.env().clone());
        cx.spawn(async move {
            if let Err(error) = committed.await {
                events::not_kept(&env, &error.to_string());
            }
        });
    }

    fn tick(&mut self, shared: &Rc<Shared>, cx: &Context<ContainerManagerMsg>) {
        let expired = shared.ledger.borrow_mut().expire(cx.now());
        for resource in &expired {
            events::plugin_expired(cx.env(), resource);
        }
        if !expired.is_empty() {
            self.plugins_changed(shared);
        }
        self.tell_edged(shared);
    }

    /// Looks which containers have to move to other CPUs, unless that is being looked at.
    fn pin(&self, shared: &Rc<Shared>, cx: &Context<ContainerManagerMsg>) {
        let Some(pinned) = self.pinned.clone().filter(|_| shared.machine.cpu_policy != CpuPolicy::None)
        else {
            return;
        };
        if self.is_pinning.replace(true) {
            return;
        }
        let (shared, cpus, is_pinning) =
            (Rc::clone(shared), Rc::clone(&self.cpus), Rc::clone(&self.is_pinning));
        cx.spawn(async move {
            let before = cpus.borrow().clone();
            let now = pinning::pin(shared, pinned, before).await;
            cpus.replace(now);
            is_pinning.set(false);
        });
    }

    fn plugins_changed(&mut self, shared: &Rc<Shared>) {
        shared.changed();
        self.tell_edged(shared);
    }

    /// Tells Edged what is new. A full mailbox: the next time, at the latest the next tick.
    fn tell_edged(&mut self, shared: &Rc<Shared>) {
        let mut report = shared.ledger.borrow().report();
        report.manages_cpus = shared.machine.cpu_policy != CpuPolicy::None;
        report.manages_memory = shared.machine.memory.is_managed();
        if self.told.as_ref() != Some(&report)
            && self.edged.try_tell(EdgedMsg::Devices(report.clone())).is_ok()
        {
            self.told = Some(report);
        }
    }
}

fn keep(shared: &Rc<Shared>, changes: Changes, cx: &Context<ContainerManagerMsg>) {
    let shared = Rc::clone(shared);
    // What can't be kept is said there.
    cx.spawn(async move { drop(shared.keep(changes).await) });
}

fn answer(shared: &Shared, query: ResourceQuery) {
    let ledger = shared.ledger.borrow();
    match query {
        ResourceQuery::List(reply) => {
            let pods = ledger.active().map(|(uid, active)| query::pod(active, ledger.pod(uid)));
            reply.send(ListPodResourcesResponse { pod_resources: pods.collect() }.encode_to_vec());
        }
        ResourceQuery::Get { namespace, name, reply } => {
            let mut active = ledger.active();
            let found = active.find(|(_, pod)| pod.namespace == namespace && pod.name == name);
            reply.send(found.map(|(uid, active)| query::pod(active, ledger.pod(uid)).encode_to_vec()));
        }
        ResourceQuery::Allocatable(reply) => {
            let cpus = shared.placement().allocatable();
            reply.send(
                query::allocatable(ledger.allocatable(), &cpus, &shared.machine.memory.blocks())
                    .encode_to_vec(),
            );
        }
    }
}
