//! The actors that an actor has started itself: they live and end with its incarnation.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{AbortHandle, Abortable, join_all};
use tokio::sync::{mpsc, oneshot, watch};

use crate::registry::{Entry, Id, Registry};
use crate::supervisor::{End, ORDER_CAPACITY, Order, Supervisor};
use crate::{Actor, Address, Env, Fault, Flow, Mailbox, Name, Policy};

/// How [`crate::Context::stop_child`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildStop {
    /// The child has handled what was queued, and has stopped.
    InOrder,
    /// The time was up; the child was ended where it stood.
    Late,
    /// No child of that name was there.
    Unknown,
}

struct Child {
    entry: Entry,
    end: AbortHandle,
}

/// The children of one incarnation.
#[derive(Clone)]
pub(crate) struct Children {
    env: Env,
    registry: Registry,
    parent: Id,
    parent_name: Arc<str>,
    alive: Rc<RefCell<BTreeMap<Name, Child>>>,
    /// Where a child that has given up says so.
    faults: mpsc::Sender<Fault>,
}

impl Children {
    pub(crate) fn new(
        env: Env,
        registry: Registry,
        parent: Id,
        parent_name: Arc<str>,
        faults: mpsc::Sender<Fault>,
    ) -> Self {
        Children { env, registry, parent, parent_name, alive: Rc::default(), faults }
    }

    pub(crate) fn start<A: Actor>(
        &self,
        parent_kind: &'static str,
        name: Name,
        policy: Policy,
        factory: impl FnMut() -> A + 'static,
    ) -> Address<A::Message> {
        let mut mailbox = Mailbox::<A::Message>::of_child(name.clone(), &self.parent_name, policy.capacity);
        let address = Address::local(Arc::clone(&mailbox.local), Flow::Ask, self.env.clock());
        let earlier = self.alive.borrow().get(&name).map(|child| child.entry.clone());
        if earlier.as_ref().is_some_and(|entry| !entry.ending.get()) {
            mailbox.close();
            let reason = format!("started a second child `{}`", mailbox.meters.name());
            drop(self.faults.try_send(Fault::new(reason)));
            return address;
        }
        self.registry.topology.borrow_mut().add_child(parent_kind, name.kind());
        let (orders_tx, orders) = mpsc::channel(ORDER_CAPACITY);
        let lane = mailbox.local.work.clone();
        let (alive, ended) = watch::channel(());
        let ending = Rc::new(Cell::new(false));
        let entry = Entry {
            id: self.registry.next_id(),
            parent: Some(self.parent),
            meters: Arc::clone(&mailbox.meters),
            queued: Rc::new(move || lane.max_capacity() - lane.capacity()),
            orders: orders_tx,
            ending: Rc::clone(&ending),
            ended,
        };
        let supervisor = Supervisor {
            env: self.env.clone(),
            policy,
            mailbox,
            factory,
            orders,
            registry: self.registry.clone(),
            id: entry.id,
            ending,
        };
        let (end, registration) = AbortHandle::new_pair();
        let gone = Gone { children: self.clone(), name: name.clone(), id: entry.id, _alive: alive };
        self.registry.enter(entry.clone());
        self.alive.borrow_mut().insert(name, Child { entry, end });
        let faults = self.faults.clone();
        let life = async move {
            let gone = gone;
            if let Some(mut earlier) = earlier {
                // It ends when the other's sender is gone.
                while earlier.ended.changed().await.is_ok() {}
            }
            if let End::GaveUp(reason) = supervisor.run().await {
                drop(faults.try_send(Fault::new(reason)));
            }
            drop(gone);
        };
        self.env.spawn(async move {
            let _ = Abortable::new(life, registration).await;
        });
        address
    }

    pub(crate) fn has(&self, name: &Name) -> bool {
        self.alive.borrow().get(name).is_some_and(|child| !child.entry.ending.get())
    }

    /// Begins the stop at once; the future says how it ended and may be dropped.
    pub(crate) fn stop(
        &self,
        name: &Name,
        within: Duration,
    ) -> impl Future<Output = ChildStop> + 'static + use<> {
        let found = self.alive.borrow().get(name).map(|child| (child.entry.clone(), child.end.clone()));
        let (said, ended) = oneshot::channel();
        if let Some((entry, end)) = found {
            entry.ending.set(true);
            let env = self.env.clone();
            self.env.spawn(async move {
                let how = stop_entry(&env, &entry, within).await;
                if how == ChildStop::Late {
                    end.abort();
                }
                let _ = said.send(how);
            });
        }
        async move { ended.await.unwrap_or(ChildStop::Unknown) }
    }

    /// Stops all of them, side by side, and ends those that are late.
    pub(crate) async fn stop_all(&self, within: Duration) {
        let names: Vec<Name> = self.alive.borrow().keys().cloned().collect();
        join_all(names.iter().map(|name| self.stop(name, within))).await;
    }

    /// Ends all of them where they stand.
    pub(crate) fn end(&self) {
        for (_, child) in std::mem::take(&mut *self.alive.borrow_mut()) {
            child.end.abort();
        }
    }
}

async fn stop_entry(env: &Env, entry: &Entry, within: Duration) -> ChildStop {
    let (done_tx, done) = oneshot::channel();
    let stop = async {
        if entry.orders.send(Order::Stop(done_tx, within)).await.is_ok() {
            drop(done.await);
        }
    };
    if env.timeout(within, stop).await.is_some() {
        return ChildStop::InOrder;
    }
    tracing::warn!(actor = entry.meters.name(), within_ms = within.as_millis(), "actor did not stop in time");
    ChildStop::Late
}

/// Takes a child out of the books when its task has ended, in whichever way.
struct Gone {
    children: Children,
    name: Name,
    id: Id,
    _alive: watch::Sender<()>,
}

impl Drop for Gone {
    fn drop(&mut self) {
        self.children.registry.leave(self.id);
        // Its successor of the same name stays.
        if let Ok(mut alive) = self.children.alive.try_borrow_mut()
            && alive.get(&self.name).is_some_and(|child| child.entry.id == self.id)
        {
            alive.remove(&self.name);
        }
    }
}
