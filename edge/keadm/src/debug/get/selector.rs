//! Selectors of labels as kubectl takes them: `a=b,c!=d,e,!f,g in (h,i),j notin (k)`. Pure.

use anyhow::{Result, bail};
use serde_json::Value;

/// 4 KiB of text.
const TEXT_MAX: usize = 4 << 10;

/// All of it has to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Selector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Selector {
    /// # Errors
    /// When it is none.
    pub(super) fn parse(text: &str) -> Result<Selector> {
        if text.len() > TEXT_MAX {
            bail!("the selector is longer than 4 KiB");
        }
        let parts = split(text).into_iter().map(str::trim).filter(|part| !part.is_empty());
        Ok(Selector(parts.map(requirement).collect::<Result<_>>()?))
    }

    /// Whether an object's labels are such.
    pub(super) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|Requirement { key, operator, values }| {
            let label = object["metadata"]["labels"].get(key).and_then(Value::as_str);
            let is_one = label.is_some_and(|label| values.iter().any(|value| value == label));
            match operator {
                Operator::In => is_one,
                // As in Kubernetes: what has no such label is no such value either.
                Operator::NotIn => !is_one,
                Operator::Exists => label.is_some(),
                Operator::DoesNotExist => label.is_none(),
            }
        })
    }
}

/// By the commas that stand in no parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut begin, mut depth) = (Vec::new(), 0, 0_u32);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[begin..]);
    parts
}

fn requirement(part: &str) -> Result<Requirement> {
    let made = |key: &str, operator, values: Vec<String>| {
        let key = key.trim();
        if key.is_empty() || key.contains(|letter: char| letter.is_whitespace() || "()!=,".contains(letter)) {
            bail!(
                "`{}` is no part of a selector: write key=value, key!=value, key, !key, key in (a,b) or key notin (a,b)",
                part.escape_debug()
            );
        }
        Ok(Requirement { key: key.to_owned(), operator, values })
    };
    if let Some((key, value)) = part.split_once("!=") {
        return made(key, Operator::NotIn, vec![value.trim().to_owned()]);
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return made(key, Operator::In, vec![value.trim().to_owned()]);
    }
    if let Some(set) = part.strip_suffix(')')
        && let Some((head, values)) = set.split_once('(')
    {
        let values = values.split(',').map(|value| value.trim().to_owned()).collect();
        let mut words = head.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => made(key, Operator::In, values),
            (Some(key), Some("notin"), None) => made(key, Operator::NotIn, values),
            _ => made("", Operator::In, values),
        };
    }
    match part.strip_prefix('!') {
        Some(key) => made(key, Operator::DoesNotExist, Vec::new()),
        None => made(part, Operator::Exists, Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_are_matched_as_kubectl_matches_them() {
        let object = json!({"metadata": {"labels": {"app": "till", "tier": "shop"}}});
        for (text, holds) in [
            ("", true),
            ("app=till", true),
            ("app==till,tier", true),
            ("app=shop", false),
            ("app!=shop", true),
            ("none!=x", true),
            ("!none", true),
            ("!app", false),
            ("none", false),
            ("app in (shop, till),tier notin (x,y)", true),
            ("app notin (till)", false),
        ] {
            assert_eq!(Selector::parse(text).unwrap().matches(&object), holds, "{text}");
        }
        assert!(!Selector::parse("app").unwrap().matches(&json!({})));
        for wrong in ["=x", "a b", "a of (b)", "(b)", "!", "a in b (c)"] {
            assert!(Selector::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Selector::parse(&"a".repeat(5000)).is_err());
    }
}
