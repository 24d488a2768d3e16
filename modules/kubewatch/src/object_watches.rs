//! Watches of single objects by their names, as kubelets watch the Secrets and config maps of their pods: one for each
//! that is needed, however many need it, and none for one that nobody needs any more.
//!
//! Nothing is listed that was not named: neither a right to all Secrets nor the memory for them is needed.

mod reflector;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use beehive::{Context, Env, Message};
use contract::ids::is_dns1123_subdomain;
use contract::{NodeName, Object, ObjectKey};
use futures::FutureExt;
use futures::future::{AbortHandle, Abortable, LocalBoxFuture};
use kube::Client;
use tokio::sync::{Notify, Semaphore};

use crate::budget::{Budget, Charge, OBJECT_BYTES};
use crate::{ReadAs, WatchedKind, events};

/// 10,000 objects at once. What is beyond waits until others are needed no more.
pub const NEEDS_MAX: usize = 10_000;
/// 128 watches at once: each holds a connection to the API server. What is beyond is asked for now and then instead, as a
/// kubelet does it that does not watch, until a watch ends.
pub const WATCHES_MAX: usize = 128;
/// 32 lists at once: a CloudCore that starts does not fall upon the API server with all of them.
const LISTS_AT_ONCE: usize = 32;

/// What is known of an object that somebody needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// The API server has not answered yet.
    Unknown,
    /// It is not there, or may not be read.
    Absent,
    /// It is there.
    Present,
}

/// One that is needed.
struct Entry {
    /// Nodes that need it, for whoever reads as one of them. Never empty.
    readers: Vec<NodeName>,
    presence: Presence,
    /// Whether what is known is as the API server has it: its watch has listed and did not break off since.
    is_whole: bool,
    object: Option<Arc<Object>>,
    /// Why it could not be read the last time, or found no room.
    unreadable: Option<String>,
    /// What the object takes of the budget.
    charge: Charge,
    /// Ends a pause after a refusal: there are other nodes to read as.
    again: Rc<Notify>,
    /// None while it waits for room, and none for a name that nothing can have.
    task: Option<AbortHandle>,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<ObjectKey, Entry>,
    /// Those without a task, for want of room.
    parked: BTreeSet<ObjectKey>,
    running: usize,
    moved: BTreeSet<ObjectKey>,
    is_notified: bool,
}

type NotifyChange = Box<dyn Fn() -> LocalBoxFuture<'static, ()>>;

/// What the tasks share.
struct Reflectors {
    client: Client,
    read_as: ReadAs,
    env: Env,
    kinds: Vec<WatchedKind>,
    budget: Budget,
    held: RefCell<State>,
    lists: Semaphore,
    watches: Semaphore,
    notify_change: NotifyChange,
}

/// The watches of what is needed. They end with it.
pub struct ObjectWatches {
    reflectors: Rc<Reflectors>,
    most: usize,
}

impl ObjectWatches {
    /// None yet, of objects of these kinds, which take what they hold of this budget. The actor is told what `notify_change` makes when something is answered or moves, once
    /// until it calls [`ObjectWatches::take_moved`].
    pub fn new<M: Message>(
        client: &Client,
        read_as: ReadAs,
        kinds: &[WatchedKind],
        budget: &Budget,
        cx: &Context<M>,
        notify_change: fn() -> M,
    ) -> ObjectWatches {
        let myself = cx.myself();
        let notify_change: NotifyChange = Box::new(move || {
            let myself = myself.clone();
            // A full mailbox is full of other things: the watch waits with it. It refuses while the daemon ends.
            async move {
                let _ = myself.tell(notify_change()).await;
            }
            .boxed_local()
        });
        let most = (NEEDS_MAX, WATCHES_MAX);
        ObjectWatches::with(client, read_as, (kinds, budget), cx.env(), notify_change, most)
    }

    fn with(
        client: &Client,
        read_as: ReadAs,
        (kinds, budget): (&[WatchedKind], &Budget),
        env: &Env,
        notify_change: NotifyChange,
        (most, watches): (usize, usize),
    ) -> ObjectWatches {
        let reflectors = Reflectors {
            client: client.clone(),
            read_as,
            env: env.clone(),
            kinds: kinds.to_vec(),
            budget: budget.clone(),
            held: RefCell::default(),
            lists: Semaphore::new(LISTS_AT_ONCE),
            watches: Semaphore::new(watches),
            notify_change,
        };
        ObjectWatches { reflectors: Rc::new(reflectors), most }
    }

    /// These nodes need the object, a few of them if they are many; without any, nobody does and its watch ends.
    pub fn want(&self, key: &ObjectKey, readers: Vec<NodeName>) {
        let mut held = self.reflectors.held.borrow_mut();
        if readers.is_empty() {
            self.end(&mut held, key);
        } else if let Some(entry) = held.entries.get_mut(key) {
            if entry.readers != readers {
                entry.readers = readers;
                entry.again.notify_one();
            }
        } else {
            let entry = Entry {
                readers,
                presence: Presence::Unknown,
                is_whole: false,
                object: None,
                unreadable: None,
                charge: Charge::default(),
                again: Rc::new(Notify::new()),
                task: None,
            };
            held.entries.insert(key.clone(), entry);
            self.begin(&mut held, key);
        }
    }

    fn begin(&self, held: &mut State, key: &ObjectKey) {
        let Some(entry) = held.entries.get_mut(key) else { return };
        let what = self.reflectors.kinds.iter().find(|what| what.group_resource == key.resource).copied();
        // A pod may name anything; what is no name nothing has, and in a selector it would say something else.
        let is_name = is_dns1123_subdomain(&key.name) && is_dns1123_subdomain(&key.namespace);
        let Some(what) = what.filter(|_| is_name) else {
            (entry.presence, entry.is_whole) = (Presence::Absent, true);
            held.moved.insert(key.clone());
            return;
        };
        if held.running >= self.most {
            events::too_many_objects(&self.reflectors.env, key, self.most);
            (entry.presence, entry.is_whole) = (Presence::Absent, true);
            held.moved.insert(key.clone());
            held.parked.insert(key.clone());
            return;
        }
        held.running += 1;
        let (handle, registration) = AbortHandle::new_pair();
        entry.task = Some(handle);
        let (reflectors, again, key) = (Rc::clone(&self.reflectors), Rc::clone(&entry.again), key.clone());
        let task = Abortable::new(
            async move { reflector::keep(&reflectors, &key, &what, &again).await },
            registration,
        );
        self.reflectors.env.spawn(async move {
            let _ = task.await;
        });
    }

    fn end(&self, held: &mut State, key: &ObjectKey) {
        held.moved.remove(key);
        held.parked.remove(key);
        let Some(task) = held.entries.remove(key).and_then(|entry| entry.task) else { return };
        task.abort();
        held.running -= 1;
        if let Some(next) = held.parked.pop_first() {
            self.begin(held, &next);
        }
    }

    /// What was answered, came, changed or went since the last call.
    pub fn take_moved(&self) -> BTreeSet<ObjectKey> {
        let mut held = self.reflectors.held.borrow_mut();
        held.is_notified = false;
        std::mem::take(&mut held.moved)
    }

    /// Whether [`ObjectWatches::take_moved`] has anything: some are answered when they are asked for, and nobody is told.
    pub fn has_moved(&self) -> bool {
        !self.reflectors.held.borrow().moved.is_empty()
    }

    /// What is known of it.
    pub fn presence(&self, key: &ObjectKey) -> Presence {
        self.reflectors.held.borrow().entries.get(key).map_or(Presence::Unknown, |entry| entry.presence)
    }

    /// Whether what is known of it is as the API server has it.
    pub fn is_whole(&self, key: &ObjectKey) -> bool {
        self.reflectors.held.borrow().entries.get(key).is_some_and(|entry| entry.is_whole)
    }

    /// The object, if it is there.
    pub fn object(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        self.reflectors.held.borrow().entries.get(key)?.object.clone()
    }

    /// How many are needed, and how many of those are not as the API server has them.
    pub fn counts(&self) -> (usize, usize) {
        let held = self.reflectors.held.borrow();
        (held.entries.len(), held.entries.values().filter(|entry| !entry.is_whole).count())
    }
}

impl Drop for ObjectWatches {
    fn drop(&mut self) {
        for entry in self.reflectors.held.borrow().entries.values() {
            if let Some(task) = &entry.task {
                task.abort();
            }
        }
    }
}

impl Reflectors {
    /// The API server has told it whole: the object, or that it is not there. Answers whether there was room for it.
    async fn told(&self, key: &ObjectKey, object: Option<Object>) -> bool {
        let charged = match &object {
            Some(object) => {
                let held = self.held.borrow();
                let before = held.entries.get(key).map(|entry| &entry.charge);
                self.budget.take(key, OBJECT_BYTES + object.json.len(), before)
            }
            None => Ok(Charge::default()),
        };
        let charge = match charged {
            Ok(charge) => charge,
            Err(why) => {
                let uid = object.map(|object| object.uid);
                self.unreadable(key, uid.as_deref(), &why).await;
                return false;
            }
        };
        let presence = if object.is_some() { Presence::Present } else { Presence::Absent };
        self.put(key, |entry| {
            let same = match (&entry.object, &object) {
                (Some(before), Some(now)) => before.uid == now.uid && before.content_hash == now.content_hash,
                (None, None) => entry.presence == presence,
                _ => false,
            };
            entry.is_whole = true;
            entry.unreadable = None;
            if !same {
                entry.object = object.map(Arc::new);
                entry.charge = charge;
            }
            entry.presence = presence;
            !same
        })
        .await;
        true
    }

    /// It may not be read. What was read before stays: that the right was withdrawn says nothing of the object.
    async fn refused(&self, key: &ObjectKey) {
        self.put(key, |entry| {
            let is_news = entry.presence == Presence::Unknown;
            if is_news {
                entry.presence = Presence::Absent;
            }
            entry.is_whole = true;
            is_news
        })
        .await;
    }

    /// It is there and cannot be read. What was read of it before stays, unless it is another object now.
    async fn unreadable(&self, key: &ObjectKey, uid: Option<&str>, why: &str) {
        self.put(key, |entry| {
            if entry.unreadable.as_deref() != Some(why) {
                events::object_unreadable(&self.env, key, why);
                entry.unreadable = Some(why.to_owned());
            }
            entry.is_whole = true;
            let is_same = entry.object.as_ref().is_some_and(|before| Some(before.uid.as_str()) == uid);
            if !is_same {
                let before = (entry.object.take().is_some(), entry.presence);
                entry.presence = Presence::Absent;
                entry.charge = Charge::default();
                return before.0 || before.1 == Presence::Unknown;
            }
            false
        })
        .await;
    }

    fn broken(&self, key: &ObjectKey) {
        if let Some(entry) = self.held.borrow_mut().entries.get_mut(key) {
            entry.is_whole = false;
        }
    }

    async fn put(&self, key: &ObjectKey, change: impl FnOnce(&mut Entry) -> bool) {
        let is_due = {
            let mut held = self.held.borrow_mut();
            let Some(entry) = held.entries.get_mut(key) else { return };
            if !change(entry) {
                return;
            }
            held.moved.insert(key.clone());
            !std::mem::replace(&mut held.is_notified, true)
        };
        if is_due {
            (self.notify_change)().await;
        }
    }

    fn readers(&self, key: &ObjectKey) -> Vec<NodeName> {
        self.held.borrow().entries.get(key).map(|entry| entry.readers.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
