//! The text of an object, as it is read from a list or a watch: bounded in how deep it nests and in how many values it has, and never
//! taken apart into a tree, which takes seventeen times the text where values are short, and eighty times where they are maps of one
//! entry. One page of a list has many objects; a tree is made of one of them at a time.

use std::cell::RefCell;
use std::fmt;
use std::io::Write as _;

use kube::api::ObjectMeta;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// 100 lists and objects around the innermost value. serde_json reads 127, here and on the node, and lists, watches and
/// answers wrap an object in some more. A real API server takes 10,000 where a definition keeps unknown fields.
pub const DEPTH_MAX: usize = 100;
/// 100,000 values in one object, lists and maps counted with what is in them: a job on 1,000 nodes with twenty images each has 80,000, a
/// Device with the 1,024 properties that a node takes 30,000. A tree of as many takes 35 MiB at the worst, for the time of one look.
pub const VALUES_MAX: usize = 100_000;

/// What was read of an object.
#[derive(Debug, Clone, Default)]
pub(crate) struct ObjectText {
    /// Its JSON without `managedFields`. Empty where it is too deep or has too many values.
    pub(crate) json: Vec<u8>,
    /// Its name, namespace, uid and resourceVersion, as far as they are text.
    pub(crate) identity: ObjectMeta,
    pub(crate) is_too_deep: bool,
    /// How many values it has.
    pub(crate) values: usize,
}

impl ObjectText {
    pub(crate) fn has_too_many(&self) -> bool {
        self.values > VALUES_MAX
    }

    fn is_given_up(&self) -> bool {
        self.is_too_deep || self.has_too_many()
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.is_given_up() {
            // What was written so far is of no use any more.
            self.json = Vec::new();
        } else {
            self.json.extend_from_slice(bytes);
        }
    }

    fn put_shown(&mut self, value: &impl fmt::Display) {
        if !self.is_given_up() {
            // Writing into memory does not fail.
            let _ = write!(self.json, "{value}");
        }
    }

    fn put_text(&mut self, text: &str) {
        if !self.is_given_up() {
            // Text is always JSON.
            let _ = serde_json::to_writer(&mut self.json, text);
        }
    }

    fn identify(&mut self, field: &str, text: &str) {
        let place = match field {
            "name" => &mut self.identity.name,
            "namespace" => &mut self.identity.namespace,
            "uid" => &mut self.identity.uid,
            "resourceVersion" => &mut self.identity.resource_version,
            _ => return,
        };
        *place = Some(text.to_owned());
    }
}

impl<'de> Deserialize<'de> for ObjectText {
    /// Fails only for what is no JSON.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = RefCell::new(ObjectText::default());
        Reader { left: DEPTH_MAX, place: Place::Object, text: &text }.deserialize(deserializer)?;
        let mut text = text.into_inner();
        if text.is_given_up() {
            text.json = Vec::new();
        }
        text.json.shrink_to_fit();
        Ok(text)
    }
}

/// Where in an object a value stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Object,
    Metadata,
    /// A field of the metadata that says which object it is.
    Identity(&'static str),
    Elsewhere,
}

const IDENTITY: [&str; 4] = ["name", "namespace", "uid", "resourceVersion"];

impl Place {
    fn of_field(self, name: &str) -> Place {
        match self {
            Place::Object if name == "metadata" => Place::Metadata,
            Place::Metadata => {
                let field = IDENTITY.into_iter().find(|field| *field == name);
                field.map_or(Place::Elsewhere, Place::Identity)
            }
            _ => Place::Elsewhere,
        }
    }
}

/// Reads a value down to a depth, as text. What is below, and what is too much, is passed over, which takes no stack, and noted.
struct Reader<'a> {
    left: usize,
    place: Place,
    text: &'a RefCell<ObjectText>,
}

impl<'a> Reader<'a> {
    fn below(&self, place: Place) -> Reader<'a> {
        Reader { left: self.left - 1, place, text: self.text }
    }

    /// One more value. Which object it is, is read of any.
    fn is_passed_over(&self) -> bool {
        self.text.borrow().is_given_up() && self.place == Place::Elsewhere
    }

    fn shown<E>(&self, value: &impl fmt::Display) -> Result<(), E> {
        self.text.borrow_mut().put_shown(value);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.text.borrow_mut().values += 1;
        if self.is_passed_over() {
            return IgnoredAny::deserialize(deserializer).map(drop);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.shown(&value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.shown(&value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.shown(&value)
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.shown(&serde_json::Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        let mut text = self.text.borrow_mut();
        text.put_text(value);
        if let Place::Identity(field) = self.place {
            text.identify(field, value);
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.shown(&"null")
    }

    fn visit_none<E>(self) -> Result<(), E> {
        self.shown(&"null")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        if self.left == 0 {
            self.text.borrow_mut().is_too_deep = true;
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        self.text.borrow_mut().put(b"[");
        let mut is_first = true;
        loop {
            // The comma stands before what may not be there: it is taken back then.
            let written = self.text.borrow().json.len();
            if !std::mem::take(&mut is_first) {
                self.text.borrow_mut().put(b",");
            }
            if items.next_element_seed(self.below(Place::Elsewhere))?.is_none() {
                self.text.borrow_mut().json.truncate(written);
                break;
            }
        }
        self.text.borrow_mut().put(b"]");
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        if self.left == 0 {
            self.text.borrow_mut().is_too_deep = true;
            while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        self.text.borrow_mut().put(b"{");
        let mut is_first = true;
        while let Some(name) = entries.next_key::<String>()? {
            if self.place == Place::Metadata && name == "managedFields" {
                entries.next_value::<IgnoredAny>()?;
                continue;
            }
            let mut text = self.text.borrow_mut();
            if !std::mem::take(&mut is_first) {
                text.put(b",");
            }
            text.put_text(&name);
            text.put(b":");
            drop(text);
            entries.next_value_seed(self.below(self.place.of_field(&name)))?;
        }
        self.text.borrow_mut().put(b"}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(json: &str) -> ObjectText {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_is_read_is_the_same_without_managed_fields() {
        let text = r#"{"metadata":{"name":"n","uid":3,"managedFields":[{"a":[1]}],"labels":{"q\"":"ü\n"}},
            "spec":{"i":-3,"u":18446744073709551615,"f":1.5,"e":1e300,"t":true,"z":null,"l":[[],{},[1,2]],"m":{}}}"#;
        let read = read(text);
        let mut expected: Value = serde_json::from_str(text).unwrap();
        expected["metadata"].as_object_mut().unwrap().remove("managedFields");
        assert_eq!(serde_json::from_slice::<Value>(&read.json).unwrap(), expected);
        assert_eq!((read.identity.name.as_deref(), read.identity.uid), (Some("n"), None));
    }

    #[test]
    fn of_what_has_too_many_values_is_kept_which_object_it_is_wherever_that_stands() {
        let many = vec![json!("a"); VALUES_MAX];
        let metadata =
            r#""metadata":{"labels":{"a":"b"},"name":"n","namespace":"d","uid":"u","resourceVersion":"7"}"#;
        let spec = format!(r#""data":{}"#, Value::from(many));
        for text in [format!("{{{metadata},{spec}}}"), format!("{{{spec},{metadata}}}")] {
            let read = read(&text);
            assert!(read.has_too_many() && !read.is_too_deep && read.json.capacity() == 0);
            let ObjectMeta { name, namespace, uid, resource_version, labels, .. } = read.identity;
            let identity = [name, namespace, uid, resource_version].map(Option::unwrap);
            assert_eq!((identity, labels), (["n", "d", "u", "7"].map(str::to_owned), None));
        }
        let few =
            read(&format!(r#"{{{metadata},"data":{}}}"#, Value::from(vec![json!("a"); VALUES_MAX - 10])));
        assert!(!few.has_too_many() && few.json.len() > 4 * (VALUES_MAX - 10));
    }
}
