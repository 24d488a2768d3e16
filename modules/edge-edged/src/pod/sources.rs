//! The config maps and secrets that a pod names, with their values, and the services beside it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};

use crate::error::StepError;

/// What a pod takes from the store, already read. `None`: not there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    pub(crate) config_maps: BTreeMap<String, Option<ConfigMap>>,
    pub(crate) secrets: BTreeMap<String, Option<Secret>>,
    /// Those of the pod's namespace, as far as the node knows them.
    pub(crate) services: Vec<Service>,
}

impl Sources {
    /// A config map; `None` when it is optional and not there.
    pub(crate) fn config_map(&self, name: &str, optional: bool) -> Result<Option<&ConfigMap>, StepError> {
        match self.config_maps.get(name).and_then(Option::as_ref) {
            Some(map) => Ok(Some(map)),
            None if optional => Ok(None),
            None => Err(StepError::Missing(format!("configmap \"{name}\" not found"))),
        }
    }

    /// A secret; `None` when it is optional and not there.
    pub(crate) fn secret(&self, name: &str, optional: bool) -> Result<Option<&Secret>, StepError> {
        match self.secrets.get(name).and_then(Option::as_ref) {
            Some(secret) => Ok(Some(secret)),
            None if optional => Ok(None),
            None => Err(StepError::Missing(format!("secret \"{name}\" not found"))),
        }
    }
}

/// One entry of a config map.
pub(crate) fn value_in_map<'a>(map: &'a ConfigMap, key: &str) -> Option<&'a [u8]> {
    let binary = map.binary_data.as_ref().and_then(|all| all.get(key)).map(|bytes| bytes.0.as_slice());
    binary.or_else(|| map.data.as_ref()?.get(key).map(String::as_bytes))
}

/// One entry of a secret.
pub(crate) fn value_in_secret<'a>(secret: &'a Secret, key: &str) -> Option<&'a [u8]> {
    let text = secret.string_data.as_ref().and_then(|all| all.get(key)).map(String::as_bytes);
    text.or_else(|| secret.data.as_ref()?.get(key).map(|bytes| bytes.0.as_slice()))
}

/// All entries of a config map as bytes.
pub(crate) fn bytes_of_map(map: &ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()));
    text.chain(binary).collect()
}

/// All entries of a secret as bytes.
pub(crate) fn bytes_of_secret(secret: &Secret) -> BTreeMap<String, Vec<u8>> {
    let binary = secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()));
    let text =
        secret.string_data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    binary.chain(text).collect()
}
