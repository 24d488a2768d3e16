//! What becomes of a list of all that the runtime and the disk have: pods that nobody wants any more end, and what was reported of pods
//! of which nothing is left is forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;

use beehive::Context;
use contract::edged::EdgedMsg;

use crate::actor::Edged;
use crate::events;
use crate::plan::{self, Orphan};
use crate::pod::entry::PodUpdate;
use crate::pod::id::PodId;
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::plan::Intent;
use crate::runtime::pods::ListedPod;

impl Edged {
    /// The runtime and the disk were listed as a whole.
    pub(crate) fn relisted(&mut self, cx: &mut Context<EdgedMsg>) {
        let listed = self.listing.borrow_mut().take();
        if let Some(listed) = &listed {
            self.forget_statuses(listed, cx);
            self.take_up(listed, cx);
        }
        let is_first = self.left.is_none();
        let left = self.pods.relisted(listed.unwrap_or_default());
        for (id, grace) in left.clone() {
            self.orphan(id, grace, cx);
        }
        self.import_done(&left, cx);
        self.left = Some(left);
        if is_first && self.is_waited_for {
            self.reconcile_at(cx.now(), cx);
        }
        // A runtime that answers again makes the node Ready now, not at the next tick.
        if !self.node.is_ready() {
            self.tick(cx);
        }
    }

    /// A store that was filled from another daemon's is as any other once all that is here is known: nothing is left that it could
    /// not read there.
    fn import_done(&self, left: &[(PodId, Option<u32>)], cx: &Context<EdgedMsg>) {
        let Some(wanted) = self.wanted.as_ref().filter(|_| self.store.is_imported() && self.store.is_whole())
        else {
            return;
        };
        if !left.iter().all(|(id, _)| wanted.contains(&id.uid) || self.pods.has(&id.uid)) {
            return;
        }
        let store = self.store.clone();
        cx.spawn(async move {
            if let Err(error) = store.import_done().await {
                tracing::warn!(%error, "that the import is done is not kept");
            }
        });
    }

    /// In a start that needs care those of which something runs are taken up as soon as that is known.
    fn take_up(&mut self, listed: &BTreeMap<String, ListedPod>, cx: &Context<EdgedMsg>) {
        if self.careful.takes_up() {
            self.run_here = listed.iter().filter(|(_, pod)| pod.runs).map(|(uid, _)| uid.clone()).collect();
            self.reconcile_at(cx.now(), cx);
        }
    }

    /// Forgets what was reported of pods of which nothing is here any more, neither in the store nor in the runtime. The next
    /// time does what fails now.
    fn forget_statuses(&self, listed: &BTreeMap<String, ListedPod>, cx: &Context<EdgedMsg>) {
        let Some(wanted) = self.wanted.as_ref().filter(|_| self.store.is_whole()) else { return };
        let workers = self.pods.intents();
        let here = wanted.iter().chain(listed.keys()).chain(workers.keys()).map(String::as_str).collect();
        for uid in self.store.reported.without(&here) {
            let store = self.store.clone();
            cx.spawn(async move {
                if let Err(error) = store.forget_status(&uid).await {
                    tracing::warn!(uid, %error, "the status of a pod that is gone stays in the store");
                }
            });
        }
    }

    /// Whether a static pod has to wait, as with a kubelet: until nothing runs of another of its name. One that an earlier run had begun
    /// and that nobody wants any more ends now; what is there nobody knows before the runtime was listed.
    pub(crate) fn waits_for_namesake(&mut self, id: &PodId, cx: &mut Context<EdgedMsg>) -> bool {
        let Some(left) = &self.left else { return true };
        for (other, grace) in left.clone().into_iter().filter(|(other, _)| other.is_namesake_of(id)) {
            if !self.pods.has(&other.uid) {
                self.orphan(other, grace, cx);
            }
        }
        self.pods.name_is_taken(id)
    }

    /// Something runs, or is left on the disk, of a pod that has no worker.
    fn orphan(&mut self, id: PodId, grace: Option<u32>, cx: &mut Context<EdgedMsg>) {
        match plan::orphan(&id.uid, self.wanted.as_ref(), self.store.absence_counts(&id.uid)) {
            Orphan::Keep => {}
            Orphan::KeepForLostRows => {
                events::orphan_kept(cx.env(), &id);
            }
            Orphan::Terminate => {
                events::orphan_terminated(cx.env(), &id);
                let pod = Arc::new(ParsedPod::left_over(id, grace));
                let (intent, in_cloud, mirror, resize_pending) = (Intent::Terminate, false, None, None);
                self.start_worker(PodUpdate { pod, intent, in_cloud, mirror, resize_pending }, cx);
            }
        }
    }
}
