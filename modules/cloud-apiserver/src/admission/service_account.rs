//! The ServiceAccount plugin: a pod has an account that is there, and its token is mounted.

use apimachinery::{ObjectKey, kind, resource};
use kubeapi::unstructured::{as_fields, default, entry, items, list, name, namespace, text};
use kubeapi::{ApiError, ReadStore, random_suffix};
use serde_json::{Value, json};

/// # Errors
/// 403 without such an account.
pub(super) async fn mutate(
    store: &impl ReadStore,
    random: [u8; 16],
    pod: &mut Value,
) -> Result<(), ApiError> {
    let spec = entry(pod, "spec");
    default(spec, "serviceAccountName", json!("default"));
    let account = spec["serviceAccountName"].clone();
    default(spec, "serviceAccount", account);
    let (space, account) = (namespace(pod).to_owned(), text(pod, "/spec/serviceAccountName").to_owned());
    let key = ObjectKey::new(resource::SERVICE_ACCOUNTS, &*space, &*account);
    let Some(item) = store.get(&key).await? else {
        let what = format!(
            "error looking up service account {space}/{account}: serviceaccount \"{account}\" not found"
        );
        return Err(ApiError::forbidden_by_admission(&kind::PODS, name(pod), &what));
    };
    let account: Value = serde_json::from_slice(&item.json).unwrap_or_default();
    mount_token(pod, &account, &random_suffix(random));
    Ok(())
}

/// The volume and the mounts that give a pod its service account's token (the ServiceAccount admission plugin).
fn mount_token(pod: &mut Value, account: &Value, suffix: &str) {
    const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
    let wants = pod
        .pointer("/spec/automountServiceAccountToken")
        .or(account.get("automountServiceAccountToken"))
        .and_then(Value::as_bool)
        .unwrap_or(true);
    let spec = entry(pod, "spec");
    if list(spec, "/imagePullSecrets").is_empty()
        && let Some(secrets) = account.get("imagePullSecrets")
    {
        as_fields(spec).insert("imagePullSecrets".to_owned(), secrets.clone());
    }
    if !wants {
        return;
    }
    let volume = format!("kube-api-access-{suffix}");
    let mut mounted = false;
    for kind in ["initContainers", "containers"] {
        for container in items(spec, kind) {
            if list(container, "/volumeMounts").iter().any(|mount| text(mount, "/mountPath") == MOUNT) {
                continue;
            }
            mounted = true;
            let mounts = entry(container, "volumeMounts");
            let mount = json!({"name": volume, "readOnly": true, "mountPath": MOUNT});
            match mounts {
                Value::Array(mounts) => mounts.push(mount),
                other => *other = json!([mount]),
            }
        }
    }
    if !mounted {
        return;
    }
    let projected = json!({
        "name": volume,
        "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]},
    });
    match entry(spec, "volumes") {
        Value::Array(volumes) => volumes.push(projected),
        other => *other = json!([projected]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_mounted_into_every_container_once() {
        let mut pod =
            json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}], "volumes": [{"name": "v"}]}});
        mount_token(&mut pod, &json!({}), "abcde");
        assert_eq!(pod["spec"]["volumes"][1]["name"], "kube-api-access-abcde");
        assert_eq!(pod["spec"]["containers"][1]["volumeMounts"][0]["name"], "kube-api-access-abcde");
        let once = pod.clone();
        mount_token(&mut pod, &json!({}), "fghij");
        assert_eq!(pod, once);
    }

    #[test]
    fn an_account_can_say_that_no_token_is_mounted() {
        let mut pod = json!({"spec": {"containers": [{"name": "a"}]}});
        mount_token(&mut pod, &json!({"automountServiceAccountToken": false}), "x");
        assert_eq!(pod["spec"].get("volumes"), None);
    }
}
