//! What of a Device is not honoured as it is written, by itself and by its model. Pure.
//!
//! The node and the mapper see the same, but they may be away, or there may be none: whoever has written the device reads it
//! here, in the condition `Valid` of its DeviceStatus.

use std::collections::{BTreeMap, BTreeSet};

use contract::NodeName;
use contract::ids::PropertyName;
use contract::parsed::VALUE_MAX;
use crd::{AnyMap, Device, DeviceModel, ModelProperty};
use serde_json::Value;

/// 12 faults are told, and how many there are besides.
const TOLD: usize = 12;
/// 300 letters of each.
const FAULT_MAX: usize = 300;
/// 2^63: from here on a whole number is beyond what API servers and mappers carry.
const WHOLE_MAX: f64 = 9_223_372_036_854_775_808.0;

/// What is wrong with a device, a sentence each; `model` is the one that it names, if that is there.
pub fn faults(device: &Value, model: Option<&Value>) -> Vec<String> {
    let mut faults = Vec::new();
    let Some(device) = read::<Device>(device, "the device", &mut faults) else { return faults };
    of_the_way(&device, &mut faults);
    let named = device.model_name();
    let model = match model {
        _ if named.is_empty() => {
            faults
                .push("spec.deviceModelRef.name is empty: name the DeviceModel of its properties".to_owned());
            None
        }
        None => {
            faults.push(format!(
                "its DeviceModel `{named}` is not there: apply it in the same namespace; until then no mapper gets the device, and one that has it goes on with what it had"
            ));
            None
        }
        Some(model) => read::<DeviceModel>(model, "its DeviceModel", &mut faults),
    };
    let of_model = model.as_ref().and_then(|model| model.spec.protocol.as_deref()).unwrap_or_default();
    if device.protocol_name().is_empty() && of_model.is_empty() && (model.is_some() || named.is_empty()) {
        faults.push(
            "spec.protocol.protocolName is empty, and its model has no spec.protocol: no mapper gets the device; write the protocol that the mapper registers with"
                .to_owned(),
        );
    }
    if let Some(protocol) = &device.spec.protocol {
        of_settings("spec.protocol.configData", &protocol.config_data, &mut faults);
    }
    if let Some(model) = &model {
        of_settings("its model's spec.protocolConfigData", &model.spec.protocol_config_data, &mut faults);
    }
    of_properties(&device, model.as_ref(), &mut faults);
    of_cycle("stateReport.reportCycle", device.state_report().report_cycle, &mut faults);
    of_methods(&device, &mut faults);
    of_rules(&device, model.as_ref(), &mut faults);
    faults
}

/// That a Device is not read, and why.
pub fn unread(why: &str) -> String {
    format!("CloudCore does not send it: {why}; a node that has an earlier version goes on with that")
}

/// That the DeviceModel of a Device is not read, and why.
pub fn unread_model(why: &str) -> String {
    format!(
        "CloudCore does not send its DeviceModel: {why}; a node that has an earlier version goes on with that"
    )
}

/// The faults in one text of bounded length; `None`: there are none.
pub fn told(faults: &[String]) -> Option<String> {
    let shown = faults.get(..TOLD.min(faults.len())).unwrap_or_default();
    if shown.is_empty() {
        return None;
    }
    let short = shown.iter().map(|fault| {
        let begin: String = fault.chars().take(FAULT_MAX).collect();
        if begin.len() < fault.len() { format!("{begin}…") } else { begin }
    });
    let mut text = short.collect::<Vec<_>>().join("; ");
    if faults.len() > TOLD {
        text.push_str(&format!("; and {} more", faults.len() - TOLD));
    }
    Some(text)
}

fn read<T: serde::de::DeserializeOwned>(json: &Value, what: &str, faults: &mut Vec<String>) -> Option<T> {
    let mut json = json.clone();
    crd::without_nulls(&mut json);
    serde_json::from_value(json)
        .inspect_err(|error| {
            faults.push(format!("{what} is not understood, and nodes go on without it: {error}"))
        })
        .ok()
}

/// The way to its node. What was written for v1alpha2 and is read as v1beta1 has no `nodeName`.
fn of_the_way(device: &Device, faults: &mut Vec<String>) {
    match device.spec.node_name.as_deref().unwrap_or_default() {
        "" => faults.push(
            "spec.nodeName is empty: no node has the device (v1alpha2 said it in spec.nodeSelector, which has no effect)"
                .to_owned(),
        ),
        name if NodeName::parse(name).is_err() => faults.push(format!("spec.nodeName `{name}` is no name of a node")),
        _ => {}
    }
}

/// Names that are there more than once.
fn repeated<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    names.filter(|name| !name.is_empty() && !seen.insert(*name)).collect()
}

fn of_methods(device: &Device, faults: &mut Vec<String>) {
    for name in repeated(device.spec.methods.iter().map(|method| method.name.as_str())) {
        faults.push(format!("method `{name}` is there twice: the first one counts"));
    }
    let own: BTreeSet<&str> = device.spec.properties.iter().map(|property| property.name.as_str()).collect();
    for method in &device.spec.methods {
        let name = &method.name;
        if method.property_names.is_empty() {
            faults.push(format!("method `{name}` names no properties (propertyNames): it cannot be called"));
        }
        for property in method.property_names.iter().filter(|property| !own.contains(property.as_str())) {
            faults.push(format!(
                "method `{name}` writes the property `{property}`, which the device does not have"
            ));
        }
    }
}

/// The rules that run on the node: all of them or none.
fn of_rules(device: &Device, model: Option<&DeviceModel>, faults: &mut Vec<String>) {
    let refused = crd::edge_rules(device, model).err().unwrap_or_default();
    let told = refused
        .into_iter()
        .map(|fault| format!("annotation {}: {fault}: none of its rules runs", crd::EDGE_RULES_ANNOTATION));
    faults.extend(told);
}

fn of_properties(device: &Device, model: Option<&DeviceModel>, faults: &mut Vec<String>) {
    let in_model = model.iter().flat_map(|model| &model.spec.properties);
    for name in repeated(in_model.map(|property| property.name.as_str())) {
        faults.push(format!(
            "property `{name}` is twice in the model `{}`: the first one counts",
            device.model_name()
        ));
    }
    let modelled: Option<BTreeMap<&str, &ModelProperty>> = model.map(|model| {
        // The first one of a name counts.
        model.spec.properties.iter().rev().map(|property| (property.name.as_str(), property)).collect()
    });
    let mut names = BTreeSet::new();
    for property in &device.spec.properties {
        let name = property.name.as_str();
        if PropertyName::parse(name).is_err() {
            faults.push(format!("property `{name}`: that is no name of a property"));
            continue;
        }
        if !names.insert(name) {
            faults.push(format!("property `{name}` is there twice: the first one counts"));
            continue;
        }
        if let Some(visitors) = &property.visitors {
            of_settings(&format!("property `{name}`: visitors.configData"), &visitors.config_data, faults);
        }
        of_cycle(&format!("property `{name}`: collectCycle"), property.collect_cycle, faults);
        of_cycle(&format!("property `{name}`: reportCycle"), property.report_cycle, faults);
        let desired =
            property.desired.as_ref().map(|desired| desired.value.as_str()).filter(|value| !value.is_empty());
        if desired.is_some_and(|value| value.len() > VALUE_MAX) {
            faults.push(format!("property `{name}`: its desired value has more than 4096 bytes"));
        }
        match modelled.as_ref().map(|modelled| modelled.get(name)) {
            None => {}
            Some(None) => {
                faults.push(format!(
                    "property `{name}` is unknown: the model `{}` has none of that name",
                    device.model_name()
                ));
            }
            Some(Some(modelled)) => {
                let refused = desired.map(|value| modelled.check_desired(value));
                if let Some(Err(reason)) = refused {
                    faults.push(format!("property `{name}` {reason}: it is not written"));
                } else if let Err(reason) = modelled.check_limits() {
                    faults.push(format!("property `{name}` {reason}"));
                }
            }
        }
    }
}

fn of_cycle(place: &str, written: Option<i64>, faults: &mut Vec<String>) {
    if let Some(millis) = written.filter(|millis| crd::cycle(Some(*millis)) != *millis) {
        faults.push(format!(
            "{place} is {millis}: write milliseconds, at most {}; until then it is the mapper's default",
            crd::CYCLE_MAX
        ));
    }
}

/// Whole numbers that an API server rounds and mappers have no type for.
fn of_settings(place: &str, settings: &AnyMap, faults: &mut Vec<String>) {
    for (key, value) in settings {
        let Value::Number(number) = value else { continue };
        let is_whole = number.is_u64() || number.is_i64();
        let is_beyond =
            if is_whole { !number.is_i64() } else { number.as_f64().is_some_and(|n| n.abs() >= WHOLE_MAX) };
        if is_beyond {
            let key: String = key.chars().take(64).collect();
            faults.push(format!(
                "{place}.{key}: {number} is beyond the 64 bits (9223372036854775807 at most) that are carried exactly: write it as text, \"…\""
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn model() -> Value {
        json!({ "metadata": { "name": "m" }, "spec": { "protocol": "modbus", "properties": [
            { "name": "valve", "type": "INT", "accessMode": "ReadWrite", "minimum": "1", "maximum": "100" },
            { "name": "heat", "type": "FLOAT", "accessMode": "ReadOnly" },
            { "name": "reach", "type": "FLOAT", "accessMode": "ReadOnly", "maximum": "1e39" },
            { "name": "relay", "type": "BOOLEAN", "accessMode": "ReadWrite" } ] } })
    }

    fn device(spec: Value) -> Value {
        let mut whole = json!({ "nodeName": "edge-1", "deviceModelRef": { "name": "m" } });
        for (key, value) in spec.as_object().unwrap() {
            whole[key] = value.clone();
        }
        json!({ "metadata": { "name": "d", "namespace": "x" }, "spec": whole })
    }

    fn only(spec: Value, model: Option<&Value>) -> String {
        let found = faults(&device(spec), model);
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    }

    #[test]
    fn a_device_that_is_in_order_has_no_faults() {
        let spec = json!({ "protocol": { "protocolName": "modbus", "configData": { "IP": "192.0.2.14", "Port": "502", "big": 9_007_199_254_740_993_i64 } },
            "properties": [{ "name": "valve", "desired": { "value": "20" }, "visitors": { "configData": { "Offset": "2", "none": null } } },
                { "name": "heat", "desired": { "value": "" }, "visitors": null }], "methods": null });
        assert_eq!(faults(&device(spec), Some(&model())), [""; 0]);
        assert_eq!(told(&[]), None);
    }

    #[test]
    fn each_refusal_is_a_sentence_with_the_cure() {
        let property = |property: Value| json!({ "properties": [property] });
        for (spec, words) in [
            (json!({ "nodeName": null }), "spec.nodeName is empty"),
            (json!({ "nodeName": "Edge 1" }), "no name of a node"),
            (property(json!({ "name": "valve", "desired": { "value": "500" } })), "above the maximum, 100"),
            (property(json!({ "name": "valve", "desired": { "value": "0" } })), "below the minimum, 1"),
            (property(json!({ "name": "relay", "desired": { "value": "ON" } })), "none of true and false"),
            (property(json!({ "name": "heat", "desired": { "value": "20" } })), "`heat` is ReadOnly"),
            (property(json!({ "name": "heat", "collectCycle": -1 })), "`heat`: collectCycle is -1"),
            (property(json!({ "name": "heat", "reportCycle": i64::MAX })), "at most 9223372036854;"),
            (json!({ "stateReport": { "reportCycle": -5 } }), "stateReport.reportCycle is -5"),
            (property(json!({ "name": "reach" })), "the maximum `1e39` in its model, which is beyond FLOAT"),
            (property(json!({ "name": "speed" })), "the model `m` has none of that name"),
            (property(json!({ "name": "a b" })), "no name of a property"),
            (json!({ "properties": [{ "name": "heat" }, { "name": "heat" }] }), "there twice"),
            (
                json!({ "methods": [{ "name": "Beep" }] }),
                "method `Beep` names no properties (propertyNames): it cannot be called",
            ),
            (
                json!({ "methods": [{ "name": "Set", "propertyNames": ["valve"] }] }),
                "method `Set` writes the property `valve`, which the device does not have",
            ),
            (
                json!({ "properties": [{ "name": "valve" }], "methods": [{ "name": "Set", "propertyNames": ["valve"] },
                    { "name": "Set", "propertyNames": ["valve"] }] }),
                "method `Set` is there twice",
            ),
            (
                json!({ "protocol": { "protocolName": "modbus", "configData": { "huge": u64::MAX } } }),
                "configData.huge: 18446744073709551615 is beyond",
            ),
            // As an API server hands out what it has rounded.
            (
                json!({ "protocol": { "protocolName": "modbus", "configData": { "huge": 18_446_744_073_709_552_000.0 } } }),
                "configData.huge",
            ),
            (json!({ "properties": "many" }), "is not understood"),
        ] {
            let fault = only(spec, Some(&model()));
            assert!(fault.contains(words), "{fault}");
        }
    }

    #[test]
    fn rules_that_are_not_taken_are_named() {
        let with = |rules: &str| {
            let mut device = device(json!({ "properties": [{ "name": "heat" }] }));
            device["metadata"]["annotations"] = json!({ "kubehive.io/rules": rules });
            faults(&device, Some(&model()))
        };
        let rule = "[{name: hot, when: {property: heat, above: 80}, then: [{publish: {topic: alarm}}]}]";
        assert_eq!(with(rule), [""; 0]);
        let unknown = with(&rule.replace("property: heat", "property: head"));
        assert_eq!(
            unknown,
            [
                "annotation kubehive.io/rules: `hot`: the device has no property `head`: none of its rules runs"
            ]
        );
        assert!(with(&rule.replace("above", "over"))[0].contains("unknown field `over`"));
    }

    #[test]
    fn of_a_property_that_is_twice_in_the_model_the_first_one_counts() {
        let mut model = model();
        let first = model["spec"]["properties"][0].clone();
        let mut second = first;
        second["maximum"] = json!("1000");
        model["spec"]["properties"].as_array_mut().unwrap().push(second);
        let spec = json!({ "properties": [{ "name": "valve", "desired": { "value": "500" } }] });
        let found = faults(&device(spec), Some(&model));
        assert!(
            found[0].contains("twice in the model `m`") && found[1].contains("above the maximum, 100"),
            "{found:?}"
        );
    }

    #[test]
    fn a_device_without_protocol_and_one_without_its_model_say_so() {
        assert!(only(json!({ "protocol": { "protocolName": "modbus" } }), None).contains("`m` is not there"));
        let bare = json!({ "metadata": { "name": "m" }, "spec": {} });
        assert!(only(json!({}), Some(&bare)).contains("no mapper gets the device"));
        assert_eq!(faults(&device(json!({})), Some(&model())), [""; 0], "the model's protocol is its own");
        let nothing = json!({ "metadata": { "name": "d" }, "spec": {} });
        assert_eq!(faults(&nothing, None).len(), 3);
        let many: Vec<Value> = (0..200).map(|n| json!({ "name": format!("p{n}") })).collect();
        let text = told(&faults(&device(json!({ "properties": many })), Some(&model()))).unwrap();
        assert!(text.len() < 4096 && text.ends_with("; and 188 more"), "{text}");
        assert_eq!(told(&["é".repeat(301)]).unwrap(), format!("{}…", "é".repeat(300)));
    }
}
