//! Edged's part: it brings the workers of pods in line with the store, and with the files of static pods.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::{Context, Env, Moment};
use contract::edged::EdgedMsg;

use crate::actor::Edged;
use crate::events;
use crate::node::node_events;
use crate::node::status;
use crate::plan::{self, StoredPods};
use crate::pod::admission::{Admission, Capacity, NodeTraits};
use crate::pod::entry::{PodEntry, PodUpdate};
use crate::pod::held;
use crate::pod::late_node::{PATIENCE, Wait};
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::worker::PodWorker;
use crate::runtime::sysctls::Sysctls;
use crate::static_pods::mirrors::{self, Mirrors};
use crate::store::StoreView;

/// 2 s between looks whether a pod that is held was released.
const RELEASES_EVERY: Duration = Duration::from_secs(2);
/// 100 ms: what many pods come to that end at once is looked at together.
const ENDS_TOGETHER: Duration = Duration::from_millis(100);

impl Edged {
    /// Brings the workers in line with the store.
    pub(crate) async fn reconcile(&mut self, cx: &mut Context<EdgedMsg>) {
        let (store, node) = (self.store.clone(), self.settings.node_name.clone());
        // It comes back with those that are still in the store.
        let parsed = std::mem::take(&mut self.parsed);
        let kept = parsed.clone();
        let view = match cx.env().blocking(move || store.view(&node, &parsed)).await {
            Ok(Ok(view)) => view,
            Ok(Err(error)) => return self.store_unreadable(kept, &error, cx.env()),
            Err(fault) => return self.store_unreadable(kept, &fault, cx.env()),
        };
        let StoreView {
            mut pods,
            parsed,
            damaged,
            versions,
            node_labels,
            node_taints,
            node_resources,
            is_cordoned,
            adopted,
        } = view;
        self.parsed = parsed;
        let mirrors = mirrors::take(&mut pods.valid);
        self.add_static_pods(&mut pods, &mirrors, cx);
        let reported = &pods.reported;
        let asking =
            self.allocations.apply(&mut pods.valid, |pod| reported.get(&pod.id.uid).map(Arc::as_ref));
        let capacity = Capacity { of_node: node_resources, ..self.capacity() };
        let labels = node_labels.unwrap_or_else(|| status::labels(&self.settings));
        if let Some(deps) = &self.deps {
            deps.images_wanted.replace(plan::images(&pods));
            if std::mem::replace(&mut self.is_cordoned, is_cordoned) != is_cordoned {
                let event = node_events::of_cordon(&self.settings.node_name, is_cordoned);
                deps.node_event(event.kind, event.reason, &event.message);
            }
        }
        let sysctls = Sysctls::new(&self.settings.allowed_sysctls, &self.node.machine().kernel);
        let node = NodeTraits {
            name: &self.settings.node_name,
            labels: &labels,
            taints: &node_taints,
            sysctls: &sysctls,
            app_armor: self.app_armor,
            shutting_down: self.deps.as_ref().is_some_and(|deps| deps.shutting_down.get()),
            features: self
                .deps
                .as_ref()
                .and_then(|deps| deps.node.borrow().features.as_ref().map(|features| features.of(""))),
        };
        let left = self.pods.left();
        let admission = Admission::new(capacity.clone(), node).beside(&left);
        let before = self.pods.intents();
        let pressure = self.deps.as_ref().map(|deps| deps.pressure()).unwrap_or_default();
        let mut updates = plan::updates(&pods, &before, pressure, admission);
        for update in updates.iter_mut().filter(|update| update.pod.is_static) {
            update.mirror = mirrors::of(&mirrors, &update.pod).cloned();
            update.in_cloud = update.mirror.is_some();
        }
        let holding = plan::holding(&pods, &updates, &left);
        self.settle_resizes(&mut updates, asking, &holding, &capacity, cx);
        if let Some(deps) = &self.deps {
            deps.active_pods.replace(plan::active(&pods, &updates));
        }
        let is_one_held = updates.iter().any(|update| held::is_held(&update.intent));
        let released = std::mem::take(&mut pods.released);
        let wanted: BTreeSet<String> = updates.iter().map(|update| update.pod.id.uid.clone()).collect();
        // Those whose rows are damaged go on as they are until the cloud has sent them again.
        let kept = wanted.iter().cloned().chain(self.pods.uids_of(&damaged)).collect();
        self.pods.terminate_others(&kept);
        self.late_node.retain(&wanted);
        self.resources.retain(&wanted);
        // While the files were never read nobody knows which static pods there are.
        let is_known = self.deps.as_ref().is_some_and(|deps| deps.static_pods.borrow().is_known);
        self.wanted = Some(wanted).filter(|_| is_known);
        // With what was given just now.
        self.tell_active(&plan::holding(&pods, &updates, &left));
        let held_back = self.hold_back(&updates, &pods, &before, cx).await;
        updates.retain(|update| !held_back.contains(&update.pod.id.uid));
        self.is_waited_for = false;
        for update in updates {
            let is_new = !before.contains_key(&update.pod.id.uid);
            self.is_waited_for |= !self.hand_on(update, is_new, &pods, cx);
        }
        if is_one_held {
            // Whoever releases it writes to the store, and tells nobody.
            self.reconcile_at(cx.now() + RELEASES_EVERY, cx);
        }
        self.forget_released(released, cx);
        self.forget_adopted(adopted, cx);
        let changed = self.versions.as_ref().map(|before| versions.changed_since(before));
        self.versions = Some(versions);
        if let Some(changed) = changed.filter(|changed| !changed.is_empty()) {
            self.pods.objects_changed(&changed);
        }
    }

    /// Hands an update to the pod's worker, which is started for a new pod. False: something has to happen first that leads back here.
    fn hand_on(
        &mut self,
        mut update: PodUpdate,
        is_new: bool,
        pods: &StoredPods,
        cx: &mut Context<EdgedMsg>,
    ) -> bool {
        if is_new && (self.waits_for_node(&update, cx) || self.waits_for_resources(&mut update, pods, cx)) {
            return false;
        }
        if self.pods.update(update.clone()) {
            return true;
        }
        if update.pod.is_static && self.waits_for_namesake(&update.pod.id, cx) {
            return false;
        }
        self.start_worker(update, cx);
        true
    }

    /// Forgets the releases of pods that are gone. What fails now is done the next time.
    fn forget_released(&self, released: BTreeSet<String>, cx: &Context<EdgedMsg>) {
        let Some(wanted) = self.wanted.as_ref().filter(|_| self.store.is_whole()) else { return };
        let gone: Vec<String> = released.difference(wanted).cloned().collect();
        if gone.is_empty() {
            return;
        }
        let store = self.store.clone();
        cx.spawn(async move {
            if let Err(error) = store.forget_released(gone).await {
                tracing::warn!(%error, "releases of pods that are gone stay in the store");
            }
        });
    }

    /// Forgets of which pods another daemon made the containers once nobody wants them and nothing of them is left. What fails now is
    /// done the next time.
    fn forget_adopted(&self, adopted: BTreeSet<String>, cx: &Context<EdgedMsg>) {
        let wanted = self.wanted.as_ref().filter(|_| !adopted.is_empty() && self.store.is_whole());
        // What is there nobody knows before the runtime was listed.
        let (Some(wanted), Some(left)) = (wanted, &self.left) else { return };
        let is_left = |uid: &String| left.iter().any(|(id, _)| id.uid == *uid);
        let gone: Vec<String> =
            adopted.difference(wanted).filter(|uid| !self.pods.has(uid)).cloned().collect();
        let gone: Vec<String> = gone.into_iter().filter(|uid| !is_left(uid)).collect();
        if gone.is_empty() {
            return;
        }
        let store = self.store.clone();
        cx.spawn(async move {
            if let Err(error) = store.forget_adopted(gone).await {
                tracing::warn!(%error, "which pods were another daemon's stays in the store");
            }
        });
    }

    /// A pod has left the runtime, or nothing of it is left. Where a new one waits for that, it goes on at once.
    pub(crate) async fn pod_ended(&mut self, cx: &mut Context<EdgedMsg>) {
        if self.is_waited_for {
            self.reconcile(cx).await;
        } else {
            self.reconcile_at(cx.now() + ENDS_TOGETHER, cx);
        }
    }

    /// Looks again though nothing changes: one timer at a time, unless an earlier one is needed.
    pub(crate) fn reconcile_at(&mut self, at: Moment, cx: &Context<EdgedMsg>) {
        let now = cx.now();
        if self.wakes.is_none_or(|wakes| wakes <= now || at < wakes) {
            self.wakes = Some(at);
            cx.after(at.since(now), EdgedMsg::Reconcile);
        }
    }

    /// Adds the pods that files describe, and asks for their mirrors.
    fn add_static_pods(&mut self, pods: &mut StoredPods, mirrors: &Mirrors, cx: &Context<EdgedMsg>) {
        let Some(deps) = self.deps.clone() else { return };
        let own = deps.static_pods.borrow();
        let described: Vec<Arc<ParsedPod>> = own.pods().map(|pod| Arc::clone(&pod.parsed)).collect();
        pods.valid.extend(described.iter().cloned());
        if !own.is_known {
            return;
        }
        let (requests, again) = self.mirrors.due(own.pods(), mirrors, cx.now());
        if let Some(pause) = again {
            self.reconcile_at(cx.now() + pause, cx);
        }
        let hashes: Vec<String> = described.iter().map(|pod| pod.id.uid.clone()).collect();
        let kept = (self.static_kept.as_ref() != Some(&hashes)).then(|| {
            self.static_kept = Some(hashes);
            own.pods().map(|pod| (pod.parsed.id.clone(), pod.json.clone())).collect()
        });
        drop(own);
        if requests.is_empty() && kept.is_none() {
            return;
        }
        cx.spawn(async move {
            if let Some(kept) = kept
                && let Err(error) = deps.store.keep_static_pods(kept).await
            {
                events::report_not_kept(&deps.env, "static pods", &error);
            }
            for request in requests {
                if let Err(error) = deps.report(&request).await {
                    events::report_not_kept(&deps.env, "mirror of a static pod", &error);
                }
            }
        });
    }

    /// Whether a new pod that does not fit to the Node waits for news of it.
    fn waits_for_node(&mut self, update: &PodUpdate, cx: &Context<EdgedMsg>) -> bool {
        match self.late_node.waits(&update.pod.id.uid, &update.intent, cx.now()) {
            Wait::No => false,
            Wait::GoesOn => true,
            Wait::Begins => {
                cx.after(PATIENCE, EdgedMsg::Reconcile);
                true
            }
        }
    }

    fn store_unreadable(
        &mut self,
        parsed: BTreeMap<u64, Arc<ParsedPod>>,
        error: &dyn std::fmt::Display,
        env: &Env,
    ) {
        events::store_unreadable(env, error);
        self.parsed = parsed;
        self.wanted = None;
    }

    /// Gives a pod that has none a worker.
    pub(crate) fn start_worker(&mut self, update: PodUpdate, cx: &mut Context<EdgedMsg>) {
        let Some(deps) = self.deps.clone() else { return };
        let name = PodWorker::name(&update.pod.id);
        let entry = Rc::new(PodEntry::new(update));
        let shared = Rc::clone(&entry);
        let worker =
            cx.child(name, PodWorker::policy(), move || PodWorker::new(Rc::clone(&deps), Rc::clone(&shared)));
        self.pods.add(entry, worker);
    }
}
