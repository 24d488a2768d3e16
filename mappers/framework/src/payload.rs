//! Values in JSON and text, for protocols that carry either.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::error::InvalidSetting;
use crate::fault::Fault;
use crate::settings::Settings;
use crate::value::{Kind, Value};

/// 2^53: beyond it a number with a fraction or an exponent does not tell whole ones apart.
const EXACT: f64 = 9_007_199_254_740_992.0;

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
        let map = settings.object("map")?;
        let map = map.into_iter().map(|(key, value)| (key, plain(&value))).collect();
        Ok(Payload { kind, pointer, map })
    }

    /// The value in what a device says.
    ///
    /// # Errors
    /// When there is none, or another one than the property's.
    pub fn value(&self, said: &[u8]) -> Result<Value, Fault> {
        let found = match &self.pointer {
            None => Json::String(text(said)?),
            Some(pointer) => {
                let json: Json = serde_json::from_slice(said).map_err(|error| {
                    Fault::Device(format!("this is no JSON ({error}): {}", beginning(said)))
                })?;
                let found = json.pointer(pointer);
                found.cloned().ok_or_else(|| Fault::NoValue(format!("there is no {pointer} in it")))?
            }
        };
        if found.is_null() {
            return Err(Fault::NoValue("it says null".to_owned()));
        }
        let said = plain(&found);
        let said = self.map.get(&said).cloned().unwrap_or(said);
        // 1e3 is whole, too, as long as nothing was lost in it.
        #[allow(clippy::cast_possible_truncation)]
        if let (Kind::Int, Ok(number)) = (self.kind, said.parse::<f64>())
            && said.parse::<i128>().is_err()
            && number.fract() == 0.0
            && number.abs() <= EXACT
        {
            return Ok(Value::Int(number as i128));
        }
        Value::parse(self.kind, &said).map_err(|error| Fault::Device(error.to_string()))
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

fn text(said: &[u8]) -> Result<String, Fault> {
    let text = std::str::from_utf8(said.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(said));
    let text = text.map_err(|_| Fault::Device("this is no UTF-8 text".to_owned()))?;
    Ok(text.trim().to_owned())
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
