//! What a mapper's report makes of the twins. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use contract::devicetwin::ObservedTwin;
use crd::{Device, DeviceModel};
use dmi::notes::ELLIPSIS;

use super::{TWINS_MAX, TwinChange, begin, check_finite, check_name, check_room, cut, named_by, types};
use crate::twin::{Side, Twin};

/// What mappers are told before they send a value is what the cloud takes.
const _: () = assert!(dmi::VALUE_MAX == contract::parsed::VALUE_MAX);
/// 500 bytes of why there is no value: with it a twin's metadata is within what the cloud takes.
const ERROR_MAX: usize = 500;
/// Of a property that a mapper names.
const FOREIGN: &str = "neither the device nor its model has this property; correct its name in the mapper";
/// Of a value; the type follows.
const OF_ANOTHER_TYPE: &str = "the value that the mapper tells is not of the property's type";
/// 8 reasons of an answer to a mapper.
const REFUSED_SHOWN: usize = 8;

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
            return Some(FOREIGN.to_owned());
        }
        let value_type = self.types.get(property)?;
        (!is_of_type(value, value_type)).then(|| format!("{OF_ANOTHER_TYPE}, {value_type}"))
    }

    /// What is wrong with a twin by what the objects say now, where what was wrong by what they said before is all that is known: it is not
    /// asked for a report to be well.
    pub(super) fn settled_fault(&self, property: &str, twin: &Twin) -> Option<String> {
        let known = twin.actual_error.as_deref()?;
        if known != FOREIGN && !known.starts_with(OF_ANOTHER_TYPE) {
            return twin.actual_error.clone();
        }
        let value = twin.actual.as_ref().map(|side| side.value.as_str()).unwrap_or_default();
        self.fault(property, value).as_deref().map(sentence)
    }

    /// The properties that nobody has and with which something is wrong, of which nothing has been heard for that long: whoever has
    /// told of them has mended that.
    pub(crate) fn strangers<'t>(
        &self,
        twins: &'t BTreeMap<String, Twin>,
        is_silent: impl Fn(&str) -> bool,
    ) -> Vec<&'t str> {
        let with_fault =
            twins.iter().filter(|(_, twin)| twin.actual_error.is_some() || twin.observed_error.is_some());
        let strangers = with_fault.filter(|(property, twin)| !twin.deleted && self.is_foreign(property));
        strangers.map(|(property, _)| property.as_str()).filter(|property| is_silent(property)).collect()
    }

    /// Whether the device or its model has the property.
    pub(crate) fn names(&self, property: &str) -> bool {
        self.named.contains(property) || self.has.as_ref().is_some_and(|has| has.contains(property))
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

/// What becomes of a report.
#[derive(Debug, Default)]
pub(crate) struct Observation {
    pub(crate) changes: Vec<TwinChange>,
    /// What is not taken of it.
    pub(crate) refused: Vec<RefusedValue>,
}

/// Something of a report that is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RefusedValue {
    /// The property, as it may be shown.
    pub(crate) property: String,
    /// Why, with the property's name.
    pub(crate) reason: String,
    /// That was not known of the property before.
    pub(crate) is_new: bool,
}

impl Observation {
    /// What the mapper is told, if anything is refused.
    pub(crate) fn refusal(&self) -> Option<String> {
        let reasons: Vec<&str> = self.refused.iter().map(|refused| refused.reason.as_str()).collect();
        let shown = reasons.get(..REFUSED_SHOWN.min(reasons.len()))?;
        if shown.is_empty() {
            return None;
        }
        let more = reasons.len() - shown.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let names: BTreeSet<&str> = self.refused.iter().map(|refused| refused.property.as_str()).collect();
        let is_rest_taken = self.changes.iter().any(|change| !names.contains(change.property.as_str()));
        let rest = if is_rest_taken { "; the rest of the report is taken" } else { "" };
        Some(format!("{}{more}{rest}", shown.join("; ")))
    }
}

/// What a report makes of the twins: what is good in it is taken, and a property of which something is not has the reason in the place of
/// that. A property that has gone is not brought back by a mapper that has not heard of it yet.
///
/// # Errors
/// A sentence for the mapper: nothing is taken.
pub(crate) fn observe(
    held: &BTreeMap<String, Twin>,
    reports: &[ObservedTwin],
    modelled: &Modelled<'_>,
    now: i64,
) -> Result<Observation, String> {
    if reports.len() > TWINS_MAX {
        return Err("more than 1024 properties in one report".to_owned());
    }
    // The last one of a name counts.
    let last: BTreeMap<&str, &ObservedTwin> =
        reports.iter().map(|report| (report.property.as_str(), report)).collect();
    let mut observation = Observation::default();
    for (property, report) in last {
        if let Err(reason) = check_name(property) {
            observation.refused.push(RefusedValue { property: cut(property), reason, is_new: true });
            continue;
        }
        let (taken, reasons) = takable(report, modelled.types.get(property).copied());
        let before = held.get(property);
        let has_gone = before.is_some_and(|twin| twin.deleted) && !modelled.named.contains(property);
        let after = (!has_gone).then(|| observed(before, &taken, modelled, now));
        if !reasons.is_empty() {
            let errors = |twin: &Twin| (twin.actual_error.clone(), twin.observed_error.clone());
            let is_new = before.map(errors) != after.as_ref().map(errors);
            let (property, reason) = (property.to_owned(), reasons.join("; "));
            observation.refused.push(RefusedValue { property, reason, is_new });
        }
        if let Some(after) = after {
            let change = TwinChange { property: property.to_owned(), before: before.cloned(), after };
            observation.changes.push(change);
        }
    }
    check_room(held, &observation.changes)?;
    Ok(observation)
}

/// What of a report may be taken, with the reasons in the place of what may not; and these.
fn takable<'a>(report: &'a ObservedTwin, value_type: Option<&str>) -> (Cow<'a, ObservedTwin>, Vec<String>) {
    let (property, lacks) = (report.property.as_str(), report.lacks);
    let check = |lacks: bool, side: &str, value: &str| {
        let lacking = || format!("the report of `{property}` has no `{side}`");
        if lacks { Err(lacking()) } else { check_reported(property, value, value_type) }
    };
    let observed = check(lacks.observed, "observedDesired", &report.observed);
    let reported = check(lacks.reported, "reported", &report.reported);
    if observed.is_ok() && reported.is_ok() {
        return (Cow::Borrowed(report), Vec::new());
    }
    let (mut taken, mut reasons) = (report.clone(), Vec::new());
    if let Err(reason) = reported {
        taken.reported.clear();
        taken.fault = Some(untaken(&reason));
        reasons.push(reason);
    }
    if let Err(reason) = observed {
        taken.observed.clear();
        taken.refusal = Some(untaken(&reason));
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    (Cow::Owned(taken), reasons)
}

/// What stands in the place of a value that is not taken, in the words of our own mappers, so that it is told once.
pub(super) fn untaken(reason: &str) -> String {
    sentence(&dmi::untaken(reason))
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
        && report.refusal.is_none()
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
    dmi::check_length(property, value)?;
    if value.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r')) {
        return Err(format!("a value of `{property}` has control characters"));
    }
    check_finite(property, value, value_type.unwrap_or_default())
}

/// Somebody's words in one line of bounded length, and with a mark where that leaves something out.
pub(crate) fn sentence(words: &str) -> String {
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
    use contract::devicetwin::LackingSides;

    #[test]
    fn what_the_objects_made_wrong_they_make_right_and_a_mapper_its_own() {
        let model = |properties: serde_json::Value| -> DeviceModel {
            serde_json::from_value(
                serde_json::json!({ "metadata": { "name": "m" }, "spec": { "properties": properties } }),
            )
            .unwrap()
        };
        let twin = |value: &str, error: &str| Twin {
            actual: Some(Side { value: value.to_owned(), timestamp: 1 }),
            actual_error: Some(error.to_owned()),
            ..Twin::new("string")
        };
        let bare = model(serde_json::json!([{ "name": "level", "type": "INT" }]));
        let before = Modelled::of(None, Some(&bare));
        let foreign = before.fault("heat", "warm").unwrap();
        let of_type = before.fault("level", "high").unwrap();
        let later = model(
            serde_json::json!([{ "name": "heat", "type": "STRING" }, { "name": "level", "type": "STRING" },
                { "name": "count", "type": "INT" }]),
        );
        let later = Modelled::of(None, Some(&later));
        assert_eq!(later.settled_fault("heat", &twin("warm", &foreign)), None);
        assert_eq!(later.settled_fault("level", &twin("high", &of_type)), None);
        // It is a property now, and its value is none of its type.
        let said = later.settled_fault("count", &twin("many", &foreign)).unwrap();
        assert!(said.starts_with(OF_ANOTHER_TYPE) && said.ends_with(", int"), "{said}");
        assert_eq!(before.settled_fault("heat", &twin("warm", &foreign)), Some(foreign.clone()));
        let own = twin("", "exception 2");
        assert_eq!(later.settled_fault("heat", &own).as_deref(), Some("exception 2"), "the mapper's word");
        let twins = BTreeMap::from([
            ("heat".to_owned(), twin("warm", &foreign)),
            ("mood".to_owned(), Twin { actual_error: None, ..twin("good", "") }),
            ("odd".to_owned(), twin("1", &foreign)),
            ("gone".to_owned(), Twin { deleted: true, ..twin("1", &foreign) }),
            ("level".to_owned(), own),
        ]);
        let silent = |property: &str| property != "odd";
        assert_eq!(before.strangers(&twins, silent), ["heat"], "a client's own that is well stays");
        assert_eq!(later.strangers(&twins, silent), [""; 0]);
        assert_eq!(Modelled::default().strangers(&twins, silent), [""; 0], "the model is not there");
    }

    #[test]
    fn what_is_good_in_a_report_is_taken_and_the_rest_has_its_reason() {
        let report = |property: &str, reported: &str| ObservedTwin {
            property: property.to_owned(),
            reported: reported.to_owned(),
            ..ObservedTwin::default()
        };
        let model: DeviceModel = serde_json::from_value(serde_json::json!({ "metadata": { "name": "m" }, "spec": { "properties": [
            { "name": "b", "type": "BOOLEAN" }, { "name": "f", "type": "DOUBLE" }, { "name": "h", "type": "INT" },
            { "name": "i", "type": "INT" }, { "name": "o", "type": "STRING" }, { "name": "s", "type": "STRING" }] } }))
        .unwrap();
        let modelled = Modelled::of(None, Some(&model));
        let lacks = LackingSides { reported: true, observed: false };
        let reports = [
            report("i", "7"),
            report("f", "NaN"),
            report("s", &"x".repeat(5000)),
            report("b", "tr\u{1}ue"),
            ObservedTwin { lacks, ..report("h", "") },
            ObservedTwin { observed: "\u{1}".to_owned(), ..report("o", "good") },
            report("a b", "1"),
        ];
        let good = Side { value: "1.5".to_owned(), timestamp: 1 };
        let mut held = BTreeMap::from([("f".to_owned(), Twin { actual: Some(good), ..Twin::new("float") })]);
        let observation = observe(&held, &reports, &modelled, 2).unwrap();
        for TwinChange { property, after, .. } in &observation.changes {
            let value = after.actual.as_ref().unwrap().value.as_str();
            let (error, refusal) = (after.actual_error.as_deref(), after.observed_error.as_deref());
            let said = |error: Option<&str>, words: &str| error.is_some_and(|error| error.contains(words));
            let is_right = match property.as_str() {
                "i" => (value, error, refusal) == ("7", None, None),
                "f" => {
                    value.is_empty()
                        && said(error, "edgecore does not take the value: the value of `f` is not a finite")
                }
                "s" => value.is_empty() && said(error, "more than 4096 bytes"),
                "b" => value.is_empty() && said(error, "control characters"),
                "h" => value.is_empty() && said(error, "`h` has no `reported`"),
                "o" => value == "good" && error.is_none() && said(refusal, "control characters"),
                _ => false,
            };
            assert!(is_right, "{property}: {after:?}");
        }
        assert_eq!(observation.changes.len(), 6);
        let words = observation.refusal().unwrap();
        assert!(
            ["`a b`", "`f`", "`s`", "`b`", "`h`", "`o`"].iter().all(|name| words.contains(name)),
            "{words}"
        );
        assert!(observation.refused.iter().all(|refused| refused.is_new));
        held.extend(observation.changes.into_iter().map(|change| (change.property, change.after)));
        let again = observe(&held, &reports, &modelled, 3).unwrap().refused;
        let new: Vec<_> = again.iter().filter(|refused| refused.is_new).map(|r| &*r.property).collect();
        assert_eq!(new, ["a b"], "what has no place to stand at is told each time");
        let mut many: Vec<_> = (0..9).map(|n| report(&format!("{n} "), "1")).collect();
        assert!(observe(&held, &many, &modelled, 4).unwrap().refusal().unwrap().ends_with("and 1 more"));
        many.push(report("i", "7"));
        let words = observe(&held, &many, &modelled, 4).unwrap().refusal().unwrap();
        assert!(words.ends_with("and 1 more; the rest of the report is taken"), "{words}");
    }

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
        let first = observe(&held, &[report("", Some("exception 2"), Some(&long))], &Modelled::default(), 1)
            .unwrap()
            .changes;
        let twin = &first[0].after;
        assert_eq!(twin.actual_error.as_deref(), Some("exception 2"));
        let refusal = twin.observed_error.as_deref().unwrap();
        assert!(refusal.ends_with(ELLIPSIS), "{refusal}");
        assert!(refusal.len() <= ERROR_MAX && !refusal.chars().any(char::is_control));
        let held = BTreeMap::from([("heat".to_owned(), Twin { stale: Some(5), ..twin.clone() })]);
        let next = observe(&held, &[report("21", None, None)], &Modelled::default(), 9).unwrap().changes;
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
            let changes =
                observe(&BTreeMap::new(), &[report], &Modelled::of(None, model), 1).unwrap().changes;
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
