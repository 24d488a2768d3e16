//! Fields and resources of a pod, as variables and files of its containers show them. Pure.

use std::collections::BTreeMap;

use apimachinery::Quantity;
use k8s_openapi::api::core::v1::{
    Container, ObjectFieldSelector, ResourceFieldSelector, ResourceRequirements,
};

use crate::error::StepError;
use crate::pod::parsed_pod::ParsedPod;
use crate::runtime::resources::quantity;

/// What is known of the pod and its node when a container starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldValues {
    pub(crate) pod_ips: Vec<String>,
    pub(crate) host_ips: Vec<String>,
    pub(crate) node_name: String,
    /// Of the node, for containers without limits: thousandths of a CPU, bytes.
    pub(crate) node_cpu_milli: u64,
    pub(crate) node_memory: u64,
    /// Bytes of the node's disk.
    pub(crate) node_disk: u64,
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
            map.iter().flatten().map(|(key, value)| format!("{key}={}", quoted(value))).collect();
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
    let (value, in_units) = resource_amount(pod, container, &selector.resource, facts)?;
    // No divisor, or one of 0, is 1.
    let divisor = selector.divisor.as_ref().map_or(Some(Quantity::ZERO), quantity);
    let one = Quantity::from_millis(1000);
    let divisor = divisor.map(|divisor| if divisor == Quantity::ZERO { one } else { divisor });
    let Some(divisor) = divisor.map(in_units).filter(|divisor| *divisor > 0) else {
        return Err(StepError::Config("resourceFieldRef has a divisor that is no quantity".to_owned()));
    };
    Ok((value / divisor + i64::from(value % divisor != 0)).to_string())
}

/// How a quantity is counted.
type InUnits = fn(Quantity) -> i64;

/// What a container may have or asks for, and in what it is counted: the container's own, else the pod's, else for limits
/// what the node has.
fn resource_amount(
    pod: &ParsedPod,
    container: &Container,
    selected: &str,
    facts: &FieldValues,
) -> Result<(i64, InUnits), StepError> {
    let unsupported = || StepError::Config(format!("resourceFieldRef `{selected}` is not supported"));
    let (kind, resource) = selected.split_once('.').ok_or_else(unsupported)?;
    let in_units: InUnits = match resource {
        "cpu" => Quantity::millis,
        "memory" | "ephemeral-storage" => Quantity::units,
        huge if huge.starts_with("hugepages-") => Quantity::units,
        _ => return Err(unsupported()),
    };
    let of = |own: Option<&ResourceRequirements>, limit: bool| {
        let map = own.and_then(|own| if limit { own.limits.as_ref() } else { own.requests.as_ref() })?;
        map.get(resource).and_then(quantity).map(in_units).filter(|amount| *amount > 0)
    };
    let own = |limit: bool| of(container.resources.as_ref(), limit);
    let node = || match resource {
        "cpu" => facts.node_cpu_milli,
        "memory" => facts.node_memory,
        "ephemeral-storage" => facts.node_disk,
        _ => 0,
    };
    match kind {
        "limits" => {
            let of_pod = || of(pod.spec().resources.as_ref(), true);
            let amount =
                own(true).or_else(of_pod).unwrap_or_else(|| i64::try_from(node()).unwrap_or(i64::MAX));
            Ok((amount, in_units))
        }
        // Without a request it is as much as the limit, as the API server has it; the pod's is nobody's.
        "requests" => Ok((own(false).or_else(|| own(true)).unwrap_or(0), in_units)),
        _ => Err(unsupported()),
    }
}

/// A text as Go's `%q` writes it, which is how the kubelet puts labels and annotations into files.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if c.is_ascii_graphic() || c == ' ' || is_shown(c) => out.push(c),
            c if u32::from(c) < 0x80 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if u32::from(c) < 0x1_0000 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

/// Whether a character beyond ASCII shows as itself. Behind a letter, a mark is no character of its own, and stays.
fn is_shown(c: char) -> bool {
    !c.is_ascii() && format!("a{c}").escape_debug().eq(['a', c])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::parsed_pod::tests::pod;
    use serde_json::json;

    #[test]
    fn amounts_are_told_in_units_of_the_divisor() {
        let pod = pod(json!({"containers": [{"name": "c", "image": "x",
            "resources": {"limits": {"cpu": "1500m", "memory": "1e3"}, "requests": {"memory": "0.3Ki"}}}]}));
        let container = &pod.spec().containers[0];
        let facts = FieldValues {
            node_cpu_milli: 4000,
            node_memory: 1 << 30,
            node_disk: 1 << 40,
            ..FieldValues::default()
        };
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
        for (resource, want) in [
            ("limits.ephemeral-storage", "1099511627776"),
            ("requests.ephemeral-storage", "0"),
            ("limits.hugepages-2Mi", "0"),
        ] {
            assert_eq!(value(json!({"resource": resource})).unwrap(), want, "{resource}");
        }
        assert!(value(json!({"resource": "limits.nvidia.com/gpu"})).is_err());
        assert!(value(json!({"resource": "limits.cpu", "divisor": "1Zi"})).is_err());
        assert!(value(json!({"resource": "limits.cpu", "divisor": "-1"})).is_err());
    }

    #[test]
    fn what_a_container_does_not_say_the_pod_says() {
        let pod = pod(json!({"resources": {"limits": {"memory": "64Mi"}, "requests": {"memory": "32Mi"}}}));
        let value = |resource: &str| {
            let selector = serde_json::from_value(json!({"resource": resource, "divisor": "1Mi"})).unwrap();
            let facts = FieldValues { node_memory: 1 << 30, ..FieldValues::default() };
            resource_value(&pod, Some(&pod.spec().containers[0]), &selector, &facts).unwrap()
        };
        assert_eq!((value("limits.memory"), value("requests.memory")), ("64".to_owned(), "0".to_owned()));
    }

    #[test]
    fn labels_are_quoted_as_go_quotes() {
        for (text, wanted) in [
            ("a \"b\" \\", r#""a \"b\" \\""#),
            ("\n\t\u{1}\u{7f}\0", r#""\n\t\x01\x7f\x00""#),
            ("ü e\u{301} 日本 🦀", "\"ü e\u{301} 日本 🦀\""),
            ("\u{a0}\u{200b}\u{feff}\u{e0001}", r#""\u00a0\u200b\ufeff\U000e0001""#),
        ] {
            assert_eq!(quoted(text), wanted);
        }
    }
}
