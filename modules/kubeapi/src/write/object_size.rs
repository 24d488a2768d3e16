//! How large an object may be.

use serde_json::Value;

use crate::error::ApiError;

/// 1.5 MiB of an object as it is stored, as etcd takes of a request.
pub(super) const OBJECT_MAX: usize = 3 << 19;

/// An object is measured with its defaults, which may be more than what a client sent. One that was larger may stay as large, so that
/// it can be let go of.
///
/// # Errors
/// 413.
pub(super) fn check(old: Option<&Value>, object: &Value) -> Result<(), ApiError> {
    let size = stored_size(object);
    if size <= OBJECT_MAX || old.is_some_and(|old| size <= stored_size(old)) {
        return Ok(());
    }
    Err(too_large(size))
}

/// 413 for an object that comes to `size` bytes, or to more.
pub(super) fn too_large(size: usize) -> ApiError {
    ApiError::too_large(&format!("limit is {OBJECT_MAX}, the object with its defaults comes to {size}"))
}

/// How many bytes an object is as JSON, but that texts count as they are, without escapes: etcd has those of built-in kinds so, and a
/// ConfigMap of 1 MiB may be all line ends.
pub(super) fn stored_size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(number) => number.to_string().len(),
        Value::String(text) => text.len() + 2,
        Value::Array(items) => 2 + items.iter().map(|item| stored_size(item) + 1).sum::<usize>(),
        Value::Object(fields) => {
            2 + fields.iter().map(|(name, value)| name.len() + 4 + stored_size(value)).sum::<usize>()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_larger_may_become_less() {
        let of = |bytes: usize| json!({"data": {"k": "\n".repeat(bytes)}});
        assert_eq!(check(None, &of(3 << 18)), Ok(()), "escapes are not counted");
        assert_eq!(check(None, &of(OBJECT_MAX)).unwrap_err().code(), 413);
        assert_eq!(check(Some(&of(OBJECT_MAX + 9)), &of(OBJECT_MAX)), Ok(()));
        assert_eq!(check(Some(&of(OBJECT_MAX)), &of(OBJECT_MAX + 9)).unwrap_err().code(), 413);
    }
}
