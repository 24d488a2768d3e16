//! Kubernetes objects on their way down: opaque JSON beside what sync needs to know.

use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::ObjectKey;

/// 16 bytes of SHA-256, 32 hex digits: two contents of one object do not meet in it by chance.
const HASH_BYTES: usize = 16;

/// One object as the API server holds it. Its JSON is never taken apart on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Which object.
    pub key: ObjectKey,
    /// `metadata.uid`.
    pub uid: String,
    /// What its content comes to ([`content_hash`]): compared for equality only.
    ///
    /// It is not `metadata.resourceVersion`, because that moves with every status that a node itself reported. A
    /// CloudCore could keep the one of the last change that mattered, but another CloudCore, or the same one after a
    /// restart, has not seen that change: it would take every object for another one and send all of them. What two
    /// CloudCores make of the same content is the same, whatever each has seen before.
    pub content_hash: String,
    /// `metadata.resourceVersion` at which this content was seen, for whoever reads it on the node. It takes no part in
    /// deciding what is the same.
    pub resource_version: String,
    /// The whole object as JSON, its resourceVersion included, without what only the API server's bookkeeping moves.
    pub json: Bytes,
}

/// The hash of an object's content. All CloudCores have to come to the same one; where they do not, because their
/// releases differ in this, objects travel once more and nothing is wrong.
///
/// It is a hash over the values in their order and the fields in the order of their names, whatever order they came in,
/// each with its kind and its length in front.
pub fn content_hash(content: &Value) -> String {
    let mut hash = Sha256::new();
    absorb(&mut hash, content);
    let digits = hash.finalize().into_iter().take(HASH_BYTES).flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)).collect()
}

fn absorb(hash: &mut Sha256, value: &Value) {
    match value {
        Value::Null => hash.update(b"n"),
        Value::Bool(false) => hash.update(b"f"),
        Value::Bool(true) => hash.update(b"t"),
        Value::Number(number) => absorb_text(hash, b'#', &number.to_string()),
        Value::String(text) => absorb_text(hash, b'"', text),
        Value::Array(values) => {
            absorb_length(hash, b'[', values.len());
            for value in values {
                absorb(hash, value);
            }
        }
        Value::Object(fields) => {
            absorb_length(hash, b'{', fields.len());
            // A crate somewhere in a build may make maps keep the order in which they were filled.
            let mut sorted: Vec<(&String, &Value)> = fields.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| *name);
            for (name, value) in sorted {
                absorb_text(hash, b'.', name);
                absorb(hash, value);
            }
        }
    }
}

fn absorb_text(hash: &mut Sha256, kind: u8, text: &str) {
    absorb_length(hash, kind, text.len());
    hash.update(text.as_bytes());
}

fn absorb_length(hash: &mut Sha256, kind: u8, length: usize) {
    hash.update([kind]);
    hash.update((length as u64).to_le_bytes());
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectVersion {
    /// Which object.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: String,
    /// As [`Object::content_hash`].
    pub content_hash: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_order_of_fields_does_not_count_and_the_order_of_values_does() {
        let read = |text: &str| content_hash(&serde_json::from_str(text).unwrap());
        assert_eq!(
            read(r#"{"a": 1, "b": {"c": [1, 2], "d": null}}"#),
            read(r#"{"b":{"d":null,"c":[1,2]},"a":1}"#)
        );
        assert_ne!(read(r#"[1, 2]"#), read(r#"[2, 1]"#));
    }

    #[test]
    fn what_looks_alike_is_not_the_same() {
        let contents = [
            json!(null),
            json!(false),
            json!(""),
            json!([]),
            json!({}),
            json!([""]),
            json!(["", ""]),
            json!("1"),
            json!(1),
            json!(["ab", "c"]),
            json!(["a", "bc"]),
            json!({"a": "b"}),
            json!({"a": {"b": null}}),
            json!({"a": null, "b": null}),
        ];
        let versions: std::collections::BTreeSet<String> = contents.iter().map(content_hash).collect();
        assert_eq!(versions.len(), contents.len());
    }

    #[test]
    fn another_release_comes_to_the_same() {
        let map =
            json!({"kind": "ConfigMap", "metadata": {"name": "page"}, "data": {"a": "b"}, "immutable": true});
        assert_eq!(content_hash(&map), "ad63601adf5af798571dde756f0b4707");
    }
}
