//! Why bytes are no message.

use thiserror::Error;

/// Why bytes are not a message.
#[derive(Debug, Error)]
pub enum WireError {
    /// The codec refused it.
    #[error("not a message of wire version 1")]
    Codec(#[source] bincode::Error),
    /// It does not inflate, or to more than a frame carries.
    #[error("deflated batch does not inflate to at most 1 MiB")]
    Deflated,
    /// The entries of a batch do not fill it, or are too many.
    #[error("not a batch of at most 4096 reports")]
    Batch,
    /// The object does not inflate, or to more than it may.
    #[error("object `{0}` does not inflate, or its message to more than 3 MiB of JSON")]
    Object(String),
    /// What came from a link is not sent on: it is opened and answered here.
    #[error("batch of a peer cannot be sent on before it was understood as a whole")]
    Received,
}
