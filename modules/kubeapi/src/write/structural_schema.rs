//! Structural schemas of custom kinds: pruning, defaulting and validation of their objects.

mod validation;

pub(super) use validation::is_held;

use serde_json::{Value, json};

use super::object_size::{OBJECT_MAX, stored_size, too_large};
use crate::error::{ApiError, FieldError, beginning};
use crate::kind::CustomKind;

/// 2,000,000 fields of a schema are looked for in an object.
const STEPS_MAX: usize = 2_000_000;
/// 256 letters of a name, and of names 1,024 bytes, are of a path. A path is made for each item of a list.
const PATH_MAX: (usize, usize) = (256, 1024);

impl CustomKind {
    /// Takes away what the schema does not know; answers the paths.
    pub(super) fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut unknown = Vec::new();
        let known_at_root = ["apiVersion", "kind", "metadata"];
        prune(object, &self.schema, "", &known_at_root, &mut unknown);
        unknown
    }

    /// Fills in the schema's defaults.
    ///
    /// # Errors
    /// 413 before they come to more than an object may be, 422 when they are looked for without end.
    pub(super) fn default(&self, object: &mut Value) -> Result<(), ApiError> {
        Defaults { bytes: 0, steps: 0 }.fill(object, &self.schema)
    }

    /// Everything that the schema does not allow of an object, and of one that was `old`.
    pub(super) fn validate(&self, old: Option<&Value>, object: &Value) -> Vec<FieldError> {
        let mut causes = validation::causes(object, &self.schema);
        causes.extend(old.into_iter().flat_map(|old| validation::changes(old, object, &self.schema)));
        causes
    }
}

fn join(path: &str, name: &str) -> String {
    let name = beginning(name, PATH_MAX.0);
    match path.len() {
        0 => name,
        length if length > PATH_MAX.1 => path.to_owned(),
        _ => format!("{path}.{name}"),
    }
}

fn item_path(path: &str, at: usize) -> String {
    if path.len() > PATH_MAX.1 { path.to_owned() } else { format!("{path}[{at}]") }
}

fn preserves(schema: &Value) -> bool {
    schema["x-kubernetes-preserve-unknown-fields"] == json!(true)
}

fn is_embedded(schema: &Value) -> bool {
    schema["x-kubernetes-embedded-resource"] == json!(true)
}

fn prune(value: &mut Value, schema: &Value, path: &str, known: &[&str], unknown: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let properties = schema["properties"].as_object();
            let additional = &schema["additionalProperties"];
            let keeps_all = preserves(schema) || *additional == json!(true);
            fields.retain(|name, _| {
                let keep = known.contains(&name.as_str())
                    || properties.is_some_and(|p| p.contains_key(name))
                    || additional.is_object()
                    || keeps_all;
                if !keep {
                    unknown.push(join(path, name));
                }
                keep
            });
            for (name, value) in fields {
                if known.contains(&name.as_str()) {
                    continue;
                }
                let inner =
                    properties.and_then(|p| p.get(name)).or(additional.is_object().then_some(additional));
                if let Some(inner) = inner {
                    let known: &[&str] =
                        if is_embedded(inner) { &["apiVersion", "kind", "metadata"] } else { &[] };
                    prune(value, inner, &join(path, name), known, unknown);
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter_mut().enumerate() {
                prune(item, &schema["items"], &item_path(path, at), &[], unknown);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What defaults have come to so far: a short item may have a long default, and be there a hundred thousand times.
struct Defaults {
    bytes: usize,
    steps: usize,
}

impl Defaults {
    fn fill(&mut self, value: &mut Value, schema: &Value) -> Result<(), ApiError> {
        match value {
            Value::Object(fields) => {
                for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
                    self.steps += 1;
                    if self.steps > STEPS_MAX {
                        let what =
                            format!("defaults are looked for in more than {STEPS_MAX} places of the object");
                        return Err(ApiError::unprocessable(&what));
                    }
                    if let Some(default) = inner.get("default")
                        && fields.get(name).is_none_or(|v| v.is_null() && inner["nullable"] != json!(true))
                    {
                        self.bytes += name.len() + stored_size(default);
                        if self.bytes > OBJECT_MAX {
                            return Err(too_large(self.bytes));
                        }
                        fields.insert(name.clone(), default.clone());
                    }
                    if let Some(value) = fields.get_mut(name) {
                        self.fill(value, inner)?;
                    }
                }
                if schema["additionalProperties"].is_object() {
                    for value in fields.values_mut() {
                        self.fill(value, &schema["additionalProperties"])?;
                    }
                }
                Ok(())
            }
            Value::Array(items) => items.iter_mut().try_for_each(|item| self.fill(item, &schema["items"])),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn custom(schema: Value) -> CustomKind {
        CustomKind { schema, columns: Vec::new(), scale: None }
    }

    #[test]
    fn unknown_fields_go_and_defaults_come() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"x": {}}}},
            "size": {"type": "integer", "default": 3},
        }}}});
        let custom = custom(schema);
        let mut object = json!({"kind": "X", "metadata": {"name": "n"}, "extra": 1,
            "spec": {"other": 1, "free": {"any": {"thing": 1}}, "map": {"k": {"x": 1, "y": 2}}}});
        assert_eq!(custom.prune(&mut object), ["extra", "spec.other", "spec.map.k.y"]);
        custom.default(&mut object).unwrap();
        assert_eq!(object["spec"], json!({"free": {"any": {"thing": 1}}, "map": {"k": {"x": 1}}, "size": 3}));
        assert_eq!(object["metadata"]["name"], "n");
    }

    #[test]
    fn defaults_end_where_an_object_would_be_too_large() {
        let item =
            json!({"type": "object", "properties": {"k": {"type": "string", "default": "x".repeat(1000)}}});
        let items = custom(json!({"type": "object", "properties": {"l": {"type": "array", "items": item}}}));
        let mut object = json!({"l": vec![json!({}); 1000]});
        items.default(&mut object).unwrap();
        assert_eq!(object["l"][999]["k"].as_str().map(str::len), Some(1000));
        let mut many = json!({"l": vec![json!({}); 100_000]});
        let error = items.default(&mut many).unwrap_err();
        assert_eq!(error.code(), 413, "{}", error.message);
        assert!(stored_size(&many) < 3 * OBJECT_MAX, "the work ends there, too");
        let fields: Value = (0..1000).map(|n| (format!("f{n}"), json!({"type": "string"}))).collect();
        let wide = json!({"type": "object", "properties": fields});
        let wide = custom(json!({"type": "object", "properties": {"l": {"type": "array", "items": wide}}}));
        assert_eq!(wide.default(&mut json!({"l": vec![json!({}); 100_000]})).unwrap_err().code(), 422);
    }
}
