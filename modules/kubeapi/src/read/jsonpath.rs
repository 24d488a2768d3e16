//! The part of JSONPath that printer columns use.

use serde_json::{Value, json};

/// The part of JSONPath that printer columns use: `.a.b`, `['a']`, `[0]`, `[*]`, `[?(@.k=="v")]`.
pub(super) fn json_path(object: &Value, path: &str) -> Option<Value> {
    let mut found = vec![object];
    for step in steps(path)? {
        found = found.into_iter().flat_map(|value| step.of(value)).collect();
    }
    match found.as_slice() {
        [] => None,
        [one] => Some((*one).clone()),
        // kubectl prints many as a list of words.
        many => {
            let words = many.iter().map(|value| match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            });
            Some(json!(words.collect::<Vec<_>>().join(",")))
        }
    }
}

enum Step {
    Field(String),
    Index(i64),
    All,
    Equal(Vec<String>, String),
}

impl Step {
    fn of<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Step::Field(name) => value.get(name).into_iter().collect(),
            Step::Index(at) => {
                let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
                let at = if *at < 0 { items.len() as i64 + at } else { *at };
                usize::try_from(at).ok().and_then(|at| items.get(at)).into_iter().collect()
            }
            Step::All => match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(fields) => fields.values().collect(),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
            },
            Step::Equal(path, wanted) => {
                let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
                let matches = |item: &&Value| {
                    let found = path.iter().try_fold(*item, |value, name| value.get(name));
                    found.is_some_and(|found| found.as_str() == Some(wanted))
                };
                items.iter().filter(matches).collect()
            }
        }
    }
}

fn steps(path: &str) -> Option<Vec<Step>> {
    let path = path.trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let (inside, after) = after.split_once(']')?;
            steps.push(bracket(inside)?);
            rest = after;
        } else {
            let after = rest.strip_prefix('.').unwrap_or(rest);
            let (name, after) = after.split_at(end_of_name(after));
            match name {
                "" => {}
                "*" => steps.push(Step::All),
                name => steps.push(Step::Field(unescaped(name))),
            }
            if name.is_empty() && after.is_empty() {
                break;
            }
            rest = after;
        }
    }
    Some(steps)
}

/// A name ends at a dot or a bracket that no backslash stands before: `kubehive\.io/revoked` is one name.
fn end_of_name(text: &str) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '.' | '[' => return at,
            _ => {}
        }
    }
    text.len()
}

fn unescaped(name: &str) -> String {
    name.replace("\\.", ".").replace("\\[", "[").replace("\\\\", "\\")
}

fn bracket(inside: &str) -> Option<Step> {
    if inside == "*" {
        return Some(Step::All);
    }
    if let Some(quoted) = inside.strip_prefix(['\'', '"']) {
        return Some(Step::Field(unescaped(quoted.trim_end_matches(['\'', '"']))));
    }
    if let Some(filter) = inside.strip_prefix("?(@").and_then(|filter| filter.strip_suffix(')')) {
        let (path, wanted) = filter.split_once("==")?;
        let path = path.split('.').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned);
        let wanted = wanted.trim().trim_matches(['\'', '"']).to_owned();
        return Some(Step::Equal(path.collect(), wanted));
    }
    inside.parse().ok().map(Step::Index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_follow_their_path() {
        let object = json!({"status": {"twins": [{"name": "t", "v": {"x": 1}}, {"name": "u", "v": {"x": 2}}], "a.b": 3}});
        let of = |path: &str| json_path(&object, path);
        assert_eq!(of(".status.twins[0].name"), Some(json!("t")));
        assert_eq!(of("$.status.twins[-1].v.x"), Some(json!(2)));
        assert_eq!(of(".status.twins[*].name"), Some(json!("t,u")));
        assert_eq!(of(".status.twins[?(@.name==\"u\")].v.x"), Some(json!(2)));
        for escaped in [".status['a.b']", ".status['a\\.b']", ".status.a\\.b"] {
            assert_eq!(of(escaped), Some(json!(3)), "{escaped}");
        }
        assert_eq!(of(".status.none"), None);
    }
}
