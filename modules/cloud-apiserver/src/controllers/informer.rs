//! Keeps an informer cache true: lists, watches, and lists again when it is told to.

use std::rc::Rc;
use std::sync::Arc;

use apimachinery::{Kind, NamespacedName};
use beehive::{Actor, Address, Capacity, Context, Fault, Message, Policy, Sample};
use futures::future::AbortHandle;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use kube::Resource;
use kube::api::{Api, DynamicObject, ObjectMeta};
use kube::runtime::{WatchStreamExt, watcher};
use kubewatch::{Unreadable, WatchedObject};
use serde_json::{Value, json};

use super::api_error::chain;
use super::informer_cache::{CacheEvent, InformerCache};
use super::resource::api_resource;
use crate::events;

/// Which objects of a kind are cached.
#[derive(Debug, Clone, Copy)]
pub(super) enum Selection {
    All,
    Namespace(&'static str),
    /// Those of one name, in all namespaces.
    Named(&'static str),
}

/// Messages to an informer.
#[derive(Debug)]
pub(super) enum InformerMsg<V> {
    /// A controller needs a list that begins after now.
    List,
    /// What a watch tells. An earlier one than the current is not heard.
    Event { watch: u64, event: CacheEvent<V> },
    /// A watch was interrupted; it goes on by itself.
    Interrupted { watch: u64, reason: String },
    /// A watch has ended.
    Ended { watch: u64 },
}

impl<V: Send + 'static> Message for InformerMsg<V> {
    fn name(&self) -> &'static str {
        match self {
            InformerMsg::List => "List",
            InformerMsg::Event { .. } => "Event",
            InformerMsg::Interrupted { .. } => "Interrupted",
            InformerMsg::Ended { .. } => "Ended",
        }
    }
}

/// A watch, which begins with a list.
pub(super) type Watch<V> = BoxStream<'static, Result<CacheEvent<V>, String>>;

/// The informer of one kind. It keeps nothing across its restart: it lists again.
pub(super) struct Informer<V> {
    resource: String,
    cache: Rc<InformerCache<V>>,
    begin: Rc<dyn Fn() -> Watch<V>>,
    watch: u64,
    task: Option<AbortHandle>,
}

impl<V: Clone + PartialEq + Send + 'static> Informer<V> {
    pub(super) fn new(
        resource: String,
        cache: Rc<InformerCache<V>>,
        begin: Rc<dyn Fn() -> Watch<V>>,
    ) -> Self {
        Informer { resource, cache, begin, watch: 0, task: None }
    }

    /// How informers are supervised.
    pub(super) fn policy() -> Policy {
        let capacity = Capacity::new(64, "what a watch told and is not in the cache yet; the watch waits");
        Policy { capacity, ..super::policy() }
    }

    fn begin_watch(&mut self, cx: &mut Context<InformerMsg<V>>) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        self.watch += 1;
        self.cache.watch_begins();
        let (watch, mut events, myself) = (self.watch, (self.begin)(), cx.myself());
        self.task = Some(cx.spawn(async move {
            while let Some(event) = events.next().await {
                let message = match event {
                    Ok(event) => InformerMsg::Event { watch, event },
                    Err(reason) => InformerMsg::Interrupted { watch, reason },
                };
                if myself.tell(message).await.is_err() {
                    return;
                }
            }
            let _ = myself.tell(InformerMsg::Ended { watch }).await;
        }));
    }
}

impl<V: Clone + PartialEq + Send + 'static> Actor for Informer<V> {
    type Message = InformerMsg<V>;

    async fn started(&mut self, cx: &mut Context<InformerMsg<V>>) -> Result<(), Fault> {
        self.begin_watch(cx);
        Ok(())
    }

    async fn handle(
        &mut self,
        message: InformerMsg<V>,
        cx: &mut Context<InformerMsg<V>>,
    ) -> Result<(), Fault> {
        match message {
            InformerMsg::List => {
                if self.cache.is_list_wanted() {
                    self.begin_watch(cx);
                }
            }
            InformerMsg::Event { watch, event } if watch == self.watch => {
                if let CacheEvent::Unreadable(key, why) = &event
                    && self.cache.is_news(key, why)
                {
                    events::object_unreadable(cx.env(), &self.resource, key, why);
                }
                if self.cache.take(event) {
                    self.cache.notify();
                }
            }
            InformerMsg::Interrupted { watch, reason } if watch == self.watch => {
                events::watch_interrupted(cx.env(), &self.resource, &reason);
            }
            InformerMsg::Ended { watch } if watch == self.watch => {
                return Err(Fault::new(format!("the watch of {} has ended", self.resource)));
            }
            InformerMsg::Event { .. } | InformerMsg::Interrupted { .. } | InformerMsg::Ended { .. } => {}
        }
        Ok(())
    }

    fn snapshot(&self) -> Value {
        json!({ "listed": self.cache.is_listed(), "objects": self.cache.len(),
            "unreadable": self.cache.unreadable(), "watches": self.watch })
    }

    fn samples(&self) -> Vec<Sample> {
        let objects = u32::try_from(self.cache.len()).unwrap_or(u32::MAX);
        vec![
            Sample::new("kubehive_apiserver_informer_objects", f64::from(objects))
                .of("resource", self.resource.clone()),
        ]
    }
}

/// Reads the objects of a kind.
pub(super) struct Lister {
    cache: Rc<InformerCache<Arc<Value>>>,
    informer: Address<InformerMsg<Arc<Value>>>,
}

impl Lister {
    pub(super) fn new(
        cache: Rc<InformerCache<Arc<Value>>>,
        informer: Address<InformerMsg<Arc<Value>>>,
    ) -> Rc<Self> {
        Rc::new(Lister { cache, informer })
    }

    pub(super) fn get(&self, key: &NamespacedName) -> Option<Arc<Value>> {
        self.cache.get(key)
    }

    pub(super) fn list(&self) -> Vec<Arc<Value>> {
        self.cache.list()
    }

    pub(super) fn cache(&self) -> &InformerCache<Arc<Value>> {
        &self.cache
    }

    pub(super) fn informer(&self) -> &Address<InformerMsg<Arc<Value>>> {
        &self.informer
    }
}

/// A watch of whole objects.
pub(super) fn watch_objects(client: &kube::Client, kind: Kind, selection: Selection) -> Watch<Arc<Value>> {
    let resource = api_resource(&kind);
    let mut config = watcher::Config::default();
    let api: Api<WatchedObject> = match selection {
        Selection::All => Api::all_with(client.clone(), &resource),
        Selection::Namespace(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        Selection::Named(name) => {
            config = config.fields(&format!("metadata.name={name}"));
            Api::all_with(client.clone(), &resource)
        }
    };
    let read = move |object: WatchedObject| object_of(&kind, object.into_read()?);
    cache_events(watcher(api, config).default_backoff(), read).boxed()
}

/// Events of a watch, with `read` for the part of an object that is cached. An object that cannot be read is named, and what was
/// cached of it stays: neither its list nor its watch ends for it.
pub(super) fn cache_events<K: Resource, V>(
    events: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>>,
    read: impl Fn(K) -> Result<V, Unreadable>,
) -> impl Stream<Item = Result<CacheEvent<V>, String>> {
    let key = move |object: &K| {
        let ObjectMeta { namespace, name, .. } = object.meta();
        NamespacedName::new(namespace.clone().unwrap_or_default(), name.clone().unwrap_or_default())
    };
    events.map(move |event| {
        Ok(match event.map_err(|error| chain(&error))? {
            watcher::Event::Init => CacheEvent::ListBegins,
            watcher::Event::InitApply(object) => match (key(&object), read(object)) {
                (key, Ok(read)) => CacheEvent::Listed(key, read),
                (key, Err(unreadable)) => CacheEvent::Unreadable(key, unreadable.why),
            },
            watcher::Event::InitDone => CacheEvent::ListEnds,
            watcher::Event::Apply(object) => match (key(&object), read(object)) {
                (key, Ok(read)) => CacheEvent::Applied(key, read),
                (key, Err(unreadable)) => CacheEvent::Unreadable(key, unreadable.why),
            },
            watcher::Event::Delete(object) => CacheEvent::Deleted(key(&object)),
        })
    })
}

/// An object as controllers read it. Those of a list do not say what they are.
fn object_of(kind: &Kind, object: DynamicObject) -> Result<Arc<Value>, Unreadable> {
    let metadata = ObjectMeta { managed_fields: None, ..object.metadata.clone() };
    let object = DynamicObject { metadata, ..object };
    let mut value = serde_json::to_value(&object)
        .map_err(|error| Unreadable { metadata: Box::new(object.metadata), why: error.to_string() })?;
    value["apiVersion"] = json!(kind.api_version());
    value["kind"] = json!(kind.kind);
    Ok(Arc::new(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_says_what_it_is_and_not_who_manages_its_fields() {
        let pod = json!({"metadata": {"namespace": "d", "name": "b", "managedFields": [{"manager": "x"}]}, "spec": {"x": 1}});
        let read = object_of(&apimachinery::kind::PODS, serde_json::from_value(pod).unwrap()).unwrap();
        assert_eq!(
            (&read["kind"], &read["apiVersion"], &read["spec"]["x"]),
            (&json!("Pod"), &json!("v1"), &json!(1))
        );
        assert_eq!(read["metadata"].get("managedFields"), None);
    }
}
