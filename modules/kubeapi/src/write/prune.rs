//! Unknown fields: what a typed reading of an object would lose.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The object as `T` understands it.
///
/// # Errors
/// A sentence, when a field is of another type than `T` wants.
pub(super) fn decode_as<T: DeserializeOwned + Serialize>(value: &Value) -> Result<Value, String> {
    let typed: T = serde_path_to_error::deserialize(value).map_err(|error| sentence(&error))?;
    serde_json::to_value(&typed).map_err(|error| error.to_string())
}

/// What is wrong and where, close to a real server's words, which clients show as they are.
fn sentence(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let (path, inner) = (error.path().to_string(), error.inner().to_string());
    // The path is the client's text.
    let path: String = path.chars().filter(|c| !c.is_control()).take(PATH_MAX).collect();
    let Some((found, wanted)) =
        inner.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected "))
    else {
        return format!("json: cannot unmarshal field {path}: {inner}");
    };
    let kinds = [
        ("string", "string"),
        ("integer", "number"),
        ("floating point", "number"),
        ("boolean", "bool"),
        ("sequence", "array"),
        ("map", "object"),
    ];
    let kind = kinds.iter().find(|(own, _)| found.starts_with(own)).map_or(found, |(_, kind)| kind);
    format!("json: cannot unmarshal {kind} into field {path}: expected {wanted}")
}

/// 512 characters of a path are shown.
const PATH_MAX: usize = 512;

/// Takes the fields of `object` away that `understood` does not have, and answers their paths.
pub(super) fn prune(object: &mut Value, understood: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    walk(object, understood, "", &mut unknown);
    unknown
}

fn walk(object: &mut Value, understood: &Value, path: &str, unknown: &mut Vec<String>) {
    match (object, understood) {
        (Value::Object(fields), Value::Object(known)) => {
            // The typed kinds write every field back that was there, empty ones, too.
            fields.retain(|name, _| {
                let keep = known.contains_key(name);
                if !keep {
                    unknown.push(join(path, name));
                }
                keep
            });
            for (name, value) in fields {
                if let Some(understood) = known.get(name) {
                    walk(value, understood, &join(path, name), unknown);
                }
            }
        }
        (Value::Array(items), Value::Array(known)) => {
            for (at, (item, understood)) in items.iter_mut().zip(known).enumerate() {
                walk(item, understood, &format!("{path}[{at}]"), unknown);
            }
        }
        _ => {}
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    #[test]
    fn unknown_fields_are_named_with_their_path_and_taken_away() {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {}, "colour": "red"},
            "spec": {"containers": [{"name": "c", "imagee": "x", "resources": {"limits": {"cpu": 1}}}]},
        });
        let understood = decode_as::<Pod>(&pod).unwrap();
        let unknown = prune(&mut pod, &understood);
        assert_eq!(unknown, ["metadata.colour", "spec.containers[0].imagee"]);
        assert_eq!(pod["spec"]["containers"][0].get("imagee"), None);
        assert_eq!(pod["metadata"]["labels"], json!({}));
    }

    #[test]
    fn another_type_is_a_sentence() {
        let wrong = |spec: Value| {
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": spec});
            decode_as::<Pod>(&pod).unwrap_err()
        };
        assert!(
            wrong(json!({"containers": "x"}))
                .starts_with("json: cannot unmarshal string into field spec.containers: expected "),
            "{}",
            wrong(json!({"containers": "x"}))
        );
        let ports = json!([{"name": "c"}, {"name": "d", "ports": [{"containerPort": "80"}]}]);
        assert_eq!(
            wrong(json!({"containers": ports})),
            "json: cannot unmarshal string into field spec.containers[1].ports[0].containerPort: expected i32"
        );
        assert!(
            wrong(json!({"containers": [{"name": 5}]})).contains("number into field spec.containers[0].name")
        );
        assert!(wrong(json!({"containers": [], "nodeSelector": {"a": {}}})).contains("spec.nodeSelector.a"));
    }
}
