//! What travels as JSON on the topics of the twins.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::DeviceId;
use crate::plan::{Code, Refused, Touch};
use crate::rows::State;
use crate::twin::{Side, Twin};

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
    pub(crate) twin: BTreeMap<String, Option<PartRequest>>,
}

/// One property of a `twin/update`.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct PartRequest {
    pub(crate) expected: Option<ValueRequest>,
    pub(crate) actual: Option<ValueRequest>,
    pub(crate) optional: Option<bool>,
    pub(crate) metadata: Option<TypeRequest>,
}

/// One side of a property.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct ValueRequest {
    pub(crate) value: Option<String>,
}

/// The type that a client gives to a property.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct TypeRequest {
    #[serde(rename = "type")]
    pub(crate) value_type: Option<String>,
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

fn bytes(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}

fn side(side: &Side) -> Value {
    json!({ "value": side.value, "metadata": { "timestamp": side.timestamp } })
}

/// A twin as clients see it: no versions, and a deleted one is null.
fn shown(twin: &Twin) -> Value {
    if twin.deleted {
        return Value::Null;
    }
    let mut value = json!({ "optional": twin.optional, "metadata": { "type": twin.value_type } });
    if let Some(expected) = &twin.expected {
        value["expected"] = side(expected);
    }
    if let Some(actual) = &twin.actual {
        value["actual"] = side(actual);
    }
    value
}

fn living(twins: &BTreeMap<String, Twin>) -> Map<String, Value> {
    twins.iter().filter(|(_, twin)| !twin.deleted).map(|(name, twin)| (name.clone(), shown(twin))).collect()
}

/// `twin/update/result` of an update that was taken.
pub(crate) fn update_result(base: &Base, touched: &[Touch]) -> Bytes {
    let twin: Map<String, Value> =
        touched.iter().map(|touch| (touch.property.clone(), shown(&touch.after))).collect();
    bytes(&json!({ "event_id": base.event_id, "timestamp": base.timestamp, "twin": twin }))
}

/// Any result of a request that was refused.
pub(crate) fn refusal(base: &Base, refused: &Refused) -> Bytes {
    bytes(&json!({
        "event_id": base.event_id, "timestamp": base.timestamp, "code": refused.code.number(), "reason": refused.reason,
    }))
}

/// `twin/update/document`: what the touched properties were, and what they are.
pub(crate) fn document(base: &Base, touched: &[Touch]) -> Bytes {
    let twin: Map<String, Value> = touched
        .iter()
        .map(|touch| {
            let last = touch.before.as_ref().map_or(Value::Null, shown);
            (touch.property.clone(), json!({ "last": last, "current": shown(&touch.after) }))
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
    Some(bytes(&json!({
        "event_id": base.event_id, "timestamp": base.timestamp, "twin": living(twins), "delta": delta,
    })))
}

/// `twin/get/result`.
pub(crate) fn get_result(base: &Base, twins: &BTreeMap<String, Twin>) -> Bytes {
    bytes(&json!({ "event_id": base.event_id, "timestamp": base.timestamp, "twin": living(twins) }))
}

/// `state/update/result`.
pub(crate) fn state_result(base: &Base, id: &DeviceId, state: &State) -> Bytes {
    let mut device = json!({ "name": id.name, "state": state.state });
    if let Some(time) = &state.last_online {
        device["lastOnlineTime"] = json!(time);
    }
    bytes(&json!({ "event_id": base.event_id, "timestamp": base.timestamp, "device": device }))
}

/// A device as `membership/get/result` lists it: its id, its description and its state.
pub(crate) type Listed<'a> = (&'a DeviceId, &'a str, &'a State);

/// `membership/get/result`.
pub(crate) fn members<'a>(base: &Base, members: impl Iterator<Item = Listed<'a>>) -> Bytes {
    let devices: Vec<Value> = members
        .map(|(id, description, state)| {
            let mut device = json!({ "id": id.to_string(), "name": id.name, "state": state.state });
            if !description.is_empty() {
                device["description"] = json!(description);
            }
            if let Some(time) = &state.last_online {
                device["last_online"] = json!(time);
            }
            device
        })
        .collect();
    bytes(&json!({ "event_id": base.event_id, "timestamp": base.timestamp, "devices": devices }))
}

/// `membership/updated`. A side without devices is null, as KubeEdge writes it.
pub(crate) fn membership_updated(base: &Base, added: &[DeviceId], removed: &[DeviceId]) -> Bytes {
    let list = |ids: &[DeviceId]| match ids {
        [] => Value::Null,
        ids => ids.iter().map(|id| json!({ "id": id.to_string(), "name": id.name })).collect(),
    };
    bytes(&json!({
        "event_id": base.event_id, "timestamp": base.timestamp,
        "added_devices": list(added), "removed_devices": list(removed),
    }))
}
