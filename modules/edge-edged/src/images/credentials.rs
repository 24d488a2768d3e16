//! Which image, when it is fetched, and with whose credentials.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Secret};

use crate::disk::beneath::Folder;
use crate::images::keyring::{CREDENTIALS_MAX, Credential, Keyring, Layout, Source};
use crate::images::reference::{self, Reference};
use crate::pod::sources::{Sources, bytes_of_secret};

/// When an image is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// The policy; without one, `latest` is always fetched and others when they are missing.
pub(crate) fn policy(container: &Container) -> PullPolicy {
    policy_of(container.image_pull_policy.as_deref(), container.image.as_deref().unwrap_or_default())
}

/// That of an image that is asked for with this policy, or with none.
pub(crate) fn policy_of(policy: Option<&str>, image: &str) -> PullPolicy {
    match policy {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        Some("IfNotPresent") => PullPolicy::IfNotPresent,
        _ => {
            let tagged = reference::with_tag(image).unwrap_or_default();
            if tagged.ends_with(":latest") { PullPolicy::Always } else { PullPolicy::IfNotPresent }
        }
    }
}

/// The credentials for an image: those of the pod's Secrets `names`, in their order, then the node's own.
pub(crate) fn credentials(
    image: &Reference,
    names: &[String],
    sources: &Sources,
    node: &Keyring,
) -> Vec<Credential> {
    let mut ring = Keyring::default();
    for secret in names.iter().filter_map(|name| sources.secrets.get(name)?.as_ref()) {
        add_secret(&mut ring, secret);
    }
    let mut found = ring.lookup(image);
    found.extend(node.lookup(image));
    found
}

fn add_secret(ring: &mut Keyring, secret: &Secret) {
    let (key, layout) = match secret.type_.as_deref() {
        Some("kubernetes.io/dockerconfigjson") => (".dockerconfigjson", Layout::ConfigJson),
        Some("kubernetes.io/dockercfg") => (".dockercfg", Layout::DockerCfg),
        // Another kind's are no credentials, whatever they are called.
        Some(_) | None => return,
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let metadata = &secret.metadata;
    let (uid, namespace, name) = (text(&metadata.uid), text(&metadata.namespace), text(&metadata.name));
    if let Some(file) = bytes_of_secret(secret).get(key) {
        let source = Source { uid: &uid, namespace: &namespace, name: &name };
        ring.add(file, layout, Some(source));
    }
}

/// The Secrets that a pod names and that are not here, sorted.
pub(crate) fn missing(names: &[String], sources: &Sources) -> Vec<String> {
    let absent = |name: &&String| sources.secrets.get(*name).is_none_or(Option::is_none);
    let mut missing: Vec<String> = names.iter().filter(absent).cloned().collect();
    missing.sort();
    missing.dedup();
    missing
}

/// The node's own credentials, as the kubelet finds them: the first `config.json` in `rootDirectory` and in `.docker` of the
/// homes, else the first `.dockercfg` in `rootDirectory` and the homes. Blocks.
pub(crate) fn of_node(root: &Path, homes: &[PathBuf]) -> Keyring {
    let mut ring = Keyring::default();
    let first = |folders: Vec<PathBuf>, name: &str| folders.iter().find_map(|folder| file(folder, name));
    let docker = homes.iter().map(|home| home.join(".docker"));
    let in_root = || std::iter::once(root.to_owned());
    if let Some(json) = first(in_root().chain(docker).collect(), "config.json") {
        ring.add(&json, Layout::ConfigJson, None);
    } else if let Some(json) = first(in_root().chain(homes.iter().cloned()).collect(), ".dockercfg") {
        ring.add(&json, Layout::DockerCfg, None);
    }
    ring
}

fn file(folder: &Path, name: &str) -> Option<Vec<u8>> {
    let read = || {
        Folder::find_root(folder)?
            .map_or(Ok(None), |folder| folder.read(Path::new(name), CREDENTIALS_MAX as u64))
    };
    match read() {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "credentials of the node cannot be read");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::{Value, json};

    fn secret(name: &str, kind: &str, key: &str, file: &Value) -> (String, Option<Secret>) {
        let json = json!({"metadata": {"name": name, "namespace": "d", "uid": name}, "type": kind,
            "data": {key: STANDARD.encode(file.to_string())}});
        (name.to_owned(), Some(serde_json::from_value(json).unwrap()))
    }

    #[test]
    fn the_policy_follows_the_tag() {
        let digest = format!("x@sha256:{}", "0".repeat(64));
        for (image, want) in [
            ("x", PullPolicy::Always),
            ("x:latest", PullPolicy::Always),
            ("r:5000/x", PullPolicy::Always),
            ("x:1", PullPolicy::IfNotPresent),
            (digest.as_str(), PullPolicy::IfNotPresent),
        ] {
            let container = json!({"name": "c", "image": image});
            assert_eq!(policy(&serde_json::from_value(container).unwrap()), want, "{image}");
        }
    }

    #[test]
    fn a_pods_secrets_go_before_the_nodes_own() {
        let entry = |user: &str| json!({"r.example": {"username": user, "password": "p"}});
        let (json_kind, cfg_kind) = ("kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg");
        let sources = Sources {
            secrets: [
                secret("a", json_kind, ".dockerconfigjson", &json!({"auths": entry("a")})),
                secret("b", cfg_kind, ".dockercfg", &entry("b")),
                secret("opaque", "Opaque", ".dockerconfigjson", &json!({"auths": entry("no")})),
                ("gone".to_owned(), None),
            ]
            .into(),
            ..Sources::default()
        };
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".dockercfg"), entry("older").to_string()).unwrap();
        let users = |names: &[&str], homes: &[PathBuf]| -> Vec<(String, bool)> {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let node = of_node(dir.path(), homes);
            let image = Reference::parse("r.example/x:1").unwrap();
            let found = credentials(&image, &names, &sources, &node);
            found.into_iter().map(|own| (own.auth.username, own.secret.is_some())).collect()
        };
        let own = |user: &str| (user.to_owned(), true);
        let node = |user: &str| (user.to_owned(), false);
        assert_eq!(users(&["b", "opaque", "gone", "a"], &[]), [own("b"), own("a"), node("older")]);
        let home = dir.path().join("home");
        std::fs::create_dir_all(home.join(".docker")).unwrap();
        std::fs::write(home.join(".docker/config.json"), json!({"auths": entry("home")}).to_string())
            .unwrap();
        assert_eq!(users(&[], std::slice::from_ref(&home)), [node("home")]);
        std::fs::write(dir.path().join("config.json"), json!({"auths": entry("root")}).to_string()).unwrap();
        assert_eq!(users(&[], &[home]), [node("root")]);
        let names = ["b".to_owned(), "gone".to_owned(), "never".to_owned()];
        assert_eq!(missing(&names, &sources), ["gone", "never"]);
    }
}
