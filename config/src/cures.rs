//! What to write where a key or a value is wrong: one sentence wherever that is found, in a file, behind `--set` or in a job.

use serde_json::Value;

/// 64 letters of a value stand in an example.
const EXAMPLE_MAX: usize = 64;

/// Of a key that nobody knows, among `known` where it stands.
pub(crate) fn of_unknown<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> String {
    unknown(slips::meant(key, known))
}

/// The same where it is known which key is meant.
pub(crate) fn unknown(meant: Option<&str>) -> String {
    let cure = meant.map_or_else(|| "correct its name".to_owned(), |meant| format!("write `{meant}`"));
    format!("is no setting: {cure}, or remove it")
}

/// Where an example stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// In a file.
    Yaml,
    /// Behind `--set`, or in a job.
    Json,
}

/// Which kind of value is wanted where this default stands, and `given` is none; `None`: the default does not say.
pub(crate) fn wanted(default: &Value, given: &str, written: Written) -> Option<String> {
    Some(match default {
        Value::Null | Value::Object(_) => return None,
        Value::Bool(_) => "write true or false".to_owned(),
        Value::Number(number) if number.is_f64() => "write a number".to_owned(),
        Value::Number(_) => "write a whole number".to_owned(),
        Value::String(_) => "write a text".to_owned(),
        Value::Array(_) => {
            let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "._/-".contains(letter);
            let fits = !given.is_empty() && given.len() <= EXAMPLE_MAX && given.chars().all(is_plain);
            match (fits, written) {
                (true, Written::Yaml) => format!("write a list, [{given}]"),
                (true, Written::Json) => format!("write a list, [\"{given}\"]"),
                (false, _) => "write a list, […]".to_owned(),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_kind_of_value_is_told_and_never_the_default() {
        let wanted = |default: Value, given: &str| wanted(&default, given, Written::Yaml);
        assert_eq!(wanted(json!([]), "10.96.0.10").as_deref(), Some("write a list, [10.96.0.10]"));
        assert_eq!(wanted(json!([1]), "a: b]").as_deref(), Some("write a list, […]"));
        assert_eq!(wanted(json!(0), "lots").as_deref(), Some("write a whole number"));
        assert_eq!(wanted(json!(0.5), "lots").as_deref(), Some("write a number"));
        assert_eq!(wanted(json!(true), "yes").as_deref(), Some("write true or false"));
        assert_eq!((wanted(json!({}), "x"), wanted(json!(null), "x")), (None, None));
    }
}
