//! A mailbox: two exactly bounded lanes, owned by the supervisor, kept across restarts.

use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;

use crate::Name;
use crate::address::LocalMailbox;
use crate::health::Meters;
use crate::trace::Letter;

/// Which lane a message takes. Control overtakes work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// The ordinary lane, in order of arrival.
    Work,
    /// The lane that is always emptied first: stop, reload, "the link is down".
    Control,
}

/// What an actor accepts: one enum per actor.
pub trait Message: Send + 'static {
    /// The variant's name, for logs and counters.
    fn name(&self) -> &'static str;
    /// The lane the variant takes.
    fn lane(&self) -> Lane {
        Lane::Work
    }
}

/// How many messages a mailbox holds, and why that many.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    /// Messages in the work lane.
    pub work: usize,
    /// Why this bound.
    pub reason: &'static str,
}

impl Capacity {
    /// A bound with its reason. At least 1.
    pub const fn new(work: usize, reason: &'static str) -> Self {
        Capacity { work: if work == 0 { 1 } else { work }, reason }
    }
}

/// 16: a handful of stops, reloads and link changes; more at once means that the actor is stuck.
pub(crate) const CONTROL_CAPACITY: usize = 16;

/// A mailbox before its actor exists. Made by [`crate::Hive::mailbox`], consumed by [`crate::Hive::supervise`].
pub struct Mailbox<M: Message> {
    pub(crate) name: Name,
    pub(crate) control: mpsc::Receiver<Letter<M>>,
    pub(crate) work: mpsc::Receiver<Letter<M>>,
    pub(crate) local: Arc<LocalMailbox<M>>,
    pub(crate) meters: Arc<Meters>,
}

impl<M: Message> Mailbox<M> {
    pub(crate) fn new(name: impl Into<Name>, capacity: Capacity) -> Self {
        let name = name.into();
        let full = name.to_string().into();
        Self::made(name, full, None, capacity)
    }

    pub(crate) fn of_child(name: Name, parent: &Arc<str>, capacity: Capacity) -> Self {
        let full = name.below(parent);
        Self::made(name, full, Some(Arc::clone(parent)), capacity)
    }

    fn made(name: Name, full: Arc<str>, parent: Option<Arc<str>>, capacity: Capacity) -> Self {
        let (control_tx, control) = mpsc::channel(CONTROL_CAPACITY);
        let (work_tx, work) = mpsc::channel(capacity.work);
        let meters = Arc::new(Meters::new(name.clone(), full, parent, capacity.work));
        let local = Arc::new(LocalMailbox {
            control: control_tx,
            work: work_tx,
            meters: Arc::clone(&meters),
            tap: OnceLock::new(),
        });
        Mailbox { name, control, work, local, meters }
    }

    /// Runs the tap, if there is one, right before the actor is handed the message.
    pub(crate) fn tap(&self, message: &M) {
        if let Some(tap) = self.local.tap.get() {
            tap(message);
        }
    }

    /// Refuses whatever comes from now on.
    pub(crate) fn close(&mut self) {
        self.control.close();
        self.work.close();
    }

    /// The actor's name.
    pub fn name(&self) -> &Name {
        &self.name
    }
}
