//! What travels as JSON on the topics of the twins.

use std::collections::BTreeMap;

use bytes::Bytes;
use contract::ids::DeviceName;
use contract::{CallOutcome, CallState};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::plan::{Code, PropertyUpdate, PropertyValues, Refused, TwinChange, is_online};
use crate::twin::{Side, State, Twin};

/// 256 KiB: more than a thousand twins with long values.
pub(crate) const PAYLOAD_MAX: usize = 256 << 10;
/// 256 characters: room for any id that people make.
const EVENT_ID_MAX: usize = 256;

/// What every message has.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    /// Echoed from a request, or fresh.
    pub(crate) event_id: String,
    /// Milliseconds since 1970.
    pub(crate) timestamp: i64,
}

/// `twin/update`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct UpdateRequest {
    #[serde(default)]
    pub(crate) event_id: String,
    twin: BTreeMap<String, Option<PropertyRequest>>,
}

/// One property of a `twin/update`; null deletes it.
#[derive(Debug, Default, Deserialize)]
struct PropertyRequest {
    expected: Option<ValueRequest>,
    actual: Option<ValueRequest>,
    optional: Option<bool>,
    metadata: Option<TypeRequest>,
}

/// One side of a property.
#[derive(Debug, Default, Deserialize)]
struct ValueRequest {
    value: Option<String>,
}

/// The type that a client gives to a property; `deleted` deletes it.
#[derive(Debug, Default, Deserialize)]
struct TypeRequest {
    #[serde(rename = "type")]
    value_type: Option<String>,
}

impl UpdateRequest {
    /// Whether it says what anything is.
    pub(crate) fn says_actual(&self) -> bool {
        self.twin.values().flatten().any(|property| property.actual.is_some())
    }

    /// What it wants of each property.
    ///
    /// # Errors
    /// A side that has no value.
    pub(crate) fn updates(self) -> Result<BTreeMap<String, PropertyUpdate>, Refused> {
        let update = |(property, request): (String, Option<PropertyRequest>)| {
            let update = request.map_or(Ok(PropertyUpdate::Delete), |request| request.update(&property))?;
            Ok((property, update))
        };
        self.twin.into_iter().map(update).collect()
    }
}

impl PropertyRequest {
    fn update(self, property: &str) -> Result<PropertyUpdate, Refused> {
        let value_type = self.metadata.and_then(|metadata| metadata.value_type);
        if value_type.as_deref() == Some("deleted") {
            return Ok(PropertyUpdate::Delete);
        }
        let value = |side: Option<ValueRequest>| match side {
            None => Ok(None),
            Some(ValueRequest { value: Some(value) }) => Ok(Some(value)),
            Some(ValueRequest { value: None }) => {
                let name: String = property.chars().take(64).collect();
                Err(Refused::new(Code::BadRequest, format!("a side of `{name}` has no value")))
            }
        };
        let (expected, actual) = (value(self.expected)?, value(self.actual)?);
        Ok(PropertyUpdate::Set(PropertyValues { expected, actual, optional: self.optional, value_type }))
    }
}

/// `twin/get` and `membership/get`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct GetRequest {
    #[serde(default)]
    pub(crate) event_id: String,
}

/// `state/update`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct StateRequest {
    pub(crate) state: String,
}

/// A request with an id to echo.
pub(crate) trait Request: serde::de::DeserializeOwned {
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

/// Reads a request.
///
/// # Errors
/// What is wrong with it, for whoever sent it.
pub(crate) fn read<T: Request>(payload: &[u8]) -> Result<T, Refused> {
    if payload.len() > PAYLOAD_MAX {
        return Err(Refused::new(Code::BadRequest, "the payload has more than 256 KiB"));
    }
    let request: T = serde_json::from_slice(payload)
        .map_err(|error| Refused::new(Code::BadRequest, format!("the payload is not understood: {error}")))?;
    if request.event_id().chars().count() > EVENT_ID_MAX {
        return Err(Refused::new(Code::BadRequest, "event_id has more than 256 characters"));
    }
    Ok(request)
}

/// The id of a request that is refused as a whole, where that can be read; else none, as with KubeEdge.
pub(crate) fn event_id(payload: &[u8]) -> String {
    /// All that it takes of a request.
    #[derive(Deserialize)]
    struct Head {
        event_id: String,
    }
    let head = payload.get(..payload.len().min(PAYLOAD_MAX)).map(serde_json::from_slice::<Head>);
    let id = head.and_then(Result::ok).map(|head| head.event_id);
    id.filter(|id| id.chars().count() <= EVENT_ID_MAX).unwrap_or_default()
}

fn bytes(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}

/// A side with its notes: `error` says why there is no value, `stale` since when nothing has been heard of it.
fn side(side: &Side, error: Option<&String>, stale: Option<i64>) -> Value {
    let mut metadata = json!({ "timestamp": side.timestamp });
    if let Some(error) = error {
        metadata["error"] = json!(error);
    }
    if let Some(stale) = stale {
        metadata["stale"] = json!(stale);
    }
    json!({ "value": side.value, "metadata": metadata })
}

/// A twin as clients see it: no versions, and a deleted one is null.
fn as_json(twin: &Twin) -> Value {
    if twin.deleted {
        return Value::Null;
    }
    let mut value = json!({ "optional": twin.optional, "metadata": { "type": twin.value_type } });
    if let Some(expected) = &twin.expected {
        value["expected"] = side(expected, twin.observed_error.as_ref(), None);
    }
    if let Some(actual) = &twin.actual {
        value["actual"] = side(actual, twin.actual_error.as_ref(), twin.stale);
    }
    value
}

fn living(twins: &BTreeMap<String, Twin>) -> Map<String, Value> {
    twins.iter().filter(|(_, twin)| !twin.deleted).map(|(name, twin)| (name.clone(), as_json(twin))).collect()
}

/// `twin/update/result` of an update that was taken.
pub(crate) fn update_result(base: &Base, changes: &[TwinChange]) -> Bytes {
    let twin: Map<String, Value> =
        changes.iter().map(|change| (change.property.clone(), as_json(&change.after))).collect();
    bytes(&json!({ "event_id": base.event_id, "timestamp": base.timestamp, "twin": twin }))
}

/// Any result of a request that was refused.
pub(crate) fn refusal(base: &Base, refused: &Refused) -> Bytes {
    bytes(&json!({
        "event_id": base.event_id, "timestamp": base.timestamp, "code": refused.code.number(), "reason": refused.reason,
    }))
}

/// `method/call/result`: as KubeEdge's results, with a code and a reason where it was not done.
pub(crate) fn call_result(base: &Base, method: &str, outcome: &CallOutcome) -> Bytes {
    let mut result = json!({
        "event_id": base.event_id, "timestamp": base.timestamp, "method": method, "state": outcome.state.word(),
    });
    if outcome.state != CallState::Done {
        result["code"] = json!(outcome.code);
        result["reason"] = json!(outcome.message);
    }
    bytes(&result)
}

/// `twin/update/document`: what the changes properties were, and what they are.
pub(crate) fn document(base: &Base, changes: &[TwinChange]) -> Bytes {
    let twin: Map<String, Value> = changes
        .iter()
        .map(|change| {
            let last = change.before.as_ref().map_or(Value::Null, as_json);
            (change.property.clone(), json!({ "last": last, "current": as_json(&change.after) }))
        })
        .collect();
    bytes(&json!({ "event_id": base.event_id, "timestamp": base.timestamp, "twin": twin }))
}

/// `twin/update/delta`, when there is one.
pub(crate) fn delta(
    base: &Base,
    twins: &BTreeMap<String, Twin>,
    delta: &BTreeMap<&str, &str>,
) -> Option<Bytes> {
    if delta.is_empty() {
        return None;
    }
    // Those alone of which something is wanted, as with KubeEdge: who walks them reads `expected` of each.
    let is_wanted = |twin: &Twin| twin.expected.as_ref().is_some_and(|side| !side.value.is_empty());
    let wanted = twins.iter().filter(|(_, twin)| !twin.deleted && is_wanted(twin));
    let wanted: Map<String, Value> = wanted.map(|(name, twin)| (name.clone(), as_json(twin))).collect();
    Some(bytes(&json!({
        "event_id": base.event_id, "timestamp": base.timestamp, "twin": wanted, "delta": delta,
    })))
}

/// `twin/get/result`.
pub(crate) fn get_result(base: &Base, twins: &BTreeMap<String, Twin>) -> Bytes {
    bytes(&json!({ "event_id": base.event_id, "timestamp": base.timestamp, "twin": living(twins) }))
}

/// When it said last that it is online, which applications hear only as long as it is (KubeEdge).
fn online_at(state: &State) -> Option<&str> {
    state.last_online.as_deref().filter(|_| is_online(&state.state) == Some(true))
}

/// `state/update/result`.
pub(crate) fn state_result(base: &Base, id: &DeviceName, state: &State) -> Bytes {
    let mut device = json!({ "name": id.name, "state": state.state });
    if let Some(time) = online_at(state) {
        device["lastOnlineTime"] = json!(time);
    }
    bytes(&json!({ "event_id": base.event_id, "timestamp": base.timestamp, "device": device }))
}

/// A device as `membership/get/result` lists it: its id, its description and its state.
pub(crate) type Listed<'a> = (&'a DeviceName, &'a str, &'a State);

/// `membership/get/result`.
pub(crate) fn members<'a>(base: &Base, members: impl Iterator<Item = Listed<'a>>) -> Bytes {
    let devices: Vec<Value> = members
        .map(|(id, description, state)| {
            let mut device = json!({ "id": id.to_string(), "name": id.name, "state": state.state });
            if !description.is_empty() {
                device["description"] = json!(description);
            }
            if let Some(time) = online_at(state) {
                device["last_online"] = json!(time);
            }
            device
        })
        .collect();
    bytes(&json!({ "event_id": base.event_id, "timestamp": base.timestamp, "devices": devices }))
}

/// `membership/updated`. A side without devices is null, as KubeEdge writes it.
pub(crate) fn membership_updated(base: &Base, added: &[DeviceName], removed: &[DeviceName]) -> Bytes {
    let list = |ids: &[DeviceName]| match ids {
        [] => Value::Null,
        ids => ids.iter().map(|id| json!({ "id": id.to_string(), "name": id.name })).collect(),
    };
    bytes(&json!({
        "event_id": base.event_id, "timestamp": base.timestamp,
        "added_devices": list(added), "removed_devices": list(removed),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_is_refused_keeps_the_id_that_can_be_read() {
        assert_eq!(event_id(br#"{"event_id":"e7","twin":{"a":{"actual":{"value":7}}}}"#), "e7");
        for none in [&br#"{"event_id":7}"#[..], b"{", b"{}", b"[]"] {
            assert_eq!(event_id(none), "");
        }
        assert_eq!(event_id(format!(r#"{{"event_id":"{}"}}"#, "x".repeat(257)).as_bytes()), "");
    }

    #[test]
    fn an_update_says_what_it_wants_of_each_property() {
        let read = |text: &str| read::<UpdateRequest>(text.as_bytes()).and_then(UpdateRequest::updates);
        let all = read(
            r#"{"twin":{"a":null,"b":{"metadata":{"type":"deleted"},"actual":{}},
            "c":{"expected":{"value":"1"},"optional":false,"metadata":{"type":"int"}}}}"#,
        );
        let set = PropertyValues {
            expected: Some("1".into()),
            actual: None,
            optional: Some(false),
            value_type: Some("int".into()),
        };
        let expected =
            [("a", PropertyUpdate::Delete), ("b", PropertyUpdate::Delete), ("c", PropertyUpdate::Set(set))];
        assert_eq!(all, Ok(expected.map(|(name, update)| (name.to_owned(), update)).into()));
        for text in [r#"{"twin":{"a":{"actual":{}}}}"#, r#"{"twin":{"a":{"expected":{"value":null}}}}"#] {
            assert_eq!(read(text).unwrap_err().code, Code::BadRequest, "{text}");
        }
    }
}
