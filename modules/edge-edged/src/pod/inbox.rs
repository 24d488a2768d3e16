//! How a pod's worker is spoken to.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::pod::parsed_pod::ParsedPod;
use crate::pod::plan::Intent;

/// What Edged wants of a pod.
#[derive(Debug, Clone)]
pub(crate) struct PodUpdate {
    pub(crate) pod: Arc<ParsedPod>,
    pub(crate) intent: Intent,
    /// Whether the cloud has the pod, so that reports about it have a reader.
    pub(crate) in_cloud: bool,
}

/// How a worker is spoken to: state and a bell, so that nothing queues up.
pub(crate) struct Inbox {
    assignment: RefCell<PodUpdate>,
    bell: Notify,
    objects_changed: Cell<bool>,
    runtime_changed: Cell<bool>,
    ids: RefCell<BTreeSet<String>>,
    left_runtime: Cell<bool>,
    ended: Cell<bool>,
    phase: RefCell<String>,
}

impl Inbox {
    pub(crate) fn new(assignment: PodUpdate) -> Self {
        Inbox {
            assignment: RefCell::new(assignment),
            bell: Notify::new(),
            objects_changed: Cell::new(false),
            runtime_changed: Cell::new(false),
            ids: RefCell::default(),
            left_runtime: Cell::new(false),
            ended: Cell::new(false),
            phase: RefCell::default(),
        }
    }

    /// Assigns anew; rings only when something changed.
    pub(crate) fn assign(&self, assignment: PodUpdate) {
        let mut held = self.assignment.borrow_mut();
        let metadata = |assignment: &PodUpdate| {
            let metadata = &assignment.pod.pod.metadata;
            (metadata.labels.clone(), metadata.annotations.clone())
        };
        if metadata(&held) != metadata(&assignment) {
            // Files may show them.
            self.objects_changed.set(true);
        }
        if *held.pod != *assignment.pod
            || held.intent != assignment.intent
            || held.in_cloud != assignment.in_cloud
        {
            *held = assignment;
            self.bell.notify_one();
        }
    }

    pub(crate) fn assignment(&self) -> PodUpdate {
        self.assignment.borrow().clone()
    }

    /// Objects in the store may have changed.
    pub(crate) fn objects_changed(&self) {
        self.objects_changed.set(true);
        self.bell.notify_one();
    }

    /// Something of the pod changed in the runtime.
    pub(crate) fn runtime_changed(&self) {
        self.runtime_changed.set(true);
        self.bell.notify_one();
    }

    /// Counts a container as the pod's from its making on: it may end before it is seen.
    pub(crate) fn learn(&self, id: &str) {
        self.ids.borrow_mut().insert(id.to_owned());
    }

    /// Whether a sandbox or container is the pod's.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.ids.borrow().contains(id)
    }

    /// Whether the runtime has nothing of the pod any more: what is left lies on the disk, and is in nobody's way.
    pub(crate) fn has_left_runtime(&self) -> bool {
        self.left_runtime.get() || self.ended.get()
    }

    /// The runtime has nothing of the pod any more.
    pub(crate) fn set_left_runtime(&self) {
        self.left_runtime.set(true);
    }

    /// Whether nothing of the pod is left.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Rung when there is something new.
    pub(crate) async fn rung(&self) {
        self.bell.notified().await;
    }

    /// Whether objects may have changed since the last question.
    pub(crate) fn take_objects_changed(&self) -> bool {
        self.objects_changed.take()
    }

    /// Whether the runtime told of something since the last question.
    pub(crate) fn take_runtime_changed(&self) -> bool {
        self.runtime_changed.take()
    }

    /// The sandboxes and containers of the pod as they were last seen.
    pub(crate) fn set_ids(&self, ids: BTreeSet<String>) {
        *self.ids.borrow_mut() = ids;
    }

    /// Nothing of the pod is left.
    pub(crate) fn set_ended(&self) {
        self.ended.set(true);
    }

    /// The phase that is told now.
    pub(crate) fn set_phase(&self, phase: &str) {
        phase.clone_into(&mut self.phase.borrow_mut());
    }

    /// The phase last told.
    pub(crate) fn phase(&self) -> String {
        self.phase.borrow().clone()
    }
}
