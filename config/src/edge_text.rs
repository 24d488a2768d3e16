//! Other values in the text of `edgecore.yaml`, line by line, so that what a person has written beside them stays: comments, order, blank
//! lines. It knows mappings that stand in lines of their own, and no other YAML: whoever calls reads the text again, and takes it only if
//! it says what it has to.

use serde_json::Value;

use crate::values::Edit;

/// The text with these values; `None`: it is written in a way that is not known here.
pub(crate) fn edited(text: &str, edits: &[Edit]) -> Option<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for Edit { path, value } in edits {
        // JSON is YAML, in one line.
        write(&mut lines, path, &value.to_string())?;
    }
    let mut text = lines.join("\n");
    text.push('\n');
    Some(text)
}

fn write(lines: &mut Vec<String>, path: &[String], value: &str) -> Option<()> {
    let (mut begin, mut end, mut above) = (0, lines.len(), None);
    for (depth, part) in path.iter().enumerate() {
        let first = lines.get(begin..end)?.iter().find(|line| is_content(line)).map(|line| indent_of(line));
        let indent = first.filter(|indent| above.is_none_or(|above| *indent > above));
        let found = indent.and_then(|indent| find(lines, begin..end, indent, part));
        let Some((at, next)) = found else {
            let indent = indent.unwrap_or_else(|| above.map_or(0, |above| above + 2));
            insert(lines, end_of(lines, begin, end), indent, path.get(depth..)?, value);
            return Some(());
        };
        let line = lines.get_mut(at)?;
        let (_, after) = key_of(line)?;
        let (stands, comment) = parted(line.get(after..)?);
        let key = line.get(..after)?;
        if depth + 1 == path.len() {
            *line = format!("{key} {value}{comment}");
            let last = end_of(lines, at + 1, next);
            lines.drain(at + 1..last);
            return Some(());
        }
        match stands {
            "" => {}
            "{}" | "~" | "null" => *line = format!("{key}{comment}"),
            _ => return None,
        }
        (begin, end, above) = (at + 1, next, indent);
    }
    None
}

/// The line of a key of a section, and where what belongs to it ends.
fn find(
    lines: &[String],
    within: std::ops::Range<usize>,
    indent: usize,
    key: &str,
) -> Option<(usize, usize)> {
    let end = within.end;
    let at = within.clone().find(|at| {
        let line = lines.get(*at).filter(|line| is_content(line) && indent_of(line) == indent);
        line.and_then(|line| key_of(line)).is_some_and(|(found, _)| found == key)
    })?;
    let next = (at + 1..end).find(|at| {
        // The items of a list may stand as far left as its key.
        let is_item = |line: &str| line.trim_start() == "-" || line.trim_start().starts_with("- ");
        lines.get(*at).is_some_and(|line| {
            is_content(line) && (indent_of(line) < indent || (indent_of(line) == indent && !is_item(line)))
        })
    });
    Some((at, next.unwrap_or(end)))
}

/// Behind the last line with anything on it: what is said behind that is said of what follows.
fn end_of(lines: &[String], begin: usize, end: usize) -> usize {
    let last = (begin..end).rev().find(|at| lines.get(*at).is_some_and(|line| is_content(line)));
    last.map_or(begin, |last| last + 1)
}

fn insert(lines: &mut Vec<String>, at: usize, indent: usize, path: &[String], value: &str) {
    for (depth, part) in path.iter().enumerate() {
        let is_plain = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let key = if is_plain { part.clone() } else { Value::from(part.as_str()).to_string() };
        let value = if depth + 1 == path.len() { format!(" {value}") } else { String::new() };
        let line = format!("{:width$}{key}:{value}", "", width = indent + 2 * depth);
        lines.insert(at + depth, line);
    }
}

fn is_content(line: &str) -> bool {
    let line = line.trim_start();
    !line.is_empty() && !line.starts_with('#')
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// The key that a line begins with, and where what stands behind its colon begins.
fn key_of(line: &str) -> Option<(String, usize)> {
    let indent = indent_of(line);
    let text = line.get(indent..)?;
    let (key, length) = match text.chars().next()? {
        '"' => {
            let mut parsed = serde_json::Deserializer::from_str(text).into_iter::<String>();
            let key = parsed.next()?.ok()?;
            (key, parsed.byte_offset())
        }
        '\'' => {
            let (key, _) = text.get(1..)?.split_once('\'')?;
            (key.to_owned(), key.len() + 2)
        }
        _ => {
            let (key, _) = text.split_once(':')?;
            (key.trim_end().to_owned(), key.len())
        }
    };
    let after = text.get(length..)?.strip_prefix(':')?;
    (after.is_empty() || after.starts_with(' ')).then_some((key, indent + length + 1))
}

/// What stands behind a key, and the comment behind that with the blanks before it.
fn parted(rest: &str) -> (&str, &str) {
    let value = rest.trim_start();
    let offset = rest.len() - value.len();
    // A number sign within quotes or brackets begins no comment.
    let within = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => value.rfind(quote).unwrap_or_default(),
        Some('[' | '{') => value.rfind([']', '}']).unwrap_or_default(),
        _ => 0,
    };
    let after = rest.get(offset + within..).unwrap_or_default();
    let sign =
        if value.starts_with('#') { Some(offset) } else { after.find(" #").map(|at| offset + within + at) };
    let stands = rest.get(..sign.unwrap_or(rest.len())).unwrap_or_default().trim_end();
    (stands.trim_start(), sign.map_or("", |_| rest.get(stands.len()..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(text: &str, edits: &[(&str, Value)]) -> Option<String> {
        let edit = |(path, value): &(&str, Value)| Edit {
            path: path.split('/').map(str::to_owned).collect(),
            value: value.clone(),
        };
        edited(text, &edits.iter().map(edit).collect::<Vec<_>>())
    }

    #[test]
    fn a_value_is_exchanged_in_its_line_and_all_else_stays() {
        let text = "# mine\nmodules:\n\n  edgeHub:   # the link\n    heartbeat: 10  # slow line\n    quic:\n      server: \"a:1 # b\" # here\n  # of MQTT\n  eventBus:\n    list:\n    - a\n    - b\n    # last\n    'x': >\n      folded\n      text\n\n# the end\n";
        let edits = [
            ("modules/edgeHub/heartbeat", json!(20)),
            ("modules/edgeHub/quic/server", json!("c:2")),
            ("modules/eventBus/list", json!(["c"])),
            ("modules/eventBus/x", json!("y")),
        ];
        let wanted = "# mine\nmodules:\n\n  edgeHub:   # the link\n    heartbeat: 20  # slow line\n    quic:\n      server: \"c:2\" # here\n  # of MQTT\n  eventBus:\n    list: [\"c\"]\n    # last\n    'x': \"y\"\n\n# the end\n";
        assert_eq!(with(text, &edits).unwrap(), wanted);
    }

    #[test]
    fn what_is_not_there_comes_behind_the_last_of_its_section() {
        let text = "modules:\n  edgeHub:\n    heartbeat: 10\n  # of pods\n  edged: {}  # none\n  eventBus:\n";
        let edits = [
            ("modules/edgeHub/quic/server", json!("a:1")),
            ("modules/edged/evictionHard/memory.available", json!("5%")),
            ("modules/eventBus/mqttQOS", json!(0)),
            ("database/dataSource", json!("/x")),
        ];
        let wanted = "modules:\n  edgeHub:\n    heartbeat: 10\n    quic:\n      server: \"a:1\"\n  # of pods\n  edged:  # none\n    evictionHard:\n      \"memory.available\": \"5%\"\n  eventBus:\n    mqttQOS: 0\ndatabase:\n  dataSource: \"/x\"\n";
        assert_eq!(with(text, &edits).unwrap(), wanted);
        assert_eq!(with("", &[("a/b", json!(1))]).unwrap(), "\na:\n  b: 1\n".trim_start());
        assert_eq!(with("\"a.b\":\n  c: 1\n", &[("a.b/c", json!(2))]).unwrap(), "\"a.b\":\n  c: 2\n");
    }

    #[test]
    fn what_is_written_otherwise_is_not_touched() {
        for text in ["modules: {edgeHub: {heartbeat: 10}}\n", "modules: &m\n  edgeHub: 1\n", "modules: *m\n"]
        {
            assert_eq!(with(text, &[("modules/edgeHub/heartbeat", json!(20))]), None, "{text}");
        }
    }
}
