//! The environment of a container, and what may be expanded from it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource};

use crate::error::StepError;
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::sources::{Sources, bytes_of_secret, value_in_map, value_in_secret};
use crate::runtime::expansion::{ArgumentSpace, TooLong, expand};
use crate::runtime::fields::{FieldValues, field_value, resource_value};
use crate::runtime::service_env;
use crate::volumes::EnvFiles;

/// The variables in the order in which they were set, each name once, as KubeEdge's users expect them: the API
/// server's address is empty at the edge unless the pod says otherwise. They take their place in `space`.
pub(crate) fn assemble(
    pod: &ParsedPod,
    container: &Container,
    sources: &Sources,
    files: &EnvFiles,
    facts: &FieldValues,
    space: &mut ArgumentSpace,
) -> Result<Vec<(String, String)>, StepError> {
    let links = pod.spec().enable_service_links.unwrap_or(true);
    let services = service_env::variables(sources.services.iter().filter(|_| links));
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    let mut set =
        |known: &mut BTreeMap<String, String>, name: String, value: String| -> Result<(), TooLong> {
            space.take(name.len() + 1 + value.len())?;
            if known.insert(name.clone(), value).is_none() {
                order.push(name);
            }
            Ok(())
        };
    for name in ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"] {
        set(&mut known, name.to_owned(), String::new())?;
    }
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let mut entries = BTreeMap::new();
        if let Some(map) = &from.config_map_ref
            && let Some(found) = sources.config_map(&map.name, map.optional.unwrap_or(false))?
        {
            entries = found.data.clone().unwrap_or_default();
        }
        if let Some(secret) = &from.secret_ref
            && let Some(found) = sources.secret(&secret.name, secret.optional.unwrap_or(false))?
        {
            let text = |(key, bytes): (String, Vec<u8>)| (key, String::from_utf8_lossy(&bytes).into_owned());
            entries = bytes_of_secret(found).into_iter().map(text).collect();
        }
        for (key, value) in entries {
            // A key that is no name of a variable cannot be one: skipped, as the kubelet does.
            if !key.is_empty() && !key.contains(['=', '\0']) {
                set(&mut known, format!("{prefix}{key}"), value)?;
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) if !value.is_empty() => {
                // What the pod sets itself comes before what the services are called.
                let visible = |name: &str| known.get(name).or_else(|| services.get(name)).map(String::as_str);
                Some(expand(value, visible)?)
            }
            (_, Some(from)) => from_source(pod, container, variable, from, sources, files, facts)?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            set(&mut known, variable.name.clone(), value)?;
        }
    }
    for (name, value) in services {
        if !known.contains_key(&name) {
            set(&mut known, name, value)?;
        }
    }
    let value_of = |name: String| known.get(&name).cloned().map(|value| (name, value));
    Ok(order.into_iter().filter_map(value_of).collect())
}

fn from_source(
    pod: &ParsedPod,
    container: &Container,
    variable: &EnvVar,
    from: &EnvVarSource,
    sources: &Sources,
    files: &EnvFiles,
    facts: &FieldValues,
) -> Result<Option<String>, StepError> {
    let namespace = &pod.id.namespace;
    if let Some(key) = &from.config_map_key_ref {
        let optional = key.optional.unwrap_or(false);
        let Some(map) = sources.config_map(&key.name, optional)? else { return Ok(None) };
        return pick(value_in_map(map, &key.key), optional, || {
            format!("couldn't find key {} in ConfigMap {namespace}/{}", key.key, key.name)
        });
    }
    if let Some(key) = &from.secret_key_ref {
        let optional = key.optional.unwrap_or(false);
        let Some(secret) = sources.secret(&key.name, optional)? else { return Ok(None) };
        return pick(value_in_secret(secret, &key.key), optional, || {
            format!("couldn't find key {} in Secret {namespace}/{}", key.key, key.name)
        });
    }
    if let Some(field) = &from.field_ref {
        return field_value(pod, field, facts).map(Some);
    }
    if let Some(resource) = &from.resource_field_ref {
        return resource_value(pod, Some(container), resource, facts).map(Some);
    }
    if let Some(key) = pod.newer.file_key(&container.name, &variable.name) {
        return Ok(files.get(key).cloned().flatten());
    }
    Err(StepError::Config("a variable's valueFrom names no source".to_owned()))
}

fn pick(
    found: Option<&[u8]>,
    optional: bool,
    missing: impl FnOnce() -> String,
) -> Result<Option<String>, StepError> {
    match found {
        Some(bytes) => Ok(Some(String::from_utf8_lossy(bytes).into_owned())),
        None if optional => Ok(None),
        None => Err(StepError::Missing(missing())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::newer_fields::FileKey;
    use crate::pod::parsed_pod::tests::pod;
    use serde_json::json;

    #[test]
    fn every_source_is_read_and_later_ones_win() {
        let pod = pod(json!({"containers": [{"name": "c", "image": "x",
            "envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}}],
            "env": [
                {"name": "P_A", "value": "over"},
                {"name": "B", "value": "$(P_A)-$(P_B)"},
                {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "M", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
                {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k", "optional": true}}},
            ],
            "resources": {"limits": {"memory": "64Mi"}}}]}));
        let map = serde_json::from_value(json!({"metadata": {}, "data": {"A": "1", "B": "2"}})).unwrap();
        let secret = serde_json::from_value(json!({"metadata": {}, "data": {"k": "aGk="}})).unwrap();
        let sources = Sources {
            config_maps: BTreeMap::from([("m".to_owned(), Some(map))]),
            secrets: BTreeMap::from([("s".to_owned(), Some(secret))]),
            ..Sources::default()
        };
        let facts = FieldValues { pod_ips: vec!["10.0.0.2".into()], ..FieldValues::default() };
        let env = assemble(
            &pod,
            &pod.spec().containers[0],
            &sources,
            &EnvFiles::new(),
            &facts,
            &mut ArgumentSpace::new(),
        )
        .unwrap();
        let text: Vec<String> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            text,
            [
                "KUBERNETES_SERVICE_HOST=",
                "KUBERNETES_SERVICE_PORT=",
                "P_A=over",
                "P_B=2",
                "B=over-2",
                "S=hi",
                "N=p",
                "IP=10.0.0.2",
                "M=64",
            ]
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let pod = pod(json!({"containers": [{"name": "c", "image": "x",
            "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}]}));
        let from = |sources: &Sources| {
            let container = &pod.spec().containers[0];
            assemble(
                &pod,
                container,
                sources,
                &EnvFiles::new(),
                &FieldValues::default(),
                &mut ArgumentSpace::new(),
            )
        };
        let missing = |text: &str| Err(StepError::Missing(text.to_owned()));
        assert_eq!(from(&Sources::default()), missing("secret \"s\" not found"));
        let secret = serde_json::from_value(json!({"metadata": {}, "data": {}})).unwrap();
        let sources =
            Sources { secrets: BTreeMap::from([("s".to_owned(), Some(secret))]), ..Sources::default() };
        assert_eq!(from(&sources), missing("couldn't find key k in Secret default/s"));
    }

    #[test]
    fn services_and_files_are_read_too() {
        let file = json!({"volumeName": "v", "path": "env", "key": "K", "optional": true});
        let spec = |links: bool| {
            json!({"enableServiceLinks": links, "containers": [{"name": "c", "image": "x", "env": [
            {"name": "DB", "value": "$(DB_SERVICE_HOST):$(DB_SERVICE_PORT)"},
            {"name": "DB_SERVICE_PORT", "value": "own"},
            {"name": "F", "valueFrom": {"fileKeyRef": file}}, {"name": "G", "valueFrom": {"fileKeyRef": file}}]}]})
        };
        let service = |name: &str| {
            serde_json::from_value(json!({"metadata": {"name": name},
            "spec": {"clusterIP": "10.0.0.9", "ports": [{"port": 5432}]}}))
            .unwrap()
        };
        let sources = Sources { services: vec![service("db"), service("kubernetes")], ..Sources::default() };
        let key: FileKey = serde_json::from_value(file.clone()).unwrap();
        let read = |links: bool, found: Option<&str>| {
            let pod = pod(spec(links));
            let files = EnvFiles::from([(key.clone(), found.map(str::to_owned))]);
            let all = assemble(
                &pod,
                &pod.spec().containers[0],
                &sources,
                &files,
                &FieldValues::default(),
                &mut ArgumentSpace::new(),
            );
            all.unwrap().into_iter().collect::<BTreeMap<_, _>>()
        };
        let env = read(true, Some("7"));
        assert_eq!((env["DB"].as_str(), env["F"].as_str()), ("10.0.0.9:5432", "7"));
        assert_eq!(
            (env["DB_SERVICE_PORT"].as_str(), env["DB_PORT"].as_str()),
            ("own", "tcp://10.0.0.9:5432")
        );
        assert_eq!(env["KUBERNETES_SERVICE_HOST"], "");
        assert!(!env.keys().any(|name| name.starts_with("KUBERNETES_PORT")));
        let env = read(false, None);
        assert_eq!(env["DB"], "$(DB_SERVICE_HOST):$(DB_SERVICE_PORT)");
        assert!(!env.contains_key("DB_PORT") && !env.contains_key("F"));
    }

    #[test]
    fn variables_that_double_are_refused_before_they_are_made() {
        let variables: Vec<_> = (0..5000)
            .map(|at: u32| match at.checked_sub(1) {
                None => json!({"name": "V0", "value": "x".repeat(64)}),
                Some(before) => {
                    json!({"name": format!("V{at}"), "value": format!("$(V{before})$(V{before})")})
                }
            })
            .collect();
        let pod = pod(json!({"containers": [{"name": "c", "image": "x", "env": variables}]}));
        let made = assemble(
            &pod,
            &pod.spec().containers[0],
            &Sources::default(),
            &EnvFiles::new(),
            &FieldValues::default(),
            &mut ArgumentSpace::new(),
        );
        let Err(StepError::Config(told)) = made else { panic!("{made:?}") };
        assert!(told.starts_with("argument list too long"), "{told}");
    }
}
