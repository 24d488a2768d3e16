//! Pod templates and the names that are made of them.

use apimachinery::Quantity;
use serde_json::{Value, json};

use crate::controllers::object::{list, name, number, text, time};

/// The label that tells the pods of one template from those of another.
pub(crate) const HASH_LABEL: &str = "pod-template-hash";

const OFFSET: u32 = 0x811c_9dc5;
const PRIME: u32 = 0x0100_0193;
/// No vowels and nothing that looks like another letter, so that no word comes out.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A short name of the template: the same for the same content, whatever the order of its fields.
pub(crate) fn hash(template: &Value, collisions: i64) -> String {
    let mut sum = OFFSET;
    feed(&mut sum, template);
    if collisions > 0 {
        take(&mut sum, &collisions.to_le_bytes());
    }
    let digits = sum.to_string();
    let letter = |digit: u8| LETTERS.get(usize::from(digit) % LETTERS.len()).copied().map(char::from);
    digits.bytes().filter_map(letter).collect()
}

fn take(sum: &mut u32, bytes: &[u8]) {
    for byte in bytes {
        *sum = (*sum ^ u32::from(*byte)).wrapping_mul(PRIME);
    }
}

fn feed(sum: &mut u32, value: &Value) {
    match value {
        Value::Object(fields) => {
            let mut names: Vec<&String> = fields.keys().collect();
            names.sort();
            take(sum, b"{");
            for name in names {
                take(sum, name.as_bytes());
                take(sum, b":");
                feed(sum, &fields[name.as_str()]);
            }
            take(sum, b"}");
        }
        Value::Array(items) => {
            take(sum, b"[");
            for item in items {
                feed(sum, item);
                take(sum, b",");
            }
            take(sum, b"]");
        }
        plain => take(sum, plain.to_string().as_bytes()),
    }
}

/// The fields with amounts in a pod's spec: maps of them, and single ones.
const AMOUNT_MAPS: [&str; 3] = ["limits", "requests", "overhead"];
const AMOUNTS: [&str; 2] = ["divisor", "sizeLimit"];

/// Writes amounts in one way: clients in Go write `1000m` back as `1`, and that is no other template (Kubernetes compares the
/// amounts, too).
fn unify_amounts(value: &mut Value) {
    let unify = |amount: &mut Value| {
        if let Some(quantity) = Quantity::from_json(amount) {
            *amount = json!(quantity.nanos().to_string());
        }
    };
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                match inner.as_object_mut() {
                    Some(amounts) if AMOUNT_MAPS.contains(&name.as_str()) => {
                        amounts.values_mut().for_each(unify)
                    }
                    None if AMOUNTS.contains(&name.as_str()) => unify(inner),
                    _ => unify_amounts(inner),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(unify_amounts),
        _ => {}
    }
}

/// The template without its hash, and without fields that say nothing.
fn bare(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(HASH_LABEL);
    }
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("creationTimestamp");
        metadata.retain(|_, value| !value.is_null() && value.as_object().is_none_or(|map| !map.is_empty()));
    }
    unify_amounts(&mut template["spec"]);
    template
}

/// Whether a replica set runs what the deployment asks for.
pub(crate) fn is_same(deployment: &Value, set: &Value) -> bool {
    bare(&deployment["spec"]["template"]) == bare(&set["spec"]["template"])
}

/// The oldest of the replica sets that run what the deployment asks for.
pub(crate) fn current<'a>(deployment: &Value, sets: &[&'a Value]) -> Option<&'a Value> {
    let same = sets.iter().copied().filter(|set| is_same(deployment, set));
    same.min_by_key(|set| (time(set, "/metadata/creationTimestamp"), name(set).to_owned()))
}

/// A new replica set for the deployment's template, still without pods.
pub(crate) fn replica_set(deployment: &Value, owner: Value, annotations: Value, replicas: i64) -> Value {
    let collisions = number(deployment, "/status/collisionCount").unwrap_or_default();
    let spec = &deployment["spec"];
    let hash = hash(&bare(&spec["template"]), collisions);
    let mut template = spec["template"].clone();
    let mut selector = spec["selector"].clone();
    put(&mut template, &["metadata", "labels", HASH_LABEL], json!(hash));
    put(&mut selector, &["matchLabels", HASH_LABEL], json!(hash));
    json!({
        "metadata": {
            "namespace": text(deployment, "/metadata/namespace"),
            "name": format!("{}-{hash}", name(deployment)),
            "labels": template["metadata"]["labels"],
            "annotations": annotations,
            "ownerReferences": [owner],
        },
        "spec": {
            "replicas": replicas,
            "minReadySeconds": number(deployment, "/spec/minReadySeconds").unwrap_or_default(),
            "selector": selector,
            "template": template,
        },
    })
}

fn put(object: &mut Value, path: &[&str], value: Value) {
    let mut here = object;
    for field in path {
        if !here.is_object() {
            *here = json!({});
        }
        here = &mut here[*field];
    }
    *here = value;
}

/// Whether a pod template's deployment and an existing set of that name belong together.
pub(crate) fn is_owned(set: &Value, uid: &str) -> bool {
    list(set, "/metadata/ownerReferences")
        .iter()
        .any(|owner| owner["controller"] == json!(true) && text(owner, "/uid") == uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_depends_on_content_alone() {
        let one: Value = serde_json::from_str(r#"{"spec":{"a":1,"b":[1,2]}}"#).unwrap();
        let other: Value = serde_json::from_str(r#"{"spec":{"b":[1,2],"a":1}}"#).unwrap();
        assert_eq!(hash(&one, 0), hash(&other, 0));
        assert_ne!(hash(&one, 0), hash(&json!({"spec": {"b": [2, 1], "a": 1}}), 0));
        assert_ne!(hash(&one, 0), hash(&one, 1), "a collision gives another name");
        assert!(hash(&one, 0).bytes().all(|byte| LETTERS.contains(&byte)));
    }

    #[test]
    fn a_set_is_known_by_its_template_without_the_hash() {
        let deployment = json!({
            "metadata": {"name": "web", "namespace": "d", "uid": "u"},
            "spec": {"selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}, "creationTimestamp": null},
                    "spec": {"containers": [{"image": "a"}]}}},
        });
        let mut set = replica_set(&deployment, json!({"uid": "u", "controller": true}), json!({}), 0);
        assert!(is_same(&deployment, &set) && is_owned(&set, "u"));
        let hash = text(&set, "/metadata/labels/pod-template-hash").to_owned();
        assert_eq!(set["metadata"]["name"], json!(format!("web-{hash}")));
        assert_eq!(set["spec"]["selector"]["matchLabels"], json!({"app": "web", HASH_LABEL: hash}));
        set["spec"]["template"]["spec"]["containers"][0]["image"] = json!("b");
        assert!(!is_same(&deployment, &set));
    }

    #[test]
    fn an_amount_is_the_same_however_it_is_written() {
        let of = |cpu: &str, memory: Value, divisor: &str, size: &str| {
            json!({"spec": {"template": {"spec": {
                "containers": [{"env": [{"valueFrom": {"resourceFieldRef": {"divisor": divisor}}}],
                    "resources": {"limits": {"cpu": cpu}, "requests": {"memory": memory}}}],
                "volumes": [{"emptyDir": {"sizeLimit": size}}],
            }}}})
        };
        let one = of("1000m", json!("1Gi"), "1000m", "1024Mi");
        assert!(is_same(&one, &of("1", json!(1_073_741_824), "1", "1Gi")));
        assert!(!is_same(&one, &of("2", json!("1Gi"), "1", "1Gi")));
        assert!(!is_same(&one, &of("1", json!("1Gi"), "0", "1Gi")));
        assert!(!is_same(&one, &of("1", json!("1Gi"), "1", "1G")));
        assert_eq!(
            hash(&bare(&one["spec"]["template"]), 0),
            hash(&bare(&of("1", json!("1Gi"), "1", "1Gi")["spec"]["template"]), 0)
        );
    }
}
