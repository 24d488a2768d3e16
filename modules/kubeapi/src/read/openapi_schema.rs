//! The schemas of built-in kinds: every field and its type, from their messages. What a field is for is not in them.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use crate::kind::ServedKind;
use crate::messages::{self, WellKnownType};

/// Puts the schema of a kind, and of all that is in it, into `schemas`. Answers its name there; `None` for a kind without a message.
pub(super) fn add(kind: &ServedKind, schemas: &mut Map<String, Value>) -> Option<String> {
    let message = messages::of_kind(&kind.api_version(), &kind.kind)?;
    let name = name_of(&message);
    let mut left = vec![message];
    while let Some(message) = left.pop() {
        let name = name_of(&message);
        if !schemas.contains_key(&name) {
            let mut properties = Map::new();
            fields(&message, &mut properties, &mut left);
            schemas.insert(name, json!({ "type": "object", "properties": properties }));
        }
    }
    if let Some(properties) = schemas.get_mut(&name).and_then(|schema| schema["properties"].as_object_mut()) {
        for field in ["apiVersion", "kind"] {
            properties.insert(field.to_owned(), json!({ "type": "string" }));
        }
    }
    Some(name)
}

/// As Kubernetes names its schemas.
fn name_of(message: &MessageDescriptor) -> String {
    let full = message.full_name();
    full.strip_prefix("k8s.io.").map_or_else(|| full.to_owned(), |rest| format!("io.k8s.{rest}"))
}

fn fields(
    message: &MessageDescriptor,
    properties: &mut Map<String, Value>,
    left: &mut Vec<MessageDescriptor>,
) {
    for field in message.fields() {
        match messages::embedded(&field) {
            Some(inner) => fields(&inner, properties, left),
            None => {
                properties.insert(field.name().to_owned(), of_field(&field, left));
            }
        }
    }
}

fn of_field(field: &FieldDescriptor, left: &mut Vec<MessageDescriptor>) -> Value {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            json!({ "type": "object", "additionalProperties": of_value(&entry.map_entry_value_field().kind(), left) })
        }
        kind if field.is_list() => json!({ "type": "array", "items": of_value(&kind, left) }),
        kind => of_value(&kind, left),
    }
}

fn of_value(kind: &Kind, left: &mut Vec<MessageDescriptor>) -> Value {
    match kind {
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Int32 => json!({ "type": "integer", "format": "int32" }),
        Kind::Int64 => json!({ "type": "integer", "format": "int64" }),
        Kind::Bytes => json!({ "type": "string", "format": "byte" }),
        Kind::Message(message) => match WellKnownType::of(message) {
            Some(WellKnownType::Quantity) => json!({ "type": "string" }),
            Some(WellKnownType::IntOrString) => json!({ "type": "string", "format": "int-or-string" }),
            Some(WellKnownType::Time | WellKnownType::MicroTime) => {
                json!({ "type": "string", "format": "date-time" })
            }
            Some(WellKnownType::FieldsV1) => json!({ "type": "object" }),
            Some(WellKnownType::ExtraValue) => json!({ "type": "array", "items": { "type": "string" } }),
            None => {
                left.push(message.clone());
                json!({ "$ref": format!("#/components/schemas/{}", name_of(message)) })
            }
        },
        _ => json!({ "type": "string" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The schema at the end of a path of fields, as `kubectl explain` walks it.
    fn walk(schemas: &Map<String, Value>, root: &str, path: &str) -> Value {
        let resolve = |schema: Value| match schema["$ref"].as_str() {
            Some(reference) => schemas[reference.rsplit('/').next().unwrap()].clone(),
            None => schema,
        };
        path.split('.').filter(|field| !field.is_empty()).fold(schemas[root].clone(), |here, field| {
            let here = resolve(here);
            let here = if here["type"] == "array" { resolve(here["items"].clone()) } else { here };
            resolve(here["properties"][field].clone())
        })
    }

    #[test]
    fn every_field_of_a_built_in_kind_is_found_by_its_path() {
        let (mut schemas, kinds) = (Map::new(), crate::kind::built_in());
        let names: Vec<Option<String>> = kinds.iter().map(|kind| add(kind, &mut schemas)).collect();
        for (kind, name) in kinds.iter().zip(&names) {
            assert_eq!(name.is_some(), &*kind.kind != "CustomResourceDefinition", "{kind:?}");
        }
        for (kind, path, wanted) in [
            (
                "Pod",
                "spec.containers.livenessProbe.periodSeconds",
                json!({ "type": "integer", "format": "int32" }),
            ),
            (
                "Pod",
                "spec.containers.livenessProbe.httpGet.port",
                json!({ "type": "string", "format": "int-or-string" }),
            ),
            ("Pod", "spec.volumes.configMap.name", json!({ "type": "string" })),
            (
                "Pod",
                "spec.nodeSelector",
                json!({ "type": "object", "additionalProperties": { "type": "string" } }),
            ),
            ("Pod", "kind", json!({ "type": "string" })),
            (
                "Secret",
                "data",
                json!({ "type": "object", "additionalProperties": { "type": "string", "format": "byte" } }),
            ),
            ("Lease", "spec.renewTime", json!({ "type": "string", "format": "date-time" })),
            ("PersistentVolume", "spec.csi.volumeHandle", json!({ "type": "string" })),
            ("PersistentVolume", "spec.nope", Value::Null),
        ] {
            let at = kinds.iter().position(|one| &*one.kind == kind).unwrap();
            assert_eq!(walk(&schemas, names[at].as_ref().unwrap(), path), wanted, "{kind} {path}");
        }
        // Nothing points to what is not there.
        let text = Value::Object(schemas.clone()).to_string();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
    }
}
