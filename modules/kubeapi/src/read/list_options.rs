//! `ListOptions` that contradict themselves (Kubernetes: `ValidateListOptions`): passed over, they would show something else than what
//! their client believes to see.

use serde_json::Value;

use crate::error::{ApiError, FieldError};
use crate::request::Query;

/// What a list or a watch says of versions.
///
/// # Errors
/// 422, in a server's words.
pub(super) fn check(query: &Query, watches: bool) -> Result<(), ApiError> {
    let said = |key: &str| query.get(key).filter(|text| !text.is_empty());
    let matching = said("resourceVersionMatch");
    let cause = if watches { watch_cause(said, matching) } else { list_cause(said, matching) };
    cause.map_or(Ok(()), |cause| Err(ApiError::invalid_options("ListOptions", &cause)))
}

const EXACT: &str = "Exact";
const NOT_OLDER: &str = "NotOlderThan";

fn forbidden_match(what: &str) -> Option<FieldError> {
    Some(FieldError::forbidden("resourceVersionMatch", what))
}

fn list_cause<'q>(said: impl Fn(&str) -> Option<&'q str>, matching: Option<&str>) -> Option<FieldError> {
    if let Some(matching) = matching {
        if said("resourceVersion").is_none() {
            return forbidden_match("resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if said("continue").is_some() {
            return forbidden_match("resourceVersionMatch is forbidden when continue is provided");
        }
        if ![EXACT, NOT_OLDER].contains(&matching) {
            let allowed = [EXACT, NOT_OLDER, ""];
            return Some(FieldError::unsupported("resourceVersionMatch", &Value::from(matching), &allowed));
        }
        if matching == EXACT && said("resourceVersion") == Some("0") {
            return forbidden_match("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
    }
    said("sendInitialEvents")
        .map(|_| FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
}

fn watch_cause<'q>(said: impl Fn(&str) -> Option<&'q str>, matching: Option<&str>) -> Option<FieldError> {
    let sends_initial = said("sendInitialEvents").is_some();
    match matching {
        None if sends_initial => {
            forbidden_match("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
        }
        None => None,
        Some(_) if !sends_initial => forbidden_match(
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
        Some(NOT_OLDER) if said("continue").is_some() => {
            forbidden_match("resourceVersionMatch is forbidden when continue is provided")
        }
        Some(NOT_OLDER) => None,
        Some(other) => {
            Some(FieldError::unsupported("resourceVersionMatch", &Value::from(other), &[NOT_OLDER]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_contradict_themselves_are_refused() {
        let told = |query: &str, watches: bool| {
            check(&Query::of(query), watches).map_err(|error| (error.code(), error.message))
        };
        for fine in [
            "",
            "resourceVersion=5&resourceVersionMatch=Exact",
            "resourceVersion=0&resourceVersionMatch=NotOlderThan",
            "resourceVersionMatch=",
        ] {
            assert_eq!(told(fine, false), Ok(()), "{fine}");
        }
        for fine in ["", "resourceVersion=5", "sendInitialEvents=true&resourceVersionMatch=NotOlderThan"] {
            assert_eq!(told(fine, true), Ok(()), "{fine}");
        }
        for (query, watches, what) in [
            (
                "resourceVersionMatch=Exact",
                false,
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
            (
                "resourceVersionMatch=Exact&resourceVersion=0",
                false,
                "resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ),
            (
                "resourceVersionMatch=Exact&resourceVersion=5&continue=x",
                false,
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided",
            ),
            (
                "resourceVersionMatch=x&resourceVersion=5",
                false,
                "resourceVersionMatch: Unsupported value: \"x\": supported values: \"Exact\", \"NotOlderThan\", \"\"",
            ),
            (
                "sendInitialEvents=true",
                false,
                "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
            ),
            (
                "sendInitialEvents=true",
                true,
                "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ),
            (
                "resourceVersionMatch=NotOlderThan",
                true,
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ),
            (
                "resourceVersionMatch=Exact&sendInitialEvents=1",
                true,
                "resourceVersionMatch: Unsupported value: \"Exact\": supported values: \"NotOlderThan\"",
            ),
        ] {
            let message = format!("ListOptions.meta.k8s.io \"\" is invalid: {what}");
            assert_eq!(told(query, watches), Err((422, message)), "{query}");
        }
    }
}
