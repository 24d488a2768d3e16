//! JSON of a body, within limits.

use serde_json::Value;

/// 262 144: how many values a body may have, as with protobuf. In memory each is some thirty bytes, however short it is
/// in the body: 3 MiB of `[],[],…` would be a hundred.
const VALUES_MAX: usize = 1 << 18;

/// The value of a body. What nests deeper than 127 is refused as well.
///
/// # Errors
/// A sentence.
pub(super) fn read(body: &[u8]) -> Result<Value, String> {
    let count = values(body);
    if count > VALUES_MAX {
        return Err(format!("it has {count} values, {VALUES_MAX} are taken"));
    }
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

/// How many values there are at the most: each but the first comes after an opening bracket or a comma outside strings.
pub(super) fn values(body: &[u8]) -> usize {
    let (mut count, mut in_text, mut escaped) = (1, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b',' | b'[' | b'{' if !in_text => count += 1,
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_is_not_counted_and_values_are() {
        assert_eq!(values(br#"{"a": "x,y,[{", "b": [1, {"c\"": null}]}"#), 6);
        // A table as text is one value.
        let table = json!({ "data": { "csv": ",".repeat(1 << 20) } }).to_string();
        assert!(read(table.as_bytes()).is_ok());
        let many = format!("[{}0]", "0,".repeat(VALUES_MAX));
        assert!(read(many.as_bytes()).unwrap_err().contains("are taken"));
        let many = format!("[{}[]]", "[],".repeat(VALUES_MAX));
        assert!(read(many.as_bytes()).unwrap_err().contains("are taken"));
    }

    #[test]
    fn depth_is_refused_and_not_followed() {
        for open in ["[", "{\"a\":"] {
            let deep = open.repeat(100_000);
            assert!(read(deep.as_bytes()).is_err());
        }
    }
}
