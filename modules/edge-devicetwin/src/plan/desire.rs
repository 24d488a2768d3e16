//! What the cloud says that devices should be, and of which types their properties are. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crd::{Device, DeviceModel, PropertyType};

use super::{Modelled, TEXT, TWINS_MAX, TwinChange, begin, check_desired, check_name, gone};
use crate::twin::{Side, Twin};

/// The values that the cloud wants, by property. An empty one is none, and so is one that the model does not allow.
fn desired_values<'a>(device: &'a Device, model: Option<&DeviceModel>) -> BTreeMap<&'a str, &'a str> {
    let named = device.spec.properties.iter().filter_map(|property| {
        let value = property.desired.as_ref()?.value.as_str();
        let usable = !value.is_empty()
            && check_name(&property.name).is_ok()
            && check_desired(&property.name, value, model).is_ok();
        usable.then_some((property.name.as_str(), value))
    });
    named.take(TWINS_MAX).collect()
}

/// The properties of which the cloud wants a value that is not among those that can be.
fn forbidden_values<'a>(device: &'a Device, desired: &BTreeMap<&str, &str>) -> BTreeSet<&'a str> {
    let wanted = device
        .spec
        .properties
        .iter()
        .filter(|property| property.desired.as_ref().is_some_and(|desired| !desired.value.is_empty()));
    wanted.map(|property| property.name.as_str()).filter(|name| !desired.contains_key(name)).collect()
}

/// What the cloud's desired values and the model's types make of the twins. Each desired value is taken over once, so that an MQTT
/// client's word after it stays until the cloud wants something else. A model that comes after the values settles their type all the
/// same; what was said before it stays. A property that the device named before (`named_before`) and names no more goes.
pub(crate) fn desire(
    held: &BTreeMap<String, Twin>,
    device: &Device,
    model: Option<&DeviceModel>,
    named_before: &BTreeSet<String>,
    now: i64,
) -> Vec<TwinChange> {
    let (desired_values, types) = (desired_values(device, model), types(model));
    let mut changes = Vec::new();
    for (&property, &value) in &desired_values {
        let before = held.get(property);
        if before.is_some_and(|twin| twin.desired.as_deref() == Some(value)) {
            continue;
        }
        let mut after = begin(before, types.get(property).copied());
        after.expected = Some(Side { value: value.to_owned(), timestamp: now });
        after.expected_version.cloud += 1;
        after.desired = Some(value.to_owned());
        (after.edge_desired, after.observed_error) = (None, None);
        changes.push(TwinChange { property: property.to_owned(), before: before.cloned(), after });
    }
    // One that the model does not allow is not taken over, and the last one that was stays: a mapper is not told that nothing is wanted, which
    // KubeEdge's would write into the device.
    let forbidden = forbidden_values(device, &desired_values);
    for (property, before) in held {
        let is_wanted =
            desired_values.contains_key(property.as_str()) || forbidden.contains(property.as_str());
        if before.desired.is_none() || is_wanted {
            continue;
        }
        let mut after = before.clone();
        // Only what the cloud wanted goes with its value.
        if after.expected.as_ref().map(|side| &side.value) == after.desired.as_ref() {
            after.expected = None;
            after.expected_version.cloud += 1;
        }
        after.desired = None;
        changes.push(TwinChange { property: property.clone(), before: Some(before.clone()), after });
    }
    let own = named_by(device);
    settle_types(held, &types, &mut changes);
    settle_faults(held, &Modelled::of(Some(device), model), &mut changes);
    for property in named_before.difference(&own) {
        let Some(before) = held.get(property).filter(|twin| !twin.deleted) else { continue };
        changes.retain(|change| change.property != *property);
        let mut after = gone(before);
        after.desired = None;
        after.expected_version.cloud += 1;
        changes.push(TwinChange { property: property.clone(), before: Some(before.clone()), after });
    }
    changes
}

/// The properties that a device's object names.
pub(crate) fn named_by(device: &Device) -> BTreeSet<String> {
    let names = device.spec.properties.iter().map(|property| &property.name);
    names.filter(|name| check_name(name).is_ok()).take(TWINS_MAX).cloned().collect()
}

/// Living twins are of the type that the model says.
fn settle_types(
    held: &BTreeMap<String, Twin>,
    types: &BTreeMap<&str, &'static str>,
    changes: &mut Vec<TwinChange>,
) {
    for (property, before) in held {
        let Some(value_type) = types.get(property.as_str()).filter(|_| !before.deleted) else { continue };
        if before.value_type == **value_type {
            continue;
        }
        let told = changes.iter_mut().find(|change| change.property == *property);
        match told {
            Some(change) => (*value_type).clone_into(&mut change.after.value_type),
            None => {
                let after = Twin { value_type: (*value_type).to_owned(), ..before.clone() };
                changes.push(TwinChange { property: property.clone(), before: Some(before.clone()), after });
            }
        }
    }
}

/// What was wrong with living twins because of what the objects said before is well, or wrong, by what they say now.
fn settle_faults(held: &BTreeMap<String, Twin>, modelled: &Modelled<'_>, changes: &mut Vec<TwinChange>) {
    for (property, before) in held.iter().filter(|(_, twin)| !twin.deleted) {
        let fault = modelled.settled_fault(property, before);
        if fault == before.actual_error {
            continue;
        }
        match changes.iter_mut().find(|change| change.property == *property) {
            Some(change) => change.after.actual_error = fault,
            None => {
                let after = Twin { actual_error: fault, ..before.clone() };
                changes.push(TwinChange { property: property.clone(), before: Some(before.clone()), after });
            }
        }
    }
}

/// The types of a model's properties, as twins name them.
pub(crate) fn types(model: Option<&DeviceModel>) -> BTreeMap<&str, &'static str> {
    let properties = model.map(|model| model.spec.properties.as_slice()).unwrap_or_default();
    let word = |value_type: PropertyType| match value_type {
        PropertyType::Int => "int",
        PropertyType::Float | PropertyType::Double => "float",
        PropertyType::Boolean => "boolean",
        PropertyType::String | PropertyType::Bytes | PropertyType::Stream => TEXT,
    };
    properties.iter().filter_map(|p| Some((p.name.as_str(), word(p.value_type?)))).collect()
}
