//! What can go wrong with a pod.

use std::path::PathBuf;

use thiserror::Error;

use crate::pod::id::PodId;

/// Why an object in the store is not a pod that can be looked at.
#[derive(Debug, Error)]
pub(crate) enum ParseError {
    #[error("pod has {size} bytes of JSON, more than an API server stores")]
    TooLarge { size: usize },
    #[error("pod {0}")]
    NotJson(String),
    #[error("{what} `{shown}` is not a name")]
    BadName { what: &'static str, shown: String },
    #[error("pod cannot be understood: {reason}")]
    NotAPod { id: Box<PodId>, reason: String },
}

/// Why one step for a pod did not work. The variants that name something missing are tried again when it may have come.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum StepError {
    /// A config map, a secret or a key in one.
    #[error("{0}")]
    Missing(String),
    /// Something in the pod that cannot be done here, or that is wrong.
    #[error("{0}")]
    Config(String),
    /// Devices that the pod claims.
    #[error("prepare dynamic resources: {0}")]
    DynamicResources(String),
    /// A file operation.
    #[error("{what} {}: {reason}", path.display())]
    File { what: &'static str, path: PathBuf, reason: String },
    /// The runtime.
    #[error("{}", .0.grpc_text())]
    Runtime(#[from] cri::Error),
    /// No token for the service account.
    #[error("no token for service account {account}: {reason}")]
    Token { account: String, reason: String },
}

impl StepError {
    /// As a kubelet says it of a container that was not made: of the runtime's words the message alone.
    pub(crate) fn of_container(&self) -> String {
        match self {
            StepError::Runtime(error) => error.grpc_message(),
            StepError::Missing(_)
            | StepError::Config(_)
            | StepError::DynamicResources(_)
            | StepError::File { .. }
            | StepError::Token { .. } => self.to_string(),
        }
    }

    pub(crate) fn file(what: &'static str, path: &std::path::Path, error: &dyn std::fmt::Display) -> Self {
        StepError::File { what, path: path.to_owned(), reason: error.to_string() }
    }
}
