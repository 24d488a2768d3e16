//! The actors that an actor has started itself: they live and end with its incarnation.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{AbortHandle, Abortable, FutureExt as _, LocalBoxFuture};
use tokio::sync::{oneshot, watch};

use crate::command::Signals;
use crate::health::Meters;
use crate::registry::{Entry, Id, OnEnd, Registry, stop};
use crate::testing::PanicAt;
use crate::watch::WatchState;
use crate::{Address, Capacity, Env, Fault, Flow, Mailbox, Message, Name};

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

#[derive(Clone)]
struct Child {
    entry: Entry,
    task: AbortHandle,
    /// Its sender is gone when the child is.
    ended: watch::Receiver<()>,
}

/// The children of one incarnation.
#[derive(Clone)]
pub(crate) struct Children {
    env: Env,
    registry: Registry,
    parent: Id,
    parent_meters: Arc<Meters>,
    running: Rc<RefCell<BTreeMap<Name, Child>>>,
    signals: Rc<Signals>,
}

impl Children {
    pub(crate) fn new(
        env: Env,
        registry: Registry,
        parent: Id,
        parent_meters: &Arc<Meters>,
        signals: Rc<Signals>,
    ) -> Self {
        let parent_meters = Arc::clone(parent_meters);
        Children { env, registry, parent, parent_meters, running: Rc::default(), signals }
    }

    /// Starts a child, whose cell `create` makes of its parent, its mailbox and what is called at its end.
    pub(crate) fn start<M: Message, F: Future<Output = ()> + 'static>(
        &self,
        name: Name,
        capacity: Capacity,
        create: impl FnOnce((&Env, &Registry), Option<Id>, Mailbox<M>, OnEnd) -> (Entry, F),
    ) -> Address<M> {
        let mailbox = Mailbox::<M>::of_child(name.clone(), &self.parent_meters.full_name(), capacity);
        let address = Address::local(Arc::clone(&mailbox.local), Flow::Ask, self.env.clock());
        let earlier = self.running.borrow().get(&name).cloned();
        if earlier.as_ref().is_some_and(|child| !child.entry.ending.get()) {
            // The mailbox is dropped, and with it the address is closed.
            let reason = format!("started a second child `{}`", mailbox.meters.name());
            self.signals.fail(Fault::new(reason));
            return address;
        }
        self.registry.topology.borrow_mut().add_child(self.parent_meters.kind(), name.kind());
        let signals = Rc::clone(&self.signals);
        let on_end = move |gave_up: Option<String>| {
            if let Some(reason) = gave_up {
                signals.fail(Fault::new(reason));
            }
        };
        let (entry, cell) = create((&self.env, &self.registry), Some(self.parent), mailbox, Box::new(on_end));
        self.run(name, earlier, entry, cell.boxed_local());
        address
    }

    /// Runs a child's cell once the `earlier` one of its name has ended. Compiled once for all actors.
    fn run(&self, name: Name, earlier: Option<Child>, entry: Entry, cell: LocalBoxFuture<'static, ()>) {
        let (running, ended) = watch::channel(());
        let (task, registration) = AbortHandle::new_pair();
        let guard =
            ChildGuard { children: self.clone(), name: name.clone(), id: entry.id, _running: running };
        self.running.borrow_mut().insert(name, Child { entry, task, ended });
        let work = async move {
            if let Some(earlier) = earlier {
                has_ended(earlier.ended).await;
            }
            cell.await;
        };
        self.env.spawn(async move {
            let _guard = guard;
            let _ = Abortable::new(work, registration).await;
        });
    }

    /// The panic that is due with a task of their parent.
    pub(crate) fn panic_in_task(&self) -> Option<PanicAt> {
        self.registry.panics.due_in_task(self.parent_meters.name(), self.parent_meters.kind())
    }

    pub(crate) fn watch(&self) -> Arc<WatchState> {
        Arc::clone(&self.registry.watch)
    }

    pub(crate) fn has(&self, name: &Name) -> bool {
        self.running.borrow().get(name).is_some_and(|child| !child.entry.ending.get())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.running.borrow().is_empty()
    }

    /// Begins the stop at once; the future says how it ended and may be dropped.
    pub(crate) fn stop(
        &self,
        name: &Name,
        within: Duration,
    ) -> impl Future<Output = ChildStop> + 'static + use<> {
        let found = self.running.borrow().get(name).cloned();
        let (said, how) = oneshot::channel();
        if let Some(child) = found {
            child.entry.ending.set(true);
            let env = self.env.clone();
            self.env.spawn(async move {
                let how = if stop(&env, &child.entry, within).await {
                    ChildStop::InOrder
                } else {
                    child.task.abort();
                    ChildStop::Late
                };
                has_ended(child.ended).await;
                let _ = said.send(how);
            });
        }
        async move { how.await.unwrap_or(ChildStop::Unknown) }
    }

    /// Begins to stop all of them, side by side; those that are late are ended. The parent is told of each.
    pub(crate) fn stop_all(&self, within: Duration) {
        let names: Vec<Name> = self.running.borrow().keys().cloned().collect();
        for name in &names {
            drop(self.stop(name, within));
        }
    }

    /// Ends all of them where they stand: none takes another turn.
    pub(crate) fn end(&self) {
        for child in self.running.borrow().values() {
            child.task.abort();
        }
    }
}

async fn has_ended(mut ended: watch::Receiver<()>) {
    while ended.changed().await.is_ok() {}
}

/// Takes a child off the lists when its task has ended, in whichever way.
struct ChildGuard {
    children: Children,
    name: Name,
    id: Id,
    _running: watch::Sender<()>,
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        self.children.registry.leave(self.id);
        let mut running = self.children.running.borrow_mut();
        // Its successor of the same name stays.
        if running.get(&self.name).is_some_and(|child| child.entry.id == self.id) {
            running.remove(&self.name);
        }
        drop(running);
        self.children.signals.wake();
    }
}
