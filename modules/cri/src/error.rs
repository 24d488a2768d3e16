//! What can go wrong between Edged and the runtime.

use thiserror::Error as ThisError;
use tonic::{Code, Status};

/// Why a call to the runtime failed.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
pub enum Error {
    /// Nobody answers at the endpoint.
    #[error("runtime at {endpoint} is unreachable: {message}; start it, or set containerRuntimeEndpoint")]
    Unreachable {
        /// The endpoint as configured.
        endpoint: String,
        /// What the transport said.
        message: String,
    },
    /// The endpoint is not one that can be dialled.
    #[error("`{0}` is no runtime endpoint: write unix:///path/to/runtime.sock")]
    BadEndpoint(String),
    /// No answer in time. The runtime may still do what it was told.
    #[error("{call} did not answer in time")]
    Deadline {
        /// The call.
        call: &'static str,
    },
    /// The sandbox or container does not exist.
    #[error("{call}: {message}")]
    NotFound {
        /// The call.
        call: &'static str,
        /// What the runtime said.
        message: String,
    },
    /// The registry does not have the image.
    #[error("image {image} not found: {message}")]
    ImageNotFound {
        /// The image as asked for.
        image: String,
        /// What the runtime said.
        message: String,
    },
    /// The registry refused to hand the image out.
    #[error("pull of image {image} was refused: {message}")]
    PullRefused {
        /// The image as asked for.
        image: String,
        /// What the runtime said.
        message: String,
    },
    /// The runtime does not have this call.
    #[error("runtime does not have {call}")]
    Unsupported {
        /// The call.
        call: &'static str,
    },
    /// The runtime has as much to do as it takes.
    #[error("{call}: {message}")]
    Exhausted {
        /// The call.
        call: &'static str,
        /// What the runtime said.
        message: String,
    },
    /// Anything else that the runtime said.
    #[error("{call}: {message}")]
    Failed {
        /// The call.
        call: &'static str,
        /// What the runtime said.
        message: String,
    },
}

/// Longer texts from the runtime are cut: they end up in statuses and events.
const MESSAGE_MAX: usize = 1024;

pub(crate) fn shorten(text: &str) -> String {
    if text.len() <= MESSAGE_MAX {
        return text.to_owned();
    }
    let mut end = MESSAGE_MAX;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

impl Error {
    /// Whether the runtime itself could not be reached, so that nothing is known about what was asked.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Error::Unreachable { .. })
    }

    /// Whether the thing that was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::NotFound { .. } | Error::ImageNotFound { .. })
    }

    /// What was said, as clients written in Go have it of the status: what a kubelet says of a container that was not made or
    /// did not start.
    #[must_use]
    pub fn grpc_message(&self) -> String {
        match self {
            Error::NotFound { message, .. }
            | Error::ImageNotFound { message, .. }
            | Error::Exhausted { message, .. }
            | Error::Unreachable { message, .. }
            | Error::Failed { message, .. }
            | Error::PullRefused { message, .. } => message.clone(),
            Error::Deadline { .. } => "context deadline exceeded".to_owned(),
            Error::Unsupported { call } => format!("unknown method {call}"),
            Error::BadEndpoint(_) => self.to_string(),
        }
    }

    /// The error as clients written in Go print it, which is what a kubelet hands on to who asked it.
    #[must_use]
    pub fn grpc_text(&self) -> String {
        let code = match self {
            Error::NotFound { .. } | Error::ImageNotFound { .. } => "NotFound",
            Error::Exhausted { .. } => "ResourceExhausted",
            Error::Unreachable { .. } | Error::BadEndpoint(_) => "Unavailable",
            Error::Deadline { .. } => "DeadlineExceeded",
            Error::Unsupported { .. } => "Unimplemented",
            Error::Failed { .. } | Error::PullRefused { .. } => "Unknown",
        };
        format!("rpc error: code = {code} desc = {}", self.grpc_message())
    }

    /// The error of a pull as a kubelet shows it: what the runtime said, with the code in front where it says more than
    /// `Unknown` (Kubernetes: `pullImageV1` of cri-client's `remote_image.go` strips that one, and no other).
    #[must_use]
    pub fn pull_text(&self) -> String {
        match self {
            Error::ImageNotFound { message, .. } | Error::PullRefused { message, .. } => message.clone(),
            Error::Failed { message, .. } => message.clone(),
            other @ (Error::NotFound { .. }
            | Error::Exhausted { .. }
            | Error::Unreachable { .. }
            | Error::Deadline { .. }
            | Error::Unsupported { .. }
            | Error::BadEndpoint(_)) => other.grpc_text(),
        }
    }

    pub(crate) fn from_status(call: &'static str, endpoint: &str, status: &Status) -> Error {
        let message = shorten(status.message());
        match status.code() {
            Code::DeadlineExceeded => Error::Deadline { call },
            // tonic's own deadline comes as a cancellation.
            Code::Cancelled if status.message().contains("Timeout expired") => Error::Deadline { call },
            Code::NotFound => Error::NotFound { call, message },
            Code::Unimplemented => Error::Unsupported { call },
            Code::ResourceExhausted => Error::Exhausted { call, message },
            Code::Unavailable => unreachable(endpoint, status, message),
            _ if transport_broke(status) => unreachable(endpoint, status, message),
            _ => Error::Failed { call, message },
        }
    }

    pub(crate) fn from_pull(image: &str, endpoint: &str, status: &Status) -> Error {
        let message = match status.code() {
            Code::Unknown => shorten(status.message()),
            // Named as Go names them.
            code => shorten(&format!("rpc error: code = {code:?} desc = {}", status.message())),
        };
        let text = status.message();
        let refused =
            ["401", "403", "authorization failed", "pull access denied", "unauthorized", "forbidden"];
        let absent = ["not found", "manifest unknown", "name unknown"];
        let general = Error::from_status("PullImage", endpoint, status);
        if general.is_unreachable() && transport_broke(status) {
            return general;
        }
        let lower = text.to_lowercase();
        match status.code() {
            Code::PermissionDenied | Code::Unauthenticated => {
                Error::PullRefused { image: image.to_owned(), message }
            }
            Code::DeadlineExceeded => general,
            _ if refused.iter().any(|mark| lower.contains(mark)) => {
                Error::PullRefused { image: image.to_owned(), message }
            }
            Code::NotFound => Error::ImageNotFound { image: image.to_owned(), message },
            _ if absent.iter().any(|mark| lower.contains(mark)) => {
                Error::ImageNotFound { image: image.to_owned(), message }
            }
            // The runtime answered, so it is the registry that is unavailable.
            Code::Unavailable => Error::Failed { call: "PullImage", message },
            _ if matches!(general, Error::Failed { .. }) => Error::Failed { call: "PullImage", message },
            _ => general,
        }
    }
}

/// Nobody answers; where nobody could even be dialled in the words of clients written in Go, by which people look for help.
fn unreachable(endpoint: &str, status: &Status, message: String) -> Error {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    let dialled = dial_error(status).map(|words| {
        format!(
            "connection error: desc = \"transport: Error while dialing: dial unix {path}: connect: {words}\""
        )
    });
    Error::Unreachable { endpoint: endpoint.to_owned(), message: dialled.unwrap_or(message) }
}

/// Why the endpoint could not be dialled, as the system says it.
fn dial_error(status: &Status) -> Option<&'static str> {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return match error.kind() {
                std::io::ErrorKind::NotFound => Some("no such file or directory"),
                std::io::ErrorKind::ConnectionRefused => Some("connection refused"),
                std::io::ErrorKind::PermissionDenied => Some("permission denied"),
                _ => None,
            };
        }
        cause = error.source();
    }
    None
}

/// Whether the status was made here because the connection broke, and not by the runtime.
fn transport_broke(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_pull_says_whether_the_image_is_absent_or_refused() {
        let absent = Status::new(Code::NotFound, "failed to resolve reference \"r/x:1\": r/x:1: not found");
        assert!(matches!(Error::from_pull("r/x:1", "e", &absent), Error::ImageNotFound { .. }));
        let refused = Status::new(Code::Unknown, "failed to authorize: unexpected status: 401 Unauthorized");
        assert!(matches!(Error::from_pull("r/x:1", "e", &refused), Error::PullRefused { .. }));
        let down = Status::new(Code::Unknown, "dial tcp 127.0.0.1:5000: connect: connection refused");
        let down = Error::from_pull("r/x:1", "e", &down);
        assert!(matches!(down, Error::Failed { .. }));
        assert_eq!(down.pull_text(), "dial tcp 127.0.0.1:5000: connect: connection refused");
        let text = Error::from_pull("r/x:1", "e", &absent).pull_text();
        assert!(text.starts_with("rpc error: code = NotFound desc = failed to resolve"), "{text}");
    }

    #[test]
    fn an_error_has_the_text_that_go_gives_it() {
        let gone = Error::from_status("Exec", "e", &Status::new(Code::NotFound, "container \"x\" not found"));
        assert_eq!(gone.grpc_text(), "rpc error: code = NotFound desc = container \"x\" not found");
        let full =
            Error::from_status("Exec", "e", &Status::new(Code::ResourceExhausted, "too many requests"));
        assert!(matches!(full, Error::Exhausted { .. }), "{full:?}");
        assert_eq!(full.grpc_text(), "rpc error: code = ResourceExhausted desc = too many requests");
    }

    #[tokio::test]
    async fn a_runtime_that_is_not_there_is_said_as_a_kubelet_says_it() {
        let runtime =
            crate::Grpc::new("unix:///nowhere/x.sock", "unix:///nowhere/x.sock", Duration::from_secs(9));
        let error = crate::Runtime::version(&runtime.unwrap()).await.unwrap_err();
        let dialled = "connection error: desc = \"transport: Error while dialing: dial unix /nowhere/x.sock: \
                       connect: no such file or directory\"";
        assert_eq!(error.grpc_text(), format!("rpc error: code = Unavailable desc = {dialled}"));
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let text = "é".repeat(2000);
        assert!(shorten(&text).len() <= MESSAGE_MAX + '…'.len_utf8());
    }
}
