//! Why an API server refuses: the reasons of a `metav1.Status` and the HTTP codes that go with them.

use serde_json::{Value, json};

/// The machine's word for a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatusReason {
    /// The request cannot be understood.
    BadRequest,
    /// No credentials, or none that are known.
    Unauthorized,
    /// Known, and not allowed.
    Forbidden,
    /// There is no such object or path.
    NotFound,
    /// The path takes no such method.
    MethodNotAllowed,
    /// None of the media types that the client takes can be given.
    NotAcceptable,
    /// The name is taken.
    AlreadyExists,
    /// Somebody else was faster.
    Conflict,
    /// What is watched or continued is too old.
    Expired,
    /// The body is too large.
    RequestEntityTooLarge,
    /// The body is of a type that is not read.
    UnsupportedMediaType,
    /// The object breaks the rules of its kind.
    Invalid,
    /// Ask again later.
    TooManyRequests,
    /// The server is at fault.
    InternalError,
    /// The server cannot serve now.
    ServiceUnavailable,
    /// It took too long.
    Timeout,
    /// There is no room for it.
    InsufficientStorage,
}

impl StatusReason {
    /// The HTTP code.
    pub const fn code(self) -> u16 {
        match self {
            StatusReason::BadRequest => 400,
            StatusReason::Unauthorized => 401,
            StatusReason::Forbidden => 403,
            StatusReason::NotFound => 404,
            StatusReason::MethodNotAllowed => 405,
            StatusReason::NotAcceptable => 406,
            StatusReason::AlreadyExists | StatusReason::Conflict => 409,
            StatusReason::Expired => 410,
            StatusReason::RequestEntityTooLarge => 413,
            StatusReason::UnsupportedMediaType => 415,
            StatusReason::Invalid => 422,
            StatusReason::TooManyRequests => 429,
            StatusReason::InternalError => 500,
            StatusReason::ServiceUnavailable => 503,
            StatusReason::Timeout => 504,
            StatusReason::InsufficientStorage => 507,
        }
    }

    /// The reason that goes with an HTTP code, if there is one.
    pub fn of_code(code: u16) -> Option<StatusReason> {
        const ALL: [StatusReason; 15] = [
            StatusReason::BadRequest,
            StatusReason::Unauthorized,
            StatusReason::Forbidden,
            StatusReason::NotFound,
            StatusReason::MethodNotAllowed,
            StatusReason::NotAcceptable,
            StatusReason::Conflict,
            StatusReason::Expired,
            StatusReason::RequestEntityTooLarge,
            StatusReason::UnsupportedMediaType,
            StatusReason::Invalid,
            StatusReason::TooManyRequests,
            StatusReason::InternalError,
            StatusReason::ServiceUnavailable,
            StatusReason::Timeout,
        ];
        ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// As it stands in `reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            StatusReason::BadRequest => "BadRequest",
            StatusReason::Unauthorized => "Unauthorized",
            StatusReason::Forbidden => "Forbidden",
            StatusReason::NotFound => "NotFound",
            StatusReason::MethodNotAllowed => "MethodNotAllowed",
            StatusReason::NotAcceptable => "NotAcceptable",
            StatusReason::AlreadyExists => "AlreadyExists",
            StatusReason::Conflict => "Conflict",
            StatusReason::Expired => "Expired",
            StatusReason::RequestEntityTooLarge => "RequestEntityTooLarge",
            StatusReason::UnsupportedMediaType => "UnsupportedMediaType",
            StatusReason::Invalid => "Invalid",
            StatusReason::TooManyRequests => "TooManyRequests",
            StatusReason::InternalError => "InternalError",
            StatusReason::ServiceUnavailable => "ServiceUnavailable",
            StatusReason::Timeout => "Timeout",
            StatusReason::InsufficientStorage => "InsufficientStorage",
        }
    }
}

impl std::fmt::Display for StatusReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A `metav1.Status` of a failure, as JSON.
pub fn failure(code: u16, message: &str) -> Value {
    let mut status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "code": code,
    });
    if let Some(reason) = StatusReason::of_code(code) {
        status["reason"] = json!(reason.as_str());
    }
    status
}

/// The body that refuses an upgrade with this text, and its type: the text, as with kubelets, before which client-go puts `unable to upgrade
/// connection: `. client-go reads it as YAML first, in which a sentence with a colon is an object without a message, and `kubectl exec`
/// would say nothing at all: such a one is a Status.
pub fn upgrade_refused(code: u16, text: &str) -> (&'static str, String) {
    let text = text.trim();
    if text.contains(':')
        || text.starts_with(['{', '[', '&', '*', '!', '|', '>', '%', '@', '`', '#', '-', '?'])
    {
        ("application/json", failure(code, text).to_string())
    } else {
        ("text/plain; charset=utf-8", text.to_owned())
    }
}
