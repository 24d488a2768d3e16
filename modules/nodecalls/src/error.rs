//! Why a call gets no answer of the node, and what the caller is told.

use std::time::Duration;

use beehive::link::{ByteStreamError, ByteStreamRefusal};
use contract::NodeName;
use contract::stream::StreamHeadError;
use http::{HeaderValue, StatusCode, header};
use https::{Answer, body};
use thiserror::Error;

use crate::shares::Full;

/// Why a node was not asked, or has not answered. Each text names the node and what can be done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CallError {
    /// No link of the node is here.
    #[error(
        "node `{0}` is not linked to this CloudCore: see `kubectl get node {0}`, and on the node `systemctl status edgecore`"
    )]
    NotLinked(NodeName),
    /// The link was cut before an answer.
    #[error("the link to node `{node}` is down ({reason}): try again when the node is Ready")]
    LinkDown {
        /// The node.
        node: NodeName,
        /// Why.
        reason: String,
    },
    /// The stream broke off, or what came was no answer.
    #[error(
        "node `{node}` broke the call off ({reason}): edgecore's log on the node says more (`journalctl -u edgecore`)"
    )]
    Broken {
        /// The node.
        node: NodeName,
        /// How.
        reason: String,
    },
    /// No answer in time.
    #[error("node `{node}` has not begun to answer within {} s: its link may be saturated, or its runtime hangs", within.as_secs())]
    Late {
        /// The node.
        node: NodeName,
        /// How long was waited.
        within: Duration,
    },
    /// Its EdgeCore knows no such calls.
    #[error(
        "edgecore on node `{0}` serves no kubelet endpoint: it is of an earlier release, or modules.edgeStream.enable is false there"
    )]
    Unsupported(NodeName),
    /// The node refused it.
    #[error("{reason}")]
    Refused {
        /// An HTTP status.
        code: u16,
        /// The node's sentence.
        reason: String,
    },
    /// Too many calls are open.
    #[error("{what}: wait for one to end, then try again")]
    TooMany {
        /// Whose, and how many.
        what: String,
    },
    /// The path is none of a kubelet.
    #[error("404 page not found")]
    NoPath,
    /// The node sent the caller elsewhere, and his client would go there with his credentials.
    #[error("node `{0}` answered with a redirect, which no kubelet does there: it was not passed on")]
    Redirect(NodeName),
    /// The request is more than a call carries.
    #[error("{0}")]
    Request(StreamHeadError),
}

impl CallError {
    pub(crate) fn of_stream(node: &NodeName, error: ByteStreamError) -> Self {
        let node = node.clone();
        match error {
            ByteStreamError::LinkDown(reason) => CallError::LinkDown { node, reason },
            ByteStreamError::TooMany => CallError::TooMany {
                what: format!("node `{node}` has as many streams open as its link carries"),
            },
            ByteStreamError::HeaderTooLarge(bytes) => CallError::Request(StreamHeadError::Length(bytes)),
            ByteStreamError::Unsupported => CallError::Unsupported(node),
            ByteStreamError::Refused(ByteStreamRefusal { code, reason }) => {
                CallError::Refused { code, reason: printable(&reason) }
            }
            ByteStreamError::Broken(reason) => CallError::Broken { node, reason },
        }
    }

    /// A node's own refusal, with its sentence.
    pub(crate) fn refused(code: u16, reason: &str) -> Self {
        CallError::Refused { code, reason: printable(reason) }
    }

    pub(crate) fn of_share(node: &NodeName, user: &str, full: Full) -> Self {
        let what = match full {
            Full::Node(most) => format!("node `{node}` has {most} calls open"),
            Full::Lasting(most) => format!("node `{node}` has {most} calls open that last"),
            Full::User(most) => format!("user `{user}` has {most} calls open"),
            Full::All(most) => format!("this CloudCore has {most} calls open"),
        };
        CallError::TooMany { what }
    }

    /// The status that the caller gets.
    pub fn status(&self) -> StatusCode {
        match self {
            CallError::NotLinked(_) => StatusCode::SERVICE_UNAVAILABLE,
            CallError::LinkDown { .. } | CallError::Broken { .. } | CallError::Redirect(_) => {
                StatusCode::BAD_GATEWAY
            }
            CallError::Late { .. } => StatusCode::GATEWAY_TIMEOUT,
            CallError::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
            CallError::NoPath => StatusCode::NOT_FOUND,
            CallError::Refused { code, .. } => match StatusCode::from_u16(*code) {
                Ok(status) if status.is_client_error() || status.is_server_error() => status,
                _ => StatusCode::BAD_GATEWAY,
            },
            CallError::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            CallError::Request(StreamHeadError::Target) => StatusCode::URI_TOO_LONG,
            CallError::Request(StreamHeadError::Method) => StatusCode::METHOD_NOT_ALLOWED,
            CallError::Request(_) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        }
    }

    /// The answer, in a kubelet's form: plain text.
    pub fn answer(&self) -> Answer {
        let mut answer = body::sentence(self.status(), format!("{self}\n"));
        if matches!(self, CallError::TooMany { .. }) {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        answer
    }
}
/// What a node says is written to a terminal at last, which must not take it for commands.
fn printable(text: &str) -> String {
    let is_plain = |letter: &char| !letter.is_control() || matches!(letter, '\n' | '\t');
    text.chars().map(|letter| if is_plain(&letter) { letter } else { char::REPLACEMENT_CHARACTER }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_says_moves_no_cursor() {
        assert_eq!(printable("a\u{1b}[2J\u{9b}b\n\tc\r"), "a\u{fffd}[2J\u{fffd}b\n\tc\u{fffd}");
    }
}
