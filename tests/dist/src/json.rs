//! JSON of one form: keys in order, whatever map `serde_json` was built with.

use anyhow::{Context as _, Result};
use serde_json::{Map, Value};

/// On one line.
///
/// # Errors
/// None that a value can have.
pub(crate) fn bytes(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(&sorted(value)).context("write JSON")
}

/// For people, too.
///
/// # Errors
/// None that a value can have.
pub(crate) fn pretty(value: &Value) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(&sorted(value)).context("write JSON")?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Seconds since 1970 as RFC 3339 writes them.
///
/// # Errors
/// Past the year 9999.
pub(crate) fn time(seconds: u64) -> Result<String> {
    let time = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    Ok(time.with_context(|| format!("{seconds} s since 1970 is no time that can be written"))?.to_string())
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            let pairs = keys.into_iter().filter_map(|key| Some((key.clone(), sorted(map.get(key)?))));
            Value::Object(pairs.collect::<Map<String, Value>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_order() {
        let value = serde_json::from_str(r#"{"b":{"d":1,"c":[{"z":1,"y":2}]},"a":null}"#).unwrap();
        assert_eq!(bytes(&value).unwrap(), br#"{"a":null,"b":{"c":[{"y":2,"z":1}],"d":1}}"#);
    }
}
