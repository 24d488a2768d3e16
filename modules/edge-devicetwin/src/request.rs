//! What MQTT clients ask, read as KubeEdge's edgecore reads it (Go's encoding/json): names of fields in any case, the last one of a name,
//! null as nothing. What is of another type where it matters is kept by what it is, so that it can be told of which property it was said.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::plan::{Code, Malformed, PropertyUpdate, PropertyValues, Refused, TWINS_MAX, Wanted};

/// 256 KiB: more than a thousand twins with long values.
pub(crate) const PAYLOAD_MAX: usize = 256 << 10;
/// 256 characters: room for any id that people make.
const EVENT_ID_MAX: usize = 256;
/// 64 characters of a property's name in a sentence.
const NAME_SHOWN: usize = 64;

/// What stands where a `T` is meant.
#[derive(Debug, Default)]
enum Found<T> {
    /// One.
    Is(T),
    /// Null, or the field is not there.
    #[default]
    Nothing,
    /// Something else: what it is.
    Not(&'static str),
}

/// What is read from one JSON value of its own kind; of any other it is not.
trait Part: Sized {
    fn of_text(_: &str) -> Option<Self> {
        None
    }

    fn of_flag(_: bool) -> Option<Self> {
        None
    }

    fn of_object<'de, A: MapAccess<'de>>(mut object: A) -> Result<Option<Self>, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

impl Part for String {
    fn of_text(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl Part for bool {
    fn of_flag(flag: bool) -> Option<Self> {
        Some(flag)
    }
}

/// An object with fields of known names.
pub(crate) trait Fields: Default {
    /// Takes the field's value from `object`, which stands before it. Answers whether it has such a field.
    fn take<'de, A: MapAccess<'de>>(&mut self, field: &str, object: &mut A) -> Result<bool, A::Error>;

    fn of<'de, A: MapAccess<'de>>(mut object: A) -> Result<Self, A::Error> {
        let mut fields = Self::default();
        while let Some(field) = object.next_key::<String>()? {
            if !fields.take(&field.to_ascii_lowercase(), &mut object)? {
                object.next_value::<IgnoredAny>()?;
            }
        }
        Ok(fields)
    }
}

struct PartVisitor<T>(PhantomData<T>);

impl<'de, T: Part> Visitor<'de> for PartVisitor<T> {
    type Value = Found<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Found<T>, E> {
        Ok(Found::Nothing)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Found<T>, E> {
        Ok(T::of_flag(flag).map_or(Found::Not("true or false"), Found::Is))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Found<T>, E> {
        Ok(Found::Not("a number"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Found<T>, E> {
        Ok(Found::Not("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Found<T>, E> {
        Ok(Found::Not("a number"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Found<T>, E> {
        Ok(T::of_text(text).map_or(Found::Not("a text"), Found::Is))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Found<T>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Found::Not("a list"))
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Found<T>, A::Error> {
        Ok(T::of_object(object)?.map_or(Found::Not("an object"), Found::Is))
    }
}

impl<'de, T: Part> Deserialize<'de> for Found<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PartVisitor(PhantomData))
    }
}

/// A text that has to be one; null is none.
fn text<'de, A: MapAccess<'de>>(field: &str, object: &mut A) -> Result<String, A::Error> {
    match object.next_value()? {
        Found::Is(text) => Ok(text),
        Found::Nothing => Ok(String::new()),
        Found::Not(what) => Err(serde::de::Error::custom(format_args!("`{field}` is {what}; write text"))),
    }
}

/// `twin/update`.
#[derive(Debug, Default)]
pub(crate) struct UpdateRequest {
    pub(crate) event_id: String,
    twin: Found<Properties>,
}

impl Fields for UpdateRequest {
    fn take<'de, A: MapAccess<'de>>(&mut self, field: &str, object: &mut A) -> Result<bool, A::Error> {
        match field {
            "event_id" => self.event_id = text(field, object)?,
            "twin" => self.twin = object.next_value()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

#[derive(Debug, Default)]
struct Properties(BTreeMap<String, Found<PropertyRequest>>);

impl Part for Properties {
    fn of_object<'de, A: MapAccess<'de>>(mut object: A) -> Result<Option<Self>, A::Error> {
        let mut properties = BTreeMap::new();
        while let Some((property, request)) = object.next_entry()? {
            properties.insert(property, request);
            if properties.len() > TWINS_MAX {
                return Err(serde::de::Error::custom("more than 1024 properties in one message"));
            }
        }
        Ok(Some(Properties(properties)))
    }
}

/// One property of a `twin/update`; null deletes it.
#[derive(Debug, Default)]
struct PropertyRequest {
    expected: Found<SideRequest>,
    actual: Found<SideRequest>,
    optional: Found<bool>,
    metadata: Found<TypeRequest>,
}

impl Fields for PropertyRequest {
    fn take<'de, A: MapAccess<'de>>(&mut self, field: &str, object: &mut A) -> Result<bool, A::Error> {
        match field {
            "expected" => self.expected = object.next_value()?,
            "actual" => self.actual = object.next_value()?,
            "optional" => self.optional = object.next_value()?,
            "metadata" => self.metadata = object.next_value()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Part for PropertyRequest {
    fn of_object<'de, A: MapAccess<'de>>(object: A) -> Result<Option<Self>, A::Error> {
        Fields::of(object).map(Some)
    }
}

/// One side of a property.
#[derive(Debug, Default)]
struct SideRequest {
    value: Found<String>,
}

impl Fields for SideRequest {
    fn take<'de, A: MapAccess<'de>>(&mut self, field: &str, object: &mut A) -> Result<bool, A::Error> {
        let is_value = field == "value";
        if is_value {
            self.value = object.next_value()?;
        }
        Ok(is_value)
    }
}

impl Part for SideRequest {
    fn of_object<'de, A: MapAccess<'de>>(object: A) -> Result<Option<Self>, A::Error> {
        Fields::of(object).map(Some)
    }
}

/// The type that a client gives to a property; `deleted` deletes it.
#[derive(Debug, Default)]
struct TypeRequest {
    value_type: Found<String>,
}

impl Fields for TypeRequest {
    fn take<'de, A: MapAccess<'de>>(&mut self, field: &str, object: &mut A) -> Result<bool, A::Error> {
        let is_type = field == "type";
        if is_type {
            self.value_type = object.next_value()?;
        }
        Ok(is_type)
    }
}

impl Part for TypeRequest {
    fn of_object<'de, A: MapAccess<'de>>(object: A) -> Result<Option<Self>, A::Error> {
        Fields::of(object).map(Some)
    }
}

impl UpdateRequest {
    /// Whether it says what anything is.
    pub(crate) fn says_actual(&self) -> bool {
        let Found::Is(Properties(twin)) = &self.twin else { return false };
        let is_said = |request: &Found<PropertyRequest>| {
            matches!(request, Found::Is(PropertyRequest { actual: Found::Is(_), .. }))
        };
        twin.values().any(is_said)
    }

    /// What it wants of each property.
    ///
    /// # Errors
    /// It names no properties.
    pub(crate) fn wanted(self) -> Result<Wanted, Refused> {
        let twin = match self.twin {
            Found::Is(Properties(twin)) => twin,
            Found::Nothing => return Err(Refused::new(Code::BadRequest, "the payload has no `twin`")),
            Found::Not(what) => {
                let reason =
                    format!("`twin` is {what}; write an object with the properties, {{\"NAME\": …}}");
                return Err(Refused::new(Code::BadRequest, reason));
            }
        };
        let mut wanted = Wanted::default();
        for (property, request) in twin {
            match update(&property, request) {
                Ok(update) => drop(wanted.updates.insert(property, update)),
                Err(malformed) => drop(wanted.malformed.insert(property, malformed)),
            }
        }
        Ok(wanted)
    }
}

fn update(property: &str, request: Found<PropertyRequest>) -> Result<PropertyUpdate, Malformed> {
    let name: String = property.chars().take(NAME_SHOWN).collect();
    let malformed = |reason: String, is_of_actual: bool| Malformed { reason, is_of_actual };
    let request = match request {
        Found::Is(request) => request,
        Found::Nothing => return Ok(PropertyUpdate::Delete),
        Found::Not(what) => {
            let reason = format!("property `{name}` is {what}; write {{\"actual\": {{\"value\": \"…\"}}}}");
            return Err(malformed(reason, true));
        }
    };
    let value_type = match request.metadata {
        Found::Is(TypeRequest { value_type: Found::Is(value_type) }) => Some(value_type),
        Found::Nothing | Found::Is(TypeRequest { value_type: Found::Nothing }) => None,
        Found::Not(what) | Found::Is(TypeRequest { value_type: Found::Not(what) }) => {
            let reason = format!(
                "the type of `{name}` is {what}; write \"metadata\": {{\"type\": \"…\"}}, or leave it out"
            );
            return Err(malformed(reason, false));
        }
    };
    let has_value =
        |side: &Found<SideRequest>| matches!(side, Found::Is(SideRequest { value: Found::Is(_) }));
    // With a value the word is passed over (KubeEdge): a value that is told is of a property that is there.
    let is_deletion = value_type.as_deref() == Some("deleted");
    if is_deletion && !has_value(&request.expected) && !has_value(&request.actual) {
        return Ok(PropertyUpdate::Delete);
    }
    let optional = match request.optional {
        Found::Is(optional) => Some(optional),
        Found::Nothing => None,
        Found::Not(what) => {
            let reason = format!(
                "`optional` of `{name}` is {what}; write true or false without quotes, or leave it out"
            );
            return Err(malformed(reason, false));
        }
    };
    let side = |request: Found<SideRequest>, side: &str| {
        let value = match request {
            Found::Nothing => return Ok(None),
            Found::Is(SideRequest { value }) => value,
            Found::Not(what) => {
                return Err(format!("`{side}` of `{name}` is {what}; write {{\"value\": \"…\"}}"));
            }
        };
        match value {
            Found::Is(value) => Ok(Some(value)),
            Found::Nothing => Err(format!("`{side}` of `{name}` has no value; write {{\"value\": \"…\"}}")),
            Found::Not(what @ ("a number" | "true or false")) => Err(format!(
                "the value of `{name}` in `{side}` is {what}, and all values are text: write it in quotes"
            )),
            Found::Not(what) => {
                Err(format!("the value of `{name}` in `{side}` is {what}, and all values are text"))
            }
        }
    };
    let actual = side(request.actual, "actual").map_err(|reason| malformed(reason, true))?;
    let expected = side(request.expected, "expected").map_err(|reason| malformed(reason, false))?;
    Ok(PropertyUpdate::Set(PropertyValues { expected, actual, optional, value_type }))
}

/// `twin/get` and `membership/get`.
#[derive(Debug, Default)]
pub(crate) struct GetRequest {
    pub(crate) event_id: String,
}

impl Fields for GetRequest {
    fn take<'de, A: MapAccess<'de>>(&mut self, field: &str, object: &mut A) -> Result<bool, A::Error> {
        let is_id = field == "event_id";
        if is_id {
            self.event_id = text(field, object)?;
        }
        Ok(is_id)
    }
}

/// `state/update`.
#[derive(Debug, Default)]
pub(crate) struct StateRequest {
    pub(crate) state: String,
}

impl Fields for StateRequest {
    fn take<'de, A: MapAccess<'de>>(&mut self, field: &str, object: &mut A) -> Result<bool, A::Error> {
        let is_state = field == "state";
        if is_state {
            self.state = text(field, object)?;
        }
        Ok(is_state)
    }
}

/// A request with an id to echo.
pub(crate) trait Request: Fields {
    /// The id.
    fn event_id(&self) -> &str;
}

impl Request for UpdateRequest {
    fn event_id(&self) -> &str {
        &self.event_id
    }
}

impl Request for GetRequest {
    fn event_id(&self) -> &str {
        &self.event_id
    }
}

impl Request for StateRequest {
    fn event_id(&self) -> &'static str {
        ""
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Fields> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<T, A::Error> {
        T::of(object)
    }
}

fn parse<T: Request>(payload: &[u8]) -> Result<T, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(payload);
    let request = json.deserialize_map(ObjectVisitor(PhantomData))?;
    json.end()?;
    Ok(request)
}

/// Reads a request.
///
/// # Errors
/// What is wrong with it, for whoever sent it.
pub(crate) fn read<T: Request>(payload: &[u8]) -> Result<T, Refused> {
    if payload.len() > PAYLOAD_MAX {
        return Err(Refused::new(Code::BadRequest, "the payload has more than 256 KiB"));
    }
    let request: T = parse(payload)
        .map_err(|error| Refused::new(Code::BadRequest, format!("the payload is not understood: {error}")))?;
    if request.event_id().chars().count() > EVENT_ID_MAX {
        return Err(Refused::new(Code::BadRequest, "event_id has more than 256 characters"));
    }
    Ok(request)
}

/// The id of a request that is refused as a whole, where that can be read; else none, as with KubeEdge.
pub(crate) fn event_id(payload: &[u8]) -> String {
    let head = payload.get(..payload.len().min(PAYLOAD_MAX)).map(parse::<GetRequest>);
    let id = head.and_then(Result::ok).map(|head| head.event_id);
    id.filter(|id| id.chars().count() <= EVENT_ID_MAX).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(text: &str) -> Wanted {
        read::<UpdateRequest>(text.as_bytes()).and_then(UpdateRequest::wanted).unwrap()
    }

    #[test]
    fn a_request_that_is_refused_keeps_the_id_that_can_be_read() {
        assert_eq!(event_id(br#"{"event_id":"e7","twin":{"a":{"actual":{"value":7}}}}"#), "e7");
        for none in [&br#"{"event_id":7}"#[..], b"{", b"{}", b"[]", br#"{"event_id":null}"#] {
            assert_eq!(event_id(none), "");
        }
        assert_eq!(event_id(format!(r#"{{"event_id":"{}"}}"#, "x".repeat(257)).as_bytes()), "");
    }

    #[test]
    fn an_update_says_what_it_wants_of_each_property() {
        let all = wanted(
            r#"{"twin":{"a":null,"b":{"metadata":{"type":"deleted"},"actual":{}},
            "c":{"expected":{"value":"1"},"optional":false,"metadata":{"type":"int"}},
            "d":{"actual":{"value":"2"},"expected":null,"optional":null,"metadata":{"type":"deleted"}}}}"#,
        );
        let set = PropertyValues {
            expected: Some("1".into()),
            optional: Some(false),
            value_type: Some("int".into()),
            ..PropertyValues::default()
        };
        let told = PropertyValues {
            actual: Some("2".into()),
            value_type: Some("deleted".into()),
            ..PropertyValues::default()
        };
        let expected = [
            ("a", PropertyUpdate::Delete),
            ("b", PropertyUpdate::Delete),
            ("c", PropertyUpdate::Set(set)),
            ("d", PropertyUpdate::Set(told)),
        ];
        assert_eq!(all.updates, expected.map(|(name, update)| (name.to_owned(), update)).into());
        assert!(all.malformed.is_empty());
    }

    #[test]
    fn what_kubeedge_reads_is_read() {
        let text = r#"{"Event_ID":null,"TWIN":{"a":{"Actual":{"VALUE":"1"},"Metadata":null},"a":{"actual":{"value":"2"}}},"timestamp":"x"}"#;
        let request = read::<UpdateRequest>(text.as_bytes()).unwrap();
        assert_eq!(request.event_id, "");
        assert!(request.says_actual());
        let values = PropertyValues { actual: Some("2".into()), ..PropertyValues::default() };
        let updates = [("a".to_owned(), PropertyUpdate::Set(values))];
        assert_eq!(request.wanted().unwrap().updates, updates.into(), "the last one of a name");
        assert_eq!(read::<StateRequest>(br#"{"State":"online"}"#).unwrap().state, "online");
    }

    #[test]
    fn a_value_of_another_type_is_named_with_its_property_and_the_others_are_read() {
        for (wrong, words, is_of_actual) in [
            (r#"{"actual":{"value":{"a":1}}}"#, "the value of `t` in `actual` is an object", true),
            (r#"{"actual":{"value":[1,[2]]}}"#, "is a list", true),
            (r#"{"actual":{"value":21.5}}"#, "a number, and all values are text: write it in quotes", true),
            (r#"{"actual":{"value":-7}}"#, "a number", true),
            (r#"{"actual":{"value":true}}"#, "true or false, and all values are text", true),
            (r#"{"actual":{"value":null}}"#, "`actual` of `t` has no value", true),
            (r#"{"actual":"5"}"#, "`actual` of `t` is a text", true),
            ("5", "property `t` is a number; write {\"actual\"", true),
            (r#"{"expected":{"value":5}}"#, "in `expected` is a number", false),
            (r#"{"expected":{}}"#, "`expected` of `t` has no value", false),
            (r#"{"actual":{"value":"5"},"metadata":{"type":5}}"#, "the type of `t` is a number", false),
            (r#"{"actual":{"value":"5"},"metadata":"int"}"#, "the type of `t` is a text", false),
            (r#"{"actual":{"value":"5"},"optional":"no"}"#, "`optional` of `t` is a text", false),
        ] {
            let Wanted { updates, malformed } =
                wanted(&format!(r#"{{"twin":{{"t":{wrong},"good":{{"actual":{{"value":"1"}}}}}}}}"#));
            assert_eq!(updates.len(), 1, "{wrong}");
            let found = &malformed["t"];
            assert!(found.reason.contains(words), "{wrong}: {}", found.reason);
            assert_eq!(found.is_of_actual, is_of_actual, "{wrong}");
        }
    }

    #[test]
    fn a_request_that_is_none_is_refused_and_bounded() {
        for text in ["", "null", "7", "[]", r#"{"event_id":7,"twin":{}}"#] {
            let refused = read::<UpdateRequest>(text.as_bytes()).unwrap_err();
            assert!(refused.reason.starts_with("the payload is not understood"), "{text}: {refused:?}");
        }
        for (text, words) in
            [("{}", "has no `twin`"), (r#"{"twin":null}"#, "has no `twin`"), (r#"{"twin":7}"#, "is a number")]
        {
            let request = read::<UpdateRequest>(text.as_bytes()).unwrap();
            assert!(request.wanted().unwrap_err().reason.contains(words), "{text}");
        }
        let many: Vec<String> = (0..=TWINS_MAX).map(|n| format!("\"p{n}\":{{}}")).collect();
        let refused = read::<UpdateRequest>(format!("{{\"twin\":{{{}}}}}", many.join(",")).as_bytes());
        assert!(refused.unwrap_err().reason.contains("more than 1024 properties"));
        let deep = format!(r#"{{"twin":{{"t":{}"#, "[".repeat(200_000));
        assert!(read::<UpdateRequest>(deep.as_bytes()).is_err());
    }
}
