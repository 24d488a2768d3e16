//! The heads of a kubelet call on a byte stream: what CloudCore asks a node, and how the node answers.
//!
//! CloudCore opens a byte stream on a node's link with a [`StreamRequest`] as its header, writes the request's body, and ends
//! its side. A side that has no body to carry stays open: that of a request for an upgrade, and that of one without a body,
//! until its caller has the answer or has gone. The node writes one [`StreamResponse`], then the answer's body, and ends its
//! side. After status 101 both sides are the raw bytes of the upgraded connection. A side that is reset, not ended, was cut:
//! so the node learns that the caller has gone, also where it has nothing to say to him.
//!
//! A head is `kind u16 | body`, little-endian, at most [`HEAD_MAX`] bytes; the body is a struct of the link's wire version in
//! bincode. A response, which has no place of its own on the stream, has its length as a `u32` before it. `tests/wire-1.txt`
//! holds both byte by byte.
//!
//! Both ends check what they write and what they read: a head that breaks a bound exists on neither.

use thiserror::Error;

/// 4: bytes of the length before a response.
pub const LENGTH: usize = 4;
/// 32 KiB: kind and body of a head.
pub const HEAD_MAX: usize = 32 << 10;
/// 8 KiB: path and query of a request.
pub const TARGET_MAX: usize = 8 << 10;
/// 64 headers of a head.
pub const HEADERS_MAX: usize = 64;
/// 16 KiB: names and values of all headers of a head.
pub const HEADER_BYTES_MAX: usize = 16 << 10;
/// 1 KiB: the name of who asks.
pub const USER_MAX: usize = 1 << 10;
/// 16: letters of a method.
pub const METHOD_MAX: usize = 16;

/// The headers of a request that reach a node; every other one stays at CloudCore, credentials before all.
pub const REQUEST_HEADERS: &[&str] = &[
    "accept",
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "if-modified-since",
    "if-range",
    "origin",
    "range",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "upgrade",
    "user-agent",
    "x-stream-protocol-version",
];

/// The headers of a node's answer that leave CloudCore.
pub const RESPONSE_HEADERS: &[&str] = &[
    "accept-ranges",
    "allow",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "last-modified",
    "location",
    "retry-after",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
    "upgrade",
    "x-accepted-stream-protocol-versions",
    "x-content-type-options",
    "x-stream-protocol-version",
];

/// The code by which a node refuses a stream that it has not looked at, because it is about to go over to another link: there it is opened
/// anew. It is HTTP's "misdirected request", which says the same of a connection.
pub const MOVING: u16 = 421;

/// How the WebSocket subprotocol begins that is a browser's bearer token. It is taken out of the list before that leaves
/// CloudCore.
pub const BEARER_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// A request to a node's kubelet endpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StreamRequest {
    /// Upper-case ASCII letters, 1 to [`METHOD_MAX`] of them.
    pub method: String,
    /// Path and query, from the first `/`, as they came: printable ASCII, at most [`TARGET_MAX`] bytes.
    pub target: String,
    /// Lower-case names of [`REQUEST_HEADERS`] with printable values, in order, at most [`HEADERS_MAX`] and
    /// [`HEADER_BYTES_MAX`] bytes.
    pub headers: Vec<(String, String)>,
    /// Who was authenticated and authorised, for the node's log; at most [`USER_MAX`] bytes.
    pub user: String,
}

/// How a node answers a [`StreamRequest`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StreamResponse {
    /// 101, or 200 to 599.
    pub status: u16,
    /// As those of a request, of [`RESPONSE_HEADERS`].
    pub headers: Vec<(String, String)>,
}

/// Why a head of a stream is refused.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
pub enum StreamHeadError {
    /// Its length is 0 or above the bound.
    #[error("head of a stream has {0} bytes; it has 2 to 32768")]
    Length(usize),
    /// A later release wrote it.
    #[error("head of a stream has the unknown kind {0}")]
    Kind(u16),
    /// The link speaks a version that has no streams here.
    #[error("wire version {0} is not spoken here")]
    Version(u8),
    /// It is broken.
    #[error("not the head of a stream of wire version 1")]
    Malformed,
    /// The method is none.
    #[error("method of a stream is not 1 to 16 upper-case letters")]
    Method,
    /// The target is none.
    #[error("target of a stream is not a path of at most 8192 printable bytes")]
    Target,
    /// The status is none.
    #[error("status {0} of a stream is neither 101 nor 200 to 599")]
    Status(u16),
    /// There are too many headers.
    #[error("head of a stream has more than 64 headers or 16384 bytes of them")]
    Headers,
    /// A header is not of the list, or has a value that is not printable.
    #[error("header `{0}` does not pass through a stream")]
    Header(String),
    /// The user is too long.
    #[error("user of a stream has more than 1024 bytes")]
    User,
}

/// How many bytes follow a response's length.
///
/// # Errors
/// [`StreamHeadError::Length`], before anything is allocated.
pub fn head_length(bytes: [u8; LENGTH]) -> Result<usize, StreamHeadError> {
    let length = usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX);
    if (2..=HEAD_MAX).contains(&length) { Ok(length) } else { Err(StreamHeadError::Length(length)) }
}

/// The first value of a header by its lower-case name.
#[must_use]
pub fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(held, _)| held == name).map(|(_, value)| value.as_str())
}

fn printable(value: &str) -> bool {
    value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte))
}

/// Whether a header passes to a node or back.
#[must_use]
pub fn passes(allowed: &[&str], name: &str, value: &str) -> bool {
    allowed.contains(&name) && printable(value)
}

fn check_headers(allowed: &[&str], headers: &[(String, String)]) -> Result<(), StreamHeadError> {
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if headers.len() > HEADERS_MAX || bytes > HEADER_BYTES_MAX {
        return Err(StreamHeadError::Headers);
    }
    match headers.iter().find(|(name, value)| !passes(allowed, name, value)) {
        Some((name, _)) => Err(StreamHeadError::Header(name.chars().take(64).collect())),
        None => Ok(()),
    }
}

impl StreamRequest {
    /// Whether every field is within its bounds.
    ///
    /// # Errors
    /// The first field that is not.
    pub fn check(&self) -> Result<(), StreamHeadError> {
        let letters = self.method.bytes().all(|byte| byte.is_ascii_uppercase());
        if !letters || self.method.is_empty() || self.method.len() > METHOD_MAX {
            return Err(StreamHeadError::Method);
        }
        let graphic = self.target.bytes().all(|byte| byte.is_ascii_graphic());
        if !graphic || !self.target.starts_with('/') || self.target.len() > TARGET_MAX {
            return Err(StreamHeadError::Target);
        }
        if self.user.len() > USER_MAX {
            return Err(StreamHeadError::User);
        }
        check_headers(REQUEST_HEADERS, &self.headers)
    }

    /// Whether it asks for an upgraded connection: its side of the stream then stays open.
    #[must_use]
    pub fn is_upgrade(&self) -> bool {
        header(&self.headers, "upgrade").is_some()
    }
}

impl StreamResponse {
    /// Whether every field is within its bounds.
    ///
    /// # Errors
    /// The first field that is not.
    pub fn check(&self) -> Result<(), StreamHeadError> {
        if self.status != 101 && !(200..600).contains(&self.status) {
            return Err(StreamHeadError::Status(self.status));
        }
        check_headers(RESPONSE_HEADERS, &self.headers)
    }
}
