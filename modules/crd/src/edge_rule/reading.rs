//! Reads rules as they are written, strictly. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::local_url::LocalUrl;
use super::{EDGE_ACTIONS_MAX, EDGE_RULES_BYTES, EDGE_RULES_MAX, EdgeAction, EdgeCondition, EdgeRule};
use crate::{Device, DeviceModel, PropertyType};

/// 24 h: whoever waits longer wants a clock.
const HOLD_MAX: Duration = Duration::from_secs(24 * 3600);
/// 1 KiB of a payload or body.
const PAYLOAD_MAX: usize = 1 << 10;
/// 512 characters of a value (KubeEdge).
const VALUE_MAX: usize = 512;
/// 256 bytes of a topic.
const TOPIC_MAX: usize = 256;

/// A rule as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WrittenRule {
    name: String,
    when: WrittenCondition,
    then: Vec<WrittenAction>,
    #[serde(default)]
    otherwise: Vec<WrittenAction>,
}

/// `when`, of which one of five is to be there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WrittenCondition {
    property: Option<String>,
    above: Option<f64>,
    below: Option<f64>,
    clear: Option<f64>,
    equals: Option<Scalar>,
    stale: Option<bool>,
    offline: Option<bool>,
    #[serde(rename = "for")]
    hold_for: Option<String>,
}

/// An action as it is written: one key says which it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
enum WrittenAction {
    Set { device: Option<String>, property: String, value: Scalar },
    Publish { topic: String, payload: Option<String> },
    Call { method: Option<String>, url: String, body: Option<String> },
}

/// A value as people write it: text, a number, or true and false.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Bool(bool),
    Number(serde_json::Number),
}

impl Scalar {
    fn into_text(self) -> String {
        match self {
            Scalar::Text(text) => text,
            Scalar::Bool(value) => value.to_string(),
            Scalar::Number(number) => number.to_string(),
        }
    }
}

pub(super) fn parse(text: &str) -> Result<Vec<EdgeRule>, Vec<String>> {
    if text.len() > EDGE_RULES_BYTES {
        return Err(vec![format!(
            "they have {} bytes, and at most {EDGE_RULES_BYTES} are taken",
            text.len()
        )]);
    }
    let Value::Array(written) = yaml(text).map_err(|error| vec![one_line(&error.to_string())])? else {
        return Err(vec!["they are no list: begin each with `- name:`".to_owned()]);
    };
    if written.len() > EDGE_RULES_MAX {
        return Err(vec![format!("there are {}, and at most {EDGE_RULES_MAX} are taken", written.len())]);
    }
    let (mut rules, mut faults, mut names) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (at, written) in written.into_iter().enumerate() {
        let name = written["name"].as_str().map_or_else(|| format!("number {}", at + 1), shown);
        let text = written.to_string();
        let rule = serde_json::from_value::<WrittenRule>(written).map_err(|error| error.to_string());
        match rule.and_then(|rule| rule_of(rule, text)) {
            Ok(rule) if !names.insert(rule.name.clone()) => {
                faults.push(format!("`{name}`: that name is there twice"))
            }
            Ok(rule) => rules.push(rule),
            Err(fault) => faults.push(format!("`{name}`: {}", one_line(&fault))),
        }
    }
    if faults.is_empty() { Ok(rules) } else { Err(faults) }
}

/// One document, without aliases: a few of them could repeat a large text without end.
fn yaml(text: &str) -> Result<Value, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_aliases: 0 },
        with_snippet: false,
        // `on` and `off` are names and values of devices, and no truth.
        strict_booleans: true,
    };
    serde_saphyr::from_str_with_options(text, options)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What is shown of somebody's word in a sentence.
fn shown(word: &str) -> String {
    word.chars().filter(|letter| !letter.is_control()).take(64).collect()
}

fn rule_of(rule: WrittenRule, written: String) -> Result<EdgeRule, String> {
    let WrittenRule { name, when, then, otherwise } = rule;
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > 63 || !name.bytes().all(is_plain) {
        return Err("a name is 1 to 63 of a-z, 0-9 and -".to_owned());
    }
    let hold_for = when.hold_for.as_deref().map_or(Ok(Duration::ZERO), duration)?;
    let condition = condition(when)?;
    if then.is_empty() {
        return Err("`then` is empty: it does nothing".to_owned());
    }
    for (side, actions) in [("then", &then), ("otherwise", &otherwise)] {
        if actions.len() > EDGE_ACTIONS_MAX {
            return Err(format!(
                "`{side}` has {} actions, and at most {EDGE_ACTIONS_MAX} are taken",
                actions.len()
            ));
        }
    }
    let actions =
        |written: Vec<WrittenAction>| written.into_iter().map(action).collect::<Result<Vec<_>, _>>();
    Ok(EdgeRule { name, condition, hold_for, then: actions(then)?, otherwise: actions(otherwise)?, written })
}

fn condition(when: WrittenCondition) -> Result<EdgeCondition, String> {
    let WrittenCondition { property, above, below, clear, equals, stale, offline, hold_for: _ } = when;
    if stale == Some(false) || offline == Some(false) {
        return Err(
            "`stale` and `offline` are `true` or not there: what is heard again ends the rule".to_owned()
        );
    }
    let given = usize::from(above.is_some())
        + usize::from(below.is_some())
        + usize::from(equals.is_some())
        + usize::from(stale.is_some())
        + usize::from(offline.is_some());
    if given != 1 {
        return Err("`when` has one of `above`, `below`, `equals`, `stale` and `offline`".to_owned());
    }
    if clear.is_some() && above.is_none() && below.is_none() {
        return Err("`clear` goes with `above` or `below`".to_owned());
    }
    if offline.is_some() {
        return match property {
            None => Ok(EdgeCondition::Offline),
            Some(_) => Err("`offline` is said of the device: it takes no `property`".to_owned()),
        };
    }
    let property = property.ok_or("`when` names no `property`")?;
    if let Some(limit) = above {
        let clear = clear.unwrap_or(limit);
        if clear > limit {
            return Err(format!(
                "`clear` ({clear}) is beyond `above` ({limit}): it would end what has just begun"
            ));
        }
        return Ok(EdgeCondition::Above { property, limit, clear });
    }
    if let Some(limit) = below {
        let clear = clear.unwrap_or(limit);
        if clear < limit {
            return Err(format!(
                "`clear` ({clear}) is beyond `below` ({limit}): it would end what has just begun"
            ));
        }
        return Ok(EdgeCondition::Below { property, limit, clear });
    }
    Ok(match equals {
        Some(value) => EdgeCondition::Equals { property, value: value.into_text() },
        None => EdgeCondition::Stale { property },
    })
}

/// A whole number of ms, s, m or h.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    let wrong = || format!("`for: {}` is no whole number of ms, s, m or h up to 24h", shown(text));
    let length =
        number.parse::<u64>().ok().filter(|_| millis > 0).and_then(|number| number.checked_mul(millis));
    length.map(Duration::from_millis).filter(|length| *length <= HOLD_MAX).ok_or_else(wrong)
}

fn action(written: WrittenAction) -> Result<EdgeAction, String> {
    match written {
        WrittenAction::Set { device, property, value } => {
            let value = value.into_text();
            if device.as_deref().is_some_and(|name| !is_object_name(name)) {
                return Err("`set` names no device: it is the name of one of this namespace".to_owned());
            }
            if value.len() > VALUE_MAX {
                return Err(format!("`set` has a value of more than {VALUE_MAX} characters"));
            }
            Ok(EdgeAction::Set { device, property, value })
        }
        WrittenAction::Publish { topic, payload } => {
            check_topic(&topic)?;
            check_payload("payload", payload.as_deref())?;
            Ok(EdgeAction::Publish { topic, payload })
        }
        WrittenAction::Call { method, url, body } => {
            let method = method.unwrap_or_else(|| "POST".to_owned());
            if !matches!(method.as_str(), "GET" | "POST" | "PUT") {
                return Err(format!("`method: {}` is none of GET, POST and PUT", shown(&method)));
            }
            if method == "GET" && body.is_some() {
                return Err("a GET has no `body`".to_owned());
            }
            check_payload("body", body.as_deref())?;
            Ok(EdgeAction::Call { method, url: LocalUrl::parse(&url)?, body })
        }
    }
}

fn is_object_name(name: &str) -> bool {
    let is_plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    !name.is_empty() && name.len() <= 253 && name.bytes().all(is_plain)
}

/// What the node and the cloud say over MQTT is not a rule's to say.
fn check_topic(topic: &str) -> Result<(), String> {
    let is_odd = |letter: char| letter.is_control() || matches!(letter, '+' | '#');
    if topic.is_empty() || topic.len() > TOPIC_MAX || topic.chars().any(is_odd) {
        return Err(format!("a topic has 1 to {TOPIC_MAX} bytes without + and #"));
    }
    if topic.starts_with('$') || topic.starts_with("SYS/") {
        return Err(format!("topic `{}` is the node's own", shown(topic)));
    }
    Ok(())
}

fn check_payload(what: &str, payload: Option<&str>) -> Result<(), String> {
    match payload.map_or(0, str::len) {
        0..=PAYLOAD_MAX => Ok(()),
        length => Err(format!("`{what}` has {length} bytes, and at most {PAYLOAD_MAX} are taken")),
    }
}

/// What of the rules does not fit their Device, as far as that and its model say.
pub(super) fn misfits(rules: &[EdgeRule], device: &Device, model: Option<&DeviceModel>) -> Vec<String> {
    let own = device.metadata.name.as_deref().unwrap_or_default();
    let mut faults = Vec::new();
    for rule in rules {
        let name = &rule.name;
        if let Some(property) = rule.condition.property() {
            if !has(device, property) {
                faults.push(format!("`{name}`: the device has no property `{}`", shown(property)));
            }
            let is_limit =
                matches!(rule.condition, EdgeCondition::Above { .. } | EdgeCondition::Below { .. });
            if is_limit && is_no_number(model, property) {
                faults.push(format!(
                    "`{name}`: property `{property}` is no number by its model: only `equals` compares texts"
                ));
            }
        }
        for action in rule.then.iter().chain(&rule.otherwise) {
            let EdgeAction::Set { device: target, property, value } = action else { continue };
            if target.as_deref().is_some_and(|target| target != own) {
                continue;
            }
            if rule.condition.property() == Some(property) {
                faults.push(format!(
                    "`{name}`: it sets the property `{}` that it watches, and would trigger itself",
                    shown(property)
                ));
            } else if !has(device, property) {
                faults.push(format!("`{name}`: the device has no property `{}` to set", shown(property)));
            } else if let Some(Err(reason)) = modelled(model, property)
                .filter(|_| !value.is_empty())
                .map(|known| known.check_desired(value))
            {
                faults.push(format!("`{name}`: property `{property}` {reason}"));
            }
        }
    }
    faults
}

fn has(device: &Device, property: &str) -> bool {
    device.spec.properties.iter().any(|own| own.name == property)
}

fn modelled<'a>(model: Option<&'a DeviceModel>, property: &str) -> Option<&'a crate::ModelProperty> {
    model?.spec.properties.iter().find(|known| known.name == property)
}

fn is_no_number(model: Option<&DeviceModel>, property: &str) -> bool {
    let value_type = modelled(model, property).and_then(|known| known.value_type);
    value_type.is_some_and(|value_type| {
        !matches!(value_type, PropertyType::Int | PropertyType::Float | PropertyType::Double)
    })
}
