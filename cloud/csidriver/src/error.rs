//! What is wrong with a flag.

use thiserror::Error;

/// Why an endpoint is none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EndpointError {
    /// It is no socket.
    #[error("`{0}` is not unix:// and an absolute path of at most 107 bytes")]
    NoSocket(String),
    /// It is neither that nor an API server.
    #[error(
        "`{0}` is neither unix:// and an absolute path (CloudCore's socket) nor https:// and a host (the API server)"
    )]
    Unknown(String),
}
