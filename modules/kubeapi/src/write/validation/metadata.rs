//! Metadata: names, labels, annotations.

use serde_json::{Value, json};

use crate::error::FieldError;
use crate::kind::{NameRule, ServedKind};
use crate::unstructured::text;

/// Everything that is wrong with `object`'s metadata.
pub(super) fn metadata(kind: &ServedKind, object: &Value) -> Vec<FieldError> {
    let mut causes = Vec::new();
    let name = text(object, "/metadata/name");
    if name.is_empty() {
        causes.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else if let Some(what) = bad_name(kind.name_rule, name) {
        causes.push(FieldError::invalid("metadata.name", &json!(name), what));
    }
    for (map, values_too) in [("labels", true), ("annotations", false)] {
        let Some(Value::Object(pairs)) = object.pointer(&format!("/metadata/{map}")) else { continue };
        let mut size = 0;
        for (key, value) in pairs {
            size += key.len() + value.as_str().map_or(0, str::len);
            if let Some(what) = bad_key(key) {
                causes.push(FieldError::invalid(format!("metadata.{map}"), &json!(key), what));
            }
            if values_too && let Some(what) = value.as_str().and_then(bad_label_value) {
                causes.push(FieldError::invalid(format!("metadata.{map}"), value, what));
            }
        }
        if !values_too && size > 256 << 10 {
            let message = "Too long: may not be more than 262144 bytes".to_owned();
            causes.push(FieldError {
                field: "metadata.annotations".into(),
                reason: "FieldValueTooLong",
                message,
            });
        }
    }
    causes
}

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";

fn is_label(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

pub(super) fn bad_name(rule: NameRule, name: &str) -> Option<&'static str> {
    match rule {
        NameRule::Subdomain if name.len() > 253 => Some("must be no more than 253 characters"),
        NameRule::Subdomain => (!name.split('.').all(is_label)).then_some(SUBDOMAIN),
        NameRule::Label | NameRule::Label1035 if name.len() > 63 => {
            Some("must be no more than 63 characters")
        }
        NameRule::Label => (!is_label(name)).then_some(LABEL),
        NameRule::Label1035 => {
            let letter = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
            (!is_label(name) || !letter).then_some(LABEL_1035)
        }
        NameRule::Segment if matches!(name, "." | "..") => Some("may not be '.' or '..'"),
        NameRule::Segment => name.contains(['/', '%']).then_some("may not contain '/' or '%'"),
    }
}

fn is_qualified(part: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = part.as_bytes();
    !part.is_empty()
        && part.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

pub(super) fn bad_key(key: &str) -> Option<&'static str> {
    let good = match key.split_once('/') {
        Some((prefix, name)) => {
            prefix.len() <= 253 && prefix.to_ascii_lowercase().split('.').all(is_label) && is_qualified(name)
        }
        None => is_qualified(key),
    };
    (!good).then_some("name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')")
}

fn bad_label_value(value: &str) -> Option<&'static str> {
    if value.len() > 63 {
        return Some("must be no more than 63 characters");
    }
    (!value.is_empty() && !is_qualified(value)).then_some("a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')")
}
