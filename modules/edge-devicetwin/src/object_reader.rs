//! Reads the objects that changed out of the node's store: devices, their models, and pods, for mappers may be in one. Runs
//! on a thread that may wait.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::{NamespacedName, ObjectKey};
use contract::ChangedObjects;
use contract::ids::DeviceName;
use contract::ids::{DEVICE_MODELS, DEVICES, PODS};
use contract::json_values::{VALUES_MAX, has_at_most};
use crd::{Device, DeviceModel};
use edge_store::{Lookup, Store, StoreError, StoredObject};
use serde::de::DeserializeOwned;

use crate::identity::{self, MapperIdentity};

/// What is in the store under a key.
#[derive(Debug)]
pub(crate) enum ObjectState<T> {
    /// This.
    Present(T),
    /// Something that cannot be read or is not understood: whatever was known stays.
    Unreadable,
    /// Nothing.
    Absent,
}

/// A pod of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) uid: String,
    /// For whom it speaks; `None`: it has ended.
    pub(crate) identity: Option<MapperIdentity>,
}

/// What the changed objects are now.
#[derive(Debug, Default)]
pub(crate) struct ReadObjects {
    /// With their uids.
    pub(crate) devices: BTreeMap<DeviceName, ObjectState<(String, Device)>>,
    pub(crate) models: BTreeMap<DeviceName, ObjectState<DeviceModel>>,
    pub(crate) pods: BTreeMap<NamespacedName, ObjectState<Pod>>,
    /// Objects that are not understood, and why.
    pub(crate) not_understood: Vec<(String, String)>,
}

/// Reads the objects that `changed`; where any may have, those in the store and those that are `known`.
pub(crate) fn read(
    store: &Store,
    changed: ChangedObjects,
    known: Vec<ObjectKey>,
) -> Result<ReadObjects, StoreError> {
    let keys: BTreeSet<ObjectKey> = match changed {
        ChangedObjects::Keys(keys) => keys.into_iter().collect(),
        ChangedObjects::Any => {
            let mut keys: BTreeSet<ObjectKey> = known.into_iter().collect();
            for resource in [DEVICES, DEVICE_MODELS, PODS] {
                keys.extend(store.object_keys(resource)?);
            }
            keys
        }
    };
    let keys: Vec<ObjectKey> = keys.into_iter().collect();
    let mut found = ReadObjects::default();
    for (key, lookup) in keys.iter().zip(store.look_up(&keys)?) {
        found.take(key, lookup);
    }
    Ok(found)
}

/// Reads all pods.
pub(crate) fn read_pods(store: &Store) -> Result<ReadObjects, StoreError> {
    let keys = store.object_keys(PODS)?;
    let mut found = ReadObjects::default();
    for (key, lookup) in keys.iter().zip(store.look_up(&keys)?) {
        found.take(key, lookup);
    }
    Ok(found)
}

impl ReadObjects {
    fn take(&mut self, key: &ObjectKey, lookup: Lookup) {
        if key.resource == PODS {
            let pod = self.seen(key, lookup, |object| {
                bounded(&object.json)?;
                let identity = identity::of_pod(&object.json).map_err(|error| error.to_string())?;
                Ok(Pod { uid: object.uid, identity })
            });
            self.pods.insert(key.namespaced_name(), pod);
            return;
        }
        let id = match DeviceName::parse(&key.namespace, &key.name) {
            Ok(id) => id,
            Err(error) => {
                self.not_understood.push((key.to_string(), error.to_string()));
                return;
            }
        };
        if key.resource == DEVICES {
            let device = self.seen(key, lookup, |object| {
                let device: Device = parse(&object.json)?;
                Ok((object.uid, device.without_repeats()))
            });
            self.devices.insert(id, device);
        } else if key.resource == DEVICE_MODELS {
            let model =
                self.seen(key, lookup, |object| parse(&object.json).map(DeviceModel::without_repeats));
            self.models.insert(id, model);
        }
    }

    fn seen<T>(
        &mut self,
        key: &ObjectKey,
        lookup: Lookup,
        parse: impl FnOnce(StoredObject) -> Result<T, String>,
    ) -> ObjectState<T> {
        match lookup {
            Lookup::Absent => ObjectState::Absent,
            Lookup::Damaged => ObjectState::Unreadable,
            Lookup::Found(object) => match parse(object) {
                Ok(value) => ObjectState::Present(value),
                Err(reason) => {
                    self.not_understood.push((key.to_string(), reason));
                    ObjectState::Unreadable
                }
            },
        }
    }
}

/// An object's JSON; members that are null are none. One of too many values is not taken apart.
pub(crate) fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, String> {
    bounded(json)?;
    let mut value: serde_json::Value = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    crd::without_nulls(&mut value);
    serde_json::from_value(value).map_err(|error| error.to_string())
}

fn bounded(json: &[u8]) -> Result<(), String> {
    if has_at_most(json, VALUES_MAX) {
        return Ok(());
    }
    Err(format!("it is too large: it has more than {VALUES_MAX} values, lists and maps counted"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_of_too_many_values_is_not_taken_apart_and_says_why() {
        let device = |values: usize| {
            let list = vec!["\"a\""; values].join(",");
            format!(
                r#"{{"metadata":{{"name":"d","namespace":"n"}},"spec":{{"protocol":{{"protocolName":"p","configData":{{"x":[{list}]}}}}}}}}"#
            )
        };
        assert!(parse::<Device>(device(VALUES_MAX - 20).as_bytes()).is_ok());
        let why = parse::<Device>(device(360_000).as_bytes()).unwrap_err();
        assert!(why.contains("more than 40000 values"), "{why}");
    }
}
