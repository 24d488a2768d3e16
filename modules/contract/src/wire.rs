//! Wire types of the versions 0 and 1, and their encoding: bincode in its version 1 layout with fixed-size integers.
//!
//! Both versions are frozen: `tests/wire-0.txt` and `tests/wire-1.txt` hold every message byte by byte, and a change is a new
//! version. From version 1 on the reports of nodes and of devices carry the mark of a repeat, and what goes up is deflated
//! where that makes it shorter. What comes in version 0 is never marked. Telemetry is marked in both.
//!
//! Kubernetes objects travel as opaque deflated JSON. Every decode has a limit: a declared length never allocates more than
//! the frame that carried it could hold, and all objects of one message together inflate to [`OBJECT_MAX`] at the most.
//!
//! Rows of a node's outbox ([`encode_report`], [`encode_telemetry`]) are bytes on a disk and of no wire version: the format
//! is called "row 0", stays readable for ever, and its golden lines (`row-`) are in `wire-0.txt`.
//!
//! # How each message is delivered
//!
//! | Message | Delivery |
//! |---|---|
//! | [`MetaDown`] | Level-triggered: the newest version per object, in the order of `place` within a session, each batch acknowledged after the node's commit, sent again until then |
//! | [`EdgeUp::Reports`], [`DeviceUp::Reports`] | At least once, from the outbox: in the order of the rows; status is newest-wins per [`UpReport::newest_key`], events count each; a row leaves when the answer names it |
//! | [`RouterUp::Telemetry`] | At least once, each one, in the order of the rows and so in order per source; a row leaves when the answer names it |
//! | [`EdgeUp::Alive`] | At most once: the next one replaces it |
//! | [`EdgeUp::Token`] | Asked once, and again by whoever needs it |
//!
//! What is bounded, and what is dropped first, is the outbox's business and not the wire's: at its bound events, telemetry of
//! QoS 1 and DMI reports are refused to their source, and only telemetry of QoS 0 is dropped and counted.

use std::borrow::Cow;
use std::io::{Read, Write};

use beehive::link::WireVersion;
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
use crate::packed::{Batch, pack, packed_number, unpack};
use crate::router::RouterUp;
use crate::{Change, Held, Object, ObjectKey, Report, Telemetry, TokenGrant, TokenQuery, UpReport, Upload};

/// 1 MiB: the largest body of a frame.
pub const BODY_MAX: u64 = 1 << 20;

/// 3 MiB: the largest object that an API server takes, and so the most that the objects of a message may inflate to.
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
    #[error("not a message of the wire's versions 0 and 1")]
    Codec(#[source] bincode::Error),
    /// It is no row of an outbox.
    #[error("not a row of the outbox")]
    Row(#[source] bincode::Error),
    /// It does not inflate, or to more than a frame carries.
    #[error("packed message does not inflate to at most 1 MiB")]
    Packed,
    /// The object does not inflate, or to more than it may.
    #[error("object `{0}` does not inflate, or its message to more than 3 MiB of JSON")]
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
    codec().deserialize(bytes).map_err(WireError::Row)
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
    codec().deserialize(bytes).map_err(WireError::Row)
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

pub(crate) fn deflate(json: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::with_capacity(json.len() / 2), Compression::fast());
    // Writing to memory does not fail; an empty result is refused by the reader.
    if encoder.write_all(json).is_err() {
        return Vec::new();
    }
    encoder.finish().unwrap_or_default()
}

/// Inflates one object; `left` is what the message may still inflate to.
fn inflate(deflated: &[u8], key: &ObjectKey, left: &mut usize) -> Result<Bytes, WireError> {
    let mut json = Vec::new();
    let limit = *left as u64 + 1;
    let refused = || WireError::Object(key.to_string());
    DeflateDecoder::new(deflated).take(limit).read_to_end(&mut json).map_err(|_| refused())?;
    if json.is_empty() {
        return Err(refused());
    }
    *left = left.checked_sub(json.len()).ok_or_else(refused)?;
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

impl WireChange {
    fn open(self, left: &mut usize) -> Result<Change, WireError> {
        Ok(match self {
            WireChange::Upsert(object) => Change::Upsert(Object {
                json: inflate(&object.deflated, &object.key, left)?,
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

/// `R` is a report of the version.
#[derive(Debug, Serialize, Deserialize)]
enum WireEdgeUp<R> {
    Reports(Vec<R>),
    Alive,
    Token(TokenQuery),
}

#[derive(Debug, Serialize, Deserialize)]
enum WireDeviceUp<R> {
    Reports(Vec<R>),
}

#[derive(Debug, Serialize, Deserialize)]
enum WireRouterUp {
    Telemetry(Vec<Upload>),
}

/// A report as a version writes it.
trait WireReport: Serialize + DeserializeOwned + From<Report> + Into<Report> {}

/// A report of version 0: no mark of a repeat.
#[derive(Debug, Serialize, Deserialize)]
struct Unmarked(i64, UpReport);

/// A report of version 1.
#[derive(Debug, Serialize, Deserialize)]
struct Marked(i64, bool, UpReport);

impl WireReport for Unmarked {}
impl WireReport for Marked {}

impl From<Report> for Unmarked {
    fn from(report: Report) -> Self {
        Unmarked(report.row, report.report.0)
    }
}

impl From<Unmarked> for Report {
    fn from(Unmarked(row, report): Unmarked) -> Self {
        Report { row, repeat: false, report: report.into() }
    }
}

impl From<Report> for Marked {
    fn from(report: Report) -> Self {
        Marked(report.row, report.repeat, report.report.0)
    }
}

impl From<Marked> for Report {
    fn from(Marked(row, repeat, report): Marked) -> Self {
        Report { row, repeat, report: report.into() }
    }
}

fn converted<A: Into<B>, B>(all: Vec<A>) -> Vec<B> {
    all.into_iter().map(Into::into).collect()
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

    fn encode(self, version: WireVersion) -> Result<Outgoing, EncodeError> {
        // The same in both versions.
        let (WireVersion::Zero | WireVersion::One) = version;
        match self {
            MetaDown::Offer { reply } => outgoing(&WireMetaDown::Offer, Some(slot::<Offer>(reply))),
            MetaDown::Holdings { offer, buckets, reply } => {
                outgoing(&WireMetaDown::Holdings { offer, buckets }, Some(slot::<Vec<Held>>(reply)))
            }
            MetaDown::Apply { offer, place, changes, reply } => outgoing(
                &WireMetaDown::Apply { offer, place, changes: converted(changes) },
                Some(slot::<Result<(), NotApplied>>(reply)),
            ),
        }
    }

    fn decode(body: &[u8], reply: Option<ReplyTo>, version: WireVersion) -> Result<Self, DecodeError> {
        let (WireVersion::Zero | WireVersion::One) = version;
        match decode(body).map_err(|e| refused(&e))? {
            WireMetaDown::Offer => Ok(MetaDown::Offer { reply: back(reply)? }),
            WireMetaDown::Holdings { offer, buckets } => {
                Ok(MetaDown::Holdings { offer, buckets, reply: back(reply)? })
            }
            WireMetaDown::Apply { offer, place, changes } => {
                let mut left = OBJECT_MAX;
                let changes: Result<Vec<Change>, WireError> =
                    changes.into_iter().map(|change| change.open(&mut left)).collect();
                let changes = changes.map_err(|e| refused(&e))?;
                Ok(MetaDown::Apply { offer, place, changes, reply: back(reply)? })
            }
        }
    }
}

/// What goes up in version 1.
fn packed(outgoing: Outgoing) -> Outgoing {
    Outgoing { body: pack(outgoing.body), reply: outgoing.reply }
}

fn unpacked(body: &[u8]) -> Result<Cow<'_, [u8]>, DecodeError> {
    unpack(body).map_err(|e| refused(&e))
}

/// The number of the messages that hold a batch: the first of their enums.
const BATCH: u32 = 0;

fn opened<T>(batch: Batch<T>) -> Result<Vec<T>, EncodeError> {
    batch.open().map_err(|error| EncodeError::new(beehive::Fault::from_error(&error).reason))
}

fn encode_edge<R: WireReport>(message: EdgeUp) -> Result<Outgoing, EncodeError> {
    match message {
        EdgeUp::Reports { reports, reply } => {
            outgoing(&WireEdgeUp::<R>::Reports(converted(opened(reports)?)), Some(slot(reply)))
        }
        EdgeUp::Alive => outgoing(&WireEdgeUp::<R>::Alive, None),
        EdgeUp::Token { query, reply } => {
            outgoing(&WireEdgeUp::<R>::Token(query.0), Some(slot::<Result<TokenGrant, String>>(reply)))
        }
    }
}

fn decode_edge<R: WireReport>(body: &[u8], reply: Option<ReplyTo>) -> Result<EdgeUp, DecodeError> {
    match decode(body).map_err(|e| refused(&e))? {
        WireEdgeUp::<R>::Reports(reports) => {
            let reports: Vec<Report> = converted(reports);
            Ok(EdgeUp::Reports { reports: reports.into(), reply: back(reply)? })
        }
        WireEdgeUp::<R>::Alive => Ok(EdgeUp::Alive),
        WireEdgeUp::<R>::Token(query) => Ok(EdgeUp::Token { query: query.into(), reply: back(reply)? }),
    }
}

impl Wire for EdgeUp {
    const MAILBOX: &'static str = EDGE_MAILBOX;

    fn encode(self, version: WireVersion) -> Result<Outgoing, EncodeError> {
        match version {
            WireVersion::Zero => encode_edge::<Unmarked>(self),
            WireVersion::One => encode_edge::<Marked>(self).map(packed),
        }
    }

    fn decode(body: &[u8], reply: Option<ReplyTo>, version: WireVersion) -> Result<Self, DecodeError> {
        match version {
            WireVersion::Zero => decode_edge::<Unmarked>(body, reply),
            WireVersion::One if packed_number(body) == Some(BATCH) => {
                let open = |body: &[u8]| match decode(&unpack(body)?)? {
                    WireEdgeUp::<Marked>::Reports(reports) => Ok(converted(reports)),
                    WireEdgeUp::Alive | WireEdgeUp::Token(_) => Err(WireError::Packed),
                };
                Ok(EdgeUp::Reports { reports: Batch::packed(body, open), reply: back(reply)? })
            }
            WireVersion::One => decode_edge::<Marked>(&unpacked(body)?, reply),
        }
    }
}

fn encode_device<R: WireReport>(message: DeviceUp) -> Result<Outgoing, EncodeError> {
    match message {
        DeviceUp::Reports { reports, reply } => {
            outgoing(&WireDeviceUp::<R>::Reports(converted(opened(reports)?)), Some(slot(reply)))
        }
    }
}

fn decode_device<R: WireReport>(body: &[u8], reply: Option<ReplyTo>) -> Result<DeviceUp, DecodeError> {
    match decode(body).map_err(|e| refused(&e))? {
        WireDeviceUp::<R>::Reports(reports) => {
            let reports: Vec<Report> = converted(reports);
            Ok(DeviceUp::Reports { reports: reports.into(), reply: back(reply)? })
        }
    }
}

impl Wire for DeviceUp {
    const MAILBOX: &'static str = DEVICE_MAILBOX;

    fn encode(self, version: WireVersion) -> Result<Outgoing, EncodeError> {
        match version {
            WireVersion::Zero => encode_device::<Unmarked>(self),
            WireVersion::One => encode_device::<Marked>(self).map(packed),
        }
    }

    fn decode(body: &[u8], reply: Option<ReplyTo>, version: WireVersion) -> Result<Self, DecodeError> {
        match version {
            WireVersion::Zero => decode_device::<Unmarked>(body, reply),
            WireVersion::One if packed_number(body) == Some(BATCH) => {
                let open = |body: &[u8]| {
                    let WireDeviceUp::<Marked>::Reports(reports) = decode(&unpack(body)?)?;
                    Ok(converted(reports))
                };
                Ok(DeviceUp::Reports { reports: Batch::packed(body, open), reply: back(reply)? })
            }
            WireVersion::One => decode_device::<Marked>(&unpacked(body)?, reply),
        }
    }
}

impl Wire for RouterUp {
    const MAILBOX: &'static str = ROUTER_MAILBOX;

    fn encode(self, version: WireVersion) -> Result<Outgoing, EncodeError> {
        let body = match self {
            RouterUp::Telemetry { uploads, reply } => {
                outgoing(&WireRouterUp::Telemetry(opened(uploads)?), Some(slot(reply)))
            }
        };
        match version {
            WireVersion::Zero => body,
            WireVersion::One => body.map(packed),
        }
    }

    fn decode(body: &[u8], reply: Option<ReplyTo>, version: WireVersion) -> Result<Self, DecodeError> {
        if version == WireVersion::One && packed_number(body) == Some(BATCH) {
            let open = |body: &[u8]| {
                let WireRouterUp::Telemetry(uploads) = decode(&unpack(body)?)?;
                Ok(uploads)
            };
            return Ok(RouterUp::Telemetry { uploads: Batch::packed(body, open), reply: back(reply)? });
        }
        let body = match version {
            WireVersion::Zero => Cow::Borrowed(body),
            WireVersion::One => unpacked(body)?,
        };
        match decode(&body).map_err(|e| refused(&e))? {
            WireRouterUp::Telemetry(uploads) => {
                Ok(RouterUp::Telemetry { uploads: uploads.into(), reply: back(reply)? })
            }
        }
    }
}
