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
    /// What the cloud wanted last of a device that its model allowed then.
    taken_over: BTreeMap<DeviceName, EdgeDesired>,
    /// The parts of protocols whose mapper is not the protocol's first one ([`part_of`]).
    parts: BTreeSet<String>,
}

/// A Device may name its mapper: the name that it registers with.
const MAPPER_ANNOTATION: &str = "kubehive.io/mapper";
/// Between protocol and mapper in the name of a part. Neither has control characters.
const OF: char = '\n';

/// The name of the part of a protocol's devices that name their mapper.
pub(crate) fn part_of(protocol: &str, mapper: &str) -> String {
    format!("{protocol}{OF}{mapper}")
}

/// A protocol or a part of it, for people.
pub(crate) fn shown(part: &str) -> String {
    part.replace(OF, "/")
}

/// The protocol that a part is of.
pub(crate) fn whole(part: &str) -> &str {
    part.split(OF).next().unwrap_or_default()
}

impl Catalog {
    pub(crate) fn device(&self, id: &DeviceName) -> Option<&Device> {
        self.devices.get(id)
    }

    /// What a device's label `description` says of it (KubeEdge), for people; empty where it says nothing.
    pub(crate) fn description_of(&self, id: &DeviceName) -> &str {
        let labels = self.devices.get(id).and_then(|device| device.metadata.labels.as_ref());
        labels.and_then(|labels| labels.get("description")).map_or("", String::as_str)
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

    /// Whose a device is: its protocol's, or of a part of that which has a mapper of its own. A device that is not in the catalog
    /// could not be read, and is nobody's.
    pub(crate) fn protocol_of(&self, id: &DeviceName) -> Option<&str> {
        let device = self.devices.get(id)?;
        let protocol = convert::protocol(device, self.model_of(id, device).1);
        let named = named_mapper(device).and_then(|mapper| self.parts.get(&part_of(protocol, mapper)));
        Some(named.map_or(protocol, String::as_str))
    }

    /// Whether a device of the protocol names that mapper.
    pub(crate) fn names(&self, protocol: &str, mapper: &str) -> bool {
        let mut naming = self.devices.iter().filter(|(_, device)| named_mapper(device) == Some(mapper));
        naming.any(|(id, _)| self.protocol_of(id).is_some_and(|of| whole(of) == protocol))
    }

    /// A part has a mapper from now on, or none any more. Answers the devices that are somebody else's by that.
    pub(crate) fn put_part(&mut self, part: &str, is_there: bool) -> Vec<DeviceName> {
        let Some((protocol, mapper)) = part.split_once(OF) else { return Vec::new() };
        let changed = match is_there {
            true => self.parts.insert(part.to_owned()),
            false => self.parts.remove(part),
        };
        if !changed {
            return Vec::new();
        }
        let naming = self.devices.iter().filter(|(_, device)| named_mapper(device) == Some(mapper));
        let moved = naming.filter(|(id, _)| self.protocol_of(id).is_some_and(|of| whole(of) == protocol));
        moved.map(|(id, _)| id.clone()).collect()
    }

    /// What applications on the node want of a device.
    pub(crate) fn edge_desired(&self, id: &DeviceName) -> &EdgeDesired {
        static NOTHING: EdgeDesired = EdgeDesired::new();
        self.edge_desired.get(id).unwrap_or(&NOTHING)
    }

    /// What the cloud wanted last of a device that its model allowed then.
    pub(crate) fn taken_over(&self, id: &DeviceName) -> &EdgeDesired {
        static NOTHING: EdgeDesired = EdgeDesired::new();
        self.taken_over.get(id).unwrap_or(&NOTHING)
    }

    /// Takes what applications want of a device, and what was taken over of the cloud's, from its twins. Answers whether applications want
    /// something else.
    pub(crate) fn put_edge_desired(&mut self, id: &DeviceName, twins: &BTreeMap<String, Twin>) -> bool {
        let living = twins.iter().filter(|(_, twin)| !twin.deleted);
        let taken: EdgeDesired =
            living.filter_map(|(name, twin)| Some((name.clone(), twin.desired.clone()?))).collect();
        match taken.is_empty() {
            true => drop(self.taken_over.remove(id)),
            false => drop(self.taken_over.insert(id.clone(), taken)),
        }
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

fn named_mapper(device: &Device) -> Option<&str> {
    device.metadata.annotations.as_ref()?.get(MAPPER_ANNOTATION).map(String::as_str)
}

fn model_id(id: &DeviceName, device: &Device) -> Option<DeviceName> {
    DeviceName::parse(&id.namespace, device.model_name()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_device_that_names_its_mapper_is_its_own_only_while_that_is_there() {
        let id = |name: &str| DeviceName::parse("d", name).unwrap();
        let device = |mapper: &str| -> Device {
            let annotations = json!({ "kubehive.io/mapper": mapper });
            serde_json::from_value(json!({ "metadata": { "name": "x", "annotations": annotations },
                "spec": { "protocol": { "protocolName": "modbus" } } }))
            .unwrap()
        };
        let mut catalog = Catalog::default();
        catalog.put_device(id("a"), device("serial"));
        catalog.put_device(id("b"), device("other"));
        assert_eq!((catalog.names("modbus", "serial"), catalog.names("opcua", "serial")), (true, false));
        assert_eq!(catalog.protocol_of(&id("a")), Some("modbus"));
        let part = part_of("modbus", "serial");
        assert_eq!(catalog.put_part(&part, true), [id("a")]);
        assert_eq!(catalog.put_part(&part, true), []);
        assert_eq!(
            (catalog.protocol_of(&id("a")), catalog.protocol_of(&id("b"))),
            (Some(&*part), Some("modbus"))
        );
        assert!(catalog.names("modbus", "serial") && whole(&part) == "modbus" && whole("modbus") == "modbus");
        assert_eq!(catalog.put_part(&part, false), [id("a")]);
        assert_eq!(catalog.protocol_of(&id("a")), Some("modbus"));
    }

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
