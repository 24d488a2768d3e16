//! The part of JSON Schema that the chart's schema is written in. A keyword that is not known here is an error, so that nothing is
//! held by Helm and let through here.

use serde_json::{Map, Value};

/// How deep values may lie: deeper than any affinity.
const DEPTH_MAX: usize = 64;

/// Keywords that bound nothing.
const WORDS: [&str; 4] = ["$schema", "title", "description", "default"];
/// Keywords that do.
const BOUNDS: [&str; 12] = [
    "type",
    "enum",
    "properties",
    "additionalProperties",
    "required",
    "items",
    "minItems",
    "maxItems",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
];

/// A schema.
pub(crate) struct Schema {
    root: Value,
}

impl Schema {
    /// Reads one.
    ///
    /// # Errors
    /// When it has a keyword that is not known here.
    pub(crate) fn parse(text: &str) -> Result<Schema, String> {
        let root: Value = serde_json::from_str(text).map_err(|error| format!("the schema: {error}"))?;
        check_keywords(&root)?;
        Ok(Schema { root })
    }

    /// A sentence for everything in the values that is not right.
    pub(crate) fn defects(&self, values: &Value) -> Vec<String> {
        let mut defects = Vec::new();
        check(&self.root, values, "", &mut defects, DEPTH_MAX);
        defects
    }
}

fn check_keywords(schema: &Value) -> Result<(), String> {
    let Some(schema) = schema.as_object() else {
        return if schema.is_boolean() {
            Ok(())
        } else {
            Err("the schema has a part that is none".to_owned())
        };
    };
    if let Some(unknown) =
        schema.keys().find(|key| !WORDS.contains(&key.as_str()) && !BOUNDS.contains(&key.as_str()))
    {
        return Err(format!("the schema has the keyword `{unknown}`, which is not known here"));
    }
    let of_properties = schema.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::values);
    let below = ["additionalProperties", "items"].into_iter().filter_map(|key| schema.get(key));
    of_properties.chain(below).try_for_each(check_keywords)
}

fn check(schema: &Value, value: &Value, path: &str, defects: &mut Vec<String>, depth: usize) {
    let Some(schema) = schema.as_object() else { return };
    if depth == 0 {
        return defects.push(format!("`{path}` lies too deep"));
    }
    let shown = if path.is_empty() { "the values" } else { path };
    if let Some(types) = schema.get("type")
        && !is_of(types, value)
    {
        return defects.push(format!("`{shown}` is {}, not {}", brief(value), named(types)));
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let allowed: Vec<String> = allowed.iter().map(brief).collect();
        return defects.push(format!("`{shown}` is {}, not one of {}", brief(value), allowed.join(", ")));
    }
    let bound = |keyword: &str| schema.get(keyword).and_then(Value::as_f64);
    let mut within = |amount: f64, least: &str, most: &str, what: &str| {
        if bound(least).is_some_and(|least| amount < least) || bound(most).is_some_and(|most| amount > most) {
            let from = bound(least).map_or(String::new(), |least| format!(" at least {least}"));
            let to = bound(most).map_or(String::new(), |most| format!(" at most {most}"));
            defects.push(format!("`{shown}` is {}: {what}{from}{to}", brief(value)));
        }
    };
    match value {
        Value::Number(number) => {
            within(number.as_f64().unwrap_or(f64::NAN), "minimum", "maximum", "write a number of");
        }
        Value::String(text) => {
            #[allow(clippy::cast_precision_loss)] // Texts are shorter than 2^53.
            within(text.chars().count() as f64, "minLength", "maxLength", "its characters have to be");
        }
        Value::Array(items) => {
            #[allow(clippy::cast_precision_loss)] // And so are lists.
            within(items.len() as f64, "minItems", "maxItems", "its items have to be");
            let of_each = schema.get("items").unwrap_or(&Value::Null);
            for (at, item) in items.iter().enumerate() {
                check(of_each, item, &format!("{path}[{at}]"), defects, depth - 1);
            }
        }
        Value::Object(fields) => check_fields(schema, fields, path, defects, depth - 1),
        Value::Null | Value::Bool(_) => {}
    }
}

fn check_fields(
    schema: &Map<String, Value>,
    fields: &Map<String, Value>,
    path: &str,
    defects: &mut Vec<String>,
    depth: usize,
) {
    let at = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, value) in fields {
        match (properties.and_then(|properties| properties.get(name)), schema.get("additionalProperties")) {
            (Some(of), _) => check(of, value, &at(name), defects, depth),
            (None, Some(Value::Bool(false))) => {
                let meant =
                    slips::meant(name, properties.into_iter().flat_map(Map::keys).map(String::as_str));
                let cure = meant.map_or(String::new(), |meant| format!(": write `{}`", at(meant)));
                defects.push(format!("there is no value `{}`{cure}", at(&name.escape_debug().to_string())));
            }
            (None, Some(of)) => check(of, value, &at(name), defects, depth),
            (None, None) => {}
        }
    }
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
        if let Some(name) = name.as_str().filter(|name| !fields.contains_key(*name)) {
            defects.push(format!("the value `{}` is missing", at(name)));
        }
    }
}

fn is_of(types: &Value, value: &Value) -> bool {
    let is = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        // As Helm has it, 2.0 is one.
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "null" => value.is_null(),
        _ => false,
    };
    match types {
        Value::String(name) => is(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).any(is),
        _ => false,
    }
}

fn named(types: &Value) -> String {
    let name = |of: &Value| of.as_str().unwrap_or("?").to_owned();
    match types {
        Value::Array(names) => names.iter().map(name).collect::<Vec<_>>().join(" or "),
        one => name(one),
    }
}

/// A value in a sentence.
fn brief(value: &Value) -> String {
    let text = match value {
        Value::String(text) => format!("`{}`", text.escape_debug()),
        Value::Object(_) => return "a mapping".to_owned(),
        Value::Array(_) => return "a list".to_owned(),
        Value::Null => return "empty".to_owned(),
        other => other.to_string(),
    };
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_keyword_that_is_not_known_here_is_no_schema() {
        assert!(Schema::parse(r#"{"type": "object", "properties": {"a": {"pattern": "x"}}}"#).is_err());
        assert!(Schema::parse(r#"{"items": {"oneOf": []}}"#).is_err());
        assert!(Schema::parse("[]").is_err());
    }

    #[test]
    fn every_bound_is_held() {
        let schema = json!({
            "type": "object", "additionalProperties": false, "required": ["name"],
            "properties": {
                "name": {"type": "string", "minLength": 1},
                "port": {"type": "integer", "minimum": 1, "maximum": 65535},
                "list": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "string"}},
                "mode": {"enum": ["auto", true, false]},
                "free": {"type": "object", "additionalProperties": {"type": ["string", "null"]}},
            },
        });
        let schema = Schema::parse(&schema.to_string()).unwrap();
        let good =
            json!({"name": "a", "port": 1.0, "list": ["x"], "mode": true, "free": {"k": null, "l": "m"}});
        assert_eq!(schema.defects(&good), [] as [&str; 0]);
        for (bad, word) in [
            (json!({"name": ""}), "at least 1"),
            (json!({}), "`name` is missing"),
            (json!({"name": "a", "port": 0}), "`port` is 0"),
            (json!({"name": "a", "port": 1.5}), "not integer"),
            (json!({"name": "a", "port": 65536}), "at most 65535"),
            (json!({"name": "a", "list": []}), "`list` is a list"),
            (json!({"name": "a", "list": [1]}), "`list[0]`"),
            (json!({"name": "a", "mode": "yes"}), "one of `auto`, true, false"),
            (json!({"name": "a", "free": {"k": 1}}), "`free.k` is 1, not string or null"),
            (json!({"name": "a", "other\n": 1}), r"no value `other\n`"),
            (json!({"name": "a", "prot": 1}), "no value `prot`: write `port`"),
            (json!([]), "the values"),
        ] {
            let defects = schema.defects(&bad);
            assert!(defects.iter().any(|defect| defect.contains(word)), "{bad}: {defects:?}");
        }
    }

    #[test]
    fn values_without_a_bottom_are_refused() {
        let mut deep = json!(1);
        for _ in 0..DEPTH_MAX + 1 {
            deep = json!([deep]);
        }
        let mut schema = json!({});
        for _ in 0..DEPTH_MAX + 2 {
            schema = json!({"items": schema});
        }
        let schema = Schema { root: schema };
        assert_eq!(schema.defects(&deep).len(), 1);
    }
}
