//! Who is the mapper of a protocol.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use beehive::{Context, Fault};
use contract::devicetwin::{DmiCaller, DmiRefusal, TwinMsg};
use contract::ids::DeviceName;
use prost::Message as _;

use super::DeviceTwin;
use crate::catalog;
use crate::events::Event;
use crate::identity::{self, MapperIdentity};
use crate::known_mapper::{self, KnownMapper};
use crate::mapper::{self, MapperRecord, Session};
use crate::mapper_socket::{self, ExpectedPeer, MapperSocket};
use crate::push::{Acknowledged, Pending, SentThisRun};
use crate::{object_reader, push, store};

/// 64 protocols on one node.
const MAPPERS_MAX: usize = 64;
/// 8 protocols of one workload or user: nobody takes all names before their mappers come.
const PROTOCOLS_MAX: usize = 8;
/// 1 s for a socket to take a connection: whoever lives does so at once.
const LIFE_SIGN_WITHIN: Duration = Duration::from_secs(1);

/// What a mapper says at its registration.
pub(super) struct Registration {
    pub(super) name: String,
    pub(super) protocol: String,
    pub(super) address: String,
    pub(super) version: String,
    pub(super) with_data: bool,
    pub(super) doubles: bool,
}

impl DeviceTwin {
    /// For whom a caller speaks. A pod that is not known may be one that MetaManager has not told of yet.
    pub(super) async fn identity_of(
        &mut self,
        caller: &DmiCaller,
        cx: &Context<TwinMsg>,
    ) -> Result<MapperIdentity, DmiRefusal> {
        let Some(uid) = &caller.pod else { return Ok(MapperIdentity::User { uid: caller.uid }) };
        if !self.pods.values().any(|pod| pod.uid == *uid) {
            let store = self.store.clone();
            let found = cx.env().blocking(move || object_reader::read_pods(&store)).await;
            let found = found.and_then(|found| found.map_err(|error| Fault::from_error(&error)));
            self.take_pods(found.map_err(|fault| DmiRefusal::Refused(fault.reason))?.pods);
        }
        let known = self.pods.values().find(|pod| pod.uid == *uid).and_then(|pod| pod.identity.clone());
        known.ok_or_else(|| {
            let who = format!("pod {uid}");
            self.deny(&who, format!("{who} is not one that runs on this node"), cx)
        })
    }

    /// The uids of the pods of a workload that have not ended.
    fn pods_of(&self, workload: &MapperIdentity) -> BTreeSet<String> {
        let own = self.pods.values().filter(|pod| pod.identity.as_ref() == Some(workload));
        own.map(|pod| pod.uid.clone()).collect()
    }

    /// The way to the socket of a mapper; `Err`: nobody can be expected there.
    pub(super) fn socket_of(&self, mapper: &MapperRecord) -> Result<MapperSocket, String> {
        let expected = match &mapper.identity {
            MapperIdentity::User { uid } => ExpectedPeer::User(*uid),
            workload @ MapperIdentity::Workload { .. } => ExpectedPeer::Pods(self.pods_of(workload)),
        };
        let folder = self.folder().to_owned();
        let below = mapper_socket::below(&folder, &mapper.address)?;
        Ok(MapperSocket { folder, below, uid: mapper.uid, expected, peers: Arc::clone(&self.peers) })
    }

    /// Whether the one who holds a protocol is still there: a pod of the workload is on the node, or the process runs that
    /// registered, or somebody of the holder's listens where it said.
    async fn is_alive(&self, mapper: &MapperRecord, cx: &Context<TwinMsg>) -> bool {
        if let MapperIdentity::Workload { .. } = mapper.identity {
            return !self.pods_of(&mapper.identity).is_empty();
        }
        self.is_served(mapper, cx).await
    }

    /// Whether the process runs that registered, or somebody of the holder's listens where it said.
    async fn is_served(&self, mapper: &MapperRecord, cx: &Context<TwinMsg>) -> bool {
        if self.peers.runs(&mapper.process) {
            return true;
        }
        let Ok(socket) = self.socket_of(mapper) else { return false };
        match cx.env().timeout(LIFE_SIGN_WITHIN, socket.connect()).await {
            Some(Ok(_)) => true,
            // Somebody listens, and has no room: it is not known who, so nobody takes the place.
            Some(Err(error)) => error.kind() == ErrorKind::WouldBlock,
            None => true,
        }
    }

    /// Lets a caller have a protocol that nobody else holds. Answers its devices, if it wants them.
    pub(super) async fn register(
        &mut self,
        caller: &DmiCaller,
        said: Registration,
        cx: &Context<TwinMsg>,
    ) -> Result<Vec<u8>, DmiRefusal> {
        let Registration { name, protocol, address, version, with_data, doubles } = said;
        mapper::check(&name, &protocol)?;
        mapper_socket::below(self.folder(), &address)?;
        let identity = self.identity_of(caller, cx).await?;
        let protocol = self.part_for(&identity, &protocol, &name, cx).await;
        self.claim(&identity, &name, &protocol, cx).await?;
        let mine = self.sessions.get(&protocol).is_some_and(|session| session.mapper.identity == identity);
        if mine && !with_data {
            return Ok(Vec::new());
        }
        let moved = self.catalog.put_part(&protocol, true);
        let (response, has, sent_this_run) = if with_data {
            push::registration(&protocol, &self.catalog, doubles)
        } else {
            Default::default()
        };
        let answer = response.encode_to_vec();
        if answer.len() > dmi::REGISTRATION_MAX {
            self.part_ended(&protocol);
            return Err("the mapper's devices are more than 16 MiB".to_owned().into());
        }
        let (uid, process) = (caller.uid, caller.process.clone());
        let mapper = MapperRecord { name, address, version, identity, uid, process, with_data, doubles };
        let part = protocol.clone();
        if let Err(reason) = self.begin_session(protocol, mapper, (has, sent_this_run), cx).await {
            self.part_ended(&part);
            return Err(reason.into());
        }
        self.moved(&part, moved, cx);
        Ok(answer)
    }

    /// Takes who speaks for a device of `protocol` as the mapper that had registered for it with KubeEdge's edgecore before the node
    /// moved over: KubeEdge's mappers register once, when they begin. It is the one who listens at the address that was told then.
    /// Whether it is.
    pub(super) async fn take_known_mapper(
        &mut self,
        caller: &DmiCaller,
        identity: &MapperIdentity,
        protocol: &str,
        cx: &Context<TwinMsg>,
    ) -> Result<bool, DmiRefusal> {
        let Some(KnownMapper { name, address, version }) = self.known_mappers.get(protocol).cloned() else {
            return Ok(false);
        };
        let (uid, process, identity) = (caller.uid, caller.process.clone(), identity.clone());
        let mapper =
            MapperRecord { name, address, version, identity, uid, process, with_data: true, doubles: false };
        let Ok(socket) = self.socket_of(&mapper) else { return Ok(false) };
        if !matches!(cx.env().timeout(LIFE_SIGN_WITHIN, socket.connect()).await, Some(Ok(_))) {
            return Ok(false);
        }
        self.claim(&mapper.identity, &mapper.name, protocol, cx).await?;
        // It has the devices in some state or other, which no digest is of: each is told to it anew.
        let pending = Pending::all(protocol, &self.catalog, &Acknowledged::default());
        let of = |ids: &BTreeSet<DeviceName>| ids.iter().map(|id| (id.clone(), 0)).collect();
        let has = Acknowledged { devices: of(&pending.devices), models: of(&pending.models) };
        self.begin_session(protocol.to_owned(), mapper, (has, SentThisRun::default()), cx).await?;
        if let Some(session) = self.sessions.get_mut(protocol) {
            session.pending = pending;
        }
        self.push(protocol, cx);
        Ok(true)
    }

    /// What a mapper registers for: the protocol, or, while another mapper has that, the devices that name this one.
    async fn part_for(
        &self,
        identity: &MapperIdentity,
        protocol: &str,
        name: &str,
        cx: &Context<TwinMsg>,
    ) -> String {
        let part = catalog::part_of(protocol, name);
        if self.sessions.contains_key(&part) {
            return part;
        }
        let Some(first) = self.sessions.get(protocol) else { return protocol.to_owned() };
        let is_first = first.mapper.name == name && first.mapper.identity == *identity;
        if is_first || !self.catalog.names(protocol, name) || !self.is_alive(&first.mapper, cx).await {
            return protocol.to_owned();
        }
        part
    }

    /// Without a session of its own a part is the protocol's again.
    fn part_ended(&mut self, part: &str) {
        if !self.sessions.contains_key(part) {
            self.catalog.put_part(part, false);
            self.usages.clear();
        }
    }

    /// Devices that are another mapper's now: whoever had them is told.
    fn moved(&mut self, part: &str, devices: Vec<DeviceName>, cx: &Context<TwinMsg>) {
        if devices.is_empty() {
            return;
        }
        self.usages.clear();
        let protocol = catalog::whole(part).to_owned();
        let models: Vec<DeviceName> = devices.iter().filter_map(|id| self.catalog.model_id_of(id)).collect();
        if let Some(session) = self.sessions.get_mut(&protocol) {
            session.pending.devices.extend(devices);
            session.pending.models.extend(models);
            self.push(&protocol, cx);
        }
    }

    async fn begin_session(
        &mut self,
        protocol: String,
        mapper: MapperRecord,
        (has, sent_this_run): (Acknowledged, SentThisRun),
        cx: &Context<TwinMsg>,
    ) -> Result<(), String> {
        // The same mapper under another protocol has left the old one.
        let has_left = |(other, session): (&String, &Session)| {
            let before = &session.mapper;
            *other != protocol && before.name == mapper.name && before.identity == mapper.identity
        };
        let left: Vec<String> =
            self.sessions.iter().filter(|entry| has_left(*entry)).map(|(other, _)| other.clone()).collect();
        let mut writes: Vec<_> = left.iter().map(|other| store::delete_mapper(other)).collect();
        writes.extend(store::put_mapper(&protocol, &mapper, &has));
        if self.known_mappers.contains_key(&protocol) {
            writes.push(known_mapper::forget(&protocol));
        }
        self.commit(writes).await?;
        self.known_mappers.remove(&protocol);
        self.sessions.retain(|other, _| !left.contains(other));
        for part in &left {
            let devices = self.catalog.put_part(part, false);
            self.moved(part, devices, cx);
        }
        self.session_number += 1;
        let (name, identity, devices) = (mapper.name.clone(), mapper.identity.clone(), has.devices.len());
        // A device whose model is not there yet is pending again when that comes.
        let known = (has, sent_this_run);
        let session = Session::new(mapper, known, Pending::default(), self.session_number, cx.now());
        let event = Event::MapperRegistered {
            name: &name,
            protocol: &catalog::shown(&protocol),
            identity: &identity,
            devices,
        };
        event.happened(cx.env());
        self.sessions.insert(protocol, session);
        Ok(())
    }

    /// Whether the mapper `name`, which speaks for `identity`, may have `protocol`. A mapper that is gone makes room, and so does one that
    /// registers again; another one of the same user is another mapper.
    async fn claim(
        &mut self,
        identity: &MapperIdentity,
        name: &str,
        protocol: &str,
        cx: &Context<TwinMsg>,
    ) -> Result<(), DmiRefusal> {
        let whole = catalog::whole(protocol);
        if !identity::may_be_mapper(&self.settings.mappers, identity, whole) {
            let reason =
                format!("modules.deviceTwin.mappers does not let {identity} be the mapper of `{whole}`");
            return Err(self.deny(&identity.to_string(), reason, cx));
        }
        if let Some(session) = self.sessions.get(protocol) {
            if session.mapper.identity == *identity && session.mapper.name == name {
                return Ok(());
            }
            let before = session.mapper.clone();
            if self.is_alive(&before, cx).await {
                let reason = format!(
                    "`{whole}` has a mapper, `{}` of {}, and it is there; end that one first, or let devices name this one (annotation kubehive.io/mapper)",
                    before.name, before.identity
                );
                return Err(self.deny(&identity.to_string(), reason, cx));
            }
            let shown = catalog::shown(protocol);
            Event::MapperReplaced { protocol: &shown, before: &before.identity, after: identity }
                .happened(cx.env());
            return Ok(());
        }
        let own = self.sessions.values().filter(|session| session.mapper.identity == *identity).count();
        if own >= PROTOCOLS_MAX && !self.forget_unused(identity, cx).await? {
            return Err(DmiRefusal::UsedUp(format!(
                "{identity} has {PROTOCOLS_MAX} protocols, which is the most"
            )));
        }
        if self.sessions.len() >= MAPPERS_MAX && !self.forget_gone(cx).await? {
            return Err(DmiRefusal::UsedUp(format!(
                "{MAPPERS_MAX} protocols have a mapper, which is the most"
            )));
        }
        Ok(())
    }

    /// Forgets a mapper that is gone; whether there was one.
    async fn forget_gone(&mut self, cx: &Context<TwinMsg>) -> Result<bool, String> {
        for (protocol, mapper) in self.mappers() {
            if !self.is_alive(&mapper, cx).await {
                self.forget(&protocol, cx).await?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Forgets a protocol of this user or workload that no device of the node has and whose mapper has ended, whatever other pods of
    /// the workload there are; whether there was one. A protocol that devices have waits for its mapper to come back.
    async fn forget_unused(
        &mut self,
        identity: &MapperIdentity,
        cx: &Context<TwinMsg>,
    ) -> Result<bool, String> {
        for (protocol, mapper) in self.mappers() {
            let is_used = || {
                self.catalog.devices().any(|(id, _)| self.catalog.protocol_of(id) == Some(protocol.as_str()))
            };
            if mapper.identity == *identity && !is_used() && !self.is_served(&mapper, cx).await {
                self.forget(&protocol, cx).await?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// All mappers, by their protocols.
    fn mappers(&self) -> Vec<(String, MapperRecord)> {
        self.sessions.iter().map(|(protocol, session)| (protocol.clone(), session.mapper.clone())).collect()
    }

    async fn forget(&mut self, protocol: &str, cx: &Context<TwinMsg>) -> Result<(), String> {
        self.commit(vec![store::delete_mapper(protocol)]).await?;
        self.sessions.remove(protocol);
        let devices = self.catalog.put_part(protocol, false);
        self.moved(protocol, devices, cx);
        Ok(())
    }

    /// Counts a call that was not the caller's to make, and says why, unless much the same was said of him just now.
    pub(super) fn deny(&mut self, caller: &str, reason: String, cx: &Context<TwinMsg>) -> DmiRefusal {
        let is_said = self.denials.denied(caller, &reason, cx.now());
        Event::CallDenied { caller, reason: &reason, is_said }.happened(cx.env());
        self.probe_later(cx);
        DmiRefusal::Denied(reason)
    }
}
