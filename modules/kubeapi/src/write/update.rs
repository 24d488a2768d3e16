//! Update and patch: of an object, of its status, of a namespace's finalizers.

use apimachinery::{ObjectKey, resource};
use http::StatusCode;
use serde_json::{Value, json};

use super::api::{Admission, Api, Operation};
use super::part::Subresource;
use super::patch::{self, PatchType};
use super::persist::{TRIES, encode, write_error, write_of};
use super::typed::Decoded;
use super::validation::{spec_of, validate};
use super::{defaults, definition, pod_parts};
use crate::error::{ApiError, FieldError};
use crate::kind::{ServedKind, Source, StatusSubresource};
use crate::read::decode_stored;
use crate::request::ApiRequest;
use crate::response::Answer;
use crate::store::{QuotaCheck, Store, Write, WriteError};
use crate::unstructured::{as_fields, entry, name, put, remove, text};

/// Metadata that an update does not change.
const FIXED_METADATA: [&str; 8] = [
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "generation",
    "generateName",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

impl<S: Store> Api<S> {
    /// PUT of the object or of its status.
    pub(super) async fn replace(
        &self,
        request: &ApiRequest<'_>,
        part: Subresource,
    ) -> Result<Answer, ApiError> {
        let Decoded { object, mut warnings } = request.decode_typed(request.object()?)?;
        let version = text(&object, "/metadata/resourceVersion").to_owned();
        if version.is_empty() && !request.kind.allows_unconditional_update {
            let cause = FieldError {
                field: "metadata.resourceVersion".to_owned(),
                reason: "FieldValueInvalid",
                message: "Invalid value: 0x0: must be specified for an update".to_owned(),
            };
            return Err(ApiError::invalid(&request.kind, &request.attributes.name, &[cause]));
        }
        let (stored, more) = self.update(request, part, &version, |_| Ok(object.clone())).await?;
        warnings.extend(more);
        Ok(Answer::Object(StatusCode::OK, self.reader.represent(request, stored), warnings))
    }

    /// PATCH of the object or of its status.
    pub(super) async fn patch(
        &self,
        request: &ApiRequest<'_>,
        part: Subresource,
    ) -> Result<Answer, ApiError> {
        let patch_type = PatchType::of(&request.content_type)?;
        if patch_type == PatchType::StrategicMerge && matches!(request.kind.source, Source::Custom(_)) {
            let what =
                "accepted media types include: application/json-patch+json, application/merge-patch+json";
            return Err(ApiError::unsupported_media_type(what));
        }
        let patch = request.patch_body()?;
        let version =
            if patch_type == PatchType::Json { "" } else { text(&patch, "/metadata/resourceVersion") };
        let mut warnings = Vec::new();
        let (stored, more) = self
            .update(request, part, version, |current| {
                let patched = patch::apply(patch_type, &request.kind.kind, current, &patch)?;
                let decoded = request.decode_in_place_of(Some(current), patched)?;
                warnings = decoded.warnings;
                Ok(decoded.object)
            })
            .await?;
        warnings.extend(more);
        Ok(Answer::Object(StatusCode::OK, self.reader.represent(request, stored), warnings))
    }

    /// Makes `next` of the current object and writes it, again if another write came in between and the client did not
    /// say which `version` it means. Answers what is stored, and warnings.
    pub(super) async fn update(
        &self,
        request: &ApiRequest<'_>,
        part: Subresource,
        version: &str,
        mut next: impl FnMut(&Value) -> Result<Value, ApiError>,
    ) -> Result<(Value, Vec<String>), ApiError> {
        let (kind, key) = (&request.kind, request.key());
        let unconditional = matches!(version, "" | "0");
        let _serialized = match self.policy.lock(request) {
            Some(lock) => Some(lock.lock().await),
            None => None,
        };
        for _ in 0..TRIES {
            let (item, current) = self.reader.stored(kind, &key).await?;
            if !unconditional && version != item.revision.to_string() {
                return Err(ApiError::modified(kind, &key.name));
            }
            let admission = Admission { request, operation: Operation::Update, old: Some(&current) };
            let mut object = next(&current)?;
            check_identity(kind, &current, &object)?;
            self.prepare_for_update(kind, part, &current, &mut object)?;
            if part == Subresource::Main {
                self.policy.mutate(admission, &mut object).await?;
            }
            match part {
                Subresource::Main | Subresource::Resize | Subresource::EphemeralContainers => {
                    count_generation(kind, &current, &mut object);
                }
                Subresource::Status | Subresource::Finalize => {}
            }
            validate(kind, Some((&current, part)), &object)?;
            let mut before = current.clone();
            remove(entry(&mut before, "metadata"), "resourceVersion");
            if object == before {
                return Ok((current, Vec::new()));
            }
            let mut warnings = self.policy.validate(admission, &object).await?;
            warnings.extend(definition::warnings(kind, &object));
            if request.is_dry_run() {
                return Ok((decode_stored(kind, &encode(&object), item.revision)?, warnings));
            }
            let (write, gone) = write_of(kind, &item, &object);
            match self.store().write_with(write, self.policy.quota(request)).await {
                Ok(revision) => {
                    self.after_write(kind, gone.then_some(&current)).await?;
                    return Ok((decode_stored(kind, &encode(&object), revision)?, warnings));
                }
                Err(WriteError::Conflict { .. }) if unconditional => {}
                Err(error) => return Err(write_error(kind, &key.name, error)),
            }
        }
        Err(ApiError::modified(kind, &key.name))
    }

    /// Writes what `next` makes of a stored object as it is, again if another write came in between: without
    /// validation, admission and quota, for a [`super::Policy`]'s own subresources. A dry run writes nothing. Answers
    /// the object.
    ///
    /// # Errors
    /// 404 without such an object, 409 if others write it all the time, and what `next` refuses.
    pub async fn guaranteed_update(
        &self,
        request: &ApiRequest<'_>,
        key: &ObjectKey,
        mut next: impl FnMut(&mut Value) -> Result<(), ApiError>,
    ) -> Result<Value, ApiError> {
        let kind = &request.kind;
        for _ in 0..TRIES {
            let (item, mut object) = self.reader.stored(kind, key).await?;
            next(&mut object)?;
            if request.is_dry_run() {
                return Ok(object);
            }
            let write = Write::Update { key: key.clone(), expected: item.revision, json: encode(&object) };
            match self.store().write_with(write, QuotaCheck::Exempt).await {
                Ok(revision) => return decode_stored(kind, &encode(&object), revision),
                Err(WriteError::Conflict { .. }) => {}
                Err(error) => return Err(write_error(kind, &key.name, error)),
            }
        }
        Err(ApiError::modified(kind, &key.name))
    }

    /// What an update comes to: identity and the parts that it is not for stay, defaults come.
    fn prepare_for_update(
        &self,
        kind: &ServedKind,
        part: Subresource,
        current: &Value,
        next: &mut Value,
    ) -> Result<(), ApiError> {
        match part {
            Subresource::Main | Subresource::Finalize => {
                if kind.status != StatusSubresource::None {
                    put(next, "status", current.get("status").cloned());
                }
                if kind.is(resource::NAMESPACES) && part == Subresource::Main {
                    let finalizers = current.pointer("/spec/finalizers").cloned();
                    put(entry(next, "spec"), "finalizers", finalizers);
                }
            }
            Subresource::Resize => {
                let asked = std::mem::replace(next, current.clone());
                pod_parts::take_resources(&asked, next);
            }
            Subresource::EphemeralContainers => {
                let asked = remove(entry(next, "spec"), "ephemeralContainers");
                *next = current.clone();
                put(entry(next, "spec"), "ephemeralContainers", asked);
            }
            Subresource::Status => {
                let status = remove(next, "status");
                let metadata = next["metadata"].clone();
                *next = current.clone();
                put(next, "status", status);
                if matches!(kind.source, Source::BuiltIn) {
                    for map in ["labels", "annotations"] {
                        put(entry(next, "metadata"), map, metadata.get(map).cloned());
                    }
                }
            }
        }
        let metadata = entry(next, "metadata");
        remove(metadata, "resourceVersion");
        for field in FIXED_METADATA {
            put(metadata, field, current["metadata"].get(field).cloned());
        }
        if let Source::Custom(custom) = &kind.source {
            custom.default(next)?;
        }
        defaults::fill(&kind.group_resource(), next);
        if kind.is(resource::CUSTOM_RESOURCE_DEFINITIONS) && part == Subresource::Main {
            definition::establish(next, &self.now_text());
        }
        Ok(())
    }
}

/// An update is of the object that it names.
fn check_identity(kind: &ServedKind, current: &Value, next: &Value) -> Result<(), ApiError> {
    let own_name = name(current);
    if name(next) != own_name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({own_name})",
            name(next).escape_debug(),
        )));
    }
    let uid = text(next, "/metadata/uid");
    if !uid.is_empty() && uid != text(current, "/metadata/uid") {
        let what = format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {}",
            uid.escape_debug(),
            text(current, "/metadata/uid")
        );
        return Err(ApiError::conflict(kind, own_name, &what));
    }
    Ok(())
}

/// `metadata.generation` counts the changes of the spec.
fn count_generation(kind: &ServedKind, current: &Value, next: &mut Value) {
    if kind.generation && spec_of(next) != spec_of(current) {
        let generation = current["metadata"]["generation"].as_i64().unwrap_or(1) + 1;
        as_fields(entry(next, "metadata")).insert("generation".to_owned(), json!(generation));
    }
}
