//! Kubernetes objects on their way down: opaque JSON beside what sync needs to know.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ObjectKey;

/// One object as the API server holds it. Its JSON is never taken apart on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Which object.
    pub key: ObjectKey,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`: compared for equality only.
    pub version: String,
    /// The whole object as JSON.
    pub json: Bytes,
}

/// What a node is to do with one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Hold this version.
    Upsert(Object),
    /// Forget the object. With a uid only if that one is held.
    Delete {
        /// Which object.
        key: ObjectKey,
        /// Its uid, when known.
        uid: Option<String>,
    },
}

impl Change {
    /// Which object.
    pub fn key(&self) -> &ObjectKey {
        match self {
            Change::Upsert(object) => &object.key,
            Change::Delete { key, .. } => key,
        }
    }
}

/// What a node says it holds of one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Which object.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: String,
    /// Its resourceVersion.
    pub version: String,
}
