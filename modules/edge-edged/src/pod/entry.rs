//! What Edged wants of a pod, shared with the pod's worker.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::PodStatus;

use crate::pod::parsed_pod::ParsedPod;
use crate::pod::plan::Intent;
use crate::pod::resize_policy::Pending;
use crate::static_pods::mirrors::Mirror;

/// What Edged wants of a pod.
#[derive(Debug, Clone)]
pub(crate) struct PodUpdate {
    pub(crate) pod: Arc<ParsedPod>,
    pub(crate) intent: Intent,
    /// Whether the cloud has the pod, so that reports about it have a reader. Of a static pod: whether it has its mirror.
    pub(crate) in_cloud: bool,
    /// A static pod's mirror: its status is reported under that one's uid.
    pub(crate) mirror: Option<Mirror>,
    /// Why the pod is not given the resources that it asks for now; `pod` has what it is given.
    pub(crate) resize_pending: Option<Pending>,
}

impl PodUpdate {
    /// Whether `newer` asks for the same.
    fn is_same(&self, newer: &PodUpdate) -> bool {
        *self.pod == *newer.pod
            && self.intent == newer.intent
            && self.in_cloud == newer.in_cloud
            && self.mirror == newer.mirror
            && self.resize_pending == newer.resize_pending
    }

    /// Under which uid the cloud has the pod.
    pub(crate) fn cloud_uid(&self) -> Option<&str> {
        if self.pod.is_static {
            self.mirror.as_ref().map(|mirror| mirror.uid.as_str())
        } else {
            Some(&self.pod.id.uid).filter(|_| self.in_cloud).map(String::as_str)
        }
    }

    /// The status that the cloud has.
    pub(crate) fn cloud_status(&self) -> Option<&PodStatus> {
        match &self.mirror {
            Some(mirror) => mirror.status.as_ref(),
            None => self.pod.cloud_status(),
        }
    }

    /// Whether volumes may have to change: labels and annotations show in files of a downwardAPI volume, and an ephemeral
    /// container may mount what nobody had to do with before.
    pub(crate) fn volumes_may_differ(&self, newer: &PodUpdate) -> bool {
        let (old, new) = (&self.pod.pod.metadata, &newer.pod.pod.metadata);
        let debugging = |update: &PodUpdate| update.pod.spec().ephemeral_containers.clone();
        old.labels != new.labels || old.annotations != new.annotations || debugging(self) != debugging(newer)
    }
}

/// Why and how a pod has to go that should run.
#[derive(Debug, Clone)]
pub(crate) struct Eviction {
    /// The reason that its status gives, and its words.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// How long its containers have to end.
    pub(crate) grace: Duration,
}

/// A pod as Edged and its worker share it. Only the newest update counts, so it is kept here and read whenever the
/// worker syncs; what travels through the worker's mailbox says that there is something new. A worker that is
/// restarted starts from it.
pub(crate) struct PodEntry {
    update: RefCell<PodUpdate>,
    eviction: RefCell<Option<Eviction>>,
    missed: Cell<bool>,
    /// Somebody on the node asks for its containers to begin again.
    is_restart_asked: Cell<bool>,
    /// Nothing of the pod runs, as far as its worker has seen; `false` before it has looked.
    is_quiet: Cell<bool>,
    phase: RefCell<String>,
    starts: Cell<u32>,
}

impl PodEntry {
    pub(crate) fn new(update: PodUpdate) -> Self {
        PodEntry {
            update: RefCell::new(update),
            eviction: RefCell::default(),
            missed: Cell::new(false),
            is_restart_asked: Cell::new(false),
            is_quiet: Cell::new(false),
            phase: RefCell::default(),
            starts: Cell::new(0),
        }
    }

    /// Takes a newer update. False when it asks for the same as the one before.
    pub(crate) fn set_update(&self, newer: PodUpdate) -> bool {
        let mut update = self.update.borrow_mut();
        if update.is_same(&newer) {
            return false;
        }
        *update = newer;
        true
    }

    pub(crate) fn update(&self) -> PodUpdate {
        self.update.borrow().clone()
    }

    /// The pod has to go because the node is short of something.
    pub(crate) fn set_eviction(&self, eviction: Eviction) {
        self.eviction.replace(Some(eviction));
    }

    pub(crate) fn eviction(&self) -> Option<Eviction> {
        self.eviction.borrow().clone()
    }

    /// The pod need not go any more.
    pub(crate) fn clear_eviction(&self) {
        self.eviction.replace(None);
    }

    /// The worker says whether nothing of the pod runs. True when that is new.
    pub(crate) fn set_quiet(&self, is_quiet: bool) -> bool {
        self.is_quiet.replace(is_quiet) != is_quiet
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.is_quiet.get()
    }

    /// A message found the worker's mailbox full. Whatever it handles next, everything may have changed.
    pub(crate) fn set_missed(&self) {
        self.missed.set(true);
    }

    /// Whether a message was missed since the last question.
    pub(crate) fn take_missed(&self) -> bool {
        self.missed.take()
    }

    /// Somebody on the node asks for what runs of the pod to begin again.
    pub(crate) fn ask_restart(&self) {
        self.is_restart_asked.set(true);
    }

    /// Whether somebody asked for that since the last question.
    pub(crate) fn take_restart(&self) -> bool {
        self.is_restart_asked.take()
    }

    /// The phase that is reported now.
    pub(crate) fn set_phase(&self, phase: &str) {
        phase.clone_into(&mut self.phase.borrow_mut());
    }

    /// The phase last reported.
    pub(crate) fn phase(&self) -> String {
        self.phase.borrow().clone()
    }

    /// Counts an incarnation of the worker, and answers how many there were before.
    pub(crate) fn count_start(&self) -> u32 {
        self.starts.replace(self.starts.get().saturating_add(1))
    }
}
