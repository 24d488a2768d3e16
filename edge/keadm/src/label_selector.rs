//! Label selectors as `kubectl -l` takes them. Pure.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use serde_json::Value;

/// 4 KiB of text.
const TEXT_MAX: usize = 4 << 10;

/// What is asked of one label.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Exists(String),
    Missing(String),
}

/// All of it has to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selector(Vec<Requirement>);

/// Reads `--selector`.
///
/// # Errors
/// When it is none.
pub(crate) fn parse(text: &str) -> Result<Selector> {
    if text.len() > TEXT_MAX {
        bail!("the label selector is longer than 4 KiB");
    }
    let parts = split(text).into_iter().filter(|part| !part.is_empty());
    parts.map(requirement).collect::<Result<_>>().map(Selector)
}

impl Selector {
    /// Whether an object has such labels.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        let label = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
        self.0.iter().all(|own| match own {
            Requirement::In(key, values) => label(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn(key, values) => !label(key).is_some_and(|value| values.contains(value)),
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Missing(key) => label(key).is_none(),
        })
    }
}

/// By the commas that are in no parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut begin, mut depth) = (Vec::new(), 0, 0_usize);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(text.get(begin..at).unwrap_or_default().trim());
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text.get(begin..).unwrap_or_default().trim());
    parts
}

fn requirement(text: &str) -> Result<Requirement> {
    let one = |value: &str| BTreeSet::from([value.trim().to_owned()]);
    for (mark, is_in) in [("!=", false), ("==", true), ("=", true)] {
        if let Some((key, value)) = text.split_once(mark) {
            let key = label_key(key, text)?;
            return Ok(if is_in {
                Requirement::In(key, one(value))
            } else {
                Requirement::NotIn(key, one(value))
            });
        }
    }
    if let Some((head, values)) = text.split_once('(') {
        let Some(values) = values.strip_suffix(')') else { return no_selector(text) };
        let values: BTreeSet<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
        let words: Vec<&str> = head.split_whitespace().collect();
        return match words.as_slice() {
            [key, "in"] => Ok(Requirement::In(label_key(key, text)?, values)),
            [key, "notin"] => Ok(Requirement::NotIn(label_key(key, text)?, values)),
            _ => no_selector(text),
        };
    }
    match text.strip_prefix('!') {
        Some(key) => Ok(Requirement::Missing(label_key(key, text)?)),
        None => Ok(Requirement::Exists(label_key(text, text)?)),
    }
}

fn label_key(key: &str, text: &str) -> Result<String> {
    let key = key.trim();
    let fits = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.' | '/');
    if key.is_empty() || !key.chars().all(fits) {
        return no_selector(text);
    }
    Ok(key.to_owned())
}

fn no_selector<T>(text: &str) -> Result<T> {
    bail!(
        "`{}` is no label selector: KEY=VALUE, KEY!=VALUE, KEY in (A,B), KEY notin (A,B), KEY or !KEY, with commas between",
        text.escape_debug()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_are_chosen_as_kubectl_does() {
        let object = json!({"metadata": {"labels": {"app": "till", "tier": "front"}}});
        for (selector, holds) in [
            ("", true),
            ("app=till", true),
            ("app==till,tier=front", true),
            ("app=pump", false),
            ("app!=pump", true),
            ("app!=till", false),
            ("zone!=x", true),
            ("app in (pump, till),tier", true),
            ("app notin (pump,till)", false),
            ("zone notin (a)", true),
            ("!zone", true),
            ("!app", false),
            ("zone", false),
        ] {
            assert_eq!(parse(selector).unwrap().matches(&object), holds, "{selector}");
        }
        assert!(!parse("app").unwrap().matches(&json!({})));
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for wrong in ["=x", "app in (x", "app of (x)", "a b", "!", "app;x"] {
            assert!(parse(wrong).unwrap_err().to_string().contains("is no label selector"), "{wrong}");
        }
        assert!(parse(&"a".repeat(5000)).is_err());
    }
}
