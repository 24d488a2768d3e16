//! Decides what a mapper must still be told. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crd::{Device, DeviceModel};
use dmi::v1beta1 as pb;
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::{DeviceId, convert};

/// The node's devices and models, as the cloud wants them.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) devices: BTreeMap<DeviceId, Device>,
    pub(crate) models: BTreeMap<DeviceId, DeviceModel>,
}

impl Catalog {
    /// The model of a device: its id, and itself if the node has it.
    pub(crate) fn model_of(
        &self,
        id: &DeviceId,
        device: &Device,
    ) -> (Option<DeviceId>, Option<&DeviceModel>) {
        let model = DeviceId::parse(&id.namespace, device.model_name());
        let found = model.as_ref().and_then(|model| self.models.get(model));
        (model, found)
    }
}

/// What a mapper has got, as digests. Kept across restarts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub(crate) devices: BTreeMap<DeviceId, u64>,
    pub(crate) models: BTreeMap<DeviceId, u64>,
}

/// What a mapper has got in this life of the actor: the rest is sent once more, in case the mapper lost it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Met {
    pub(crate) devices: BTreeSet<DeviceId>,
    pub(crate) models: BTreeSet<DeviceId>,
}

/// Something with its digest.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Digested<T> {
    pub(crate) message: T,
    pub(crate) digest: u64,
}

impl<T: Message> Digested<T> {
    fn new(message: T) -> Self {
        let digest = digest(&message.encode_to_vec());
        Digested { message, digest }
    }
}

/// FNV-1a, 64 bits: tells versions of one object apart, and stays the same across builds.
fn digest(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// All that the mapper of a protocol should have.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) models: BTreeMap<DeviceId, Digested<pb::DeviceModel>>,
    /// `None`: the model is not on the node yet, and a mapper does not take a device without it.
    pub(crate) devices: BTreeMap<DeviceId, Option<Digested<pb::Device>>>,
    /// Models that devices name, on the node or not.
    named: BTreeSet<DeviceId>,
}

impl Wanted {
    /// What is wanted of the mapper of `protocol`.
    pub(crate) fn of(protocol: &str, catalog: &Catalog) -> Self {
        let mut wanted = Wanted::default();
        for (id, device) in &catalog.devices {
            let (model_id, model) = catalog.model_of(id, device);
            if convert::protocol(device, model) != protocol {
                continue;
            }
            let ready = model_id.is_none() || model.is_some();
            let sent = ready.then(|| Digested::new(convert::device(id, device, model)));
            wanted.devices.insert(id.clone(), sent);
            if let Some(model_id) = model_id {
                if let Some(model) = model
                    && !wanted.models.contains_key(&model_id)
                {
                    wanted.models.insert(model_id.clone(), Digested::new(convert::model(&model_id, model)));
                }
                wanted.named.insert(model_id);
            }
        }
        wanted
    }

    /// The answer to a registration, and what the mapper has then.
    pub(crate) fn registration(self) -> (pb::MapperRegisterResponse, Sent, Met) {
        let (mut sent, mut met) = (Sent::default(), Met::default());
        let mut response = pb::MapperRegisterResponse::default();
        for (id, model) in self.models {
            met.models.insert(id.clone());
            sent.models.insert(id, model.digest);
            response.model_list.push(model.message);
        }
        for (id, device) in self.devices {
            let Some(device) = device else { continue };
            met.devices.insert(id.clone());
            sent.devices.insert(id, device.digest);
            response.device_list.push(device.message);
        }
        (response, sent, met)
    }
}

/// One call to a mapper.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Call {
    /// CreateDeviceModel
    CreateModel(DeviceId, Digested<pb::DeviceModel>),
    /// UpdateDeviceModel
    UpdateModel(DeviceId, Digested<pb::DeviceModel>),
    /// RemoveDeviceModel
    RemoveModel(DeviceId),
    /// RegisterDevice
    Register(DeviceId, Digested<pb::Device>),
    /// UpdateDevice
    Update(DeviceId, Digested<pb::Device>),
    /// RemoveDevice
    Remove(DeviceId),
}

/// The calls that bring a mapper from what it has to what it should have, models before devices. A mapper that has
/// a device leaves it as it is when it is registered again, so one that changed meanwhile is updated besides.
pub(crate) fn calls(wanted: &Wanted, sent: &Sent, met: &Met) -> Vec<Call> {
    let mut calls = Vec::new();
    for (id, model) in &wanted.models {
        let current = sent.models.get(id) == Some(&model.digest);
        match (met.models.contains(id), current) {
            (true, true) => {}
            (true, false) => calls.push(Call::UpdateModel(id.clone(), model.clone())),
            (false, true) => calls.push(Call::CreateModel(id.clone(), model.clone())),
            (false, false) => {
                calls.push(Call::CreateModel(id.clone(), model.clone()));
                if sent.models.contains_key(id) {
                    calls.push(Call::UpdateModel(id.clone(), model.clone()));
                }
            }
        }
    }
    for (id, device) in &wanted.devices {
        let Some(device) = device else { continue };
        let before = sent.devices.get(id);
        if !met.devices.contains(id) {
            calls.push(Call::Register(id.clone(), device.clone()));
        }
        if before.is_some_and(|digest| *digest != device.digest) {
            calls.push(Call::Update(id.clone(), device.clone()));
        }
    }
    let gone = sent.devices.keys().filter(|id| !wanted.devices.contains_key(*id));
    calls.extend(gone.cloned().map(Call::Remove));
    let gone = sent.models.keys().filter(|id| !wanted.named.contains(*id));
    calls.extend(gone.cloned().map(Call::RemoveModel));
    calls
}

/// The mapper took a call. A registration that an update follows has not brought the change.
pub(crate) fn took(call: &Call, sent: &mut Sent, met: &mut Met) {
    match call {
        Call::CreateModel(id, model) => {
            met.models.insert(id.clone());
            sent.models.entry(id.clone()).or_insert(model.digest);
        }
        Call::UpdateModel(id, model) => {
            sent.models.insert(id.clone(), model.digest);
        }
        Call::RemoveModel(id) => {
            met.models.remove(id);
            sent.models.remove(id);
        }
        Call::Register(id, device) => {
            met.devices.insert(id.clone());
            sent.devices.entry(id.clone()).or_insert(device.digest);
        }
        Call::Update(id, device) => {
            sent.devices.insert(id.clone(), device.digest);
        }
        Call::Remove(id) => {
            met.devices.remove(id);
            sent.devices.remove(id);
        }
    }
}

/// The mapper refused a call. One that refuses an update may have lost the thing: it is introduced anew.
pub(crate) fn refused(call: &Call, met: &mut Met) {
    match call {
        Call::UpdateModel(id, _) => {
            met.models.remove(id);
        }
        Call::Update(id, _) => {
            met.devices.remove(id);
        }
        Call::CreateModel(..) | Call::RemoveModel(_) | Call::Register(..) | Call::Remove(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn id(name: &str) -> DeviceId {
        DeviceId::parse("d", name).unwrap()
    }

    fn device(desired: &str) -> Device {
        serde_json::from_value(json!({
            "metadata": { "name": "pump" },
            "spec": { "deviceModelRef": { "name": "pumps" }, "protocol": { "protocolName": "modbus" },
                "properties": [{ "name": "speed", "desired": { "value": desired } }] }
        }))
        .unwrap()
    }

    fn catalog(desired: &str) -> Catalog {
        let model = serde_json::from_value(json!({ "metadata": { "name": "pumps" }, "spec": {} })).unwrap();
        Catalog { devices: [(id("pump"), device(desired))].into(), models: [(id("pumps"), model)].into() }
    }

    fn words(calls: &[Call]) -> Vec<String> {
        calls
            .iter()
            .map(|call| match call {
                Call::CreateModel(id, _) => format!("create model {id}"),
                Call::UpdateModel(id, _) => format!("update model {id}"),
                Call::RemoveModel(id) => format!("remove model {id}"),
                Call::Register(id, _) => format!("register {id}"),
                Call::Update(id, _) => format!("update {id}"),
                Call::Remove(id) => format!("remove {id}"),
            })
            .collect()
    }

    #[test]
    fn a_mapper_gets_what_changed_and_nothing_twice() {
        let (mut sent, mut met) = (Sent::default(), Met::default());
        let mut push = |catalog: &Catalog| {
            let calls = calls(&Wanted::of("modbus", catalog), &sent, &met);
            calls.iter().for_each(|call| took(call, &mut sent, &mut met));
            words(&calls)
        };
        assert_eq!(push(&catalog("1")), ["create model d/pumps", "register d/pump"]);
        assert!(push(&catalog("1")).is_empty());
        assert_eq!(push(&catalog("2")), ["update d/pump"]);
        let mut without = catalog("2");
        without.models.clear();
        assert!(push(&without).is_empty(), "a model that is away for a while stops nobody");
        assert_eq!(push(&Catalog::default()), ["remove d/pump", "remove model d/pumps"]);
    }

    #[test]
    fn after_a_restart_all_is_sent_again_and_changes_besides() {
        let (_, sent, _) = Wanted::of("modbus", &catalog("1")).registration();
        let again = calls(&Wanted::of("modbus", &catalog("1")), &sent, &Met::default());
        assert_eq!(words(&again), ["create model d/pumps", "register d/pump"]);
        let changed = calls(&Wanted::of("modbus", &catalog("2")), &sent, &Met::default());
        assert_eq!(words(&changed), ["create model d/pumps", "register d/pump", "update d/pump"]);
        let kept: Sent = serde_json::from_slice(&serde_json::to_vec(&sent).unwrap()).unwrap();
        assert_eq!(kept, sent);
    }

    #[test]
    fn a_device_waits_for_its_model_and_goes_to_its_own_protocol() {
        let mut catalog = catalog("1");
        catalog.models.clear();
        assert!(calls(&Wanted::of("modbus", &catalog), &Sent::default(), &Met::default()).is_empty());
        assert!(Wanted::of("opcua", &catalog).devices.is_empty());
        let (response, ..) = Wanted::of("modbus", &catalog).registration();
        assert!(response.device_list.is_empty());
    }

    #[test]
    fn a_refused_update_introduces_the_device_anew() {
        let (_, sent, mut met) = Wanted::of("modbus", &catalog("1")).registration();
        let wanted = Wanted::of("modbus", &catalog("2"));
        refused(&calls(&wanted, &sent, &met)[0], &mut met);
        assert_eq!(words(&calls(&wanted, &sent, &met)), ["register d/pump", "update d/pump"]);
    }
}
