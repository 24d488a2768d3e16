//! A batch: the reports or uploads of one message, each with its row of the outbox.

use bytes::Bytes;
use thiserror::Error;

use crate::wire::error::WireError;

/// A number of reports or uploads, opened when it is their turn.
///
/// What came over the link stays as it came until somebody opens it: however much it inflates to, whoever queues it holds
/// what crossed the wire, and only one at a time is open where they are served one after the other.
#[derive(Clone)]
pub struct Batch<T>(Form<T>);

#[derive(Clone)]
enum Form<T> {
    Made(Vec<T>),
    Received { body: Bytes, open: Opener<T> },
}

type Opener<T> = fn(&[u8]) -> Result<Opened<T>, WireError>;

/// What a batch holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened<T> {
    /// What this release understands, in order.
    pub items: Vec<T>,
    /// The rows that it does not. They are to be confirmed, or their node would send them for ever.
    pub skipped: Vec<Skipped>,
}

/// A row whose bytes are not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
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

impl SkipReason {
    /// Its name in counters.
    pub fn event(self) -> &'static str {
        match self {
            SkipReason::Unknown { .. } => "report_unknown",
            SkipReason::Malformed { .. } => "report_malformed",
        }
    }
}

impl<T> From<Vec<T>> for Batch<T> {
    fn from(items: Vec<T>) -> Self {
        Batch(Form::Made(items))
    }
}

impl<T> Batch<T> {
    pub(crate) fn received(body: &[u8], open: Opener<T>) -> Self {
        Batch(Form::Received { body: Bytes::copy_from_slice(body), open })
    }

    /// What it holds.
    ///
    /// # Errors
    /// It came over the link and is no batch.
    pub fn open(self) -> Result<Opened<T>, WireError> {
        match self.0 {
            Form::Made(items) => Ok(Opened { items, skipped: Vec::new() }),
            Form::Received { body, open } => open(&body),
        }
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Batch<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Form::Made(items) => items.fmt(f),
            Form::Received { body, .. } => write!(f, "{} bytes of a batch", body.len()),
        }
    }
}
