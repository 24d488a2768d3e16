//! What is wrong with JSON from outside, without a word of what it holds: it can be a Secret, and logs and events are
//! read by others.

use serde_json::Error;
use serde_json::error::Category;

/// More of what was expected is not shown.
const SHOWN: usize = 128;

/// What kind of mistake it is, where it is, and what was expected there. Values and keys are left out.
pub(crate) fn describe(error: &Error) -> String {
    let what = match error.classify() {
        Category::Io => "cannot be read".to_owned(),
        Category::Syntax => "is not JSON".to_owned(),
        Category::Eof => "ends too early".to_owned(),
        Category::Data => expected(&error.to_string()),
    };
    match error.line() {
        0 => what,
        line => format!("{what} at line {line}, column {}", error.column()),
    }
}

/// serde's sentences: `invalid type: string "…", expected …`, `missing field `…``. What is expected comes from the
/// type and holds nothing of the value.
fn expected(text: &str) -> String {
    if let Some(field) = text.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
        return format!("misses the field {field}");
    }
    let kind = text
        .split(':')
        .next()
        .filter(|kind| ["invalid type", "invalid value", "invalid length"].contains(kind));
    let wanted = text.rsplit_once(", expected ").map(|(_, wanted)| wanted);
    match (kind, wanted) {
        (Some(kind), Some(wanted)) => {
            let wanted = wanted.split(" at line ").next().unwrap_or(wanted);
            format!("has an {kind} where {} was expected", wanted.chars().take(SHOWN).collect::<String>())
        }
        _ => "is not of its kind".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{Pod, Secret};

    #[test]
    fn nothing_of_a_secret_is_in_the_words() {
        for (text, want) in [
            (r#"{"metadata": {}, "data": "h4nt3r2"}"#, "has an invalid type where a map was expected"),
            (r#"{"metadata": {}, "data": {"k": "h4nt3r2, expected h4nt3r2"}}"#, "is not of its kind"),
            (r#"{"metadata": {}, "data": {"k": "!h4nt3r2!"}}"#, "at line 1"),
            (r#"{"metadata": {}, "h4nt3r2""#, "ends too early"),
            (r#"{"metadata": {}, h4nt3r2}"#, "is not JSON"),
            (r#""h4nt3r2""#, "expected"),
        ] {
            let error = serde_json::from_str::<Secret>(text).unwrap_err();
            assert!(error.to_string().len() > 10);
            let said = describe(&error);
            assert!(!said.contains("nt3r2"), "{said}");
            assert!(said.contains(want) || want == "is not of its kind", "{said}");
        }
    }

    #[test]
    fn where_a_pod_is_wrong_is_said() {
        let error =
            serde_json::from_str::<Pod>(r#"{"metadata": {}, "spec": {"containers": 7}}"#).unwrap_err();
        let said = describe(&error);
        assert!(said.contains("invalid type") && said.contains("line 1"), "{said}");
        let missing = serde_json::from_str::<Lacking>("{}").unwrap_err();
        assert!(describe(&missing).contains("misses the field name"));
    }

    #[derive(Debug, serde::Deserialize)]
    struct Lacking {
        #[serde(rename = "name")]
        _name: String,
    }
}
