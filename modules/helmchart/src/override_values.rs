//! `--set`, as Helm has it: `a.b=c,d[0].e=f,g={h,i}`. A backslash takes its meaning from the letter behind it.

use serde_json::{Map, Value};

use crate::error::ChartError;

/// 256 items: a list that is written by its places on a command line is short, and one of a billion would be made up to there.
const PLACE_MAX: usize = 256;
/// 32 parts of a key: the chart's deepest has nine.
const PARTS_MAX: usize = 32;

/// One part of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Name(String),
    Place(usize),
}

/// Lays what a `--set` says over the values.
///
/// # Errors
/// When it is not understood; some of its pairs may stand in the values then.
pub fn set(values: &mut Value, text: &str) -> Result<(), ChartError> {
    let mut letters = Letters { text: text.chars().peekable() };
    while letters.text.peek().is_some() {
        let pair = letters.key().and_then(|key| Ok((key, letters.value()?)));
        let (key, value) =
            pair.map_err(|why| ChartError::Set { pair: text.escape_debug().to_string(), why })?;
        put(values, &key, value);
    }
    Ok(())
}

fn put(place: &mut Value, key: &[Part], value: Value) {
    let Some((first, rest)) = key.split_first() else {
        *place = value;
        return;
    };
    match first {
        Part::Name(name) => {
            if !place.is_object() {
                *place = Value::Object(Map::new());
            }
            let Some(fields) = place.as_object_mut() else { return };
            // Laid over the chart's values later, null takes theirs away.
            put(fields.entry(name.as_str()).or_insert(Value::Null), rest, value);
        }
        Part::Place(at) => {
            if !place.is_array() {
                *place = Value::Array(Vec::new());
            }
            let Some(items) = place.as_array_mut() else { return };
            if items.len() <= *at {
                items.resize(at + 1, Value::Null);
            }
            if let Some(item) = items.get_mut(*at) {
                put(item, rest, value);
            }
        }
    }
}

struct Letters<'a> {
    text: std::iter::Peekable<std::str::Chars<'a>>,
}

impl Letters<'_> {
    /// Up to one of the ends, which is taken; without the backslashes, and whether there was one.
    fn until(&mut self, ends: &[char]) -> (String, bool, Option<char>) {
        let (mut word, mut is_escaped) = (String::new(), false);
        while let Some(letter) = self.text.next() {
            match letter {
                '\\' => {
                    word.extend(self.text.next());
                    is_escaped = true;
                }
                end if ends.contains(&end) => return (word, is_escaped, Some(end)),
                letter => word.push(letter),
            }
        }
        (word, is_escaped, None)
    }

    fn key(&mut self) -> Result<Vec<Part>, String> {
        let mut parts = Vec::new();
        loop {
            let (name, _, mut end) = self.until(&['.', '[', '=', ',']);
            if name.is_empty() {
                return Err("a part of the key is empty".to_owned());
            }
            parts.push(Part::Name(name));
            while end == Some('[') {
                parts.push(Part::Place(self.place()?));
                end = self.text.next();
            }
            if parts.len() > PARTS_MAX {
                return Err(format!("the key has more than {PARTS_MAX} parts"));
            }
            match end {
                Some('=') => return Ok(parts),
                Some('.') => {}
                Some(',') | None => return Err("it has no value: write KEY=VALUE".to_owned()),
                Some(other) => {
                    return Err(format!("behind `]` stands `{}`: write a dot between", other.escape_debug()));
                }
            }
        }
    }

    fn place(&mut self) -> Result<usize, String> {
        let (number, _, end) = self.until(&[']']);
        match number.parse() {
            Ok(place) if end.is_some() && place < PLACE_MAX => Ok(place),
            _ => Err(format!(
                "`[{}` is no place in a list: write [0] to [{}]",
                number.escape_debug(),
                PLACE_MAX - 1
            )),
        }
    }

    fn value(&mut self) -> Result<Value, String> {
        if self.text.peek() != Some(&'{') {
            let (word, is_escaped, _) = self.until(&[',']);
            return Ok(typed(word, is_escaped));
        }
        self.text.next();
        let mut items = Vec::new();
        loop {
            let (word, is_escaped, end) = self.until(&[',', '}']);
            match end {
                Some('}') => {
                    if !word.is_empty() || !items.is_empty() {
                        items.push(typed(word, is_escaped));
                    }
                    break;
                }
                Some(_) => items.push(typed(word, is_escaped)),
                None => return Err("the list does not end: write a }".to_owned()),
            }
        }
        match self.text.next() {
            None | Some(',') => Ok(Value::Array(items)),
            Some(other) => Err(format!("behind the list stands `{}`", other.escape_debug())),
        }
    }
}

/// What a word is: a number without a leading zero, true, false or null; else a text.
fn typed(word: String, is_escaped: bool) -> Value {
    let is_number = word == "0" || !word.trim_start_matches('-').starts_with('0');
    match word.as_str() {
        "true" if !is_escaped => Value::Bool(true),
        "false" if !is_escaped => Value::Bool(false),
        "null" if !is_escaped => Value::Null,
        number if is_number && !is_escaped => match number.parse::<i64>() {
            Ok(number) => Value::from(number),
            Err(_) => Value::String(word),
        },
        _ => Value::String(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn values(texts: &[&str]) -> Value {
        let mut values = json!({});
        for text in texts {
            set(&mut values, text).unwrap();
        }
        values
    }

    #[test]
    fn a_set_is_read_as_helm_reads_it() {
        for (text, wanted) in [
            ("a=b", json!({"a": "b"})),
            ("a.b=c,a.d=1", json!({"a": {"b": "c", "d": 1}})),
            ("a={x,y}", json!({"a": ["x", "y"]})),
            ("a={}", json!({"a": []})),
            ("a={1},b=true", json!({"a": [1], "b": true})),
            ("a[1]=x", json!({"a": [null, "x"]})),
            ("a[0].b=x,a[0].c=y", json!({"a": [{"b": "x", "c": "y"}]})),
            ("a[0][1]=x", json!({"a": [[null, "x"]]})),
            ("a[0].b[1].c=x", json!({"a": [{"b": [null, {"c": "x"}]}]})),
            (r"a.kubernetes\.io/os=linux", json!({"a": {"kubernetes.io/os": "linux"}})),
            (r"a=x\,y", json!({"a": "x,y"})),
            ("a=", json!({"a": ""})),
            ("a=1.5", json!({"a": "1.5"})),
            ("a=007", json!({"a": "007"})),
            ("a=-3", json!({"a": -3})),
            ("a=null", json!({"a": null})),
            ("a=b=c", json!({"a": "b=c"})),
            ("a=10.0.0.1", json!({"a": "10.0.0.1"})),
        ] {
            assert_eq!(values(&[text]), wanted, "{text}");
        }
        assert_eq!(values(&["a.b=1", "a=2"]), json!({"a": 2}));
        assert_eq!(values(&["a=2", "a.b=1"]), json!({"a": {"b": 1}}));
    }

    #[test]
    fn what_is_not_understood_says_why() {
        for (text, word) in [
            ("a", "KEY=VALUE"),
            ("a,b=c", "KEY=VALUE"),
            ("=b", "empty"),
            ("a..b=c", "empty"),
            ("a[x]=c", "no place"),
            ("a[99999999999999999999]=c", "no place"),
            ("a[256]=c", "[0] to [255]"),
            ("a[0=c", "no place"),
            ("a[0]b=c", "a dot between"),
            ("a={x", "does not end"),
            ("a={x}y", "behind the list"),
            (&"a.".repeat(100), "32 parts"),
        ] {
            let told = set(&mut json!({}), text).unwrap_err().to_string();
            assert!(told.contains(word), "{text}: {told}");
        }
    }
}
