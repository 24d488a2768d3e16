//! Who is in a hive, parents and children: what the inspector reads, the watchdog watches and the shutdown walks.

use std::cell::{Cell as Flag, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::command::Command;
use crate::health::Meters;
use crate::testing::Panics;
pub(crate) use crate::watch::Id;
use crate::watch::WatchState;
use crate::{Env, Mailbox, Message, Topology};

/// Called once, when the cell of an actor has ended: with a reason when its restart budget is spent.
pub(crate) type OnEnd = Box<dyn FnOnce(Option<String>)>;

#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) id: Id,
    pub(crate) parent: Option<Id>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) queued: Rc<dyn Fn() -> usize>,
    pub(crate) commands: actix::Recipient<Command>,
    /// Whether it has been told to stop, or has said that it will.
    pub(crate) ending: Rc<Flag<bool>>,
}

/// Everybody in a hive. Stays on the hive's thread.
#[derive(Clone, Default)]
pub(crate) struct Registry {
    entries: Rc<RefCell<BTreeMap<Id, Entry>>>,
    next: Rc<Flag<Id>>,
    pub(crate) topology: Rc<RefCell<Topology>>,
    pub(crate) watch: Arc<WatchState>,
    pub(crate) panics: Rc<Panics>,
}

impl Registry {
    /// Gives the actor of `mailbox` its place.
    pub(crate) fn enter<M: Message>(
        &self,
        parent: Option<Id>,
        mailbox: &Mailbox<M>,
        stuck_after: Duration,
        commands: actix::Recipient<Command>,
    ) -> Entry {
        let id = self.next.get();
        self.next.set(id + 1);
        let lane = mailbox.local.work.clone();
        let entry = Entry {
            id,
            parent,
            meters: Arc::clone(&mailbox.meters),
            queued: Rc::new(move || lane.max_capacity() - lane.capacity()),
            commands,
            ending: Rc::default(),
        };
        self.watch.add(id, Arc::clone(&mailbox.meters), stuck_after);
        self.entries.borrow_mut().insert(id, entry.clone());
        entry
    }

    pub(crate) fn leave(&self, id: Id) {
        self.watch.remove(id);
        self.entries.borrow_mut().remove(&id);
    }

    pub(crate) fn entry(&self, id: Id) -> Option<Entry> {
        self.entries.borrow().get(&id).cloned()
    }

    /// Those whose parent is `parent`, in the order of registration.
    pub(crate) fn children_of(&self, parent: Option<Id>) -> Vec<Entry> {
        self.entries.borrow().values().filter(|entry| entry.parent == parent).cloned().collect()
    }

    /// Everybody: each parent before its children, siblings in the order of registration.
    pub(crate) fn all(&self) -> Vec<Entry> {
        let mut below: BTreeMap<Option<Id>, Vec<Entry>> = BTreeMap::new();
        for entry in self.entries.borrow().values() {
            below.entry(entry.parent).or_default().push(entry.clone());
        }
        let mut out = Vec::new();
        let mut waiting = below.remove(&None).unwrap_or_default();
        waiting.reverse();
        while let Some(entry) = waiting.pop() {
            let children = below.remove(&Some(entry.id)).unwrap_or_default();
            waiting.extend(children.into_iter().rev());
            out.push(entry);
        }
        out
    }
}

/// Stops the actor of `entry` in order; `false` when `within` has passed first.
pub(crate) async fn stop(env: &Env, entry: &Entry, within: Duration) -> bool {
    let (done_tx, done) = tokio::sync::oneshot::channel();
    let stop = async {
        if entry.commands.send(Command::Stop(done_tx, within)).await.is_ok() {
            // It is dropped when the actor has ended without a word.
            drop(done.await);
        }
    };
    let is_in_time = env.timeout(within, stop).await.is_some();
    if !is_in_time {
        tracing::warn!(
            actor = entry.meters.name(),
            within_ms = within.as_millis(),
            busy_with = entry.meters.name_of(entry.meters.current_job()),
            "actor did not stop in time"
        );
    }
    is_in_time
}
