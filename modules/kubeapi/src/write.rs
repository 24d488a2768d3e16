//! Create, update and patch.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use crate::api::{Answer, Api, Call, DEFINITIONS};
use crate::failure::{Cause, Failure};
use crate::field::{as_fields, drop_nulls, entry, list, name, namespace, remove, text};
use crate::kind::{Kind, Source, Status};
use crate::patch::{self, Format};
use crate::read::present;
use crate::store::{Key, Room, Store, Write, WriteError};
use crate::{custom, defaults, priority, protobuf, reference, service, strict, validate};

/// 8: how often a write is tried that lost against another and may be made again.
const TRIES: usize = 8;
/// Names that generateName makes end in five of these, as with a real server: no vowels, so no words.
const SUFFIX: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Which part of an object a write is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Main,
    Status,
    /// `spec.finalizers` of a namespace.
    Finalize,
}

/// What a client's object came to, and what it should hear about it.
pub(crate) struct Intake {
    pub(crate) object: Value,
    pub(crate) warnings: Vec<String>,
}

/// The object of a body, in any of the forms that clients send.
pub(crate) fn object_of(body: &[u8], content_type: &str) -> Result<Value, Failure> {
    let media = content_type.split(';').next().unwrap_or_default().trim();
    let unrecognized = |error: &dyn std::fmt::Display| {
        Failure::bad_request(format!("the object provided is unrecognized: {error}"))
    };
    let object: Value = match media {
        "application/json" | "" | "*/*" => crate::json::read(body).map_err(|error| unrecognized(&error))?,
        "application/yaml" => yaml(body).map_err(|error| unrecognized(&error))?,
        protobuf::MEDIA => protobuf::decode(body)?,
        other => {
            let what = format!(
                "accepted media types include: application/json, application/yaml, \
                 application/vnd.kubernetes.protobuf (got `{}`)",
                other.escape_debug()
            );
            return Err(Failure::media_type(&what));
        }
    };
    if object.is_object() {
        Ok(object)
    } else {
        Err(Failure::bad_request("the object provided is unrecognized (must be of type object)"))
    }
}

impl Call<'_> {
    pub(crate) fn is_dry_run(&self) -> bool {
        self.query.get("dryRun") == Some("All")
    }

    pub(crate) fn body_object(&self) -> Result<Value, Failure> {
        object_of(self.body, &self.content_type)
    }

    /// Reads an object as its kind, and deals with fields that the kind does not have.
    pub(crate) fn intake(&self, mut object: Value) -> Result<Intake, Failure> {
        let kind = &self.kind;
        let (api_version, kind_name) = (text(&object, "/apiVersion"), text(&object, "/kind"));
        if !api_version.is_empty() && api_version != kind.api_version()
            || !kind_name.is_empty() && kind_name != &*kind.kind
        {
            return Err(Failure::bad_request(format!(
                "the API version in the data ({}) does not match the expected API version ({})",
                format_args!("{}, Kind={}", api_version.escape_debug(), kind_name.escape_debug()),
                format_args!("{}, Kind={}", kind.api_version(), kind.kind),
            )));
        }
        as_fields(&mut object).insert("apiVersion".to_owned(), json!(kind.api_version()));
        as_fields(&mut object).insert("kind".to_owned(), json!(&*kind.kind));
        let cannot = |what: String| {
            let (version, kind) = (&kind.version, &kind.kind);
            Failure::bad_request(format!(
                "{kind} in version \"{version}\" cannot be handled as a {kind}: {what}"
            ))
        };
        let metadata = entry(&mut object, "metadata");
        drop_nulls(metadata);
        remove(metadata, "managedFields");
        let unknown = match &kind.source {
            Source::BuiltIn(shape) => {
                drop_nulls(&mut object);
                let understood = shape(&object).map_err(cannot)?;
                strict::prune(&mut object, &understood)
            }
            Source::Custom(custom) => {
                let mut unknown = custom.prune(&mut object);
                // Metadata is typed for custom kinds, too.
                let understood = strict::shape::<k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>(
                    &object["metadata"],
                )
                .map_err(cannot)?;
                let inner = strict::prune(entry(&mut object, "metadata"), &understood);
                unknown.extend(inner.into_iter().map(|path| format!("metadata.{path}")));
                unknown
            }
        };
        let told: Vec<String> = unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect();
        match self.query.get("fieldValidation").unwrap_or("Warn") {
            "Strict" if !told.is_empty() => {
                Err(cannot(format!("strict decoding error: {}", told.join(", "))))
            }
            "Ignore" => Ok(Intake { object, warnings: Vec::new() }),
            "Strict" | "Warn" | "" => Ok(Intake { object, warnings: told }),
            other => Err(Failure::bad_request(format!("invalid fieldValidation `{}`", other.escape_debug()))),
        }
    }
}

/// The user of the controllers that run beside the API: `system:kube-controller-manager`, as upstream.
pub const CONTROLLERS: &str = "system:kube-controller-manager";

impl Call<'_> {
    /// What a write may take. The controllers make on behalf of others what those could multiply, pods above all, and
    /// that counts as theirs; what the cluster needs of them has the reserve.
    fn room(&self, key: &Key, part: Part) -> Room {
        let of_cluster = key.namespace.is_empty()
            || key.namespace.starts_with("kube-")
            || matches!(key.resource.as_str(), "serviceaccounts" | "configmaps")
            || part == Part::Status;
        if self.user.is_master() || self.user.name == CONTROLLERS && of_cluster {
            Room::Reserve
        } else {
            Room::Share
        }
    }
}

/// One document of YAML. Without aliases: a few of them could repeat a large text without end.
fn yaml(body: &[u8]) -> Result<Value, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_aliases: 0 },
        with_snippet: false,
    };
    serde_saphyr::from_slice_with_options(body, options)
}

impl<S: Store> Api<S> {
    pub(crate) async fn create(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let Intake { mut object, mut warnings } = call.intake(call.body_object()?)?;
        let kind = &call.kind;
        self.place(call, &mut object).await?;
        let generated = text(&object, "/metadata/generateName").to_owned();
        let generates = name(&object).is_empty() && !generated.is_empty();
        let _addresses = self.addresses(kind, Part::Main).await;
        for attempt in 1.. {
            if generates {
                let cut: String = generated.chars().take(58).collect();
                let made = format!("{cut}{}", self.suffix());
                as_fields(entry(&mut object, "metadata")).insert("name".to_owned(), json!(made));
            }
            let mut next = object.clone();
            self.begin(call, &mut next).await?;
            check(kind, None, &next)?;
            let told = self.admit(call, None, &next).await?;
            if attempt == 1 {
                warnings.extend(told);
            }
            let key = key_of(kind, &next);
            if call.is_dry_run() {
                if self.inner.store.get(&key).await?.is_some() {
                    return Err(Failure::exists(&kind.names_of(), &key.name));
                }
                return Ok(Answer::Object(StatusCode::CREATED, call.shape(self, next), warnings));
            }
            let write = Write::Create { key: key.clone(), json: bytes(&next) };
            match self.inner.store.write_in(write, call.room(&key, Part::Main)).await {
                Ok(revision) => {
                    self.written(kind);
                    let next = present(kind, &bytes(&next), revision)?;
                    return Ok(Answer::Object(StatusCode::CREATED, call.shape(self, next), warnings));
                }
                Err(WriteError::Exists) if generates && attempt < TRIES => {}
                Err(WriteError::Exists) => return Err(Failure::exists(&kind.names_of(), &key.name)),
                // A made name is another one at each try: the refusal is the same.
                Err(error) => {
                    return Err(failed(kind, if generates { &generated } else { &key.name }, error));
                }
            }
        }
        Err(Failure::internal(&"no name was free"))
    }

    /// Puts a new object into the namespace of its path, if that is open.
    async fn place(&self, call: &Call<'_>, object: &mut Value) -> Result<(), Failure> {
        let kind = &call.kind;
        if !text(object, "/metadata/resourceVersion").is_empty() {
            return Err(Failure::bad_request("resourceVersion should not be set on objects to be created"));
        }
        if !kind.namespaced {
            remove(entry(object, "metadata"), "namespace");
            return Ok(());
        }
        let wanted = call.attributes.namespace.as_str();
        if wanted.is_empty() {
            return Err(Failure::method());
        }
        if !matches!(namespace(object), "") && namespace(object) != wanted {
            return Err(Failure::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        as_fields(entry(object, "metadata")).insert("namespace".to_owned(), json!(wanted));
        let key =
            Key { resource: "namespaces".to_owned(), namespace: String::new(), name: wanted.to_owned() };
        let names = crate::failure::Names { group: "", plural: "namespaces", kind: "Namespace" };
        let Some(item) = self.inner.store.get(&key).await? else {
            return Err(Failure::not_found(&names, wanted));
        };
        let space: Value = serde_json::from_slice(&item.json).unwrap_or_default();
        if !text(&space, "/metadata/deletionTimestamp").is_empty() {
            let what =
                format!("unable to create new content in namespace {wanted} because it is being terminated");
            let mut failure = Failure::refused(&kind.names_of(), name(object), &what);
            if let Some(details) = &mut failure.details {
                details["causes"] = json!([{ "reason": "NamespaceTerminating", "field": "metadata.namespace",
                    "message": format!("namespace {wanted} is being terminated") }]);
            }
            return Err(failure);
        }
        Ok(())
    }

    /// Gives a new object what a server gives it.
    async fn begin(&self, call: &Call<'_>, object: &mut Value) -> Result<(), Failure> {
        let kind = &call.kind;
        let now = self.now_text();
        let uid = uuid::Builder::from_random_bytes((self.inner.options.random)()).into_uuid().to_string();
        let metadata = as_fields(entry(object, "metadata"));
        metadata.remove("deletionTimestamp");
        metadata.remove("deletionGracePeriodSeconds");
        metadata.remove("generation");
        metadata.insert("uid".to_owned(), json!(uid));
        metadata.insert("creationTimestamp".to_owned(), json!(now));
        if kind.generation {
            metadata.insert("generation".to_owned(), json!(1));
        }
        if kind.status == Status::Separate {
            remove(object, "status");
        }
        if let Source::Custom(custom) = &kind.source {
            custom.default(object);
        }
        let resource = kind.group_resource();
        defaults::fill(&resource, object);
        match resource.as_str() {
            "pods" => self.admit_pod(call, object).await?,
            "services" => self.give_address(kind, object).await?,
            "namespaces" => {
                // Its own finalizer goes only when its content has gone.
                let finalizers = entry(entry(object, "spec"), "finalizers");
                if let Value::Array(finalizers) = finalizers
                    && !finalizers.contains(&json!("kubernetes"))
                {
                    finalizers.push(json!("kubernetes"));
                }
            }
            DEFINITIONS => accept(object, &now),
            _ => {}
        }
        Ok(())
    }

    /// The Priority plugin, and the ServiceAccount plugin: the account has to be there, and its token is mounted.
    async fn admit_pod(&self, call: &Call<'_>, pod: &mut Value) -> Result<(), Failure> {
        let kind = &call.kind;
        priority::admit(call.user, pod)
            .map_err(|what| Failure::refused(&kind.names_of(), name(pod), &what))?;
        defaults::admit_pod(pod);
        let (space, account) = (namespace(pod).to_owned(), text(pod, "/spec/serviceAccountName").to_owned());
        let key =
            Key { resource: "serviceaccounts".to_owned(), namespace: space.clone(), name: account.clone() };
        let Some(item) = self.inner.store.get(&key).await? else {
            let what = format!(
                "error looking up service account {space}/{account}: serviceaccount \"{account}\" not found"
            );
            return Err(Failure::refused(&kind.names_of(), name(pod), &what));
        };
        let account: Value = serde_json::from_slice(&item.json).unwrap_or_default();
        defaults::mount_token(pod, &account, &self.suffix());
        Ok(())
    }

    pub(crate) fn suffix(&self) -> String {
        let random = (self.inner.options.random)();
        let letter = |byte: &u8| SUFFIX.get(usize::from(*byte) % SUFFIX.len()).copied().map(char::from);
        random.iter().take(5).filter_map(letter).collect()
    }

    pub(crate) fn written(&self, kind: &Kind) {
        if kind.is(DEFINITIONS) {
            self.forget_kinds();
        }
    }

    pub(crate) async fn update(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let body = call.body_object()?;
        self.replace(call, Part::Main, &body).await
    }

    /// PUT of the object or of its status.
    pub(crate) async fn replace(&self, call: &Call<'_>, part: Part, body: &Value) -> Result<Answer, Failure> {
        let Intake { object, mut warnings } = call.intake(body.clone())?;
        let names = call.kind.names_of();
        let version = text(&object, "/metadata/resourceVersion").to_owned();
        if version.is_empty() && !call.kind.blind_updates {
            let cause = Cause {
                field: "metadata.resourceVersion".to_owned(),
                reason: "FieldValueInvalid",
                message: "Invalid value: 0x0: must be specified for an update".to_owned(),
            };
            return Err(Failure::invalid(&names, &call.attributes.name, &[cause]));
        }
        let (stored, told) = self.change(call, part, &version, |_| Ok(object.clone())).await?;
        warnings.extend(told);
        Ok(Answer::Object(StatusCode::OK, call.shape(self, stored), warnings))
    }

    pub(crate) async fn patch(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        self.patch_part(call, Part::Main).await
    }

    /// PATCH of the object or of its status.
    pub(crate) async fn patch_part(&self, call: &Call<'_>, part: Part) -> Result<Answer, Failure> {
        let format = Format::of(&call.content_type)?;
        if format == Format::Strategic && matches!(call.kind.source, Source::Custom(_)) {
            let what =
                "accepted media types include: application/json-patch+json, application/merge-patch+json";
            return Err(Failure::media_type(what));
        }
        let patch = crate::json::read(call.body)
            .map_err(|error| Failure::bad_request(format!("error decoding patch: {error}")))?;
        let wanted = if format == Format::Json { "" } else { text(&patch, "/metadata/resourceVersion") };
        let mut warnings = Vec::new();
        let (stored, told) = self
            .change(call, part, wanted, |current| {
                let patched = patch::apply(format, &call.kind.kind, current, &patch)?;
                let intake = call.intake(patched)?;
                warnings = intake.warnings;
                Ok(intake.object)
            })
            .await?;
        warnings.extend(told);
        Ok(Answer::Object(StatusCode::OK, call.shape(self, stored), warnings))
    }

    /// Makes `next` of the current object and writes it, again if another write came in between and the client did not
    /// say which version it means. Answers what is stored, and warnings.
    pub(crate) async fn change(
        &self,
        call: &Call<'_>,
        part: Part,
        wanted: &str,
        mut next: impl FnMut(&Value) -> Result<Value, Failure>,
    ) -> Result<(Value, Vec<String>), Failure> {
        let (kind, key) = (&call.kind, call.key());
        let names = kind.names_of();
        let addresses = self.addresses(kind, part).await;
        for _ in 0..TRIES {
            let (item, current) = self.read(kind, &key).await?;
            if !matches!(wanted, "" | "0") && wanted != item.revision.to_string() {
                return Err(Failure::stale(&names, &key.name));
            }
            let mut object = self.settle(kind, part, &current, next(&current)?)?;
            if addresses.is_some() && service::asks(&current, &object) {
                self.give_address(kind, &mut object).await?;
            }
            let mut before = current.clone();
            remove(entry(&mut before, "metadata"), "resourceVersion");
            if object == before {
                return Ok((current, Vec::new()));
            }
            let told = self.admit(call, Some(&current), &object).await?;
            if call.is_dry_run() {
                return Ok((present(kind, &bytes(&object), item.revision)?, told));
            }
            let gone = crate::delete::is_over(kind, &object);
            let write = if gone {
                Write::Delete { key: key.clone(), expected: item.revision }
            } else {
                Write::Update { key: key.clone(), expected: item.revision, json: bytes(&object) }
            };
            match self.inner.store.write_in(write, call.room(&key, part)).await {
                Ok(revision) => {
                    self.written(kind);
                    if gone && kind.is(DEFINITIONS) {
                        self.remove_all_of(&current).await?;
                    }
                    return Ok((present(kind, &bytes(&object), revision)?, told));
                }
                Err(WriteError::Conflict { .. }) if matches!(wanted, "" | "0") => {}
                Err(error) => return Err(failed(kind, &key.name, error)),
            }
        }
        Err(Failure::stale(&names, &key.name))
    }

    /// What an update comes to: identity and the other part stay, defaults come, and it has to be allowed.
    fn settle(&self, kind: &Kind, part: Part, current: &Value, mut next: Value) -> Result<Value, Failure> {
        let names = kind.names_of();
        let own_name = name(current);
        if name(&next) != own_name {
            return Err(Failure::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({own_name})",
                name(&next).escape_debug(),
            )));
        }
        let uid = text(&next, "/metadata/uid");
        if !uid.is_empty() && uid != text(current, "/metadata/uid") {
            let what = format!(
                "Precondition failed: UID in precondition: {}, UID in object meta: {}",
                uid.escape_debug(),
                text(current, "/metadata/uid")
            );
            return Err(Failure::conflict(&names, own_name, &what));
        }
        match part {
            Part::Main | Part::Finalize => {
                if kind.status != Status::None {
                    crate::field::put(&mut next, "status", current.get("status").cloned());
                }
                if kind.is("namespaces") && part == Part::Main {
                    let finalizers = current.pointer("/spec/finalizers").cloned();
                    crate::field::put(entry(&mut next, "spec"), "finalizers", finalizers);
                }
                if kind.is("services") {
                    service::keep_address(current, &mut next);
                }
            }
            Part::Status => {
                let status = remove(&mut next, "status");
                let metadata = next["metadata"].clone();
                next = current.clone();
                crate::field::put(&mut next, "status", status);
                if matches!(kind.source, Source::BuiltIn(_)) {
                    for map in ["labels", "annotations"] {
                        let value = metadata.get(map).cloned();
                        crate::field::put(entry(&mut next, "metadata"), map, value);
                    }
                }
            }
        }
        let kept = &current["metadata"];
        let metadata = entry(&mut next, "metadata");
        remove(metadata, "resourceVersion");
        let fixed = [
            "name",
            "namespace",
            "uid",
            "creationTimestamp",
            "generation",
            "generateName",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        ];
        for field in fixed {
            crate::field::put(metadata, field, kept.get(field).cloned());
        }
        if let Source::Custom(custom) = &kind.source {
            custom.default(&mut next);
        }
        let resource = kind.group_resource();
        defaults::fill(&resource, &mut next);
        if kind.is(DEFINITIONS) && part == Part::Main {
            accept(&mut next, &self.now_text());
        }
        let grows = kind.generation && part == Part::Main && wanted_part(&next) != wanted_part(current);
        if grows {
            let generation = kept["generation"].as_i64().unwrap_or(1) + 1;
            as_fields(entry(&mut next, "metadata")).insert("generation".to_owned(), json!(generation));
        }
        check(kind, Some(current), &next)?;
        Ok(next)
    }
}

/// An object without what does not count for its generation.
fn wanted_part(object: &Value) -> Value {
    let mut object = object.clone();
    remove(&mut object, "metadata");
    remove(&mut object, "status");
    object
}

fn check(kind: &Kind, old: Option<&Value>, object: &Value) -> Result<(), Failure> {
    let mut causes = validate::metadata(kind, object);
    causes.extend(reference::causes(&kind.group_resource(), object));
    match &kind.source {
        Source::BuiltIn(_) => causes.extend(validate::object(&kind.group_resource(), object)),
        Source::Custom(custom) => causes.extend(custom.validate(object)),
    }
    if let Some(old) = old {
        causes.extend(validate::change(&kind.group_resource(), old, object));
    }
    // An object that is on its way out may be as wrong as it was, but nothing new may hold it up.
    let leaving = old.filter(|old| !text(old, "/metadata/deletionTimestamp").is_empty());
    if leaving.is_some_and(|old| wanted_part(old) == wanted_part(object)) {
        causes.clear();
    }
    causes.extend(leaving.and_then(|old| validate::new_finalizers(old, object)));
    if causes.is_empty() { Ok(()) } else { Err(Failure::invalid(&kind.names_of(), name(object), &causes)) }
}

/// A definition is served as soon as it is stored.
fn accept(definition: &mut Value, now: &str) {
    let names = definition["spec"]["names"].clone();
    let versions = list(definition, "/spec/versions").iter();
    let storage = versions.filter(|version| version["storage"] == json!(true));
    let stored: Vec<Value> = storage.map(|version| version["name"].clone()).collect();
    let old = list(definition, "/status/conditions").to_vec();
    let condition = |kind: &str, reason: &str, message: &str| {
        let before = old.iter().find(|condition| text(condition, "/type") == kind);
        let since = before.map_or(now, |condition| text(condition, "/lastTransitionTime"));
        json!({ "type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": since })
    };
    let status = json!({
        "acceptedNames": names,
        "storedVersions": stored,
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
    });
    as_fields(definition).insert("status".to_owned(), status);
}

pub(crate) fn key_of(kind: &Kind, object: &Value) -> Key {
    Key {
        resource: kind.group_resource(),
        namespace: namespace(object).to_owned(),
        name: name(object).to_owned(),
    }
}

/// The object as it is stored.
pub(crate) fn bytes(object: &Value) -> Bytes {
    let mut object = object.clone();
    remove(entry(&mut object, "metadata"), "resourceVersion");
    Bytes::from(serde_json::to_vec(&object).unwrap_or_default())
}

pub(crate) fn failed(kind: &Kind, name: &str, error: WriteError) -> Failure {
    let names = kind.names_of();
    match error {
        WriteError::Exists => Failure::exists(&names, name),
        WriteError::Missing => Failure::not_found(&names, name),
        WriteError::Conflict { .. } => Failure::stale(&names, name),
        WriteError::Share(_) => Failure::refused(&names, name, &error.to_string()),
        WriteError::Full(what) => Failure::full(&names, name, &what),
        WriteError::Store(error) => error.into(),
    }
}

/// The objects of a definition that is gone go with it.
pub(crate) fn resource_of_definition(definition: &Value) -> Option<String> {
    custom::kinds(definition).first().map(Kind::group_resource)
}
