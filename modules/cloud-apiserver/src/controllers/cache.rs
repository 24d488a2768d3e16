//! What the API server holds, as its watches tell it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use apimachinery::{Kind, NamespacedName};
use futures::StreamExt;
use kube::api::{Api, DynamicObject, ObjectMeta};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::resource::api_resource;

/// Which objects of a kind are cached.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    Whole,
    Namespace(&'static str),
    /// Those of one name, in all namespaces.
    Named(&'static str),
}

/// The objects of one watch.
pub(crate) struct Cache {
    kind: Kind,
    part: Part,
    objects: RefCell<BTreeMap<NamespacedName, Arc<Value>>>,
    listing: RefCell<Option<BTreeSet<NamespacedName>>>,
    listed: Cell<bool>,
    nudges: RefCell<Vec<Rc<Notify>>>,
}

impl Cache {
    pub(crate) fn new(kind: Kind, part: Part) -> Rc<Self> {
        Rc::new(Cache {
            kind,
            part,
            objects: RefCell::default(),
            listing: RefCell::default(),
            listed: Cell::new(false),
            nudges: RefCell::default(),
        })
    }

    /// From now on every change nudges. Many changes are one nudge to somebody who is busy.
    pub(crate) fn tell(&self, nudge: &Rc<Notify>) {
        self.nudges.borrow_mut().push(Rc::clone(nudge));
    }

    /// Whether the first list is complete: half a list would look like deletes.
    pub(crate) fn is_listed(&self) -> bool {
        self.listed.get()
    }

    pub(crate) fn get(&self, key: &NamespacedName) -> Option<Arc<Value>> {
        self.objects.borrow().get(key).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Value>> {
        self.objects.borrow().values().cloned().collect()
    }

    /// Keeps the cache true for as long as it is polled.
    pub(crate) async fn watch(&self, client: &kube::Client) {
        let resource = api_resource(&self.kind);
        let mut config = watcher::Config::default();
        let api: Api<DynamicObject> = match self.part {
            Part::Whole => Api::all_with(client.clone(), &resource),
            Part::Namespace(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            Part::Named(name) => {
                config = config.fields(&format!("metadata.name={name}"));
                Api::all_with(client.clone(), &resource)
            }
        };
        let mut events = std::pin::pin!(watcher(api, config).default_backoff());
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    if self.take(event) {
                        self.nudges.borrow().iter().for_each(|nudge| nudge.notify_one());
                    }
                }
                Err(error) => {
                    let reason = super::api_error::chain(&error);
                    tracing::warn!(resource = %self.kind.plural, reason, "watch interrupted");
                }
            }
        }
    }

    /// Takes one event in. Answers whether anything changed.
    fn take(&self, event: Event<DynamicObject>) -> bool {
        match event {
            Event::Init => {
                *self.listing.borrow_mut() = Some(BTreeSet::new());
                false
            }
            Event::InitApply(object) => {
                if let (Some(key), Some(listing)) = (self.put(object), self.listing.borrow_mut().as_mut()) {
                    listing.insert(key);
                }
                false
            }
            Event::InitDone => {
                if let Some(named) = self.listing.take() {
                    self.objects.borrow_mut().retain(|key, _| named.contains(key));
                }
                self.listed.set(true);
                true
            }
            Event::Apply(object) => self.put(object).is_some(),
            Event::Delete(object) => {
                let ObjectMeta { namespace, name, .. } = object.metadata;
                let key = NamespacedName::new(namespace.unwrap_or_default(), name.unwrap_or_default());
                self.objects.borrow_mut().remove(&key).is_some()
            }
        }
    }

    fn put(&self, mut object: DynamicObject) -> Option<NamespacedName> {
        object.metadata.managed_fields = None;
        let mut value = serde_json::to_value(&object).ok()?;
        let fields = value.as_object_mut()?;
        // Items of a list do not say what they are.
        fields.insert("apiVersion".to_owned(), json!(self.kind.api_version()));
        fields.insert("kind".to_owned(), json!(self.kind.kind));
        let key = NamespacedName::of(&value);
        self.objects.borrow_mut().insert(key.clone(), Arc::new(value));
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> DynamicObject {
        serde_json::from_value(json!({"metadata": {"namespace": "d", "name": name}, "spec": {"x": 1}}))
            .unwrap()
    }

    #[test]
    fn a_new_list_forgets_what_it_does_not_name() {
        let cache = Cache::new(apimachinery::kind::PODS, Part::Whole);
        assert!(cache.take(Event::Apply(pod("a"))));
        assert!(!cache.is_listed());
        cache.take(Event::Init);
        cache.take(Event::InitApply(pod("b")));
        assert_eq!(cache.all().len(), 2, "kept until the list is complete");
        assert!(cache.take(Event::InitDone));
        assert!(cache.is_listed());
        assert!(cache.get(&NamespacedName::new("d", "a")).is_none());
        let kept = cache.get(&NamespacedName::new("d", "b")).unwrap();
        assert_eq!((&kept["kind"], &kept["spec"]["x"]), (&json!("Pod"), &json!(1)));
        assert!(cache.take(Event::Delete(pod("b"))) && cache.all().is_empty());
    }
}
