//! From an object to the store, and from the store's errors to a client's.

use apimachinery::{Kind, ObjectKey, resource};
use bytes::Bytes;
use serde_json::Value;

use crate::error::ApiError;
use crate::kind::ServedKind;
use crate::store::{Item, Write, WriteError};
use crate::unstructured::{entry, list, name, namespace, number, remove, text};

/// 8: how often a write is tried that lost against another and may be made again.
pub(super) const TRIES: usize = 8;

/// The object as it is stored.
pub(super) fn encode(object: &Value) -> Bytes {
    let mut object = object.clone();
    remove(entry(&mut object, "metadata"), "resourceVersion");
    Bytes::from(serde_json::to_vec(&object).unwrap_or_default())
}

pub(super) fn key_of(kind: &ServedKind, object: &Value) -> ObjectKey {
    ObjectKey::new(kind.group_resource(), namespace(object), name(object))
}

/// Whether an object that is marked as deleted has nothing left to wait for.
pub(super) fn is_deletion_complete(kind: &ServedKind, object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
        && list(object, "/metadata/finalizers").is_empty()
        && number(object, "/metadata/deletionGracePeriodSeconds") == Some(0)
        && (!kind.is(resource::NAMESPACES) || list(object, "/spec/finalizers").is_empty())
}

/// The write that makes `object` of `item`: its removal if nothing holds it up any more.
pub(super) fn write_of(kind: &ServedKind, item: &Item, object: &Value) -> (Write, bool) {
    let (key, expected) = (item.key.clone(), item.revision);
    if is_deletion_complete(kind, object) {
        (Write::Delete { key, expected }, true)
    } else {
        (Write::Update { key, expected, json: encode(object) }, false)
    }
}

/// Why a write of an object was refused, in a client's words.
pub(super) fn write_error(kind: &Kind, name: &str, error: WriteError) -> ApiError {
    match error {
        WriteError::Exists => ApiError::already_exists(kind, name),
        WriteError::Missing => ApiError::not_found(kind, name),
        WriteError::Conflict { .. } => ApiError::modified(kind, name),
        WriteError::Quota(_) => ApiError::forbidden_by_admission(kind, name, &error.to_string()),
        WriteError::Full(what) => ApiError::insufficient_storage(kind, name, &what),
        WriteError::Store(error) => error.into(),
    }
}
