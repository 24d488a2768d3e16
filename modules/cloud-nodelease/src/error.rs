//! Why a Lease or a condition could not be read or written now.

use contract::NodeName;
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
    /// Whoever asked was sent away before it was written.
    #[error("the API server was too slow: the node was asked to come again, and nothing was written")]
    Late,
    /// Nobody counts there: something else has written into the Lease or the Node.
    #[error(
        "there is no session after {session}, to which `leaseTransitions` of the Lease kube-node-lease/{node} or the Node \
         {node} says that it has counted: delete the one that does"
    )]
    Exhausted {
        /// The node.
        node: NodeName,
        /// The last number.
        session: u64,
    },
}
