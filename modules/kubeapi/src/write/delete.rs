//! Delete: graceful for pods, held up by finalizers, with preconditions.

use apimachinery::{ObjectKey, StatusReason, resource};
use serde_json::{Value, json};

use super::api::{Admission, Api, Operation};
use super::persist::{TRIES, encode, is_deletion_complete, write_error, write_of};
use super::{json, protobuf};
use crate::error::{ApiError, FieldError};
use crate::kind::ServedKind;
use crate::read::decode_stored;
use crate::read::list::{Paging, write_continue};
use crate::read::list_encoder::ListEncoder;
use crate::request::{ApiRequest, DRY_RUN};
use crate::response::Answer;
use crate::store::{Item, QuotaCheck, Store, Write, WriteError};
use crate::unstructured::{as_fields, entry, list, name, number, text};

/// `metav1.DeleteOptions`, as far as they are understood.
#[derive(Debug, Default)]
struct DeleteOptions {
    grace: Option<i64>,
    uid: Option<String>,
    version: Option<String>,
    finalizer: Option<&'static str>,
    dry_run: bool,
}

impl DeleteOptions {
    /// Those of the body of a delete.
    fn of_body(request: &ApiRequest<'_>) -> Result<DeleteOptions, ApiError> {
        let options = if request.body.is_empty() {
            Value::Null
        } else if let Some(options) = protobuf::delete_options(request.body)? {
            options
        } else {
            json::read(request.body).map_err(|error| {
                ApiError::bad_request(format!("the DeleteOptions are unrecognized: {error}"))
            })?
        };
        DeleteOptions::parse(request, &options)
    }

    fn parse(request: &ApiRequest<'_>, options: &Value) -> Result<DeleteOptions, ApiError> {
        check_types(options)?;
        let policy = options["propagationPolicy"].as_str().or(request.query.get("propagationPolicy"));
        let orphans = options["orphanDependents"] == json!(true) || request.query.is_true("orphanDependents");
        let says_orphans =
            !options["orphanDependents"].is_null() || request.query.get("orphanDependents").is_some();
        if let Some(policy) = policy.filter(|_| says_orphans) {
            let what = "orphanDependents and deletionPropagation cannot be both set";
            let cause = FieldError::invalid("propagationPolicy", &json!(policy), what);
            return Err(ApiError::invalid_options("DeleteOptions", &cause));
        }
        let finalizer = match policy {
            Some("Foreground") => Some("foregroundDeletion"),
            Some("Orphan") => Some("orphan"),
            None if orphans => Some("orphan"),
            Some("Background" | "") | None => None,
            Some(other) => {
                let allowed = ["Foreground", "Background", "Orphan", "nil"];
                let cause = FieldError::unsupported("propagationPolicy", &json!(other), &allowed);
                return Err(ApiError::invalid_options("DeleteOptions", &cause));
            }
        };
        let grace = match &options["gracePeriodSeconds"] {
            Value::Null => {
                let text = request.query.get("gracePeriodSeconds").filter(|text| !text.is_empty());
                text.map(|text| text.parse().map_err(|_| bad_grace(text))).transpose()?
            }
            wanted => Some(wanted.as_i64().ok_or_else(|| bad_grace(&wanted.to_string()))?),
        };
        let dry_runs = list(options, "/dryRun");
        if let Some(other) = dry_runs.iter().find(|value| **value != json!(DRY_RUN)) {
            return Err(request.no_dry_run(other));
        }
        let owned = |pointer: &str| options.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        Ok(DeleteOptions {
            grace: grace.map(|grace| grace.max(0)),
            uid: owned("/preconditions/uid"),
            version: owned("/preconditions/resourceVersion"),
            finalizer,
            dry_run: request.is_dry_run() || !dry_runs.is_empty(),
        })
    }

    fn check_preconditions(&self, kind: &ServedKind, current: &Value) -> Result<(), ApiError> {
        for (what, wanted, pointer) in [
            ("UID", &self.uid, "/metadata/uid"),
            ("ResourceVersion", &self.version, "/metadata/resourceVersion"),
        ] {
            let found = text(current, pointer);
            if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != found) {
                let message = format!(
                    "Precondition failed: {what} in precondition: {}, {what} in object meta: {found}",
                    wanted.escape_debug()
                );
                return Err(ApiError::conflict(kind, name(current), &message));
            }
        }
        Ok(())
    }
}

/// One that is of another type must not be passed over: what was a condition would delete without it.
fn check_types(options: &Value) -> Result<(), ApiError> {
    let is_text = |value: &Value| value.is_null() || value.is_string();
    let kind = &options["kind"];
    let preconditions = &options["preconditions"];
    let checks = [
        ("the body", options.is_null() || options.is_object()),
        ("kind", kind.is_null() || kind == "DeleteOptions" || kind == ""),
        ("propagationPolicy", is_text(&options["propagationPolicy"])),
        ("orphanDependents", matches!(options["orphanDependents"], Value::Null | Value::Bool(_))),
        ("dryRun", matches!(options["dryRun"], Value::Null | Value::Array(_))),
        ("preconditions", preconditions.is_null() || preconditions.is_object()),
        ("preconditions.uid", is_text(&preconditions["uid"])),
        ("preconditions.resourceVersion", is_text(&preconditions["resourceVersion"])),
    ];
    match checks.iter().find(|(_, is_fine)| !is_fine) {
        Some((what, _)) => Err(ApiError::bad_request(format!("{what} of DeleteOptions is of another type"))),
        None => Ok(()),
    }
}

fn bad_grace(found: &str) -> ApiError {
    let found: String = found.chars().take(64).collect();
    ApiError::bad_request(format!(
        "gracePeriodSeconds is `{}`, no whole number of seconds",
        found.escape_debug()
    ))
}

/// What is known of a stored object that cannot be read.
fn named_alone(kind: &ServedKind, item: &Item) -> Value {
    let mut metadata = json!({ "name": item.key.name, "resourceVersion": item.revision.to_string() });
    if kind.namespaced {
        metadata["namespace"] = json!(item.key.namespace);
    }
    json!({ "kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata })
}

impl<S: Store> Api<S> {
    pub(super) async fn delete(&self, request: &ApiRequest<'_>) -> Result<Answer, ApiError> {
        let options = DeleteOptions::of_body(request)?;
        let (object, gone) = self.delete_one(request, &request.key(), &options).await?;
        if request.kind.is(resource::PODS) || !gone {
            return Ok(Answer::ok(object));
        }
        let names = &request.kind;
        let mut details =
            json!({ "name": name(&object), "kind": names.plural, "uid": text(&object, "/metadata/uid") });
        if !names.group.is_empty() {
            details["group"] = json!(names.group);
        }
        Ok(Answer::ok(json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
        })))
    }

    pub(super) async fn delete_collection(&self, request: &ApiRequest<'_>) -> Result<Answer, ApiError> {
        let selector = request.selector()?;
        let options = DeleteOptions::of_body(request)?;
        let Paging { after, limit, .. } = Paging::of(request)?;
        let (items, revision, more) = self.reader.select_items(request, &selector, after, limit).await?;
        let mut meta = json!({ "resourceVersion": revision.to_string() });
        if let Some(last) = items.last().filter(|_| more) {
            meta["continue"] = json!(write_continue(revision, &last.key));
        }
        let list_kind = &*request.kind.list_kind;
        let head = json!({ "kind": list_kind, "apiVersion": request.kind.api_version(), "metadata": meta });
        let mut encoder = ListEncoder::begin(&head, "items")?;
        for item in items {
            match self.delete_one(request, &item.key, &options).await {
                Ok((object, _)) => encoder.add(&object, item.json.len()).await?,
                Err(error) if error.reason == StatusReason::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(encoder.end())
    }

    /// Deletes the object that the request names, as a delete with these `metav1.DeleteOptions` does (or null).
    ///
    /// # Errors
    /// 400 for options that are none, and as a delete.
    pub async fn delete_with(&self, request: &ApiRequest<'_>, options: &Value) -> Result<(), ApiError> {
        let options = DeleteOptions::parse(request, options)?;
        self.delete_one(request, &request.key(), &options).await.map(|_| ())
    }

    /// Removes the object or marks it as deleted. Answers it and whether it is gone.
    async fn delete_one(
        &self,
        request: &ApiRequest<'_>,
        key: &ObjectKey,
        options: &DeleteOptions,
    ) -> Result<(Value, bool), ApiError> {
        let kind = &request.kind;
        for _ in 0..TRIES {
            let item = self.store().get(key).await?.ok_or_else(|| ApiError::not_found(kind, &key.name))?;
            let read = self.reader.readable(kind, &item);
            // What cannot be read has no finalizers to wait for, and nobody else can be rid of it.
            let is_torn = read.is_err();
            let current = read.unwrap_or_else(|_| named_alone(kind, &item));
            options.check_preconditions(kind, &current)?;
            let admission = Admission { request, operation: Operation::Delete, old: Some(&current) };
            self.policy.validate(admission, &current).await?;
            let marked = self.marked(kind, &current, options);
            if options.dry_run {
                let gone = is_deletion_complete(kind, &marked);
                return Ok((marked, gone));
            }
            let (write, gone) = if is_torn {
                (Write::Delete { key: key.clone(), expected: item.revision }, true)
            } else {
                write_of(kind, &item, &marked)
            };
            if !gone && encode(&marked) == encode(&current) {
                return Ok((current, false));
            }
            // A mark makes the object larger, and is the way to make it nothing.
            match self.store().write_with(write, QuotaCheck::Exempt).await {
                Ok(revision) => {
                    self.after_write(kind, gone.then_some(&current)).await?;
                    return Ok((decode_stored(kind, &encode(&marked), revision)?, gone));
                }
                Err(WriteError::Conflict { .. }) if options.version.is_none() => {}
                Err(error) => return Err(write_error(kind, &key.name, error)),
            }
        }
        Err(ApiError::modified(kind, &key.name))
    }

    /// The object with its deletion written into it.
    fn marked(&self, kind: &ServedKind, current: &Value, options: &DeleteOptions) -> Value {
        let mut object = current.clone();
        let grace = if kind.is(resource::PODS) { pod_grace(current, options.grace) } else { 0 };
        let earlier = number(current, "/metadata/deletionGracePeriodSeconds");
        let metadata = as_fields(entry(&mut object, "metadata"));
        let first = metadata.get("deletionTimestamp").is_none();
        // A second delete can only shorten the wait.
        if first || earlier.is_none_or(|earlier| grace < earlier) {
            // A time that no calendar has is the last one that it has: never one that is past.
            let now = self.reader.now().as_second();
            let second = now.saturating_add(grace).min(jiff::Timestamp::MAX.as_second());
            let at = jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::MAX);
            let grace = second.saturating_sub(now);
            metadata.insert("deletionTimestamp".to_owned(), json!(at.to_string()));
            metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(grace));
            if first && kind.generation {
                let generation = metadata.get("generation").and_then(Value::as_i64).unwrap_or(1) + 1;
                metadata.insert("generation".to_owned(), json!(generation));
            }
        }
        if let Some(finalizer) = options.finalizer.filter(|_| first) {
            let finalizers = metadata.entry("finalizers").or_insert(json!([]));
            if let Value::Array(finalizers) = finalizers
                && !finalizers.iter().any(|known| known == finalizer)
            {
                finalizers.push(json!(finalizer));
            }
        }
        if kind.is(resource::NAMESPACES) {
            as_fields(entry(&mut object, "status")).insert("phase".to_owned(), json!("Terminating"));
        }
        object
    }
}

/// How long a pod is given: nothing where nothing runs.
fn pod_grace(pod: &Value, wanted: Option<i64>) -> i64 {
    let ended = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
    if text(pod, "/spec/nodeName").is_empty() || ended {
        return 0;
    }
    wanted.unwrap_or_else(|| number(pod, "/spec/terminationGracePeriodSeconds").unwrap_or(30))
}
