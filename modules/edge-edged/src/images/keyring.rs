//! Which credentials fit an image: the kubelet's DockerKeyring over `config.json` and `.dockercfg`. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{alphabet, engine::DecodePaddingMode};
use cri::v1::AuthConfig;
use serde_json::Value;

use crate::images::access::{self, SecretUsed};
use crate::images::reference::Reference;

/// 1 MiB: what a Secret can hold.
pub(crate) const CREDENTIALS_MAX: usize = 1 << 20;
/// Where Docker keeps the credentials of its own registry: `https://index.docker.io/v1/`.
const HUB: &str = "index.docker.io";
/// docker writes padding, other programs leave it out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a pull is tried with. Not to be shown: it holds a password.
#[derive(Clone)]
pub(crate) struct Credential {
    pub(crate) auth: AuthConfig,
    /// Of which Secret; `None`: it is the node's own, and every pod's.
    pub(crate) secret: Option<SecretUsed>,
}

/// How a file with credentials is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// `config.json`, `kubernetes.io/dockerconfigjson`: the entries are below `auths`.
    ConfigJson,
    /// `.dockercfg`, `kubernetes.io/dockercfg`.
    DockerCfg,
}

/// The object that credentials are from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) uid: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
}

/// Credentials by the place that they are for.
#[derive(Default)]
pub(crate) struct Keyring {
    places: Vec<Place>,
}

struct Place {
    /// `host`, `host:port` or `host/path`, without a scheme; the host may have `*`, `?` and `[…]`.
    key: String,
    credential: Credential,
}

impl Keyring {
    /// Adds the entries of a file; `source`: the Secret that it is in. An entry that cannot be read is left out: the pull
    /// then says what is missing.
    pub(crate) fn add(&mut self, file: &[u8], layout: Layout, source: Option<Source<'_>>) {
        if file.len() > CREDENTIALS_MAX {
            return;
        }
        let Ok(value) = serde_json::from_slice::<Value>(file) else { return };
        let entries = match layout {
            Layout::ConfigJson => value.get("auths"),
            Layout::DockerCfg => Some(&value),
        };
        for (place, entry) in entries.and_then(Value::as_object).into_iter().flatten() {
            if let (Some(key), Some(auth)) = (key_of(place), auth_of(entry)) {
                let secret = source.map(|source| secret_used(source, &auth));
                self.places.push(Place { key, credential: Credential { auth, secret } });
            }
        }
    }

    /// The credentials that fit the image, those of the most exact places first. Docker's own registry has a name of its own
    /// beside these: its credentials count for its images when there are no others.
    pub(crate) fn lookup(&self, image: &Reference) -> Vec<Credential> {
        let mut places: Vec<&Place> = self.places.iter().collect();
        // Stable: those of one place stay in the order in which the pod names them.
        places.sort_by(|a, b| b.key.cmp(&a.key));
        let repository = image.repository();
        let of = |place: &&Place| place.credential.clone();
        let found: Vec<Credential> =
            places.iter().filter(|place| covers(&place.key, &repository)).map(of).collect();
        if found.is_empty() && image.domain == "docker.io" {
            return places.iter().filter(|place| place.key == HUB).map(of).collect();
        }
        found
    }
}

fn secret_used(source: Source<'_>, auth: &AuthConfig) -> SecretUsed {
    let parts = [&auth.username, &auth.password, &auth.identity_token, &auth.registry_token];
    let mut all = Vec::new();
    for part in parts {
        all.extend_from_slice(&(part.len() as u64).to_le_bytes());
        all.extend_from_slice(part.as_bytes());
    }
    SecretUsed {
        uid: source.uid.to_owned(),
        namespace: source.namespace.to_owned(),
        name: source.name.to_owned(),
        credential_hash: access::hash(&all),
    }
}

/// `https://index.docker.io/v1/` → `index.docker.io`; `r.example/team` stays.
fn key_of(place: &str) -> Option<String> {
    let bare = place.strip_prefix("https://").or_else(|| place.strip_prefix("http://")).unwrap_or(place);
    let bare = bare.split(['?', '#']).next().unwrap_or(bare);
    let (host, path) = match bare.find('/') {
        Some(at) => bare.split_at(at),
        None => (bare, ""),
    };
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return None;
    }
    // Docker takes these two for the host itself.
    let is_version = path.starts_with("/v1/") || path.starts_with("/v2/");
    let path = if is_version { path.get(3..).unwrap_or_default() } else { path };
    Some(if path == "/" { host.to_owned() } else { format!("{host}{path}") })
}

/// Whether credentials for `key` count for a repository: the same number of parts of the host, each fitting, the same
/// port, and a path that begins alike.
fn covers(key: &str, repository: &str) -> bool {
    let split = |text: &str| match text.find('/') {
        Some(at) => (text[..at].to_owned(), text[at..].to_owned()),
        None => (text.to_owned(), String::new()),
    };
    let ((pattern, prefix), (host, path)) = (split(key), split(repository));
    let ((pattern, pattern_port), (host, port)) = (host_and_port(&pattern), host_and_port(&host));
    let (patterns, parts): (Vec<&str>, Vec<&str>) = (pattern.split('.').collect(), host.split('.').collect());
    pattern_port == port
        && patterns.len() == parts.len()
        && path.starts_with(&prefix)
        && patterns.iter().zip(&parts).all(|(pattern, part)| fits(pattern.as_bytes(), part.as_bytes()))
}

fn host_and_port(text: &str) -> (&str, &str) {
    match text.rsplit_once(':') {
        // The last colon of an address in brackets is none of a port's.
        Some((host, port)) if !port.contains(']') => (host, port),
        Some(_) | None => (text, ""),
    }
}

/// Whether a part of a host fits a pattern with `*` (any text), `?` (any one) and `[a-z]`, `[^a-z]`. A pattern that makes no
/// sense fits nothing.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    // Where the last `*` was, and how much it has taken: it takes more whenever what follows does not fit.
    let (mut at, mut read, mut star) = (0, 0, None);
    loop {
        let step = match pattern.get(at) {
            None if read == text.len() => return true,
            None => None,
            Some(b'*') => {
                star = Some((at + 1, read));
                at += 1;
                continue;
            }
            Some(_) => text.get(read).and_then(|byte| one(&pattern[at..], *byte)),
        };
        match (step, star) {
            (Some(length), _) => (at, read) = (at + length, read + 1),
            (None, Some((after, taken))) if taken < text.len() => {
                (at, read, star) = (after, taken + 1, Some((after, taken + 1)));
            }
            (None, _) => return false,
        }
    }
}

/// How long the first item of the pattern is, if it fits the byte.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [b'[', class @ ..] => {
            let end = class.iter().position(|b| *b == b']')?;
            let inside = class.get(..end)?;
            let (negated, inside) = match inside {
                [b'^', rest @ ..] => (true, rest),
                all => (false, all),
            };
            let within = ranges(inside, byte)?;
            (within != negated).then_some(end + 2)
        }
        [plain, ..] => (*plain == byte).then_some(1),
        [] => None,
    }
}

/// Whether the byte is in one of the ranges; `None` when they are none.
fn ranges(mut inside: &[u8], byte: u8) -> Option<bool> {
    let mut within = false;
    if inside.is_empty() {
        return None;
    }
    while let [low, rest @ ..] = inside {
        match rest {
            [b'-', high, rest @ ..] => {
                within |= (*low..=*high).contains(&byte);
                inside = rest;
            }
            [b'-'] => return None,
            _ => {
                within |= *low == byte;
                inside = rest;
            }
        }
    }
    Some(within)
}

/// `auth` holds user and password and goes before the two by themselves.
fn auth_of(entry: &Value) -> Option<AuthConfig> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut auth = AuthConfig {
        username: text("username"),
        password: text("password"),
        identity_token: text("identitytoken"),
        registry_token: text("registrytoken"),
        // containerd drops credentials whose address is not written exactly as it writes the registry's.
        server_address: String::new(),
        auth: String::new(),
    };
    let packed: String = text("auth").chars().filter(|c| !c.is_whitespace()).collect();
    if !packed.is_empty() {
        let plain = String::from_utf8(BASE64.decode(packed).ok()?).ok()?;
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

    fn users(keys: &[&str], image: &str) -> Vec<String> {
        let auths: serde_json::Map<String, Value> =
            keys.iter().map(|key| ((*key).to_owned(), json!({"username": key, "password": "p"}))).collect();
        let mut ring = Keyring::default();
        let source = Source { uid: "u", namespace: "n", name: "s" };
        ring.add(json!({"auths": auths}).to_string().as_bytes(), Layout::ConfigJson, Some(source));
        let found = ring.lookup(&Reference::parse(image).unwrap());
        assert!(found.iter().all(|own| own.auth.password == "p" && own.auth.server_address.is_empty()));
        found.into_iter().map(|own| own.auth.username).collect()
    }

    #[test]
    fn every_form_of_key_that_docker_writes_fits() {
        let image = "registry.local:5000/team/app:1";
        for key in [
            "registry.local:5000",
            "https://registry.local:5000",
            "http://registry.local:5000",
            "https://registry.local:5000/",
            "https://registry.local:5000/v1/",
            "https://registry.local:5000/v2/",
            "registry.local:5000/team",
            "registry.local:5000/team/app",
            "https://registry.local:5000/v2/team",
            // As by the kubelet, a path need only begin alike.
            "registry.local:5000/te",
            "*.local:5000",
            "registry.*:5000",
            "regis*ry.l[a-o]cal:5000",
            "[^x]egistry.local:5000",
        ] {
            assert_eq!(users(&[key], image), [key], "{key}");
        }
        for key in [
            "registry.local",
            "registry.local:5001",
            "local:5000",
            "*:5000",
            "*.registry.local:5000",
            "registry.local:5000/other",
            "registry.local:5000/team/app/more",
            "[a.local:5000",
            "[]egistry.local:5000",
            "",
            "https://",
            "a b",
        ] {
            assert_eq!(users(&[key], image), [] as [&str; 0], "{key}");
        }
    }

    #[test]
    fn the_most_exact_place_goes_first() {
        let keys = ["r.example", "r.example/team", "*.example", "r.example/team/x", "other.example"];
        assert_eq!(
            users(&keys, "r.example/team/x:1"),
            ["r.example/team/x", "r.example/team", "r.example", "*.example"]
        );
        assert_eq!(users(&keys, "r.example/y"), ["r.example", "*.example"]);
    }

    #[test]
    fn dockers_own_registry_is_known_by_its_old_name() {
        let hub = ["https://index.docker.io/v1/"];
        for image in ["busybox", "docker.io/team/x:1", "index.docker.io/library/x"] {
            assert_eq!(users(&hub, image), hub, "{image}");
            assert_eq!(users(&["index.docker.io"], image).len(), 1);
        }
        assert_eq!(users(&["docker.io", hub[0]], "busybox"), ["docker.io"]);
        assert_eq!(users(&hub, "localhost/x"), [] as [&str; 0]);
    }

    #[test]
    fn an_entry_is_read_as_docker_and_kubectl_write_it() {
        let read = |entry: Value| {
            let mut ring = Keyring::default();
            let file = json!({"r.example": entry}).to_string();
            ring.add(file.as_bytes(), Layout::DockerCfg, None);
            let found = ring.lookup(&Reference::parse("r.example/x").unwrap());
            found.first().map(|own| (own.auth.username.clone(), own.auth.password.clone()))
        };
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(read(json!({"username": "u", "password": "p", "email": "e"})), pair("u", "p"));
        assert_eq!(read(json!({"auth": "dTpwOnE="})), pair("u", "p:q"));
        assert_eq!(read(json!({"auth": "dTpwOnE"})), pair("u", "p:q"), "without padding");
        assert_eq!(read(json!({"auth": "dTpw\nOnE=\n"})), pair("u", "p:q"));
        // As docker login leaves it, with both: `auth` counts.
        assert_eq!(read(json!({"username": "x", "password": "y", "auth": "dTpw"})), pair("u", "p"));
        assert_eq!(read(json!({"auth": "dQ=="})), None, "no colon");
        assert_eq!(read(json!({"auth": "*"})), None);
    }

    #[test]
    fn hostile_files_are_survived() {
        let image = Reference::parse("r.example/x").unwrap();
        for file in ["", "{", "[]", "{\"auths\": 7}", "{\"auths\": {\"r.example\": 7}}", "null"] {
            let mut ring = Keyring::default();
            ring.add(file.as_bytes(), Layout::ConfigJson, None);
            assert!(ring.lookup(&image).iter().all(|own| own.auth.username.is_empty()));
        }
        let mut ring = Keyring::default();
        ring.add(&vec![b' '; CREDENTIALS_MAX + 1], Layout::ConfigJson, None);
        assert!(ring.lookup(&image).is_empty());
        // A pattern of stars takes no time.
        assert!(!fits(&b"*a".repeat(60), &[b'a'; 59]));
    }
}
