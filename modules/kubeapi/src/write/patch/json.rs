//! JSON patch (RFC 6902), within limits.

use std::io;

use json_patch::PatchOperation;
use serde_json::Value;

use crate::error::ApiError;
use crate::request::BODY_MAX;
use crate::unstructured::{DEPTH_MAX, depth};

/// 10,000 operations at most, as with a real server.
const OPERATIONS_MAX: usize = 10_000;

/// Changes `object` by `patch`.
pub(super) fn apply(object: &mut Value, patch: &Value) -> Result<(), ApiError> {
    let count = patch.as_array().map_or(0, Vec::len);
    if count > OPERATIONS_MAX {
        let what = format!("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {count}");
        return Err(ApiError::too_large(&what));
    }
    let patch: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
    let mut copied = 0;
    for (at, operation) in patch.0.iter().enumerate() {
        let value = match operation {
            PatchOperation::Add(add) => Some(&add.value),
            PatchOperation::Replace(replace) => Some(&replace.value),
            PatchOperation::Copy(copy) => object.pointer(copy.from.as_str()),
            PatchOperation::Move(shift) => object.pointer(shift.from.as_str()),
            PatchOperation::Remove(_) | PatchOperation::Test(_) => None,
        };
        if matches!(operation, PatchOperation::Copy(_) | PatchOperation::Move(_)) {
            // A few that copy what was copied before would fill the memory.
            copied += value.map_or(0, size);
            if copied > BODY_MAX {
                let what =
                    format!("the accumulated size of copies is {copied}, exceeding the limit {BODY_MAX}");
                return Err(ApiError::unprocessable(&what));
            }
        }
        if value
            .is_some_and(|value| operation.path().tokens().count() + depth(value, DEPTH_MAX + 1) > DEPTH_MAX)
        {
            return Err(ApiError::unprocessable(&format!("operation '/{at}' nests deeper than {DEPTH_MAX}")));
        }
        json_patch::patch(object, std::slice::from_ref(operation)).map_err(|mut error| {
            error.operation = at;
            ApiError::unprocessable(&error.to_string())
        })?;
    }
    Ok(())
}

/// How many bytes `value` is as JSON.
pub(super) fn size(value: &Value) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Neither a value nor a counter can fail.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refusal(patch: Vec<Value>) -> ApiError {
        apply(&mut json!({"data": {"k": "v"}}), &Value::from(patch)).unwrap_err()
    }

    #[test]
    fn operations_are_counted() {
        let test = json!({"op": "test", "path": "/data/k", "value": "v"});
        let mut object = json!({"data": {"k": "v"}});
        apply(&mut object, &Value::from(vec![test.clone(); OPERATIONS_MAX])).unwrap();
        let error = refusal(vec![test; OPERATIONS_MAX + 1]);
        assert_eq!(error.code(), 413);
        assert!(error.message.ends_with("in a JSON patch is 10000, got 10001"), "{}", error.message);
    }

    #[test]
    fn copies_cannot_double_without_end() {
        let mut patch = vec![json!({"op": "add", "path": "/data/0", "value": "x".repeat(1024)})];
        let double = |n: usize| json!({"op": "copy", "from": "/data", "path": format!("/copy{n}")});
        let back =
            |n: usize| json!({"op": "copy", "from": format!("/copy{n}"), "path": format!("/data/{n}")});
        patch.extend((1..20).flat_map(|n| [double(n), back(n)]));
        let error = refusal(patch);
        assert!(error.code() == 422 && error.message.contains("exceeding the limit"), "{}", error.message);
    }

    #[test]
    fn nothing_nests_deeper_than_it_can_be_read() {
        // Each puts the whole into its own innermost place.
        let mut path = String::new();
        let patch = (0..20).map(|n| {
            path = format!("{path}/a{n}");
            json!({"op": "copy", "from": "", "path": path})
        });
        let mut object = json!({});
        let error = apply(&mut object, &Value::from(patch.collect::<Vec<_>>())).unwrap_err();
        assert!(error.code() == 422 && error.message.contains("nests deeper than 64"), "{}", error.message);
        serde_json::from_str::<Value>(&object.to_string()).unwrap();
    }

    #[test]
    fn the_operation_that_failed_is_named() {
        let test = json!({"op": "test", "path": "/data/k", "value": "v"});
        let error = refusal(vec![test, json!({"op": "remove", "path": "/x"})]);
        assert!(error.message.contains("operation '/1' failed at path '/x'"), "{}", error.message);
    }
}
