//! The line that `kubectl get devicestatus` shows: `status.extensions.summary`. Pure.
//!
//! A column of a definition prints the first thing that its path finds and no more (apiextensions' table convertor), so that a device
//! of two properties would show one, and of two problems one. What a line is to hold is written as one text.

use serde_json::{Map, Value, json};

use contract::devicerules::RULES_QUIET;

use crate::conditions::{self, REACHABLE};

/// 64 letters of a property's name or value.
const ITEM_MAX: usize = 64;
/// 256 letters of all names, and of all values: nobody reads more in a line, and each report writes them.
const LINE_MAX: usize = 256;
/// 2048 letters of what is wrong.
const PROBLEM_MAX: usize = 2048;
const ELLIPSIS: char = '…';

/// Writes the line anew. Nothing is written where nothing is said of the device. Answers whether it has changed.
pub(crate) fn take(status: &mut Value) -> bool {
    let twins = status["twins"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value, path: &str| value.pointer(path).and_then(Value::as_str).map(str::to_owned);
    let named: Vec<&Value> = twins.iter().filter(|twin| twin["propertyName"].is_string()).collect();
    let of = |path: &'static str| named.iter().map(move |twin| text(twin, path).unwrap_or_default());
    let conditions = status.pointer("/extensions/conditions").and_then(Value::as_array);
    let mut all = conditions.iter().copied().flatten();
    // What the mapper said stays in `status.state`, and is shown again when the node is heard of.
    let state = if all.any(|condition| condition["type"] == REACHABLE) {
        "unknown"
    } else {
        status["state"].as_str().unwrap_or_default()
    };
    // A rule that has triggered does what it was written for: it is said beside what is wrong.
    let (quiet, mut wrong): (Vec<&Value>, Vec<&Value>) =
        conditions.into_iter().flatten().partition(|condition| condition["type"] == RULES_QUIET);
    wrong.sort_by_key(|condition| conditions::rank(condition));
    let messages = |of: Vec<&Value>| -> Vec<String> {
        of.into_iter().filter_map(|condition| text(condition, "/message")).collect()
    };
    let rules = line(messages(quiet).into_iter(), "; ", LINE_MAX, LINE_MAX);
    let mut summary = json!({
        "state": cut(state.chars(), ITEM_MAX),
        "problem": line(messages(wrong).into_iter(), "; ", PROBLEM_MAX, PROBLEM_MAX),
        "properties": line(of("/propertyName"), ",", ITEM_MAX, LINE_MAX),
        "reported": line(of("/reported/value"), ",", ITEM_MAX, LINE_MAX),
    });
    // Most devices have no rules, and their objects are not written anew to say so.
    if !rules.is_empty() || status.pointer("/extensions/summary/rules").is_some() {
        summary["rules"] = Value::String(rules);
    }
    let is_new = status.pointer("/extensions/summary") != Some(&summary);
    let says_nothing = summary.as_object().is_some_and(|all| all.values().all(|text| text == ""));
    if !is_new || says_nothing && status.pointer("/extensions/summary").is_none() {
        return false;
    }
    if !status.is_object() {
        *status = json!({});
    }
    if !status["extensions"].is_object() {
        status["extensions"] = Value::Object(Map::new());
    }
    status["extensions"]["summary"] = summary;
    true
}

/// Texts in one line of bounded length. Terminals do what a control character says.
fn line(texts: impl Iterator<Item = String>, between: &str, item_max: usize, line_max: usize) -> String {
    let mut line = String::new();
    let mut letters = 0;
    for (at, text) in texts.enumerate() {
        let before = if at > 0 { between } else { "" };
        let plain = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
        let item = cut(plain, item_max);
        let added = before.chars().count() + item.chars().count();
        if letters + added > line_max {
            line.push(ELLIPSIS);
            break;
        }
        letters += added;
        line.push_str(before);
        line.push_str(&item);
    }
    line
}

fn cut(letters: impl Iterator<Item = char>, most: usize) -> String {
    let mut letters = letters.peekable();
    let mut text: String = letters.by_ref().take(most).collect();
    if letters.peek().is_some() {
        text.pop();
        text.push(ELLIPSIS);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(mut status: Value) -> Value {
        take(&mut status);
        status["extensions"]["summary"].clone()
    }

    #[test]
    fn all_properties_values_and_problems_stand_in_one_line() {
        let status = json!({
            "twins": [
                { "propertyName": "setpoint", "reported": { "value": "20" } },
                { "propertyName": "mode" },
                { "propertyName": "note", "reported": { "value": "a\u{1b}[2J" } },
                { "reported": { "value": "nobody's" } },
            ],
            "extensions": { "conditions": [{ "message": "one" }, { "message": "two" }, { "type": "Odd" }] },
        });
        let wanted = json!({ "state": "", "problem": "one; two", "properties": "setpoint,mode,note", "reported": "20,,a [2J" });
        assert_eq!(summary(status), wanted);
    }

    #[test]
    fn what_a_person_has_to_mend_comes_first_and_a_triggered_rule_is_no_problem() {
        let all = [
            "Reporting",
            "MessagesTaken",
            "RulesQuiet",
            "DesiredApplied",
            "Served",
            "Later",
            "Reachable",
            "Valid",
        ];
        let all = all.map(|kind| json!({ "type": kind, "message": kind }));
        let mut status = json!({ "extensions": { "conditions": all } });
        assert!(take(&mut status) && !take(&mut status));
        let said = &status["extensions"]["summary"];
        assert_eq!(
            said["problem"],
            "Valid; Reachable; Served; DesiredApplied; MessagesTaken; Reporting; Later"
        );
        assert_eq!(said["rules"], "RulesQuiet");
        assert_eq!(status["extensions"]["conditions"].as_array().unwrap().len(), 8, "all of them stay");
        status["extensions"]["conditions"] = json!([]);
        assert!(take(&mut status) && !take(&mut status));
        assert_eq!(status["extensions"]["summary"]["rules"], "", "a merge patch has to carry it");
        let none = summary(json!({ "state": "online" }));
        assert_eq!(none.get("rules"), None);
    }

    #[test]
    fn a_line_has_its_length_and_says_that_there_is_more() {
        let twins: Vec<Value> = (0..200)
            .map(|n| json!({ "propertyName": format!("p{n}"), "reported": { "value": "ü".repeat(4096) } }))
            .collect();
        let summary = summary(json!({ "twins": twins }));
        for (key, within) in [("properties", LINE_MAX), ("reported", LINE_MAX)] {
            let text = summary[key].as_str().unwrap();
            assert!(text.ends_with(ELLIPSIS) && text.chars().count() <= within + 1, "{key}: {text}");
        }
        assert!(summary["reported"].as_str().unwrap().starts_with(&"ü".repeat(ITEM_MAX - 1)));
    }

    #[test]
    fn what_has_healed_is_taken_away_and_nothing_is_written_of_nothing() {
        let mut status = json!({});
        assert!(!take(&mut status));
        assert_eq!(status, json!({}));
        status["extensions"] = json!({ "conditions": [{ "message": "m" }] });
        take(&mut status);
        assert_eq!(status["extensions"]["summary"]["problem"], "m");
        status["extensions"]["conditions"] = json!([]);
        take(&mut status);
        assert_eq!(status["extensions"]["summary"]["problem"], "", "a merge patch has to carry it");
    }

    #[test]
    fn the_state_of_a_device_whose_node_is_silent_is_unknown_and_the_mappers_word_stays() {
        let mut status = json!({ "state": "online" });
        assert!(take(&mut status) && !take(&mut status));
        assert_eq!(status["extensions"]["summary"]["state"], "online");
        status["extensions"]["conditions"] = json!([{ "type": REACHABLE, "message": "m" }]);
        assert!(take(&mut status));
        assert_eq!(
            (&status["state"], &status["extensions"]["summary"]["state"]),
            (&json!("online"), &json!("unknown"))
        );
        status["extensions"]["conditions"] = json!([]);
        assert!(take(&mut status));
        assert_eq!(status["extensions"]["summary"]["state"], "online");
    }
}
