//! What a rule brings from the cloud to a node: a publish on its MQTT broker, or a call of an HTTP service on its loopback.
//!
//! It goes as a byte stream of the link, beside the calls of the node's kubelet endpoint and by none of its doors: `POST` of
//! [`TARGET`], whose body is a [`RuleStreamRequest`] with its length in front, and behind it what is published or sent. The node answers
//! with a [`crate::stream::StreamResponse`]: 200, and then for a call a [`RuleStreamAnswer`] with its length in front and the service's
//! body, or why not, with a sentence as its body.
//!
//! Both ends check what they write and what they read.

use thiserror::Error;

/// The target of the stream.
pub const TARGET: &str = "/rules";
/// 64 KiB: kind and body of a head.
pub const HEAD_MAX: usize = 64 << 10;
/// 1 KiB: the longest topic that a node's broker takes.
pub const TOPIC_MAX: usize = 1 << 10;
/// 8 KiB: path and query.
pub const PATH_MAX: usize = 8 << 10;
/// 128 headers of a head.
pub const HEADERS_MAX: usize = 128;
/// 32 KiB: names and values of all headers of a head.
pub const HEADER_BYTES_MAX: usize = 32 << 10;
/// 256 KiB: what is published, as much as a node's broker has of memory for one message in any case.
pub const PUBLISH_MAX: usize = 256 << 10;
/// 12 MiB: what is sent to a service (KubeEdge).
pub const BODY_MAX: u64 = 12 << 20;
/// 5 MB: what a service answers (KubeEdge).
pub const ANSWER_MAX: u64 = 5_000_000;
/// 4: bytes of the length before a head.
pub const LENGTH: usize = 4;

/// Headers of one connection (RFC 9110, section 7.6.1): they end where they came. `content-length` and `host` are made anew by
/// whoever sends on.
pub const HOP_BY_HOP: &[&str] = &[
    "connection",
    "content-length",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A header: its lower-case name, and its value.
pub type Header = (String, Vec<u8>);

/// What the node is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleStreamRequest {
    /// Publish what follows.
    Publish {
        /// On this topic.
        topic: String,
    },
    /// Call a service on the node's loopback with what follows.
    Call {
        /// Its port, not 0.
        port: u16,
        /// The method.
        method: String,
        /// Path and query, from the first `/`.
        path: String,
        /// Headers without those of [`HOP_BY_HOP`].
        headers: Vec<Header>,
    },
}

/// How a service answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleStreamAnswer {
    /// 200 to 599.
    pub status: u16,
    /// Headers without those of [`HOP_BY_HOP`].
    pub headers: Vec<Header>,
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RuleStreamError {
    /// Its length is out of bounds.
    #[error("head of a stream of a rule has {0} bytes; it has 2 to 65536")]
    Length(usize),
    /// A later release wrote it.
    #[error("head of a stream of a rule has the unknown kind {0}")]
    Kind(u16),
    /// The link speaks a version that has no such streams here.
    #[error("wire version {0} is not spoken here")]
    Version(u8),
    /// It is broken.
    #[error("not the head of a stream of a rule of wire version 1")]
    Malformed,
    /// The topic is none that a rule may publish on.
    #[error(
        "topic of a rule has 1 to 1024 bytes without `+`, `#` and NUL, and begins neither with `$` nor with `SYS/`"
    )]
    Topic,
    /// The port is 0.
    #[error("port of a service is not 0")]
    Port,
    /// The method is none that is passed on.
    #[error("method is not 1 to 16 upper-case letters, or CONNECT or TRACE")]
    Method,
    /// The path is none.
    #[error("path of a call has at most 8192 printable bytes and begins with `/`")]
    Path,
    /// The status is none.
    #[error("status {0} of an answer is not 200 to 599")]
    Status(u16),
    /// There are too many headers, or one is none.
    #[error(
        "headers of a stream are more than 128 or 32768 bytes, or one is of the connection's own or not printable"
    )]
    Headers,
}

/// Whether a rule may publish on a topic. What begins with `$` and `SYS/` is `edgecore`'s and the broker's own: who may write a
/// rule is not therefore who may speak for a device.
pub fn may_publish(topic: &str) -> bool {
    !topic.is_empty()
        && topic.len() <= TOPIC_MAX
        && !topic.contains(['+', '#', '\0'])
        && !topic.starts_with('$')
        && !topic.starts_with("SYS/")
}

/// Whether a header goes further than the connection that it came on.
pub fn passes(name: &str) -> bool {
    !HOP_BY_HOP.contains(&name)
}

fn check_headers(headers: &[Header]) -> Result<(), RuleStreamError> {
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let is_good = |(name, value): &Header| {
        let is_name = name.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase());
        !name.is_empty()
            && is_name
            && passes(name)
            && !value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
    };
    let within = headers.len() <= HEADERS_MAX && bytes <= HEADER_BYTES_MAX;
    if within && headers.iter().all(is_good) { Ok(()) } else { Err(RuleStreamError::Headers) }
}

impl RuleStreamRequest {
    /// Whether every field is within its bounds.
    ///
    /// # Errors
    /// The first field that is not.
    pub fn check(&self) -> Result<(), RuleStreamError> {
        match self {
            RuleStreamRequest::Publish { topic } if may_publish(topic) => Ok(()),
            RuleStreamRequest::Publish { .. } => Err(RuleStreamError::Topic),
            RuleStreamRequest::Call { port: 0, .. } => Err(RuleStreamError::Port),
            RuleStreamRequest::Call { method, path, headers, .. } => {
                let letters = method.bytes().all(|byte| byte.is_ascii_uppercase());
                if !letters
                    || method.is_empty()
                    || method.len() > 16
                    || matches!(method.as_str(), "CONNECT" | "TRACE")
                {
                    return Err(RuleStreamError::Method);
                }
                let graphic = path.bytes().all(|byte| byte.is_ascii_graphic());
                if !graphic || !path.starts_with('/') || path.len() > PATH_MAX {
                    return Err(RuleStreamError::Path);
                }
                check_headers(headers)
            }
        }
    }
}

impl RuleStreamAnswer {
    /// Whether every field is within its bounds.
    ///
    /// # Errors
    /// The first field that is not.
    pub fn check(&self) -> Result<(), RuleStreamError> {
        if !(200..600).contains(&self.status) {
            return Err(RuleStreamError::Status(self.status));
        }
        check_headers(&self.headers)
    }
}

/// How many bytes follow a head's length.
///
/// # Errors
/// [`RuleStreamError::Length`], before anything is allocated.
pub fn head_length(bytes: [u8; LENGTH]) -> Result<usize, RuleStreamError> {
    let length = usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX);
    if (2..=HEAD_MAX).contains(&length) { Ok(length) } else { Err(RuleStreamError::Length(length)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> RuleStreamRequest {
        let headers = vec![("accept".to_owned(), b"*/*".to_vec())];
        RuleStreamRequest::Call { port: 8080, method: "GET".into(), path: "/a?b=c".into(), headers }
    }

    #[test]
    fn topics_of_edgecore_and_of_the_broker_are_no_rules() {
        for topic in ["a", "a/b", "default/user/x", "SYSTEM/a"] {
            assert!(may_publish(topic), "{topic}");
        }
        let long = "x".repeat(TOPIC_MAX + 1);
        for topic in [
            "",
            "$hw/events/device/d/n/twin/update/delta",
            "$SYS/x",
            "SYS/dis/upload_records",
            "a/+",
            "#",
            &long,
        ] {
            assert!(!may_publish(topic), "{topic}");
            assert_eq!(
                RuleStreamRequest::Publish { topic: topic.to_owned() }.check(),
                Err(RuleStreamError::Topic)
            );
        }
    }

    #[test]
    fn a_call_that_breaks_a_bound_is_none() {
        assert_eq!(call().check(), Ok(()));
        type Change<'a> = dyn Fn(&mut u16, &mut String, &mut String, &mut Vec<Header>) + 'a;
        let with = |change: &Change<'_>| {
            let mut changed = call();
            if let RuleStreamRequest::Call { port, method, path, headers } = &mut changed {
                change(port, method, path, headers);
            }
            changed.check().unwrap_err()
        };
        assert_eq!(with(&|port, _, _, _| *port = 0), RuleStreamError::Port);
        for bad in ["", "get", "CONNECT", "TRACE"] {
            assert_eq!(with(&|_, method, _, _| *method = bad.into()), RuleStreamError::Method);
        }
        for bad in ["", "a", "/a b", "/a\r\nx: y"] {
            assert_eq!(with(&|_, _, path, _| *path = bad.into()), RuleStreamError::Path);
        }
        for (name, value) in
            [("connection", "close"), ("Accept", "x"), ("x", "a\r\nb"), ("", "x"), ("host", "x")]
        {
            let bad = (name.to_owned(), value.as_bytes().to_vec());
            assert_eq!(
                with(&|_, _, _, headers| headers.push(bad.clone())),
                RuleStreamError::Headers,
                "{name}"
            );
        }
        let answer = |status| RuleStreamAnswer { status, headers: Vec::new() }.check();
        assert_eq!((answer(204), answer(101)), (Ok(()), Err(RuleStreamError::Status(101))));
    }
}
