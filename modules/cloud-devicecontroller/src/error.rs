//! Why reports were not written. Whatever can never be written is no error: it is dropped with a word.

use thiserror::Error;

/// See the module.
#[derive(Debug, Error)]
pub(crate) enum DeviceReportError {
    /// The API server refused or could not be reached.
    #[error("API server did not take it")]
    Api(#[from] kube::Error),
    /// Others wrote all the time.
    #[error("DeviceStatus is written by others all the time")]
    Contended,
    /// The device was made anew under its name, and the status of the one before it is not removed yet.
    #[error("DeviceStatus is that of an earlier device of this name, which the garbage collector removes")]
    OfEarlierDevice,
    /// The node has gone on to a later session and says it again there.
    #[error("a later session of the node has reported")]
    Superseded,
    /// NodeLease could not say who has the node.
    #[error("NodeLease could not say now: {0}")]
    Lease(String),
}
