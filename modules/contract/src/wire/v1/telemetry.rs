//! Telemetry as version 1 writes it. A row of the outbox in format 1 holds the same bytes (module `rows`).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::batch::BatchEntry;
use crate::batch::SkipReason;
use crate::wire::WireError;
use crate::wire::codec;
use crate::{Telemetry, Upload};

/// Its number among the kinds of reports, which it shares with [`super::reports`].
const TELEMETRY: u16 = 7;

#[derive(Serialize, Deserialize)]
struct TelemetryV1 {
    client: String,
    topic: String,
    boot: [u8; 16],
    sequence: u64,
    dup: bool,
    qos: u8,
    #[serde(with = "run")]
    payload: Bytes,
}

/// Its kind, and its bytes.
pub(crate) fn encode(telemetry: Telemetry) -> Result<(u16, Vec<u8>), WireError> {
    let Telemetry { client, topic, boot, sequence, dup, qos, payload } = telemetry;
    Ok((TELEMETRY, codec::encode(&TelemetryV1 { client, topic, boot, sequence, dup, qos, payload })?))
}

/// The telemetry that the bytes of this kind are.
pub(crate) fn decode(kind: u16, bytes: &[u8]) -> Result<Telemetry, SkipReason> {
    match kind {
        TELEMETRY => {
            let telemetry = codec::decode::<TelemetryV1>(bytes);
            telemetry.map(Into::into).map_err(|_| SkipReason::Malformed { kind })
        }
        kind => Err(SkipReason::Unknown { kind }),
    }
}

/// An entry of a batch.
pub(crate) fn entry(Upload { row, repeat, telemetry }: Upload) -> Result<BatchEntry, WireError> {
    let (kind, body) = encode(telemetry)?;
    Ok(BatchEntry { row, repeat, kind, body })
}

/// An upload from an entry of a batch.
pub(crate) fn item(row: i64, repeat: bool, kind: u16, body: &[u8]) -> Result<Upload, SkipReason> {
    Ok(Upload { row, repeat, telemetry: decode(kind, body)? })
}

impl From<TelemetryV1> for Telemetry {
    fn from(telemetry: TelemetryV1) -> Self {
        let TelemetryV1 { client, topic, boot, sequence, dup, qos, payload } = telemetry;
        Telemetry { client, topic, boot, sequence, dup, qos, payload }
    }
}

/// A payload as one run of bytes.
pub(super) mod run {
    use bytes::Bytes;
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub(in crate::wire::v1) fn serialize<S: Serializer>(payload: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(payload)
    }

    pub(in crate::wire::v1) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        from.deserialize_byte_buf(Run)
    }

    struct Run;

    impl Visitor<'_> for Run {
        type Value = Bytes;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a payload")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
            Ok(Bytes::copy_from_slice(bytes))
        }

        fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
            Ok(Bytes::from(bytes))
        }
    }
}
