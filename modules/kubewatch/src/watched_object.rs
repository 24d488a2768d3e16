//! One object of a list or of a watch, as far as it can be read.
//!
//! A list is one document: were its items read as their types, one that is nested too deep or of a wrong type would make
//! the whole list fail, for ever, and with it everything else of its kind. So an item is read as text of bounded depth and with a bounded
//! number of values first, which always succeeds, and what is wrong with it is then said of it alone.

use std::borrow::Cow;

use kube::Resource;
use kube::api::{ApiResource, DynamicObject, ObjectMeta, TypeMeta};
use kube::core::DynamicResourceScope;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::object_text::{DEPTH_MAX, ObjectText, VALUES_MAX};

/// An object as the API server told it: its text, without its `managedFields`, which nobody here needs and which nest as deep as the
/// object. What it was made of [`WatchedObject::into_read`] says; a page of a list is many objects, and a tree is made of one of
/// them at a time.
#[derive(Debug, Clone)]
pub struct WatchedObject(ObjectText);

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
        parse(self.0)
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

    /// Its name, namespace, uid and resourceVersion, and nothing else.
    fn meta(&self) -> &ObjectMeta {
        &self.0.identity
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.0.identity
    }
}

impl<'de> Deserialize<'de> for WatchedObject {
    /// Fails only for what is no JSON.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ObjectText::deserialize(deserializer).map(WatchedObject)
    }
}

/// The same of an object's metadata alone, which is all that the API server is asked for.
#[derive(Debug, Clone)]
pub struct WatchedMetadata(Result<Box<ObjectMeta>, Unreadable>);

impl WatchedMetadata {
    /// The metadata, or what is known of it.
    ///
    /// # Errors
    /// If it could not be read.
    pub fn into_read(self) -> Result<ObjectMeta, Unreadable> {
        self.0.map(|metadata| *metadata)
    }
}

impl<'de> Deserialize<'de> for WatchedMetadata {
    /// Fails only for what is no JSON.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = parse(ObjectText::deserialize(deserializer)?);
        Ok(WatchedMetadata(read.map(|object| Box::new(object.metadata))))
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
        match &self.0 {
            Ok(metadata) => metadata,
            Err(unreadable) => &unreadable.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.0 {
            Ok(metadata) => metadata,
            Err(unreadable) => &mut unreadable.metadata,
        }
    }
}

fn parse(text: ObjectText) -> Result<DynamicObject, Unreadable> {
    let unreadable = |why: String, identity: ObjectMeta| Unreadable { metadata: Box::new(identity), why };
    if text.is_too_deep {
        return Err(unreadable(format!("it is nested deeper than {DEPTH_MAX} levels"), text.identity));
    }
    if text.has_too_many() {
        let why = format!("it is too large: it has more than {VALUES_MAX} values, lists and maps counted");
        return Err(unreadable(why, text.identity));
    }
    let tree = serde_json::from_slice(&text.json);
    let Ok(Value::Object(mut fields)) = tree else {
        return Err(unreadable("it is no object".to_owned(), text.identity));
    };
    let metadata = fields.remove("metadata").unwrap_or_default();
    let read = match ObjectMeta::deserialize(metadata) {
        Ok(read) => read,
        // The words of the error can hold a value.
        Err(error) => {
            let category = error.classify();
            let why = format!("its metadata is not of the type of metadata ({category:?} error)");
            return Err(unreadable(why, text.identity));
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
            Ok(DynamicObject { types, metadata: read, data: Value::Object(fields) })
        }
        (Err(why), _) | (_, Err(why)) => Err(unreadable(why, text.identity)),
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
