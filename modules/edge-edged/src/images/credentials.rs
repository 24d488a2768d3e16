//! Which image, from where, with whose credentials, and when to try again.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cri::v1::AuthConfig;
use k8s_openapi::api::core::v1::{Container, Secret};
use serde_json::Value;

use crate::images::access::{self, SecretUsed};
use crate::pod::sources::{Sources, bytes_of_secret};

/// 1 MiB: what a Secret can hold.
const CREDENTIALS_MAX: usize = 1 << 20;

/// When an image is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// The container's image with its tag: `latest` where none is said.
pub(crate) fn name(container: &Container) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || last.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}

/// The policy; without one, `latest` is always fetched and others when they are missing.
pub(crate) fn policy(container: &Container) -> PullPolicy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        Some("IfNotPresent") => PullPolicy::IfNotPresent,
        _ if name(container).ends_with(":latest") => PullPolicy::Always,
        _ => PullPolicy::IfNotPresent,
    }
}

/// The registry of an image, as credentials name it.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

/// What a pull is tried with, and where it comes from. Not to be shown: it holds a password.
#[derive(Clone)]
pub(crate) struct Credential {
    pub(crate) auth: AuthConfig,
    pub(crate) secret: SecretUsed,
}

/// The credentials that fit the image, the most exact first. Broken secrets are skipped: the pull then says what is
/// missing.
pub(crate) fn credentials(image: &str, names: &[String], sources: &Sources) -> Vec<Credential> {
    let mut found: Vec<(usize, Credential)> = Vec::new();
    for name in names {
        let Some(Some(secret)) = sources.secrets.get(name) else { continue };
        for (place, entry) in entries(secret) {
            if let Some(exactness) = fits(&place, image) {
                found.extend(auth_of(&place, &entry).map(|auth| (exactness, credential(auth, secret))));
            }
        }
    }
    found.sort_by_key(|(exactness, _)| std::cmp::Reverse(*exactness));
    found.into_iter().map(|(_, credential)| credential).collect()
}

fn credential(auth: AuthConfig, secret: &Secret) -> Credential {
    let metadata = &secret.metadata;
    let parts = [&auth.username, &auth.password, &auth.identity_token, &auth.registry_token];
    let mut all = Vec::new();
    for part in parts {
        all.extend_from_slice(&(part.len() as u64).to_le_bytes());
        all.extend_from_slice(part.as_bytes());
    }
    let secret = SecretUsed {
        uid: metadata.uid.clone().unwrap_or_default(),
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
        credential_hash: access::hash(&all),
    };
    Credential { auth, secret }
}

fn entries(secret: &Secret) -> Vec<(String, Value)> {
    let mut bytes = bytes_of_secret(secret);
    let (json, new) = match (bytes.remove(".dockerconfigjson"), bytes.remove(".dockercfg")) {
        (Some(json), _) => (json, true),
        (None, Some(json)) => (json, false),
        (None, None) => return Vec::new(),
    };
    if json.len() > CREDENTIALS_MAX {
        return Vec::new();
    }
    let Ok(value) = serde_json::from_slice::<Value>(&json) else { return Vec::new() };
    let map = if new { value.get("auths") } else { Some(&value) };
    let map = map.and_then(Value::as_object).cloned().unwrap_or_default();
    map.into_iter().collect()
}

/// How exactly a credential's place covers the image; `None`: not at all.
fn fits(place: &str, image: &str) -> Option<usize> {
    let bare = place.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare);
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let wanted = registry(image);
    let hub = |name: &str| matches!(name, "docker.io" | "index.docker.io" | "registry-1.docker.io");
    let wildcard = host.strip_prefix("*.").is_some_and(|rest| {
        wanted
            .strip_suffix(rest)
            .and_then(|head| head.strip_suffix('.'))
            .is_some_and(|head| !head.contains('.'))
    });
    if host != wanted && !(hub(host) && hub(wanted)) && !wildcard {
        return None;
    }
    let rest = image.strip_prefix(wanted).unwrap_or(image).trim_start_matches('/');
    let covered = path.is_empty()
        || rest == path
        || rest.strip_prefix(path).is_some_and(|tail| tail.starts_with(['/', ':', '@']));
    covered.then_some(bare.len())
}

fn auth_of(place: &str, entry: &Value) -> Option<AuthConfig> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut auth = AuthConfig {
        username: text("username"),
        password: text("password"),
        identity_token: text("identitytoken"),
        registry_token: text("registrytoken"),
        server_address: place.to_owned(),
        auth: String::new(),
    };
    let packed = text("auth");
    if auth.username.is_empty() && !packed.is_empty() {
        let plain = String::from_utf8(STANDARD.decode(packed.trim()).ok()?).ok()?;
        let (username, password) = plain.split_once(':')?;
        username.clone_into(&mut auth.username);
        password.trim_end_matches('\0').clone_into(&mut auth.password);
    }
    Some(auth)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeMap;

    fn container(json: Value) -> Container {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_policy_follows_the_tag() {
        for (image, want) in [
            ("x", PullPolicy::Always),
            ("x:latest", PullPolicy::Always),
            ("r:5000/x", PullPolicy::Always),
            ("x:1", PullPolicy::IfNotPresent),
            ("x@sha256:00", PullPolicy::IfNotPresent),
        ] {
            assert_eq!(policy(&container(json!({"name": "c", "image": image}))), want, "{image}");
        }
        assert_eq!(name(&container(json!({"name": "c", "image": "r:5000/x"}))), "r:5000/x:latest");
    }

    #[test]
    fn credentials_are_found_by_registry_and_path() {
        let config = json!({"auths": {
            "r.example": {"auth": STANDARD.encode("u:p")},
            "r.example/team": {"username": "team", "password": "t"},
            "other.example": {"username": "no", "password": "no"},
        }});
        let secret =
            json!({"metadata": {}, "data": {".dockerconfigjson": STANDARD.encode(config.to_string())}});
        let sources = Sources {
            secrets: BTreeMap::from([("s".to_owned(), Some(serde_json::from_value(secret).unwrap()))]),
            ..Sources::default()
        };
        let names = vec!["s".to_owned(), "absent".to_owned()];
        let users = |image: &str| -> Vec<String> {
            credentials(image, &names, &sources).into_iter().map(|own| own.auth.username).collect()
        };
        assert_eq!(users("r.example/team/x:1"), ["team", "u"]);
        assert_eq!(users("r.example/x:1"), ["u"]);
        assert!(users("busybox:1").is_empty());
        assert!(fits("https://index.docker.io/v1/", "busybox:1").is_some());
        assert!(fits("*.example", "r.example/x:1").is_some());
        assert!(fits("*.example", "a.r.example/x:1").is_none());
    }
}
