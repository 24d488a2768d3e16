//! Whose an object is, as Helm writes it down: by this `helm upgrade --install` takes over what `keadm init` installed, and `keadm reset
//! cloud` finds what either did.

use serde_json::{Map, Value, json};

/// The release's name.
pub const RELEASE: &str = "cloudcore";
/// The namespace of CloudCore, where nobody names another.
pub const NAMESPACE: &str = "kubeedge";

const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "Helm");
const RELEASE_NAME: (&str, &str) = ("meta.helm.sh/release-name", RELEASE);
/// The annotation that names the namespace of an object's release.
const RELEASE_NAMESPACE: &str = "meta.helm.sh/release-namespace";

/// A Namespace that only a release of this chart has, and once in a cluster. KubeEdge's own release has the name and, most often, the
/// namespace that ours has where nobody names another.
pub const NODES_NAMESPACE: &str = "kubehive-nodes";

/// The namespace `name` for CloudCore, which as with `helm install --create-namespace` is not of the release. Pod Security lets into it what
/// the values ask for, and no more.
pub fn namespace(values: &Value, name: &str) -> Value {
    let is_set = |pointer: &str| values.pointer(pointer).and_then(Value::as_bool) == Some(true);
    let has_volumes = values.pointer("/cloudCore/extraVolumes").and_then(Value::as_array);
    let of_host = has_volumes.into_iter().flatten().any(|volume| volume.get("hostPath").is_some());
    let is_on_host = is_set("/cloudCore/hostNetWork") || is_set("/cloudCore/hostPorts") || of_host;
    let level = if is_on_host { "privileged" } else { "restricted" };
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": { "name": name, "labels": { "pod-security.kubernetes.io/enforce": level } },
    })
}

/// Writes down that an object is of the release in `namespace`.
pub fn owned(object: &mut Value, namespace: &str) {
    let mut put = |field: &str, (name, value): (&str, &str)| {
        let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
        let of = metadata.entry(field).or_insert_with(|| Value::Object(Map::new()));
        if let Some(of) = of.as_object_mut() {
            of.insert(name.to_owned(), value.into());
        }
    };
    put("labels", MANAGED_BY);
    put("annotations", RELEASE_NAME);
    put("annotations", (RELEASE_NAMESPACE, namespace));
}

/// Whether an object is of the release in `namespace`.
pub fn is_of_release(object: &Value, namespace: &str) -> bool {
    let has = |field: &str, (name, value): (&str, &str)| {
        object.get("metadata").and_then(|metadata| metadata.get(field)?.get(name)?.as_str()) == Some(value)
    };
    has("labels", MANAGED_BY)
        && has("annotations", RELEASE_NAME)
        && release_namespace(object) == Some(namespace)
}

/// The namespace of the release that an object says to be of.
pub fn release_namespace(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("annotations")?.get(RELEASE_NAMESPACE)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_the_releases_once_that_is_written_down() {
        let mut object = json!({"kind": "Service", "metadata": {"name": "a", "labels": {"b": "c"}}});
        assert!(!is_of_release(&object, NAMESPACE));
        owned(&mut object, NAMESPACE);
        assert!(is_of_release(&object, NAMESPACE) && !is_of_release(&object, "hive"));
        assert_eq!(object["metadata"]["labels"]["b"], "c");
        owned(&mut object, "hive");
        assert!(is_of_release(&object, "hive") && release_namespace(&object) == Some("hive"));
        object["metadata"]["annotations"]["meta.helm.sh/release-name"] = "other".into();
        assert!(!is_of_release(&object, "hive"));
    }

    #[test]
    fn the_namespace_allows_what_the_values_ask_for() {
        let level = |values: Value| {
            namespace(&values, "hive")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"].clone()
        };
        assert_eq!(level(json!({})), "restricted");
        assert_eq!(level(json!({"cloudCore": {"hostNetWork": true}})), "privileged");
        assert_eq!(level(json!({"cloudCore": {"hostPorts": true}})), "privileged");
        let volume = |source: &str| json!({"cloudCore": {"extraVolumes": [{"name": "a", source: {}}]}});
        assert_eq!(
            (level(volume("hostPath")), level(volume("secret"))),
            (json!("privileged"), json!("restricted"))
        );
    }
}
