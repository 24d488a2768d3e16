//! Delete: graceful for pods, held up by finalizers, with preconditions.

use serde_json::{Value, json};

use crate::api::{Answer, Api, Call, DEFINITIONS};
use crate::failure::Failure;
use crate::field::{as_fields, entry, list, name, number, text};
use crate::kind::Kind;
use crate::protobuf;
use crate::read::{Choice, present};
use crate::sheet::Sheet;
use crate::store::{Key, Range, Room, Store, Write, WriteError};
use crate::write::{bytes, failed, resource_of_definition};

const TRIES: usize = 8;

/// What the client asks for beside the deletion itself.
#[derive(Debug, Default)]
struct Wishes {
    grace: Option<i64>,
    uid: Option<String>,
    version: Option<String>,
    finalizer: Option<&'static str>,
    dry_run: bool,
}

impl Wishes {
    fn of(call: &Call<'_>, body: &[u8]) -> Result<Wishes, Failure> {
        let options: Value = if body.is_empty() {
            Value::Null
        } else if let Some(options) = protobuf::delete_options(body)? {
            options
        } else {
            crate::json::read(body).map_err(|error| {
                Failure::bad_request(format!("the DeleteOptions are unrecognized: {error}"))
            })?
        };
        let policy = options["propagationPolicy"].as_str().or(call.query.get("propagationPolicy"));
        let orphans = options["orphanDependents"] == json!(true) || call.query.is_true("orphanDependents");
        let finalizer = match policy {
            Some("Foreground") => Some("foregroundDeletion"),
            Some("Orphan") => Some("orphan"),
            None if orphans => Some("orphan"),
            Some("Background" | "") | None => None,
            Some(other) => {
                let message = format!("invalid propagationPolicy `{}`", other.escape_debug());
                return Err(Failure::bad_request(message));
            }
        };
        let grace = options["gracePeriodSeconds"].as_i64();
        let grace = grace.or_else(|| call.query.get("gracePeriodSeconds").and_then(|text| text.parse().ok()));
        let owned = |pointer: &str| options.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        Ok(Wishes {
            grace: grace.map(|grace| grace.max(0)),
            uid: owned("/preconditions/uid"),
            version: owned("/preconditions/resourceVersion"),
            finalizer,
            dry_run: call.is_dry_run() || list(&options, "/dryRun").contains(&json!("All")),
        })
    }
}

/// Whether an object that is marked as deleted has nothing left to wait for.
pub(crate) fn is_over(kind: &Kind, object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
        && list(object, "/metadata/finalizers").is_empty()
        && number(object, "/metadata/deletionGracePeriodSeconds") == Some(0)
        && (!kind.is("namespaces") || list(object, "/spec/finalizers").is_empty())
}

impl<S: Store> Api<S> {
    pub(crate) async fn delete(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let wishes = Wishes::of(call, call.body)?;
        let (object, gone) = self.remove(call, &call.key(), &wishes).await?;
        if call.kind.is("pods") || !gone {
            return Ok(Answer::ok(object));
        }
        let names = call.kind.names_of();
        let mut details =
            json!({ "name": name(&object), "kind": names.plural, "uid": text(&object, "/metadata/uid") });
        if !names.group.is_empty() {
            details["group"] = json!(names.group);
        }
        Ok(Answer::ok(json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
        })))
    }

    pub(crate) async fn delete_collection(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let choice = Choice::of(call)?;
        let wishes = Wishes::of(call, call.body)?;
        let (items, revision, _) = self.select_items(call, &choice, None, None).await?;
        let mut sheet = Sheet::begin(
            &json!({
                "kind": &*call.kind.list_kind, "apiVersion": call.kind.api_version(),
                "metadata": { "resourceVersion": revision.to_string() },
            }),
            "items",
        )?;
        for item in items {
            match self.remove(call, &item.key, &wishes).await {
                Ok((object, _)) => sheet.add(&object, item.json.len()).await?,
                Err(failure) if failure.code == 404 => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(sheet.end())
    }

    /// Deletes a pod as an eviction does.
    pub(crate) async fn evict(&self, call: &Call<'_>, options: &Value) -> Result<(), Failure> {
        let body = if options.is_null() { Vec::new() } else { options.to_string().into_bytes() };
        let wishes = Wishes::of(call, &body)?;
        self.remove(call, &call.key(), &wishes).await.map(|_| ())
    }

    /// Removes the object or marks it as deleted. Answers it and whether it is gone.
    async fn remove(&self, call: &Call<'_>, key: &Key, wishes: &Wishes) -> Result<(Value, bool), Failure> {
        let kind = &call.kind;
        let names = kind.names_of();
        for _ in 0..TRIES {
            let (item, current) = self.read(kind, key).await?;
            let own_uid = text(&current, "/metadata/uid");
            if let Some(uid) = wishes.uid.as_deref().filter(|uid| *uid != own_uid) {
                let what = format!(
                    "Precondition failed: UID in precondition: {}, UID in object meta: {own_uid}",
                    uid.escape_debug()
                );
                return Err(Failure::conflict(&names, &key.name, &what));
            }
            let own_version = item.revision.to_string();
            if let Some(version) = wishes.version.as_deref().filter(|version| *version != own_version) {
                let what = format!(
                    "Precondition failed: ResourceVersion in precondition: {}, ResourceVersion in object meta: {own_version}",
                    version.escape_debug()
                );
                return Err(Failure::conflict(&names, &key.name, &what));
            }
            if kind.is("namespaces") && matches!(key.name.as_str(), "default" | "kube-system" | "kube-public")
            {
                return Err(Failure::refused(&names, &key.name, "this namespace may not be deleted"));
            }
            let marked = self.marked(kind, &current, wishes);
            let gone = is_over(kind, &marked);
            if wishes.dry_run {
                return Ok((marked, gone));
            }
            if !gone && bytes(&marked) == bytes(&current) {
                return Ok((current, false));
            }
            let write = if gone {
                Write::Delete { key: key.clone(), expected: item.revision }
            } else {
                Write::Update { key: key.clone(), expected: item.revision, json: bytes(&marked) }
            };
            // A mark makes the object larger, and is the way to make it nothing.
            match self.inner.store.write_in(write, Room::Reserve).await {
                Ok(revision) => {
                    self.written(kind);
                    if gone && kind.is(DEFINITIONS) {
                        self.remove_all_of(&current).await?;
                    }
                    return Ok((present(kind, &bytes(&marked), revision)?, gone));
                }
                Err(WriteError::Conflict { .. }) if wishes.version.is_none() => {}
                Err(error) => return Err(failed(kind, &key.name, error)),
            }
        }
        Err(Failure::stale(&names, &key.name))
    }

    /// The object with its deletion written into it.
    fn marked(&self, kind: &Kind, current: &Value, wishes: &Wishes) -> Value {
        let mut object = current.clone();
        let grace = if kind.is("pods") { pod_grace(current, wishes.grace) } else { 0 };
        let earlier = number(current, "/metadata/deletionGracePeriodSeconds");
        let metadata = as_fields(entry(&mut object, "metadata"));
        let first = metadata.get("deletionTimestamp").is_none();
        // A second delete can only shorten the wait.
        if first || earlier.is_none_or(|earlier| grace < earlier) {
            let second = self.now().as_second().saturating_add(grace);
            let at = jiff::Timestamp::from_second(second).unwrap_or_default();
            metadata.insert("deletionTimestamp".to_owned(), json!(at.to_string()));
            metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(grace));
            if first && kind.generation {
                let generation = metadata.get("generation").and_then(Value::as_i64).unwrap_or(1) + 1;
                metadata.insert("generation".to_owned(), json!(generation));
            }
        }
        if let Some(finalizer) = wishes.finalizer.filter(|_| first) {
            let finalizers = metadata.entry("finalizers").or_insert(json!([]));
            if let Value::Array(finalizers) = finalizers
                && !finalizers.iter().any(|known| known == finalizer)
            {
                finalizers.push(json!(finalizer));
            }
        }
        if kind.is("namespaces") {
            as_fields(entry(&mut object, "status")).insert("phase".to_owned(), json!("Terminating"));
        }
        object
    }

    /// Removes the objects of a definition that is gone.
    pub(crate) async fn remove_all_of(&self, definition: &Value) -> Result<(), Failure> {
        let Some(resource) = resource_of_definition(definition) else { return Ok(()) };
        let range = Range { resource, namespace: None, after: None, limit: None };
        for _ in 0..TRIES {
            let items = self.inner.store.list(range.clone()).await?.items;
            if items.is_empty() {
                return Ok(());
            }
            for item in items {
                let write = Write::Delete { key: item.key, expected: item.revision };
                match self.inner.store.write(write).await {
                    // Who lost against another write is in the next list.
                    Ok(_) | Err(WriteError::Missing | WriteError::Conflict { .. } | WriteError::Exists) => {}
                    Err(error) => return Err(Failure::internal(&error)),
                }
            }
        }
        Err(Failure::internal(&"objects of the definition are written faster than they are removed"))
    }
}

/// How long a pod is given: nothing where nothing runs.
fn pod_grace(pod: &Value, wish: Option<i64>) -> i64 {
    let ended = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
    if text(pod, "/spec/nodeName").is_empty() || ended {
        return 0;
    }
    wish.unwrap_or_else(|| number(pod, "/spec/terminationGracePeriodSeconds").unwrap_or(30))
}
