//! Why a Lease or a condition could not be read or written now.

use thiserror::Error;

/// See the module.
#[derive(Debug, Error)]
pub(crate) enum LeaseError {
    /// The API server refused or could not be reached.
    #[error("API server did not take it")]
    Api(#[from] kube::Error),
    /// Others wrote all the time.
    #[error("the object is written by others all the time")]
    Contended,
}

/// The code of the `Status` that the API server answered.
pub(crate) fn status_code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}
