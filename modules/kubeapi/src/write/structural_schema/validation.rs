//! What a structural schema does not allow, and how long it is looked for.

use std::collections::{BTreeSet, HashMap};

use regex_lite::Regex;
use serde_json::{Value, json};

use super::{item_path, join};
use crate::error::FieldError;
use crate::unstructured::{list, text};

/// 2,000,000 looks at a value by a schema: an object may have a hundred thousand values, and a schema a hundred thousand alternatives
/// for each.
const STEPS_MAX: usize = 2_000_000;
/// 1,000 causes are kept: fewer are shown.
const CAUSES_MAX: usize = 1000;
/// 64 bytes of a pattern and of its text are read in the time of another look.
const BYTES_PER_STEP: usize = 64;

/// Everything that `schema` does not allow of `object`.
pub(super) fn causes(object: &Value, schema: &Value) -> Vec<FieldError> {
    within(STEPS_MAX, object, schema)
}

fn within(steps: usize, object: &Value, schema: &Value) -> Vec<FieldError> {
    let mut causes = Causes { found: Vec::new(), steps_left: steps, patterns: HashMap::new() };
    validate(object, schema, "", &mut causes);
    if causes.steps_left == 0 {
        let what = format!("to hold it against its schema takes more than {steps} steps");
        return vec![FieldError::forbidden("", &what)];
    }
    causes.found
}

/// What was found, and what may still be done to find more.
struct Causes<'s> {
    found: Vec<FieldError>,
    steps_left: usize,
    /// Each compiled once; none for one that is no pattern here.
    patterns: HashMap<&'s str, Option<Regex>>,
}

impl<'s> Causes<'s> {
    fn push(&mut self, cause: FieldError) {
        if self.found.len() < CAUSES_MAX {
            self.found.push(cause);
        }
    }

    /// Whether there are so many steps left, which are taken.
    fn step(&mut self, steps: usize) -> bool {
        self.steps_left = self.steps_left.saturating_sub(steps);
        self.steps_left > 0
    }

    /// Whether a schema alone has nothing against a value.
    fn passes(&mut self, value: &Value, schema: &'s Value, path: &str) -> bool {
        let before = std::mem::take(&mut self.found);
        validate(value, schema, path, self);
        std::mem::replace(&mut self.found, before).is_empty()
    }

    fn is_match(&mut self, pattern: &'s str, text: &str) -> bool {
        let compiled = self.patterns.entry(pattern).or_insert_with(|| Regex::new(pattern).ok());
        compiled.as_ref().is_none_or(|pattern| pattern.is_match(text))
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

fn validate<'s>(value: &Value, schema: &'s Value, path: &str, causes: &mut Causes<'s>) {
    if !causes.step(1) {
        return;
    }
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
        && causes.step(allowed.len())
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

fn combined<'s>(value: &Value, schema: &'s Value, path: &str, shown: &str, causes: &mut Causes<'s>) {
    for all in list(schema, "/allOf") {
        validate(value, all, path, causes);
    }
    if let Some(any) = schema["anyOf"].as_array()
        && !any.iter().any(|any| causes.passes(value, any, path))
    {
        causes.push(FieldError::invalid(shown, value, "must validate at least one schema (anyOf)"));
    }
    if let Some(one) = schema["oneOf"].as_array()
        && one.iter().filter(|one| causes.passes(value, one, path)).count() != 1
    {
        causes.push(FieldError::invalid(shown, value, "must validate one and only one schema (oneOf)"));
    }
    if schema["not"].is_object() && causes.passes(value, &schema["not"], path) {
        causes.push(FieldError::invalid(shown, value, "must not validate the schema (not)"));
    }
}

/// The rules in CEL that are known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule<'s> {
    /// `false`, of a version that is there to say what to write.
    TakesNothing,
    /// `self == oldSelf`.
    Stays,
    /// `has(self.FIELD) == has(oldSelf.FIELD)`.
    StaysThere(&'s str),
}

impl<'s> Rule<'s> {
    fn of(rule: &'s Value) -> Option<Rule<'s>> {
        match text(rule, "/rule").trim() {
            "false" => Some(Rule::TakesNothing),
            "self == oldSelf" => Some(Rule::Stays),
            rule => {
                let (now, before) = rule.split_once(" == ")?;
                let field = now.strip_prefix("has(self.")?.strip_suffix(')')?;
                let same = before.strip_prefix("has(oldSelf.")?.strip_suffix(')')? == field;
                let is_name = field.bytes().all(|byte| byte.is_ascii_alphanumeric());
                (same && is_name).then_some(Rule::StaysThere(field))
            }
        }
    }

    /// Whether a value that was `old` may be `new`.
    fn allows(self, old: &Value, new: &Value) -> bool {
        match self {
            Rule::TakesNothing => true,
            Rule::Stays => old == new,
            Rule::StaysThere(field) => old.get(field).is_some() == new.get(field).is_some(),
        }
    }
}

/// Whether objects are held against a rule in CEL. Of items of lists it is not known which one is which: there a rule over what was before holds
/// nothing.
pub(crate) fn is_held(rule: &Value, is_in_list: bool) -> bool {
    match Rule::of(rule) {
        Some(Rule::TakesNothing) => true,
        Some(Rule::Stays | Rule::StaysThere(_)) => !is_in_list,
        None => false,
    }
}

/// What rules do not allow of an object that was `old`.
pub(super) fn changes(old: &Value, new: &Value, schema: &Value) -> Vec<FieldError> {
    let mut causes = Causes { found: Vec::new(), steps_left: STEPS_MAX, patterns: HashMap::new() };
    change(old, new, schema, "", &mut causes);
    causes.found
}

fn change<'s>(old: &Value, new: &Value, schema: &'s Value, path: &str, causes: &mut Causes<'s>) {
    if !causes.step(1) {
        return;
    }
    for rule in list(schema, "/x-kubernetes-validations") {
        if Rule::of(rule).is_some_and(|known| !known.allows(old, new)) {
            let shown = if path.is_empty() { "<nil>" } else { path };
            causes.push(FieldError::invalid(shown, &json!(type_of(new)), text(rule, "/message")));
        }
    }
    let (Some(before), Some(now)) = (old.as_object(), new.as_object()) else { return };
    for (name, inner) in now {
        let schema = schema["properties"].get(name).or_else(|| schema.get("additionalProperties"));
        if let (Some(before), Some(schema)) = (before.get(name), schema) {
            change(before, inner, schema, &join(path, name), causes);
        }
    }
}

fn validate_object<'s>(
    value: &Value,
    fields: &serde_json::Map<String, Value>,
    schema: &'s Value,
    path: &str,
    causes: &mut Causes<'s>,
) {
    let shown = if path.is_empty() { "<nil>" } else { path };
    let rules = list(schema, "/x-kubernetes-validations").iter();
    for rule in rules.filter(|rule| Rule::of(rule) == Some(Rule::TakesNothing)) {
        causes.push(FieldError::invalid(shown, &json!("object"), text(rule, "/message")));
    }
    if !causes.step(list(schema, "/required").len()) {
        return;
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

fn validate_array<'s>(
    value: &Value,
    items: &[Value],
    schema: &'s Value,
    path: &str,
    shown: &str,
    causes: &mut Causes<'s>,
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
        validate(item, &schema["items"], &item_path(path, at), causes);
    }
    let keys: Vec<&str> =
        list(schema, "/x-kubernetes-list-map-keys").iter().filter_map(Value::as_str).collect();
    let mut seen = BTreeSet::new();
    for (at, item) in items.iter().enumerate() {
        if !causes.step(1 + keys.len()) {
            return;
        }
        let identity = match text(schema, "/x-kubernetes-list-type") {
            "map" => Value::from(keys.iter().map(|key| item[*key].clone()).collect::<Vec<_>>()),
            "set" => item.clone(),
            _ if schema["uniqueItems"] == json!(true) => item.clone(),
            _ => return,
        };
        if !seen.insert(identity.to_string()) {
            causes.push(FieldError::duplicate(item_path(path, at), item));
        }
    }
    let _ = value;
}

fn validate_string<'s>(value: &Value, string: &str, schema: &'s Value, shown: &str, causes: &mut Causes<'s>) {
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
        && causes.step(1 + (pattern.len() + string.len()) / BYTES_PER_STEP)
        && !causes.is_match(pattern, string)
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

    fn refusals(schema: Value, object: Value) -> Vec<String> {
        causes(&object, &schema).into_iter().map(|c| format!("{}: {}", c.field, c.message)).collect()
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
    fn what_is_to_stay_stays() {
        let stays = |rule: &str| json!([{"rule": rule, "message": "it stays"}]);
        let spec = json!({"type": "object", "x-kubernetes-validations": stays("self == oldSelf")});
        let schema = json!({
            "type": "object", "properties": {"spec": spec, "status": {"type": "object"}},
            "x-kubernetes-validations": stays("has(self.spec) == has(oldSelf.spec)"),
        });
        let refused = |old: Value, new: Value| -> Vec<String> {
            changes(&old, &new, &schema)
                .into_iter()
                .map(|cause| format!("{}: {}", cause.field, cause.message))
                .collect()
        };
        let job = |value: u32| json!({"spec": {"a": {"b": value}}, "status": {"n": value}});
        assert_eq!(refused(job(1), json!({"spec": {"a": {"b": 1}}, "status": {"n": 2}})), [""; 0]);
        assert_eq!(refused(job(1), job(2)), ["spec: Invalid value: \"object\": it stays"]);
        for (old, new) in [(job(1), json!({})), (json!({}), job(1))] {
            assert_eq!(refused(old, new), ["<nil>: Invalid value: \"object\": it stays"]);
        }
        let rule = |rule: &str| json!({ "rule": rule });
        assert!(is_held(&rule("self == oldSelf"), false) && !is_held(&rule("self == oldSelf"), true));
        assert!(is_held(&rule("false"), true));
        for unknown in
            ["self.a > 1", "has(self.a) == has(oldSelf.b)", "has(self.a || true) == has(oldSelf.a || true)"]
        {
            assert!(!is_held(&rule(unknown), false), "{unknown}");
        }
    }

    #[test]
    fn a_schema_and_an_object_do_not_multiply_without_end() {
        let bounded = |schema: Value, object: Value| -> Vec<String> {
            let causes = within(20_000, &object, &schema).into_iter();
            causes.map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
        };
        let words: Vec<Value> = (0..3000).map(|n| json!(format!("w{n}"))).collect();
        let has =
            |items: Value| json!({"type": "object", "properties": {"l": {"type": "array", "items": items}}});
        let alternatives: Vec<Value> = (0..3000).map(|_| json!({"type": "integer"})).collect();
        for items in [
            json!({"enum": words}),
            json!({"anyOf": alternatives}),
            json!({"oneOf": alternatives}),
            json!({"allOf": alternatives}),
            json!({"pattern": "x".repeat(1 << 20)}),
        ] {
            let found = bounded(has(items), json!({"l": vec!["none"; 3000]}));
            assert_eq!(found, [": Forbidden: to hold it against its schema takes more than 20000 steps"]);
        }
        let found = bounded(has(json!({"type": "integer"})), json!({"l": vec!["none"; 3000]}));
        assert_eq!(found.len(), CAUSES_MAX);
        let long = "k".repeat(1 << 20);
        let map = json!({"type": "object", "additionalProperties": {"type": "array", "items": {"type": "integer"}}});
        let found = bounded(map, json!({long: vec!["none"; 3000]}));
        assert!(found[0].len() < 2000, "{} bytes", found[0].len());
    }
}
