//! One object of a list or of a watch, as far as it can be read.
//!
//! A list is one document: were its items read as their types, one that is nested too deep or of a wrong type would make
//! the whole list fail, for ever, and with it everything else of its kind. So an item is read into a tree of bounded depth
//! first, which always succeeds, and what is wrong with it is then said of it alone.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use kube::Resource;
use kube::api::{ApiResource, DynamicObject, ObjectMeta, TypeMeta};
use kube::core::DynamicResourceScope;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// 100 lists and objects around the innermost value. serde_json reads 127, here and on the node, and lists, watches and
/// answers wrap an object in some more. A real API server takes 10,000 where a definition keeps unknown fields.
pub const DEPTH_MAX: usize = 100;

/// An object as the API server told it.
#[derive(Debug, Clone)]
pub enum WatchedObject {
    /// It was read, without its `managedFields`, which nobody here needs and which nest as deep as the object.
    Read(Box<DynamicObject>),
    /// It is there and could not be read.
    Unreadable(Unreadable),
}

/// An object that could not be read.
#[derive(Debug, Clone)]
pub struct Unreadable {
    /// Its name, namespace, uid and resourceVersion, as far as they are text.
    pub metadata: Box<ObjectMeta>,
    /// Why, for a person. It quotes nothing of the object.
    pub why: String,
}

impl WatchedObject {
    /// The object, or what is known of it.
    ///
    /// # Errors
    /// If it could not be read.
    pub fn into_read(self) -> Result<DynamicObject, Unreadable> {
        match self {
            WatchedObject::Read(object) => Ok(*object),
            WatchedObject::Unreadable(unreadable) => Err(unreadable),
        }
    }
}

impl Resource for WatchedObject {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(of: &ApiResource) -> Cow<'_, str> {
        DynamicObject::kind(of)
    }

    fn group(of: &ApiResource) -> Cow<'_, str> {
        DynamicObject::group(of)
    }

    fn version(of: &ApiResource) -> Cow<'_, str> {
        DynamicObject::version(of)
    }

    fn plural(of: &ApiResource) -> Cow<'_, str> {
        DynamicObject::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            WatchedObject::Read(object) => &object.metadata,
            WatchedObject::Unreadable(unreadable) => &unreadable.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            WatchedObject::Read(object) => &mut object.metadata,
            WatchedObject::Unreadable(unreadable) => &mut unreadable.metadata,
        }
    }
}

impl<'de> Deserialize<'de> for WatchedObject {
    /// Fails only for what is no JSON.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let is_too_deep = Cell::new(false);
        let tree = Tree { left: DEPTH_MAX, place: Place::Object, is_too_deep: &is_too_deep };
        Ok(of_tree(tree.deserialize(deserializer)?, is_too_deep.get()))
    }
}

/// The same of an object's metadata alone, which is all that the API server is asked for.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct WatchedMetadata(WatchedObject);

impl WatchedMetadata {
    /// The metadata, or what is known of it.
    ///
    /// # Errors
    /// If it could not be read.
    pub fn into_read(self) -> Result<ObjectMeta, Unreadable> {
        self.0.into_read().map(|object| object.metadata)
    }
}

impl Resource for WatchedMetadata {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn metadata_api() -> bool {
        true
    }

    fn kind(of: &ApiResource) -> Cow<'_, str> {
        DynamicObject::kind(of)
    }

    fn group(of: &ApiResource) -> Cow<'_, str> {
        DynamicObject::group(of)
    }

    fn version(of: &ApiResource) -> Cow<'_, str> {
        DynamicObject::version(of)
    }

    fn plural(of: &ApiResource) -> Cow<'_, str> {
        DynamicObject::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

fn of_tree(mut tree: Value, is_too_deep: bool) -> WatchedObject {
    let metadata = tree.get_mut("metadata").map(Value::take).unwrap_or_default();
    let unreadable = |why: String| {
        let text = |field: &str| metadata.get(field).and_then(Value::as_str).map(str::to_owned);
        let metadata = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        WatchedObject::Unreadable(Unreadable { metadata: Box::new(metadata), why })
    };
    if is_too_deep {
        return unreadable(format!("it is nested deeper than {DEPTH_MAX} levels"));
    }
    let Value::Object(mut fields) = tree else { return unreadable("it is no object".to_owned()) };
    fields.remove("metadata");
    let read = match ObjectMeta::deserialize(&metadata) {
        Ok(read) => read,
        // The words of the error can hold a value.
        Err(error) => {
            let category = error.classify();
            return unreadable(format!("its metadata is not of the type of metadata ({category:?} error)"));
        }
    };
    let mut types = |field: &str| match fields.remove(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("its {field} is no text")),
    };
    match (types("apiVersion"), types("kind")) {
        (Ok(api_version), Ok(kind)) => {
            let types = api_version.zip(kind).map(|(api_version, kind)| TypeMeta { api_version, kind });
            let object = DynamicObject { types, metadata: read, data: Value::Object(fields) };
            WatchedObject::Read(Box::new(object))
        }
        (Err(why), _) | (_, Err(why)) => unreadable(why),
    }
}

/// Where in an object a value stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Object,
    Metadata,
    Elsewhere,
}

/// Reads a value down to a depth. What is below is passed over, which takes no stack, and noted.
struct Tree<'a> {
    left: usize,
    place: Place,
    is_too_deep: &'a Cell<bool>,
}

impl<'a> Tree<'a> {
    fn below(&self, place: Place) -> Tree<'a> {
        Tree { left: self.left - 1, place, is_too_deep: self.is_too_deep }
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        if self.left == 0 {
            self.is_too_deep.set(true);
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Value::Null);
        }
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.below(Place::Elsewhere))? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        if self.left == 0 {
            self.is_too_deep.set(true);
            while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(Value::Null);
        }
        let mut fields = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            if self.place == Place::Metadata && name == "managedFields" {
                entries.next_value::<IgnoredAny>()?;
                continue;
            }
            let is_metadata = self.place == Place::Object && name == "metadata";
            let place = if is_metadata { Place::Metadata } else { Place::Elsewhere };
            let value = entries.next_value_seed(self.below(place))?;
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::api::{ObjectList, WatchEvent};

    /// An object nested so deep, as text: its own builder would not print what it could not read.
    fn nested(name: &str, levels: usize) -> String {
        // The object, its spec and the value in the middle.
        let (open, close) = ("{\"a\":".repeat(levels - 2), "}".repeat(levels - 2));
        format!(
            "{{\"metadata\":{{\"name\":\"{name}\",\"namespace\":\"d\",\"uid\":\"u\",\"resourceVersion\":\"7\"}},\
             \"spec\":{{\"x\":{open}1{close}}}}}"
        )
    }

    fn listed(items: &[String]) -> Vec<WatchedObject> {
        let text = format!(
            "{{\"kind\":\"DeviceList\",\"apiVersion\":\"v1\",\"metadata\":{{\"resourceVersion\":\"9\"}},\"items\":[{}]}}",
            items.join(",")
        );
        serde_json::from_str::<ObjectList<WatchedObject>>(&text).unwrap().items
    }

    #[test]
    fn an_object_that_is_nested_too_deep_breaks_neither_its_list_nor_its_watch() {
        for levels in [DEPTH_MAX + 1, 124, 127, 128, 5000, 1_000_000] {
            let items = listed(&[nested("a", 3), nested("deep", levels), nested("z", DEPTH_MAX)]);
            let read: Vec<_> = items.into_iter().map(WatchedObject::into_read).collect();
            assert_eq!(read[0].as_ref().unwrap().metadata.name.as_deref(), Some("a"));
            assert!(read[2].is_ok(), "what is just within the bound is read");
            let unreadable = read[1].as_ref().unwrap_err();
            assert_eq!(unreadable.metadata.name.as_deref(), Some("deep"));
            assert_eq!(unreadable.metadata.uid.as_deref(), Some("u"));
            assert_eq!(unreadable.why, "it is nested deeper than 100 levels");
            let line = format!("{{\"type\":\"MODIFIED\",\"object\":{}}}", nested("deep", levels));
            let event: WatchEvent<WatchedObject> = serde_json::from_str(&line).unwrap();
            let WatchEvent::Modified(object) = event else { panic!("{event:?}") };
            assert_eq!(object.meta().resource_version.as_deref(), Some("7"), "the watch goes on from it");
        }
    }

    #[test]
    fn managed_fields_do_not_count_however_deep_they_are() {
        let (open, close) = ("{\"f:a\":".repeat(2000), "}".repeat(2000));
        let text = format!(
            "{{\"metadata\":{{\"name\":\"n\",\"managedFields\":[{{\"fieldsV1\":{open}{{}}{close}}}]}},\"data\":{{\"k\":\"v\"}}}}"
        );
        let read = listed(&[text]).remove(0).into_read().unwrap();
        assert_eq!((read.metadata.managed_fields, &read.data["data"]["k"]), (None, &"v".into()));
    }

    #[test]
    fn what_is_of_a_wrong_type_is_named_and_its_neighbours_are_read() {
        let odd = [
            "[1]",
            "null",
            "7",
            "{\"metadata\":[]}",
            "{\"metadata\":{\"name\":\"odd\",\"labels\":7}}",
            "{\"metadata\":{\"name\":\"odd\",\"deletionTimestamp\":\"yesterday\"}}",
            "{\"metadata\":{\"name\":\"odd\",\"ownerReferences\":{\"uid\":1}}}",
            "{\"kind\":{},\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"odd\"}}",
        ];
        for text in odd {
            let mut items = listed(&[nested("a", 3), text.to_owned(), nested("z", 3)]);
            assert!(items.pop().unwrap().into_read().is_ok());
            let unreadable = items.pop().unwrap().into_read();
            let unreadable = unreadable.expect_err(text);
            assert_eq!(unreadable.metadata.name.is_some(), text.contains("odd"), "{text}");
            assert!(!unreadable.why.contains("yesterday"), "{}", unreadable.why);
            assert!(items.pop().unwrap().into_read().is_ok());
        }
    }

    #[test]
    fn whatever_can_be_read_is_read_as_it_is() {
        let text = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"n","labels":{"a":"b"}},
            "spec":{"i":-3,"u":18446744073709551615,"f":1.5,"t":true,"z":null,"l":[[],{}],"s":"ü\n"},"status":{}}"#;
        let ours = serde_json::from_str::<WatchedObject>(text).unwrap().into_read().unwrap();
        let theirs: DynamicObject = serde_json::from_str(text).unwrap();
        assert_eq!(ours, theirs);
    }

    /// kube's own watcher, which fails for ever where an item of a list cannot be read.
    #[tokio::test]
    async fn a_watcher_lists_and_goes_on_past_what_cannot_be_read() {
        use std::convert::Infallible;

        use futures::StreamExt;
        use http::{Request, Response};
        use http_body_util::Full;
        use kube::ResourceExt;
        use kube::api::Api;
        use kube::runtime::watcher;
        use kube::runtime::watcher::Event;

        let service = tower::service_fn(|request: Request<kube::client::Body>| async move {
            let is_watch = request.uri().query().unwrap_or_default().contains("watch=true");
            let text = if is_watch {
                let event = |object: String| format!("{{\"type\":\"MODIFIED\",\"object\":{object}}}\n");
                event(nested("deep", 5000))
                    + &event(
                        "{\"metadata\":{\"name\":\"odd\",\"resourceVersion\":\"8\",\"labels\":1}}".to_owned(),
                    )
                    + &event(nested("z", 3))
            } else {
                let items = [nested("a", 3), nested("deep", 124), "[]".to_owned(), nested("z", 3)].join(",");
                format!(
                    "{{\"kind\":\"L\",\"apiVersion\":\"v1\",\"metadata\":{{\"resourceVersion\":\"5\"}},\"items\":[{items}]}}"
                )
            };
            Ok::<_, Infallible>(Response::new(Full::new(bytes::Bytes::from(text))))
        });
        let resource = crate::WatchedKind::core("pods", "Pod").api_resource();
        let api: Api<WatchedObject> = Api::all_with(kube::Client::new(service, "default"), &resource);
        let events = watcher(api, watcher::Config::default()).take(9).map(|event| match event.unwrap() {
            Event::Init => "init".to_owned(),
            Event::InitDone => "done".to_owned(),
            Event::InitApply(object) | Event::Apply(object) => {
                let name = object.name_any();
                if object.into_read().is_ok() { name } else { format!("({name})") }
            }
            Event::Delete(_) => panic!("nothing was deleted"),
        });
        let told: Vec<String> = events.collect().await;
        assert_eq!(told, ["init", "a", "(deep)", "()", "z", "done", "(deep)", "(odd)", "z"]);
    }
}
