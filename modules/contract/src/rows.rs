//! Rows of a node's outbox: bytes on a disk, frozen, and of no wire version.
//!
//! ```text
//! format u8 | kind u16 | body
//! ```
//! Format 1 has the kinds and bodies of the reports of wire version 1, which stay for as long as this format is readable.
//! `tests/rows-1.txt` holds every kind byte by byte. A row of a format or a kind that this release does not know, as a later
//! one may have left it, is told apart from one that is broken.

use serde_json::Value;
use thiserror::Error;

use crate::batch::SkipReason;
use crate::wire::WireError;
use crate::wire::v1::{reports, telemetry};
use crate::{Telemetry, UpReport};

/// The first key of the node's static pods among the facts of its store, by `namespace/name`, each a `Pod` as JSON: Edged keeps
/// them, and the node's kubelet API shows them.
pub const STATIC_PODS_FACT: &str = "static-pod";

/// The first key of the pods that somebody on the node has released, by their uids, without a value: the node's kubelet API writes
/// them, and Edged begins these pods.
pub const RELEASED_PODS_FACT: &str = "released-pod";

/// The first key of the parts of jobs that somebody on the node has confirmed, by the jobs' uids: the mark ([`crate::node_task::acted_upon`]) of
/// what was confirmed. The node's kubelet API writes them, and TaskManager goes on with these parts as long as they have this mark.
pub const CONFIRMED_TASKS_FACT: &str = "confirmed-task";

/// The first key of how far the parts of jobs are, by the jobs' uids: TaskManager keeps them, and what waits for somebody on the node is
/// read there ([`WaitingTask`]).
pub const NODE_TASKS_FACT: &str = "node-task";

/// A part of a job that waits until somebody on the node confirms it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingTask {
    /// The mark ([`crate::node_task::acted_upon`]) of what it is about.
    pub mark: String,
    /// The SHA-256 of the installation package that was fetched, in hex; empty: not known.
    pub sum: String,
}

impl WaitingTask {
    /// Reads a row of [`NODE_TASKS_FACT`] of a job that asks for a confirmation; `None`: its part does not wait, or not any more.
    pub fn read(row: &[u8]) -> Option<WaitingTask> {
        let row: Value = serde_json::from_slice(row).ok()?;
        let text = |key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default();
        let actions = row.get("actions").and_then(Value::as_array)?;
        // What is fetched has been looked at, and nothing else has been done yet.
        let is_fetched = matches!(actions.as_slice(), [one] if one.get("ok") == Some(&Value::Bool(true)));
        let waits = row.get("v") == Some(&Value::from(1))
            && text("phase") == "InProgress"
            && is_fetched
            && row.get("begun").is_none();
        waits.then(|| WaitingTask { mark: text("of").to_owned(), sum: text("sum").to_owned() })
    }
}

/// The first key of the pods that another daemon's edge node (KubeEdge's) ran before this one took the node over, by their uids,
/// without a value: what the runtime has of them carries no node's name. Who imports its store writes them; Edged forgets those that
/// are gone.
pub const ADOPTED_PODS_FACT: &str = "adopted-pod";

/// The first key of the one row, with an empty second key and no value, that says that the store was filled from another daemon's, of
/// which a part may have been unreadable. While it is there a pod that the store does not have counts as unwanted only if this node has
/// reported it; Edged removes it once all that runs is known.
pub const IMPORTED_STORE_FACT: &str = "imported-store";

/// The first key of the mappers that were registered with another daemon, by their protocols: whoever speaks first for a device of such a
/// protocol is taken as registered. The value is DeviceTwin's own.
pub const KNOWN_MAPPERS_FACT: &str = "known-mapper";

const FORMAT_1: u8 = 1;

/// Why something is no row, or bytes are none.
#[derive(Debug, Error)]
pub enum RowError {
    /// It is larger than [`crate::wire::BODY_MAX`].
    #[error("larger than a row of the outbox may be")]
    TooLarge(#[source] WireError),
    /// A later release wrote it.
    #[error("row of the outbox in the unknown format {0}")]
    Format(u8),
    /// A later release wrote it.
    #[error("row of the outbox of the unknown kind {0}")]
    Kind(u16),
    /// It is broken.
    #[error("not a row of the outbox")]
    Malformed,
}

impl From<SkipReason> for RowError {
    fn from(reason: SkipReason) -> Self {
        match reason {
            SkipReason::Unknown { kind } => RowError::Kind(kind),
            SkipReason::Malformed { .. } => RowError::Malformed,
        }
    }
}

fn row((kind, body): (u16, Vec<u8>)) -> Vec<u8> {
    [&[FORMAT_1], &kind.to_le_bytes()[..], &body].concat()
}

fn split(bytes: &[u8]) -> Result<(u16, &[u8]), RowError> {
    match bytes.split_first() {
        Some((&FORMAT_1, rest)) => {
            let (kind, body) = rest.split_first_chunk().ok_or(RowError::Malformed)?;
            Ok((u16::from_le_bytes(*kind), body))
        }
        Some((format, _)) => Err(RowError::Format(*format)),
        None => Err(RowError::Malformed),
    }
}

/// A report as a row.
///
/// # Errors
/// [`RowError::TooLarge`].
pub fn encode_report(report: &UpReport) -> Result<Vec<u8>, RowError> {
    reports::encode(report.clone()).map(row).map_err(RowError::TooLarge)
}

/// A report from a row.
///
/// # Errors
/// When the bytes are not a report, or one of a later release.
pub fn decode_report(bytes: &[u8]) -> Result<UpReport, RowError> {
    let (kind, body) = split(bytes)?;
    Ok(reports::decode(kind, body)?)
}

/// Telemetry as a row.
///
/// # Errors
/// [`RowError::TooLarge`].
pub fn encode_telemetry(telemetry: &Telemetry) -> Result<Vec<u8>, RowError> {
    telemetry::encode(telemetry.clone()).map(row).map_err(RowError::TooLarge)
}

/// Telemetry from a row.
///
/// # Errors
/// When the bytes are none, or of a later release.
pub fn decode_telemetry(bytes: &[u8]) -> Result<Telemetry, RowError> {
    let (kind, body) = split(bytes)?;
    Ok(telemetry::decode(kind, body)?)
}
