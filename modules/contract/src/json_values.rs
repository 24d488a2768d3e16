//! How many values a JSON text has, counted without taking it apart: what is taken apart has seventeen times the size of a text of short
//! values, and eighty times that of one of small maps.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// 40,000 values in an object that a node takes apart and holds, lists and maps counted with what is in them: a Device with 1,024
/// properties of thirty values each fits.
pub const VALUES_MAX: usize = 40_000;

/// Whether `json` has no more values than `most`. What is no JSON, or nests deeper than can be read, has few: whoever reads it says so.
pub fn has_at_most(json: &[u8], most: usize) -> bool {
    // One more, so that as many as may be leave something.
    let left = Cell::new(most.saturating_add(1));
    let mut text = serde_json::Deserializer::from_slice(json);
    // What broke off has as many as were read.
    let _ = Count { left: &left }.deserialize(&mut text);
    left.get() > 0
}

/// Counts down; nothing is counted any more at 0.
struct Count<'a> {
    left: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Count<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.left.get() {
            0 => deserializer.deserialize_ignored_any(IgnoredAny).map(drop),
            left => {
                self.left.set(left - 1);
                deserializer.deserialize_any(self)
            }
        }
    }
}

impl<'de> Visitor<'de> for Count<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
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

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Count { left: self.left })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while entries.next_key::<IgnoredAny>()?.is_some() {
            entries.next_value_seed(Count { left: self.left })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_wherever_they_stand() {
        let text = br#"{"a": [1, {"b": "c", "d": null}, []], "e": -1.5}"#;
        assert!(has_at_most(text, 8) && !has_at_most(text, 7));
        let many = format!("[{}]", vec!["{\"a\":1}"; 50_000].join(","));
        assert!(!has_at_most(many.as_bytes(), VALUES_MAX) && has_at_most(many.as_bytes(), 100_002));
        assert!(has_at_most(b"[1, 2", 3) && has_at_most(b"", 1), "others say what it is");
        let deep = "[".repeat(200_000) + &"]".repeat(200_000);
        assert!(has_at_most(deep.as_bytes(), VALUES_MAX));
    }
}
