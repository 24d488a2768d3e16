//! The API server's pods, nodes, config maps and secrets, as far as the watches have told.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use beehive::{Address, Context};
use bytes::Bytes;
use contract::edgecontroller::EdgeControllerMsg;
use contract::{Object, ObjectKey};
use futures::StreamExt;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::Value;

/// One object: what is sent, and what is read here.
pub(crate) struct Cached {
    /// As it goes to nodes: without status and managedFields.
    pub(crate) object: Arc<Object>,
    /// The same, taken apart.
    pub(crate) value: Value,
}

/// What one watch has told.
#[derive(Default)]
pub(crate) struct Cache {
    pub(crate) objects: BTreeMap<ObjectKey, Cached>,
    /// Whether the first list is complete.
    pub(crate) listed: bool,
    /// While a list runs: what it named so far.
    listing: Option<BTreeSet<ObjectKey>>,
}

/// A cache that its watch fills.
pub(crate) type Shared = Rc<RefCell<Cache>>;

impl Cache {
    /// Takes one event in. Answers whether anything that matters to nodes moved.
    pub(crate) fn take(&mut self, resource: &str, kind: &str, event: Event<DynamicObject>) -> bool {
        match event {
            Event::Init => {
                self.listing = Some(BTreeSet::new());
                false
            }
            Event::InitApply(object) => {
                let Some((key, moved)) = self.put(resource, kind, object) else { return false };
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
            Event::Apply(object) => self.put(resource, kind, object).is_some_and(|(_, moved)| moved),
            Event::Delete(object) => {
                let (namespace, name) = (object.metadata.namespace, object.metadata.name);
                let key = ObjectKey::new(resource, &namespace.unwrap_or_default(), &name.unwrap_or_default());
                self.objects.remove(&key).is_some()
            }
        }
    }

    /// Keeps the version of the last change that mattered: a status that a node itself reported is not sent back to it.
    fn put(&mut self, resource: &str, kind: &str, mut object: DynamicObject) -> Option<(ObjectKey, bool)> {
        object.metadata.managed_fields = None;
        let version = object.metadata.resource_version.take()?;
        let uid = object.metadata.uid.clone()?;
        let name = object.metadata.name.clone()?;
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        let key = ObjectKey::new(resource, &namespace, &name);
        let mut value = serde_json::to_value(&object).ok()?;
        let fields = value.as_object_mut()?;
        fields.remove("status");
        fields.insert("apiVersion".to_owned(), Value::from("v1"));
        fields.insert("kind".to_owned(), Value::from(kind));
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

/// Watches one core resource into a cache, and nudges the actor when something moved.
pub(crate) fn watch(
    client: &kube::Client,
    resource: &'static str,
    kind: &'static str,
    cx: &Context<EdgeControllerMsg>,
) -> Shared {
    let shared = Shared::default();
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &api_resource(resource, kind));
    let cache = Rc::clone(&shared);
    let myself: Address<EdgeControllerMsg> = cx.myself();
    cx.spawn(async move {
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    let moved = cache.borrow_mut().take(resource, kind, event);
                    if moved {
                        // A full mailbox already holds a nudge.
                        let _ = myself.try_tell(EdgeControllerMsg::Look);
                    }
                }
                Err(error) => tracing::warn!(resource, %error, "watch interrupted"),
            }
        }
    });
    shared
}

pub(crate) fn api_resource(resource: &str, kind: &str) -> ApiResource {
    ApiResource {
        group: String::new(),
        version: "v1".to_owned(),
        api_version: "v1".to_owned(),
        kind: kind.to_owned(),
        plural: resource.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
        assert!(cache.take("pods", "Pod", Event::Apply(pod("1", "a", "Pending"))));
        assert!(!cache.take("pods", "Pod", Event::Apply(pod("2", "a", "Running"))));
        let key = ObjectKey::new("pods", "d", "p");
        assert_eq!(cache.objects[&key].object.version, "1");
        assert!(cache.take("pods", "Pod", Event::Apply(pod("3", "b", "Running"))));
        let sent: Value = serde_json::from_slice(&cache.objects[&key].object.json).unwrap();
        assert_eq!(sent["metadata"]["resourceVersion"], "3");
        assert_eq!(sent["kind"], "Pod");
        assert_eq!(sent.get("status"), None);
    }

    #[test]
    fn a_new_list_forgets_what_it_does_not_name() {
        let mut cache = Cache::default();
        cache.take("pods", "Pod", Event::Apply(pod("1", "a", "Pending")));
        assert!(!cache.listed);
        cache.take("pods", "Pod", Event::Init);
        assert_eq!(cache.objects.len(), 1, "kept until the list is complete");
        assert!(cache.take("pods", "Pod", Event::InitDone));
        assert!(cache.listed && cache.objects.is_empty());
    }
}
