//! Objects from the store by their types.

use serde::de::DeserializeOwned;

/// Reads an object by way of a tree. Pods are read so, since their defaults are put into the tree; the code that makes a type of a tree
/// is some 20 KiB for each large one, and is then there once.
///
/// # Errors
/// When it is no JSON or not of the type.
pub(crate) fn read<T: DeserializeOwned>(json: &[u8]) -> serde_json::Result<T> {
    serde_json::from_value(serde_json::from_slice(json)?)
}
