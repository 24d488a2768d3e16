//! The environment of a container, and what may be expanded from it.

use std::collections::BTreeMap;

use apimachinery::Quantity;
use k8s_openapi::api::core::v1::{Container, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector};

use crate::error::StepError;
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::sources::{Sources, bytes_of_map, bytes_of_secret};
use crate::runtime::resources::{amounts, quantity};

/// What is known of the pod and its node when a container starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldValues {
    pub(crate) pod_ips: Vec<String>,
    pub(crate) host_ips: Vec<String>,
    pub(crate) node_name: String,
    /// Of the node, for containers without limits: thousandths of a CPU, bytes.
    pub(crate) node_cpu_milli: u64,
    pub(crate) node_memory: u64,
}

/// The variables in the order in which they were set, each name once, as KubeEdge's users expect them: the API
/// server's address is empty at the edge unless the pod says otherwise.
pub(crate) fn assemble(
    pod: &ParsedPod,
    container: &Container,
    sources: &Sources,
    facts: &FieldValues,
) -> Result<Vec<(String, String)>, StepError> {
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    let mut set = |known: &mut BTreeMap<String, String>, name: String, value: String| {
        if known.insert(name.clone(), value).is_none() {
            order.push(name);
        }
    };
    for name in ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"] {
        set(&mut known, name.to_owned(), String::new());
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
                set(&mut known, format!("{prefix}{key}"), value);
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) if !value.is_empty() => Some(expand(value, &known)),
            (_, Some(from)) => from_source(pod, container, from, sources, facts)?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            set(&mut known, variable.name.clone(), value);
        }
    }
    let value_of = |name: String| known.get(&name).cloned().map(|value| (name, value));
    Ok(order.into_iter().filter_map(value_of).collect())
}

fn from_source(
    pod: &ParsedPod,
    container: &Container,
    from: &EnvVarSource,
    sources: &Sources,
    facts: &FieldValues,
) -> Result<Option<String>, StepError> {
    if let Some(key) = &from.config_map_key_ref {
        let optional = key.optional.unwrap_or(false);
        let Some(map) = sources.config_map(&key.name, optional)? else { return Ok(None) };
        return pick(bytes_of_map(map).remove(&key.key), optional, "ConfigMap", &key.name, &key.key);
    }
    if let Some(key) = &from.secret_key_ref {
        let optional = key.optional.unwrap_or(false);
        let Some(secret) = sources.secret(&key.name, optional)? else { return Ok(None) };
        return pick(bytes_of_secret(secret).remove(&key.key), optional, "Secret", &key.name, &key.key);
    }
    if let Some(field) = &from.field_ref {
        return field_value(pod, field, facts).map(Some);
    }
    if let Some(resource) = &from.resource_field_ref {
        return resource_value(pod, Some(container), resource, facts).map(Some);
    }
    Err(StepError::Config("a variable's valueFrom names no source".to_owned()))
}

fn pick(
    found: Option<Vec<u8>>,
    optional: bool,
    kind: &str,
    name: &str,
    key: &str,
) -> Result<Option<String>, StepError> {
    match found {
        Some(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        None if optional => Ok(None),
        None => Err(StepError::Missing(format!("couldn't find key {key} in {kind} {name}"))),
    }
}

/// A field of the pod, as the downward API names it.
pub(crate) fn field_value(
    pod: &ParsedPod,
    field: &ObjectFieldSelector,
    facts: &FieldValues,
) -> Result<String, StepError> {
    let path = field.field_path.as_str();
    let metadata = &pod.pod.metadata;
    let keyed = |prefix: &str, map: &Option<BTreeMap<String, String>>| {
        let key = path.strip_prefix(prefix)?.strip_suffix("']")?;
        Some(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default())
    };
    let all = |map: &Option<BTreeMap<String, String>>| {
        let lines: Vec<String> =
            map.iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect();
        lines.join("\n")
    };
    let first = |ips: &[String]| ips.first().cloned().unwrap_or_default();
    let value = match path {
        "metadata.name" => pod.id.name.clone(),
        "metadata.namespace" => pod.id.namespace.clone(),
        "metadata.uid" => pod.id.uid.clone(),
        "metadata.labels" => all(&metadata.labels),
        "metadata.annotations" => all(&metadata.annotations),
        "spec.nodeName" => facts.node_name.clone(),
        "spec.serviceAccountName" => {
            pod.spec().service_account_name.clone().unwrap_or_else(|| "default".to_owned())
        }
        "status.hostIP" => first(&facts.host_ips),
        "status.hostIPs" => facts.host_ips.join(","),
        "status.podIP" => first(&facts.pod_ips),
        "status.podIPs" => facts.pod_ips.join(","),
        _ => {
            let label = keyed("metadata.labels['", &metadata.labels);
            let keyed = label.or_else(|| keyed("metadata.annotations['", &metadata.annotations));
            return keyed.ok_or_else(|| StepError::Config(format!("fieldPath `{path}` is not supported")));
        }
    };
    Ok(value)
}

/// A container's request or limit, in units of the divisor, rounded up: of CPUs in thousandths, of memory in bytes (the
/// kubelet's `convertResourceCPUToString`, `convertResourceMemoryToString`).
pub(crate) fn resource_value(
    pod: &ParsedPod,
    container: Option<&Container>,
    selector: &ResourceFieldSelector,
    facts: &FieldValues,
) -> Result<String, StepError> {
    let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
    let container = match named {
        Some(name) => pod.container(name),
        None => container,
    };
    let Some(container) = container else {
        return Err(StepError::Config(format!(
            "resourceFieldRef names container `{}`, which is not there",
            named.unwrap_or("")
        )));
    };
    let own = amounts(container.resources.as_ref());
    let or_node =
        |value: i64, node: u64| if value > 0 { value } else { i64::try_from(node).unwrap_or(i64::MAX) };
    let (value, in_units): (i64, fn(Quantity) -> i64) = match selector.resource.as_str() {
        "limits.cpu" => (or_node(own.cpu_limit, facts.node_cpu_milli), Quantity::millis),
        "requests.cpu" => (own.cpu_request, Quantity::millis),
        "limits.memory" => (or_node(own.memory_limit, facts.node_memory), Quantity::units),
        "requests.memory" => (own.memory_request, Quantity::units),
        other => return Err(StepError::Config(format!("resourceFieldRef `{other}` is not supported"))),
    };
    // No divisor, or one of 0, is 1.
    let divisor = selector.divisor.as_ref().map_or(Some(Quantity::ZERO), quantity);
    let one = Quantity::from_millis(1000);
    let divisor = divisor.map(|divisor| if divisor == Quantity::ZERO { one } else { divisor });
    let Some(divisor) = divisor.map(in_units).filter(|divisor| *divisor > 0) else {
        return Err(StepError::Config("resourceFieldRef has a divisor that is no quantity".to_owned()));
    };
    Ok((value / divisor + i64::from(value % divisor != 0)).to_string())
}

/// Replaces `$(NAME)` by what is known; `$$` is a dollar; what is unknown stays as it is.
pub(crate) fn expand(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match known.get(name) {
                Some(value) => out.push_str(value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::parsed_pod::tests::pod;
    use serde_json::json;

    #[test]
    fn expansion_follows_the_rules_of_kubernetes() {
        let known = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        for (text, want) in [
            ("$(A)", "1"),
            ("$$(A)", "$(A)"),
            ("$(B)", "$(B)"),
            ("a$", "a$"),
            ("$(A", "$(A"),
            ("x$(A)y$(A)", "x1y1"),
        ] {
            assert_eq!(expand(text, &known), want, "{text}");
        }
    }

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
        };
        let facts = FieldValues { pod_ips: vec!["10.0.0.2".into()], ..FieldValues::default() };
        let env = assemble(&pod, &pod.spec().containers[0], &sources, &facts).unwrap();
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
    fn amounts_are_told_in_units_of_the_divisor() {
        let pod = pod(json!({"containers": [{"name": "c", "image": "x",
            "resources": {"limits": {"cpu": "1500m", "memory": "1e3"}, "requests": {"memory": "0.3Ki"}}}]}));
        let container = &pod.spec().containers[0];
        let facts = FieldValues { node_cpu_milli: 4000, node_memory: 1 << 30, ..FieldValues::default() };
        let value = |selector: serde_json::Value| {
            let selector = serde_json::from_value(selector).unwrap();
            resource_value(&pod, Some(container), &selector, &facts)
        };
        for (resource, divisor, want) in [
            ("limits.cpu", "0", "2"),
            ("limits.cpu", "1m", "1500"),
            ("requests.cpu", "1", "2"),
            ("limits.memory", "1", "1000"),
            ("limits.memory", "1Ki", "1"),
            ("requests.memory", "1m", "308"),
        ] {
            assert_eq!(
                value(json!({"resource": resource, "divisor": divisor})).unwrap(),
                want,
                "{resource} by {divisor}"
            );
        }
        assert!(value(json!({"resource": "limits.cpu", "divisor": "1Zi"})).is_err());
        assert!(value(json!({"resource": "limits.cpu", "divisor": "-1"})).is_err());
    }

    #[test]
    fn what_is_missing_is_named() {
        let pod = pod(json!({"containers": [{"name": "c", "image": "x",
            "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}]}));
        let error = assemble(&pod, &pod.spec().containers[0], &Sources::default(), &FieldValues::default())
            .unwrap_err();
        assert_eq!(error, StepError::Missing("secret \"s\" not found".into()));
    }
}
