//! What stands at some places of a JSON, found in one pass. Of all else nothing is built: what a peer writes costs its own length, and no
//! multiple of it, however many places are asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value as Json};

use super::{ALL_MAX, VALUE_MAX, plain};

/// 64 bytes that a value takes beside its text.
const VALUE_COST: usize = 64;

/// Where to look.
#[derive(Debug, Default)]
pub(super) struct Places {
    root: Node,
    count: usize,
}

/// A place on the way to those that are wanted, or one of them.
#[derive(Debug, Default)]
struct Node {
    below: BTreeMap<String, Node>,
    wanted: Option<usize>,
}

/// What stands at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Absent,
    Null,
    /// As text without quotes, or as JSON.
    Text(String),
    /// More than a value may have, or than is left for all of them.
    TooLarge,
}

impl Places {
    /// Adds a JSON pointer (RFC 6901), and says where in the outcome its place is: one that was added before has the same.
    pub(super) fn add(&mut self, pointer: &str) -> usize {
        let mut node = &mut self.root;
        for part in pointer.split('/').skip(1) {
            node = node.below.entry(part.replace("~1", "/").replace("~0", "~")).or_default();
        }
        *node.wanted.get_or_insert_with(|| {
            self.count += 1;
            self.count - 1
        })
    }

    /// What stands there.
    ///
    /// # Errors
    /// When it is no JSON, nests deeper than 127 at one of the places, or has a key on the way to one twice.
    pub(super) fn find(&self, said: &[u8]) -> Result<Vec<Found>, serde_json::Error> {
        let mut outcome = Outcome { found: vec![Found::Absent; self.count], room: ALL_MAX };
        let mut json = serde_json::Deserializer::from_slice(said);
        Walk { node: Some(&self.root), is_built: false, outcome: &mut outcome }.deserialize(&mut json)?;
        json.end()?;
        Ok(outcome.found)
    }
}

struct Outcome {
    found: Vec<Found>,
    /// How much more is built. What turns out too large gives back what it took, for what is wanted below and beside it.
    room: usize,
}

impl Outcome {
    fn take(&mut self, bytes: usize) -> Option<()> {
        self.room = self.room.checked_sub(bytes)?;
        Some(())
    }
}

/// Reads one value: what is below it, and the value itself if it is built. `None`: it was not, or has no room.
struct Walk<'a> {
    node: Option<&'a Node>,
    is_built: bool,
    outcome: &'a mut Outcome,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Option<Json>;

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<Option<Json>, D::Error> {
        let wanted = self.node.and_then(|node| node.wanted);
        self.is_built |= wanted.is_some();
        if self.node.is_none() && !self.is_built {
            return deserializer.deserialize_ignored_any(IgnoredAny).map(|_| None);
        }
        let outcome = &mut *self.outcome;
        let json =
            deserializer.deserialize_any(Walk { node: self.node, is_built: self.is_built, outcome })?;
        if let Some(found) = wanted.and_then(|at| outcome.found.get_mut(at)) {
            *found = match json.as_ref().map(|json| (json.is_null(), plain(json))) {
                Some((true, _)) => Found::Null,
                Some((_, text)) if text.len() <= VALUE_MAX => Found::Text(text),
                _ => Found::TooLarge,
            };
        }
        Ok(json)
    }
}

impl Walk<'_> {
    fn built(self, bytes: usize, json: impl FnOnce() -> Json) -> Option<Json> {
        if !self.is_built {
            return None;
        }
        self.outcome.take(VALUE_COST + bytes)?;
        Some(json())
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Option<Json>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Option<Json>, E> {
        Ok(self.built(0, || value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Option<Json>, E> {
        Ok(self.built(0, || value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Option<Json>, E> {
        Ok(self.built(0, || value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Option<Json>, E> {
        Ok(self.built(0, || value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Option<Json>, E> {
        Ok(self.built(value.len(), || value.into()))
    }

    fn visit_unit<E>(self) -> Result<Option<Json>, E> {
        Ok(self.built(0, || Json::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Option<Json>, A::Error> {
        let Walk { node, mut is_built, outcome } = self;
        let below = node.into_iter().flat_map(|node| &node.below);
        let below: BTreeMap<usize, &Node> =
            below.filter_map(|(part, node)| Some((index(part)?, node))).collect();
        let before = outcome.room;
        let mut built = if is_built { outcome.take(VALUE_COST).map(|()| Vec::new()) } else { None };
        let mut at = 0;
        loop {
            let walk =
                Walk { node: below.get(&at).copied(), is_built: built.is_some(), outcome: &mut *outcome };
            let Some(item) = items.next_element_seed(walk)? else { break };
            built = built.zip(item).map(|(mut items, item)| {
                items.push(item);
                items
            });
            if built.is_none() && is_built {
                outcome.room = before;
                is_built = false;
            }
            at += 1;
        }
        Ok(built.map(Json::Array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Option<Json>, A::Error> {
        let Walk { node, mut is_built, outcome } = self;
        let before = outcome.room;
        let mut built = if is_built { outcome.take(VALUE_COST).map(|()| Map::new()) } else { None };
        let mut seen = BTreeSet::new();
        while let Some(key) = members.next_key::<String>()? {
            let below = node.and_then(|node| node.below.get_key_value(&key));
            // Which one counts, nobody knows.
            if let Some((name, _)) = below
                && !seen.insert(name)
            {
                return Err(A::Error::custom(format_args!("`{key}` is there twice")));
            }
            if outcome.take(if built.is_some() { VALUE_COST + key.len() } else { 0 }).is_none() {
                built = None;
            }
            let node = below.map(|(_, node)| node);
            let walk = Walk { node, is_built: built.is_some(), outcome: &mut *outcome };
            let value = members.next_value_seed(walk)?;
            built = built.zip(value).map(|(mut members, value)| {
                members.insert(key, value);
                members
            });
            if built.is_none() && is_built {
                outcome.room = before;
                is_built = false;
            }
        }
        Ok(built.map(Json::Object))
    }
}

/// The place in an array that a part of a pointer is: digits, without a zero before others (RFC 6901, section 4).
fn index(part: &str) -> Option<usize> {
    let is_index = part.bytes().all(|byte| byte.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
    part.parse().ok().filter(|_| is_index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pointers: &[&str], said: &str) -> Result<Vec<Found>, String> {
        let mut places = Places::default();
        let at: Vec<usize> = pointers.iter().map(|pointer| places.add(pointer)).collect();
        let found = places.find(said.as_bytes()).map_err(|error| error.to_string())?;
        Ok(at.into_iter().map(|at| found[at].clone()).collect())
    }

    #[test]
    fn all_places_are_found_in_one_pass_as_a_pointer_finds_them() {
        let said = r#"{"a":[1,{"b":"x","c":null}],"m/n":{"~":true},"":{"":2.5},"7":{"07":-1},"z":[[],{}]}"#;
        let json: Json = serde_json::from_str(said).unwrap();
        let pointers = [
            "/a", "/a/0", "/a/1", "/a/1/b", "/a/1/c", "/a/2", "/a/01", "/a/+1", "/a/-", "/m~1n/~0", "/",
            "//", "/7/07", "/z", "/z/0", "/z/0/0", "/a/0/x", "/nowhere", "/a/1/b",
        ];
        let expected = pointers.map(|pointer| match json.pointer(pointer) {
            None => Found::Absent,
            Some(Json::Null) => Found::Null,
            Some(json) => Found::Text(plain(json)),
        });
        assert_eq!(found(&pointers, said).unwrap(), expected);
    }

    #[test]
    fn what_is_too_large_or_too_deep_or_ambiguous_is_that_and_its_neighbours_are_found() {
        let many = format!(
            r#"{{"many":[{}0],"text":"{}","one":1}}"#,
            "[],".repeat(20_000),
            "x".repeat(VALUE_MAX + 1)
        );
        let (too_large, one) = (Found::TooLarge, Found::Text("1".to_owned()));
        let asked = ["/text", "/many/3", "/one"];
        let empty = Found::Text("[]".to_owned());
        assert_eq!(found(&asked, &many).unwrap(), [too_large.clone(), empty, one.clone()]);
        assert_eq!(
            found(&["/many", "/many/20000"], &many).unwrap(),
            [too_large, Found::Text("0".to_owned())]
        );
        let deep = format!(r#"{{"deep":{}{},"one":1}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(found(&["/one"], &deep).unwrap(), vec![one.clone()], "nobody asks for it");
        assert!(found(&["/deep"], &deep).unwrap_err().contains("recursion limit"));
        assert!(found(&["/a"], r#"{"a":1,"a":2}"#).unwrap_err().contains("`a` is there twice"));
        assert_eq!(found(&["/one"], r#"{"a":1,"a":2,"one":1}"#).unwrap(), [one]);
        for wrong in ["", "{", r#"{"one":1} x"#, r#"{"one":1,"x":}"#] {
            found(&["/one"], wrong).unwrap_err();
        }
    }
}
