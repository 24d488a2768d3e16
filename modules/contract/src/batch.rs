//! A batch: the reports or uploads of one message, each with its row of the outbox.

use bytes::Bytes;
use thiserror::Error;

use crate::wire::error::WireError;

/// A number of reports or uploads, opened when it is their turn.
///
/// What came over the link stays as it came until somebody opens it: however much it inflates to, whoever queues it holds
/// what crossed the wire, and only one at a time is open where they are served one after the other.
#[derive(Clone)]
pub struct Batch<T>(BatchForm<T>);

#[derive(Clone)]
enum BatchForm<T> {
    Made(Vec<T>),
    Received { body: Bytes, open: BatchDecoder<T> },
}

type BatchDecoder<T> = fn(&[u8]) -> Result<DecodedBatch<T>, WireError>;

/// What a batch holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedBatch<T> {
    /// What this release understands, in order.
    pub items: Vec<T>,
    /// The rows that it does not. They are to be confirmed, or their node would send them for ever.
    pub skipped: Vec<SkippedRow>,
    /// How many bytes it came to when it was opened; 0 for one that was made here.
    pub bytes: usize,
}

/// A row whose bytes are not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkippedRow {
    /// The row's seq.
    pub row: i64,
    /// Why.
    pub reason: SkipReason,
}

/// Why a row is not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SkipReason {
    /// Of a kind that a later release has added.
    #[error("a report of the unknown kind {kind}")]
    Unknown {
        /// The number of the kind.
        kind: u16,
    },
    /// Not what its kind is.
    #[error("a report of kind {kind} that cannot be decoded")]
    Malformed {
        /// The number of the kind.
        kind: u16,
    },
}

impl<T> From<Vec<T>> for Batch<T> {
    fn from(items: Vec<T>) -> Self {
        Batch(BatchForm::Made(items))
    }
}

impl<T> Batch<T> {
    pub(crate) fn received(body: &[u8], open: BatchDecoder<T>) -> Self {
        Batch(BatchForm::Received { body: Bytes::copy_from_slice(body), open })
    }

    /// What it holds.
    ///
    /// # Errors
    /// It came over the link and is no batch.
    pub fn open(self) -> Result<DecodedBatch<T>, WireError> {
        match self.0 {
            BatchForm::Made(items) => Ok(DecodedBatch { items, skipped: Vec::new(), bytes: 0 }),
            BatchForm::Received { body, open } => open(&body),
        }
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Batch<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            BatchForm::Made(items) => items.fmt(f),
            BatchForm::Received { body, .. } => write!(f, "{} bytes of a batch", body.len()),
        }
    }
}
