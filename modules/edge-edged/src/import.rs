//! What a node that moves over from KubeEdge brings along of its pods' tokens: a row of the store comes of it, and nothing runs here.

use contract::TokenGrant;
use edge_store::{Table, Write};
use serde::Deserialize;

use crate::pod::parsed_pod::is_path_safe;
use crate::pod::token_row;
use crate::pod::tokens;
use crate::volumes::TokenRequest;

/// A token as KubeEdge keeps it (`authentication.k8s.io/v1` TokenRequest).
#[derive(Deserialize)]
struct Kept {
    spec: Spec,
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    expiration_seconds: Option<i64>,
    #[serde(default)]
    bound_object_ref: Option<BoundTo>,
}

#[derive(Deserialize)]
struct BoundTo {
    kind: String,
    uid: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    token: String,
    expiration_timestamp: String,
}

/// The row of a pod's token by KubeEdge's row of it, and the pod's uid. The key says what was asked for: `"ACCOUNT"/"NAMESPACE"/AUDIENCES/
/// SECONDS/…` in Go's spelling. What the API server has filled in since stands in the value.
///
/// # Errors
/// A sentence, when it is none that a pod could use.
pub fn token(key: &str, json: &str) -> Result<(String, Write), String> {
    let (audience, seconds) = asked_for(key).ok_or_else(|| "its key is not understood".to_owned())?;
    let kept: Kept = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let bound = kept.spec.bound_object_ref.filter(|bound| bound.kind == "Pod" && is_path_safe(&bound.uid));
    let uid = bound.ok_or_else(|| "it is bound to no pod".to_owned())?.uid;
    let ends: jiff::Timestamp =
        kept.status.expiration_timestamp.parse().map_err(|_| "its end is no time".to_owned())?;
    let lifetime_seconds = kept.spec.expiration_seconds.unwrap_or(seconds);
    let grant = TokenGrant { token: kept.status.token, expires_unix: ends.as_second(), lifetime_seconds };
    let value = token_row::encode(&grant).map_err(|error| error.to_string())?;
    let key1 = tokens::key(&uid, &TokenRequest { audience, seconds });
    Ok((uid, Write::PutRow { table: Table::Tokens, key1, key2: String::new(), value }))
}

/// The audience, empty for the API server's own, and the seconds of a key.
fn asked_for(key: &str) -> Option<(String, i64)> {
    let mut parts = key.splitn(5, '/');
    let (_, _, audiences, seconds) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let audience = match audiences {
        "[]string(nil)" | "[]string{}" => "",
        // One alone, and none with a letter that Go escapes.
        named => named
            .strip_prefix("[]string{\"")?
            .strip_suffix("\"}")
            .filter(|name| !name.contains(['"', '\\']))?,
    };
    Some((audience.to_owned(), seconds.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(uid: &str) -> String {
        format!(
            r#"{{"kind":"TokenRequest","spec":{{"audiences":["https://kubernetes.default.svc"],"expirationSeconds":3607,
            "boundObjectRef":{{"kind":"Pod","apiVersion":"v1","name":"p","uid":"{uid}"}}}},
            "status":{{"token":"t","expirationTimestamp":"2026-11-30T12:00:00Z"}}}}"#
        )
    }

    #[test]
    fn a_token_is_found_by_what_its_pod_asks_for() {
        let rest = r#"v1.BoundObjectReference{Kind:"Pod", APIVersion:"v1", Name:"p", UID:"u"}"#;
        for (audiences, key1) in [("[]string(nil)", "u/3607/"), (r#"[]string{"vault"}"#, "u/3607/vault")] {
            let key = format!(r#""default"/"d"/{audiences}/3607/{rest}"#);
            let (uid, write) = token(&key, &kept("u")).unwrap();
            let Write::PutRow { table: Table::Tokens, key1: found, value, .. } = write else {
                panic!("{write:?}")
            };
            assert_eq!((uid.as_str(), found.as_str()), ("u", key1));
            let grant = token_row::decode(&value).unwrap();
            assert_eq!(
                (grant.token.as_str(), grant.expires_unix, grant.lifetime_seconds),
                ("t", 1_796_040_000, 3607)
            );
        }
        let good = format!(r#""default"/"d"/[]string(nil)/3607/{rest}"#);
        for (key, value) in [
            (good.as_str(), "{}".to_owned()),
            (good.as_str(), kept("../u")),
            ("default", kept("u")),
            (r#""a"/"b"/[]string{"x", "y"}/3607/"#, kept("u")),
            (r#""a"/"b"/[]string(nil)/soon/"#, kept("u")),
        ] {
            assert!(token(key, &value).is_err(), "{key}");
        }
    }
}
