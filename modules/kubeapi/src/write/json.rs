//! JSON of a body, within limits.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// 262 144: how many values a body may have, as with protobuf. In memory each is some thirty bytes, however short it is
/// in the body: 3 MiB of `[],[],…` would be a hundred.
const VALUES_MAX: usize = 1 << 18;

/// The value of a body. What nests deeper than 127 is refused as well.
///
/// # Errors
/// A sentence.
pub(super) fn read(body: &[u8]) -> Result<Value, String> {
    let count = values(body);
    if count > VALUES_MAX {
        return Err(format!("it has {count} values, {VALUES_MAX} are taken"));
    }
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

/// 100 fields that stand there twice are named, as many as Kubernetes names.
const REPEATED_MAX: usize = 100;

/// The paths of fields that a body has more than once in one object; of each the last one counts. Empty for what is no JSON.
pub(super) fn repeated_fields(body: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let walk = Walk { path: String::new(), found: &mut found };
    // What is wrong with it otherwise is said by who reads it.
    drop(walk.deserialize(&mut serde_json::Deserializer::from_slice(body)));
    found
}

/// Walks a value whose path is known, and keeps nothing of it.
struct Walk<'a> {
    path: String,
    found: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let path = match self.path.as_str() {
                "" => key.clone(),
                above => format!("{above}.{key}"),
            };
            if !seen.insert(key) && self.found.len() < REPEATED_MAX {
                self.found.push(path.clone());
            }
            map.next_value_seed(Walk { path, found: &mut *self.found })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut index = 0;
        let mut next = |list: &mut A| {
            let path = format!("{}[{index}]", self.path);
            index += 1;
            list.next_element_seed(Walk { path, found: &mut *self.found })
        };
        while next(&mut list)?.is_some() {}
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

/// How many values there are at the most: each but the first comes after an opening bracket or a comma outside strings.
pub(super) fn values(body: &[u8]) -> usize {
    let (mut count, mut in_text, mut escaped) = (1, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b',' | b'[' | b'{' if !in_text => count += 1,
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_is_not_counted_and_values_are() {
        assert_eq!(values(br#"{"a": "x,y,[{", "b": [1, {"c\"": null}]}"#), 6);
        // A table as text is one value.
        let table = json!({ "data": { "csv": ",".repeat(1 << 20) } }).to_string();
        assert!(read(table.as_bytes()).is_ok());
        let many = format!("[{}0]", "0,".repeat(VALUES_MAX));
        assert!(read(many.as_bytes()).unwrap_err().contains("are taken"));
        let many = format!("[{}[]]", "[],".repeat(VALUES_MAX));
        assert!(read(many.as_bytes()).unwrap_err().contains("are taken"));
    }

    #[test]
    fn fields_that_stand_there_twice_are_named_by_their_paths() {
        let body = br#"{"data": {"a": 1, "b": [{"c": null, "c": true}]}, "e": 1.5, "data": {"a": -1, "a": "", "a": 2}}"#;
        assert_eq!(repeated_fields(body), ["data.b[0].c", "data", "data.a", "data.a"]);
        let many = format!("{{{}\"a\": 0}}", "\"a\": 0, ".repeat(1000));
        assert_eq!(repeated_fields(many.as_bytes()).len(), REPEATED_MAX);
        for none in ["", "{", "7", "[[[", r#"{"a": {"a": 1}, "b": {"a": 1}}"#, &"[".repeat(100_000)] {
            assert!(repeated_fields(none.as_bytes()).is_empty(), "{none:.20}");
        }
    }

    #[test]
    fn depth_is_refused_and_not_followed() {
        for open in ["[", "{\"a\":"] {
            let deep = open.repeat(100_000);
            assert!(read(deep.as_bytes()).is_err());
        }
    }
}
