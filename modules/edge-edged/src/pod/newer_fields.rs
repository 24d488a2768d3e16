//! Fields of a pod that are newer than the types it is parsed into.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// A variable from a file of a volume (`valueFrom.fileKeyRef`, since Kubernetes 1.34).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FileKey {
    /// The emptyDir with the file.
    pub(crate) volume_name: String,
    /// Where in it the file is.
    pub(crate) path: String,
    /// The variable in the file.
    pub(crate) key: String,
    /// Whether the file may lack the variable.
    #[serde(default)]
    pub(crate) optional: bool,
}

/// What was found of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NewerFields {
    /// `hostnameOverride`, since Kubernetes 1.34.
    pub(crate) hostname_override: Option<String>,
    /// The claim of devices that the scheduler has made for extended resources (`status.extendedResourceClaimStatus`, since 1.34).
    pub(crate) extended_resource_claim: Option<String>,
    /// By the container and the variable that is set from it.
    file_keys: BTreeMap<(String, String), FileKey>,
}

impl NewerFields {
    /// Those of a pod.
    ///
    /// # Errors
    /// When one of them is not what Kubernetes publishes.
    pub(crate) fn of_pod(pod: &Value) -> Result<Self, serde_json::Error> {
        let found = pod.get("spec").map(NewerFields::of_spec).transpose()?.unwrap_or_default();
        let claim = pod.pointer("/status/extendedResourceClaimStatus/resourceClaimName");
        Ok(NewerFields { extended_resource_claim: claim.and_then(Value::as_str).map(str::to_owned), ..found })
    }

    fn of_spec(spec: &Value) -> Result<Self, serde_json::Error> {
        let text = spec.get("hostnameOverride").filter(|name| !name.is_null());
        let mut found = NewerFields {
            hostname_override: text.map(Deserialize::deserialize).transpose()?,
            ..NewerFields::default()
        };
        for kind in ["initContainers", "containers", "ephemeralContainers"] {
            for container in list(spec, kind) {
                for variable in list(container, "env") {
                    let Some(file) = variable.pointer("/valueFrom/fileKeyRef").filter(|file| !file.is_null())
                    else {
                        continue;
                    };
                    let place = (text_of(container, "name"), text_of(variable, "name"));
                    found.file_keys.insert(place, Deserialize::deserialize(file)?);
                }
            }
        }
        Ok(found)
    }

    /// What a variable of a container is set from, if that is a file.
    pub(crate) fn file_key(&self, container: &str, variable: &str) -> Option<&FileKey> {
        self.file_keys.get(&(container.to_owned(), variable.to_owned()))
    }

    /// All that a container's variables are set from.
    pub(crate) fn file_keys_of(&self, container: &str) -> impl Iterator<Item = &FileKey> {
        self.file_keys.iter().filter(move |((name, _), _)| name == container).map(|(_, key)| key)
    }

    /// The volumes that variables are taken from.
    pub(crate) fn env_file_volumes(&self) -> impl Iterator<Item = &str> {
        self.file_keys.values().map(|key| key.volume_name.as_str())
    }
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

fn text_of(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_types_do_not_have_is_found() {
        let file = json!({"volumeName": "v", "path": "a/env", "key": "K", "optional": true});
        let spec = json!({"hostnameOverride": "h.example", "initContainers": [
            {"name": "i", "env": [{"name": "A", "valueFrom": {"fileKeyRef": file}}, {"name": "B", "value": "1"}]}]});
        let found = NewerFields::of_spec(&spec).unwrap();
        assert_eq!(found.hostname_override.as_deref(), Some("h.example"));
        let key = found.file_key("i", "A").unwrap();
        assert_eq!((key.path.as_str(), key.optional), ("a/env", true));
        assert!(found.file_key("i", "B").is_none() && found.file_keys_of("c").next().is_none());
        assert_eq!(found.env_file_volumes().collect::<Vec<_>>(), ["v"]);
        assert_eq!(NewerFields::of_spec(&json!({"hostnameOverride": null})).unwrap(), NewerFields::default());
        assert!(NewerFields::of_spec(&json!({"hostnameOverride": 7})).is_err());
    }
}
