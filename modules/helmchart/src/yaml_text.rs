//! YAML as Helm writes it: a text of YAML in a config map is a text, and the same settings should be the same one. Where Go would choose
//! other quotes than here (odd letters), the text differs and what it says does not.

use serde_json::Value;

/// Words that are no texts in YAML 1.1.
const NO_TEXTS: [&str; 12] = ["", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", "<<"];

/// A tree as a block, without a newline at its end.
pub(crate) fn block(value: &Value) -> String {
    let mut text = String::new();
    write(value, 0, false, &mut text);
    text.trim_start_matches('\n').trim_start_matches(' ').to_owned()
}

/// Writes what stands behind a key (`is_item`: behind a dash, on whose line the first of a mapping stands).
fn write(value: &Value, indent: usize, is_item: bool, text: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (at, (name, value)) in fields.iter().enumerate() {
                begin(at == 0 && is_item, indent, text);
                text.push_str(&scalar(name));
                text.push(':');
                // The items of a list stand below their key.
                let below = if value.is_array() { indent } else { indent + 2 };
                write(value, below, false, text);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (at, item) in items.iter().enumerate() {
                begin(at == 0 && is_item, indent, text);
                text.push('-');
                write(item, indent + 2, true, text);
            }
        }
        Value::Object(_) => text.push_str(" {}"),
        Value::Array(_) => text.push_str(" []"),
        Value::String(words) => {
            text.push(' ');
            text.push_str(&scalar(words));
        }
        other => {
            text.push(' ');
            text.push_str(&other.to_string());
        }
    }
}

fn begin(is_on_the_line: bool, indent: usize, text: &mut String) {
    if is_on_the_line {
        text.push(' ');
    } else {
        text.push('\n');
        text.push_str(&" ".repeat(indent));
    }
}

fn scalar(words: &str) -> String {
    let is_plain_letter = |letter: char| letter.is_ascii_alphanumeric() || "_./:=@+, -".contains(letter);
    let first = words.chars().next();
    let begins_plain = first.is_some_and(|letter| letter.is_ascii_alphanumeric() || "_./+".contains(letter));
    let is_plain = begins_plain
        && words.chars().all(is_plain_letter)
        && !words.contains(": ")
        && !words.ends_with([':', ' ']);
    if is_no_text(words) || words.chars().any(|letter| letter.is_control() || !letter.is_ascii()) {
        Value::from(words).to_string()
    } else if is_plain {
        words.to_owned()
    } else {
        format!("'{}'", words.replace('\'', "''"))
    }
}

/// Whether YAML 1.1 would read it as a number, a truth, a date or nothing.
fn is_no_text(words: &str) -> bool {
    let digits = words.trim_start_matches(['+', '-']).replace('_', "");
    let is_number = digits.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        && (digits.parse::<f64>().is_ok()
            || ["0x", "0o", "0b"].iter().any(|base| digits.starts_with(base))
            || [".inf", ".nan"].contains(&digits.to_ascii_lowercase().as_str()));
    let is_of_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_date =
        words.get(..10).unwrap_or_default().split('-').filter(|part| is_of_digits(part)).count() == 3;
    let is_base_60 = words.contains(':') && words.split(':').all(is_of_digits);
    NO_TEXTS.contains(&words.to_ascii_lowercase().as_str()) || is_number || is_date || is_base_60
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_tree_is_written_as_helm_writes_it() {
        let tree = json!({
            "b": {"d": [], "c": {}, "a": true}, "a": [1, "x", {"k": "v", "l": [{"m": null}, ["p", ["o"]]]}], "z": 1.5, "1": "on",
        });
        let wanted = "\"1\": \"on\"\na:\n- 1\n- x\n- k: v\n  l:\n  - m: null\n  - - p\n    - - o\nb:\n  a: true\n  c: {}\n  d: []\nz: 1.5";
        assert_eq!(block(&tree), wanted);
        assert_eq!(
            (block(&json!({})), block(&json!([])), block(&json!("x"))),
            ("{}".into(), "[]".into(), "x".into())
        );
    }

    #[test]
    fn every_text_reads_back_as_that_text() {
        for words in [
            "",
            " ",
            "a",
            "192.0.2.10",
            "1",
            "1.5",
            "1e3",
            "0x1f",
            "1_000",
            "+1",
            "-",
            "--",
            "- a",
            "true",
            "Yes",
            "off",
            "n",
            "null",
            "~",
            "2026-11-30",
            "12:30",
            "a: b",
            "a:",
            ":a",
            "a #b",
            "#a",
            "*.example.com",
            "&a",
            "!a",
            "[::]:9092",
            "{a}",
            "it's",
            "\"q\"",
            "back\\slash",
            "two\nlines",
            "tab\there",
            "ünï",
            "unix:///var/x.sock",
            "a,b",
            "%a",
            "@a",
            "`a",
            "a ",
            " a",
            "<<",
            "=",
            ".inf",
            ".",
            "|",
            ">",
            "?",
            "? a",
            "0.0.0.0:9092",
            "info,kube=warn",
            "\u{85}",
            "\u{2028}",
        ] {
            let tree = json!({ "key": words, "list": [words], (words.to_owned()): 1 });
            let back: Value =
                serde_saphyr::from_str(&block(&tree)).unwrap_or_else(|error| panic!("{words:?}: {error}"));
            assert_eq!(back, tree, "{}", block(&tree));
        }
        assert_eq!(scalar("192.0.2.10"), "192.0.2.10");
        assert_eq!(scalar("*.example.com"), "'*.example.com'");
        assert_eq!(scalar("1e3"), "\"1e3\"");
    }
}
