//! The part of JSONPath that printer columns use.

use std::io::{self, Write};

use serde_json::Value;

/// 128 Ki values and letters of paths that are looked at for one row.
const LOOKS: usize = 128 << 10;
/// 256 KiB of all cells of one row: nobody reads more in a line.
const BYTES: usize = 256 << 10;

/// What one row may still take. Who makes a definition chooses how many columns there are and what their paths are, and objects are
/// large: without a bound one row of a table would be minutes of work and gigabytes of text.
#[derive(Debug)]
pub(super) struct Effort {
    looks: usize,
    bytes: usize,
}

impl Default for Effort {
    fn default() -> Self {
        Effort { looks: LOOKS, bytes: BYTES }
    }
}

impl Effort {
    fn look(&mut self, at: usize) -> Option<()> {
        self.looks = self.looks.checked_sub(at)?;
        Some(())
    }

    /// Whether there is room for the value as text. Nothing is made of it to find that out.
    fn fits(&mut self, value: &Value) -> bool {
        struct Room(usize);
        impl Write for Room {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::WriteZero)?;
                Ok(bytes.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut room = Room(self.bytes);
        let fits = serde_json::to_writer(&mut room, value).is_ok();
        if fits {
            self.bytes = room.0;
        }
        fits
    }
}

/// The part of JSONPath that printer columns use: `.a.b`, `['a']`, `[0]`, `[*]`, `[?(@.k=="v")]`. What takes more than `effort` counts
/// as not found.
pub(super) fn json_path(object: &Value, path: &str, effort: &mut Effort) -> Option<Value> {
    effort.look(path.len())?;
    let mut found = vec![object];
    for step in steps(path)? {
        for value in &found {
            effort.look(1 + step.looks(value))?;
        }
        found = found.into_iter().flat_map(|value| step.of(value)).collect();
    }
    // Of many the first is printed and no other (apiextensions' table convertor).
    let found = found.first().filter(|value| effort.fits(value))?;
    Some((*found).clone())
}

/// Whether it is such a path.
#[cfg(feature = "write")]
pub(crate) fn is_path(path: &str) -> bool {
    path.starts_with('.') && steps(path).is_some()
}

enum Step {
    Field(String),
    Index(i64),
    All,
    Equal(Vec<String>, String),
}

impl Step {
    /// How much of a value is looked at.
    fn looks(&self, value: &Value) -> usize {
        let within = match value {
            Value::Array(items) => items.len(),
            Value::Object(fields) => fields.len(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
        };
        match self {
            Step::Field(_) | Step::Index(_) => 0,
            Step::All => within,
            Step::Equal(path, _) => within.saturating_mul(1 + path.len()),
        }
    }

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
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_follow_their_path() {
        let object = json!({"status": {"twins": [{"name": "t", "v": {"x": 1}}, {"name": "u", "v": {"x": 2}}], "a.b": 3}});
        let of = |path: &str| json_path(&object, path, &mut Effort::default());
        assert_eq!(of(".status.twins[0].name"), Some(json!("t")));
        assert_eq!(of("$.status.twins[-1].v.x"), Some(json!(2)));
        assert_eq!(of(".status.twins[*].name"), Some(json!("t")));
        assert_eq!(of(".status.twins[?(@.name==\"u\")].v.x"), Some(json!(2)));
        for escaped in [".status['a.b']", ".status['a\\.b']", ".status.a\\.b"] {
            assert_eq!(of(escaped), Some(json!(3)), "{escaped}");
        }
        assert_eq!(of(".status.none"), None);
    }

    #[test]
    fn a_row_takes_so_much_work_and_text_and_no_more() {
        let items: Vec<Value> = (0..10_000).map(|n| json!({"n": n, "t": "x".repeat(90)})).collect();
        let object = json!({"spec": {"items": items, "size": 3}});
        // Fifteen hundred columns over an object of a megabyte, in the three ways that cost most.
        for path in [".spec", ".spec.items[*].t", ".spec.items[?(@.n==\"x\")].t"] {
            let mut effort = Effort::default();
            let cells: Vec<Option<Value>> =
                (0..1500).map(|_| json_path(&object, path, &mut effort)).collect();
            let text: usize = cells.iter().flatten().map(|cell| cell.to_string().len()).sum();
            assert!(text <= 2 * BYTES, "{path}: {text} bytes");
            assert!(effort.looks < LOOKS, "{path}");
        }
        // What is honest stands beside it.
        let mut effort = Effort::default();
        assert!((0..1500).all(|_| json_path(&object, ".spec.size", &mut effort) == Some(json!(3))));
        assert_eq!(json_path(&object, ".spec", &mut effort), None, "a megabyte is no cell");
        assert_eq!(json_path(&object, &".a".repeat(LOOKS), &mut effort), None);
    }
}
