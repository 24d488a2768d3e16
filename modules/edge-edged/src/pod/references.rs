//! The config maps and secrets that a pod names.

use std::collections::{BTreeMap, BTreeSet};

use contract::ids::{CONFIG_MAPS, SECRETS};
use edge_store::ObjectKey;
use k8s_openapi::api::core::v1::{ConfigMap, PodSpec, Secret};

use crate::error::StepError;
use crate::pod::parsed_pod::all_of;

/// What a pod takes from the store, already read. `None`: not there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    pub(crate) config_maps: BTreeMap<String, Option<ConfigMap>>,
    pub(crate) secrets: BTreeMap<String, Option<Secret>>,
}

/// The names a pod refers to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct References {
    pub(crate) config_maps: BTreeSet<String>,
    pub(crate) secrets: BTreeSet<String>,
}

/// All config maps and secrets of a pod: volumes, projected volumes, env, envFrom, pull secrets.
pub(crate) fn references(spec: &PodSpec) -> References {
    let mut found = References::default();
    for volume in spec.volumes.iter().flatten() {
        if let Some(map) = &volume.config_map {
            found.config_maps.insert(map.name.clone());
        }
        found.secrets.extend(volume.secret.iter().filter_map(|secret| secret.secret_name.clone()));
        let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        for source in sources {
            found.config_maps.extend(source.config_map.iter().map(|map| map.name.clone()));
            found.secrets.extend(source.secret.iter().map(|secret| secret.name.clone()));
        }
    }
    for container in all_of(spec) {
        for from in container.env_from.iter().flatten() {
            found.config_maps.extend(from.config_map_ref.iter().map(|map| map.name.clone()));
            found.secrets.extend(from.secret_ref.iter().map(|secret| secret.name.clone()));
        }
        for from in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
            found.config_maps.extend(from.config_map_key_ref.iter().map(|map| map.name.clone()));
            found.secrets.extend(from.secret_key_ref.iter().map(|secret| secret.name.clone()));
        }
    }
    found.secrets.extend(spec.image_pull_secrets.iter().flatten().map(|secret| secret.name.clone()));
    found
}

impl References {
    /// Whether one of the objects is named.
    pub(crate) fn meet(&self, namespace: &str, objects: &BTreeSet<ObjectKey>) -> bool {
        objects.iter().filter(|key| key.namespace == namespace).any(|key| match key.resource.as_str() {
            CONFIG_MAPS => self.config_maps.contains(&key.name),
            SECRETS => self.secrets.contains(&key.name),
            _ => false,
        })
    }
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
