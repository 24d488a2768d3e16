//! Who is the mapper of a protocol.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use beehive::{Context, Fault};
use contract::devicetwin::{DmiCaller, DmiRefusal, TwinMsg};
use contract::ids::PODS;
use prost::Message as _;

use super::DeviceTwin;
use crate::holder::{self, Holder};
use crate::mapper::{self, Session};
use crate::push::{Met, Sent, Wanted};
use crate::reach::{self, Expected, Reach};
use crate::rows::{self, MapperRow};

/// 64 protocols on one node.
const MAPPERS_MAX: usize = 64;
/// 8 protocols of one holder: nobody takes all names before their mappers come.
const PROTOCOLS_MAX: usize = 8;
/// 1024 pods whose holder is remembered; they are asked for anew after that.
const HOLDERS_MAX: usize = 1024;
/// 1 s for a socket to take a connection: whoever lives does so at once.
const LIFE_SIGN_WITHIN: Duration = Duration::from_secs(1);

/// What a mapper says at its registration.
pub(super) struct Registration {
    pub(super) name: String,
    pub(super) protocol: String,
    pub(super) address: String,
    pub(super) version: String,
    pub(super) with_data: bool,
}

impl DeviceTwin {
    /// For whom a caller speaks.
    pub(super) fn holder_of(&mut self, caller: &DmiCaller) -> Result<Holder, DmiRefusal> {
        let Some(uid) = &caller.pod else { return Ok(Holder::User { uid: caller.uid }) };
        if let Some(known) = self.holders.get(uid) {
            return Ok(known.clone());
        }
        let found = self.pod_holder(uid).map_err(DmiRefusal::Refused)?;
        let Some(holder) = found else {
            return Err(self.deny(format!("pod {uid} is not one that runs on this node")));
        };
        if self.holders.len() >= HOLDERS_MAX {
            self.holders.clear();
        }
        self.holders.insert(uid.clone(), holder.clone());
        Ok(holder)
    }

    fn pod_holder(&self, uid: &str) -> Result<Option<Holder>, String> {
        let versions = self.store.object_versions().map_err(|error| Fault::from_error(&error).reason)?;
        let is_it = |version: &edge_store::ObjectVersion| version.key.resource == PODS && version.uid == uid;
        let Some(version) = versions.into_iter().find(is_it) else { return Ok(None) };
        let found = self.store.get_object(&version.key).map_err(|error| Fault::from_error(&error).reason)?;
        let Some(pod) = found.filter(|pod| pod.uid == uid) else { return Ok(None) };
        holder::of_pod(&pod.json).map_err(|error| format!("the calling pod is not understood: {error}"))
    }

    /// The uids of the pods of a workload that have not ended.
    fn pods_of(&self, workload: &Holder) -> Result<BTreeSet<String>, String> {
        let pods = self.store.list_objects(PODS, None).map_err(|error| Fault::from_error(&error).reason)?;
        let own = pods
            .into_iter()
            .filter(|pod| holder::of_pod(&pod.json).ok().flatten().as_ref() == Some(workload));
        Ok(own.map(|pod| pod.uid).collect())
    }

    /// The way to the socket of a mapper; `Err`: nobody can be expected there.
    pub(super) fn reach(&self, row: &MapperRow) -> Result<Reach, String> {
        let expected = match &row.holder {
            Holder::User { uid } => Expected::User(*uid),
            workload @ Holder::Workload { .. } => Expected::Pods(self.pods_of(workload)?),
        };
        let folder = self.folder().to_owned();
        let below = reach::below(&folder, &row.address)?;
        Ok(Reach { folder, below, uid: row.uid, expected, peers: Arc::clone(&self.peers) })
    }

    /// Whether the one who holds a protocol is still there: a pod of the workload is on the node, or the process runs that
    /// registered, or somebody of the holder's listens where it said.
    async fn lives(&self, row: &MapperRow, cx: &Context<TwinMsg>) -> Result<bool, String> {
        if let Holder::Workload { .. } = row.holder {
            return Ok(!self.pods_of(&row.holder)?.is_empty());
        }
        if self.peers.runs(&row.process) {
            return Ok(true);
        }
        let Ok(reach) = self.reach(row) else { return Ok(false) };
        Ok(match cx.env().timeout(LIFE_SIGN_WITHIN, reach.connect()).await {
            Some(Ok(_)) => true,
            // Somebody listens, and has no room: it is not known who, so nobody takes the place.
            Some(Err(error)) => error.kind() == ErrorKind::WouldBlock,
            None => true,
        })
    }

    /// Lets a caller have a protocol that nobody else holds. Answers its devices, if it wants them.
    pub(super) async fn register(
        &mut self,
        caller: &DmiCaller,
        said: Registration,
        cx: &Context<TwinMsg>,
    ) -> Result<Vec<u8>, DmiRefusal> {
        let Registration { name, protocol, address, version, with_data } = said;
        mapper::check(&name, &protocol)?;
        reach::below(self.folder(), &address)?;
        let holder = self.holder_of(caller)?;
        self.claim(&holder, &protocol, cx).await?;
        let mine = self.sessions.get(&protocol).is_some_and(|session| session.row.holder == holder);
        if mine && !with_data {
            return Ok(Vec::new());
        }
        let (response, sent, met) = if with_data {
            Wanted::of(&protocol, &self.catalog).registration()
        } else {
            (Default::default(), Sent::default(), Met::default())
        };
        let answer = response.encode_to_vec();
        if answer.len() > dmi::REGISTRATION_MAX {
            return Err("the mapper's devices are more than 16 MiB".to_owned().into());
        }
        let (uid, process) = (caller.uid, caller.process.clone());
        let row = MapperRow { name, address, version, holder, uid, process, with_data, sent };
        self.begin_session(protocol, row, met).await?;
        Ok(answer)
    }

    async fn begin_session(&mut self, protocol: String, row: MapperRow, met: Met) -> Result<(), String> {
        // The same mapper under another protocol has left the old one.
        let has_left = |(other, session): (&String, &Session)| {
            *other != protocol && session.row.name == row.name && session.row.holder == row.holder
        };
        let left: Vec<String> =
            self.sessions.iter().filter(|entry| has_left(*entry)).map(|(other, _)| other.clone()).collect();
        let mut writes: Vec<_> = left.iter().map(|other| rows::delete_mapper(other)).collect();
        writes.push(rows::put_mapper(&protocol, &row));
        self.commit(writes).await?;
        self.sessions.retain(|other, _| !left.contains(other));
        self.session_number += 1;
        tracing::info!(
            mapper = row.name,
            protocol,
            holder = %row.holder,
            address = row.address,
            devices = row.sent.devices.len(),
            "mapper registered"
        );
        self.sessions.insert(protocol, Session::new(row, met, self.session_number));
        Ok(())
    }

    /// Whether `holder` may have `protocol`. A mapper whose holder is gone makes room.
    async fn claim(
        &mut self,
        holder: &Holder,
        protocol: &str,
        cx: &Context<TwinMsg>,
    ) -> Result<(), DmiRefusal> {
        if !holder::may_be_mapper(&self.settings.mappers, holder, protocol) {
            let reason =
                format!("modules.deviceTwin.mappers does not let {holder} be the mapper of `{protocol}`");
            return Err(self.deny(reason));
        }
        if let Some(session) = self.sessions.get(protocol) {
            if session.row.holder == *holder {
                return Ok(());
            }
            let row = session.row.clone();
            if self.lives(&row, cx).await? {
                let reason = format!(
                    "`{protocol}` has a mapper, of {}, and it is there; end that one first",
                    row.holder
                );
                return Err(self.deny(reason));
            }
            tracing::warn!(protocol, before = %row.holder, after = %holder, "a protocol's mapper is gone; another takes its place");
            return Ok(());
        }
        if self.sessions.values().filter(|session| session.row.holder == *holder).count() >= PROTOCOLS_MAX {
            return Err(DmiRefusal::UsedUp(format!(
                "{holder} has {PROTOCOLS_MAX} protocols, which is the most"
            )));
        }
        if self.sessions.len() >= MAPPERS_MAX && !self.forget_gone(cx).await? {
            return Err(DmiRefusal::UsedUp(format!(
                "{MAPPERS_MAX} protocols have a mapper, which is the most"
            )));
        }
        Ok(())
    }

    /// Forgets a mapper whose holder is gone; whether there was one.
    async fn forget_gone(&mut self, cx: &Context<TwinMsg>) -> Result<bool, String> {
        let held: Vec<(String, MapperRow)> =
            self.sessions.iter().map(|(protocol, session)| (protocol.clone(), session.row.clone())).collect();
        for (protocol, row) in held {
            if !self.lives(&row, cx).await? {
                self.commit(vec![rows::delete_mapper(&protocol)]).await?;
                self.sessions.remove(&protocol);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Counts a call that was not the caller's to make, and says why.
    pub(super) fn deny(&mut self, reason: String) -> DmiRefusal {
        self.denied += 1;
        if self.denied.is_power_of_two() {
            tracing::warn!(denied = self.denied, %reason, "a call over DMI was denied");
        }
        DmiRefusal::Denied(reason)
    }
}
