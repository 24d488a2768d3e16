//! The actors that an actor has started itself: they live and end with its incarnation.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{AbortHandle, Abortable};
use tokio::sync::{oneshot, watch};

use crate::cell::Signals;
use crate::registry::{Entry, Id, Registry, stop};
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

#[derive(Clone)]
struct Child {
    entry: Entry,
    life: AbortHandle,
    /// Its sender is gone when the child is.
    ended: watch::Receiver<()>,
}

/// The children of one incarnation.
#[derive(Clone)]
pub(crate) struct Children {
    env: Env,
    registry: Registry,
    parent: Id,
    parent_name: Arc<str>,
    alive: Rc<RefCell<BTreeMap<Name, Child>>>,
    signals: Rc<Signals>,
}

impl Children {
    pub(crate) fn new(
        env: Env,
        registry: Registry,
        parent: Id,
        parent_name: Arc<str>,
        signals: Rc<Signals>,
    ) -> Self {
        Children { env, registry, parent, parent_name, alive: Rc::default(), signals }
    }

    pub(crate) fn start<A: Actor>(
        &self,
        parent_kind: &'static str,
        name: Name,
        policy: Policy,
        factory: impl FnMut() -> A + 'static,
    ) -> Address<A::Message> {
        let mailbox = Mailbox::<A::Message>::of_child(name.clone(), &self.parent_name, policy.capacity);
        let address = Address::local(Arc::clone(&mailbox.local), Flow::Ask, self.env.clock());
        let earlier = self.alive.borrow().get(&name).cloned();
        if earlier.as_ref().is_some_and(|child| !child.entry.ending.get()) {
            // The mailbox is dropped, and with it the address is closed.
            let reason = format!("started a second child `{}`", mailbox.meters.name());
            self.signals.fail(Fault::new(reason));
            return address;
        }
        self.registry.topology.borrow_mut().add_child(parent_kind, name.kind());
        let signals = Rc::clone(&self.signals);
        let on_end = move |gave_up: Option<String>| {
            if let Some(reason) = gave_up {
                signals.fail(Fault::new(reason));
            }
        };
        let parent = Some(self.parent);
        let (entry, cell) =
            self.registry.enter(&self.env, parent, mailbox, policy, factory, Box::new(on_end));
        let (alive, ended) = watch::channel(());
        let (life, registration) = AbortHandle::new_pair();
        let gone = Gone { children: self.clone(), name: name.clone(), id: entry.id, _alive: alive };
        self.alive.borrow_mut().insert(name, Child { entry, life, ended });
        let life = async move {
            if let Some(earlier) = earlier {
                has_ended(earlier.ended).await;
            }
            cell.await;
        };
        self.env.spawn(async move {
            let _gone = gone;
            let _ = Abortable::new(life, registration).await;
        });
        address
    }

    pub(crate) fn has(&self, name: &Name) -> bool {
        self.alive.borrow().get(name).is_some_and(|child| !child.entry.ending.get())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.alive.borrow().is_empty()
    }

    /// Begins the stop at once; the future says how it ended and may be dropped.
    pub(crate) fn stop(
        &self,
        name: &Name,
        within: Duration,
    ) -> impl Future<Output = ChildStop> + 'static + use<> {
        let found = self.alive.borrow().get(name).cloned();
        let (said, how) = oneshot::channel();
        if let Some(child) = found {
            child.entry.ending.set(true);
            let env = self.env.clone();
            self.env.spawn(async move {
                let how = if stop(&env, &child.entry, within).await {
                    ChildStop::InOrder
                } else {
                    child.life.abort();
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
        let names: Vec<Name> = self.alive.borrow().keys().cloned().collect();
        for name in &names {
            drop(self.stop(name, within));
        }
    }

    /// Ends all of them where they stand: none takes another turn.
    pub(crate) fn end(&self) {
        for child in self.alive.borrow().values() {
            child.life.abort();
        }
    }
}

async fn has_ended(mut ended: watch::Receiver<()>) {
    while ended.changed().await.is_ok() {}
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
        let mut alive = self.children.alive.borrow_mut();
        // Its successor of the same name stays.
        if alive.get(&self.name).is_some_and(|child| child.entry.id == self.id) {
            alive.remove(&self.name);
        }
        drop(alive);
        self.children.signals.look();
    }
}
