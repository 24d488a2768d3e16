//! What a mapper's report makes of the twins. Pure.

use dmi::notes::ELLIPSIS;
use std::collections::{BTreeMap, BTreeSet};

use contract::devicetwin::ObservedTwin;

use super::{TWINS_MAX, TwinChange, VALUE_MAX, begin, check_name, check_room};
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
}

/// What a report makes of the twins. A property that has gone is not brought back by a mapper that has not heard of it yet.
///
/// # Errors
/// A sentence for the mapper.
pub(crate) fn observe(
    held: &BTreeMap<String, Twin>,
    reports: &[ObservedTwin],
    Modelled { types, named }: &Modelled<'_>,
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
        let value_type = types.get(property).copied();
        for value in [&report.observed, &report.reported] {
            check_reported(property, value, value_type)?;
        }
        let before = held.get(property);
        if before.is_some_and(|twin| twin.deleted) && !named.contains(property) {
            continue;
        }
        let after = observed(before, report, value_type, now);
        changes.push(TwinChange { property: property.to_owned(), before: before.cloned(), after });
    }
    check_room(held, &changes)?;
    Ok(changes)
}

fn observed(before: Option<&Twin>, report: &ObservedTwin, value_type: Option<&str>, now: i64) -> Twin {
    let mut after = begin(before, value_type);
    after.actual = Some(Side { value: report.reported.clone(), timestamp: now });
    after.actual_version.edge += 1;
    after.stale = None;
    after.actual_error = report.fault.as_deref().map(sentence);
    after.observed_error = report.refusal.as_deref().map(sentence);
    let observed =
        (!report.observed.is_empty()).then(|| Side { value: report.observed.clone(), timestamp: now });
    // Without a word of the cloud or of an application, what the mapper works towards is what the property should be (KubeEdge).
    if after.desired.is_none()
        && after.edge_desired.is_none()
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
}
