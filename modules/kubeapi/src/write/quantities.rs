//! Amounts (`resource.Quantity`) of built-in kinds, wherever a kind has one. A server of Kubernetes reads them with the object, and so do
//! clients in Go: one that is none would make the whole list unreadable for them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use apimachinery::Quantity;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::Value;

use crate::kind::{ServedKind, built_in};
use crate::messages::{self, WellKnownType};

/// 32 messages in one another: Kubernetes' are fewer, and none of a served kind has itself in it.
const DEPTH_MAX: usize = 32;

/// Where in a value there are amounts.
#[derive(Debug)]
enum Amounts {
    Here,
    /// In each value of a map.
    Values(Box<Amounts>),
    /// In each item of a list.
    Items(Box<Amounts>),
    Fields(BTreeMap<String, Amounts>),
}

/// Of each built-in kind that has any, by its GroupResource: as its messages say.
static OF_KINDS: LazyLock<BTreeMap<String, Amounts>> = LazyLock::new(|| {
    let of_kind = |kind: ServedKind| {
        let message = messages::of_kind(&kind.api_version(), &kind.kind)?;
        Some((kind.group_resource(), of_message(&message, 0)?))
    };
    built_in().into_iter().filter_map(of_kind).collect()
});

fn of_message(message: &MessageDescriptor, depth: usize) -> Option<Amounts> {
    if WellKnownType::of(message) == Some(WellKnownType::Quantity) {
        return Some(Amounts::Here);
    }
    if depth > DEPTH_MAX || WellKnownType::of(message).is_some() {
        return None;
    }
    let mut fields = BTreeMap::new();
    for field in message.fields() {
        match (messages::embedded(&field), of_field(&field, depth)) {
            (Some(_), Some(Amounts::Fields(inner))) => fields.extend(inner),
            (None, Some(amounts)) => {
                fields.insert(field.name().to_owned(), amounts);
            }
            (_, None) | (Some(_), Some(_)) => {}
        }
    }
    (!fields.is_empty()).then_some(Amounts::Fields(fields))
}

fn of_field(field: &FieldDescriptor, depth: usize) -> Option<Amounts> {
    let Kind::Message(message) = field.kind() else { return None };
    if field.is_map() {
        let Kind::Message(value) = message.map_entry_value_field().kind() else { return None };
        return of_message(&value, depth + 1).map(|inner| Amounts::Values(Box::new(inner)));
    }
    let inner = of_message(&message, depth + 1)?;
    Some(if field.is_list() { Amounts::Items(Box::new(inner)) } else { inner })
}

/// Whether all amounts of an object are some. One that is none may stay where `stored`, which is to be changed, has the same: so that
/// what an earlier release took can be mended and let go of.
///
/// # Errors
/// The first one that is none, in the words of a server of Kubernetes.
pub(super) fn check(kind: &ServedKind, object: &Value, stored: Option<&Value>) -> Result<(), String> {
    match OF_KINDS.get(&kind.group_resource()) {
        Some(amounts) => walk(amounts, object, stored, &mut Vec::new()),
        None => Ok(()),
    }
}

fn walk<'a>(
    amounts: &'a Amounts,
    value: &'a Value,
    stored: Option<&Value>,
    path: &mut Vec<Step<'a>>,
) -> Result<(), String> {
    match (amounts, value) {
        (Amounts::Here, value) => {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            match text.parse::<Quantity>() {
                Err(error) if stored != Some(value) => {
                    let at: String = path.iter().map(Step::to_string).collect();
                    Err(format!("json: cannot unmarshal field {}: {error}", at.trim_start_matches('.')))
                }
                Err(_) | Ok(_) => Ok(()),
            }
        }
        (Amounts::Values(inner), Value::Object(all)) => all.iter().try_for_each(|(name, value)| {
            path.push(Step::Key(name));
            walk(inner, value, stored.and_then(|stored| stored.get(name)), path)?;
            path.pop();
            Ok(())
        }),
        (Amounts::Items(inner), Value::Array(items)) => {
            items.iter().enumerate().try_for_each(|(at, item)| {
                path.push(Step::Item(at));
                walk(inner, item, stored.and_then(|stored| stored.get(at)), path)?;
                path.pop();
                Ok(())
            })
        }
        (Amounts::Fields(fields), Value::Object(all)) => fields.iter().try_for_each(|(name, inner)| {
            let Some(value) = all.get(name) else { return Ok(()) };
            path.push(Step::Field(name));
            walk(inner, value, stored.and_then(|stored| stored.get(name)), path)?;
            path.pop();
            Ok(())
        }),
        // Of another type: it was refused for that.
        (Amounts::Values(_) | Amounts::Items(_) | Amounts::Fields(_), _) => Ok(()),
    }
}

/// A part of the path to an amount.
enum Step<'a> {
    Field(&'a str),
    /// A client's text.
    Key(&'a str),
    Item(usize),
}

impl std::fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Step::Field(name) => write!(f, ".{name}"),
            Step::Key(name) => {
                write!(f, "[{}]", name.chars().take(64).flat_map(char::escape_debug).collect::<String>())
            }
            Step::Item(at) => write!(f, "[{at}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// An object for each amount: with that amount alone, and `value` for it.
    fn each(amounts: &Amounts, value: &Value) -> Vec<Value> {
        match amounts {
            Amounts::Here => vec![value.clone()],
            Amounts::Values(inner) => {
                each(inner, value).into_iter().map(|one| json!({ "cpu": one })).collect()
            }
            Amounts::Items(inner) => each(inner, value).into_iter().map(|one| json!([one])).collect(),
            Amounts::Fields(fields) => {
                let of = |(name, inner): (&String, &Amounts)| {
                    each(inner, value).into_iter().map(|one| json!({ name: one })).collect::<Vec<_>>()
                };
                fields.iter().flat_map(of).collect()
            }
        }
    }

    #[test]
    fn every_amount_of_every_kind_is_looked_at() {
        let mut kinds = 0;
        for kind in built_in() {
            let Some(amounts) = OF_KINDS.get(&kind.group_resource()) else { continue };
            kinds += 1;
            for (value, is_fine) in
                [(json!("zz"), false), (json!(""), false), (json!("1Gi"), true), (json!(2), true)]
            {
                for object in each(amounts, &value) {
                    assert_eq!(check(&kind, &object, None).is_ok(), is_fine, "{kind:?} {object}");
                    assert_eq!(check(&kind, &object, Some(&object)), Ok(()), "it is there already");
                }
            }
        }
        // Pod, Deployment, ReplicaSet, Node, PersistentVolume, PersistentVolumeClaim, RuntimeClass, CSIDriver or so: never fewer.
        assert!(kinds >= 7, "{kinds}");
    }

    #[test]
    fn what_an_attacker_found_is_refused_with_its_place() {
        let refusal = |plural: &str, object: Value| {
            let kind = built_in().into_iter().find(|kind| &*kind.plural == plural).unwrap();
            check(&kind, &object, None).unwrap_err()
        };
        let words =
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
        let zz = || json!({ "cpu": "zz" });
        let divisor = json!({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "zz"}});
        let volume = |volume: Value| json!({"spec": {"volumes": [volume]}});
        let claim = json!({"spec": {"resources": {"requests": zz()}}});
        for (plural, object, place) in [
            ("nodes", json!({"status": {"capacity": zz()}}), "status.capacity[cpu]"),
            ("nodes", json!({"status": {"allocatable": zz()}}), "status.allocatable[cpu]"),
            ("pods", json!({"spec": {"overhead": zz()}}), "spec.overhead[cpu]"),
            ("pods", volume(json!({"emptyDir": {"sizeLimit": "zz"}})), "spec.volumes[0].emptyDir.sizeLimit"),
            (
                "pods",
                volume(json!({"downwardAPI": {"items": [divisor]}})),
                "spec.volumes[0].downwardAPI.items[0].resourceFieldRef.divisor",
            ),
            (
                "pods",
                volume(json!({"ephemeral": {"volumeClaimTemplate": claim}})),
                "spec.volumes[0].ephemeral.volumeClaimTemplate.spec.resources.requests[cpu]",
            ),
            (
                "pods",
                json!({"spec": {"containers": [{"env": [{"valueFrom": divisor}]}]}}),
                "spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor",
            ),
            (
                "pods",
                json!({"status": {"containerStatuses": [{"resources": {"limits": zz()}}]}}),
                "status.containerStatuses[0].resources.limits[cpu]",
            ),
            (
                "deployments",
                json!({"spec": {"template": {"spec": {"overhead": zz()}}}}),
                "spec.template.spec.overhead[cpu]",
            ),
            ("persistentvolumeclaims", claim.clone(), "spec.resources.requests[cpu]"),
            ("persistentvolumes", json!({"spec": {"capacity": zz()}}), "spec.capacity[cpu]"),
            ("runtimeclasses", json!({"overhead": {"podFixed": zz()}}), "overhead.podFixed[cpu]"),
        ] {
            assert_eq!(refusal(plural, object), format!("json: cannot unmarshal field {place}: {words}"));
        }
    }
}
