//! Decides what a mapper must still be told. Pure.

use std::collections::{BTreeMap, BTreeSet};

use contract::ids::DeviceName;
use dmi::v1beta1 as pb;
use prost::Message;

use crate::catalog::Catalog;
use crate::convert::{self, Wanted};

/// What a mapper has got, as digests. Kept across restarts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    pub(crate) devices: BTreeMap<DeviceName, u64>,
    pub(crate) models: BTreeMap<DeviceName, u64>,
}

/// What a mapper has got in this life of the actor: the rest is sent once more, in case the mapper lost it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SentThisRun {
    pub(crate) devices: BTreeSet<DeviceName>,
    pub(crate) models: BTreeSet<DeviceName>,
}

/// What a mapper may have to be told of: all else is as it knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) devices: BTreeSet<DeviceName>,
    pub(crate) models: BTreeSet<DeviceName>,
}

impl Pending {
    /// Everything: nobody knows what a mapper has kept.
    pub(crate) fn all(protocol: &str, catalog: &Catalog, acknowledged: &Acknowledged) -> Self {
        let mut pending = Pending::default();
        for (id, _) in catalog.devices().filter(|(id, _)| catalog.protocol_of(id) == Some(protocol)) {
            pending.devices.insert(id.clone());
            pending.models.extend(catalog.model_id_of(id));
        }
        pending.devices.extend(acknowledged.devices.keys().cloned());
        pending.models.extend(acknowledged.models.keys().cloned());
        pending
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.devices.is_empty() && self.models.is_empty()
    }

    /// What the call was about is still to be told.
    pub(crate) fn put_back(&mut self, call: &Call) {
        match call {
            Call::CreateModel(id, _) | Call::UpdateModel(id, _) | Call::RemoveModel(id) => {
                self.models.insert(id.clone());
            }
            Call::Register(id, _) | Call::Update(id, _) | Call::Remove(id) => {
                self.devices.insert(id.clone());
            }
        }
    }
}

/// Something with its digest.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WithDigest<T> {
    pub(crate) message: T,
    pub(crate) digest: u64,
}

impl<T: Message> WithDigest<T> {
    fn new(message: T) -> Self {
        let digest = digest(&message.encode_to_vec());
        WithDigest { message, digest }
    }
}

/// FNV-1a, 64 bits: tells versions of one object apart, and stays the same across builds.
fn digest(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// A model that the mapper of a protocol should have: `None` for one that no device of it names, or that is not on the node.
fn wanted_model(protocol: &str, catalog: &Catalog, id: &DeviceName) -> Option<WithDigest<pb::DeviceModel>> {
    let model = catalog.model(id).filter(|_| catalog.is_used(id, protocol))?;
    Some(WithDigest::new(convert::model(id, model)))
}

/// A device that the mapper of a protocol should have: `None` for one of another protocol, and for one whose model is not on
/// the node yet, which a mapper does not take.
fn wanted_device(
    protocol: &str,
    catalog: &Catalog,
    id: &DeviceName,
    doubles: bool,
) -> Option<WithDigest<pb::Device>> {
    let device = catalog.device(id).filter(|_| catalog.protocol_of(id) == Some(protocol))?;
    let (named, model) = catalog.model_of(id, device);
    (named.is_none() || model.is_some()).then(|| {
        let wanted = Wanted { by_edge: catalog.edge_desired(id), taken_over: catalog.taken_over(id) };
        WithDigest::new(convert::device(id, device, model, wanted, doubles))
    })
}

/// The answer to a registration, and what the mapper has then.
pub(crate) fn registration(
    protocol: &str,
    catalog: &Catalog,
    doubles: bool,
) -> (pb::MapperRegisterResponse, Acknowledged, SentThisRun) {
    let (mut has, mut sent_this_run) = (Acknowledged::default(), SentThisRun::default());
    let mut response = pb::MapperRegisterResponse::default();
    let all = Pending::all(protocol, catalog, &has);
    for id in all.models {
        let Some(model) = wanted_model(protocol, catalog, &id) else { continue };
        sent_this_run.models.insert(id.clone());
        has.models.insert(id, model.digest);
        response.model_list.push(model.message);
    }
    for id in all.devices {
        let Some(device) = wanted_device(protocol, catalog, &id, doubles) else { continue };
        sent_this_run.devices.insert(id.clone());
        has.devices.insert(id, device.digest);
        response.device_list.push(device.message);
    }
    (response, has, sent_this_run)
}

/// One call to a mapper.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Call {
    /// CreateDeviceModel
    CreateModel(DeviceName, WithDigest<pb::DeviceModel>),
    /// UpdateDeviceModel
    UpdateModel(DeviceName, WithDigest<pb::DeviceModel>),
    /// RemoveDeviceModel
    RemoveModel(DeviceName),
    /// RegisterDevice
    Register(DeviceName, WithDigest<pb::Device>),
    /// UpdateDevice
    Update(DeviceName, WithDigest<pb::Device>),
    /// RemoveDevice
    Remove(DeviceName),
}

impl Call {
    /// The device that it gives to the mapper, or takes from it.
    pub(crate) fn device(&self) -> Option<&DeviceName> {
        match self {
            Call::Register(id, _) | Call::Update(id, _) | Call::Remove(id) => Some(id),
            Call::CreateModel(..) | Call::UpdateModel(..) | Call::RemoveModel(_) => None,
        }
    }
}

/// The calls that bring the mapper of a protocol (`doubles`: one that reads DoubleValue) from what it has to what it should have of the pending, models before
/// devices. A mapper that has a device leaves it as it is when it is registered again, so one that changed meanwhile is
/// updated besides.
pub(crate) fn calls(
    protocol: &str,
    catalog: &Catalog,
    (has, sent_this_run): (&Acknowledged, &SentThisRun),
    pending: &Pending,
    doubles: bool,
) -> Vec<Call> {
    let (mut calls, mut removals) = (Vec::new(), Vec::new());
    // A device that comes may bring a model with it.
    let of_devices = pending.devices.iter().filter_map(|id| catalog.model_id_of(id));
    let models: BTreeSet<DeviceName> = pending.models.iter().cloned().chain(of_devices).collect();
    for id in models {
        match wanted_model(protocol, catalog, &id) {
            Some(model) => of_model(&mut calls, id, model, has, sent_this_run),
            // One that is away for a while and still named stops nobody.
            None if has.models.contains_key(&id) && !catalog.is_used(&id, protocol) => {
                removals.push(Call::RemoveModel(id));
            }
            None => {}
        }
    }
    let mut gone = Vec::new();
    for id in &pending.devices {
        let before = has.devices.get(id);
        match wanted_device(protocol, catalog, id, doubles) {
            Some(device) => {
                if !sent_this_run.devices.contains(id) {
                    calls.push(Call::Register(id.clone(), device.clone()));
                }
                if before.is_some_and(|digest| *digest != device.digest) {
                    calls.push(Call::Update(id.clone(), device));
                }
            }
            None if before.is_some() && catalog.protocol_of(id) != Some(protocol) => {
                gone.push(Call::Remove(id.clone()));
            }
            None => {}
        }
    }
    calls.into_iter().chain(gone).chain(removals).collect()
}

fn of_model(
    calls: &mut Vec<Call>,
    id: DeviceName,
    model: WithDigest<pb::DeviceModel>,
    has: &Acknowledged,
    sent_this_run: &SentThisRun,
) {
    let before = has.models.get(&id);
    let current = before == Some(&model.digest);
    if !sent_this_run.models.contains(&id) {
        calls.push(Call::CreateModel(id.clone(), model.clone()));
    }
    if (before.is_some() && !current) || (before.is_none() && sent_this_run.models.contains(&id)) {
        calls.push(Call::UpdateModel(id, model));
    }
}

/// The mapper took a call. A registration that an update follows has not brought the change.
pub(crate) fn took(call: &Call, has: &mut Acknowledged, sent_this_run: &mut SentThisRun) {
    match call {
        Call::CreateModel(id, model) => {
            sent_this_run.models.insert(id.clone());
            has.models.entry(id.clone()).or_insert(model.digest);
        }
        Call::UpdateModel(id, model) => {
            has.models.insert(id.clone(), model.digest);
        }
        Call::RemoveModel(id) => {
            sent_this_run.models.remove(id);
            has.models.remove(id);
        }
        Call::Register(id, device) => {
            sent_this_run.devices.insert(id.clone());
            has.devices.entry(id.clone()).or_insert(device.digest);
        }
        Call::Update(id, device) => {
            has.devices.insert(id.clone(), device.digest);
        }
        Call::Remove(id) => {
            sent_this_run.devices.remove(id);
            has.devices.remove(id);
        }
    }
}

/// The mapper refused a call. One that refuses an update may have lost the thing: it is introduced anew.
pub(crate) fn refused(call: &Call, sent_this_run: &mut SentThisRun) {
    match call {
        Call::UpdateModel(id, _) => {
            sent_this_run.models.remove(id);
        }
        Call::Update(id, _) => {
            sent_this_run.devices.remove(id);
        }
        Call::CreateModel(..) | Call::RemoveModel(_) | Call::Register(..) | Call::Remove(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crd::Device;
    use serde_json::json;

    fn id(name: &str) -> DeviceName {
        DeviceName::parse("d", name).unwrap()
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
        let model = serde_json::from_value(
            json!({ "metadata": { "name": "pumps" }, "spec": { "properties": [{ "name": "speed" }] } }),
        )
        .unwrap();
        let mut catalog = Catalog::default();
        catalog.put_device(id("pump"), device(desired));
        catalog.put_model(id("pumps"), model);
        catalog
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

    fn all(catalog: &Catalog, has: &Acknowledged, sent_this_run: &SentThisRun) -> Vec<Call> {
        calls("modbus", catalog, (has, sent_this_run), &Pending::all("modbus", catalog, has), false)
    }

    #[test]
    fn a_mapper_gets_what_changed_and_nothing_twice() {
        let (mut has, mut sent_this_run) = (Acknowledged::default(), SentThisRun::default());
        let mut push = |catalog: &Catalog| {
            let calls = all(catalog, &has, &sent_this_run);
            calls.iter().for_each(|call| took(call, &mut has, &mut sent_this_run));
            words(&calls)
        };
        assert_eq!(push(&catalog("1")), ["create model d/pumps", "register d/pump"]);
        assert!(push(&catalog("1")).is_empty());
        assert_eq!(push(&catalog("2")), ["update d/pump"]);
        let mut without = catalog("2");
        without.remove_model(&id("pumps"));
        assert!(push(&without).is_empty(), "a model that is away for a while stops nobody");
        assert_eq!(push(&Catalog::default()), ["remove d/pump", "remove model d/pumps"]);
    }

    #[test]
    fn only_the_pending_is_looked_at() {
        let mut catalog = catalog("1");
        catalog.put_device(id("other"), device("1"));
        let (_, has, sent_this_run) = registration("modbus", &catalog, false);
        catalog.put_device(id("pump"), device("2"));
        catalog.put_device(id("other"), device("2"));
        let pending = Pending { devices: [id("pump")].into(), ..Pending::default() };
        let found = calls("modbus", &catalog, (&has, &sent_this_run), &pending, false);
        assert_eq!(words(&found), ["update d/pump"]);
        let mut left = Pending::default();
        found.iter().for_each(|call| left.put_back(call));
        assert_eq!(left, pending, "what is not taken stays pending");
        // One that goes over to another protocol leaves this one, with its model.
        let mut moved = device("2");
        moved.spec.protocol = serde_json::from_value(json!({ "protocolName": "opcua" })).unwrap();
        catalog.put_device(id("pump"), moved.clone());
        assert_eq!(
            words(&calls("modbus", &catalog, (&has, &sent_this_run), &pending, false)),
            ["remove d/pump"]
        );
        catalog.put_device(id("other"), moved);
        let both = Pending { devices: [id("pump"), id("other")].into(), ..Pending::default() };
        assert_eq!(
            words(&calls("modbus", &catalog, (&has, &sent_this_run), &both, false)),
            ["remove d/other", "remove d/pump", "remove model d/pumps"]
        );
    }

    #[test]
    fn after_a_restart_all_is_sent_again_and_changes_besides() {
        let (_, has, _) = registration("modbus", &catalog("1"), false);
        let again = all(&catalog("1"), &has, &SentThisRun::default());
        assert_eq!(words(&again), ["create model d/pumps", "register d/pump"]);
        let changed = all(&catalog("2"), &has, &SentThisRun::default());
        assert_eq!(words(&changed), ["create model d/pumps", "register d/pump", "update d/pump"]);
    }

    #[test]
    fn a_device_waits_for_its_model_and_goes_to_its_own_protocol() {
        let mut catalog = catalog("1");
        catalog.remove_model(&id("pumps"));
        assert!(all(&catalog, &Acknowledged::default(), &SentThisRun::default()).is_empty());
        assert!(Pending::all("opcua", &catalog, &Acknowledged::default()).is_empty());
        let (response, ..) = registration("modbus", &catalog, false);
        assert!(response.device_list.is_empty());
    }

    #[test]
    fn a_model_that_loses_a_property_takes_it_from_the_mapper() {
        let mut catalog = catalog("1");
        let (_, has, sent_this_run) = registration("modbus", &catalog, false);
        let bare = serde_json::from_value(json!({ "metadata": { "name": "pumps" }, "spec": {} })).unwrap();
        catalog.put_model(id("pumps"), bare);
        let found = all(&catalog, &has, &sent_this_run);
        assert_eq!(words(&found), ["update model d/pumps", "update d/pump"]);
        let Some(Call::Update(_, device)) = found.last() else { panic!("{found:?}") };
        assert_eq!(device.message.spec.as_ref().unwrap().properties, []);
        let (response, ..) = registration("modbus", &catalog, false);
        assert_eq!(response.device_list[0].spec.as_ref().unwrap().properties, []);
    }

    #[test]
    fn a_refused_update_introduces_the_device_anew() {
        let (_, has, mut sent_this_run) = registration("modbus", &catalog("1"), false);
        let changed = catalog("2");
        refused(&all(&changed, &has, &sent_this_run)[0], &mut sent_this_run);
        assert_eq!(words(&all(&changed, &has, &sent_this_run)), ["register d/pump", "update d/pump"]);
    }
}
