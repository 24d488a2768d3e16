//! Watches of the API server's objects into caches that the cloud's controllers read.
//!
//! A cache keeps what nodes are to see: managedFields and the mark of a report do not count, nor does a status, but for what
//! others than its node wrote into that of a pod: what a node itself reported makes no new version, and only goes with the
//! pod. An object's version is computed from what is left, so that every CloudCore comes to the same one, whatever
//! it has seen of the object's history: a node that another CloudCore takes over costs by the difference, and so does a
//! CloudCore that restarts. Its resourceVersion could not do that.
//!
//! An object that cannot be read - it is nested too deep, it has too many values, or its metadata is of a wrong type - is skipped, named
//! and counted alone: the rest of its list and of its watch goes on. See [`Cache::unreadable`] for what becomes of its last version.
//! So is one for which there is no room: what a CloudCore holds is bounded by namespace ([`Budget`]), and it holds text, no trees.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod api_error;
mod budget;
mod cache;
mod events;
mod interruption;
mod last_sent;
mod node_index;
mod object_text;
mod object_watches;
mod pages;
mod pod_status;
mod publisher;
mod read_as;
mod watch_pause;
mod watched_object;

pub use api_error::status_code;
pub use budget::Budget;
pub use cache::{Cache, Cached, Readiness, SharedCache, Unread};
pub use interruption::{Interruption, Interruptions};
pub use last_sent::{DesiredObjects, LastSent};
pub use node_index::{NodeIndex, Placement};
pub use object_text::{DEPTH_MAX, VALUES_MAX};
pub use object_watches::{NEEDS_MAX, ObjectWatches, Presence, WATCHES_MAX};
pub use publisher::Publisher;
pub use read_as::{ReadAs, ReadAsError};
pub use watch_pause::WatchPause;
pub use watched_object::{Unreadable, WatchedMetadata, WatchedObject};

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use beehive::{Context, Message};
use futures::StreamExt;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::watcher;
use kube::runtime::watcher::Event;
use serde_json::Value;

use crate::watch_pause::{AGAIN_AFTER, AGAIN_MAX};

/// 80 s: how long one request of a watch lives. The server ends it in order then, and it is taken up where it was, whether anything came
/// or not: an API server whose etcd tells it of no progress sends no bookmarks, and says nothing at all of a kind of which
/// nothing changes. Whoever waits for longer than that for the next part of an answer waits for a connection that is dead.
pub const WATCH_SECONDS: u32 = 80;

/// How objects are watched, as far as the field selector takes them.
pub fn watch_config(selector: Option<&str>) -> watcher::Config {
    watcher::Config { field_selector: selector.map(str::to_owned), ..Default::default() }
        .timeout(WATCH_SECONDS)
        .page_size(pages::PAGE)
}

/// Which objects are watched.
#[derive(Debug, Clone, Copy)]
pub struct WatchedKind {
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
    /// What CloudCore itself reads of each object. Of ten thousand objects that it only passes on it holds the text and these parts: what is
    /// taken apart has ten times its size and more. Of an object that is read whole it holds the text alone.
    pub reads: Reads,
    /// What is kept, in the place of the whole object, of one that goes to no node any more; `None`: all of it.
    pub rest: fn(&Value) -> Option<Value>,
}

/// What CloudCore itself reads of an object.
#[derive(Debug, Clone, Copy)]
pub enum Reads {
    /// All of it.
    All,
    /// These parts, as JSON pointers. They do not lead into lists.
    At(&'static [&'static str]),
    /// What this makes of it, in the shape of the object.
    By(fn(&Value) -> Value),
}

impl WatchedKind {
    /// Objects of the core group.
    pub const fn core(plural: &'static str, kind: &'static str) -> Self {
        WatchedKind {
            group_resource: plural,
            group: "",
            version: "v1",
            plural,
            kind,
            reads: Reads::All,
            rest: |_| None,
        }
    }

    /// The same, of whose objects CloudCore itself reads these parts alone.
    #[must_use]
    pub const fn reading(self, reads: &'static [&'static str]) -> Self {
        WatchedKind { reads: Reads::At(reads), ..self }
    }

    /// The same, of whose objects CloudCore itself reads what this makes of each.
    #[must_use]
    pub const fn reading_by(self, parts: fn(&Value) -> Value) -> Self {
        WatchedKind { reads: Reads::By(parts), ..self }
    }

    /// The same, of which this is kept of objects that go to no node any more: there may be thousands that have ended.
    #[must_use]
    pub const fn keeping(self, rest: fn(&Value) -> Option<Value>) -> Self {
        WatchedKind { rest, ..self }
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

/// 30 s between looks whether there is room again for what was not kept for want of it.
const LOOK_FOR_ROOM: Duration = Duration::from_secs(30);

/// Watches `what` in all namespaces, as far as the field selector takes it, into a cache, and tells the actor what `notify_change` makes when something moved
/// since it called [`Cache::take_moved`].
///
/// A watch that breaks off is an interruption until a new list is complete. It is not taken up where it broke off: only a
/// list says that nothing was missed.
pub fn watch<M: Message>(
    client: &kube::Client,
    what: WatchedKind,
    selector: Option<&'static str>,
    interruptions: &Interruptions,
    cx: &Context<M>,
    notify_change: fn() -> M,
) -> SharedCache {
    let shared: SharedCache = Rc::new(RefCell::new(Cache::within(interruptions.budget().clone())));
    let api: Api<WatchedObject> = Api::all_with(pages::paged(client), &what.api_resource());
    let cache = Rc::clone(&shared);
    let (myself, env, interruptions) = (cx.myself(), cx.env().clone(), interruptions.clone());
    cx.spawn(async move {
        let (mut interruption, mut pause) = (None, WatchPause::new(AGAIN_AFTER, AGAIN_MAX, env.now()));
        loop {
            let mut events = std::pin::pin!(watcher(api.clone(), watch_config(selector)));
            let mut is_listing_again = false;
            loop {
                let lacks_room = cache.borrow().listed && cache.borrow().lacks_room();
                let next = match lacks_room {
                    false => events.next().await,
                    true => match env.timeout(LOOK_FOR_ROOM, events.next()).await {
                        Some(next) => next,
                        None if cache.borrow().has_room_again() => {
                            is_listing_again = true;
                            break;
                        }
                        None => continue,
                    },
                };
                let Some(event) = next else { break };
                let event = match event {
                    Ok(event) => event,
                    Err(error) => {
                        events::watch_interrupted(&env, what.group_resource, &error, interruption.is_none());
                        break;
                    }
                };
                let is_whole = matches!(event, Event::InitDone);
                let is_due = match readable(event) {
                    Ok(event) => {
                        let (refused, is_due) = cache.borrow_mut().apply(&what, event);
                        if let Some((key, why)) = refused {
                            events::object_too_large(&env, &key, &why);
                        }
                        is_due
                    }
                    Err(unreadable) => {
                        let (news, is_due) = cache.borrow_mut().apply_unreadable(&what, &unreadable);
                        if let Some(key) = news {
                            events::object_unreadable(&env, &key, &unreadable.why);
                        }
                        is_due
                    }
                };
                // A full mailbox is full of other things: the watch waits with it. It refuses while the daemon ends.
                if is_due {
                    let _ = myself.tell(notify_change()).await;
                }
                if is_whole && interruption.take().is_some() {
                    events::watch_whole_again(&env, what.group_resource);
                }
            }
            if is_listing_again {
                continue;
            }
            interruption.get_or_insert_with(|| interruptions.begin(what.group_resource, env.now()));
            env.sleep(env.jitter(pause.broke(env.now()))).await;
        }
    });
    shared
}

/// The event of an object that could be read. Of one that was deleted no more than its name is needed.
fn readable(event: Event<WatchedObject>) -> Result<Event<DynamicObject>, Unreadable> {
    Ok(match event {
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
        Event::InitApply(object) => Event::InitApply(object.into_read()?),
        Event::Apply(object) => Event::Apply(object.into_read()?),
        Event::Delete(object) => Event::Delete(object.into_read().unwrap_or_else(|unreadable| {
            DynamicObject { types: None, metadata: *unreadable.metadata, data: Value::Null }
        })),
    })
}
