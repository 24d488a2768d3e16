//! For whom a mapper speaks, and who may be one. Pure.
//!
//! A pod speaks for its workload (namespace, service account and owner), so that the pod which takes its place is the
//! same; a process outside of pods speaks for its user. A protocol belongs to the first who registers for it, and to
//! another one only when he is gone.

use std::collections::BTreeMap;

use config::edge::MapperRule;
use serde::Deserialize;

/// For whom a caller speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MapperIdentity {
    /// The pods of a workload.
    Workload {
        namespace: String,
        account: String,
        /// Deployment, DaemonSet, …; Pod for one that nobody owns.
        kind: String,
        name: String,
    },
    /// The processes of a user outside of pods.
    User { uid: u32 },
}

impl std::fmt::Display for MapperIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MapperIdentity::Workload { namespace, account, kind, name } => {
                write!(f, "{kind} {namespace}/{name} (service account {account})")
            }
            MapperIdentity::User { uid } => write!(f, "user {uid} outside of pods"),
        }
    }
}

/// What is asked of a pod (core v1).
#[derive(Debug, Deserialize)]
struct Pod {
    metadata: Metadata,
    spec: Spec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    namespace: String,
    name: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    owner_references: Option<Vec<Owner>>,
}

#[derive(Debug, Deserialize)]
struct Owner {
    kind: String,
    name: String,
    #[serde(default)]
    controller: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    service_account_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct PodStatus {
    #[serde(default)]
    phase: Option<String>,
}

/// For whom a pod speaks; `None`: for nobody any more, it has ended.
///
/// # Errors
/// When the JSON is no pod.
pub(crate) fn of_pod(json: &[u8]) -> Result<Option<MapperIdentity>, serde_json::Error> {
    let pod: Pod = serde_json::from_slice(json)?;
    if matches!(pod.status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return Ok(None);
    }
    let owners = pod.metadata.owner_references.unwrap_or_default();
    let owner = owners.into_iter().find(|owner| owner.controller == Some(true));
    let (kind, name) = match owner {
        None => ("Pod".to_owned(), pod.metadata.name),
        // A Deployment has another ReplicaSet after each change, whose name ends with the hash that its pods wear.
        Some(owner) => {
            let hash = pod.metadata.labels.as_ref().and_then(|labels| labels.get("pod-template-hash"));
            let deployment = hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
            match deployment {
                Some(name) if owner.kind == "ReplicaSet" && !name.is_empty() => {
                    ("Deployment".to_owned(), name.to_owned())
                }
                _ => (owner.kind, owner.name),
            }
        }
    };
    let account = pod.spec.service_account_name.filter(|name| !name.is_empty());
    let account = account.unwrap_or_else(|| "default".to_owned());
    Ok(Some(MapperIdentity::Workload { namespace: pod.metadata.namespace, account, kind, name }))
}

/// Whether the settings let `identity` be the mapper of `protocol`. Without rules whoever can open the socket may.
pub(crate) fn may_be_mapper(rules: &[MapperRule], identity: &MapperIdentity, protocol: &str) -> bool {
    rules.is_empty()
        || rules.iter().any(|rule| {
            let named = match identity {
                MapperIdentity::User { uid } => rule.uid == Some(*uid),
                MapperIdentity::Workload { namespace, account, .. } => {
                    rule.uid.is_none()
                        && rule.namespace == *namespace
                        && (rule.service_account.is_empty() || rule.service_account == *account)
                }
            };
            named && (rule.protocols.is_empty() || rule.protocols.iter().any(|known| known == protocol))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn identity(pod: &Value) -> Option<MapperIdentity> {
        of_pod(pod.to_string().as_bytes()).unwrap()
    }

    fn deployed(pod: &str, set: &str, hash: &str) -> Value {
        json!({ "metadata": { "namespace": "m", "name": pod, "labels": { "pod-template-hash": hash },
                "ownerReferences": [{ "kind": "ReplicaSet", "name": set, "controller": true }] },
            "spec": { "serviceAccountName": "modbus" } })
    }

    #[test]
    fn the_pod_that_takes_anothers_place_is_the_same() {
        let before = identity(&deployed("modbus-7d9f8-aaaaa", "modbus-7d9f8", "7d9f8")).unwrap();
        assert_eq!(identity(&deployed("modbus-5c6b4-bbbbb", "modbus-5c6b4", "5c6b4")).unwrap(), before);
        assert_eq!(before.to_string(), "Deployment m/modbus (service account modbus)");
        let mut other = deployed("modbus-7d9f8-ccccc", "modbus-7d9f8", "7d9f8");
        other["metadata"]["namespace"] = json!("n");
        assert_ne!(identity(&other).unwrap(), before);
        let mut other = deployed("modbus-7d9f8-ccccc", "modbus-7d9f8", "7d9f8");
        other["spec"]["serviceAccountName"] = Value::Null;
        assert_ne!(identity(&other).unwrap(), before);
        // A hash that is not at the end of the name makes no Deployment of it.
        assert_ne!(identity(&deployed("x", "modbus-7d9f8", "odbus-7d9f8")).unwrap(), before);
        assert_ne!(identity(&deployed("x", "modbus", "modbus")).unwrap(), before);
    }

    #[test]
    fn a_pod_of_its_own_speaks_for_itself_until_it_has_ended() {
        let mut pod = json!({ "metadata": { "namespace": "m", "name": "lone",
            "ownerReferences": [{ "kind": "ReplicaSet", "name": "not-its-controller" }] }, "spec": {} });
        assert_eq!(identity(&pod).unwrap().to_string(), "Pod m/lone (service account default)");
        pod["status"] = json!({ "phase": "Failed" });
        assert_eq!(identity(&pod), None);
        assert!(of_pod(b"{}").is_err() && of_pod(b"[[[").is_err());
    }

    #[test]
    fn rules_name_pods_or_users_and_protocols() {
        let pod = identity(&deployed("modbus-7d9f8-aaaaa", "modbus-7d9f8", "7d9f8")).unwrap();
        let root = MapperIdentity::User { uid: 0 };
        assert!(may_be_mapper(&[], &pod, "modbus") && may_be_mapper(&[], &root, "modbus"));
        let rule = |namespace: &str, account: &str, uid, protocols: &[&str]| MapperRule {
            namespace: namespace.to_owned(),
            service_account: account.to_owned(),
            uid,
            protocols: protocols.iter().map(|protocol| (*protocol).to_owned()).collect(),
        };
        assert!(may_be_mapper(&[rule("m", "", None, &[])], &pod, "opcua"));
        assert!(may_be_mapper(
            &[rule("x", "", None, &[]), rule("m", "modbus", None, &["modbus"])],
            &pod,
            "modbus"
        ));
        assert!(!may_be_mapper(&[rule("m", "modbus", None, &["modbus"])], &pod, "opcua"));
        assert!(!may_be_mapper(&[rule("m", "other", None, &[])], &pod, "modbus"));
        assert!(!may_be_mapper(&[rule("", "", Some(0), &[])], &pod, "modbus"), "root in a pod is no root");
        assert!(!may_be_mapper(&[rule("m", "", None, &[])], &root, "modbus"));
        assert!(may_be_mapper(&[rule("", "", Some(0), &[])], &root, "modbus"));
        assert!(!may_be_mapper(&[rule("", "", Some(1), &[])], &root, "modbus"));
    }
}
