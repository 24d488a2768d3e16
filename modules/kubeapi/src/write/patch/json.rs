//! JSON patch (RFC 6902), within limits.

use std::io;

use json_patch::PatchOperation;
use serde_json::Value;

use crate::error::{ApiError, beginning};
use crate::request::BODY_MAX;
use crate::unstructured::{DEPTH_MAX, depth};

/// 10,000 operations at most, as with a real server.
const OPERATIONS_MAX: usize = 10_000;
/// 16,777,216 elements of arrays that operations may move in all, half a gigabyte of memory: an element that comes or goes at the
/// beginning of an array moves all behind it, and 10,000 of those in an array of all the values that a body may have would take
/// a core for many seconds.
const SHIFTED_MAX: usize = 1 << 24;

/// 256 letters of a path or an operation's name are repeated in a refusal.
const SHOWN_MAX: usize = 256;

/// Changes `object` by `patch`.
pub(super) fn apply(object: &mut Value, patch: &Value) -> Result<(), ApiError> {
    let count = patch.as_array().map_or(0, Vec::len);
    if count > OPERATIONS_MAX {
        let what = format!("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {count}");
        return Err(ApiError::too_large(&what));
    }
    let patch: json_patch::Patch = serde_json::from_value(patch.clone()).map_err(|error| {
        ApiError::bad_request(format!("error decoding patch: {}", beginning(&error.to_string(), SHOWN_MAX)))
    })?;
    let (mut copied, mut moved) = (0, 0);
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
        moved += shifted(object, operation);
        if moved > SHIFTED_MAX {
            let what = format!(
                "the operations up to '/{at}' move {moved} elements of arrays, exceeding the limit {SHIFTED_MAX}: \
                 replace the arrays instead"
            );
            return Err(ApiError::unprocessable(&what));
        }
        json_patch::patch(object, std::slice::from_ref(operation)).map_err(|error| {
            let path = beginning(error.path.as_str(), SHOWN_MAX);
            ApiError::unprocessable(&format!("operation '/{at}' failed at path '{path}': {}", error.kind))
        })?;
    }
    Ok(())
}

/// How many elements of arrays change their place by an operation: all behind one that comes or goes.
fn shifted(object: &Value, operation: &PatchOperation) -> usize {
    let behind = |path: &str| {
        let Some((array, index)) = path.rsplit_once('/') else { return 0 };
        let Some(Value::Array(elements)) = object.pointer(array) else { return 0 };
        // `-` is the end.
        index.parse::<usize>().map_or(0, |index| elements.len().saturating_sub(index))
    };
    match operation {
        PatchOperation::Add(add) => behind(add.path.as_str()),
        PatchOperation::Remove(remove) => behind(remove.path.as_str()),
        PatchOperation::Copy(copy) => behind(copy.path.as_str()),
        PatchOperation::Move(shift) => behind(shift.from.as_str()) + behind(shift.path.as_str()),
        PatchOperation::Replace(_) | PatchOperation::Test(_) => 0,
    }
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
    fn long_arrays_are_not_moved_about_without_end() {
        let mut object = json!({"data": vec![0; 100_000]});
        let first = |n: usize| Value::from(vec![json!({"op": "add", "path": "/data/0", "value": 1}); n]);
        apply(&mut object, &first(100)).unwrap();
        let before = object.clone();
        let error = apply(&mut object, &first(OPERATIONS_MAX)).unwrap_err();
        assert!(error.code() == 422 && error.message.contains("move 16"), "{}", error.message);
        assert!(object["data"].as_array().unwrap().len() < before["data"].as_array().unwrap().len() + 200);
        // Whoever adds at the end, or replaces, moves nothing.
        let last = json!({"op": "add", "path": "/data/-", "value": 1});
        apply(&mut object, &Value::from(vec![last; OPERATIONS_MAX])).unwrap();
        for operation in [
            json!({"op": "remove", "path": "/data/0"}),
            json!({"op": "move", "from": "/data/0", "path": "/data/1"}),
            json!({"op": "copy", "from": "/data/0", "path": "/data/0"}),
        ] {
            let mut object = json!({"data": vec![0; 200_000]});
            let error = apply(&mut object, &Value::from(vec![operation; OPERATIONS_MAX])).unwrap_err();
            assert!(error.message.contains("elements of arrays"), "{}", error.message);
        }
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

    #[test]
    fn a_refusal_repeats_the_beginning_of_a_path_alone() {
        let long = format!("/\u{1f600}{}", "x".repeat(1 << 20));
        let value = json!("");
        for operation in [
            json!({"op": "remove", "path": long}),
            json!({"op": "test", "path": long, "value": value}),
            json!({"op": "replace", "path": long, "value": value}),
            json!({"op": "add", "path": format!("{long}/y"), "value": value}),
            json!({"op": "copy", "from": long, "path": "/data/c"}),
            json!({"op": "move", "from": long, "path": "/data/c"}),
            json!({"op": long, "path": "/data/k"}),
            json!({"op": "remove", "path": &long[1..]}),
        ] {
            let error = refusal(vec![operation.clone()]);
            assert!(error.message.len() < 2_000, "{} bytes for {}", error.message.len(), operation["op"]);
        }
    }
}
