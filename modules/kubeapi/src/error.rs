//! Errors: `metav1.Status` with the codes, reasons and words of a Kubernetes API server.

use apimachinery::{Kind, StatusReason};
use serde_json::{Value, json};

/// 16,384 letters: how long a message may be. What a client wrote is in some of them, and it may write megabytes.
const MESSAGE_MAX: usize = 16_384;
/// 256 letters of a value, and of the path of its field, are repeated in a refusal.
const SHOWN_MAX: usize = 256;
/// 256 wrong fields are listed.
const CAUSES_MAX: usize = 256;

/// The beginning of what a client wrote: the message goes back to it and into logs.
pub(crate) fn beginning(text: &str, letters: usize) -> String {
    match text.char_indices().nth(letters).and_then(|(end, _)| text.get(..end)) {
        Some(beginning) => format!("{beginning}..."),
        None => text.to_owned(),
    }
}

fn shown(value: &Value) -> String {
    beginning(&value.to_string(), SHOWN_MAX)
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// The machine's word for it, which has an HTTP code.
    pub reason: StatusReason,
    /// For a person.
    pub message: String,
    /// `details` of the Status.
    pub details: Option<Value>,
}

/// One wrong field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Its path, as `spec.containers[0].name`.
    pub field: String,
    /// `FieldValueRequired`, `FieldValueInvalid` and so on.
    pub reason: &'static str,
    /// `Required value: …`.
    pub message: String,
}

impl FieldError {
    /// A field that has to be there.
    pub fn required(field: impl Into<String>, what: &str) -> Self {
        let message =
            if what.is_empty() { "Required value".to_owned() } else { format!("Required value: {what}") };
        FieldError { field: field.into(), reason: "FieldValueRequired", message }
    }

    /// A field with a value that cannot be.
    pub fn invalid(field: impl Into<String>, value: &Value, what: &str) -> Self {
        FieldError {
            field: field.into(),
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {}: {what}", shown(value)),
        }
    }

    /// A value that is there twice.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        FieldError {
            field: field.into(),
            reason: "FieldValueDuplicate",
            message: format!("Duplicate value: {}", shown(value)),
        }
    }

    /// A list of so many items, of which fewer are allowed.
    pub fn too_many(field: impl Into<String>, found: usize, most: usize) -> Self {
        let message = format!("Too many: {found}: must have at most {most} items");
        FieldError { field: field.into(), reason: "FieldValueTooMany", message }
    }

    /// A value that is none of those allowed.
    pub fn unsupported(field: impl Into<String>, value: &Value, allowed: &[&str]) -> Self {
        let allowed: Vec<String> = allowed.iter().map(|a| format!("\"{a}\"")).collect();
        let message =
            format!("Unsupported value: {}: supported values: {}", shown(value), allowed.join(", "));
        FieldError { field: field.into(), reason: "FieldValueNotSupported", message }
    }

    /// A field that may not be changed or set.
    pub fn forbidden(field: impl Into<String>, what: &str) -> Self {
        FieldError {
            field: field.into(),
            reason: "FieldValueForbidden",
            message: format!("Forbidden: {what}"),
        }
    }
}

/// `details` of a Status about an object.
fn details(kind: &Kind, name: &str) -> Value {
    let mut details = json!({ "name": name, "kind": kind.plural });
    if !kind.group.is_empty() {
        details["group"] = json!(kind.group);
    }
    details
}

impl ApiError {
    fn new(reason: StatusReason, message: impl Into<String>) -> Self {
        let message: String = message.into();
        // Bytes are never fewer than letters.
        let message = if message.len() > MESSAGE_MAX { beginning(&message, MESSAGE_MAX) } else { message };
        ApiError { reason, message, details: None }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        ApiError::new(StatusReason::BadRequest, message)
    }

    /// No credentials, or none that are known.
    pub fn unauthorized() -> Self {
        ApiError::new(StatusReason::Unauthorized, "Unauthorized")
    }

    /// Known, and not allowed.
    pub fn forbidden(message: impl Into<String>) -> Self {
        ApiError::new(StatusReason::Forbidden, message)
    }

    /// Nothing is served at this path.
    pub fn no_such_path() -> Self {
        // kubectl reads of the details without asking whether there are any.
        let what = "the server could not find the requested resource";
        ApiError { details: Some(json!({})), ..ApiError::new(StatusReason::NotFound, what) }
    }

    /// 404: no object of this name.
    pub fn not_found(kind: &Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", kind.group_resource());
        ApiError { details: Some(details(kind, name)), ..ApiError::new(StatusReason::NotFound, message) }
    }

    /// 409: the name is taken.
    pub fn already_exists(kind: &Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", kind.group_resource());
        ApiError { details: Some(details(kind, name)), ..ApiError::new(StatusReason::AlreadyExists, message) }
    }

    /// 409: the object was changed meanwhile.
    pub fn modified(kind: &Kind, name: &str) -> Self {
        ApiError::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 409: the object is not in a state for that.
    pub fn conflict(kind: &Kind, name: &str, what: &str) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} \"{name}\": {what}", kind.group_resource());
        ApiError { details: Some(details(kind, name)), ..ApiError::new(StatusReason::Conflict, message) }
    }

    /// 403: admission forbids it.
    pub fn forbidden_by_admission(kind: &Kind, name: &str, what: &str) -> Self {
        let message = format!("{} \"{name}\" is forbidden: {what}", kind.group_resource());
        ApiError { details: Some(details(kind, name)), ..ApiError::forbidden(message) }
    }

    /// 422, with the fields that are wrong.
    pub fn invalid(kind: &Kind, name: &str, causes: &[FieldError]) -> Self {
        let field = |cause: &FieldError| beginning(&cause.field, SHOWN_MAX);
        let causes = causes.get(..CAUSES_MAX).unwrap_or(causes);
        let messages: Vec<String> = causes.iter().map(|c| format!("{}: {}", field(c), c.message)).collect();
        let messages =
            if messages.len() == 1 { messages.concat() } else { format!("[{}]", messages.join(", ")) };
        let group_kind = if kind.group.is_empty() {
            kind.kind.to_string()
        } else {
            format!("{}.{}", kind.kind, kind.group)
        };
        let mut details = details(kind, name);
        details["kind"] = json!(kind.kind);
        details["causes"] = causes
            .iter()
            .map(|c| json!({ "reason": c.reason, "message": c.message, "field": field(c) }))
            .collect();
        ApiError {
            details: Some(details),
            ..ApiError::new(StatusReason::Invalid, format!("{group_kind} \"{name}\" is invalid: {messages}"))
        }
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        ApiError::new(
            StatusReason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        )
    }

    /// 406.
    pub fn not_acceptable() -> Self {
        let message = "only the following media types are accepted: application/json";
        ApiError::new(StatusReason::NotAcceptable, message)
    }

    /// 410: the history does not reach back so far.
    pub fn expired(oldest: u64) -> Self {
        ApiError::new(StatusReason::Expired, format!("too old resource version: the oldest one is {oldest}"))
    }

    /// 504: nothing has this version yet.
    pub(crate) fn not_there_yet(wanted: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {wanted}, current: {current}");
        let cause = json!({ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" });
        let details = Some(json!({ "retryAfterSeconds": 1, "causes": [cause] }));
        ApiError { details, ..ApiError::new(StatusReason::Timeout, message) }
    }

    /// 413.
    pub fn too_large(what: &str) -> Self {
        ApiError::new(StatusReason::RequestEntityTooLarge, format!("Request entity too large: {what}"))
    }

    /// 415.
    pub fn unsupported_media_type(what: &str) -> Self {
        let message = format!("the body of the request was in an unknown format - {what}");
        ApiError::new(StatusReason::UnsupportedMediaType, message)
    }

    /// 507: there is no room for it, whoever asks again.
    pub fn insufficient_storage(kind: &Kind, name: &str, what: &str) -> Self {
        let message = format!("{} \"{name}\" cannot be stored: {what}", kind.group_resource());
        let error = ApiError::new(StatusReason::InsufficientStorage, message);
        ApiError { details: Some(details(kind, name)), ..error }
    }

    /// 422 for an option of a request (`CreateOptions` and the like) that is none.
    pub(crate) fn invalid_options(options: &str, cause: &FieldError) -> Self {
        let message = format!("{options}.meta.k8s.io \"\" is invalid: {}: {}", cause.field, cause.message);
        ApiError::new(StatusReason::Invalid, message)
    }

    /// 422 for a request that is no single field's fault.
    pub fn unprocessable(what: &str) -> Self {
        let message = format!("the server rejected our request due to an error in our request: {what}");
        ApiError::new(StatusReason::Invalid, message)
    }

    /// 429: it works again when something else has ended.
    pub fn too_many_requests(what: &str, retry_after_seconds: u32) -> Self {
        let details = Some(json!({ "retryAfterSeconds": retry_after_seconds }));
        ApiError { details, ..ApiError::new(StatusReason::TooManyRequests, what) }
    }

    /// 500.
    pub fn internal(what: &dyn std::fmt::Display) -> Self {
        ApiError::new(StatusReason::InternalError, format!("Internal error occurred: {what}"))
    }

    /// The HTTP code.
    pub fn code(&self) -> u16 {
        self.reason.code()
    }

    /// The `metav1.Status`.
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason.as_str(), "code": self.code(),
        });
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status
    }
}

impl From<crate::store::StoreError> for ApiError {
    fn from(error: crate::store::StoreError) -> Self {
        ApiError::internal(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_wrote_is_repeated_within_bounds() {
        let long = "\u{1f600}".repeat(1 << 20);
        let value = json!(long);
        let field = format!("spec.{long}");
        let causes = [
            FieldError::invalid(&field, &value, "no"),
            FieldError::duplicate(&field, &value),
            FieldError::unsupported(&field, &value, &["a"]),
        ];
        let many = vec![FieldError::invalid("spec", &json!("x".repeat(300)), "no"); 10_000];
        for refusal in [
            ApiError::bad_request(&long),
            ApiError::unprocessable(&long),
            ApiError::unsupported_media_type(&long),
            ApiError::invalid(&apimachinery::kind::PODS, "a", &causes),
            ApiError::invalid(&apimachinery::kind::PODS, "a", &many),
        ] {
            let bytes = refusal.to_status().to_string().len();
            assert!(bytes < 1 << 20, "{bytes} bytes");
            assert!(refusal.message.chars().count() <= MESSAGE_MAX + 3);
        }
        assert_eq!(beginning("abc", 3), "abc");
        assert_eq!(beginning("abcd", 3), "abc...");
    }
}
