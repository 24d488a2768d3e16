//! Edged's part: it holds pods back while its start needs care.

use std::collections::{BTreeMap, BTreeSet};

use beehive::Context;
use contract::edged::EdgedMsg;

use crate::actor::Edged;
use crate::events;
use crate::pod::entry::PodUpdate;
use crate::pod::plan::Intent;
use crate::pod::recorder::EventType;
use crate::runs::CarefulStart;
use crate::runs::care::Release;
use crate::runs::plan;

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
            let text = careful(ends);
            if let Some(deps) = &self.deps {
                deps.node_event(EventType::Warning, "CarefulStart", &text);
            }
        }
        self.run = record;
    }

    /// The pods among those that have no worker yet which are not to be begun now. What is to end is never held.
    pub(crate) async fn hold_back(
        &mut self,
        updates: &[PodUpdate],
        before: &BTreeMap<String, Intent>,
        cx: &Context<EdgedMsg>,
    ) -> BTreeSet<String> {
        let is_new = |update: &&PodUpdate| {
            let is_to_end = update.intent == Intent::Terminate || update.pod.is_terminating();
            !is_to_end && !before.contains_key(&update.pod.id.uid)
        };
        let wait: Vec<String> =
            updates.iter().filter(is_new).map(|update| update.pod.id.uid.clone()).collect();
        let kept = self.run.clone();
        let Release { held, begun, again } = self.careful.release(&mut self.run, &wait, cx.now());
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

    /// Those that are held are told why, once.
    fn tell_held(&mut self, updates: &[PodUpdate], held: &BTreeSet<String>, cx: &Context<EdgedMsg>) {
        let Some(deps) = self.deps.clone() else { return };
        for id in updates.iter().map(|update| &update.pod.id).filter(|id| held.contains(&id.uid)) {
            let Some(text) = self.why_held(&id.uid) else { continue };
            if !self.told_held.insert(id.uid.clone()) {
                continue;
            }
            deps.event(id, EventType::Warning, "HeldBack", &text);
            if self.run.ends_by(&id.uid).is_some() {
                events::pod_held_back(cx.env(), id, &text);
                let text = format!("Pod {}: {text}", id.namespaced_name());
                deps.node_event(EventType::Warning, "PodHeldBack", &text);
            }
        }
    }

    /// What is told of a pod that is held.
    fn why_held(&self, uid: &str) -> Option<String> {
        if let Some(ends) = self.run.ends_by(uid) {
            let minutes = plan::pause(ends).as_secs() / 60;
            return Some(format!(
                "EdgeCore ended by itself each time soon after it had begun this pod (found {ends} times): it is tried again {minutes} minutes after EdgeCore's start. One that replaces it, and this one after a restart of EdgeCore by hand, begin at once"
            ));
        }
        if self.run.is_suspect(uid) {
            return Some(
                "the pod is one of those that were begun before EdgeCore ended by itself: half of them begin at a time, until it is known whether it was one"
                    .to_owned(),
            );
        }
        self.run.needs_care().map(careful)
    }
}

/// Why pods of a run wait that are under no suspicion.
fn careful(ends: u32) -> String {
    format!(
        "EdgeCore was ended {ends} times in a row soon after its start, and not by anybody's word: pods begin when the cloud was heard, or after 2 minutes, a few at a time"
    )
}
