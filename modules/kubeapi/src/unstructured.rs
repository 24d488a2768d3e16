//! Reading and writing fields of objects that are kept as JSON.

use serde_json::{Map, Value};

/// 64 lists and objects around the innermost value: how deep an object may be. What nests 128 deep cannot be read again by
/// common readers of JSON, and a list, a watch, a patch and `managedFields` put an object into something else.
pub const DEPTH_MAX: usize = 64;

/// How many lists and objects are around the innermost value; `most` if there are more.
pub fn depth(value: &Value, most: usize) -> usize {
    let deepest = |depths: &mut dyn Iterator<Item = usize>| depths.max().unwrap_or_default();
    match (value, most.checked_sub(1)) {
        (_, None) => 0,
        (Value::Object(fields), Some(most)) => {
            1 + deepest(&mut fields.values().map(|inner| depth(inner, most)))
        }
        (Value::Array(items), Some(most)) => 1 + deepest(&mut items.iter().map(|inner| depth(inner, most))),
        (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_), Some(_)) => 0,
    }
}

/// The text at a JSON pointer (RFC 6901).
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The list at a JSON pointer; empty if there is none.
pub fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The texts of the list at a JSON pointer.
pub fn strings(object: &Value, pointer: &str) -> Vec<String> {
    list(object, pointer).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The list at `object[name]`, to be changed; empty if there is none.
pub fn items<'a>(object: &'a mut Value, name: &str) -> &'a mut [Value] {
    object.get_mut(name).and_then(Value::as_array_mut).map(Vec::as_mut_slice).unwrap_or_default()
}

/// The number at a JSON pointer.
pub fn number(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

/// `value` as fields, made so if it is something else.
pub fn as_fields(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let Value::Object(fields) = value else { unreachable!("made an object above") };
    fields
}

/// `object[name]`, null if it was not there.
pub fn entry<'a>(object: &'a mut Value, name: &str) -> &'a mut Value {
    as_fields(object).entry(name).or_insert(Value::Null)
}

/// Sets `object[name]` if it is not there.
pub fn default(object: &mut Value, name: &str, value: Value) {
    let here = entry(object, name);
    if here.is_null() {
        *here = value;
    }
}

/// Takes `object[name]` away.
pub fn remove(object: &mut Value, name: &str) -> Option<Value> {
    object.as_object_mut().and_then(|fields| fields.remove(name))
}

/// Puts `value` at `object[name]`; nothing if there is none.
pub fn put(object: &mut Value, name: &str, value: Option<Value>) {
    match value {
        Some(value) => {
            as_fields(object).insert(name.to_owned(), value);
        }
        None => {
            remove(object, name);
        }
    }
}

/// Drops null fields, as a typed server does when it reads them.
pub fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The object's name.
pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// The object's namespace; empty for cluster-scoped ones.
pub fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}
