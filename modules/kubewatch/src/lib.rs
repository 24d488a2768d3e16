//! Watches of the API server's objects into caches that the cloud's controllers read.
//!
//! A cache keeps what nodes are to see: managedFields, status and the mark of a report do not count, because a status that
//! a node itself reported is not sent back to it. An object's version is computed from what is left, so that every
//! CloudCore comes to the same one, whatever it has seen of the object's history: a node that another CloudCore takes over
//! costs by the difference, and so does a CloudCore that restarts. Its resourceVersion could not do that.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod cache;
mod placed;
mod told;

pub use cache::{Cache, Cached, Shared};
pub use placed::{Place, Placed};
pub use told::{Held, Told};

use std::rc::Rc;

use beehive::{Context, Message};
use futures::StreamExt;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::{WatchStreamExt, watcher};

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

/// Watches `what` in all namespaces into a cache, and tells the actor what `nudge` makes when something moved
/// since it called [`Cache::take_moved`].
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
                    let is_due = cache.borrow_mut().hear(&what, event);
                    // A full mailbox is full of other things: the watch waits with it. It refuses while the daemon
                    // ends.
                    if is_due {
                        let _ = myself.tell(nudge()).await;
                    }
                }
                Err(error) => tracing::warn!(resource = what.group_resource, %error, "watch interrupted"),
            }
        }
    });
    shared
}
