//! Everything that is stored, as owners and dependents.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;

use apimachinery::NamespacedName;
use futures::future::{AbortHandle, Abortable};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use kube::api::{Api, ApiResource, DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::Notify;

use super::plan::{Entry, KindSeen, Owner};
use crate::controllers::Shared;
use crate::controllers::discover::{self, Served};

use crate::controllers::api_error::chain;

type Metadata = PartialObjectMeta<DynamicObject>;

/// The objects of one kind.
struct Watched {
    served: Served,
    listed: Cell<bool>,
    objects: RefCell<BTreeMap<NamespacedName, Entry>>,
    listing: RefCell<Option<BTreeSet<NamespacedName>>>,
}

/// All kinds that are served, without events: they own nothing and are owned by nobody.
pub(crate) struct Graph {
    shared: Rc<Shared>,
    kinds: RefCell<BTreeMap<String, Rc<Watched>>>,
    pub(super) changed: Rc<Notify>,
    definitions: Rc<Notify>,
}

/// The graph at one moment.
pub(super) struct Picture {
    pub(super) kinds: Vec<KindSeen>,
    pub(super) resources: Vec<ApiResource>,
    pub(super) objects: Vec<Arc<Entry>>,
}

impl Graph {
    pub(crate) fn new(shared: &Rc<Shared>) -> Rc<Self> {
        let definitions = Rc::new(Notify::new());
        shared.definitions.tell(&definitions);
        Rc::new(Graph {
            shared: Rc::clone(shared),
            kinds: RefCell::default(),
            changed: Rc::default(),
            definitions,
        })
    }

    pub(super) fn picture(&self) -> Picture {
        let mut picture = Picture { kinds: Vec::new(), resources: Vec::new(), objects: Vec::new() };
        for (at, watched) in self.kinds.borrow().values().enumerate() {
            let served = &watched.served;
            picture.kinds.push(KindSeen {
                group: served.resource.group.clone(),
                kind: served.resource.kind.clone(),
                namespaced: served.namespaced,
                listed: watched.listed.get(),
            });
            picture.resources.push(served.resource.clone());
            let objects = watched.objects.borrow();
            picture
                .objects
                .extend(objects.values().map(|entry| Arc::new(Entry { kind: at, ..entry.clone() })));
        }
        picture
    }

    /// Keeps the graph true for as long as it is polled.
    pub(crate) async fn watch(&self) {
        let mut running: BTreeMap<String, AbortHandle> = BTreeMap::new();
        let mut watches = FuturesUnordered::new();
        loop {
            match discover::kinds(self.shared.writer.client()).await {
                Ok(served) => self.follow(served, &mut running, &watches),
                Err(error) => {
                    tracing::warn!(reason = chain(&error), "kinds not discovered; it is tried again")
                }
            }
            let period = self.shared.env().sleep(self.shared.settings.discovery_period);
            let definitions = std::pin::pin!(self.definitions.notified());
            let mut again = futures::future::select(period, definitions).fuse();
            loop {
                if watches.is_empty() {
                    (&mut again).await;
                    break;
                }
                futures::select! {
                    _ = again => break,
                    ended = watches.next() => {
                        // A watch ends when its kind goes, or by a crash: then the next discovery begins it anew.
                        if let Some((name, watched)) = ended {
                            self.ended(&name, &watched, &mut running);
                        }
                    }
                }
            }
        }
    }

    fn ended(&self, name: &str, watched: &Rc<Watched>, running: &mut BTreeMap<String, AbortHandle>) {
        let mut kinds = self.kinds.borrow_mut();
        if kinds.get(name).is_some_and(|current| Rc::ptr_eq(current, watched)) {
            kinds.remove(name);
            running.remove(name);
        }
    }

    /// Begins the watches of new kinds and ends those of kinds that are not served any more.
    fn follow<'a>(
        &'a self,
        served: Vec<Served>,
        running: &mut BTreeMap<String, AbortHandle>,
        watches: &FuturesUnordered<futures::future::LocalBoxFuture<'a, (String, Rc<Watched>)>>,
    ) {
        let wanted: BTreeMap<String, Served> = served
            .into_iter()
            .filter(|served| served.watched && served.resource.plural != "events")
            .map(|served| (format!("{}/{}", served.resource.api_version, served.resource.plural), served))
            .collect();
        let mut kinds = self.kinds.borrow_mut();
        kinds.retain(|name, _| wanted.contains_key(name));
        running.retain(|name, handle| {
            let keep = wanted.contains_key(name);
            if !keep {
                handle.abort();
            }
            keep
        });
        for (name, served) in wanted {
            if kinds.contains_key(&name) {
                continue;
            }
            let watched = Rc::new(Watched {
                served,
                listed: Cell::new(false),
                objects: RefCell::default(),
                listing: RefCell::default(),
            });
            kinds.insert(name.clone(), Rc::clone(&watched));
            let (handle, registration) = AbortHandle::new_pair();
            running.insert(name.clone(), handle);
            let work = async move {
                let watching = Abortable::new(self.follow_kind(&watched), registration);
                if AssertUnwindSafe(watching).catch_unwind().await.is_err() {
                    tracing::error!(kind = name, "a watch crashed; it starts again");
                }
                (name, watched)
            };
            watches.push(work.boxed_local());
        }
    }

    async fn follow_kind(&self, watched: &Watched) {
        let client = self.shared.writer.client().clone();
        let api: Api<Metadata> = Api::all_with(client, &watched.served.resource);
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    if watched.take(event) {
                        self.changed.notify_one();
                    }
                }
                Err(error) => {
                    tracing::debug!(
                        kind = watched.served.resource.kind,
                        reason = chain(&error),
                        "watch interrupted"
                    );
                }
            }
        }
    }
}

impl Watched {
    /// Takes one event in. Answers whether owners or dependents changed: a new status is none of our business.
    fn take(&self, event: Event<Metadata>) -> bool {
        match event {
            Event::Init => {
                *self.listing.borrow_mut() = Some(BTreeSet::new());
                false
            }
            Event::InitApply(object) => {
                let entry = entry(object);
                if let Some(listing) = self.listing.borrow_mut().as_mut() {
                    listing.insert(entry.key.clone());
                }
                self.put(entry);
                false
            }
            Event::InitDone => {
                if let Some(named) = self.listing.take() {
                    self.objects.borrow_mut().retain(|key, _| named.contains(key));
                }
                self.listed.set(true);
                true
            }
            Event::Apply(object) => self.put(entry(object)),
            Event::Delete(object) => self.objects.borrow_mut().remove(&entry(object).key).is_some(),
        }
    }

    fn put(&self, entry: Entry) -> bool {
        let mut objects = self.objects.borrow_mut();
        if objects.get(&entry.key) == Some(&entry) {
            return false;
        }
        objects.insert(entry.key.clone(), entry);
        true
    }
}

fn entry(object: Metadata) -> Entry {
    let metadata = object.metadata;
    let owners = metadata.owner_references.unwrap_or_default().into_iter().map(|owner| Owner {
        group: owner.api_version.split_once('/').map(|(group, _)| group.to_owned()).unwrap_or_default(),
        kind: owner.kind,
        name: owner.name,
        uid: owner.uid,
        blocks: owner.block_owner_deletion == Some(true),
    });
    Entry {
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
