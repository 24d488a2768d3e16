//! Objects, what a node holds of them, and why a batch was not applied, as version 1 writes them.

use beehive::link::sentence;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::downlink::{Inventory, NotApplied};
use crate::wire::WireError;
use crate::wire::codec::converted;
use crate::wire::deflate::{deflate, inflate};
use crate::{Change, Digest, Object, ObjectKey, ObjectVersion};

#[derive(Serialize, Deserialize)]
pub(super) struct ObjectKeyV1 {
    resource: String,
    namespace: String,
    name: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ObjectV1 {
    key: ObjectKeyV1,
    uid: String,
    content_hash: String,
    resource_version: String,
    deflated_json: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
pub(super) enum ChangeV1 {
    Upsert(ObjectV1),
    Delete { key: ObjectKeyV1, uid: Option<String> },
}

#[derive(Serialize, Deserialize)]
pub(super) struct InventoryV1 {
    number: u64,
    objects: u32,
    buckets: Vec<u64>,
}

#[derive(Serialize, Deserialize)]
struct ObjectVersionV1 {
    key: ObjectKeyV1,
    uid: String,
    content_hash: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ObjectVersionsV1(Vec<ObjectVersionV1>);

#[derive(Serialize, Deserialize)]
enum NotAppliedV1 {
    Refused(String),
    Stale,
}

#[derive(Serialize, Deserialize)]
pub(super) struct AppliedV1(Result<(), NotAppliedV1>);

impl From<ObjectKey> for ObjectKeyV1 {
    fn from(ObjectKey { resource, namespace, name }: ObjectKey) -> Self {
        ObjectKeyV1 { resource, namespace, name }
    }
}

impl From<ObjectKeyV1> for ObjectKey {
    fn from(ObjectKeyV1 { resource, namespace, name }: ObjectKeyV1) -> Self {
        ObjectKey { resource, namespace, name }
    }
}

impl From<Change> for ChangeV1 {
    fn from(change: Change) -> Self {
        match change {
            Change::Upsert(Object { key, uid, content_hash, resource_version, json }) => {
                let deflated_json = deflate(&json);
                ChangeV1::Upsert(ObjectV1 {
                    key: key.into(),
                    uid,
                    content_hash,
                    resource_version,
                    deflated_json,
                })
            }
            Change::Delete { key, uid } => ChangeV1::Delete { key: key.into(), uid },
        }
    }
}

impl ChangeV1 {
    /// The change; `left` is what the message may still inflate to.
    pub(super) fn open(self, left: &mut usize) -> Result<Change, WireError> {
        Ok(match self {
            ChangeV1::Upsert(ObjectV1 { key, uid, content_hash, resource_version, deflated_json }) => {
                let key = ObjectKey::from(key);
                let json = inflate(&deflated_json, *left).filter(|json| !json.is_empty());
                let json = json.ok_or_else(|| WireError::Object(key.to_string()))?;
                *left = left.saturating_sub(json.len());
                Change::Upsert(Object { key, uid, content_hash, resource_version, json: Bytes::from(json) })
            }
            ChangeV1::Delete { key, uid } => Change::Delete { key: key.into(), uid },
        })
    }
}

impl From<Inventory> for InventoryV1 {
    fn from(Inventory { number, digest: Digest { objects, buckets } }: Inventory) -> Self {
        InventoryV1 { number, objects, buckets }
    }
}

impl From<InventoryV1> for Inventory {
    fn from(InventoryV1 { number, objects, buckets }: InventoryV1) -> Self {
        Inventory { number, digest: Digest { objects, buckets } }
    }
}

impl From<ObjectVersion> for ObjectVersionV1 {
    fn from(ObjectVersion { key, uid, content_hash }: ObjectVersion) -> Self {
        ObjectVersionV1 { key: key.into(), uid, content_hash }
    }
}

impl From<ObjectVersionV1> for ObjectVersion {
    fn from(ObjectVersionV1 { key, uid, content_hash }: ObjectVersionV1) -> Self {
        ObjectVersion { key: key.into(), uid, content_hash }
    }
}

impl From<Vec<ObjectVersion>> for ObjectVersionsV1 {
    fn from(versions: Vec<ObjectVersion>) -> Self {
        ObjectVersionsV1(converted(versions))
    }
}

impl From<ObjectVersionsV1> for Vec<ObjectVersion> {
    fn from(ObjectVersionsV1(versions): ObjectVersionsV1) -> Self {
        converted(versions)
    }
}

impl From<Result<(), NotApplied>> for AppliedV1 {
    fn from(applied: Result<(), NotApplied>) -> Self {
        AppliedV1(applied.map_err(|why| match why {
            NotApplied::Refused(reason) => NotAppliedV1::Refused(reason),
            NotApplied::Stale => NotAppliedV1::Stale,
        }))
    }
}

impl From<AppliedV1> for Result<(), NotApplied> {
    fn from(AppliedV1(applied): AppliedV1) -> Self {
        applied.map_err(|why| match why {
            NotAppliedV1::Refused(reason) => NotApplied::Refused(sentence(reason.as_bytes())),
            NotAppliedV1::Stale => NotApplied::Stale,
        })
    }
}
