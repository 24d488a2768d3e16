//! Create.

use apimachinery::resource;
use http::StatusCode;
use serde_json::{Value, json};

use super::api::{Admission, Api, Operation};
use super::persist::{TRIES, encode, key_of, write_error};
use super::typed::Decoded;
use super::validation::validate;
use super::{defaults, definition};
use crate::error::ApiError;
use crate::kind::{Source, StatusSubresource};
use crate::read::decode_stored;
use crate::request::ApiRequest;
use crate::response::Answer;
use crate::store::{Store, Write, WriteError};
use crate::unstructured::{as_fields, entry, name, namespace, remove, text};

/// Names that generateName makes end in five of these, as with a real server: no vowels, so no words.
const SUFFIX: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Five random letters.
pub fn random_suffix(random: [u8; 16]) -> String {
    let letter = |byte: &u8| SUFFIX.get(usize::from(*byte) % SUFFIX.len()).copied().map(char::from);
    random.iter().take(5).filter_map(letter).collect()
}

impl<S: Store> Api<S> {
    pub(super) async fn create(&self, request: &ApiRequest<'_>) -> Result<Answer, ApiError> {
        let Decoded { mut object, mut warnings } = request.decode_typed(request.object()?)?;
        let kind = &request.kind;
        set_namespace(request, &mut object)?;
        let generated = text(&object, "/metadata/generateName").to_owned();
        let generates = name(&object).is_empty() && !generated.is_empty();
        let admission = Admission { request, operation: Operation::Create, old: None };
        let _serialized = match self.policy.lock(request) {
            Some(lock) => Some(lock.lock().await),
            None => None,
        };
        for attempt in 1.. {
            if generates {
                let prefix: String = generated.chars().take(58).collect();
                let made = format!("{prefix}{}", random_suffix((self.reader.options().random)()));
                as_fields(entry(&mut object, "metadata")).insert("name".to_owned(), json!(made));
            }
            let mut next = object.clone();
            self.prepare_for_create(request, &mut next)?;
            self.policy.mutate(admission, &mut next).await?;
            validate(kind, None, &next)?;
            let more = self.policy.validate(admission, &next).await?;
            if attempt == 1 {
                warnings.extend(more);
                warnings.extend(definition::warnings(kind, &next));
            }
            let key = key_of(kind, &next);
            if request.is_dry_run() {
                if self.store().get(&key).await?.is_some() {
                    return Err(ApiError::already_exists(kind, &key.name));
                }
                let shown = self.reader.represent(request, next);
                return Ok(Answer::Object(StatusCode::CREATED, shown, warnings));
            }
            let quota = self.policy.quota(request);
            let write = Write::Create { key: key.clone(), json: encode(&next) };
            match self.store().write_with(write, quota).await {
                Ok(revision) => {
                    self.after_write(kind, None).await?;
                    let stored = decode_stored(kind, &encode(&next), revision)?;
                    let shown = self.reader.represent(request, stored);
                    return Ok(Answer::Object(StatusCode::CREATED, shown, warnings));
                }
                Err(WriteError::Exists) if generates && attempt < TRIES => {}
                Err(WriteError::Exists) => return Err(ApiError::already_exists(kind, &key.name)),
                // A made name is another one at each try: the refusal is the same.
                Err(error) => {
                    return Err(write_error(kind, if generates { &generated } else { &key.name }, error));
                }
            }
        }
        Err(ApiError::internal(&"no name was free"))
    }

    /// Gives a new object what a server gives it.
    fn prepare_for_create(&self, request: &ApiRequest<'_>, object: &mut Value) -> Result<(), ApiError> {
        let kind = &request.kind;
        let now = self.now_text();
        let random = (self.reader.options().random)();
        let uid = uuid::Builder::from_random_bytes(random).into_uuid().to_string();
        let metadata = as_fields(entry(object, "metadata"));
        metadata.remove("deletionTimestamp");
        metadata.remove("deletionGracePeriodSeconds");
        metadata.remove("generation");
        metadata.insert("uid".to_owned(), json!(uid));
        metadata.insert("creationTimestamp".to_owned(), json!(now));
        if kind.generation {
            metadata.insert("generation".to_owned(), json!(1));
        }
        if kind.status == StatusSubresource::Separate {
            remove(object, "status");
        }
        if let Source::Custom(custom) = &kind.source {
            custom.default(object)?;
        }
        let group_resource = kind.group_resource();
        defaults::fill(&group_resource, object);
        match group_resource.as_str() {
            resource::NAMESPACES => {
                // Its own finalizer goes only when its content has gone.
                let finalizers = entry(entry(object, "spec"), "finalizers");
                if let Value::Array(finalizers) = finalizers
                    && !finalizers.contains(&json!("kubernetes"))
                {
                    finalizers.push(json!("kubernetes"));
                }
            }
            resource::CUSTOM_RESOURCE_DEFINITIONS => definition::establish(object, &now),
            _ => {}
        }
        Ok(())
    }
}

/// Puts a new object into the namespace of its path.
fn set_namespace(request: &ApiRequest<'_>, object: &mut Value) -> Result<(), ApiError> {
    if !text(object, "/metadata/resourceVersion").is_empty() {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    if !request.kind.namespaced {
        remove(entry(object, "metadata"), "namespace");
        return Ok(());
    }
    let wanted = request.attributes.namespace.as_str();
    if wanted.is_empty() {
        return Err(ApiError::method_not_allowed());
    }
    if !matches!(namespace(object), "") && namespace(object) != wanted {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    as_fields(entry(object, "metadata")).insert("namespace".to_owned(), json!(wanted));
    Ok(())
}
