//! The node's devices and models, as the cloud wants them, and which devices name which model. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crd::{Device, DeviceModel};

use crate::{DeviceId, convert};

/// The devices and models that the node has.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    devices: BTreeMap<DeviceId, Device>,
    models: BTreeMap<DeviceId, DeviceModel>,
    /// The devices that name a model, whether the node has it or not.
    users: BTreeMap<DeviceId, BTreeSet<DeviceId>>,
}

impl Catalog {
    pub(crate) fn device(&self, id: &DeviceId) -> Option<&Device> {
        self.devices.get(id)
    }

    pub(crate) fn devices(&self) -> impl Iterator<Item = (&DeviceId, &Device)> {
        self.devices.iter()
    }

    pub(crate) fn model(&self, id: &DeviceId) -> Option<&DeviceModel> {
        self.models.get(id)
    }

    /// The model of a device: its id, and itself if the node has it.
    pub(crate) fn model_of(
        &self,
        id: &DeviceId,
        device: &Device,
    ) -> (Option<DeviceId>, Option<&DeviceModel>) {
        let model = model_id(id, device);
        let found = model.as_ref().and_then(|model| self.models.get(model));
        (model, found)
    }

    /// The model that a device of the node names.
    pub(crate) fn model_id_of(&self, id: &DeviceId) -> Option<DeviceId> {
        model_id(id, self.devices.get(id)?)
    }

    /// The protocol of a device. A device that is not in the catalog could not be read, and has none.
    pub(crate) fn protocol_of(&self, id: &DeviceId) -> Option<&str> {
        let device = self.devices.get(id)?;
        Some(convert::protocol(device, self.model_of(id, device).1))
    }

    /// The devices that name a model.
    pub(crate) fn users_of(&self, model: &DeviceId) -> impl Iterator<Item = &DeviceId> {
        self.users.get(model).into_iter().flatten()
    }

    /// Whether a device of the protocol names the model.
    pub(crate) fn is_used(&self, model: &DeviceId, protocol: &str) -> bool {
        self.users_of(model).any(|device| self.protocol_of(device) == Some(protocol))
    }

    pub(crate) fn put_device(&mut self, id: DeviceId, device: Device) {
        self.remove_device(&id);
        if let Some(model) = model_id(&id, &device) {
            self.users.entry(model).or_default().insert(id.clone());
        }
        self.devices.insert(id, device);
    }

    pub(crate) fn remove_device(&mut self, id: &DeviceId) {
        let Some(old) = self.devices.remove(id) else { return };
        let Some(model) = model_id(id, &old) else { return };
        if let Some(users) = self.users.get_mut(&model) {
            users.remove(id);
            if users.is_empty() {
                self.users.remove(&model);
            }
        }
    }

    pub(crate) fn put_model(&mut self, id: DeviceId, model: DeviceModel) {
        self.models.insert(id, model);
    }

    pub(crate) fn remove_model(&mut self, id: &DeviceId) {
        self.models.remove(id);
    }

    /// The ids of all devices and of all models.
    pub(crate) fn ids(&self) -> (impl Iterator<Item = &DeviceId>, impl Iterator<Item = &DeviceId>) {
        (self.devices.keys(), self.models.keys())
    }
}

fn model_id(id: &DeviceId, device: &Device) -> Option<DeviceId> {
    DeviceId::parse(&id.namespace, device.model_name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn who_names_a_model_is_known_as_devices_come_change_and_go() {
        let id = |name: &str| DeviceId::parse("d", name).unwrap();
        let device = |model: &str| -> Device {
            serde_json::from_value(
                json!({ "metadata": { "name": "x" }, "spec": { "deviceModelRef": { "name": model } } }),
            )
            .unwrap()
        };
        let model = |protocol: &str| -> DeviceModel {
            serde_json::from_value(json!({ "metadata": { "name": "m" }, "spec": { "protocol": protocol } }))
                .unwrap()
        };
        let mut catalog = Catalog::default();
        catalog.put_device(id("a"), device("m"));
        catalog.put_device(id("b"), device("m"));
        assert_eq!((catalog.users_of(&id("m")).count(), catalog.is_used(&id("m"), "modbus")), (2, false));
        catalog.put_model(id("m"), model("modbus"));
        assert!(catalog.is_used(&id("m"), "modbus") && catalog.protocol_of(&id("b")) == Some("modbus"));
        catalog.put_device(id("a"), device("n"));
        assert_eq!((catalog.users_of(&id("m")).count(), catalog.users_of(&id("n")).count()), (1, 1));
        catalog.remove_device(&id("b"));
        assert!(!catalog.is_used(&id("m"), "modbus") && catalog.users.len() == 1);
    }
}
