//! Structural schemas of custom kinds: pruning, defaulting and validation of their objects.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::error::FieldError;
use crate::kind::CustomKind;
use crate::unstructured::{list, text};

impl CustomKind {
    /// Takes away what the schema does not know; answers the paths.
    pub(super) fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut unknown = Vec::new();
        let known_at_root = ["apiVersion", "kind", "metadata"];
        prune(object, &self.schema, "", &known_at_root, &mut unknown);
        unknown
    }

    /// Fills in the schema's defaults.
    pub(super) fn default(&self, object: &mut Value) {
        default(object, &self.schema);
    }

    /// Everything that the schema does not allow.
    pub(super) fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut causes = Vec::new();
        validate(object, &self.schema, "", &mut causes);
        causes
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
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
                prune(item, &schema["items"], &format!("{path}[{at}]"), &[], unknown);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn default(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
                if let Some(default) = inner.get("default")
                    && fields.get(name).is_none_or(|v| v.is_null() && inner["nullable"] != json!(true))
                {
                    fields.insert(name.clone(), default.clone());
                }
                if let Some(value) = fields.get_mut(name) {
                    self::default(value, inner);
                }
            }
            if schema["additionalProperties"].is_object() {
                for value in fields.values_mut() {
                    self::default(value, &schema["additionalProperties"]);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| self::default(item, &schema["items"])),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn validate(value: &Value, schema: &Value, path: &str, causes: &mut Vec<FieldError>) {
    let at_root = path.is_empty();
    let shown = if at_root { "<nil>" } else { path };
    if value.is_null() {
        if schema["nullable"] != json!(true) && schema.get("type").is_some() {
            causes.push(wrong_type(shown, value, text(schema, "/type")));
        }
        return;
    }
    let wanted = text(schema, "/type");
    let found = type_of(value);
    let fits = match wanted {
        "" => schema["x-kubernetes-int-or-string"] != json!(true) || matches!(found, "integer" | "string"),
        "number" => matches!(found, "integer" | "number"),
        // 1.0 is an integer to JSON schema.
        "integer" => found == "integer" || value.as_f64().is_some_and(|n| n.fract() == 0.0),
        wanted => wanted == found,
    };
    if !fits {
        causes.push(wrong_type(shown, value, if wanted.is_empty() { "integer or string" } else { wanted }));
        return;
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        let allowed: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
        causes.push(FieldError::unsupported(shown, value, &allowed));
    }
    combined(value, schema, path, shown, causes);
    match value {
        Value::Object(fields) => validate_object(value, fields, schema, path, causes),
        Value::Array(items) => validate_array(value, items, schema, path, shown, causes),
        Value::String(string) => validate_string(value, string, schema, shown, causes),
        Value::Number(number) => {
            let n = number.as_f64().unwrap_or_default();
            let exclusive = |name: &str| schema[name] == json!(true);
            if let Some(least) = schema["minimum"].as_f64()
                && (n < least || (exclusive("exclusiveMinimum") && n <= least))
            {
                let what = format!("should be greater than or equal to {least}");
                causes.push(FieldError::invalid(shown, value, &format!("{shown} in body {what}")));
            }
            if let Some(most) = schema["maximum"].as_f64()
                && (n > most || (exclusive("exclusiveMaximum") && n >= most))
            {
                let what = format!("should be less than or equal to {most}");
                causes.push(FieldError::invalid(shown, value, &format!("{shown} in body {what}")));
            }
            if let Some(step) = schema["multipleOf"].as_f64()
                && step > 0.0
                && (n / step).fract() != 0.0
            {
                causes.push(FieldError::invalid(shown, value, &format!("should be a multiple of {step}")));
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn wrong_type(shown: &str, value: &Value, wanted: &str) -> FieldError {
    let what = format!("{shown} in body must be of type {wanted}: \"{}\"", type_of(value));
    FieldError { reason: "FieldValueTypeInvalid", ..FieldError::invalid(shown, value, &what) }
}

fn combined(value: &Value, schema: &Value, path: &str, shown: &str, causes: &mut Vec<FieldError>) {
    let passes = |schema: &Value| {
        let mut inner = Vec::new();
        validate(value, schema, path, &mut inner);
        inner.is_empty()
    };
    for all in list(schema, "/allOf") {
        validate(value, all, path, causes);
    }
    if let Some(any) = schema["anyOf"].as_array()
        && !any.iter().any(passes)
    {
        causes.push(FieldError::invalid(shown, value, "must validate at least one schema (anyOf)"));
    }
    if let Some(one) = schema["oneOf"].as_array()
        && one.iter().filter(|s| passes(s)).count() != 1
    {
        causes.push(FieldError::invalid(shown, value, "must validate one and only one schema (oneOf)"));
    }
    if schema["not"].is_object() && passes(&schema["not"]) {
        causes.push(FieldError::invalid(shown, value, "must not validate the schema (not)"));
    }
}

fn validate_object(
    value: &Value,
    fields: &serde_json::Map<String, Value>,
    schema: &Value,
    path: &str,
    causes: &mut Vec<FieldError>,
) {
    let shown = if path.is_empty() { "<nil>" } else { path };
    // Of the rules in CEL only the one that refuses everything is known here: a version that is there to say what to write.
    let rules = list(schema, "/x-kubernetes-validations").iter();
    for rule in rules.filter(|rule| text(rule, "/rule").trim() == "false") {
        causes.push(FieldError::invalid(shown, &json!("object"), text(rule, "/message")));
    }
    for required in list(schema, "/required").iter().filter_map(Value::as_str) {
        if !fields.contains_key(required) {
            causes.push(FieldError::required(join(path, required), ""));
        }
    }
    let properties = schema["properties"].as_object();
    for (name, inner) in fields {
        if path.is_empty() && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            continue;
        }
        if let Some(schema) = properties.and_then(|p| p.get(name)) {
            validate(inner, schema, &join(path, name), causes);
        } else if schema["additionalProperties"].is_object() {
            validate(inner, &schema["additionalProperties"], &join(path, name), causes);
        }
    }
    let count = fields.len() as u64;
    if schema["maxProperties"].as_u64().is_some_and(|most| count > most) {
        causes.push(FieldError::invalid(shown, value, "has too many properties"));
    }
    if schema["minProperties"].as_u64().is_some_and(|least| count < least) {
        causes.push(FieldError::invalid(shown, value, "has too few properties"));
    }
}

fn validate_array(
    value: &Value,
    items: &[Value],
    schema: &Value,
    path: &str,
    shown: &str,
    causes: &mut Vec<FieldError>,
) {
    let count = items.len() as u64;
    if let Some(most) = schema["maxItems"].as_u64().filter(|most| count > *most) {
        causes.push(FieldError::invalid(shown, &json!(count), &format!("must have at most {most} items")));
    }
    if let Some(least) = schema["minItems"].as_u64().filter(|least| count < *least) {
        let what = format!("{shown} in body should have at least {least} items");
        causes.push(FieldError::invalid(shown, &json!(count), &what));
    }
    for (at, item) in items.iter().enumerate() {
        validate(item, &schema["items"], &format!("{path}[{at}]"), causes);
    }
    let keys: Vec<&str> =
        list(schema, "/x-kubernetes-list-map-keys").iter().filter_map(Value::as_str).collect();
    let mut seen = BTreeSet::new();
    for (at, item) in items.iter().enumerate() {
        let identity = match text(schema, "/x-kubernetes-list-type") {
            "map" => Value::from(keys.iter().map(|key| item[*key].clone()).collect::<Vec<_>>()),
            "set" => item.clone(),
            _ if schema["uniqueItems"] == json!(true) => item.clone(),
            _ => return,
        };
        if !seen.insert(identity.to_string()) {
            causes.push(FieldError::duplicate(format!("{path}[{at}]"), item));
        }
    }
    let _ = value;
}

fn validate_string(value: &Value, string: &str, schema: &Value, shown: &str, causes: &mut Vec<FieldError>) {
    let length = string.chars().count() as u64;
    if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
        let what = format!("may not be more than {most} bytes");
        causes.push(FieldError { reason: "FieldValueTooLong", ..FieldError::invalid(shown, value, &what) });
    }
    if let Some(least) = schema["minLength"].as_u64().filter(|least| length < *least) {
        let what = format!("{shown} in body should be at least {least} chars long");
        causes.push(FieldError::invalid(shown, value, &what));
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && let Ok(regex) = regex_lite::Regex::new(pattern)
        && !regex.is_match(string)
    {
        let what = format!("{shown} in body should match '{pattern}'");
        causes.push(FieldError::invalid(shown, value, &what));
    }
    let format_fits = match text(schema, "/format") {
        "date-time" => string.parse::<jiff::Timestamp>().is_ok(),
        "date" => string.parse::<jiff::civil::Date>().is_ok(),
        "ipv4" => string.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => string.parse::<std::net::Ipv6Addr>().is_ok(),
        _ => true,
    };
    if !format_fits {
        let what = format!("{shown} in body must be of type {}", text(schema, "/format"));
        causes.push(FieldError::invalid(shown, value, &what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn custom(schema: Value) -> CustomKind {
        CustomKind { schema, columns: Vec::new(), scale: None }
    }

    fn refusals(schema: Value, object: Value) -> Vec<String> {
        custom(schema).validate(&object).into_iter().map(|c| format!("{}: {}", c.field, c.message)).collect()
    }

    #[test]
    fn a_schema_refuses_what_a_server_refuses() {
        let schema = json!({"type": "object", "required": ["spec"], "properties": {"spec": {
        "type": "object", "required": ["name"], "properties": {
            "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 3},
            "count": {"type": "integer", "minimum": 1, "maximum": 5},
            "mode": {"type": "string", "enum": ["a", "b"]},
            "port": {"x-kubernetes-int-or-string": true},
            "list": {"type": "array", "maxItems": 1, "items": {"type": "boolean"}},
        }}}});
        assert_eq!(refusals(schema.clone(), json!({"kind": "X"})), ["spec: Required value"]);
        let bad =
            json!({"spec": {"count": 9, "mode": "c", "port": true, "list": [true, "x"], "name": "ABCD"}});
        let found = refusals(schema.clone(), bad);
        for part in [
            "spec.count: Invalid value: 9: spec.count in body should be less than or equal to 5",
            "spec.mode: Unsupported value: \"c\": supported values: \"a\", \"b\"",
            "spec.port: Invalid value: true: spec.port in body must be of type integer or string: \"boolean\"",
            "spec.list: Invalid value: 2: must have at most 1 items",
            "spec.list[1]: Invalid value: \"x\": spec.list[1] in body must be of type boolean: \"string\"",
            "spec.name: Invalid value: \"ABCD\": spec.name in body should match '^[a-z]+$'",
        ] {
            assert!(found.iter().any(|refusal| refusal == part), "{part}\n{found:#?}");
        }
        assert_eq!(refusals(schema, json!({"spec": {"name": "abc", "count": 5.0, "port": 80}})), [""; 0]);
    }

    #[test]
    fn a_version_that_takes_nothing_says_what_to_write() {
        let rules = json!([{"rule": "false", "message": "write v1beta1"}, {"rule": "self.a > 1", "message": "not known here"}]);
        let schema = json!({"type": "object", "x-kubernetes-validations": rules});
        assert_eq!(
            refusals(schema, json!({"kind": "X"})),
            ["<nil>: Invalid value: \"object\": write v1beta1"]
        );
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
        custom.default(&mut object);
        assert_eq!(object["spec"], json!({"free": {"any": {"thing": 1}}, "map": {"k": {"x": 1}}, "size": 3}));
        assert_eq!(object["metadata"]["name"], "n");
    }
}
