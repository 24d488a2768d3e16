//! Why something could not be written now. Whatever can never be written is no error: it is dropped with a word.

use kubewatch::status_code;
use thiserror::Error;

/// See the module.
#[derive(Debug, Error)]
pub(crate) enum NodeReportError {
    /// The API server refused or could not be reached.
    #[error("API server did not take it")]
    Api(#[from] kube::Error),
    /// Others wrote all the time.
    #[error("the object is written by others all the time")]
    Contended,
    /// NodeLease could not say whose the Node is, or who has the node.
    #[error("NodeLease could not say now: {0}")]
    Lease(String),
}

/// Nothing more is made in a namespace that goes (Kubernetes: the cause `NamespaceTerminating` of a 403).
fn is_of_ending_namespace(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403
        && (causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
            || status.message.contains("because it is being terminated"))
}

/// 404 and 409: the object is gone or is another one; 400 and 422: it can never be written. A status that lost against
/// another write does not come here: it is read and compared again.
pub(crate) fn is_final(error: &kube::Error) -> bool {
    matches!(status_code(error), Some(400 | 404 | 409 | 410 | 413 | 422)) || is_of_ending_namespace(error)
}
