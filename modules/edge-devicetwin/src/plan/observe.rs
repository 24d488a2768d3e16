//! What a mapper's report makes of the twins. Pure.

use std::collections::{BTreeMap, BTreeSet};

use contract::devicetwin::ObservedTwin;
use crd::{Device, DeviceModel};
use dmi::notes::ELLIPSIS;

use super::{TWINS_MAX, TwinChange, VALUE_MAX, begin, check_name, check_room, named_by, types};
use crate::twin::{Side, Twin};

/// 500 bytes of why there is no value: with it a twin's metadata is within what the cloud takes.
const ERROR_MAX: usize = 500;

/// What the objects say of a device's properties.
#[derive(Debug, Default)]
pub(crate) struct Modelled<'a> {
    /// Of which types they are, by the model.
    pub(crate) types: BTreeMap<&'a str, &'static str>,
    /// Those that the device names.
    pub(crate) named: BTreeSet<String>,
    /// Those that the model has, where there is a model.
    pub(crate) has: Option<BTreeSet<&'a str>>,
}

impl<'a> Modelled<'a> {
    /// Of a device with this model.
    pub(crate) fn of(device: Option<&Device>, model: Option<&'a DeviceModel>) -> Self {
        let names = |model: &'a DeviceModel| model.spec.properties.iter().map(|has| has.name.as_str());
        Modelled {
            types: types(model),
            named: device.map(named_by).unwrap_or_default(),
            has: model.map(|model| names(model).collect()),
        }
    }

    /// What is wrong with a value that a mapper tells as a good one. It is kept, since KubeEdge keeps it, and said.
    fn fault(&self, property: &str, value: &str) -> Option<String> {
        if self.is_foreign(property) {
            return Some(
                "neither the device nor its model has this property; correct its name in the mapper"
                    .to_owned(),
            );
        }
        let value_type = self.types.get(property)?;
        (!is_of_type(value, value_type))
            .then(|| format!("the value that the mapper tells is not of the property's type, {value_type}"))
    }

    fn is_foreign(&self, property: &str) -> bool {
        !self.named.contains(property) && self.has.as_ref().is_some_and(|has| !has.contains(property))
    }
}

/// Whether a mapper means a value of this type, however it spells that: those of KubeEdge write `1.0` for a whole number and Go's words for
/// true and false. No value is of every type.
fn is_of_type(value: &str, value_type: &str) -> bool {
    let value = value.trim();
    let number = || value.parse::<f64>().ok().filter(|number| number.is_finite());
    match value_type {
        _ if value.is_empty() => true,
        "int" | "integer" => number().is_some_and(|number| number.fract() == 0.0),
        "float" => number().is_some(),
        "boolean" => {
            ["true", "false", "t", "f", "1", "0"].iter().any(|word| word.eq_ignore_ascii_case(value))
        }
        _ => true,
    }
}

/// What a report makes of the twins. A property that has gone is not brought back by a mapper that has not heard of it yet.
///
/// # Errors
/// A sentence for the mapper.
pub(crate) fn observe(
    held: &BTreeMap<String, Twin>,
    reports: &[ObservedTwin],
    modelled: &Modelled<'_>,
    now: i64,
) -> Result<Vec<TwinChange>, String> {
    if reports.len() > TWINS_MAX {
        return Err("more than 1024 properties in one report".to_owned());
    }
    // The last one of a name counts.
    let last: BTreeMap<&str, &ObservedTwin> =
        reports.iter().map(|report| (report.property.as_str(), report)).collect();
    let mut changes = Vec::with_capacity(last.len());
    for (property, report) in last {
        check_name(property)?;
        let value_type = modelled.types.get(property).copied();
        for value in [&report.observed, &report.reported] {
            check_reported(property, value, value_type)?;
        }
        let before = held.get(property);
        if before.is_some_and(|twin| twin.deleted) && !modelled.named.contains(property) {
            continue;
        }
        let after = observed(before, report, modelled, now);
        changes.push(TwinChange { property: property.to_owned(), before: before.cloned(), after });
    }
    check_room(held, &changes)?;
    Ok(changes)
}

fn observed(before: Option<&Twin>, report: &ObservedTwin, modelled: &Modelled<'_>, now: i64) -> Twin {
    let property = report.property.as_str();
    let mut after = begin(before, modelled.types.get(property).copied());
    after.actual = Some(Side { value: report.reported.clone(), timestamp: now });
    after.actual_version.edge += 1;
    after.stale = None;
    let fault = report.fault.clone().or_else(|| modelled.fault(property, &report.reported));
    after.actual_error = fault.as_deref().map(sentence);
    after.observed_error = report.refusal.as_deref().map(sentence);
    let observed =
        (!report.observed.is_empty()).then(|| Side { value: report.observed.clone(), timestamp: now });
    // Without a word of the cloud or of an application, what the mapper works towards is what the property should be (KubeEdge).
    // What nobody has is ordered from nobody.
    if after.desired.is_none()
        && after.edge_desired.is_none()
        && !modelled.is_foreign(property)
        && let Some(observed) = &observed
    {
        after.expected = Some(observed.clone());
        after.expected_version.edge += 1;
    }
    after.observed = observed;
    after
}

/// Whether a mapper may report `value`. It is the device's own word, whatever the type (`no reading`), but no number that
/// JSON does not have, and nothing that a terminal would obey.
fn check_reported(property: &str, value: &str, value_type: Option<&str>) -> Result<(), String> {
    if value.len() > VALUE_MAX {
        return Err(format!("a value of `{property}` has more than 4096 bytes"));
    }
    if value.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r')) {
        return Err(format!("a value of `{property}` has control characters"));
    }
    let is_number = matches!(value_type, Some("int" | "float"));
    if is_number && value.trim().parse::<f64>().is_ok_and(|number| !number.is_finite()) {
        return Err(format!(
            "the value of `{property}` is not a finite number; report why there is none instead"
        ));
    }
    Ok(())
}

/// Somebody's words in one line of bounded length, and with a mark where that leaves something out.
fn sentence(words: &str) -> String {
    let mut line: String =
        words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(ERROR_MAX + 1).collect();
    if line.len() > ERROR_MAX {
        line.truncate(line.floor_char_boundary(ERROR_MAX - ELLIPSIS.len_utf8()));
        line.push(ELLIPSIS);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_there_is_no_value_stands_at_the_property_until_there_is_one() {
        let report = |reported: &str, fault: Option<&str>, refusal: Option<&str>| ObservedTwin {
            property: "heat".into(),
            reported: reported.into(),
            fault: fault.map(str::to_owned),
            refusal: refusal.map(str::to_owned),
            ..ObservedTwin::default()
        };
        let long = "é\u{1b}[2J".repeat(400);
        let held = BTreeMap::new();
        let first =
            observe(&held, &[report("", Some("exception 2"), Some(&long))], &Modelled::default(), 1).unwrap();
        let twin = &first[0].after;
        assert_eq!(twin.actual_error.as_deref(), Some("exception 2"));
        let refusal = twin.observed_error.as_deref().unwrap();
        assert!(refusal.ends_with(ELLIPSIS), "{refusal}");
        assert!(refusal.len() <= ERROR_MAX && !refusal.chars().any(char::is_control));
        let held = BTreeMap::from([("heat".to_owned(), Twin { stale: Some(5), ..twin.clone() })]);
        let next = observe(&held, &[report("21", None, None)], &Modelled::default(), 9).unwrap();
        let twin = &next[0].after;
        assert_eq!((&twin.actual_error, &twin.observed_error, twin.stale), (&None, &None, None));
        assert!(next[0].is_new());
    }

    #[test]
    fn a_value_that_is_not_of_its_type_is_kept_and_said_to_be_none() {
        let model: DeviceModel = serde_json::from_value(serde_json::json!({ "metadata": { "name": "m" }, "spec": { "properties": [
            { "name": "int", "type": "INT" }, { "name": "float", "type": "FLOAT" }, { "name": "boolean", "type": "BOOLEAN" },
            { "name": "text", "type": "STRING" }, { "name": "untyped" }] } }))
        .unwrap();
        let of = |property: &str, reported: &str, model: Option<&DeviceModel>| {
            let report = ObservedTwin {
                property: property.to_owned(),
                observed: reported.to_owned(),
                reported: reported.to_owned(),
                ..ObservedTwin::default()
            };
            let changes = observe(&BTreeMap::new(), &[report], &Modelled::of(None, model), 1).unwrap();
            let after = changes[0].after.clone();
            assert_eq!(after.actual.as_ref().unwrap().value, reported, "it is kept");
            after
        };
        for (property, value) in [
            ("int", "7"),
            ("int", "-7.0"),
            ("int", "1e3"),
            ("int", " 7 "),
            ("int", "18446744073709551615"),
            ("int", ""),
            ("float", "1"),
            ("float", "-1.5e-3"),
            ("boolean", "TRUE"),
            ("boolean", "False"),
            ("boolean", "0"),
            ("text", "abc"),
            ("untyped", "abc"),
        ] {
            assert_eq!(of(property, value, Some(&model)).actual_error, None, "{property}: {value}");
        }
        for (property, value) in [
            ("int", "abc"),
            ("int", "1.5"),
            ("int", "true"),
            ("float", "1,5"),
            ("float", "no reading"),
            ("boolean", "2"),
            ("boolean", "on"),
        ] {
            let error = of(property, value, Some(&model)).actual_error.unwrap();
            assert!(
                error.contains("not of the property's type") && error.ends_with(property),
                "{value}: {error}"
            );
            assert_eq!(of(property, value, None).actual_error, None, "its type is not known yet");
        }
        let foreign = of("intt", "7", Some(&model));
        assert!(foreign.actual_error.unwrap().contains("correct its name"));
        assert_eq!(foreign.expected, None, "it is in no delta");
        let known = of("intt", "7", None);
        assert_eq!((known.actual_error, known.expected.unwrap().value), (None, "7".to_owned()));
    }
}
