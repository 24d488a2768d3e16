//! Edged's part: it holds pods back while its start needs care.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;

use beehive::Context;
use contract::edged::EdgedMsg;

use crate::actor::Edged;
use crate::events;
use crate::plan::StoredPods;
use crate::pod::admission::History;
use crate::pod::entry::PodUpdate;
use crate::pod::plan::Intent;
use crate::pod::recorder::EventType;
use crate::runs::care::{Pods, Release};
use crate::runs::{CarefulStart, Why, why};

impl Edged {
    /// Reads how the runs before ended. A store that cannot be read says so when the pods are read from it.
    pub(crate) async fn recall_runs(&mut self, cx: &Context<EdgedMsg>) {
        let store = self.store.clone();
        let read = cx.env().blocking(move || store.run_record()).await;
        let mut record = read.ok().and_then(Result::ok).flatten().unwrap_or_default();
        // Where it is the same run, and Edged alone began anew, that one waits once more.
        record.trial = None;
        self.careful = CarefulStart::of(&record, cx.now());
        if let Some(ends) = record.needs_care() {
            events::careful_start(cx.env(), ends);
            let text = why::of_start(ends, record.suspects());
            if let Some(deps) = &self.deps {
                deps.node_event(EventType::Warning, "CarefulStart", &text);
            }
        }
        self.run = record;
    }

    /// The pods among those that have no worker yet which are not to be begun now. What is to end, or has ended, is never held.
    pub(crate) async fn hold_back(
        &mut self,
        updates: &[PodUpdate],
        stored: &StoredPods,
        before: &BTreeMap<String, Intent>,
        cx: &Context<EdgedMsg>,
    ) -> BTreeSet<String> {
        let is_there = |update: &&PodUpdate| {
            let is_to_end = update.intent == Intent::Terminate || update.pod.is_terminating();
            !is_to_end && stored.history(&update.pod) != History::Ended
        };
        let there = updates.iter().filter(is_there).map(|update| update.pod.id.uid.clone());
        let wait = there.clone().filter(|uid| !before.contains_key(uid)).collect();
        let are_all = self.deps.as_ref().is_some_and(|deps| deps.static_pods.borrow().is_known);
        let pods = Pods { wait, there: there.collect(), run: self.run_here.clone(), are_all };
        let kept = self.run.clone();
        let needed_care = self.careful.needs_care();
        let Release { held, begun, again } = self.careful.release(&mut self.run, &pods, cx.now());
        if needed_care && !self.careful.needs_care() {
            self.tell_care_is_over(cx);
        }
        if let Some(at) = again {
            self.reconcile_at(at, cx);
        }
        // They are begun whether it is kept or not: what is lost is who it was.
        if self.run != kept
            && let Err(error) = self.store.keep_run(&self.run).await
        {
            events::report_not_kept(cx.env(), "the pods that are begun", &error.reason);
        }
        if !begun.is_empty() {
            events::pods_begin_with_care(cx.env(), begun.len(), held.len());
        }
        self.tell_held(updates, &held, cx);
        held
    }

    fn tell_care_is_over(&self, cx: &Context<EdgedMsg>) {
        events::careful_start_over(cx.env());
        if let Some(deps) = &self.deps {
            deps.node_event(EventType::Normal, "CarefulStartOver", why::CARE_IS_OVER);
        }
    }

    /// Those that are held are told why, and once more when that is another reason.
    fn tell_held(&mut self, updates: &[PodUpdate], held: &BTreeSet<String>, cx: &Context<EdgedMsg>) {
        self.told_held.retain(|uid, _| held.contains(uid));
        let Some(deps) = self.deps.clone() else { return };
        let now = cx.now();
        // What runs goes on as soon as the runtime was listed, a moment after the start: nobody is held before.
        let may_be_taken_up = self.left.is_none() && self.careful.takes_up();
        for id in updates.iter().map(|update| &update.pod.id).filter(|id| held.contains(&id.uid)) {
            let Some(why) = self.careful.why(&self.run, &id.uid, now) else { continue };
            if may_be_taken_up && !matches!(why, Why::Culprit { .. }) {
                continue;
            }
            let before = self.told_held.get(&id.uid);
            // That its turn comes in a moment is no news to one that was told why it waits.
            if before.is_some_and(|told| *told == discriminant(&why) || matches!(why, Why::Turn { .. })) {
                continue;
            }
            self.told_held.insert(id.uid.clone(), discriminant(&why));
            let text = why.words(self.run.needs_care().unwrap_or_default());
            deps.event(id, EventType::Warning, "HeldBack", &text);
            if matches!(why, Why::Culprit { .. }) {
                events::pod_held_back(cx.env(), id, &text);
                let text = format!("Pod {}: {text}", id.namespaced_name());
                deps.node_event(EventType::Warning, "PodHeldBack", &text);
            }
        }
    }
}
