//! The row of a service account's token in the node's store, as JSON.
//!
//! Version 1 is frozen: the test below holds it byte by byte. A row that is not understood counts as none, and the token
//! is asked for again.

use contract::TokenGrant;
use serde::{Deserialize, Serialize};

/// The version that is written.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct TokenV1 {
    v: u32,
    token: String,
    /// In seconds since 1970 by the cloud's clock.
    expires_unix: i64,
    lifetime_seconds: i64,
}

/// The row of a token.
///
/// # Errors
/// JSON's own; there is none to be expected of these fields.
pub(crate) fn encode(grant: &TokenGrant) -> serde_json::Result<Vec<u8>> {
    let TokenGrant { token, expires_unix, lifetime_seconds } = grant.clone();
    serde_json::to_vec(&TokenV1 { v: VERSION, token, expires_unix, lifetime_seconds })
}

/// The token of a row; `None` for a row of another version, or one that is not understood.
pub(crate) fn decode(row: &[u8]) -> Option<TokenGrant> {
    let TokenV1 { v, token, expires_unix, lifetime_seconds } = serde_json::from_slice(row).ok()?;
    (v == VERSION).then_some(TokenGrant { token, expires_unix, lifetime_seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_is_these_bytes() {
        let grant = TokenGrant { token: "t\"".into(), expires_unix: -9, lifetime_seconds: 3600 };
        let row = encode(&grant).unwrap();
        let frozen = r#"{"v":1,"token":"t\"","expires_unix":-9,"lifetime_seconds":3600}"#;
        assert_eq!(String::from_utf8(row.clone()).unwrap(), frozen);
        assert_eq!(decode(&row), Some(grant));
    }

    #[test]
    fn a_row_of_another_version_is_none() {
        let newer = r#"{"v":2,"token":"t","expires_unix":9,"lifetime_seconds":3600}"#;
        let without = r#"{"token":"t","expires_unix":9,"lifetime_seconds":3600}"#;
        for row in [newer, without, "", "{}"] {
            assert_eq!(decode(row.as_bytes()), None, "{row}");
        }
    }
}
