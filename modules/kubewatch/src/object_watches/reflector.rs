//! One watch of one object, for as long as somebody needs it.

use std::time::Duration;

use beehive::Moment;
use contract::{NodeName, ObjectKey};
use futures::TryStreamExt;
use futures::future::{Either, select};
use http::Request;
use kube::api::{DynamicObject, ListParams, ObjectList, WatchEvent, WatchParams};
use kube::core::Request as Requests;
use kube::{Resource, ResourceExt};
use tokio::sync::Notify;

use super::Reflectors;
use crate::cache::sent;
use crate::read_as::as_node;
use crate::watch_pause::{AGAIN_AFTER, AGAIN_MAX, LIVED};
use crate::{ReadAs, WATCH_SECONDS, WatchedKind, WatchedObject, events};

/// 30 s for an answer to begin.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// 30 s beyond that: the connection is dead and nobody said so.
const SILENT_FOR: Duration = Duration::from_secs(30);
/// 1 s: a watch that ends sooner than this has broken off, or it would be opened without end.
const SHORTEST: Duration = Duration::from_secs(1);
/// 5 s: by so much the Node authorizer may be behind the pod's binding (it watches pods itself).
const LEARNT_WITHIN: Duration = Duration::from_secs(5);
/// 200 ms between the tries meanwhile.
const LEARN_PAUSE: Duration = Duration::from_millis(200);
/// 30 s, doubled at each time up to 5 min, before what was refused is asked for again.
const REFUSED_AFTER: Duration = Duration::from_secs(30);
const REFUSED_MAX: Duration = Duration::from_secs(300);

/// 30 s at the most, half of it at the least, until what is not watched is asked for again.
const ASKED_EVERY: Duration = Duration::from_secs(30);

/// How a turn ended.
enum AttemptEnd {
    /// The API server does not let us read it.
    Refused(Box<kube::core::Status>),
    /// Whatever else: only a list says what was missed.
    Broken(String),
    /// Whoever it was read as needs it no more.
    Moved,
    /// There was no room for a watch, or for the object.
    Unwatched,
}

/// What a watch remembers of its turns.
struct RetryState {
    refused_since: Option<Moment>,
    refused_pause: Duration,
    pause: Duration,
    was_said: bool,
    /// Whether it is said that its watch has broken off.
    is_broken: bool,
}

impl RetryState {
    fn new() -> Self {
        RetryState {
            refused_since: None,
            refused_pause: REFUSED_AFTER,
            pause: AGAIN_AFTER,
            was_said: false,
            is_broken: false,
        }
    }
}

/// Lists and watches it, again after each break.
pub(super) async fn keep(reflectors: &Reflectors, key: &ObjectKey, what: &WatchedKind, again: &Notify) {
    let mut retry = RetryState::new();
    loop {
        let pause = match attempt(reflectors, key, what, &mut retry).await {
            AttemptEnd::Broken(reason) => {
                let is_first = !std::mem::replace(&mut retry.is_broken, true);
                events::object_watch_interrupted(&reflectors.env, key, &reason, is_first);
                reflectors.broken(key);
                let pause = retry.pause;
                retry.pause = (2 * pause).min(AGAIN_MAX);
                pause
            }
            AttemptEnd::Refused(status) => refused(reflectors, key, &status, &mut retry).await,
            AttemptEnd::Moved => continue,
            AttemptEnd::Unwatched => ASKED_EVERY,
        };
        let rest = reflectors.env.sleep(reflectors.env.jitter(pause));
        let called = std::pin::pin!(again.notified());
        if let Either::Right(_) = select(rest, called).await {
            retry.refused_since = None;
        }
    }
}

/// Answers how long to wait.
async fn refused(
    reflectors: &Reflectors,
    key: &ObjectKey,
    status: &kube::core::Status,
    retry: &mut RetryState,
) -> Duration {
    let now = reflectors.env.now();
    let since = *retry.refused_since.get_or_insert(now);
    if reflectors.read_as == ReadAs::Nodes && now.since(since) < LEARNT_WITHIN {
        return LEARN_PAUSE;
    }
    if !std::mem::replace(&mut retry.was_said, true) {
        let cure = match reflectors.read_as {
            ReadAs::Nodes => {
                "does the server authorize with `Node`, and is the pod that refers to it still bound?"
            }
            ReadAs::CloudCore => {
                "install with rbac.secrets=true, or bind the ClusterRole of rbac-secrets.yaml in this namespace"
            }
        };
        events::object_forbidden(&reflectors.env, key, &status.message, cure);
    }
    reflectors.refused(key).await;
    let pause = retry.refused_pause;
    retry.refused_pause = (2 * pause).min(REFUSED_MAX);
    pause
}

async fn attempt(
    reflectors: &Reflectors,
    key: &ObjectKey,
    what: &WatchedKind,
    retry: &mut RetryState,
) -> AttemptEnd {
    let attempt = WatchAttempt { reflectors, key, what };
    let (mut version, reader) = match attempt.list().await {
        Ok(listed) => listed,
        Err(end) => return end,
    };
    // A list says that it may be read, and nothing of watches: their pause goes on growing until one has lived.
    *retry = RetryState { pause: retry.pause, is_broken: retry.is_broken, ..RetryState::new() };
    let Ok(_room) = reflectors.watches.try_acquire() else { return AttemptEnd::Unwatched };
    loop {
        let began = reflectors.env.now();
        let watched = attempt.watch(version, reader.as_ref()).await;
        let lived = reflectors.env.now().since(began);
        let long_enough = if watched.is_ok() { SHORTEST } else { LIVED };
        if lived >= long_enough {
            retry.pause = AGAIN_AFTER;
            retry.is_broken = false;
        }
        match watched {
            Ok(_) if lived < SHORTEST => {
                return AttemptEnd::Broken("the server ends watches at once".to_owned());
            }
            Ok(newer) => version = newer,
            Err(end) => return end,
        }
        if reader.as_ref().is_some_and(|reader| !reflectors.readers(key).contains(reader)) {
            return AttemptEnd::Moved;
        }
    }
}

struct WatchAttempt<'a> {
    reflectors: &'a Reflectors,
    key: &'a ObjectKey,
    what: &'a WatchedKind,
}

impl WatchAttempt<'_> {
    fn requests(&self) -> Requests {
        let namespace = Some(self.key.namespace.as_str());
        Requests::new(<DynamicObject as Resource>::url_path(&self.what.api_resource(), namespace))
    }

    /// Tells what is there. Answers the version of the list, and as whom it was read.
    async fn list(&self) -> Result<(String, Option<NodeName>), AttemptEnd> {
        let fields = format!("metadata.name={}", self.key.name);
        let mut last = AttemptEnd::Broken("nobody reads it".to_owned());
        for reader in self.readers() {
            let request = self.requests().list(&ListParams::default().fields(&fields));
            let Ok(request) = request else { return Err(AttemptEnd::Broken("no such request".to_owned())) };
            let asked = self.reflectors.client.request(by(request, reader.as_ref()));
            let listed: ObjectList<WatchedObject> = {
                // It is never closed.
                let _permit = self.reflectors.lists.acquire().await;
                match self.in_time(asked).await {
                    Ok(listed) => listed,
                    Err(end @ AttemptEnd::Refused(_)) => {
                        last = end;
                        continue;
                    }
                    Err(broken) => return Err(broken),
                }
            };
            let Some(version) = listed.metadata.resource_version else {
                return Err(AttemptEnd::Broken("a list without a version".to_owned()));
            };
            match listed.items.into_iter().find(|object| self.is_it(object)) {
                Some(object) => {
                    if !self.tell(object).await {
                        return Err(AttemptEnd::Unwatched);
                    }
                }
                None => drop(self.reflectors.told(self.key, None).await),
            }
            return Ok((version, reader));
        }
        Err(last)
    }

    /// As nodes that need it, and if none may, as itself: an administrator may have granted that.
    fn readers(&self) -> Vec<Option<NodeName>> {
        let nodes = match self.reflectors.read_as {
            ReadAs::CloudCore => Vec::new(),
            ReadAs::Nodes => self.reflectors.readers(self.key),
        };
        nodes.into_iter().map(Some).chain([None]).collect()
    }

    /// Tells what moves, until the server ends the watch. Answers the version to go on from.
    async fn watch(&self, mut version: String, reader: Option<&NodeName>) -> Result<String, AttemptEnd> {
        // As long as all watches at the most, half of it at the least, so that many do not end at once.
        let span = self.reflectors.env.jitter(Duration::from_secs(WATCH_SECONDS.into()));
        let seconds = u32::try_from(span.as_secs()).unwrap_or(u32::MAX);
        let params =
            WatchParams::default().fields(&format!("metadata.name={}", self.key.name)).timeout(seconds);
        let request = self.requests().watch(&params, &version);
        let Ok(request) = request else { return Err(AttemptEnd::Broken("no such request".to_owned())) };
        let opened = self.reflectors.client.request_events::<WatchedObject>(by(request, reader));
        let mut events = std::pin::pin!(self.in_time(opened).await?);
        loop {
            let Some(event) = self.reflectors.env.timeout(span + SILENT_FOR, events.try_next()).await else {
                return Err(AttemptEnd::Broken("nothing came for too long".to_owned()));
            };
            match event.map_err(end)? {
                None => return Ok(version),
                Some(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                    version = object.resource_version().unwrap_or(version);
                    if self.is_it(&object) && !self.tell(object).await {
                        return Err(AttemptEnd::Unwatched);
                    }
                }
                Some(WatchEvent::Deleted(object)) => {
                    version = object.resource_version().unwrap_or(version);
                    if self.is_it(&object) {
                        self.reflectors.told(self.key, None).await;
                    }
                }
                Some(WatchEvent::Bookmark(mark)) => version = mark.metadata.resource_version,
                Some(WatchEvent::Error(status)) => return Err(AttemptEnd::Broken(status.message)),
            }
        }
    }

    /// Whether it is the one that was asked for.
    fn is_it(&self, object: &WatchedObject) -> bool {
        let metadata = object.meta();
        metadata.name.as_deref() == Some(&self.key.name)
            && metadata.namespace.as_deref().unwrap_or_default() == self.key.namespace
    }

    /// Tells what nodes are to see of it, or that it cannot be read. Answers whether there was room for it.
    async fn tell(&self, object: WatchedObject) -> bool {
        let uid = object.uid();
        let read = object.into_read().map_err(|unreadable| unreadable.why);
        let sent = read.and_then(|object| {
            sent(self.what, object).ok_or_else(|| "it has no uid or no resourceVersion".to_owned())
        });
        match sent {
            Ok(object) => self.reflectors.told(self.key, Some(object)).await,
            Err(why) => {
                self.reflectors.unreadable(self.key, uid.as_deref(), &why).await;
                true
            }
        }
    }

    async fn in_time<T>(&self, asked: impl Future<Output = Result<T, kube::Error>>) -> Result<T, AttemptEnd> {
        match self.reflectors.env.timeout(ANSWER_WITHIN, asked).await {
            Some(answer) => answer.map_err(end),
            None => Err(AttemptEnd::Broken("the API server did not answer in time".to_owned())),
        }
    }
}

fn by(request: Request<Vec<u8>>, reader: Option<&NodeName>) -> Request<Vec<u8>> {
    match reader {
        Some(node) => as_node(request, node),
        None => request,
    }
}

fn end(error: kube::Error) -> AttemptEnd {
    match error {
        kube::Error::Api(status) if matches!(status.code, 403 | 404) => AttemptEnd::Refused(status),
        error => AttemptEnd::Broken(beehive::Fault::from_error(&error).reason),
    }
}
