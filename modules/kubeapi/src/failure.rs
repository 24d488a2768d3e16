//! Refusals: `metav1.Status` with the codes, reasons and words of a Kubernetes API server.

use serde_json::{Value, json};

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// The HTTP code.
    pub code: u16,
    /// The machine's word for it, for example `NotFound`.
    pub reason: &'static str,
    /// For a person.
    pub message: String,
    /// `details` of the Status.
    pub details: Option<Value>,
}

/// One wrong field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Its path, as `spec.containers[0].name`.
    pub field: String,
    /// `FieldValueRequired`, `FieldValueInvalid` and so on.
    pub reason: &'static str,
    /// `Required value: …`.
    pub message: String,
}

impl Cause {
    /// A field that has to be there.
    pub fn required(field: impl Into<String>, what: &str) -> Self {
        let message =
            if what.is_empty() { "Required value".to_owned() } else { format!("Required value: {what}") };
        Cause { field: field.into(), reason: "FieldValueRequired", message }
    }

    /// A field with a value that cannot be.
    pub fn invalid(field: impl Into<String>, value: &Value, what: &str) -> Self {
        let shown: String = value.to_string().chars().take(256).collect();
        Cause {
            field: field.into(),
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {shown}: {what}"),
        }
    }

    /// A value that is there twice.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Cause {
            field: field.into(),
            reason: "FieldValueDuplicate",
            message: format!("Duplicate value: {value}"),
        }
    }

    /// A value that is none of those allowed.
    pub fn unsupported(field: impl Into<String>, value: &Value, allowed: &[&str]) -> Self {
        let allowed: Vec<String> = allowed.iter().map(|a| format!("\"{a}\"")).collect();
        let message = format!("Unsupported value: {value}: supported values: {}", allowed.join(", "));
        Cause { field: field.into(), reason: "FieldValueNotSupported", message }
    }

    /// A field that may not be changed or set.
    pub fn forbidden(field: impl Into<String>, what: &str) -> Self {
        Cause { field: field.into(), reason: "FieldValueForbidden", message: format!("Forbidden: {what}") }
    }
}

/// What an object is called in messages: `deployments.apps`, and its parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names<'a> {
    pub(crate) group: &'a str,
    pub(crate) plural: &'a str,
    pub(crate) kind: &'a str,
}

impl Names<'_> {
    pub(crate) fn group_resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    fn details(&self, name: &str) -> Value {
        let mut details = json!({ "name": name, "kind": self.plural });
        if !self.group.is_empty() {
            details["group"] = json!(self.group);
        }
        details
    }
}

impl Failure {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Failure { code, reason, message: message.into(), details: None }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Failure::new(400, "BadRequest", message)
    }

    /// No credentials, or none that are known.
    pub fn unauthorized() -> Self {
        Failure::new(401, "Unauthorized", "Unauthorized")
    }

    /// Known, and not allowed.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Failure::new(403, "Forbidden", message)
    }

    /// Nothing is served at this path.
    pub(crate) fn no_such_path() -> Self {
        Failure::new(404, "NotFound", "the server could not find the requested resource")
    }

    pub(crate) fn not_found(names: &Names<'_>, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", names.group_resource());
        Failure { details: Some(names.details(name)), ..Failure::new(404, "NotFound", message) }
    }

    pub(crate) fn exists(names: &Names<'_>, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", names.group_resource());
        Failure { details: Some(names.details(name)), ..Failure::new(409, "AlreadyExists", message) }
    }

    pub(crate) fn stale(names: &Names<'_>, name: &str) -> Self {
        Failure::conflict(
            names,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub(crate) fn conflict(names: &Names<'_>, name: &str, what: &str) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} \"{name}\": {what}", names.group_resource());
        Failure { details: Some(names.details(name)), ..Failure::new(409, "Conflict", message) }
    }

    pub(crate) fn refused(names: &Names<'_>, name: &str, what: &str) -> Self {
        let message = format!("{} \"{name}\" is forbidden: {what}", names.group_resource());
        Failure { details: Some(names.details(name)), ..Failure::forbidden(message) }
    }

    pub(crate) fn invalid(names: &Names<'_>, name: &str, causes: &[Cause]) -> Self {
        let told: Vec<String> = causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        let told = if told.len() == 1 { told.concat() } else { format!("[{}]", told.join(", ")) };
        let kind = if names.group.is_empty() {
            names.kind.to_owned()
        } else {
            format!("{}.{}", names.kind, names.group)
        };
        let mut details = names.details(name);
        details["kind"] = json!(names.kind);
        details["causes"] = causes
            .iter()
            .map(|c| json!({ "reason": c.reason, "message": c.message, "field": c.field }))
            .collect();
        Failure {
            details: Some(details),
            ..Failure::new(422, "Invalid", format!("{kind} \"{name}\" is invalid: {told}"))
        }
    }

    pub(crate) fn method() -> Self {
        Failure::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    pub(crate) fn gone(oldest: u64) -> Self {
        Failure::new(410, "Expired", format!("too old resource version: the oldest one is {oldest}"))
    }

    pub(crate) fn too_large(what: &str) -> Self {
        Failure::new(413, "RequestEntityTooLarge", format!("Request entity too large: {what}"))
    }

    pub(crate) fn media_type(what: &str) -> Self {
        let message = format!("the body of the request was in an unknown format - {what}");
        Failure::new(415, "UnsupportedMediaType", message)
    }

    /// 507: there is no room for it, whoever asks again.
    pub(crate) fn full(names: &Names<'_>, name: &str, what: &str) -> Self {
        let message = format!("{} \"{name}\" cannot be stored: {what}", names.group_resource());
        let failure = Failure::new(507, "InsufficientStorage", message);
        Failure { details: Some(names.details(name)), ..failure }
    }

    pub(crate) fn internal(what: &dyn std::fmt::Display) -> Self {
        Failure::new(500, "InternalError", format!("Internal error occurred: {what}"))
    }

    /// The `metav1.Status`.
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status
    }
}

impl From<crate::store::StoreError> for Failure {
    fn from(error: crate::store::StoreError) -> Self {
        Failure::internal(&error)
    }
}
