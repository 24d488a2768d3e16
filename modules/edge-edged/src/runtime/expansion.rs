//! `$(NAME)` in commands, arguments, variables and sub-paths. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// Replaces `$(NAME)` by what is known; `$$` is a dollar; what is unknown stays as it is.
pub(crate) fn expand(text: &str, known: &BTreeMap<String, String>) -> String {
    replace(text, |name| known.get(name).cloned())
}

/// The names in `$(NAME)` that are not known.
pub(crate) fn unknown_names<'a>(text: &'a str, known: &BTreeMap<String, String>) -> BTreeSet<&'a str> {
    let mut unknown = BTreeSet::new();
    replace(text, |name| {
        let value = known.get(name).cloned();
        if value.is_none() {
            unknown.insert(name);
        }
        value
    });
    unknown
}

fn replace<'a>(text: &'a str, mut value: impl FnMut(&'a str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match value(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expansion_follows_the_rules_of_kubernetes() {
        let known = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        for (text, want) in [
            ("$(A)", "1"),
            ("$$(A)", "$(A)"),
            ("$(B)", "$(B)"),
            ("a$", "a$"),
            ("$(A", "$(A"),
            ("x$(A)y$(A)", "x1y1"),
        ] {
            assert_eq!(expand(text, &known), want, "{text}");
        }
        assert_eq!(unknown_names("$(A)$(C)$$(D)$(B)$(C)", &known), BTreeSet::from(["B", "C"]));
    }
}
