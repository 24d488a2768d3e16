//! The device panel: the devices and models that edgecore handed out. Pure: what follows from a change is returned.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::NamespacedName;
use dmi::v1beta1::{Device, DeviceModel, MapperRegisterResponse};

use serde_json::json;

use crate::error::{DEVICES_MAX, MODELS_MAX, NAME_MAX, PanelError};

/// Where KubeEdge puts what has no namespace.
const DEFAULT_NAMESPACE: &str = "default";

/// The name of a device or model.
pub(crate) fn name_of(namespace: &str, name: &str) -> NamespacedName {
    NamespacedName::new(if namespace.is_empty() { DEFAULT_NAMESPACE } else { namespace }, name)
}

/// The devices and models of a mapper.
#[derive(Debug, Default)]
pub(crate) struct DevicePanel {
    models: BTreeMap<NamespacedName, CalledObject<DeviceModel>>,
    devices: BTreeMap<NamespacedName, CalledObject<Device>>,
    /// Removed since the last registration was sent, so that its answer does not bring them back.
    removed: BTreeSet<NamespacedName>,
    /// Counts edgecore's calls, to tell which of them came after a registration was sent.
    calls: u64,
}

#[derive(Debug)]
struct CalledObject<T> {
    object: T,
    call: u64,
}

/// What a registration's answer has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct RegistrationOutcome {
    /// Devices that are new, or that the answer describes.
    pub(crate) put: BTreeSet<NamespacedName>,
    /// Those among them that are new or described otherwise than before, or whose model is.
    pub(crate) changed: BTreeSet<NamespacedName>,
    /// Devices that edgecore no longer names.
    pub(crate) removed: Vec<NamespacedName>,
    /// What was not taken.
    pub(crate) refused: Vec<PanelError>,
}

impl DevicePanel {
    /// A registration is about to be sent; the answer is for [`DevicePanel::registered`].
    pub(crate) fn registering(&mut self) -> u64 {
        self.removed.clear();
        self.calls
    }

    /// Takes what a registration answered as the whole truth, except for what was called since it was sent.
    pub(crate) fn registered(&mut self, since: u64, answer: MapperRegisterResponse) -> RegistrationOutcome {
        let mut outcome = RegistrationOutcome::default();
        let mut models = BTreeSet::new();
        for model in answer.model_list {
            models.insert(name_of(&model.namespace, &model.name));
            match self.put_model(model) {
                Ok(devices) => outcome.changed.extend(devices),
                Err(error) => outcome.refused.push(error),
            }
        }
        let mut named = BTreeSet::new();
        for device in answer.device_list {
            let name = name_of(&device.namespace, &device.name);
            let is_newer = self.devices.get(&name).is_some_and(|there| there.call > since);
            if !is_newer && !self.removed.contains(&name) {
                match self.put_device(device) {
                    Ok(true) => outcome.changed.extend([name.clone()]),
                    Ok(false) => {}
                    Err(error) => outcome.refused.push(error),
                }
            }
            named.insert(name);
        }
        let gone = self.devices.extract_if(.., |name, there| !named.contains(name) && there.call <= since);
        outcome.removed = gone.map(|(name, _)| name).collect();
        models.extend(self.devices.values().filter_map(|there| model_of(&there.object)));
        self.models.retain(|name, there| models.contains(name) || there.call > since);
        outcome.changed.retain(|name| self.devices.contains_key(name));
        outcome.put = named.into_iter().filter(|name| self.devices.contains_key(name)).collect();
        outcome
    }

    /// edgecore called with a new or changed device. Its name, and whether it is new or described otherwise.
    pub(crate) fn register_device(&mut self, device: Device) -> Result<(NamespacedName, bool), PanelError> {
        let name = checked(&device.namespace, &device.name, "the device")?;
        self.calls += 1;
        self.removed.remove(&name);
        Ok((name, self.put_device(device)?))
    }

    /// edgecore called to remove a device. Whether it was there.
    pub(crate) fn remove_device(&mut self, name: &NamespacedName) -> bool {
        self.calls += 1;
        // Bounded by what can be removed between two registrations; beyond it the next registration settles it.
        if self.removed.len() < DEVICES_MAX {
            self.removed.insert(name.clone());
        }
        self.devices.remove(name).is_some()
    }

    /// edgecore called with a new or changed model. The devices that have it, when it is new or changed.
    pub(crate) fn register_model(&mut self, model: DeviceModel) -> Result<Vec<NamespacedName>, PanelError> {
        self.calls += 1;
        self.put_model(model)
    }

    /// Forgets a model. Devices that still have it go on with what they know until they change.
    pub(crate) fn remove_model(&mut self, name: &NamespacedName) {
        self.models.remove(name);
    }

    /// A device, and its model if that is here.
    pub(crate) fn device(&self, name: &NamespacedName) -> Option<(&Device, Option<&DeviceModel>)> {
        let device = &self.devices.get(name)?.object;
        let model = model_of(device).and_then(|model| self.models.get(&model)).map(|there| &there.object);
        Some((device, model))
    }

    /// The methods of a device, as KubeEdge's REST interface names them.
    pub(crate) fn methods(&self, name: &NamespacedName) -> Option<serde_json::Value> {
        let (device, model) = self.device(name)?;
        let modelled = model.and_then(|model| model.spec.as_ref()).map(|spec| spec.properties.as_slice());
        let kind = |property: &str| {
            let found = modelled.unwrap_or_default().iter().find(|there| there.name == property);
            found.map(|there| there.r#type.to_ascii_lowercase()).unwrap_or_default()
        };
        let methods = device.spec.iter().flat_map(|spec| &spec.methods).map(|method| {
            let path = format!(
                "/api/v1/devicemethod/{}/{}/{}/{{propertyName}}/{{data}}",
                name.namespace, name.name, method.name
            );
            let parameters = method.property_names.iter();
            let parameters: Vec<_> = parameters
                .map(|property| json!({ "PropertyName": property, "ValueType": kind(property) }))
                .collect();
            json!({ "Name": method.name, "Path": path, "Parameters": parameters })
        });
        Some(methods.collect())
    }

    /// The model of a device, as KubeEdge's REST interface names it.
    pub(crate) fn model(&self, name: &NamespacedName) -> Option<serde_json::Value> {
        let (_, model) = self.device(name)?;
        let properties = model.into_iter().flat_map(|model| &model.spec).flat_map(|spec| &spec.properties);
        let properties: Vec<_> = properties
            .map(|property| {
                json!({
                    "name": property.name, "dataType": property.r#type, "description": property.description,
                    "accessMode": property.access_mode, "minimum": property.minimum,
                    "maximum": property.maximum, "unit": property.unit,
                })
            })
            .collect();
        let (name, namespace) = model.map(|model| (&model.name, &model.namespace)).unzip();
        Some(json!({ "name": name, "namespace": namespace, "properties": properties }))
    }

    /// How many devices and models there are.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.devices.len(), self.models.len())
    }

    fn put_device(&mut self, device: Device) -> Result<bool, PanelError> {
        let name = checked(&device.namespace, &device.name, "the device")?;
        let call = self.calls;
        if let Some(there) = self.devices.get_mut(&name) {
            let is_changed = there.object != device;
            *there = CalledObject { object: device, call };
            return Ok(is_changed);
        }
        if self.devices.len() >= DEVICES_MAX {
            return Err(PanelError::TooManyDevices);
        }
        self.devices.insert(name, CalledObject { object: device, call });
        Ok(true)
    }

    fn put_model(&mut self, model: DeviceModel) -> Result<Vec<NamespacedName>, PanelError> {
        let name = checked(&model.namespace, &model.name, "the model")?;
        let (call, is_full) = (self.calls, self.models.len() >= MODELS_MAX);
        match self.models.get_mut(&name) {
            Some(there) => {
                let is_changed = there.object != model;
                *there = CalledObject { object: model, call };
                if !is_changed {
                    return Ok(Vec::new());
                }
            }
            None if is_full => return Err(PanelError::TooManyModels),
            None => {
                self.models.insert(name.clone(), CalledObject { object: model, call });
            }
        }
        let with_it =
            |there: &CalledObject<Device>| model_of(&there.object).is_some_and(|model| model == name);
        let devices = self.devices.iter().filter(|(_, there)| with_it(there));
        Ok(devices.map(|(name, _)| name.clone()).collect())
    }
}

fn model_of(device: &Device) -> Option<NamespacedName> {
    let spec = device.spec.as_ref()?;
    Some(name_of(&device.namespace, &spec.device_model_reference))
}

fn checked(namespace: &str, name: &str, what: &'static str) -> Result<NamespacedName, PanelError> {
    if name.is_empty() {
        return Err(PanelError::NoName(what));
    }
    if name.len() > NAME_MAX || namespace.len() > NAME_MAX {
        return Err(PanelError::LongName);
    }
    Ok(name_of(namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dmi::v1beta1::DeviceSpec;

    fn device(name: &str, model: &str) -> Device {
        let spec = DeviceSpec { device_model_reference: model.to_owned(), ..Default::default() };
        Device { name: name.to_owned(), spec: Some(spec), ..Default::default() }
    }

    fn model(name: &str) -> DeviceModel {
        DeviceModel { name: name.to_owned(), ..Default::default() }
    }

    fn named(name: &str) -> NamespacedName {
        name_of("", name)
    }

    fn answer(devices: Vec<Device>, models: Vec<DeviceModel>) -> MapperRegisterResponse {
        MapperRegisterResponse { device_list: devices, model_list: models }
    }

    #[test]
    fn a_registration_is_the_whole_truth() {
        let mut panel = DevicePanel::default();
        let since = panel.registering();
        let first =
            panel.registered(since, answer(vec![device("a", "m"), device("b", "m")], vec![model("m")]));
        assert_eq!(first.changed, [named("a"), named("b")].into());
        let since = panel.registering();
        let second = panel.registered(since, answer(vec![device("b", "m"), device("c", "n")], vec![]));
        assert_eq!(second.changed, [named("c")].into());
        assert_eq!(second.put, [named("b"), named("c")].into());
        assert_eq!(second.removed, [named("a")]);
        assert!(panel.device(&named("b")).unwrap().1.is_some(), "a model that a device has is kept");
    }

    #[test]
    fn a_call_that_came_after_the_registration_was_sent_counts_more_than_its_answer() {
        let mut panel = DevicePanel::default();
        let since = panel.registering();
        panel.registered(since, answer(vec![device("a", "m"), device("b", "m")], vec![]));
        let since = panel.registering();
        panel.register_device(device("a", "new")).unwrap();
        panel.register_device(device("c", "m")).unwrap();
        panel.remove_device(&named("b"));
        let outcome = panel.registered(since, answer(vec![device("a", "m"), device("b", "m")], vec![]));
        assert_eq!((outcome.changed.len(), outcome.removed.len()), (0, 0));
        let a = panel.device(&named("a")).unwrap().0.spec.as_ref().unwrap();
        assert_eq!(a.device_model_reference, "new");
        assert!(panel.device(&named("b")).is_none() && panel.device(&named("c")).is_some());
    }

    #[test]
    fn a_changed_model_concerns_its_devices() {
        let mut panel = DevicePanel::default();
        panel.register_device(device("a", "m")).unwrap();
        panel.register_device(device("b", "n")).unwrap();
        assert_eq!(panel.register_model(model("m")), Ok(vec![named("a")]));
        assert_eq!(panel.register_model(model("m")), Ok(Vec::new()), "the same again changes nothing");
    }

    #[test]
    fn what_has_no_name_or_a_long_one_and_what_is_too_much_is_refused() {
        let mut panel = DevicePanel::default();
        assert_eq!(panel.register_device(device("", "m")), Err(PanelError::NoName("the device")));
        assert_eq!(panel.register_device(device(&"x".repeat(254), "m")), Err(PanelError::LongName));
        let many = (0..=DEVICES_MAX).map(|at| device(&at.to_string(), "m")).collect();
        let since = panel.registering();
        let outcome = panel.registered(since, answer(many, vec![]));
        assert_eq!(outcome.refused, [PanelError::TooManyDevices]);
        assert_eq!(panel.sizes(), (DEVICES_MAX, 0));
    }
}
