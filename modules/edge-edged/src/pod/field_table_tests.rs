//! The table beside the published PodSpec, as the types that are generated from Kubernetes' swagger have it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::PodSpec;
use serde::Deserialize as _;
use serde::de::value::{Error, StrDeserializer};
use serde::de::{DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};

use super::{POD, Rule};

/// Fields of Kubernetes 1.34 to 1.36 that the types, of 1.33, do not have: where, and which.
const NEWER: &[(&str, &str)] = &[
    ("", "hostnameOverride"),
    ("", "schedulingGroup"),
    ("containers", "restartPolicyRules"),
    ("initContainers", "restartPolicyRules"),
    ("ephemeralContainers", "restartPolicyRules"),
    ("containers.env.valueFrom", "fileKeyRef"),
    ("initContainers.env.valueFrom", "fileKeyRef"),
    ("ephemeralContainers.env.valueFrom", "fileKeyRef"),
    ("volumes.projected.sources", "podCertificate"),
];

/// Objects of those releases that the types do not have: where, and their fields.
const NEWER_OBJECTS: &[(&str, &[&str])] = &[
    ("restartPolicyRules", &["action", "exitCodes"]),
    ("restartPolicyRules.exitCodes", &["operator", "values"]),
];

/// The lists of containers.
const LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// The fields of every object in the schema, by the object's path.
type Schema = BTreeMap<String, BTreeSet<String>>;

/// Reads a value of which there is one of everything, and notes which fields are asked for.
struct Walk<'a> {
    path: String,
    found: &'a mut Schema,
}

impl<'de> Deserializer<'de> for Walk<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        // Also where the text has to be a time.
        visitor.visit_str("2026-01-01T00:00:00Z")
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(false)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_i32(0)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_i64(0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(One(Some(self)))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(Fields { walk: self, fields: [].iter(), last: "" })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let own = self.found.entry(self.path.clone()).or_default();
        own.extend(fields.iter().map(|field| (*field).to_owned()));
        visitor.visit_map(Fields { walk: self, fields: fields.iter(), last: "" })
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct enum identifier ignored_any
    }
}

/// A list of one element.
struct One<'a>(Option<Walk<'a>>);

impl<'de> SeqAccess<'de> for One<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.0.take().map(|walk| seed.deserialize(walk)).transpose()
    }
}

/// An object that has every field.
struct Fields<'a> {
    walk: Walk<'a>,
    fields: std::slice::Iter<'static, &'static str>,
    last: &'static str,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(field) = self.fields.next() else { return Ok(None) };
        self.last = field;
        let key: StrDeserializer<'_, Error> = (*field).into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let path = below(&self.walk.path, self.last);
        seed.deserialize(Walk { path, found: self.walk.found })
    }
}

fn below(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

fn published() -> Schema {
    let mut found = Schema::new();
    PodSpec::deserialize(Walk { path: String::new(), found: &mut found }).unwrap();
    for (path, field) in NEWER {
        let own = found.get_mut(*path).unwrap_or_else(|| panic!("the types have no {path}"));
        assert!(own.insert((*field).to_owned()), "the types have {path}.{field} by now");
    }
    for (list, (path, fields)) in
        LISTS.iter().flat_map(|list| NEWER_OBJECTS.iter().map(move |own| (list, own)))
    {
        let own = fields.iter().map(|field| (*field).to_owned()).collect();
        assert_eq!(found.insert(below(list, path), own), None, "the types have {path} by now");
    }
    found
}

/// Every object that the table looks into, with the fields that it knows.
fn known<'a>(path: &str, rules: &'a [(&'a str, Rule)], objects: &mut Schema) {
    for (field, rule) in rules {
        let at = below(path, field);
        assert!(objects.entry(path.to_owned()).or_default().insert((*field).to_owned()), "{at} stands twice");
        match rule {
            Rule::Inside(rules) => known(&at, rules, objects),
            Rule::Honoured | Rule::NoMatter | Rule::Only(_) | Rule::Refused => {}
        }
    }
}

#[test]
fn every_field_of_the_published_pod_is_in_the_table_and_no_other() {
    let published = published();
    // The walk has reached the depth of the schema.
    assert!(published["containers.env.valueFrom.secretKeyRef"].contains("key"));
    assert!(published["volumes.projected.sources.downwardAPI.items.fieldRef"].contains("fieldPath"));
    let mut objects = Schema::new();
    known("", POD, &mut objects);
    for (path, own) in &objects {
        let wanted = published.get(path).unwrap_or_else(|| panic!("Kubernetes has no {path}"));
        assert_eq!(own, wanted, "fields of {path:?}: ours left, Kubernetes' right");
    }
}
