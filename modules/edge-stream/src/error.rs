//! How a call is refused, in a kubelet's words.

use cri::Error as RuntimeError;

/// 60 s: how long the runtime keeps the connections that it has prepared, after which it has room again.
const RETRY_AFTER_SECONDS: &str = "60";
/// 1 s, as the API server says where it has too many requests: most readers take an answer at once.
pub(crate) const SOON_SECONDS: &str = "1";

/// An answer that is no success: a status, plain text, and what else goes into the head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) text: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Refusal {
    pub(crate) fn new(status: u16, text: impl Into<String>) -> Self {
        Refusal { status, text: text.into(), headers: Vec::new() }
    }

    /// What the client asked for makes no sense.
    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Refusal::new(400, text)
    }

    /// What the client asked for is not here.
    pub(crate) fn missing(text: impl Into<String>) -> Self {
        Refusal::new(404, text)
    }

    /// Something on the node failed.
    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Refusal::new(500, text)
    }

    /// The node has as many calls as it takes.
    pub(crate) fn too_many(what: &str) -> Self {
        let text = format!("the node has as many {what} as it takes; end one, or try again later");
        Refusal::new(429, text).with("retry-after", RETRY_AFTER_SECONDS)
    }

    /// Others hold what the node has for answers; the caller has done nothing wrong.
    pub(crate) fn busy() -> Self {
        let text = "the node holds as many answers as it may that were not taken yet; try again later";
        Refusal::new(503, text).with("retry-after", SOON_SECONDS)
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// What a kubelet makes of an error of the runtime (cri-streaming, `WriteError`).
    pub(crate) fn of_runtime(error: &RuntimeError) -> Self {
        let text = error.grpc_text();
        match error {
            RuntimeError::NotFound { .. } | RuntimeError::ImageNotFound { .. } => Refusal::missing(text),
            RuntimeError::Exhausted { .. } => {
                Refusal::new(429, text).with("retry-after", RETRY_AFTER_SECONDS)
            }
            RuntimeError::Unreachable { .. }
            | RuntimeError::BadEndpoint(_)
            | RuntimeError::Deadline { .. }
            | RuntimeError::PullRefused { .. }
            | RuntimeError::Unsupported { .. }
            | RuntimeError::Failed { .. } => Refusal::failed(text),
        }
    }
}
