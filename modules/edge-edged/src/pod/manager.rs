//! The pods that Edged has a worker for: kubelet's pod manager.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use apimachinery::NamespacedName;
use beehive::{Address, Refusal};
use contract::edgepage::PodView;
use k8s_openapi::api::core::v1::PodStatus;

use crate::pod::end_reason::TERMINATED;
use crate::pod::entry::{Eviction, PodEntry, PodUpdate};
use crate::pod::id::PodId;
use crate::pod::left::Left;
use crate::pod::message::PodWorkerMsg;
use crate::pod::plan::Intent;
use crate::pod::pod_view::pod_view;
use crate::pod::preemption::PREEMPTED;
use crate::pod::restart_refused;
use crate::runtime::pods::ListedPod;
use crate::store::ChangedObjects;

/// One pod and the way to its worker.
struct ManagedPod {
    id: PodId,
    entry: Rc<PodEntry>,
    worker: Address<PodWorkerMsg>,
    /// Of the runtime's list, as it was seen last.
    fingerprint: Vec<(String, i32)>,
    /// The runtime has nothing of it any more: what is left lies on the disk, and is in nobody's way.
    is_stopped: bool,
    /// Nothing of it is left, and its worker has ended.
    is_removed: bool,
}

impl ManagedPod {
    /// Never waits: a worker that is busy must not hold up the others. One that misses a message learns that it did.
    fn tell(&self, message: PodWorkerMsg) {
        match self.worker.try_tell(message) {
            Ok(()) => {}
            Err(Refusal::Full) => self.entry.set_missed(),
            // It has ended, or ends with Edged.
            Err(_) => {}
        }
    }

    fn update(&self, update: PodUpdate) {
        if self.entry.set_update(update) {
            self.tell(PodWorkerMsg::Updated);
        }
    }
}

/// The pods by their uid.
#[derive(Default)]
pub(crate) struct PodManager(BTreeMap<String, ManagedPod>);

impl PodManager {
    /// A pod whose worker was started.
    pub(crate) fn add(&mut self, entry: Rc<PodEntry>, worker: Address<PodWorkerMsg>) {
        let id = entry.update().pod.id.clone();
        let pod = ManagedPod {
            id: id.clone(),
            entry,
            worker,
            fingerprint: Vec::new(),
            is_stopped: false,
            is_removed: false,
        };
        self.0.insert(id.uid, pod);
    }

    /// Hands a pod's worker what is wanted now. False when there is no such pod.
    pub(crate) fn update(&self, update: PodUpdate) -> bool {
        let found = self.0.get(&update.pod.id.uid);
        let known = found.is_some();
        if let Some(pod) = found {
            pod.update(update);
        }
        known
    }

    /// A pod has to go because the node is short of something.
    pub(crate) fn evict(&self, uid: &str, eviction: Eviction) {
        if let Some(pod) = self.0.get(uid) {
            pod.entry.set_eviction(eviction);
            pod.tell(PodWorkerMsg::Updated);
        }
    }

    /// Has what runs of a pod begin again.
    ///
    /// # Errors
    /// Why it cannot, for who asks.
    pub(crate) fn restart(&self, name: &NamespacedName) -> Result<(), String> {
        let named = |pod: &&ManagedPod| pod.id.namespaced_name() == *name && !pod.is_removed;
        // Beside one that is still being removed there may be a new one of its name.
        let all: Vec<&ManagedPod> = self.0.values().filter(named).collect();
        let wanted = |pod: &&&ManagedPod| pod.entry.update().intent != Intent::Terminate;
        let Some(pod) = all.iter().find(wanted).or(all.first()) else {
            return Err("it is not on this node".to_owned());
        };
        let update = pod.entry.update();
        restart_refused::check(&update.pod, &update.intent)?;
        if pod.entry.is_quiet() {
            return Err("nothing of it runs".to_owned());
        }
        pod.entry.ask_restart();
        pod.tell(PodWorkerMsg::Updated);
        Ok(())
    }

    /// What was decided about the pods so far, by uid.
    pub(crate) fn intents(&self) -> BTreeMap<String, Intent> {
        self.0.iter().map(|(uid, pod)| (uid.clone(), pod.entry.update().intent)).collect()
    }

    /// The uids of the pods that have one of these namespaces and names.
    pub(crate) fn uids_of(&self, names: &BTreeSet<NamespacedName>) -> Vec<String> {
        let own = self.0.values().map(|pod| &pod.id);
        let named = own.filter(|id| names.contains(&id.namespaced_name()));
        named.map(|id| id.uid.clone()).collect()
    }

    /// Whether it has a worker.
    pub(crate) fn has(&self, uid: &str) -> bool {
        self.0.contains_key(uid)
    }

    /// Whether another pod of this namespace and name has something in the runtime.
    pub(crate) fn name_is_taken(&self, id: &PodId) -> bool {
        self.0.values().any(|pod| pod.id.is_namesake_of(id) && !pod.is_stopped && !pod.is_removed)
    }

    /// Pods that are not `wanted` end; those that have ended are forgotten.
    pub(crate) fn terminate_others(&mut self, wanted: &BTreeSet<String>) {
        self.0.retain(|uid, pod| wanted.contains(uid) || !pod.is_removed);
        for pod in self.0.iter().filter(|(uid, _)| !wanted.contains(*uid)).map(|(_, pod)| pod) {
            let update = pod.entry.update();
            pod.update(PodUpdate { intent: Intent::Terminate, in_cloud: false, ..update });
        }
    }

    /// Tells those whose pods name one of the objects.
    pub(crate) fn objects_changed(&self, changed: &ChangedObjects) {
        for pod in self.0.values() {
            let parsed = pod.entry.update().pod;
            if changed.iter().any(|key| parsed.references.contains(&pod.id.namespace, key)) {
                pod.tell(PodWorkerMsg::ObjectsChanged);
            }
        }
    }

    /// A CSI driver came or went: pods with volumes of any are told.
    pub(crate) fn drivers_changed(&self) {
        for pod in self.0.values() {
            let parsed = pod.entry.update().pod;
            if !parsed.references.claims.is_empty() || !parsed.references.csi_drivers.is_empty() {
                pod.tell(PodWorkerMsg::ObjectsChanged);
            }
        }
    }

    /// Tells a pod that the runtime spoke of it.
    pub(crate) fn runtime_changed(&self, uid: &str) {
        if let Some(pod) = self.0.get(uid) {
            pod.tell(PodWorkerMsg::RuntimeChanged);
        }
    }

    /// Tells those of which the runtime lists something else than before. Answers the listed pods that are not here, and the grace of
    /// their containers in seconds.
    pub(crate) fn relisted(&mut self, listed: BTreeMap<String, ListedPod>) -> Vec<(PodId, Option<u32>)> {
        for (uid, pod) in &mut self.0 {
            let fingerprint = listed.get(uid).map(|pod| pod.fingerprint.clone()).unwrap_or_default();
            if fingerprint != pod.fingerprint {
                pod.fingerprint = fingerprint;
                pod.tell(PodWorkerMsg::RuntimeChanged);
            }
        }
        let others = listed.into_iter().filter(|(uid, _)| !self.0.contains_key(uid));
        others
            .map(|(uid, pod)| (PodId { namespace: pod.namespace, name: pod.name, uid }, pod.grace))
            .collect()
    }

    /// The runtime has nothing of the pod any more.
    pub(crate) fn set_stopped(&mut self, uid: &str) {
        if let Some(pod) = self.0.get_mut(uid) {
            pod.is_stopped = true;
        }
    }

    /// Nothing of the pod is left.
    pub(crate) fn set_removed(&mut self, uid: &str) {
        if let Some(pod) = self.0.get_mut(uid) {
            pod.is_removed = true;
        }
    }

    /// What is left of the pods that have a worker, by uid.
    pub(crate) fn left(&self) -> BTreeMap<String, Left> {
        let left = self.0.iter().map(|(uid, pod)| {
            let PodUpdate { pod: parsed, intent, .. } = pod.entry.update();
            let is_there = !pod.is_stopped && !pod.is_removed;
            (uid.clone(), Left { pod: parsed, intent, is_there, may_run: self.may_run(uid) })
        });
        left.collect()
    }

    /// Whether something of a pod runs, or may: its worker has not seen that nothing does.
    pub(crate) fn may_run(&self, uid: &str) -> bool {
        self.0.get(uid).is_some_and(|pod| !pod.is_stopped && !pod.is_removed && !pod.entry.is_quiet())
    }

    /// Whether a pod that was preempted still takes its place.
    pub(crate) fn makes_room(&self) -> bool {
        self.0.iter().any(|(uid, pod)| {
            matches!(pod.entry.update().intent, Intent::Fail { reason, .. } if reason == PREEMPTED)
                && self.may_run(uid)
        })
    }

    /// Static pods that were to go with the machine run again: it does not end.
    pub(crate) fn begin_again(&self) {
        let ends = |pod: &&ManagedPod| pod.entry.eviction().is_some_and(|own| own.reason == TERMINATED);
        for pod in self.0.values().filter(ends).filter(|pod| pod.entry.update().pod.is_static) {
            pod.entry.clear_eviction();
            pod.tell(PodWorkerMsg::Updated);
        }
    }

    /// The pods for people; `reported`: what was reported last of the one with that uid.
    pub(crate) fn describe(&self, reported: impl Fn(&str) -> Option<Arc<PodStatus>>) -> Vec<PodView> {
        let there = self.0.iter().filter(|(_, pod)| !pod.is_removed);
        let views = there.map(|(uid, pod)| {
            pod_view(&pod.entry.update().pod, &pod.entry.phase(), reported(uid).as_deref())
        });
        views.collect()
    }

    /// How many pods are in each phase.
    pub(crate) fn phases(&self) -> BTreeMap<String, usize> {
        let mut phases: BTreeMap<String, usize> = BTreeMap::new();
        for pod in self.0.values().filter(|pod| !pod.is_removed) {
            *phases.entry(pod.entry.phase()).or_default() += 1;
        }
        phases
    }
}
