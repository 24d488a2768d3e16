//! Everything that is stored, as owners and dependents: an informer of metadata for each kind that is served.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::NamespacedName;
use beehive::{Actor, Address, Capacity, Context, Fault, Message, Policy};
use futures::StreamExt;
use futures::future::AbortHandle;
use kube::api::{Api, ApiResource, ObjectMeta};
use kube::runtime::{WatchStreamExt, watcher};
use kubewatch::WatchedMetadata;
use serde_json::json;

use super::plan::{ObjectNode, Owner, WatchedKind};
use crate::controllers::api_error::chain;
use crate::controllers::discovery::{self, ListableKind};
use crate::controllers::informer::{Informer, Watch, cache_events};
use crate::controllers::informer_cache::InformerCache;
use crate::events;

/// The kind of the graph's children.
pub(crate) const METADATA_INFORMER: &str = "metadata-informer";
/// 1 s for an informer whose kind is not served any more.
const STOP_WITHIN: Duration = Duration::from_secs(1);

/// The objects of one kind.
struct KindObjects {
    served: ListableKind,
    cache: Rc<InformerCache<ObjectNode>>,
}

/// All kinds that are served, without events: they own nothing and are owned by nobody.
#[derive(Default)]
pub(crate) struct Graph {
    kinds: RefCell<BTreeMap<String, KindObjects>>,
}

/// The graph at one moment.
pub(super) struct GraphSnapshot {
    pub(super) kinds: Vec<WatchedKind>,
    pub(super) resources: Vec<ApiResource>,
    pub(super) objects: Vec<Arc<ObjectNode>>,
}

impl Graph {
    pub(super) fn snapshot(&self) -> GraphSnapshot {
        let mut snapshot = GraphSnapshot { kinds: Vec::new(), resources: Vec::new(), objects: Vec::new() };
        for (at, kind) in self.kinds.borrow().values().enumerate() {
            let resource = &kind.served.resource;
            snapshot.kinds.push(WatchedKind {
                group: resource.group.clone(),
                kind: resource.kind.clone(),
                namespaced: kind.served.namespaced,
                listed: kind.cache.is_listed(),
            });
            snapshot.resources.push(resource.clone());
            let objects = kind.cache.list().into_iter();
            snapshot.objects.extend(objects.map(|entry| Arc::new(ObjectNode { kind: at, ..entry })));
        }
        snapshot
    }
}

/// Messages to the graph's actor.
#[derive(Debug)]
pub(crate) enum OwnerGraphMsg {
    /// Kinds may have come or gone.
    Discover,
    /// The kinds that are served, or why nobody knows.
    Discovered(Result<Vec<ListableKind>, String>),
}

impl Message for OwnerGraphMsg {
    fn name(&self) -> &'static str {
        match self {
            OwnerGraphMsg::Discover => "Discover",
            OwnerGraphMsg::Discovered(_) => "Discovered",
        }
    }
}

/// Tells the graph that a definition has changed. One whose mailbox is full discovers soon anyway.
pub(crate) fn discover_again(graph: &Address<OwnerGraphMsg>) {
    let _ = graph.try_tell(OwnerGraphMsg::Discover);
}

/// Keeps the graph true. It keeps nothing across its restart: it discovers and lists again, and until then no kind counts as listed.
pub(crate) struct OwnerGraph {
    client: kube::Client,
    period: Duration,
    graph: Rc<Graph>,
    changed: Rc<dyn Fn()>,
    is_discovering: bool,
    is_due_again: bool,
    timer: Option<AbortHandle>,
}

impl OwnerGraph {
    pub(crate) fn new(
        client: kube::Client,
        period: Duration,
        graph: Rc<Graph>,
        changed: Rc<dyn Fn()>,
    ) -> Self {
        OwnerGraph { client, period, graph, changed, is_discovering: false, is_due_again: false, timer: None }
    }

    /// How it is supervised.
    pub(crate) fn policy() -> Policy {
        let capacity = Capacity::new(4, "its own timer and answer, and a change of the definitions");
        Policy { capacity, ..crate::controllers::policy() }
    }

    fn discover(&mut self, cx: &mut Context<OwnerGraphMsg>) {
        if self.is_discovering {
            self.is_due_again = true;
            return;
        }
        self.is_discovering = true;
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
        let (client, myself) = (self.client.clone(), cx.myself());
        cx.spawn(async move {
            let served = discovery::kinds(&client).await.map_err(|error| chain(&error));
            let _ = myself.tell(OwnerGraphMsg::Discovered(served)).await;
        });
    }

    fn discovered(&mut self, served: Result<Vec<ListableKind>, String>, cx: &mut Context<OwnerGraphMsg>) {
        self.is_discovering = false;
        match served {
            Ok(served) => self.follow(served, cx),
            Err(reason) => events::discovery_failed(cx.env(), &reason),
        }
        if std::mem::take(&mut self.is_due_again) {
            self.discover(cx);
        } else {
            self.timer = Some(cx.after(self.period, OwnerGraphMsg::Discover));
        }
    }

    /// Begins the watches of new kinds and ends those of kinds that are not served any more.
    fn follow(&self, served: Vec<ListableKind>, cx: &Context<OwnerGraphMsg>) {
        let wanted: BTreeMap<String, ListableKind> = served
            .into_iter()
            .filter(|served| served.watched && served.resource.plural != "events")
            .map(|served| (format!("{}/{}", served.resource.api_version, served.resource.plural), served))
            .collect();
        let mut kinds = self.graph.kinds.borrow_mut();
        kinds.retain(|name, _| {
            let is_served = wanted.contains_key(name);
            if !is_served {
                drop(cx.stop_child((METADATA_INFORMER, name), STOP_WITHIN));
            }
            is_served
        });
        for (name, served) in wanted {
            if kinds.contains_key(&name) {
                continue;
            }
            let cache = InformerCache::new();
            let changed = Rc::clone(&self.changed);
            cache.subscribe(move || changed());
            let (client, resource) = (self.client.clone(), served.resource.clone());
            let begin = Rc::new(move || watch_metadata(&client, &resource));
            let (of, kept) = (name.clone(), Rc::clone(&cache));
            cx.child((METADATA_INFORMER, &name), Informer::<ObjectNode>::policy(), move || {
                Informer::new(of.clone(), Rc::clone(&kept), begin.clone())
            });
            kinds.insert(name, KindObjects { served, cache });
        }
    }
}

impl Actor for OwnerGraph {
    type Message = OwnerGraphMsg;

    async fn started(&mut self, cx: &mut Context<OwnerGraphMsg>) -> Result<(), Fault> {
        self.graph.kinds.borrow_mut().clear();
        self.discover(cx);
        Ok(())
    }

    async fn handle(&mut self, message: OwnerGraphMsg, cx: &mut Context<OwnerGraphMsg>) -> Result<(), Fault> {
        match message {
            OwnerGraphMsg::Discover => self.discover(cx),
            OwnerGraphMsg::Discovered(served) => self.discovered(served, cx),
        }
        Ok(())
    }

    fn snapshot(&self) -> serde_json::Value {
        let kinds = self.graph.kinds.borrow();
        let listed = kinds.values().filter(|kind| kind.cache.is_listed()).count();
        json!({ "kinds": kinds.len(), "listed": listed })
    }
}

fn watch_metadata(client: &kube::Client, resource: &ApiResource) -> Watch<ObjectNode> {
    let api: Api<WatchedMetadata> = Api::all_with(client.clone(), resource);
    let events = watcher(api, watcher::Config::default()).default_backoff();
    // A new status is none of the graph's business: an entry stays the same then.
    // Of one that cannot be read it is known that it is there: it is nobody's dependent, and its own are not taken from it.
    let read = |object: WatchedMetadata| {
        Ok(entry(object.into_read().unwrap_or_else(|unreadable| *unreadable.metadata)))
    };
    cache_events(events, read).boxed()
}

fn entry(metadata: ObjectMeta) -> ObjectNode {
    let owners = metadata.owner_references.unwrap_or_default().into_iter().map(|owner| Owner {
        group: owner.api_version.split_once('/').map(|(group, _)| group.to_owned()).unwrap_or_default(),
        kind: owner.kind,
        name: owner.name,
        uid: owner.uid,
        blocks: owner.block_owner_deletion == Some(true),
    });
    ObjectNode {
        kind: 0,
        key: NamespacedName {
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
        },
        uid: metadata.uid.unwrap_or_default(),
        owners: owners.collect(),
        finalizers: metadata.finalizers.unwrap_or_default(),
        deleting: metadata.deletion_timestamp.is_some(),
    }
}
