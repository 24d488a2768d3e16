//! Where a property is in the answers of its device, and how it is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use framework::payload::plain;
use framework::{InvalidSetting, Kind, Payload, Property, Settings, Value};
use hyper::Method;
use hyper::http::uri::PathAndQuery;

/// What a value takes the place of in a body.
const PLACE: &str = "{{value}}";

/// Where a property is.
#[derive(Debug, Clone, PartialEq)]
pub struct Visitor {
    /// What is asked for, behind the device's own path. Those with the same one come in one answer.
    pub path: String,
    /// Where it is in the answer.
    pub payload: Arc<Payload>,
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
        if property.is_stream {
            return Ok(Visitor::stream(path));
        }
        let payload = Arc::new(Payload::read(property.kind, settings)?);
        let write = settings.object("write")?;
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
        Ok(Visitor { path, payload, write })
    }

    /// Pictures: they are neither JSON nor written.
    fn stream(path: String) -> Self {
        let payload = Arc::new(Payload { kind: Kind::Text, pointer: None, map: BTreeMap::new() });
        let content_type = String::new();
        let write = Write { method: Method::PUT, path: path.clone(), body: String::new(), content_type };
        Visitor { path, payload, write }
    }

    /// The path and the body of a write.
    pub(crate) fn written(&self, value: &Value) -> Result<(String, String), String> {
        let text = self.payload.text(value);
        let is_json = self.write.content_type.contains("json");
        let inside = if is_json { self.payload.json(value) } else { text.clone() };
        let path = self.write.path.replace(PLACE, &encoded(&text));
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

#[cfg(test)]
mod tests {
    use super::*;
    use framework::Scalar;

    fn visitor(kind: Kind, pairs: &[(&str, &str)]) -> Result<Visitor, String> {
        let property = Property { writable: true, ..Property::new("p", kind) };
        let pairs = pairs.iter().map(|(key, value)| (*key, Scalar::Text((*value).to_owned())));
        Visitor::read(&property, &Settings::from_pairs(pairs)).map_err(|refusal| refusal.to_string())
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
        assert_eq!(relay.payload.value(br#"{"ison": "ON"}"#), Ok(Value::Bool(true)));
        assert_eq!(relay.written(&Value::Bool(false)), Ok(("/relay/0?turn=OFF".to_owned(), String::new())));
        let label = visitor(Kind::Text, &[("write", r#"{"body": "{\"label\": {{value}}}"}"#)]).unwrap();
        let (_, body) = label.written(&Value::Text("a \"b\"".to_owned())).unwrap();
        assert_eq!(body, r#"{"label": "a \"b\""}"#);
    }

    #[test]
    fn wrong_settings_are_named() {
        for (pair, said) in [
            (("path", "a b"), "`path`"),
            (("write", r#"{"verb": "PUT"}"#), "`verb`"),
            (("write", r#"{"method": "DELETE"}"#), "`DELETE`"),
        ] {
            let refusal = visitor(Kind::Int, &[pair]).unwrap_err();
            assert!(refusal.contains(said), "{refusal}");
        }
    }
}
