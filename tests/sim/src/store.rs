//! The API's objects in memory, with their whole history.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use kubeapi::{Change, Changes, Item, Key, Page, Range, Store, StoreError, WatchError, Write, WriteError};
use serde_json::Value;
use tokio::sync::broadcast;

use crate::trace::Trace;
use crate::world::{Violations, note};

/// 65,536 changes that a watcher may be behind: more than a run makes.
const BEHIND_MAX: usize = 1 << 16;

/// See the module.
pub(crate) struct Memory {
    state: Mutex<State>,
    live: broadcast::Sender<Change>,
    trace: Trace,
    violations: Violations,
}

#[derive(Default)]
struct State {
    revision: u64,
    items: BTreeMap<Key, Item>,
    history: Vec<Change>,
}

impl Memory {
    pub(crate) fn new(trace: Trace, violations: Violations) -> Memory {
        Memory { state: Mutex::default(), live: broadcast::channel(BEHIND_MAX).0, trace, violations }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every write is noted, and none may bring back what a newer report has replaced.
    fn judge(&self, change: &Change) {
        let Change { revision, key, before, after } = change;
        self.trace.note("api", format_args!("{revision} {key:?} {after:?}"));
        if let (Some(before), Some(after)) = (speed(before.as_ref()), speed(after.as_ref()))
            && after < before
        {
            note(&self.violations, format!("{} turns at {after} after {before}", key.name));
        }
    }
}

/// The reported speed in the status of a device: devices of a run only ever turn faster.
fn speed(json: Option<&Bytes>) -> Option<u64> {
    let object: Value = serde_json::from_slice(json?).ok()?;
    (object["kind"] == "DeviceStatus").then_some(())?;
    let twins = object.pointer("/status/twins")?.as_array()?;
    let twin = twins.iter().find(|twin| twin["propertyName"] == "speed")?;
    twin.pointer("/reported/value")?.as_str()?.parse().ok()
}

impl State {
    fn write(&mut self, write: Write) -> Result<Change, WriteError> {
        let (key, expected, after) = match write {
            Write::Create { key, json } => (key, None, Some(json)),
            Write::Update { key, expected, json } => (key, Some(expected), Some(json)),
            Write::Delete { key, expected } => (key, Some(expected), None),
        };
        let before = self.items.get(&key);
        match (before, expected) {
            (Some(_), None) => return Err(WriteError::Exists),
            (None, Some(_)) => return Err(WriteError::Missing),
            (Some(item), Some(expected)) if item.revision != expected => {
                return Err(WriteError::Conflict { current: item.revision });
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        let before = before.map(|item| item.json.clone());
        self.revision += 1;
        let revision = self.revision;
        match &after {
            Some(json) => {
                let item = Item { key: key.clone(), revision, json: json.clone() };
                self.items.insert(key.clone(), item);
            }
            None => drop(self.items.remove(&key)),
        }
        let change = Change { revision, key, before, after };
        self.history.push(change.clone());
        Ok(change)
    }
}

impl Store for Memory {
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Item>, StoreError>> {
        let item = self.state().items.get(key).cloned();
        async { Ok(item) }.boxed()
    }

    fn revision(&self) -> u64 {
        self.state().revision
    }

    fn list(&self, range: Range) -> BoxFuture<'_, Result<Page, StoreError>> {
        let state = self.state();
        let wanted = state.items.values().filter(|item| {
            let at = (&item.key.namespace, &item.key.name);
            item.key.resource == range.resource
                && range.namespace.as_ref().is_none_or(|namespace| *namespace == item.key.namespace)
                && range.after.as_ref().is_none_or(|(namespace, name)| at > (namespace, name))
        });
        let mut items: Vec<Item> = wanted.cloned().collect();
        let more = range.limit.is_some_and(|limit| items.len() > limit);
        items.truncate(range.limit.unwrap_or(usize::MAX));
        let page = Page { items, revision: state.revision, more };
        async { Ok(page) }.boxed()
    }

    fn write(&self, write: Write) -> BoxFuture<'_, Result<u64, WriteError>> {
        let outcome = self.state().write(write).map(|change| {
            let revision = change.revision;
            self.judge(&change);
            // Nobody may be watching.
            let _ = self.live.send(change);
            revision
        });
        async { outcome }.boxed()
    }

    fn watch(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after: u64,
    ) -> BoxFuture<'_, Result<Changes, WatchError>> {
        let (resource, namespace) = (resource.to_owned(), namespace.map(str::to_owned));
        let wanted = move |change: &Change| {
            change.key.resource == resource
                && namespace.as_ref().is_none_or(|namespace| *namespace == change.key.namespace)
        };
        let state = self.state();
        let past: Vec<_> = state
            .history
            .iter()
            .filter(|change| change.revision > after && wanted(change))
            .cloned()
            .collect();
        // Taken while the state is held, so that nothing falls between the past and the live.
        let live = self.live.subscribe();
        drop(state);
        let live = futures::stream::unfold(live, |mut live| async { Some((live.recv().await.ok()?, live)) });
        let live = live.filter(move |change| std::future::ready(wanted(change)));
        let all: Changes = futures::stream::iter(past).chain(live).map(Ok).boxed();
        async { Ok(all) }.boxed()
    }
}
