//! Watches: a JSON document a line.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, Either, select};
use futures::{FutureExt, StreamExt};
use serde_json::{Value, json};

use crate::api::{Answer, Api, Call, Form};
use crate::failure::Failure;
use crate::kind::Kind;
use crate::read::{Choice, present};
use crate::store::{Change, Changes, Item, Store, WatchError};
use crate::table;

/// 1 h: a watch ends by itself, so that its client looks again, as with a real server.
const LONGEST: Duration = Duration::from_secs(3600);
/// 60 s between bookmarks.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// What a watch needs to make a line of a change.
struct View<S: Store> {
    api: Api<S>,
    kind: Kind,
    choice: Choice,
    form: Form,
    include: String,
}

impl<S: Store> View<S> {
    fn line(&self, event: &str, object: &Value, first: bool) -> Bytes {
        let object = match self.form {
            Form::Whole => object.clone(),
            Form::Metadata => table::partial(object),
            Form::Table => {
                let meta = json!({ "resourceVersion": object["metadata"]["resourceVersion"] });
                let now = self.api.now();
                let mut table =
                    table::render(&self.kind, std::slice::from_ref(object), meta, &self.include, now);
                if !first {
                    table["columnDefinitions"] = Value::Null;
                }
                table
            }
        };
        line(event, &object)
    }

    /// What a change is to this watcher, who sees only what the selector takes.
    fn event(&self, change: &Change) -> Result<Option<(&'static str, Value)>, Failure> {
        let side = |json: &Option<Bytes>| {
            json.as_ref().map(|json| present(&self.kind, json, change.revision)).transpose()
        };
        if self.choice.is_all()
            && let Some(object) = side(&change.after)?
        {
            // What it was before makes no difference to this reader.
            let event = if change.before.is_none() { "ADDED" } else { "MODIFIED" };
            return Ok(Some((event, object)));
        }
        let taken = |object: &Value| self.choice.takes(object);
        let (before, after) = (side(&change.before)?.filter(taken), side(&change.after)?.filter(taken));
        Ok(match (before, after) {
            (None, None) => None,
            (None, Some(object)) => Some(("ADDED", object)),
            (Some(_), Some(object)) => Some(("MODIFIED", object)),
            (Some(object), None) => Some(("DELETED", object)),
        })
    }

    fn bookmark(&self, revision: u64, initial_end: bool) -> Bytes {
        let (kind, api_version) = match self.form {
            Form::Metadata => ("PartialObjectMetadata", "meta.k8s.io/v1".to_owned()),
            Form::Whole | Form::Table => (&*self.kind.kind, self.kind.api_version()),
        };
        let mut object = json!({
            "kind": kind, "apiVersion": api_version,
            "metadata": { "resourceVersion": revision.to_string(), "creationTimestamp": null },
        });
        if initial_end {
            object["metadata"]["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        if self.form == Form::Table {
            object = json!({ "kind": "Table", "apiVersion": "meta.k8s.io/v1", "rows": [],
                "metadata": { "resourceVersion": revision.to_string() }, "columnDefinitions": null });
        }
        line("BOOKMARK", &object)
    }
}

fn line(event: &str, object: &Value) -> Bytes {
    let mut line = json!({ "type": event, "object": object }).to_string();
    line.push('\n');
    Bytes::from(line)
}

struct Flow<S: Store> {
    view: View<S>,
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

impl<S: Store> Api<S> {
    pub(crate) async fn watch(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let choice = Choice::of(call)?;
        let initial = call.query.is_true("sendInitialEvents");
        let from = match call.query.get("resourceVersion") {
            None | Some("" | "0") => None,
            Some(text) => match text.parse::<u64>() {
                Ok(revision) => Some(revision),
                Err(_) => {
                    return Err(Failure::bad_request(format!(
                        "invalid resource version `{}`",
                        text.escape_debug()
                    )));
                }
            },
        };
        let bookmarks = call.query.is_true("allowWatchBookmarks");
        let (items, revision) = match from {
            Some(revision) if !initial => (Vec::new(), revision),
            Some(_) | None => {
                let (items, revision, _) = self.select_items(call, &choice, None, None).await?;
                (items, revision)
            }
        };
        let view = View {
            api: self.clone(),
            kind: call.kind.clone(),
            choice,
            form: call.form,
            include: call.query.get("includeObject").unwrap_or_default().to_owned(),
        };
        let mut ready = VecDeque::new();
        if initial && bookmarks {
            ready.push_back(view.bookmark(revision, true));
        }
        let namespace =
            Some(call.attributes.namespace.as_str()).filter(|ns| call.kind.namespaced && !ns.is_empty());
        let changes = match self.inner.store.watch(&call.kind.group_resource(), namespace, revision).await {
            Ok(changes) => changes,
            // A client of a watch looks for this inside the stream.
            Err(WatchError::Gone { oldest }) => {
                let line = line("ERROR", &Failure::gone(oldest).to_status());
                return Ok(Answer::Stream(futures::stream::once(async { line }).boxed()));
            }
            Err(WatchError::Store(error)) => return Err(error.into()),
        };
        let limit = call.query.number("timeoutSeconds").filter(|seconds| *seconds > 0);
        let limit = limit.map_or(LONGEST, Duration::from_secs).min(LONGEST);
        let sleep = Arc::clone(&self.inner.options.sleep);
        let flow = Flow {
            first: true,
            view,
            initial: items.into_iter(),
            ready,
            changes,
            end: sleep(limit),
            bookmark: bookmarks.then(|| sleep(BOOKMARK_EVERY)),
            revision,
            over: false,
        };
        Ok(Answer::Stream(futures::stream::unfold(flow, next).boxed()))
    }
}

/// What a watch waited for.
enum Turn {
    Change(Option<Result<Change, WatchError>>),
    End,
    Bookmark,
}

async fn next<S: Store>(mut flow: Flow<S>) -> Option<(Bytes, Flow<S>)> {
    loop {
        if let Some(item) = flow.initial.next() {
            let first = std::mem::take(&mut flow.first);
            let line = match present(&flow.view.kind, &item.json, item.revision) {
                Ok(object) => flow.view.line("ADDED", &object, first),
                Err(failure) => {
                    flow.over = true;
                    flow.initial = Vec::new().into_iter();
                    flow.ready.clear();
                    line("ERROR", &failure.to_status())
                }
            };
            return Some((line, flow));
        }
        if let Some(line) = flow.ready.pop_front() {
            return Some((line, flow));
        }
        if flow.over {
            return None;
        }
        let turn = {
            let bookmark: BoxFuture<'_, ()> = match &mut flow.bookmark {
                Some(due) => due.boxed(),
                None => futures::future::pending().boxed(),
            };
            match select(flow.changes.next(), select(&mut flow.end, bookmark)).await {
                Either::Left((change, _)) => Turn::Change(change),
                Either::Right((Either::Left(_), _)) => Turn::End,
                Either::Right((Either::Right(_), _)) => Turn::Bookmark,
            }
        };
        let change = match turn {
            Turn::Change(change) => change,
            Turn::End => return None,
            Turn::Bookmark => {
                flow.bookmark = Some((flow.view.api.inner.options.sleep)(BOOKMARK_EVERY));
                let line = flow.view.bookmark(flow.revision, false);
                return Some((line, flow));
            }
        };
        match change {
            None => return None,
            Some(Ok(change)) => {
                flow.revision = change.revision;
                match flow.view.event(&change) {
                    Ok(None) => {}
                    Ok(Some((event, object))) => {
                        let line = flow.view.line(event, &object, std::mem::take(&mut flow.first));
                        flow.ready.push_back(line);
                    }
                    Err(failure) => {
                        flow.ready.push_back(line("ERROR", &failure.to_status()));
                        flow.over = true;
                    }
                }
            }
            Some(Err(error)) => {
                let failure = match error {
                    WatchError::Gone { oldest } => Failure::gone(oldest),
                    WatchError::Store(error) => error.into(),
                };
                flow.ready.push_back(line("ERROR", &failure.to_status()));
                flow.over = true;
            }
        }
    }
}
