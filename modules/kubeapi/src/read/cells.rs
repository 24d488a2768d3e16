//! What the columns of all kinds are made of.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::unstructured::{name, text};

/// A cell of one object.
pub(super) type Cell = fn(&Value, Timestamp) -> Value;

/// (name, type, priority, cell)
pub(super) type BuiltIn = (&'static str, &'static str, i64, Cell);

pub(super) const NAME: BuiltIn = ("Name", "string", 0, |o, _| json!(name(o)));
pub(super) const AGE: BuiltIn =
    ("Age", "string", 0, |o, now| json!(age(text(o, "/metadata/creationTimestamp"), now)));

pub(super) fn or_none(text: &str) -> Value {
    json!(if text.is_empty() { "<none>" } else { text })
}

pub(super) fn or_unset(text: &str) -> Value {
    json!(if text.is_empty() { "<unset>" } else { text })
}

pub(super) fn or_unknown(text: &str) -> Value {
    json!(if text.is_empty() { "<unknown>" } else { text })
}

pub(super) fn joined(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(",")
}

/// How long ago a time is, in kubectl's short form.
pub(super) fn age(time: &str, now: Timestamp) -> String {
    let Ok(then) = time.parse::<Timestamp>() else { return "<unknown>".to_owned() };
    let seconds = now.as_second() - then.as_second();
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    short(seconds.max(0))
}

fn short(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let with = |value: i64, unit: &str, rest: i64, small: &str| {
        if rest == 0 { format!("{value}{unit}") } else { format!("{value}{unit}{rest}{small}") }
    };
    if seconds < 120 {
        format!("{seconds}s")
    } else if minutes < 10 {
        with(minutes, "m", seconds % 60, "s")
    } else if minutes < 180 {
        format!("{minutes}m")
    } else if hours < 8 {
        with(hours, "h", minutes % 60, "m")
    } else if hours < 48 {
        format!("{hours}h")
    } else if days < 8 {
        with(days, "d", hours % 24, "h")
    } else if days < 730 {
        format!("{days}d")
    } else {
        with(days / 365, "y", days % 365, "d")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        let cases = [
            (5, "5s"),
            (119, "119s"),
            (150, "2m30s"),
            (660, "11m"),
            (4 * 3600 + 60, "4h1m"),
            (40 * 3600, "40h"),
            (3 * 86_400 + 3600, "3d1h"),
            (100 * 86_400, "100d"),
            (800 * 86_400, "2y70d"),
        ];
        for (seconds, told) in cases {
            assert_eq!(short(seconds), told);
        }
    }
}
