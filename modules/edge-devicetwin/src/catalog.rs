//! The node's devices and models, as the cloud wants them, and which devices name which model. Pure.

use std::collections::{BTreeMap, BTreeSet};

use contract::ids::DeviceName;
use crd::{Device, DeviceModel};

use crate::convert::{self, EdgeDesired};
use crate::twin::Twin;

/// The devices and models that the node has.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    devices: BTreeMap<DeviceName, Device>,
    models: BTreeMap<DeviceName, DeviceModel>,
    /// The devices that name a model, whether the node has it or not.
    users: BTreeMap<DeviceName, BTreeSet<DeviceName>>,
    edge_desired: BTreeMap<DeviceName, EdgeDesired>,
}

impl Catalog {
    pub(crate) fn device(&self, id: &DeviceName) -> Option<&Device> {
        self.devices.get(id)
    }

    pub(crate) fn devices(&self) -> impl Iterator<Item = (&DeviceName, &Device)> {
        self.devices.iter()
    }

    pub(crate) fn model(&self, id: &DeviceName) -> Option<&DeviceModel> {
        self.models.get(id)
    }

    /// The model of a device: its id, and itself if the node has it.
    pub(crate) fn model_of(
        &self,
        id: &DeviceName,
        device: &Device,
    ) -> (Option<DeviceName>, Option<&DeviceModel>) {
        let model = model_id(id, device);
        let found = model.as_ref().and_then(|model| self.models.get(model));
        (model, found)
    }

    /// The model that a device of the node names.
    pub(crate) fn model_id_of(&self, id: &DeviceName) -> Option<DeviceName> {
        model_id(id, self.devices.get(id)?)
    }

    /// The protocol of a device. A device that is not in the catalog could not be read, and has none.
    pub(crate) fn protocol_of(&self, id: &DeviceName) -> Option<&str> {
        let device = self.devices.get(id)?;
        Some(convert::protocol(device, self.model_of(id, device).1))
    }

    /// What applications on the node want of a device.
    pub(crate) fn edge_desired(&self, id: &DeviceName) -> &EdgeDesired {
        static NOTHING: EdgeDesired = EdgeDesired::new();
        self.edge_desired.get(id).unwrap_or(&NOTHING)
    }

    /// Takes what applications want of a device from its twins. Answers whether that has changed.
    pub(crate) fn put_edge_desired(&mut self, id: &DeviceName, twins: &BTreeMap<String, Twin>) -> bool {
        let living = twins.iter().filter(|(_, twin)| !twin.deleted);
        let wanted: EdgeDesired =
            living.filter_map(|(name, twin)| Some((name.clone(), twin.edge_desired.clone()?))).collect();
        if *self.edge_desired(id) == wanted {
            return false;
        }
        match wanted.is_empty() {
            true => drop(self.edge_desired.remove(id)),
            false => drop(self.edge_desired.insert(id.clone(), wanted)),
        }
        true
    }

    /// The devices that name a model.
    pub(crate) fn users_of(&self, model: &DeviceName) -> impl Iterator<Item = &DeviceName> {
        self.users.get(model).into_iter().flatten()
    }

    /// Whether a device of the protocol names the model.
    pub(crate) fn is_used(&self, model: &DeviceName, protocol: &str) -> bool {
        self.users_of(model).any(|device| self.protocol_of(device) == Some(protocol))
    }

    pub(crate) fn put_device(&mut self, id: DeviceName, device: Device) {
        self.remove_device(&id);
        if let Some(model) = model_id(&id, &device) {
            self.users.entry(model).or_default().insert(id.clone());
        }
        self.devices.insert(id, device);
    }

    pub(crate) fn remove_device(&mut self, id: &DeviceName) {
        let Some(old) = self.devices.remove(id) else { return };
        let Some(model) = model_id(id, &old) else { return };
        if let Some(users) = self.users.get_mut(&model) {
            users.remove(id);
            if users.is_empty() {
                self.users.remove(&model);
            }
        }
    }

    pub(crate) fn put_model(&mut self, id: DeviceName, model: DeviceModel) {
        self.models.insert(id, model);
    }

    pub(crate) fn remove_model(&mut self, id: &DeviceName) {
        self.models.remove(id);
    }

    /// The ids of all devices and of all models.
    pub(crate) fn ids(&self) -> (impl Iterator<Item = &DeviceName>, impl Iterator<Item = &DeviceName>) {
        (self.devices.keys(), self.models.keys())
    }
}

fn model_id(id: &DeviceName, device: &Device) -> Option<DeviceName> {
    DeviceName::parse(&id.namespace, device.model_name()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn who_names_a_model_is_known_as_devices_come_change_and_go() {
        let id = |name: &str| DeviceName::parse("d", name).unwrap();
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
