//! Who is in a hive, parents and children: what the inspector reads, the watchdog watches and the shutdown walks.

use std::cell::{Cell as Flag, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::cell::{Cell, OnEnd, Order};
use crate::health::Meters;
use crate::testing::Panics;
use crate::watchdog::Board;
use crate::{Actor, Env, Mailbox, Policy, Topology};

/// One actor's place. Numbers rise in the order of registration.
pub(crate) type Id = u64;

#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) id: Id,
    pub(crate) parent: Option<Id>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) queued: Rc<dyn Fn() -> usize>,
    pub(crate) orders: actix::Recipient<Order>,
    /// Whether it has been told to stop, or has said that it will.
    pub(crate) ending: Rc<Flag<bool>>,
}

/// A cell that has not started: what actix runs.
pub(crate) type Life<A> = actix::dev::ContextFut<Cell<A>, actix::Context<Cell<A>>>;

/// Everybody in a hive. Stays on the hive's thread.
#[derive(Clone, Default)]
pub(crate) struct Registry {
    entries: Rc<RefCell<BTreeMap<Id, Entry>>>,
    next: Rc<Flag<Id>>,
    pub(crate) topology: Rc<RefCell<Topology>>,
    pub(crate) board: Arc<Board>,
    pub(crate) panics: Rc<Panics>,
}

impl Registry {
    /// Makes a cell and enters it.
    pub(crate) fn enter<A: Actor>(
        &self,
        env: &Env,
        parent: Option<Id>,
        mailbox: Mailbox<A::Message>,
        policy: Policy,
        factory: impl FnMut() -> A + 'static,
        on_end: OnEnd,
    ) -> (Entry, Life<A>) {
        let id = self.next.get();
        self.next.set(id + 1);
        let ctx = actix::Context::<Cell<A>>::new();
        let lane = mailbox.local.work.clone();
        let entry = Entry {
            id,
            parent,
            meters: Arc::clone(&mailbox.meters),
            queued: Rc::new(move || lane.max_capacity() - lane.capacity()),
            orders: actix::AsyncContext::address(&ctx).recipient(),
            ending: Rc::default(),
        };
        self.board.add(id, Arc::clone(&mailbox.meters), policy.stuck_after);
        self.entries.borrow_mut().insert(id, entry.clone());
        let (env, ending) = (env.clone(), Rc::clone(&entry.ending));
        let cell = Cell::new(id, env, self.clone(), mailbox, policy, factory, ending, on_end);
        (entry, ctx.into_future(cell))
    }

    pub(crate) fn leave(&self, id: Id) {
        self.board.remove(id);
        self.entries.borrow_mut().remove(&id);
    }

    pub(crate) fn entry(&self, id: Id) -> Option<Entry> {
        self.entries.borrow().get(&id).cloned()
    }

    /// Those whose parent is `parent`, in the order of registration.
    pub(crate) fn of(&self, parent: Option<Id>) -> Vec<Entry> {
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
        if entry.orders.send(Order::Stop(done_tx, within)).await.is_ok() {
            // It is dropped when the actor has ended without a word.
            drop(done.await);
        }
    };
    let is_in_time = env.timeout(within, stop).await.is_some();
    if !is_in_time {
        tracing::warn!(
            actor = entry.meters.name(),
            within_ms = within.as_millis(),
            busy_with = entry.meters.name_of(entry.meters.mark()),
            "actor did not stop in time"
        );
    }
    is_in_time
}
