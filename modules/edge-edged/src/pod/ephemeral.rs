//! Ephemeral containers, as `kubectl debug` adds them to a pod that runs: started once, never again, and no part of what
//! becomes of the pod. Pure.

use k8s_openapi::api::core::v1::Container;
use serde_json::Value;

/// One of a pod's ephemeral containers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EphemeralContainer {
    /// What it shares with other containers, which is nearly all.
    pub(crate) container: Container,
    /// The container whose processes it sees.
    pub(crate) target: Option<String>,
}

/// Those of a pod's `spec`.
///
/// # Errors
/// When one is no container.
pub(crate) fn of_spec(spec: &Value) -> Result<Vec<EphemeralContainer>, serde_json::Error> {
    let all = spec.get("ephemeralContainers").and_then(Value::as_array);
    let each = all.into_iter().flatten().map(|raw| {
        let target = raw.get("targetContainerName").and_then(Value::as_str);
        let target = target.filter(|name| !name.is_empty()).map(str::to_owned);
        Ok(EphemeralContainer { container: serde_json::from_value(raw.clone())?, target })
    });
    each.collect()
}
