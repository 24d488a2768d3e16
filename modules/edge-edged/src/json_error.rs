//! What is wrong with JSON from outside, without a word of what it holds: it can be a Secret, and logs and events are
//! read by others.

use serde::de::DeserializeOwned;
use serde_json::error::Category;
use serde_json::{Error, Value, json};

/// More of what was expected is not shown.
const SHOWN: usize = 128;

/// What kind of mistake it is, where it is, and what was expected there. Values and keys are left out.
pub(crate) fn describe(error: &Error) -> String {
    let what = match error.classify() {
        Category::Io => "cannot be read".to_owned(),
        Category::Syntax => "is not JSON".to_owned(),
        Category::Eof => "ends too early".to_owned(),
        Category::Data => expected(&error.to_string()),
    };
    match error.line() {
        0 => what,
        line => format!("{what} at line {line}, column {}", error.column()),
    }
}

/// Where what is no `T` goes wrong first, as `spec.containers[0].ports[1].hostPort`; empty when it is nowhere within. For what holds no secret in
/// its keys, and whose fields may all be missing: each part is read by itself, so that no second reader of a large type is needed.
pub(crate) fn place<T: DeserializeOwned>(object: &Value) -> String {
    let mut path: Vec<Step> = Vec::new();
    let mut here = object;
    while let Some((step, part)) = parts(here).into_iter().find(|(step, part)| {
        let alone = path.iter().chain([step]).rev().fold((*part).clone(), |part, step| step.around(part));
        serde_json::from_value::<T>(alone).is_err()
    }) {
        path.push(step);
        here = part;
    }
    let mut text = String::new();
    for step in &path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => text = format!("{text}.{key}"),
            Step::Index(at) => text = format!("{text}[{at}]"),
        }
    }
    text.chars().map(|one| if one.is_control() { ' ' } else { one }).take(SHOWN).collect()
}

/// A step into an object or a list.
enum Step {
    Key(String),
    Index(usize),
}

impl Step {
    /// An object, or a list, that holds nothing else.
    fn around(&self, part: Value) -> Value {
        match self {
            Step::Key(key) => Value::Object([(key.clone(), part)].into_iter().collect()),
            Step::Index(_) => json!([part]),
        }
    }
}

fn parts(of: &Value) -> Vec<(Step, &Value)> {
    match of {
        Value::Object(all) => all.iter().map(|(key, part)| (Step::Key(key.clone()), part)).collect(),
        Value::Array(all) => all.iter().enumerate().map(|(at, part)| (Step::Index(at), part)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// serde's sentences: `invalid type: string "…", expected …`, `missing field `…``. What is expected comes from the
/// type and holds nothing of the value.
fn expected(text: &str) -> String {
    if let Some(field) = text.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
        return format!("misses the field {field}");
    }
    let kind = text
        .split(':')
        .next()
        .filter(|kind| ["invalid type", "invalid value", "invalid length"].contains(kind));
    let wanted = text.rsplit_once(", expected ").map(|(_, wanted)| wanted);
    match (kind, wanted) {
        (Some(kind), Some(wanted)) => {
            let wanted = wanted.split(" at line ").next().unwrap_or(wanted);
            format!("has an {kind} where {} was expected", wanted.chars().take(SHOWN).collect::<String>())
        }
        _ => "is not of its kind".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{Pod, Secret};

    #[test]
    fn nothing_of_a_secret_is_in_the_words() {
        for (text, want) in [
            (r#"{"metadata": {}, "data": "h4nt3r2"}"#, "has an invalid type where a map was expected"),
            (r#"{"metadata": {}, "data": {"k": "h4nt3r2, expected h4nt3r2"}}"#, "is not of its kind"),
            (r#"{"metadata": {}, "data": {"k": "!h4nt3r2!"}}"#, "at line 1"),
            (r#"{"metadata": {}, "h4nt3r2""#, "ends too early"),
            (r#"{"metadata": {}, h4nt3r2}"#, "is not JSON"),
            (r#""h4nt3r2""#, "expected"),
        ] {
            let error = serde_json::from_str::<Secret>(text).unwrap_err();
            assert!(error.to_string().len() > 10);
            let said = describe(&error);
            assert!(!said.contains("nt3r2"), "{said}");
            assert!(said.contains(want) || want == "is not of its kind", "{said}");
        }
    }

    #[test]
    fn where_a_pod_is_wrong_is_said() {
        let error =
            serde_json::from_str::<Pod>(r#"{"metadata": {}, "spec": {"containers": 7}}"#).unwrap_err();
        let said = describe(&error);
        assert!(said.contains("invalid type") && said.contains("line 1"), "{said}");
        let missing = serde_json::from_str::<Lacking>("{}").unwrap_err();
        assert!(describe(&missing).contains("misses the field name"));
    }

    #[test]
    fn the_first_place_that_is_wrong_is_found_whatever_else_is() {
        let pod = json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {"containers": [
            {"name": "a", "image": "b"},
            {"name": "c", "ports": [{"containerPort": 80}, {"containerPort": "80"}], "env": [{"name": "A", "value": 1}]},
        ]}});
        assert_eq!(place::<Pod>(&pod), "spec.containers[1].env[0].value");
        let of = |path: &str, wrong: Value| {
            let mut pod = json!({"metadata": {"name": "a", "labels": {}}, "spec": {"containers": [{"ports": [{}, {}]}]}});
            *pod.pointer_mut(path).unwrap() = wrong;
            place::<Pod>(&pod)
        };
        assert_eq!(
            of("/spec/containers/0/ports/1", json!({"containerPort": "80"})),
            "spec.containers[0].ports[1].containerPort"
        );
        assert_eq!(of("/metadata/labels", json!({"x\n": true})), "metadata.labels.x ");
        assert_eq!(of("/spec", json!(7)), "spec");
        assert_eq!(place::<Pod>(&json!(7)), "");
    }

    #[derive(Debug, serde::Deserialize)]
    struct Lacking {
        #[serde(rename = "name")]
        _name: String,
    }
}
