//! Whether a method of a device may be called as somebody wants it, and what then is written. Pure.

use contract::{CallOutcome, CallState, MethodCall};
use crd::{Device, DeviceModel};

use crate::calls::outcome;
use crate::plan::Code;

/// 8 names are told.
const TOLD: usize = 8;

/// How the device is to be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reach {
    /// By this mapper.
    Mapper,
    /// By none, and why.
    None(String),
}

fn refused(code: Code, message: impl AsRef<str>) -> CallOutcome {
    outcome(CallState::Refused, code.number(), message)
}

/// The properties that a call writes, in the order in which the method names them.
///
/// # Errors
/// Why it is not made.
pub(crate) fn writes(
    call: &MethodCall,
    device: &Device,
    model: (Option<&str>, Option<&DeviceModel>),
    state: &str,
    reach: &Reach,
) -> Result<Vec<(String, String)>, CallOutcome> {
    let methods = &device.spec.methods;
    let Some(method) = methods.iter().find(|method| method.name == call.method()) else {
        let names = told(methods.iter().map(|method| method.name.as_str()));
        let words = match methods.is_empty() {
            true => "the device has no methods (spec.methods)".to_owned(),
            false => format!("the device has no method `{}`; it has {names}", call.method()),
        };
        return Err(refused(Code::NotFound, words));
    };
    if method.property_names.is_empty() {
        let words = "names no properties (propertyNames), and a mapper is called for a property";
        return Err(refused(Code::BadRequest, format!("the method `{}` {words}", method.name)));
    }
    let stranger = call.values().keys().find(|property| !method.property_names.contains(property));
    if let Some(property) = stranger {
        let names = told(method.property_names.iter().map(String::as_str));
        let words = format!("the method `{}` does not write `{property}`; it writes {names}", method.name);
        return Err(refused(Code::NotFound, words));
    }
    check_values(call, device, model)?;
    if let Reach::None(reason) = reach {
        return Err(refused(Code::Unavailable, reason));
    }
    if state.eq_ignore_ascii_case("offline") {
        return Err(refused(Code::Unavailable, "the device is offline"));
    }
    let mut writes: Vec<(String, String)> = Vec::new();
    for property in &method.property_names {
        let Some(value) = call.values().get(property) else { continue };
        if writes.iter().all(|(named, _)| named != property) {
            writes.push((property.clone(), value.clone()));
        }
    }
    Ok(writes)
}

/// Each value is one that the model allows, as of a desired one.
fn check_values(
    call: &MethodCall,
    device: &Device,
    (named, model): (Option<&str>, Option<&DeviceModel>),
) -> Result<(), CallOutcome> {
    let model = match (named, model) {
        (Some(named), None) => {
            return Err(refused(
                Code::Unavailable,
                format!("the device's model `{named}` is not on this node yet"),
            ));
        }
        (_, model) => model,
    };
    for (property, value) in call.values() {
        if !device.spec.properties.iter().any(|own| own.name == *property) {
            return Err(refused(Code::NotFound, format!("the device has no property `{property}`")));
        }
        let Some(model) = model else { continue };
        let Some(modelled) = model.spec.properties.iter().find(|own| own.name == *property) else {
            return Err(refused(Code::NotFound, format!("the device's model has no property `{property}`")));
        };
        modelled
            .check_desired(value)
            .map_err(|reason| refused(Code::BadRequest, format!("property `{property}` {reason}")))?;
    }
    Ok(())
}

fn told<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> =
        names.map(|name| format!("`{}`", name.chars().take(64).collect::<String>())).collect();
    let shown = names.get(..TOLD.min(names.len())).unwrap_or_default().join(", ");
    match names.len().saturating_sub(TOLD) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::device_call::WITHIN;
    use serde_json::json;

    fn device() -> Device {
        serde_json::from_value(json!({ "metadata": { "name": "pump" }, "spec": {
            "deviceModelRef": { "name": "pumps" },
            "properties": [{ "name": "level" }, { "name": "heat" }, { "name": "valve" }, { "name": "odd" }],
            "methods": [{ "name": "SetLevel", "propertyNames": ["valve", "level", "heat", "odd", "gone"] }, { "name": "Beep" }] } }))
        .unwrap()
    }

    fn model() -> DeviceModel {
        serde_json::from_value(json!({ "metadata": { "name": "pumps" }, "spec": { "properties": [
            { "name": "level", "type": "INT", "maximum": "100", "accessMode": "ReadWrite" },
            { "name": "valve", "type": "INT", "accessMode": "ReadWrite" },
            { "name": "heat", "type": "INT", "accessMode": "ReadOnly" }] } }))
        .unwrap()
    }

    fn call(method: &str, values: &[(&str, &str)]) -> MethodCall {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        MethodCall::new("i", method, values, WITHIN).unwrap()
    }

    fn of(method: &str, values: &[(&str, &str)]) -> Result<Vec<(String, String)>, CallOutcome> {
        writes(&call(method, values), &device(), (Some("pumps"), Some(&model())), "online", &Reach::Mapper)
    }

    #[test]
    fn a_call_writes_in_the_order_that_the_method_says() {
        let text = |text: &str| text.to_owned();
        assert_eq!(
            of("SetLevel", &[("level", "5"), ("valve", "1")]),
            Ok(vec![(text("valve"), text("1")), (text("level"), text("5"))])
        );
        assert_eq!(of("SetLevel", &[("level", "100")]).unwrap().len(), 1, "the others stay as they are");
    }

    #[test]
    fn what_is_not_called_is_refused_by_name() {
        for (method, values, code, words) in [
            ("Explode", &[("level", "1")][..], 404, "no method `Explode`; it has `SetLevel`, `Beep`"),
            ("Beep", &[("level", "1")], 400, "names no properties"),
            ("SetLevel", &[("speed", "1")], 404, "does not write `speed`; it writes `valve`"),
            ("SetLevel", &[("gone", "1")], 404, "the device has no property `gone`"),
            ("SetLevel", &[("odd", "1")], 404, "model has no property `odd`"),
            ("SetLevel", &[("level", "101")], 400, "`level` cannot be `101`: that is above the maximum, 100"),
            ("SetLevel", &[("level", "full")], 400, "no whole number"),
            ("SetLevel", &[("valve", "1"), ("heat", "1")], 400, "`heat` is ReadOnly"),
        ] {
            let CallOutcome { state, code: found, message } = of(method, values).unwrap_err();
            assert!(state == CallState::Refused && found == code && message.contains(words), "{message}");
        }
        let one = call("SetLevel", &[("level", "1")]);
        let with = |model: (Option<&str>, Option<&DeviceModel>), state: &str, reach: &Reach| {
            writes(&one, &device(), model, state, reach).unwrap_err().message
        };
        let model = model();
        let there = (Some("pumps"), Some(&model));
        assert!(
            with((Some("pumps"), None), "online", &Reach::Mapper).contains("`pumps` is not on this node")
        );
        assert_eq!(with(there, "OFFLINE", &Reach::Mapper), "the device is offline");
        assert_eq!(
            with(there, "online", &Reach::None("mapper `m` has ended".into())),
            "mapper `m` has ended"
        );
        let none = serde_json::from_value(json!({ "metadata": {}, "spec": {} })).unwrap();
        assert!(
            writes(&one, &none, (None, None), "", &Reach::Mapper)
                .unwrap_err()
                .message
                .contains("spec.methods")
        );
        assert_eq!(
            writes(&one, &device(), (None, None), "", &Reach::Mapper).unwrap().len(),
            1,
            "nothing forbids it"
        );
    }
}
