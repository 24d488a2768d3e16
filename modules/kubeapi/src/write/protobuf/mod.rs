//! Request bodies as `application/vnd.kubernetes.protobuf`, made into the JSON that the same client would have sent.
//!
//! Typed clients of Go send built-in kinds this way. The messages are descriptors ([`crate::messages`]); the bytes are read
//! straight into JSON, each value counted before it is made. What a body has and its message does not is refused by its
//! number: nothing is left out in silence.

#[cfg(test)]
mod tests;
mod wire;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use self::wire::{Payload, Reader, WireError};
use super::json;
use crate::error::ApiError;
use crate::messages::{self, WellKnownType};

/// The media type of these bodies.
pub(super) const MEDIA: &str = "application/vnd.kubernetes.protobuf";

/// What the bodies begin with. JSON never does.
const MAGIC: &[u8] = b"k8s\0";
/// 64: how deep messages may lie in one another. Those of the tables need a quarter of it.
const DEPTH_MAX: usize = 64;
/// 262 144: how many values a body may have, so that 3 MiB of tiny ones do not become gigabytes in memory.
const VALUES_MAX: usize = 1 << 18;
/// The zero time of Go: year 1.
const GO_ZERO: i64 = -62_135_596_800;
/// The last second of the year 9999.
const TIME_MAX: i64 = 253_402_300_799;

/// The object of a body.
///
/// # Errors
/// 415 if it is no such body or one of a kind that has no table, 400 if it does not fit its kind.
pub(super) fn decode(body: &[u8]) -> Result<Value, ApiError> {
    let envelope = Envelope::of(body)?;
    let Some(message) = messages::of_kind(&envelope.api_version, &envelope.kind) else {
        let (kind, version) = (shown(&envelope.kind), shown(&envelope.api_version));
        let what = format!("`{kind}` of `{version}` is not read as protobuf, send it as application/json");
        return Err(ApiError::unsupported_media_type(&what));
    };
    let mut fields = Map::new();
    Decoder { values_left: VALUES_MAX }.message(&message, envelope.raw, 0, &mut fields)?;
    fields.insert("apiVersion".to_owned(), Value::String(envelope.api_version));
    fields.insert("kind".to_owned(), Value::String(envelope.kind));
    Ok(Value::Object(fields))
}

/// The DeleteOptions of a body; `None` if it is none of these bodies.
///
/// # Errors
/// As [`decode`], and 400 for another kind.
pub(super) fn delete_options(body: &[u8]) -> Result<Option<Value>, ApiError> {
    if !body.starts_with(MAGIC) {
        return Ok(None);
    }
    let options = decode(body)?;
    match options["kind"].as_str() {
        Some("DeleteOptions") => Ok(Some(options)),
        other => {
            let kind = shown(other.unwrap_or_default());
            Err(ApiError::bad_request(format!("the body of a delete has to be DeleteOptions, not `{kind}`")))
        }
    }
}

/// `runtime.Unknown`: what an object is, and its bytes.
struct Envelope<'a> {
    api_version: String,
    kind: String,
    raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    fn of(body: &'a [u8]) -> Result<Self, ApiError> {
        let Some(body) = body.strip_prefix(MAGIC) else {
            return Err(ApiError::unsupported_media_type(
                "a protobuf body has to begin with the four bytes `k8s\\0`",
            ));
        };
        let mut envelope = Envelope { api_version: String::new(), kind: String::new(), raw: &[] };
        let mut fields = Reader::new(body);
        while let Some((number, payload)) = fields.field().map_err(in_message("Unknown"))? {
            match (number, payload) {
                (1, Payload::Bytes(bytes)) => envelope.type_meta(bytes)?,
                (2, Payload::Bytes(raw)) => envelope.raw = raw,
                (3 | 4, Payload::Bytes(b"")) => {}
                (4, Payload::Bytes(media)) if media == MEDIA.as_bytes() => {}
                (3, Payload::Bytes(_)) => {
                    return Err(ApiError::unsupported_media_type(
                        "the object in the protobuf body is encoded once more",
                    ));
                }
                (4, Payload::Bytes(_)) => {
                    return Err(ApiError::unsupported_media_type(
                        "the object in the protobuf body is not protobuf",
                    ));
                }
                (number, _) => return Err(unknown("Unknown", number)),
            }
        }
        Ok(envelope)
    }

    fn type_meta(&mut self, bytes: &[u8]) -> Result<(), ApiError> {
        let mut fields = Reader::new(bytes);
        while let Some((number, payload)) = fields.field().map_err(in_message("TypeMeta"))? {
            match (number, payload) {
                (1, Payload::Bytes(bytes)) => self.api_version = words("TypeMeta", "apiVersion", bytes)?,
                (2, Payload::Bytes(bytes)) => self.kind = words("TypeMeta", "kind", bytes)?,
                (number, _) => return Err(unknown("TypeMeta", number)),
            }
        }
        Ok(())
    }
}

/// Where a value stands, for messages.
#[derive(Clone, Copy)]
struct Location<'d> {
    message: &'d str,
    field: &'d str,
}

impl Location<'_> {
    fn refuse(self, what: impl std::fmt::Display) -> ApiError {
        ApiError::bad_request(format!(
            "the protobuf body is not readable: {} of {}: {what}",
            self.field, self.message
        ))
    }

    fn bytes(self, payload: Payload<'_>) -> Result<&[u8], ApiError> {
        match payload {
            Payload::Bytes(bytes) => Ok(bytes),
            Payload::Varint(_) | Payload::Fixed => Err(self.refuse("a length has to come first")),
        }
    }

    fn number(self, payload: Payload<'_>) -> Result<u64, ApiError> {
        match payload {
            Payload::Varint(number) => Ok(number),
            Payload::Bytes(_) | Payload::Fixed => Err(self.refuse("a number has to be there")),
        }
    }

    fn text(self, payload: Payload<'_>) -> Result<String, ApiError> {
        words(self.message, self.field, self.bytes(payload)?)
    }

    /// A negative number has 64 bits on the wire, whatever its type.
    fn int32(self, number: u64) -> Result<i32, ApiError> {
        let number = number.cast_signed();
        i32::try_from(number).map_err(|_| self.refuse(format_args!("{number} does not fit into 32 bits")))
    }
}

/// Reads messages, and counts what they come to.
struct Decoder {
    values_left: usize,
}

impl Decoder {
    /// Reads the fields of `bytes` into `fields`. What is there twice counts as it does in protobuf: the last one, and
    /// messages go together.
    fn message(
        &mut self,
        message: &MessageDescriptor,
        bytes: &[u8],
        depth: usize,
        fields: &mut Map<String, Value>,
    ) -> Result<(), ApiError> {
        if depth > DEPTH_MAX {
            let what = format!("the protobuf body has more than {DEPTH_MAX} messages in one another");
            return Err(ApiError::bad_request(what));
        }
        let mut reader = Reader::new(bytes);
        while let Some((number, payload)) = reader.field().map_err(in_message(message.name()))? {
            let field = message.get_field(number).ok_or_else(|| unknown(message.name(), number))?;
            let location = Location { message: message.name(), field: field.name() };
            self.count(1)?;
            if field.is_map() {
                self.map_entry(location, &field, payload, depth, fields)?;
            } else if field.is_list() {
                self.list(location, &field, payload, depth, fields)?;
            } else if let Some(inner) = messages::embedded(&field) {
                self.message(&inner, location.bytes(payload)?, depth + 1, fields)?;
            } else {
                self.singular(location, &field, payload, depth, fields)?;
            }
        }
        Ok(())
    }

    fn count(&mut self, values: usize) -> Result<(), ApiError> {
        let left = self.values_left.checked_sub(values);
        let many = || ApiError::bad_request(format!("the protobuf body has more than {VALUES_MAX} values"));
        self.values_left = left.ok_or_else(many)?;
        Ok(())
    }

    fn singular(
        &mut self,
        location: Location<'_>,
        field: &FieldDescriptor,
        payload: Payload<'_>,
        depth: usize,
        fields: &mut Map<String, Value>,
    ) -> Result<(), ApiError> {
        let earlier = fields.remove(field.name());
        let value = match (field.kind(), earlier) {
            (Kind::Message(message), Some(Value::Object(mut earlier)))
                if WellKnownType::of(&message).is_none() =>
            {
                self.message(&message, location.bytes(payload)?, depth + 1, &mut earlier)?;
                Value::Object(earlier)
            }
            (kind, _) => self.value(location, &kind, payload, depth)?,
        };
        // A zero on the wire says nothing where Go always writes one.
        let says_nothing = !field.supports_presence() && is_zero(&value);
        if !value.is_null() && !says_nothing {
            fields.insert(field.name().to_owned(), value);
        }
        Ok(())
    }

    fn list(
        &mut self,
        location: Location<'_>,
        field: &FieldDescriptor,
        payload: Payload<'_>,
        depth: usize,
        fields: &mut Map<String, Value>,
    ) -> Result<(), ApiError> {
        let list = fields.entry(field.name()).or_insert_with(|| json!([]));
        let Value::Array(list) = list else { return Err(location.refuse("it is there as something else")) };
        match (field.kind(), payload) {
            // Numbers may be written one after the other behind a single key.
            (kind @ (Kind::Bool | Kind::Int32 | Kind::Int64), Payload::Bytes(packed)) => {
                let mut numbers = Reader::new(packed);
                while !numbers.is_empty() {
                    self.count(1)?;
                    let number = Payload::Varint(numbers.varint().map_err(|error| location.refuse(error))?);
                    list.push(self.value(location, &kind, number, depth)?);
                }
            }
            (kind, payload) => list.push(self.value(location, &kind, payload, depth)?),
        }
        Ok(())
    }

    /// An entry of a map is a message of key and value.
    fn map_entry(
        &mut self,
        location: Location<'_>,
        field: &FieldDescriptor,
        payload: Payload<'_>,
        depth: usize,
        fields: &mut Map<String, Value>,
    ) -> Result<(), ApiError> {
        let Kind::Message(entry) = field.kind() else { return Err(location.refuse("it is no map")) };
        let (mut key, mut value) = (String::new(), Payload::Bytes(&[]));
        let mut reader = Reader::new(location.bytes(payload)?);
        while let Some((number, payload)) = reader.field().map_err(|error| location.refuse(error))? {
            match number {
                1 => key = location.text(payload)?,
                2 => value = payload,
                other => return Err(location.refuse(format_args!("a pair has no field {other}"))),
            }
        }
        let value = self.value(location, &entry.map_entry_value_field().kind(), value, depth)?;
        let map = fields.entry(field.name()).or_insert_with(|| json!({}));
        let Value::Object(map) = map else { return Err(location.refuse("it is there as something else")) };
        map.insert(key, value);
        Ok(())
    }

    /// One value; null for a time or a JSON text that is empty.
    fn value(
        &mut self,
        location: Location<'_>,
        kind: &Kind,
        payload: Payload<'_>,
        depth: usize,
    ) -> Result<Value, ApiError> {
        match kind {
            Kind::String => location.text(payload).map(Value::String),
            Kind::Bool => Ok(Value::Bool(location.number(payload)? != 0)),
            Kind::Int32 => Ok(json!(location.int32(location.number(payload)?)?)),
            Kind::Int64 => Ok(json!(location.number(payload)?.cast_signed())),
            Kind::Bytes => Ok(Value::String(STANDARD.encode(location.bytes(payload)?))),
            Kind::Message(message) => {
                let bytes = location.bytes(payload)?;
                let mut fields = Map::new();
                self.message(message, bytes, depth + 1, &mut fields)?;
                match WellKnownType::of(message) {
                    None => Ok(Value::Object(fields)),
                    Some(WellKnownType::Quantity) => Ok(fields.remove("string").unwrap_or(json!("0"))),
                    Some(WellKnownType::IntOrString) => int_or_string(location, fields),
                    Some(WellKnownType::Time | WellKnownType::MicroTime) if bytes.is_empty() => {
                        Ok(Value::Null)
                    }
                    Some(WellKnownType::Time) => time(location, &fields, false),
                    Some(WellKnownType::MicroTime) => time(location, &fields, true),
                    Some(WellKnownType::FieldsV1) => self.raw_json(location, &fields),
                    Some(WellKnownType::ExtraValue) => Ok(fields.remove("items").unwrap_or(json!([]))),
                }
            }
            _ => Err(location.refuse("no message of Kubernetes has such a field")),
        }
    }

    fn raw_json(&mut self, location: Location<'_>, fields: &Map<String, Value>) -> Result<Value, ApiError> {
        let Some(Value::String(raw)) = fields.get("Raw") else { return Ok(Value::Null) };
        let raw = STANDARD.decode(raw).map_err(|error| location.refuse(error))?;
        self.count(json::values(&raw))?;
        json::read(&raw).map_err(|error| location.refuse(error))
    }
}

fn int_or_string(location: Location<'_>, mut fields: Map<String, Value>) -> Result<Value, ApiError> {
    match fields.get("type").and_then(Value::as_i64).unwrap_or_default() {
        0 => Ok(fields.remove("intVal").unwrap_or(json!(0))),
        1 => Ok(fields.remove("strVal").unwrap_or(json!(""))),
        other => Err(location.refuse(format_args!("type {other} is neither a number nor a text"))),
    }
}

/// RFC 3339 in whole seconds or in microseconds; null for Go's zero time.
fn time(location: Location<'_>, fields: &Map<String, Value>, micro: bool) -> Result<Value, ApiError> {
    let number = |name: &str| fields.get(name).and_then(Value::as_i64).unwrap_or_default();
    let (seconds, nanos) = (number("seconds"), number("nanos"));
    if seconds == GO_ZERO {
        return Ok(Value::Null);
    }
    let known = (GO_ZERO..=TIME_MAX).contains(&seconds) && (0..1_000_000_000).contains(&nanos);
    let kept = if micro { i32::try_from(nanos).unwrap_or_default() } else { 0 };
    let at = Timestamp::new(seconds, kept).ok().filter(|_| known);
    let at = at.ok_or_else(|| location.refuse(format_args!("{seconds} s and {nanos} ns is no time")))?;
    Ok(Value::String(if micro { format!("{at:.6}") } else { at.to_string() }))
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}

fn words(message: &str, field: &str, bytes: &[u8]) -> Result<String, ApiError> {
    let text = std::str::from_utf8(bytes);
    text.map(str::to_owned).map_err(|error| Location { message, field }.refuse(error))
}

fn in_message(name: &str) -> impl Fn(WireError) -> ApiError {
    move |error| ApiError::bad_request(format!("the protobuf body is not readable: {name}: {error}"))
}

fn unknown(message: &str, number: u32) -> ApiError {
    ApiError::bad_request(format!("the protobuf message {message} has no field {number} that is known here"))
}

/// A client's text in a message for a person.
fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}
