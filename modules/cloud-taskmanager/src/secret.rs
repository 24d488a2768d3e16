//! The Secret that a job's registries are shown, as the API server has it.

use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use kubewatch::status_code;
use serde_json::json;

/// 128 KiB of a Secret: it goes to every node of the job.
const SECRET_BYTES_MAX: usize = 128 << 10;
/// The kinds that hold credentials for registries.
const KINDS: [&str; 2] = ["kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg"];

/// Reads it, as the JSON that goes to nodes.
///
/// # Errors
/// A sentence, and whether it is worth to ask again.
pub(crate) async fn read(
    client: &kube::Client,
    namespace: &str,
    name: &str,
) -> Result<String, (String, bool)> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = match secrets.get(name).await {
        Ok(secret) => secret,
        Err(error) => {
            let code = status_code(&error);
            let why = match code {
                Some(404) => format!("imageSecrets: there is no Secret {namespace}/{name}"),
                Some(403) => format!(
                    "imageSecrets: CloudCore may not read the Secret {namespace}/{name}: bind a Role with `get` of it to the account cloudcore"
                ),
                _ => format!("imageSecrets: the Secret {namespace}/{name} cannot be read now"),
            };
            return Err((why, !matches!(code, Some(403 | 404))));
        }
    };
    sent(&secret).map_err(|why| (format!("imageSecrets: the Secret {namespace}/{name} {why}"), false))
}

fn sent(secret: &Secret) -> Result<String, String> {
    let kind = secret.type_.as_deref().unwrap_or_default();
    if !KINDS.contains(&kind) {
        return Err(format!("is not of the type {} or {}", KINDS[0], KINDS[1]));
    }
    let metadata = &secret.metadata;
    let json = json!({
        "metadata": {"name": metadata.name, "namespace": metadata.namespace, "uid": metadata.uid},
        "type": kind,
        "data": secret.data,
    })
    .to_string();
    if json.len() > SECRET_BYTES_MAX {
        return Err(format!("has {} bytes, and may have {SECRET_BYTES_MAX}", json.len()));
    }
    Ok(json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn credentials_alone_are_sent_and_nothing_beside_them() {
        let secret = |kind: &str, data: &str| -> Secret {
            let json = json!({
                "metadata": {"name": "r", "namespace": "d", "uid": "u", "annotations": {"a": "b"}},
                "type": kind, "data": {".dockerconfigjson": data},
            });
            serde_json::from_value(json).unwrap()
        };
        let json = sent(&secret("kubernetes.io/dockerconfigjson", "e30=")).unwrap();
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["metadata"], json!({"name": "r", "namespace": "d", "uid": "u"}));
        assert_eq!(json["data"][".dockerconfigjson"], "e30=");
        assert!(sent(&secret("Opaque", "e30=")).unwrap_err().contains("is not of the type"));
        let large = "QUFB".repeat(SECRET_BYTES_MAX / 4);
        assert!(sent(&secret("kubernetes.io/dockerconfigjson", &large)).unwrap_err().contains("may have"));
    }
}
