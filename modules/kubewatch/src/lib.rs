//! Watches of the API server's objects into caches that the cloud's controllers read.
//!
//! A cache keeps the version of the last change that matters to a node: managedFields and status do not, because a
//! status that a node itself reported is not sent back to it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod told;

pub use told::{Held, Told};

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use beehive::{Context, Message};
use bytes::Bytes;
use contract::{Object, ObjectKey};
use futures::StreamExt;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::Value;

/// One object: what is sent, and what is read here.
pub struct Cached {
    /// As it goes to nodes: without status and managedFields.
    pub object: Arc<Object>,
    /// The same, taken apart.
    pub value: Value,
}

/// What one watch has told.
#[derive(Default)]
pub struct Cache {
    /// The objects.
    pub objects: BTreeMap<ObjectKey, Cached>,
    /// Whether the first list is complete.
    pub listed: bool,
    /// While a list runs: what it named so far.
    listing: Option<BTreeSet<ObjectKey>>,
}

/// A cache that its watch fills.
pub type Shared = Rc<RefCell<Cache>>;

impl Cache {
    /// Takes one event in. Answers whether anything that matters to nodes moved.
    fn take(&mut self, what: &Watched, event: Event<DynamicObject>) -> bool {
        match event {
            Event::Init => {
                self.listing = Some(BTreeSet::new());
                false
            }
            Event::InitApply(object) => {
                let Some((key, moved)) = self.put(what, object) else { return false };
                if let Some(listing) = &mut self.listing {
                    listing.insert(key);
                }
                moved
            }
            Event::InitDone => {
                if let Some(named) = self.listing.take() {
                    self.objects.retain(|key, _| named.contains(key));
                }
                self.listed = true;
                true
            }
            Event::Apply(object) => self.put(what, object).is_some_and(|(_, moved)| moved),
            Event::Delete(object) => {
                let (namespace, name) = (object.metadata.namespace, object.metadata.name);
                let key = ObjectKey::new(
                    what.group_resource,
                    &namespace.unwrap_or_default(),
                    &name.unwrap_or_default(),
                );
                self.objects.remove(&key).is_some()
            }
        }
    }

    /// Keeps the version of the last change that mattered: a status that a node itself reported is not sent back to it.
    fn put(&mut self, what: &Watched, mut object: DynamicObject) -> Option<(ObjectKey, bool)> {
        object.metadata.managed_fields = None;
        let version = object.metadata.resource_version.take()?;
        let uid = object.metadata.uid.clone()?;
        let name = object.metadata.name.clone()?;
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        let key = ObjectKey::new(what.group_resource, &namespace, &name);
        let mut value = serde_json::to_value(&object).ok()?;
        let fields = value.as_object_mut()?;
        fields.remove("status");
        fields.insert("apiVersion".to_owned(), Value::from(what.api_version()));
        fields.insert("kind".to_owned(), Value::from(what.kind));
        if self.objects.get(&key).is_some_and(|cached| cached.value == value) {
            return Some((key, false));
        }
        let mut sent = value.clone();
        sent["metadata"]["resourceVersion"] = Value::from(version.as_str());
        let json = Bytes::from(serde_json::to_vec(&sent).ok()?);
        let object = Arc::new(Object { key: key.clone(), uid, version, json });
        self.objects.insert(key.clone(), Cached { object, value });
        Some((key, true))
    }
}

/// Which objects are watched.
#[derive(Debug, Clone, Copy)]
pub struct Watched {
    /// The GroupResource, as in [`contract::ids`].
    pub group_resource: &'static str,
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The version.
    pub version: &'static str,
    /// The plural.
    pub plural: &'static str,
    /// The kind.
    pub kind: &'static str,
}

impl Watched {
    /// Objects of the core group.
    pub const fn core(plural: &'static str, kind: &'static str) -> Self {
        Watched { group_resource: plural, group: "", version: "v1", plural, kind }
    }

    fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// As kube's dynamic API wants it.
    pub fn api_resource(&self) -> ApiResource {
        ApiResource {
            group: self.group.to_owned(),
            version: self.version.to_owned(),
            api_version: self.api_version(),
            kind: self.kind.to_owned(),
            plural: self.plural.to_owned(),
        }
    }
}

/// Watches `what` in all namespaces into a cache, and tells the actor what `nudge` makes when something moved.
pub fn watch<M: Message>(client: &kube::Client, what: Watched, cx: &Context<M>, nudge: fn() -> M) -> Shared {
    let shared = Shared::default();
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &what.api_resource());
    let cache = Rc::clone(&shared);
    let myself = cx.myself();
    cx.spawn(async move {
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    let moved = cache.borrow_mut().take(&what, event);
                    if moved {
                        // A full mailbox already holds a nudge.
                        let _ = myself.try_tell(nudge());
                    }
                }
                Err(error) => tracing::warn!(resource = what.group_resource, %error, "watch interrupted"),
            }
        }
    });
    shared
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const POD: Watched = Watched::core("pods", "Pod");

    fn pod(version: &str, image: &str, phase: &str) -> DynamicObject {
        serde_json::from_value(json!({
            "metadata": { "namespace": "d", "name": "p", "uid": "u", "resourceVersion": version },
            "spec": { "image": image }, "status": { "phase": phase },
        }))
        .unwrap()
    }

    #[test]
    fn a_status_alone_moves_nothing() {
        let mut cache = Cache::default();
        assert!(cache.take(&POD, Event::Apply(pod("1", "a", "Pending"))));
        assert!(!cache.take(&POD, Event::Apply(pod("2", "a", "Running"))));
        let key = ObjectKey::new("pods", "d", "p");
        assert_eq!(cache.objects[&key].object.version, "1");
        assert!(cache.take(&POD, Event::Apply(pod("3", "b", "Running"))));
        let sent: Value = serde_json::from_slice(&cache.objects[&key].object.json).unwrap();
        assert_eq!(sent["metadata"]["resourceVersion"], "3");
        assert_eq!(sent["kind"], "Pod");
        assert_eq!(sent.get("status"), None);
    }

    #[test]
    fn a_new_list_forgets_what_it_does_not_name() {
        let mut cache = Cache::default();
        cache.take(&POD, Event::Apply(pod("1", "a", "Pending")));
        assert!(!cache.listed);
        cache.take(&POD, Event::Init);
        assert_eq!(cache.objects.len(), 1, "kept until the list is complete");
        assert!(cache.take(&POD, Event::InitDone));
        assert!(cache.listed && cache.objects.is_empty());
    }
}
