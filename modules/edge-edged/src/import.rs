//! What a node that moves over from KubeEdge brings along of its pods' tokens: a row of the store comes of it, and nothing runs here.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
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

/// The row of a pod's token by KubeEdge's row of it, and the pod's uid. The key says for what it was signed: `"ACCOUNT"/"NAMESPACE"/AUDIENCES/
/// SECONDS/…` in Go's spelling, where KubeEdge has the audience that the API server filled in for a pod that named none.
///
/// # Errors
/// A sentence, when it is none that a pod could use.
pub fn token(key: &str, json: &str) -> Result<(String, Write), String> {
    let (audiences, seconds) = signed_for(key).ok_or_else(|| "its key is not understood".to_owned())?;
    let kept: Kept = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let bound = kept.spec.bound_object_ref.filter(|bound| bound.kind == "Pod" && is_path_safe(&bound.uid));
    let uid = bound.ok_or_else(|| "it is bound to no pod".to_owned())?.uid;
    let ends: jiff::Timestamp =
        kept.status.expiration_timestamp.parse().map_err(|_| "its end is no time".to_owned())?;
    let lifetime_seconds = kept.spec.expiration_seconds.unwrap_or(seconds);
    let issuer = issuer_of(&kept.status.token);
    let audience = match audiences.as_slice() {
        // An API server's own audience is its issuer, unless it is told others; a pod names one at the most.
        [one] if Some(*one) != issuer.as_deref() => (*one).to_owned(),
        _ => String::new(),
    };
    let grant = TokenGrant { token: kept.status.token, expires_unix: ends.as_second(), lifetime_seconds };
    let value = token_row::encode(&grant).map_err(|error| error.to_string())?;
    let key1 = tokens::key(&uid, &TokenRequest { audience, seconds });
    Ok((uid, Write::PutRow { table: Table::Tokens, key1, key2: String::new(), value }))
}

/// The audiences and the seconds of a key. An audience may have slashes, and none has a letter that Go escapes.
fn signed_for(key: &str) -> Option<(Vec<&str>, i64)> {
    let (_account, rest) = key.split_once('/')?;
    let (_namespace, rest) = rest.split_once('/')?;
    let named = rest.strip_prefix("[]string")?;
    let (audiences, rest) = match named.strip_prefix("(nil)/").or_else(|| named.strip_prefix("{}/")) {
        Some(rest) => (Vec::new(), rest),
        None => {
            let (named, rest) = named.strip_prefix("{\"")?.split_once("\"}/")?;
            (named.split("\", \"").collect(), rest)
        }
    };
    if audiences.iter().any(|audience| audience.is_empty() || audience.contains(['"', '\\'])) {
        return None;
    }
    let (seconds, _bound_to) = rest.split_once('/')?;
    Some((audiences, seconds.parse().ok()?))
}

/// Who has signed a token, by its own word (RFC 7519 4.1.1).
fn issuer_of(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        iss: String,
    }
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Claims>(&claims).ok().map(|claims| claims.iss)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an API server signs, by its own word.
    fn signed_by(issuer: &str) -> String {
        let claims = URL_SAFE_NO_PAD.encode(format!(r#"{{"iss":"{issuer}"}}"#));
        format!("e30.{claims}.c2ln")
    }

    fn kept(uid: &str) -> String {
        format!(
            r#"{{"kind":"TokenRequest","spec":{{"audiences":["https://a/b"],"expirationSeconds":3607,
            "boundObjectRef":{{"kind":"Pod","apiVersion":"v1","name":"p","uid":"{uid}"}}}},
            "status":{{"token":"{}","expirationTimestamp":"2026-11-30T12:00:00Z"}}}}"#,
            signed_by("https://kubernetes.default.svc.cluster.local")
        )
    }

    #[test]
    fn a_token_is_found_by_what_its_pod_asks_for() {
        // As KubeEdge 1.23.1 writes them.
        let rest = r#"v1.BoundObjectReference{Kind:"Pod", APIVersion:"v1", Name:"p", UID:"u"}"#;
        for (audiences, key1) in [
            ("[]string(nil)", "u/3607/"),
            (r#"[]string{"vault"}"#, "u/3607/vault"),
            // The API server's own, of a pod that named none; one of two, likewise; and another URL, of a pod that did.
            (r#"[]string{"https://kubernetes.default.svc.cluster.local"}"#, "u/3607/"),
            (r#"[]string{"https://kubernetes.default.svc.cluster.local", "k3s"}"#, "u/3607/"),
            (r#"[]string{"https://vault/a"}"#, "u/3607/https://vault/a"),
        ] {
            let key = format!(r#""default"/"d"/{audiences}/3607/{rest}"#);
            let (uid, write) = token(&key, &kept("u")).unwrap();
            let Write::PutRow { table: Table::Tokens, key1: found, value, .. } = write else {
                panic!("{write:?}")
            };
            assert_eq!((uid.as_str(), found.as_str()), ("u", key1));
            let grant = token_row::decode(&value).unwrap();
            assert_eq!((grant.expires_unix, grant.lifetime_seconds), (1_796_040_000, 3607));
            assert!(grant.token.starts_with("e30."));
        }
        let good = format!(r#""default"/"d"/[]string(nil)/3607/{rest}"#);
        for (key, value) in [
            (good.as_str(), "{}".to_owned()),
            (good.as_str(), kept("../u")),
            ("default", kept("u")),
            (r#""a"/"b"/[]string{"x\"y"}/3607/"#, kept("u")),
            (r#""a"/"b"/[]string{""}/3607/"#, kept("u")),
            (r#""a"/"b"/[]string(nil)/soon/"#, kept("u")),
        ] {
            assert!(token(key, &value).is_err(), "{key}");
        }
    }
}
