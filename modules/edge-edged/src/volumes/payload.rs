//! What config maps, secrets, tokens and the downward API put into files. Pure.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeFile, KeyToPath, PodSpec, ProjectedVolumeSource,
    SecretVolumeSource, ServiceAccountTokenProjection, Volume,
};

use crate::error::StepError;
use crate::pod::parsed_pod::{ParsedPod, all_of};
use crate::pod::sources::{Sources, bytes_of_map, bytes_of_secret};
use crate::runtime::env::{FieldValues, field_value, resource_value};

/// Kubernetes' default for files from objects.
const MODE: i32 = 0o644;
/// Kubernetes' default life of a mounted token, in seconds.
const TOKEN_SECONDS: i64 = 3600;

/// More files than the largest object has entries that make sense; each is an inode of the node.
pub(super) const FILES_MAX: usize = 10_000;
/// Kubernetes' bound of a key.
const KEY_MAX: usize = 253;
/// Linux' bound of a name.
const NAME_MAX: usize = 255;

/// One file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
    /// Whose it is, when not root's.
    pub(crate) owner: Option<u32>,
}

/// All files of a volume by their path inside it.
pub(crate) type Payload = BTreeMap<String, File>;

/// A token that a pod mounts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TokenRequest {
    pub(crate) audience: String,
    pub(crate) seconds: i64,
}

/// The tokens at hand.
pub(crate) type Tokens = BTreeMap<TokenRequest, String>;

fn token_request_of(token: &ServiceAccountTokenProjection) -> TokenRequest {
    TokenRequest {
        audience: token.audience.clone().unwrap_or_default(),
        seconds: token.expiration_seconds.unwrap_or(TOKEN_SECONDS),
    }
}

/// The tokens that a pod mounts, each once.
pub(crate) fn token_requests(spec: &PodSpec) -> Vec<TokenRequest> {
    let projected = spec.volumes.iter().flatten().filter_map(|volume| volume.projected.as_ref());
    let sources = projected.flat_map(|projected| projected.sources.iter().flatten());
    let mut wants: Vec<TokenRequest> =
        sources.filter_map(|source| source.service_account_token.as_ref()).map(token_request_of).collect();
    wants.sort();
    wants.dedup();
    wants
}

/// The files of a volume; `None` for kinds that hold no files from objects.
pub(crate) fn of_volume(
    pod: &ParsedPod,
    volume: &Volume,
    sources: &Sources,
    tokens: &Tokens,
    facts: &FieldValues,
) -> Result<Option<Payload>, StepError> {
    let mut payload = Payload::new();
    if let Some(map) = &volume.config_map {
        from_config_map(map, sources, &mut payload)?;
    } else if let Some(secret) = &volume.secret {
        from_secret(secret, sources, &mut payload)?;
    } else if let Some(downward) = &volume.downward_api {
        let mode = downward.default_mode.unwrap_or(MODE);
        from_downward(pod, downward.items.iter().flatten(), mode, facts, &mut payload)?;
    } else if let Some(projected) = &volume.projected {
        from_projected(pod, projected, sources, tokens, facts, &mut payload)?;
    } else {
        return Ok(None);
    }
    check(&payload)?;
    Ok(Some(payload))
}

/// No file may stand where another one's folder is, and there is a bound.
fn check(payload: &Payload) -> Result<(), StepError> {
    if payload.len() > FILES_MAX {
        let count = payload.len();
        return Err(StepError::Config(format!(
            "it has {count} files, and at most {FILES_MAX} are put into one"
        )));
    }
    for path in payload.keys() {
        let mut above = Path::new(path).ancestors().skip(1).filter_map(Path::to_str);
        if let Some(file) = above.find(|above| payload.contains_key(*above)) {
            let (file, path) = (shown(file), shown(path));
            return Err(StepError::Config(format!("`{path}` lies below `{file}`, which is a file")));
        }
    }
    Ok(())
}

fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

fn from_config_map(
    map: &ConfigMapVolumeSource,
    sources: &Sources,
    into: &mut Payload,
) -> Result<(), StepError> {
    let optional = map.optional.unwrap_or(false);
    let Some(found) = sources.config_map(&map.name, optional)? else { return Ok(()) };
    let what =
        Source { kind: "ConfigMap", name: &map.name, optional, mode: map.default_mode.unwrap_or(MODE) };
    select(&bytes_of_map(found), map.items.as_deref(), &what, into)
}

fn from_secret(secret: &SecretVolumeSource, sources: &Sources, into: &mut Payload) -> Result<(), StepError> {
    let optional = secret.optional.unwrap_or(false);
    let name = secret.secret_name.as_deref().unwrap_or_default();
    let Some(found) = sources.secret(name, optional)? else { return Ok(()) };
    let what = Source { kind: "Secret", name, optional, mode: secret.default_mode.unwrap_or(MODE) };
    select(&bytes_of_secret(found), secret.items.as_deref(), &what, into)
}

fn from_projected(
    pod: &ParsedPod,
    projected: &ProjectedVolumeSource,
    sources: &Sources,
    tokens: &Tokens,
    facts: &FieldValues,
    into: &mut Payload,
) -> Result<(), StepError> {
    let mode = projected.default_mode.unwrap_or(MODE);
    for source in projected.sources.iter().flatten() {
        if let Some(map) = &source.config_map {
            let optional = map.optional.unwrap_or(false);
            if let Some(found) = sources.config_map(&map.name, optional)? {
                let what = Source { kind: "ConfigMap", name: &map.name, optional, mode };
                select(&bytes_of_map(found), map.items.as_deref(), &what, into)?;
            }
        }
        if let Some(secret) = &source.secret {
            let optional = secret.optional.unwrap_or(false);
            if let Some(found) = sources.secret(&secret.name, optional)? {
                let what = Source { kind: "Secret", name: &secret.name, optional, mode };
                select(&bytes_of_secret(found), secret.items.as_deref(), &what, into)?;
            }
        }
        if let Some(downward) = &source.downward_api {
            from_downward(pod, downward.items.iter().flatten(), mode, facts, into)?;
        }
        if let Some(token) = &source.service_account_token {
            let Some(text) = tokens.get(&token_request_of(token)) else {
                let account = pod.spec().service_account_name.clone().unwrap_or_else(|| "default".to_owned());
                return Err(StepError::Token { account, reason: "none has been granted yet".to_owned() });
            };
            let (mode, owner) = token_access(pod.spec(), mode);
            let file = File { bytes: text.clone().into_bytes(), mode, owner };
            into.insert(inside(&token.path)?, file);
        }
    }
    Ok(())
}

/// A token is for the pod's own user or group alone where one is named, as in the kubelet.
fn token_access(spec: &PodSpec, mode: i32) -> (u32, Option<u32>) {
    let pod = spec.security_context.as_ref();
    if pod.and_then(|pod| pod.fs_group).is_some() {
        return (0o600, None);
    }
    let user_of = |container: &k8s_openapi::api::core::v1::Container| {
        let own = container.security_context.as_ref().and_then(|own| own.run_as_user);
        own.or(pod.and_then(|pod| pod.run_as_user))
    };
    let mut users: Vec<Option<i64>> = all_of(spec).map(user_of).collect();
    users.dedup();
    match users.as_slice() {
        [Some(user)] => match u32::try_from(*user) {
            Ok(user) => (0o600, Some(user)),
            Err(_) => (mode_bits(mode), None),
        },
        _ => (mode_bits(mode), None),
    }
}

fn from_downward<'a>(
    pod: &ParsedPod,
    items: impl Iterator<Item = &'a DownwardAPIVolumeFile>,
    mode: i32,
    facts: &FieldValues,
    into: &mut Payload,
) -> Result<(), StepError> {
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => field_value(pod, field, facts)?,
            (None, Some(resource)) => resource_value(pod, None, resource, facts)?,
            (None, None) => {
                return Err(StepError::Config(format!("downwardAPI item `{}` names no source", item.path)));
            }
        };
        let file = File { bytes: text.into_bytes(), mode: mode_bits(item.mode.unwrap_or(mode)), owner: None };
        into.insert(inside(&item.path)?, file);
    }
    Ok(())
}

struct Source<'a> {
    kind: &'a str,
    name: &'a str,
    optional: bool,
    mode: i32,
}

/// All entries under their keys, or the chosen ones under their paths.
fn select(
    entries: &BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    source: &Source<'_>,
    into: &mut Payload,
) -> Result<(), StepError> {
    let file = |bytes: &[u8], mode: i32| File { bytes: bytes.to_vec(), mode: mode_bits(mode), owner: None };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        for (key, bytes) in entries {
            into.insert(key_of(key, source)?, file(bytes, source.mode));
        }
        return Ok(());
    };
    for item in items {
        match entries.get(&item.key) {
            Some(bytes) => {
                into.insert(inside(&item.path)?, file(bytes, item.mode.unwrap_or(source.mode)));
            }
            None if source.optional => {}
            None => {
                let Source { kind, name, .. } = source;
                return Err(StepError::Missing(format!("{kind} {name} has no key {}", item.key)));
            }
        }
    }
    Ok(())
}

fn mode_bits(mode: i32) -> u32 {
    u32::try_from(mode).unwrap_or(0o644) & 0o777
}

/// A key that is fit to be a file's name, as the API server has it: anything else comes from a cloud that is not one.
fn key_of(key: &str, source: &Source<'_>) -> Result<String, StepError> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if key.is_empty() || key.len() > KEY_MAX || key.starts_with("..") || key == "." || !key.bytes().all(fits)
    {
        let (Source { kind, name, .. }, key) = (source, shown(key));
        return Err(StepError::Config(format!(
            "{kind} {name} has the key {key:?}, which is no name of a file"
        )));
    }
    Ok(key.to_owned())
}

/// A path that stays inside its volume and does not look like our own bookkeeping (`..data`). Answered in its plain
/// form, so that two spellings of one file are one.
fn inside(path: &str) -> Result<String, StepError> {
    let plain = |part: Component<'_>| match part {
        Component::Normal(name) => name.len() <= NAME_MAX,
        Component::CurDir | Component::ParentDir | Component::RootDir | Component::Prefix(_) => false,
    };
    let normal = Path::new(path).components().all(plain);
    if path.is_empty() || path.len() > 4096 || !normal || path.starts_with("..") || path.contains('\0') {
        return Err(StepError::Config(format!("{:?} is no path inside a volume", shown(path))));
    }
    Ok(Path::new(path).components().collect::<std::path::PathBuf>().display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::parsed_pod::tests::pod;
    use serde_json::json;

    fn sources() -> Sources {
        let map = json!({"metadata": {}, "data": {"a": "1", "b": "2"}, "binaryData": {"c": "/w=="}});
        let secret = json!({"metadata": {}, "data": {"k": "aGk="}});
        Sources {
            config_maps: BTreeMap::from([("m".to_owned(), Some(serde_json::from_value(map).unwrap()))]),
            secrets: BTreeMap::from([("s".to_owned(), Some(serde_json::from_value(secret).unwrap()))]),
        }
    }

    fn payload(volume: serde_json::Value, tokens: &Tokens) -> Result<Payload, StepError> {
        let pod = pod(json!({"volumes": [volume]}));
        let volume = &pod.spec().volumes.as_ref().unwrap()[0];
        of_volume(&pod, volume, &sources(), tokens, &FieldValues::default()).map(Option::unwrap)
    }

    #[test]
    fn all_keys_or_the_chosen_ones() {
        let all = payload(json!({"name": "v", "configMap": {"name": "m"}}), &Tokens::new()).unwrap();
        assert_eq!(all.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!((all["a"].mode, all["c"].bytes.as_slice()), (0o644, [0xff].as_slice()));
        let chosen = json!({"name": "v", "configMap": {"name": "m", "defaultMode": 0o400,
            "items": [{"key": "a", "path": "deep/x", "mode": 0o600}, {"key": "b", "path": "y"}]}});
        let chosen = payload(chosen, &Tokens::new()).unwrap();
        assert_eq!((chosen["deep/x"].mode, chosen["y"].mode), (0o600, 0o400));
    }

    #[test]
    fn what_is_optional_may_be_missing() {
        let gone = payload(json!({"name": "v", "secret": {"secretName": "none"}}), &Tokens::new());
        assert_eq!(gone, Err(StepError::Missing("secret \"none\" not found".into())));
        let fine =
            payload(json!({"name": "v", "secret": {"secretName": "none", "optional": true}}), &Tokens::new());
        assert!(fine.unwrap().is_empty());
        let key = json!({"name": "v", "configMap": {"name": "m", "items": [{"key": "z", "path": "z"}]}});
        assert!(matches!(payload(key, &Tokens::new()), Err(StepError::Missing(_))));
    }

    #[test]
    fn a_path_that_leaves_the_volume_is_refused() {
        for path in ["../x", "/x", "a/../../x", "..data/x", ""] {
            let volume =
                json!({"name": "v", "configMap": {"name": "m", "items": [{"key": "a", "path": path}]}});
            assert!(matches!(payload(volume, &Tokens::new()), Err(StepError::Config(_))), "{path}");
        }
    }

    #[test]
    fn keys_of_a_hostile_cloud_are_refused_with_a_sentence() {
        let long = "k".repeat(300);
        for key in ["..", ".", "../x", "a/b", "..data", "a\0b", "/etc/passwd", "", long.as_str(), "a b"] {
            let map = json!({"metadata": {}, "data": {key: "1"}});
            let sources = Sources {
                config_maps: BTreeMap::from([("m".to_owned(), Some(serde_json::from_value(map).unwrap()))]),
                ..Sources::default()
            };
            let pod = pod(json!({"volumes": [{"name": "v", "configMap": {"name": "m"}}]}));
            let volume = &pod.spec().volumes.as_ref().unwrap()[0];
            let error =
                of_volume(&pod, volume, &sources, &Tokens::new(), &FieldValues::default()).unwrap_err();
            assert!(
                matches!(&error, StepError::Config(text) if text.contains("ConfigMap m")),
                "{key:?}: {error}"
            );
            assert!(error.to_string().len() < 400);
        }
    }

    #[test]
    fn too_many_files_and_a_file_below_a_file_are_refused() {
        let file = || File { bytes: Vec::new(), mode: 0o644, owner: None };
        let many: Payload = (0..=FILES_MAX).map(|at| (at.to_string(), file())).collect();
        assert!(check(&many).unwrap_err().to_string().contains("10001 files"));
        let nested = [("a", file()), ("a/b", file())].map(|(path, file)| (path.to_owned(), file));
        assert!(check(&Payload::from(nested)).unwrap_err().to_string().contains("`a/b` lies below `a`"));
        assert_eq!(inside("a//b/").unwrap(), "a/b");
        assert!(inside(&format!("a/{}", "x".repeat(256))).is_err());
    }

    #[test]
    fn a_projected_volume_waits_for_its_token() {
        let volume = json!({"name": "v", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token", "audience": "a"}}, {"secret": {"name": "s"}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}});
        assert!(matches!(payload(volume.clone(), &Tokens::new()), Err(StepError::Token { .. })));
        let tokens =
            Tokens::from([(TokenRequest { audience: "a".into(), seconds: 3600 }, "t0k3n".to_owned())]);
        let found = payload(volume, &tokens).unwrap();
        assert_eq!(found["token"].bytes, b"t0k3n");
        assert_eq!(found["namespace"].bytes, b"default");
        assert_eq!(found["k"].bytes, b"hi");
    }
}
