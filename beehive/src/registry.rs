//! Who is in a hive, parents and children: what the inspector reads and the shutdown walks.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::Topology;
use crate::health::Meters;
use crate::supervisor::Order;

/// One actor's place. Numbers rise in the order of registration.
pub(crate) type Id = u64;

#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) id: Id,
    pub(crate) parent: Option<Id>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) queued: Rc<dyn Fn() -> usize>,
    pub(crate) orders: mpsc::Sender<Order>,
    /// Whether it has been told to stop, or has said that it will.
    pub(crate) ending: Rc<Cell<bool>>,
    /// Its sender is gone when the actor has ended.
    pub(crate) ended: watch::Receiver<()>,
}

/// Everybody in a hive. Stays on the hive's thread.
#[derive(Clone, Default)]
pub(crate) struct Registry {
    entries: Rc<RefCell<BTreeMap<Id, Entry>>>,
    next: Rc<Cell<Id>>,
    pub(crate) topology: Rc<RefCell<Topology>>,
}

impl Registry {
    pub(crate) fn next_id(&self) -> Id {
        let id = self.next.get();
        self.next.set(id + 1);
        id
    }

    pub(crate) fn enter(&self, entry: Entry) {
        self.entries.borrow_mut().insert(entry.id, entry);
    }

    pub(crate) fn leave(&self, id: Id) {
        self.entries.borrow_mut().remove(&id);
    }

    /// Those whose parent is `parent`, in the order of registration.
    pub(crate) fn of(&self, parent: Option<Id>) -> Vec<Entry> {
        self.entries.borrow().values().filter(|entry| entry.parent == parent).cloned().collect()
    }

    /// Everybody: each parent before its children, siblings in the order of registration.
    pub(crate) fn all(&self) -> Vec<Entry> {
        let mut out = Vec::new();
        let mut waiting = self.of(None);
        waiting.reverse();
        while let Some(entry) = waiting.pop() {
            let mut children = self.of(Some(entry.id));
            children.reverse();
            waiting.extend(children);
            out.push(entry);
        }
        out
    }
}
