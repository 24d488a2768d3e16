//! Wire types of version 0, and their encoding: bincode in its version 1 layout with fixed-size integers.
//!
//! Version 0 may still change. Kubernetes objects travel as opaque deflated JSON. Every decode has a limit: a declared
//! length never allocates more than the frame that carried it could hold.

use std::io::{Read, Write};

use beehive::link::wire::{AnswerSlot, DecodeError, EncodeError, Outgoing, ReplyTo, Wire};
use beehive::{AskError, Reply};
use bincode::Options;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::devicecontroller::DeviceUp;
use crate::edgecontroller::EdgeUp;
use crate::metamanager::{MetaDown, NotApplied, Offer};
use crate::router::RouterUp;
use crate::{Change, Held, Object, ObjectKey, Report, Telemetry, TokenGrant, TokenQuery, UpReport, Upload};

/// 1 MiB: the largest body of a frame.
pub const BODY_MAX: u64 = 1 << 20;

/// 3 MiB: the largest object that an API server takes, and so the most that inflating may give.
pub const OBJECT_MAX: usize = 3 << 20;

/// The mailbox of a node's MetaManager.
pub const META_MAILBOX: &str = "edge-metamanager";
/// The mailbox of the edge controller.
pub const EDGE_MAILBOX: &str = "cloud-edgecontroller";
/// The mailbox of the device controller.
pub const DEVICE_MAILBOX: &str = "cloud-devicecontroller";
/// The mailbox of the router.
pub const ROUTER_MAILBOX: &str = "cloud-router";

/// Why bytes are not a message.
#[derive(Debug, Error)]
pub enum WireError {
    /// The codec refused it.
    #[error("not a message of wire version 0")]
    Codec(#[source] bincode::Error),
    /// The object does not inflate, or to more than it may.
    #[error("object `{0}` does not inflate to at most 3 MiB of JSON")]
    Object(String),
}

fn codec() -> impl Options {
    bincode::DefaultOptions::new().with_fixint_encoding().with_limit(BODY_MAX).reject_trailing_bytes()
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, WireError> {
    codec().serialize(value).map_err(WireError::Codec)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    codec().deserialize(bytes).map_err(WireError::Codec)
}

/// A report as a row of the outbox holds it.
///
/// # Errors
/// When it is larger than [`BODY_MAX`].
pub fn encode_report(report: &UpReport) -> Result<Vec<u8>, WireError> {
    encode(report)
}

/// A report from a row of the outbox.
///
/// # Errors
/// When the bytes are not a report.
pub fn decode_report(bytes: &[u8]) -> Result<UpReport, WireError> {
    decode(bytes)
}

/// Telemetry as a row of the outbox holds it: a row of the class of its own, so that it is not taken for a report.
///
/// # Errors
/// When it is larger than [`BODY_MAX`].
pub fn encode_telemetry(telemetry: &Telemetry) -> Result<Vec<u8>, WireError> {
    encode(telemetry)
}

/// Telemetry from a row of the outbox.
///
/// # Errors
/// When the bytes are none.
pub fn decode_telemetry(bytes: &[u8]) -> Result<Telemetry, WireError> {
    decode(bytes)
}

#[derive(Debug, Serialize, Deserialize)]
struct WireObject {
    key: ObjectKey,
    uid: String,
    version: String,
    deflated: Vec<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
enum WireChange {
    Upsert(WireObject),
    Delete { key: ObjectKey, uid: Option<String> },
}

fn deflate(json: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::with_capacity(json.len() / 2), Compression::fast());
    // Writing to memory does not fail; an empty result is refused by the reader.
    if encoder.write_all(json).is_err() {
        return Vec::new();
    }
    encoder.finish().unwrap_or_default()
}

fn inflate(deflated: &[u8], key: &ObjectKey) -> Result<Bytes, WireError> {
    let mut json = Vec::new();
    let limit = OBJECT_MAX as u64 + 1;
    let refused = || WireError::Object(key.to_string());
    DeflateDecoder::new(deflated).take(limit).read_to_end(&mut json).map_err(|_| refused())?;
    if json.is_empty() || json.len() > OBJECT_MAX {
        return Err(refused());
    }
    Ok(Bytes::from(json))
}

impl From<Change> for WireChange {
    fn from(change: Change) -> Self {
        match change {
            Change::Upsert(object) => WireChange::Upsert(WireObject {
                deflated: deflate(&object.json),
                key: object.key,
                uid: object.uid,
                version: object.version,
            }),
            Change::Delete { key, uid } => WireChange::Delete { key, uid },
        }
    }
}

impl TryFrom<WireChange> for Change {
    type Error = WireError;
    fn try_from(change: WireChange) -> Result<Self, WireError> {
        Ok(match change {
            WireChange::Upsert(object) => Change::Upsert(Object {
                json: inflate(&object.deflated, &object.key)?,
                key: object.key,
                uid: object.uid,
                version: object.version,
            }),
            WireChange::Delete { key, uid } => Change::Delete { key, uid },
        })
    }
}

#[derive(Debug, Serialize, Deserialize)]
enum WireMetaDown {
    Offer,
    Holdings { offer: u64, buckets: Vec<u16> },
    Apply { offer: u64, place: u64, changes: Vec<WireChange> },
}

#[derive(Debug, Serialize, Deserialize)]
enum WireEdgeUp {
    Reports(Vec<(i64, UpReport)>),
    Alive,
    Token(TokenQuery),
}

#[derive(Debug, Serialize, Deserialize)]
enum WireDeviceUp {
    Reports(Vec<(i64, UpReport)>),
}

#[derive(Debug, Serialize, Deserialize)]
enum WireRouterUp {
    Telemetry(Vec<Upload>),
}

fn unmarked(reports: Vec<Report>) -> Vec<(i64, UpReport)> {
    reports.into_iter().map(|report| (report.row, report.report)).collect()
}

/// Version 0 has no mark for repeats.
fn marked(reports: Vec<(i64, UpReport)>) -> Vec<Report> {
    reports.into_iter().map(|(row, report)| Report { row, repeat: false, report }).collect()
}

fn refused(error: &WireError) -> DecodeError {
    DecodeError::new(beehive::Fault::from_error(error).reason)
}

/// The sender's side of an ask: the answer's bytes become the value that the asker waits for.
fn slot<T: DeserializeOwned + Send + 'static>(reply: Reply<T>) -> AnswerSlot {
    Box::new(move |answer| match answer {
        Ok(bytes) => match decode(&bytes) {
            Ok(value) => reply.send(value),
            Err(error) => reply.fail(AskError::Rejected(beehive::Fault::from_error(&error).reason)),
        },
        Err(why) => reply.fail(why),
    })
}

/// The receiver's side of an ask: the value given to the reply becomes the answer's bytes.
fn back<T: Serialize + Send + 'static>(reply: Option<ReplyTo>) -> Result<Reply<T>, DecodeError> {
    let Some(reply) = reply else {
        return Err(DecodeError::new("a question came without a way back".to_owned()));
    };
    Ok(Reply::carried(move |answer: Result<T, AskError>| match answer {
        Ok(value) => match encode(&value) {
            Ok(bytes) => reply.send(bytes),
            Err(error) => reply.fail(beehive::Fault::from_error(&error).reason),
        },
        Err(why) => reply.fail(why.to_string()),
    }))
}

fn outgoing<T: Serialize>(body: &T, reply: Option<AnswerSlot>) -> Result<Outgoing, EncodeError> {
    match encode(body) {
        Ok(body) => Ok(Outgoing { body, reply }),
        Err(error) => Err(EncodeError::new(beehive::Fault::from_error(&error).reason)),
    }
}

impl Wire for MetaDown {
    const MAILBOX: &'static str = META_MAILBOX;

    fn encode(self) -> Result<Outgoing, EncodeError> {
        match self {
            MetaDown::Offer { reply } => outgoing(&WireMetaDown::Offer, Some(slot::<Offer>(reply))),
            MetaDown::Holdings { offer, buckets, reply } => {
                outgoing(&WireMetaDown::Holdings { offer, buckets }, Some(slot::<Vec<Held>>(reply)))
            }
            MetaDown::Apply { offer, place, changes, reply } => {
                let changes = changes.into_iter().map(WireChange::from).collect();
                outgoing(
                    &WireMetaDown::Apply { offer, place, changes },
                    Some(slot::<Result<(), NotApplied>>(reply)),
                )
            }
        }
    }

    fn decode(body: &[u8], reply: Option<ReplyTo>) -> Result<Self, DecodeError> {
        match decode(body).map_err(|e| refused(&e))? {
            WireMetaDown::Offer => Ok(MetaDown::Offer { reply: back(reply)? }),
            WireMetaDown::Holdings { offer, buckets } => {
                Ok(MetaDown::Holdings { offer, buckets, reply: back(reply)? })
            }
            WireMetaDown::Apply { offer, place, changes } => {
                let changes: Result<Vec<Change>, WireError> =
                    changes.into_iter().map(Change::try_from).collect();
                let changes = changes.map_err(|e| refused(&e))?;
                Ok(MetaDown::Apply { offer, place, changes, reply: back(reply)? })
            }
        }
    }
}

impl Wire for EdgeUp {
    const MAILBOX: &'static str = EDGE_MAILBOX;

    fn encode(self) -> Result<Outgoing, EncodeError> {
        match self {
            EdgeUp::Reports { reports, reply } => {
                outgoing(&WireEdgeUp::Reports(unmarked(reports)), Some(slot(reply)))
            }
            EdgeUp::Alive => outgoing(&WireEdgeUp::Alive, None),
            EdgeUp::Token { query, reply } => {
                outgoing(&WireEdgeUp::Token(query), Some(slot::<Result<TokenGrant, String>>(reply)))
            }
        }
    }

    fn decode(body: &[u8], reply: Option<ReplyTo>) -> Result<Self, DecodeError> {
        match decode(body).map_err(|e| refused(&e))? {
            WireEdgeUp::Reports(reports) => {
                Ok(EdgeUp::Reports { reports: marked(reports), reply: back(reply)? })
            }
            WireEdgeUp::Alive => Ok(EdgeUp::Alive),
            WireEdgeUp::Token(query) => Ok(EdgeUp::Token { query, reply: back(reply)? }),
        }
    }
}

impl Wire for DeviceUp {
    const MAILBOX: &'static str = DEVICE_MAILBOX;

    fn encode(self) -> Result<Outgoing, EncodeError> {
        match self {
            DeviceUp::Reports { reports, reply } => {
                outgoing(&WireDeviceUp::Reports(unmarked(reports)), Some(slot(reply)))
            }
        }
    }

    fn decode(body: &[u8], reply: Option<ReplyTo>) -> Result<Self, DecodeError> {
        match decode(body).map_err(|e| refused(&e))? {
            WireDeviceUp::Reports(reports) => {
                Ok(DeviceUp::Reports { reports: marked(reports), reply: back(reply)? })
            }
        }
    }
}

impl Wire for RouterUp {
    const MAILBOX: &'static str = ROUTER_MAILBOX;

    fn encode(self) -> Result<Outgoing, EncodeError> {
        match self {
            RouterUp::Telemetry { uploads, reply } => {
                outgoing(&WireRouterUp::Telemetry(uploads), Some(slot(reply)))
            }
        }
    }

    fn decode(body: &[u8], reply: Option<ReplyTo>) -> Result<Self, DecodeError> {
        match decode(body).map_err(|e| refused(&e))? {
            WireRouterUp::Telemetry(uploads) => Ok(RouterUp::Telemetry { uploads, reply: back(reply)? }),
        }
    }
}
