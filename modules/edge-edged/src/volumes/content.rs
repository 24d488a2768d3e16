//! What config maps, secrets, tokens and the downward API put into the files of a volume. Pure.

use std::path::Path;

use k8s_openapi::api::core::v1::{ConfigMapVolumeSource, SecretVolumeSource, Volume};

use super::payload::{
    MODE, ObjectSpace, Payload, PayloadBuilder, Source, SourceKind, from_downward, select, shown,
};
use super::projected::{Tokens, from_projected};
use crate::error::StepError;
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::sources::{Sources, bytes_of_map, bytes_of_secret};
use crate::runtime::fields::FieldValues;

/// The files of a volume, which take their room of `space`; `None` for kinds that hold no files from objects.
pub(crate) fn of_volume(
    pod: &ParsedPod,
    volume: &Volume,
    sources: &Sources,
    tokens: &Tokens,
    facts: &FieldValues,
    space: &mut ObjectSpace,
) -> Result<Option<Payload>, StepError> {
    let mut payload = PayloadBuilder::new(space);
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
    let payload = payload.finish();
    check(&payload)?;
    Ok(Some(payload))
}

/// No file may stand where another one's folder is.
fn check(payload: &Payload) -> Result<(), StepError> {
    for path in payload.keys() {
        let mut above = Path::new(path).ancestors().skip(1).filter_map(Path::to_str);
        if let Some(file) = above.find(|above| payload.contains_key(*above)) {
            let (file, path) = (shown(file), shown(path));
            return Err(StepError::Config(format!("`{path}` lies below `{file}`, which is a file")));
        }
    }
    Ok(())
}

fn from_config_map(
    map: &ConfigMapVolumeSource,
    sources: &Sources,
    into: &mut PayloadBuilder<'_>,
) -> Result<(), StepError> {
    let optional = map.optional.unwrap_or(false);
    let Some(found) = sources.config_map(&map.name, optional)? else { return Ok(()) };
    let mode = map.default_mode.unwrap_or(MODE);
    let what = Source { kind: SourceKind::ConfigMap, name: &map.name, optional, mode };
    select(&bytes_of_map(found), map.items.as_deref(), &what, into)
}

fn from_secret(
    secret: &SecretVolumeSource,
    sources: &Sources,
    into: &mut PayloadBuilder<'_>,
) -> Result<(), StepError> {
    let optional = secret.optional.unwrap_or(false);
    let name = secret.secret_name.as_deref().unwrap_or_default();
    let Some(found) = sources.secret(name, optional)? else { return Ok(()) };
    let mode = secret.default_mode.unwrap_or(MODE);
    let what = Source { kind: SourceKind::Secret, name, optional, mode };
    select(&bytes_of_secret(found), secret.items.as_deref(), &what, into)
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::super::payload::{ENTRIES_MAX, File, inside};
    use super::super::projected::TokenRequest;
    use super::*;
    use crate::pod::parsed_pod::tests::pod;
    use serde_json::json;

    pub(crate) fn sources() -> Sources {
        let map = json!({"metadata": {}, "data": {"a": "1", "b": "2"}, "binaryData": {"c": "/w=="}});
        let secret = json!({"metadata": {}, "data": {"k": "aGk="}});
        Sources {
            config_maps: BTreeMap::from([("m".to_owned(), Some(serde_json::from_value(map).unwrap()))]),
            secrets: BTreeMap::from([("s".to_owned(), Some(serde_json::from_value(secret).unwrap()))]),
            ..Sources::default()
        }
    }

    pub(crate) fn payload(volume: serde_json::Value, tokens: &Tokens) -> Result<Payload, StepError> {
        let pod = pod(json!({"volumes": [volume]}));
        let volume = &pod.spec().volumes.as_ref().unwrap()[0];
        let mut space = ObjectSpace::new();
        of_volume(&pod, volume, &sources(), tokens, &FieldValues::default(), &mut space).map(Option::unwrap)
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
        let words = "configmap references non-existent config key: z";
        assert_eq!(payload(key, &Tokens::new()), Err(StepError::Missing(words.into())));
        let key = json!({"name": "v", "secret": {"secretName": "s", "items": [{"key": "z", "path": "z"}]}});
        let words = "references non-existent secret key: z";
        assert_eq!(payload(key, &Tokens::new()), Err(StepError::Missing(words.into())));
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
            let (facts, mut space) = (FieldValues::default(), ObjectSpace::new());
            let error = of_volume(&pod, volume, &sources, &Tokens::new(), &facts, &mut space).unwrap_err();
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
        let mut space = ObjectSpace::new();
        let mut many = PayloadBuilder::new(&mut space);
        for at in 0..ENTRIES_MAX {
            many.insert(at.to_string(), b"", 0o644, None).unwrap();
        }
        let refused = many.insert("more".into(), b"", 0o644, None).unwrap_err();
        assert!(refused.to_string().contains("more than 10000 files and folders"), "{refused}");
        many.insert("0".into(), b"anew", 0o644, None).unwrap();
        let nested = [("a", file()), ("a/b", file())].map(|(path, file)| (path.to_owned(), file));
        assert!(check(&Payload::from(nested)).unwrap_err().to_string().contains("`a/b` lies below `a`"));
        assert_eq!(inside("a//b/").unwrap(), "a/b");
        assert!(inside(&format!("a/{}", "x".repeat(256))).is_err());
    }

    /// A path of 4 KB is as many as two thousand folders, and a manifest of 1.4 MB has room for hundreds of them.
    #[test]
    fn the_folders_that_paths_make_count_as_files_do() {
        let deep = |first: usize, folders: usize| format!("{first}/{}k", "d/".repeat(folders - 1));
        let of = |paths: &[String]| {
            let items: Vec<_> = paths.iter().map(|path| json!({"key": "a", "path": path})).collect();
            payload(json!({"name": "v", "configMap": {"name": "m", "items": items}}), &Tokens::new())
        };
        assert_eq!(of(&[deep(0, 63)]).unwrap().len(), 1);
        let refused = of(&[deep(0, 64)]).unwrap_err().to_string();
        assert!(refused.contains("more than 64 folders one below the other"), "{refused}");
        // 156 files, each with 63 folders of its own, are 9984 entries.
        let many: Vec<String> = (0..157).map(|first| deep(first, 63)).collect();
        assert_eq!(of(&many[..156]).unwrap().len(), 156);
        let refused = of(&many).unwrap_err().to_string();
        assert!(refused.contains("more than 10000 files and folders"), "{refused}");
        // The places of mounts in a volume are folders, too.
        let mut space = ObjectSpace::new();
        let places = |range: std::ops::Range<usize>, folders| -> std::collections::BTreeSet<PathBuf> {
            range.map(|at| deep(at, folders).into()).collect()
        };
        assert!(space.take_places(&places(0..156, 63)).is_ok());
        assert!(space.take_places(&places(0..1, 63)).is_err());
        assert!(ObjectSpace::new().take_places(&places(0..1, 64)).is_err());
        // Files that share their folders share their count.
        let beside: Vec<String> = (0..5000).map(|at| format!("a/b/c/{at}")).collect();
        assert_eq!(of(&beside).unwrap().len(), 5000);
    }

    /// A Secret costs a volume a few bytes of the manifest, and a volume may show all of it.
    #[test]
    fn the_volumes_of_a_pod_have_so_many_files_together_and_no_more() {
        let data: BTreeMap<String, &str> = (0..4000).map(|at| (at.to_string(), "")).collect();
        let map = json!({"metadata": {}, "data": data});
        let sources = Sources {
            config_maps: BTreeMap::from([("m".to_owned(), Some(serde_json::from_value(map).unwrap()))]),
            ..Sources::default()
        };
        let pod = pod(json!({"volumes": [{"name": "v", "configMap": {"name": "m"}}]}));
        let volume = &pod.spec().volumes.as_ref().unwrap()[0];
        let (facts, mut space) = (FieldValues::default(), ObjectSpace::new());
        let mut made = || of_volume(&pod, volume, &sources, &Tokens::new(), &facts, &mut space);
        assert!(made().is_ok() && made().is_ok());
        assert!(made().unwrap_err().to_string().contains("more than 10000 files and folders"));
    }

    /// One entry may be named by any number of files, in any number of volumes.
    #[test]
    fn the_volumes_of_a_pod_hold_so_much_of_objects_and_no_more() {
        let map = json!({"metadata": {}, "data": {"k": "x".repeat(900_000)}});
        let sources = Sources {
            config_maps: BTreeMap::from([("m".to_owned(), Some(serde_json::from_value(map).unwrap()))]),
            ..Sources::default()
        };
        let items: Vec<_> = (0..10).map(|at| json!({"key": "k", "path": at.to_string()})).collect();
        let pod = pod(json!({"volumes": [{"name": "v", "configMap": {"name": "m", "items": items}}]}));
        let volume = &pod.spec().volumes.as_ref().unwrap()[0];
        let mut space = ObjectSpace::new();
        let made: Vec<_> = (0..4)
            .map(|_| of_volume(&pod, volume, &sources, &Tokens::new(), &FieldValues::default(), &mut space))
            .collect();
        assert!(made[..3].iter().all(Result::is_ok), "27 MB in three volumes");
        let refused = made[3].as_ref().unwrap_err().to_string();
        assert!(refused.contains("more than 32 MiB"), "{refused}");
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

    #[test]
    fn what_is_missing_is_told_of_all_sources() {
        let volume = json!({"name": "v", "projected": {"sources": [
            {"configMap": {"name": "none"}}, {"secret": {"name": "s", "items": [{"key": "z", "path": "z"}]}}]}});
        let words = "[configmap \"none\" not found, references non-existent secret key: z]";
        assert_eq!(payload(volume, &Tokens::new()), Err(StepError::Missing(words.to_owned())));
        // Of two for one path the later one counts.
        let volume = json!({"name": "v", "projected": {"sources": [
            {"configMap": {"name": "m", "items": [{"key": "a", "path": "x"}]}},
            {"configMap": {"name": "m", "items": [{"key": "b", "path": "x"}]}}]}});
        assert_eq!(payload(volume, &Tokens::new()).unwrap()["x"].bytes, b"2");
    }
}
