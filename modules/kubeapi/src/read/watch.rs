//! Watches: a JSON document a line.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, Either, select};
use futures::{FutureExt, StreamExt};
use serde_json::{Value, json};

use super::shared_events::LineOf;
use super::{ReadApi, list_options, printers};
use crate::error::ApiError;
use crate::kind::{ServedKind, Source};
use crate::request::{ApiRequest, Representation};
use crate::response::Answer;
use crate::selector::Selector;
use crate::store::{Change, Changes, Item, ReadStore, WatchError};

/// 1 h: a watch ends by itself, so that its client looks again, as with a real server.
const LONGEST: Duration = Duration::from_secs(3600);
/// 60 s between bookmarks.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// What a watch needs to make a line of a change.
struct EventEncoder<S: ReadStore> {
    api: ReadApi<S>,
    kind: ServedKind,
    selector: Selector,
    representation: Representation,
    include: String,
}

impl<S: ReadStore> EventEncoder<S> {
    fn line(&self, event: &str, object: &Value, first: bool) -> Bytes {
        let object = match self.representation {
            Representation::Object => return line(event, object),
            Representation::Metadata => printers::partial(object),
            Representation::Table => {
                let meta = json!({ "resourceVersion": object["metadata"]["resourceVersion"] });
                let now = self.api.now();
                let mut table =
                    printers::table(&self.kind, std::slice::from_ref(object), meta, &self.include, now);
                if !first {
                    table["columnDefinitions"] = Value::Null;
                }
                table
            }
        };
        line(event, &object)
    }

    /// What a change is to this watcher, who sees only what the selector takes. What cannot be read is not there for it.
    fn event(&self, change: &Change, first: &mut bool) -> Option<Bytes> {
        let shared = self.api.inner.events.of(&self.kind, change);
        let after = shared.after(&self.kind, change);
        let (event, object) = if self.selector.is_everything()
            && let Some(object) = after
        {
            // What it was before makes no difference to this reader.
            (if change.before.is_none() { "ADDED" } else { "MODIFIED" }, object)
        } else {
            let taken = |object: &&Value| self.selector.matches(object);
            match (shared.before(&self.kind, change).filter(taken), after.filter(taken)) {
                (None, None) => return None,
                (None, Some(object)) => ("ADDED", object),
                (Some(_), Some(object)) => ("MODIFIED", object),
                (Some(object), None) => ("DELETED", object),
            }
        };
        let is_table = self.representation == Representation::Table;
        let first = std::mem::take(first);
        let make = || self.line(event, object, first);
        if is_table && matches!(self.kind.source, Source::Custom(_)) {
            // Its columns are those of the definition as this watcher found it.
            return Some(make());
        }
        let of = LineOf {
            event,
            representation: self.representation,
            include: if is_table { self.include.clone() } else { String::new() },
            first: is_table && first,
        };
        Some(shared.line(of, make))
    }

    fn bookmark(&self, revision: u64, initial_end: bool) -> Bytes {
        let (kind, api_version) = match self.representation {
            Representation::Metadata => ("PartialObjectMetadata", "meta.k8s.io/v1".to_owned()),
            Representation::Object | Representation::Table => (&*self.kind.kind, self.kind.api_version()),
        };
        let mut object = json!({
            "kind": kind, "apiVersion": api_version,
            "metadata": { "resourceVersion": revision.to_string(), "creationTimestamp": null },
        });
        if initial_end {
            object["metadata"]["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        if self.representation == Representation::Table {
            object = json!({ "kind": "Table", "apiVersion": "meta.k8s.io/v1", "rows": [],
                "metadata": { "resourceVersion": revision.to_string() }, "columnDefinitions": null });
        }
        line("BOOKMARK", &object)
    }
}

fn line(event: &str, object: &Value) -> Bytes {
    // The type first: readers that know it read the object as what it is, without keeping it aside.
    let mut line = format!("{{\"type\":\"{event}\",\"object\":").into_bytes();
    // A value can be written.
    let _ = serde_json::to_writer(&mut line, object);
    line.extend_from_slice(b"}\n");
    Bytes::from(line)
}

struct WatchStream<S: ReadStore> {
    encoder: EventEncoder<S>,
    /// What was there at the beginning and is not told yet: the store's own bytes, so that a reader who takes his time
    /// holds nothing of his own.
    initial: std::vec::IntoIter<Item>,
    ready: VecDeque<Bytes>,
    changes: Changes,
    end: BoxFuture<'static, ()>,
    bookmark: Option<BoxFuture<'static, ()>>,
    revision: u64,
    first: bool,
    over: bool,
}

impl<S: ReadStore> ReadApi<S> {
    pub(super) async fn watch(&self, request: &ApiRequest<'_>) -> Result<Answer, ApiError> {
        let selector = request.selector()?;
        let limit = request.query.bound("timeoutSeconds")?;
        list_options::check(&request.query, true)?;
        let initial = request.query.is_true("sendInitialEvents");
        let from = request.resource_version()?;
        let bookmarks = request.query.is_true("allowWatchBookmarks");
        let (items, revision) = match from {
            Some(revision) if !initial => (Vec::new(), revision),
            Some(_) | None => {
                let (items, revision, _) = self.select_items(request, &selector, None, None).await?;
                (items, revision)
            }
        };
        let encoder = EventEncoder {
            api: self.clone(),
            kind: request.kind.clone(),
            selector,
            representation: request.representation,
            include: request.query.get("includeObject").unwrap_or_default().to_owned(),
        };
        let mut ready = VecDeque::new();
        if initial && bookmarks {
            ready.push_back(encoder.bookmark(revision, true));
        }
        let namespace = Some(request.attributes.namespace.as_str())
            .filter(|ns| request.kind.namespaced && !ns.is_empty());
        let changes = match self.inner.store.watch(&request.kind.group_resource(), namespace, revision).await
        {
            Ok(changes) => changes,
            // A client of a watch looks for this inside the stream.
            Err(WatchError::Gone { oldest }) => {
                let line = line("ERROR", &ApiError::expired(oldest).to_status());
                return Ok(Answer::Stream(futures::stream::once(async { line }).boxed()));
            }
            Err(WatchError::Store(error)) => return Err(error.into()),
        };
        let limit = limit.map_or(LONGEST, Duration::from_secs).min(LONGEST);
        let sleep = Arc::clone(&self.inner.options.sleep);
        let stream = WatchStream {
            first: true,
            encoder,
            initial: items.into_iter(),
            ready,
            changes,
            end: sleep(limit),
            bookmark: bookmarks.then(|| sleep(BOOKMARK_EVERY)),
            revision,
            over: false,
        };
        Ok(Answer::Stream(futures::stream::unfold(stream, next).boxed()))
    }
}

/// What a watch waited for.
enum Wakeup {
    Change(Option<Result<Change, WatchError>>),
    End,
    Bookmark,
}

async fn next<S: ReadStore>(mut stream: WatchStream<S>) -> Option<(Bytes, WatchStream<S>)> {
    loop {
        if let Some(item) = stream.initial.next() {
            // One that cannot be read is left out, as in a list.
            let Ok(object) = stream.encoder.api.readable(&stream.encoder.kind, &item) else { continue };
            let first = std::mem::take(&mut stream.first);
            let line = stream.encoder.line("ADDED", &object, first);
            return Some((line, stream));
        }
        if let Some(line) = stream.ready.pop_front() {
            return Some((line, stream));
        }
        if stream.over {
            return None;
        }
        let turn = {
            let bookmark: BoxFuture<'_, ()> = match &mut stream.bookmark {
                Some(due) => due.boxed(),
                None => futures::future::pending().boxed(),
            };
            match select(stream.changes.next(), select(&mut stream.end, bookmark)).await {
                Either::Left((change, _)) => Wakeup::Change(change),
                Either::Right((Either::Left(_), _)) => Wakeup::End,
                Either::Right((Either::Right(_), _)) => Wakeup::Bookmark,
            }
        };
        let mut is_bookmark_due = false;
        let change = match turn {
            Wakeup::Change(change) => change,
            Wakeup::End => return None,
            Wakeup::Bookmark => {
                stream.bookmark = Some((stream.encoder.api.options().sleep)(BOOKMARK_EVERY));
                // Before the look: when nothing is waiting then, all up to this revision has been told, and a kind that is quiet while
                // others are written has a bookmark that does not age.
                let newest = stream.encoder.api.inner.store.revision();
                is_bookmark_due = true;
                match stream.changes.next().now_or_never() {
                    Some(change) => change,
                    None => {
                        stream.revision = stream.revision.max(newest);
                        let line = stream.encoder.bookmark(stream.revision, false);
                        return Some((line, stream));
                    }
                }
            }
        };
        match change {
            None => return None,
            Some(Ok(change)) => {
                stream.revision = change.revision;
                let line = stream.encoder.event(&change, &mut stream.first);
                stream.ready.extend(line);
                if is_bookmark_due {
                    stream.ready.push_back(stream.encoder.bookmark(stream.revision, false));
                }
            }
            Some(Err(error)) => {
                let error = match error {
                    WatchError::Gone { oldest } => ApiError::expired(oldest),
                    WatchError::Store(error) => error.into(),
                };
                stream.ready.push_back(line("ERROR", &error.to_status()));
                stream.over = true;
            }
        }
    }
}
