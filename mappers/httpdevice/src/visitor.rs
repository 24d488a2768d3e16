//! Where a property is in the answers of its device, and how it is written.

use std::collections::BTreeMap;

use framework::{Fault, InvalidSetting, Kind, Property, Settings, Value};
use hyper::Method;
use hyper::http::uri::PathAndQuery;
use serde_json::Value as Json;

/// 2^53: beyond it a number with a fraction or an exponent does not tell whole ones apart.
const EXACT: f64 = 9_007_199_254_740_992.0;
/// What a value takes the place of in a body.
const PLACE: &str = "{{value}}";

/// Where a property is.
#[derive(Debug, Clone, PartialEq)]
pub struct Visitor {
    /// What it is.
    pub kind: Kind,
    /// What is asked for, behind the device's own path. Those with the same one come in one answer.
    pub path: String,
    /// Where it is in the JSON of the answer (RFC 6901). None: the answer is the value, as text.
    pub pointer: Option<String>,
    /// What the device says, and what that means.
    pub map: BTreeMap<String, String>,
    /// How it is written.
    pub write: Write,
}

/// How a property is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// PUT, unless said otherwise.
    pub method: Method,
    /// The path, the read one unless said otherwise.
    pub path: String,
    /// The body; `{{value}}` in it is the value.
    pub body: String,
    /// What the body is.
    pub content_type: String,
}

impl Visitor {
    /// From `visitors.configData`.
    ///
    /// # Errors
    /// With the key and the cure.
    pub fn read(property: &Property, settings: &Settings) -> Result<Self, InvalidSetting> {
        let mut path = checked("path", &settings.text("path")?.unwrap_or_default())?;
        if let Some(query) = settings.text("query")? {
            path = checked("query", &format!("{path}?{query}"))?;
        }
        let pointer = settings.text("jsonPointer")?;
        if pointer.as_ref().is_some_and(|pointer| !pointer.starts_with('/')) {
            return Err(InvalidSetting::new(
                "setting `jsonPointer` does not begin with /; write one as /state/power",
            ));
        }
        let map = object(settings, "map")?;
        let map = map.into_iter().map(|(key, value)| (key, plain(&value))).collect();
        let write = object(settings, "write")?;
        let part = |key: &str| write.get(key).map(plain);
        if let Some(unknown) =
            write.keys().find(|key| !["method", "path", "body", "contentType"].contains(&key.as_str()))
        {
            return Err(InvalidSetting::new(format!(
                "setting `write` has `{unknown}`; it knows method, path, body and contentType"
            )));
        }
        let method = match part("method").unwrap_or_else(|| "PUT".to_owned()).to_ascii_uppercase().as_str() {
            "PUT" => Method::PUT,
            "POST" => Method::POST,
            "PATCH" => Method::PATCH,
            "GET" => Method::GET,
            other => {
                return Err(InvalidSetting::new(format!(
                    "setting `write.method` is `{other}`; write PUT, POST, PATCH or GET"
                )));
            }
        };
        let write = Write {
            method,
            path: part("path").map_or(Ok(path.clone()), |own| {
                checked("write.path", &own.replace(PLACE, "0")).map(|_| slashed(&own))
            })?,
            body: part("body").unwrap_or_else(|| PLACE.to_owned()),
            content_type: part("contentType").unwrap_or_else(|| "application/json".to_owned()),
        };
        Ok(Visitor { kind: property.kind, path, pointer, map, write })
    }

    /// The value in an answer.
    pub(crate) fn value(&self, body: &[u8]) -> Result<Value, Fault> {
        let found = match &self.pointer {
            None => Json::String(self.text(body)?),
            Some(pointer) => {
                let json: Json = serde_json::from_slice(body).map_err(|error| {
                    Fault::Device(format!("the answer is no JSON ({error}): {}", beginning(body)))
                })?;
                let found = json.pointer(pointer);
                found
                    .cloned()
                    .ok_or_else(|| Fault::NoValue(format!("there is no {pointer} in the answer")))?
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

    fn text(&self, body: &[u8]) -> Result<String, Fault> {
        let text = std::str::from_utf8(body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body));
        let text = text.map_err(|_| Fault::Device("the answer is no UTF-8 text".to_owned()))?;
        Ok(text.trim().to_owned())
    }

    /// The path and the body of a write.
    pub(crate) fn written(&self, value: &Value) -> Result<(String, String), String> {
        let said = value.to_string();
        let mapped = self.map.iter().find(|(_, meaning)| **meaning == said).map(|(device, _)| device.clone());
        let is_json = self.write.content_type.contains("json");
        let inside = match (&mapped, value) {
            (Some(device), _) if is_json => Json::String(device.clone()).to_string(),
            (Some(device), _) => device.clone(),
            (None, Value::Text(text)) if is_json => Json::String(text.clone()).to_string(),
            (None, _) => said.clone(),
        };
        let path = self.write.path.replace(PLACE, &encoded(mapped.as_deref().unwrap_or(&said)));
        checked("write.path", &path).map_err(|refusal| refusal.to_string())?;
        Ok((path, self.write.body.replace(PLACE, &inside)))
    }
}

fn slashed(path: &str) -> String {
    if path.is_empty() || path.starts_with(['/', '?']) { path.to_owned() } else { format!("/{path}") }
}

/// A path that a request can have.
fn checked(key: &str, path: &str) -> Result<String, InvalidSetting> {
    let path = slashed(path);
    let whole = if path.starts_with('/') { path.clone() } else { format!("/{path}") };
    whole.parse::<PathAndQuery>().map_err(|_| {
        InvalidSetting::new(format!(
            "setting `{key}` is no path of a URL; encode what is special in it, as %20"
        ))
    })?;
    Ok(path)
}

/// A value within a path.
fn encoded(text: &str) -> String {
    let letter = |byte: u8| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    text.bytes().map(letter).collect()
}

/// An object, which travels as the text of its JSON.
fn object(settings: &Settings, key: &str) -> Result<serde_json::Map<String, Json>, InvalidSetting> {
    let Some(text) = settings.text(key)? else { return Ok(serde_json::Map::new()) };
    match serde_json::from_str(&text) {
        Ok(Json::Object(object)) => Ok(object),
        _ => Err(InvalidSetting::new(format!("setting `{key}` is no object"))),
    }
}

/// A text without its quotes; anything else as JSON has it.
fn plain(json: &Json) -> String {
    match json {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// 200 bytes, for a person.
pub(crate) fn beginning(body: &[u8]) -> String {
    String::from_utf8_lossy(body.get(..200).unwrap_or(body)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use framework::Scalar;

    fn visitor(kind: Kind, pairs: &[(&str, &str)]) -> Result<Visitor, String> {
        let property = Property { name: "p".to_owned(), kind, writable: true, minimum: None, maximum: None };
        let pairs = pairs.iter().map(|(key, value)| (*key, Scalar::Text((*value).to_owned())));
        Visitor::read(&property, &Settings::from_pairs(pairs)).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn values_are_found_and_exact() {
        let at = |kind, body: &str| {
            visitor(kind, &[("jsonPointer", "/a/0")])
                .unwrap()
                .value(format!(r#"{{"a":[{body}]}}"#).as_bytes())
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
        let text = visitor(Kind::Float, &[]).unwrap();
        assert_eq!(text.value(b"\xEF\xBB\xBF21.5\r\n"), Ok(Value::Float(21.5)));
        assert!(matches!(text.value(b"\xFF"), Err(Fault::Device(_))));
    }

    #[test]
    fn what_a_device_says_may_mean_something_else_both_ways() {
        let relay = visitor(
            Kind::Bool,
            &[
                ("path", "relay/0"),
                ("jsonPointer", "/ison"),
                ("map", r#"{"ON": true, "OFF": false}"#),
                ("write", r#"{"method": "get", "path": "/relay/0?turn={{value}}", "body": ""}"#),
            ],
        );
        let relay = relay.unwrap();
        assert_eq!(relay.path, "/relay/0");
        assert_eq!(relay.value(br#"{"ison": "ON"}"#), Ok(Value::Bool(true)));
        assert_eq!(relay.written(&Value::Bool(false)), Ok(("/relay/0?turn=OFF".to_owned(), String::new())));
        let label = visitor(Kind::Text, &[("write", r#"{"body": "{\"label\": {{value}}}"}"#)]).unwrap();
        let (_, body) = label.written(&Value::Text("a \"b\"".to_owned())).unwrap();
        assert_eq!(body, r#"{"label": "a \"b\""}"#);
    }

    #[test]
    fn wrong_settings_are_named() {
        for (pair, said) in [
            (("path", "a b"), "`path`"),
            (("jsonPointer", "a.b"), "/state/power"),
            (("map", "[1]"), "`map` is no object"),
            (("write", r#"{"verb": "PUT"}"#), "`verb`"),
            (("write", r#"{"method": "DELETE"}"#), "`DELETE`"),
        ] {
            let refusal = visitor(Kind::Int, &[pair]).unwrap_err();
            assert!(refusal.contains(said), "{refusal}");
        }
    }
}
