//! The Priority plugin, and who may make mirror pods.

use kubeapi::User;
use kubeapi::unstructured::{as_fields, entry, namespace, number, text};
use serde_json::{Value, json};

/// The classes that every cluster has, and their values. Others would be objects, which are not served here.
const CLASSES: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];
/// The annotation of a mirror, as a JSON pointer.
const MIRROR: &str = "/metadata/annotations/kubernetes.io~1config.mirror";

/// Sets a new pod's priority from its class. The system's classes are for `kube-system`, and for `system:masters`.
///
/// # Errors
/// Why the pod is forbidden, in Kubernetes' words.
pub(super) fn mutate(user: &User, pod: &mut Value) -> Result<(), String> {
    let class = text(pod, "/spec/priorityClassName").to_owned();
    let computed = match CLASSES.iter().find(|(known, _)| *known == class) {
        Some((_, value)) => {
            let space = namespace(pod);
            if space != "kube-system" && !user.is_master() {
                return Err(format!("pods with {class} priorityClass is not permitted in {space} namespace"));
            }
            *value
        }
        None if class.is_empty() => 0,
        None => return Err(format!("no PriorityClass with name {class} was found")),
    };
    if let Some(given) = number(pod, "/spec/priority").filter(|given| *given != computed) {
        return Err(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {computed} from the given PriorityClass name"
        ));
    }
    as_fields(entry(pod, "spec")).insert("priority".to_owned(), json!(computed));
    Ok(())
}

/// Through whom an edge node says so.
const CLOUDCORE: &str = "system:serviceaccount:kubeedge:cloudcore";

/// Only a node says what mirrors its own pods, itself or through CloudCore: others could make it believe that a pod is not to be run.
/// CloudCore makes no other pods (in a cluster the policy `kubehive-cloudcore-mirrors` says so).
///
/// # Errors
/// Why the pod is forbidden.
pub(super) fn validate_mirror(user: &User, old: Option<&Value>, new: &Value) -> Result<(), &'static str> {
    if user.name == CLOUDCORE && old.is_none() && new.pointer(MIRROR).is_none() {
        return Err("CloudCore makes mirror pods alone");
    }
    let said = old.and_then(|old| old.pointer(MIRROR));
    let is_node = user.groups.iter().any(|group| group == "system:nodes");
    if said == new.pointer(MIRROR) || is_node || user.name == CLOUDCORE || user.is_master() {
        return Ok(());
    }
    Err("only a node may set, change or remove the annotation kubernetes.io/config.mirror")
}
