//! What can go wrong with a plugin.

use thiserror::Error;

/// Why a plugin did not answer as it should.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum PluginError {
    /// It said no. The text is as grpc-go writes it, for that is what people know.
    #[error("rpc error: code = {code} desc = {message}")]
    Refused { code: String, message: String },
    /// It has gone, or was not there.
    #[error("{0}")]
    Away(String),
    /// It did not answer in time.
    #[error("rpc error: code = DeadlineExceeded desc = context deadline exceeded")]
    TooLate,
    /// What it said makes no sense.
    #[error("{0}")]
    Nonsense(String),
}

impl From<tonic::Status> for PluginError {
    fn from(status: tonic::Status) -> Self {
        let message = status.message().chars().take(1024).collect();
        match status.code() {
            tonic::Code::Unavailable => {
                PluginError::Away(format!("rpc error: code = Unavailable desc = {message}"))
            }
            // Go's spelling.
            tonic::Code::Cancelled => PluginError::Refused { code: "Canceled".to_owned(), message },
            code => PluginError::Refused { code: format!("{code:?}"), message },
        }
    }
}
