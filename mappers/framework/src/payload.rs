//! Values in JSON and text, for protocols that carry either.

mod places;

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::error::InvalidSetting;
use crate::fault::Fault;
use crate::payload::places::{Found, Places};
use crate::settings::Settings;
use crate::value::{Kind, Value};

/// 2^53: beyond it a number with a fraction or an exponent does not tell whole ones apart.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// 127: how deep JSON is read.
const DEPTH_MAX: usize = 127;
/// 64 KiB of one value: no twin and no target of readings takes more.
const VALUE_MAX: usize = 64 << 10;
/// 1 MiB of all values in one answer.
const ALL_MAX: usize = 1 << 20;

/// Where a value is in what a device says, and what that means: `jsonPointer` and `map` of a property's visitors.
#[derive(Debug, Clone, PartialEq)]
pub struct Payload {
    /// What the value is.
    pub kind: Kind,
    /// Where it is in the JSON (RFC 6901). None: the whole is the value, as text.
    pub pointer: Option<String>,
    /// What the device says, and what that means.
    pub map: BTreeMap<String, String>,
}

impl Payload {
    /// From `visitors.configData`.
    ///
    /// # Errors
    /// With the key and the cure.
    pub fn read(kind: Kind, settings: &Settings) -> Result<Self, InvalidSetting> {
        let pointer = settings.text("jsonPointer")?;
        if pointer.as_ref().is_some_and(|pointer| !pointer.starts_with('/')) {
            let sentence = "setting `jsonPointer` does not begin with /; write one as /state/power";
            return Err(InvalidSetting::new(sentence));
        }
        if pointer.as_ref().is_some_and(|pointer| pointer.matches('/').count() > DEPTH_MAX) {
            let sentence =
                format!("setting `jsonPointer` has more than {DEPTH_MAX} parts; no JSON is read that deep");
            return Err(InvalidSetting::new(sentence));
        }
        let map = settings.object("map")?;
        let map = map.into_iter().map(|(key, value)| (key, plain(&value))).collect();
        Ok(Payload { kind, pointer, map })
    }

    /// The value in what a device says. For several properties in one answer there is [`values`].
    ///
    /// # Errors
    /// When there is none, or another one than the property's.
    pub fn value(&self, said: &[u8]) -> Result<Value, Fault> {
        values([self], said).pop().unwrap_or_else(|| Err(Fault::NoValue("nothing was asked for".to_owned())))
    }

    /// What a word of the device's means.
    fn meaning(&self, said: &str) -> Result<Value, Fault> {
        let said = self.map.get(said).map_or(said, String::as_str);
        // 1e3 is whole, too, as long as nothing was lost in it.
        #[allow(clippy::cast_possible_truncation)]
        if let (Kind::Int, Ok(number)) = (self.kind, said.parse::<f64>())
            && said.parse::<i128>().is_err()
            && number.fract() == 0.0
            && number.abs() <= EXACT
        {
            return Ok(Value::Int(number as i128));
        }
        Value::parse(self.kind, said).map_err(|error| Fault::Device(error.to_string()))
    }

    /// A value in the device's own words.
    pub fn text(&self, value: &Value) -> String {
        let text = value.to_string();
        let mapped = self.map.iter().find(|(_, meaning)| **meaning == text);
        mapped.map_or(text, |(device, _)| device.clone())
    }

    /// The same as JSON: words in quotes, numbers and truths without.
    pub fn json(&self, value: &Value) -> String {
        let text = self.text(value);
        if matches!(value, Value::Text(_)) || text != value.to_string() {
            Json::String(text).to_string()
        } else {
            text
        }
    }
}

/// The values of several properties in one thing that a device says, in their order. It is read once, and costs its own length, whatever
/// it is and however many are asked for.
pub fn values<'a>(payloads: impl IntoIterator<Item = &'a Payload>, said: &[u8]) -> Vec<Result<Value, Fault>> {
    let mut places = Places::default();
    let asked: Vec<_> = payloads
        .into_iter()
        .map(|payload| (payload, payload.pointer.as_deref().map(|pointer| (pointer, places.add(pointer)))))
        .collect();
    let is_json = asked.iter().any(|(_, place)| place.is_some());
    let found = if is_json { places.find(said) } else { Ok(Vec::new()) };
    let no_json =
        |error: &serde_json::Error| Fault::Device(format!("this is no JSON ({error}): {}", beginning(said)));
    let mut room = ALL_MAX;
    let mut value = |payload: &Payload, place: Option<(&str, usize)>| {
        let said = match place {
            None => text(said)?,
            Some((pointer, at)) => match found.as_ref().map_err(no_json)?.get(at) {
                None | Some(Found::Absent) => {
                    return Err(Fault::NoValue(format!("there is no {pointer} in it")));
                }
                Some(Found::Null) => return Err(Fault::NoValue("it says null".to_owned())),
                Some(Found::Text(said)) => said,
                Some(Found::TooLarge) => return Err(too_large()),
            },
        };
        if said.len() > VALUE_MAX {
            return Err(too_large());
        }
        let value = payload.meaning(said)?;
        if let Value::Text(text) = &value {
            room = room.checked_sub(text.len()).ok_or_else(too_large)?;
        }
        Ok(value)
    };
    asked.into_iter().map(|(payload, place)| value(payload, place)).collect()
}

fn too_large() -> Fault {
    Fault::Device(format!(
        "the value is too large: one has at most {} KiB, all in an answer {} KiB; write a `jsonPointer` to what is meant",
        VALUE_MAX >> 10,
        ALL_MAX >> 10
    ))
}

/// A text without its quotes; anything else as JSON has it.
pub fn plain(json: &Json) -> String {
    match json {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// 200 bytes of what a device said, for a person.
pub fn beginning(said: &[u8]) -> String {
    String::from_utf8_lossy(said.get(..200).unwrap_or(said)).into_owned()
}

fn text(said: &[u8]) -> Result<&str, Fault> {
    let text = std::str::from_utf8(said.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(said));
    let text = text.map_err(|_| Fault::Device("this is no UTF-8 text".to_owned()))?;
    Ok(text.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scalar;

    fn payload(kind: Kind, pairs: &[(&str, &str)]) -> Result<Payload, String> {
        let pairs = pairs.iter().map(|(key, value)| (*key, Scalar::Text((*value).to_owned())));
        Payload::read(kind, &Settings::from_pairs(pairs)).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn values_are_found_and_exact() {
        let at = |kind, said: &str| {
            payload(kind, &[("jsonPointer", "/a/0")])
                .unwrap()
                .value(format!(r#"{{"a":[{said}]}}"#).as_bytes())
        };
        assert_eq!(at(Kind::Int, "18446744073709551615"), Ok(Value::Int(u64::MAX.into())));
        assert_eq!(at(Kind::Int, "9007199254740993"), Ok(Value::Int(9_007_199_254_740_993)));
        assert_eq!(at(Kind::Int, "21.0"), Ok(Value::Int(21)));
        assert_eq!(at(Kind::Float, "0.1"), Ok(Value::Float(0.1)));
        assert_eq!(at(Kind::Double, r#""21.5""#), Ok(Value::Double(21.5)), "numbers as text");
        assert_eq!(at(Kind::Bool, "1"), Ok(Value::Bool(true)));
        assert!(matches!(at(Kind::Int, "null"), Err(Fault::NoValue(_))));
        assert!(matches!(at(Kind::Int, ""), Err(Fault::NoValue(_))), "it is not there");
        assert!(matches!(at(Kind::Int, "1.9e19"), Err(Fault::Device(_))), "not exact");
        assert!(matches!(at(Kind::Int, "}"), Err(Fault::Device(_))));
        let text = payload(Kind::Float, &[]).unwrap();
        assert_eq!(text.value(b"\xEF\xBB\xBF21.5\r\n"), Ok(Value::Float(21.5)));
        assert!(matches!(text.value(b"\xFF"), Err(Fault::Device(_))));
    }

    #[test]
    fn an_answer_is_read_once_for_all_its_properties() {
        let said = format!(r#"{{"v":[{}0],"x":[{}0]}}"#, "1,".repeat(300), "[],".repeat(300_000));
        let payloads: Vec<Payload> =
            (0..300).map(|at| payload(Kind::Int, &[("jsonPointer", &format!("/v/{at}"))]).unwrap()).collect();
        let took = |payloads: &[Payload]| {
            let begun = std::time::Instant::now();
            let all = values(payloads, said.as_bytes());
            assert!(all.iter().all(|value| *value == Ok(Value::Int(1))) && all.len() == payloads.len());
            begun.elapsed()
        };
        let (one, all) = (took(&payloads[..1]), took(&payloads));
        assert!(all < one * 50, "300 cost {all:?}, and one {one:?}");
    }

    #[test]
    fn texts_are_bounded_each_and_together() {
        let whole = payload(Kind::Text, &[]).unwrap();
        let is_large = |value: &Result<Value, Fault>| matches!(value, Err(Fault::Device(why)) if why.contains("too large"));
        assert!(is_large(&whole.value(&vec![b'x'; VALUE_MAX + 1])));
        let all = values(vec![&whole; 300], &vec![b'x'; VALUE_MAX]);
        assert_eq!(all.iter().filter(|value| value.is_ok()).count(), ALL_MAX / VALUE_MAX);
        assert!(all.iter().filter(|value| value.is_err()).all(is_large));
        let deep = "/a".repeat(DEPTH_MAX + 1);
        assert!(payload(Kind::Int, &[("jsonPointer", &deep)]).unwrap_err().contains("127 parts"));
    }

    #[test]
    fn what_a_device_says_may_mean_something_else_both_ways() {
        let relay = payload(Kind::Bool, &[("map", r#"{"ON": true, "OFF": false}"#)]).unwrap();
        assert_eq!(relay.value(b"ON"), Ok(Value::Bool(true)));
        assert_eq!(
            (relay.text(&Value::Bool(false)).as_str(), relay.json(&Value::Bool(false)).as_str()),
            ("OFF", "\"OFF\"")
        );
        let text = payload(Kind::Text, &[]).unwrap();
        assert_eq!(text.json(&Value::Text("a \"b\"".to_owned())), r#""a \"b\"""#);
        assert_eq!(payload(Kind::Int, &[]).unwrap().json(&Value::Int(7)), "7");
        assert!(payload(Kind::Int, &[("jsonPointer", "a.b")]).unwrap_err().contains("/state/power"));
        assert!(payload(Kind::Int, &[("map", "[1]")]).unwrap_err().contains("`map` is no object"));
    }
}
