//! What the cloud wants: devices come and go, and desired values become twins. It costs by what changed: only the objects that
//! MetaManager names are read, and only the devices that they are or concern are looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use apimachinery::{NamespacedName, ObjectKey};
use beehive::{Context, Fault};
use contract::ChangedObjects;
use contract::devicetwin::TwinMsg;
use contract::ids::DeviceName;
use contract::ids::{DEVICE_MODELS, DEVICES, PODS};

use super::{DeviceTwin, millis};
use crate::events::Event;
use crate::members::{self, Member};
use crate::object_reader::{self, ObjectState, Pod, ReadObjects};
use crate::payload::{self, Base};
use crate::plan::{self, Membership, TwinChange};
use crate::quota::Usage;
use crate::store;
use crate::topic;
use crate::twin::State;

/// 5 s before changes that the store refused are tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What a device was before its object or its model changed.
struct DeviceBefore {
    protocol: Option<String>,
    model: Option<DeviceName>,
    usage: Usage,
}

impl DeviceTwin {
    /// Takes over what the objects are now. What does not succeed is tried again; the outer error is a panic of the read.
    pub(super) async fn objects_changed(
        &mut self,
        changed: ChangedObjects,
        cx: &Context<TwinMsg>,
    ) -> Result<(), Fault> {
        let known = if changed == ChangedObjects::Any { self.known_keys() } else { Vec::new() };
        let (store, again) = (self.store.clone(), changed.clone());
        let found = cx.env().blocking(move || object_reader::read(&store, changed, known)).await?;
        let taken = match found {
            Ok(found) => self.take_found(found, cx).await,
            Err(error) => Err(Fault::from_error(&error).reason),
        };
        self.has_read |= again == ChangedObjects::Any && taken.is_ok();
        if let Err(reason) = taken {
            Event::ObjectsNotTaken { reason: &reason }.happened(cx.env());
            cx.after(cx.env().jitter(RETRY), TwinMsg::ObjectsChanged(again));
        }
        Ok(())
    }

    /// The keys of everything that may be gone.
    fn known_keys(&self) -> Vec<ObjectKey> {
        let (devices, models) = self.catalog.ids();
        let key = |resource: &str, id: &DeviceName| NamespacedName::from(id.clone()).of_resource(resource);
        let devices = devices.chain(self.members.keys()).map(|id| key(DEVICES, id));
        let models = models.map(|id| key(DEVICE_MODELS, id));
        let pods = self.pods.keys().map(|pod| pod.clone().of_resource(PODS));
        devices.chain(models).chain(pods).collect()
    }

    async fn take_found(&mut self, mut found: ReadObjects, cx: &Context<TwinMsg>) -> Result<(), String> {
        for (object, reason) in &found.not_understood {
            Event::ObjectNotUnderstood { object, reason }.happened(cx.env());
        }
        self.take_pods(std::mem::take(&mut found.pods));
        let affected = self.affected(&found);
        let before = self.before(&affected);
        let membership = self.membership(&found);
        let uids = self.put_into_catalog(found);
        for id in &affected {
            let device = self.catalog.device(id);
            let model = device.and_then(|device| self.catalog.model_of(id, device).1);
            self.rules.put(id, device, model);
        }
        let fresh: BTreeSet<DeviceName> =
            membership.added.iter().chain(&membership.replaced).cloned().collect();
        let readable = affected.iter().filter(|id| uids.contains_key(*id) || self.members.contains_key(*id));
        let changes = members::desire(&self.members, &self.catalog, readable, &fresh, millis(cx.wall()));
        let named = self.named_now(&affected, &fresh);
        let states = fresh.into_iter().map(|id| {
            let uid = uids.get(&id).map(String::as_str).unwrap_or_default();
            let named = self.catalog.device(&id).map(plan::named_by).unwrap_or_default();
            (id, State { named, ..State::unknown(uid) })
        });
        let states: BTreeMap<DeviceName, State> = states.collect();
        let mut writes = Self::writes(&membership, &states, &changes);
        writes.extend(named.iter().map(|(id, state)| store::put_state(id, state)));
        let committed = self.commit(writes).await;
        if let Err(reason) = committed {
            // The catalog is ahead of the twins until the next try.
            self.usages.clear();
            self.mark_pending(&before);
            return Err(reason);
        }
        for id in &membership.removed {
            self.members.remove(id);
            self.catalog.put_edge_desired(id, &BTreeMap::new());
        }
        for (id, state) in states {
            // What was wanted of an earlier device of that name, and what was called, is gone with it.
            self.catalog.put_edge_desired(&id, &BTreeMap::new());
            self.members.insert(id, Member::new(state, BTreeMap::new(), cx.now()));
        }
        for (id, State { named, .. }) in named {
            if let Some(member) = self.members.get_mut(&id) {
                member.state.named = named;
            }
        }
        self.probe_later(cx);
        self.tell_membership(&membership, cx);
        for (id, changes) in changes {
            if let Some(member) = self.members.get_mut(&id) {
                member.take(&changes, &changes, cx.now());
                self.catalog.put_edge_desired(&id, &member.twins);
            }
            self.tell_change(&id, &changes, &Self::base(None, cx), cx);
        }
        self.weigh_again(&before);
        self.mark_pending(&before);
        for protocol in std::mem::take(&mut self.unpushed) {
            self.push(&protocol, cx);
        }
        Ok(())
    }

    pub(super) fn take_pods(&mut self, found: BTreeMap<NamespacedName, ObjectState<Pod>>) {
        for (key, pod) in found {
            match pod {
                ObjectState::Present(pod) => drop(self.pods.insert(key, pod)),
                ObjectState::Absent => drop(self.pods.remove(&key)),
                ObjectState::Unreadable => {}
            }
        }
    }

    /// The devices that changed, and those whose model did.
    fn affected(&self, found: &ReadObjects) -> BTreeSet<DeviceName> {
        let of_models = found.models.keys().flat_map(|model| self.catalog.users_of(model));
        found.devices.keys().chain(of_models).cloned().collect()
    }

    /// The states of those devices that are not `fresh` and name other properties than before.
    fn named_now(
        &self,
        affected: &BTreeSet<DeviceName>,
        fresh: &BTreeSet<DeviceName>,
    ) -> Vec<(DeviceName, State)> {
        let states = affected.difference(fresh).filter_map(|id| {
            let (member, device) = (self.members.get(id)?, self.catalog.device(id)?);
            let named = plan::named_by(device);
            let state = || State { named: named.clone(), ..member.state.clone() };
            (member.state.named != named).then(|| (id.clone(), state()))
        });
        states.collect()
    }

    fn before(&self, affected: &BTreeSet<DeviceName>) -> BTreeMap<DeviceName, DeviceBefore> {
        let before = affected.iter().map(|id| {
            let protocol = self.catalog.protocol_of(id).map(str::to_owned);
            let usage = self.members.get(id).map(|member| self.usage_of(id, member)).unwrap_or_default();
            (id.clone(), DeviceBefore { protocol, model: self.catalog.model_id_of(id), usage })
        });
        before.collect()
    }

    fn membership(&self, found: &ReadObjects) -> Membership {
        let known = found.devices.keys().filter_map(|id| {
            let member = self.members.get(id)?;
            Some((id.clone(), member.state.uid.clone()))
        });
        let (mut uids, mut present) = (BTreeMap::new(), BTreeSet::new());
        for (id, device) in &found.devices {
            match device {
                ObjectState::Present((uid, _)) => drop(uids.insert(id.clone(), uid.clone())),
                ObjectState::Unreadable => drop(present.insert(id.clone())),
                ObjectState::Absent => {}
            }
        }
        plan::membership(&known.collect(), &uids, &present)
    }

    /// Answers the uids of the devices that could be read.
    fn put_into_catalog(&mut self, found: ReadObjects) -> BTreeMap<DeviceName, String> {
        let mut uids = BTreeMap::new();
        for (id, model) in found.models {
            match model {
                ObjectState::Present(model) => self.catalog.put_model(id, model),
                ObjectState::Absent => self.catalog.remove_model(&id),
                ObjectState::Unreadable => {}
            }
        }
        for (id, device) in found.devices {
            match device {
                ObjectState::Present((uid, device)) => {
                    uids.insert(id.clone(), uid);
                    self.catalog.put_device(id, device);
                }
                ObjectState::Absent => self.catalog.remove_device(&id),
                ObjectState::Unreadable => {}
            }
        }
        uids
    }

    fn writes(
        membership: &Membership,
        states: &BTreeMap<DeviceName, State>,
        changes: &BTreeMap<DeviceName, Vec<TwinChange>>,
    ) -> Vec<edge_store::Write> {
        let mut writes = Vec::new();
        for id in membership.removed.iter().chain(&membership.replaced) {
            writes.extend([store::delete_twins(id), store::delete_state(id)]);
        }
        writes.extend(states.iter().map(|(id, state)| store::put_state(id, state)));
        for (id, changes) in changes {
            writes.extend(members::writes(id, changes));
        }
        writes
    }

    fn tell_membership(&mut self, change: &Membership, cx: &Context<TwinMsg>) {
        let added = change.added.iter().chain(&change.replaced);
        let added: Vec<_> = added.map(|id| (id.clone(), self.catalog.description_of(id))).collect();
        let removed: Vec<DeviceName> = change.removed.iter().chain(&change.replaced).cloned().collect();
        if added.is_empty() && removed.is_empty() {
            return;
        }
        let payload = payload::membership_updated(&Self::base(None, cx), &added, &removed);
        self.publish(topic::node_topic(self.node.as_str(), "membership/updated"), payload, cx);
    }

    /// Document and delta.
    pub(super) fn tell_change(
        &mut self,
        id: &DeviceName,
        changes: &[TwinChange],
        base: &Base,
        cx: &Context<TwinMsg>,
    ) {
        self.tell_document(id, changes, base, cx);
        self.tell_delta(id, cx);
    }

    /// What the twins were and are, for those who listen.
    pub(super) fn tell_document(
        &mut self,
        id: &DeviceName,
        changes: &[TwinChange],
        base: &Base,
        cx: &Context<TwinMsg>,
    ) {
        self.publish(topic::device_topic(id, "twin/update/document"), payload::document(base, changes), cx);
    }

    /// What is wanted of the device and is not so, for the device and its rules.
    pub(super) fn tell_delta(&mut self, id: &DeviceName, cx: &Context<TwinMsg>) {
        self.rules.changed(id);
        self.publish_delta(id, cx);
    }

    /// The same for the device alone: nothing has changed for its rules.
    pub(super) fn publish_delta(&mut self, id: &DeviceName, cx: &Context<TwinMsg>) {
        let Some(member) = self.members.get(id) else { return };
        let model = self.catalog.device(id).and_then(|device| self.catalog.model_of(id, device).1);
        // A delta answers nobody: it has an id of its own.
        let delta = Self::base(None, cx);
        if let Some(payload) = payload::delta(&delta, &member.twins, model) {
            self.publish(topic::device_topic(id, "twin/update/delta"), payload, cx);
        }
    }

    /// What each protocol weighs, where it is known, without what the devices were and with what they are.
    fn weigh_again(&mut self, before: &BTreeMap<DeviceName, DeviceBefore>) {
        for (id, DeviceBefore { protocol, usage, .. }) in before {
            if let Some(whole) = self.usages.get_mut(protocol.as_deref().unwrap_or_default()) {
                *whole = whole.without(*usage);
            }
            let Some(member) = self.members.get(id) else { continue };
            let after = self.usage_of(id, member);
            let protocol = self.catalog.protocol_of(id).unwrap_or_default();
            if let Some(whole) = self.usages.get_mut(protocol) {
                *whole = whole.and(after);
            }
        }
    }

    /// Notes what the mappers have to be told that have or had these devices.
    fn mark_pending(&mut self, before: &BTreeMap<DeviceName, DeviceBefore>) {
        for (id, DeviceBefore { protocol, model, .. }) in before {
            let now = self.catalog.protocol_of(id).map(str::to_owned);
            for protocol in protocol.iter().chain(&now).collect::<BTreeSet<_>>() {
                let Some(session) = self.sessions.get_mut(protocol) else { continue };
                session.pending.devices.insert(id.clone());
                session.pending.models.extend(model.clone().into_iter().chain(self.catalog.model_id_of(id)));
                self.unpushed.insert(protocol.clone());
            }
        }
    }
}
