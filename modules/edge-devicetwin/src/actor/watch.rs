//! Looks at each half second who has fallen silent, and tells the cloud what is wrong with devices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use beehive::{Context, Fault, Moment};
use contract::devicetwin::TwinMsg;
use contract::ids::DeviceName;
use contract::{DeviceCondition, UpReport};

use super::updates::rfc3339;
use super::{DeviceTwin, millis};
use crate::catalog;
use crate::denials::Followed;
use crate::events::Event;
use crate::health::{self, MapperHealth};
use crate::members::{self, Member, StateSpeaker};
use crate::plan::{self, TWINS_MAX, TwinChange};
use crate::silence::{self, Heard, PROBE_EVERY, REPEAT_CYCLE};
use crate::store;
use crate::twin::{State, Twin};

/// At each fourth look, which is every 2 s, whether the mappers' processes run.
const PROCESSES_AT_EACH: u64 = 4;
/// 1 s between two reports on what is wrong with a device.
const CONDITIONS_EVERY: Duration = Duration::from_secs(1);

/// What a look has found of one device.
struct Silence {
    id: DeviceName,
    changes: Vec<TwinChange>,
    news: Vec<TwinChange>,
    state: Option<State>,
}

impl DeviceTwin {
    pub(super) async fn probe(&mut self, cx: &Context<TwinMsg>) -> Result<(), Fault> {
        self.probing = false;
        self.probe_later(cx);
        self.probes += 1;
        if self.probes.is_multiple_of(PROCESSES_AT_EACH) {
            self.look_for_mappers(cx).await?;
            self.forget_strangers(cx).await;
        }
        self.look_who_is_served(cx);
        self.tell_silence(cx).await;
        self.tell_conditions(cx).await;
        self.tell_calls(cx).await;
        for Followed { caller, more, reason } in self.denials.due(cx.now()) {
            Event::CallsDenied { caller: &caller, more, reason: &reason }.happened(cx.env());
        }
        Ok(())
    }

    /// Notes the devices that a mapper spoke for which is none of their protocol now.
    fn look_who_is_served(&mut self, cx: &Context<TwinMsg>) {
        for (id, member) in &mut self.members {
            let protocol = self.catalog.protocol_of(id).unwrap_or_default();
            let spoke = member.state.mapper.as_deref();
            let is_served = self.sessions.contains_key(protocol) && spoke == Some(catalog::whole(protocol));
            member.unserved = match spoke {
                Some(_) if !is_served => member.unserved.or(Some(cx.now())),
                Some(_) | None => None,
            };
        }
    }

    /// Without devices there is nothing to look at, unless somebody was denied something.
    pub(super) fn probe_later(&mut self, cx: &Context<TwinMsg>) {
        let has_to_look = !self.members.is_empty() || self.denials.is_any();
        if has_to_look && !std::mem::replace(&mut self.probing, true) {
            cx.after(PROBE_EVERY, TwinMsg::Probe);
        }
    }

    pub(super) fn state_was_heard(&mut self, id: &DeviceName, by: StateSpeaker, cx: &Context<TwinMsg>) {
        if let Some(member) = self.members.get_mut(id) {
            (member.state_heard, member.state_said_by) = (Some(cx.now()), Some(by));
        }
    }

    /// A process that has ended falls silent before its cycles say so.
    async fn look_for_mappers(&mut self, cx: &Context<TwinMsg>) -> Result<(), Fault> {
        let processes: Vec<(String, String)> = self
            .sessions
            .iter()
            .map(|(protocol, session)| (protocol.clone(), session.mapper.process.clone()))
            .collect();
        if processes.is_empty() {
            return Ok(());
        }
        let peers = Arc::clone(&self.peers);
        let ask = move || -> Vec<(String, bool)> {
            let each = processes.into_iter().map(|(protocol, process)| {
                let runs = peers.runs(&process);
                (protocol, runs)
            });
            each.collect()
        };
        let found = cx.env().blocking(ask).await?;
        for (protocol, runs) in found {
            let Some(session) = self.sessions.get_mut(&protocol) else { continue };
            session.ended = if runs { None } else { session.ended.or(Some(cx.now())) };
        }
        Ok(())
    }

    /// What was not heard in time is stale, and a device that was there and says nothing any more is in no known state.
    async fn tell_silence(&mut self, cx: &Context<TwinMsg>) {
        let (mut found, mut writes) = (Vec::new(), Vec::new());
        for (id, member) in &self.members {
            if writes.len() > 2 * TWINS_MAX {
                break;
            }
            let Some(mut silence) = self.silence_of(id, member, cx) else { continue };
            silence.news = member.news(&mut silence.changes, cx.now());
            writes.extend(members::writes(id, &silence.news));
            if let Some(state) = &mut silence.state {
                state.unreported = !member.is_state_due(cx.now());
                writes.push(store::put_state(id, state));
                writes.extend((!state.unreported).then(|| store::enqueue(&state.report(id))).flatten());
            }
            found.push(silence);
        }
        if let Err(reason) = self.commit(writes).await {
            Event::ReportsNotKept { reason: &reason }.happened(cx.env());
            return;
        }
        for Silence { id, changes, news, state } in found {
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.take(&changes, &news, cx.now());
            let has_state = state.is_some();
            if let Some(state) = state {
                member.take_state(state, true, cx.now());
            }
            if member.waits() {
                self.report_later(cx);
            }
            Event::FellSilent { device: &id, properties: changes.len(), state: has_state }.happened(cx.env());
            if !changes.is_empty() {
                self.tell_change(&id, &changes, &Self::base(None, cx), cx);
            }
            if has_state {
                self.tell_state(&id, cx);
            }
        }
    }

    fn silence_of(&self, id: &DeviceName, member: &Member, cx: &Context<TwinMsg>) -> Option<Silence> {
        let device = self.catalog.device(id)?;
        let session = self.sessions.get(self.catalog.protocol_of(id).unwrap_or_default());
        let has_mapper = session.is_some();
        let now = cx.now();
        let ended = session.filter(|session| session.is_gone()).and_then(|session| session.ended);
        // The mapper of before has left at once where there is none, and within two cycles where another one is to begin.
        let has_left = |since: &Moment| !has_mapper || now.since(*since) >= REPEAT_CYCLE * 2;
        let ended = ended.max(member.unserved.filter(has_left));
        let cycles: BTreeMap<&str, Duration> = device
            .spec
            .properties
            .iter()
            .filter_map(|property| Some((property.name.as_str(), silence::cycle(property, has_mapper)?)))
            .collect();
        let since = millis(cx.wall());
        let of = |property: &str| member.heard(property);
        let named = ended.map(|_| self.named(id)).unwrap_or_default();
        let is_named = |property: &str| named.contains(property);
        let heard = Heard { of: &of, ended, is_named: &is_named };
        let fresh = silence::fallen_silent(&member.twins, &cycles, &heard, now);
        let changes: Vec<TwinChange> = fresh
            .into_iter()
            .map(|(property, twin)| TwinChange {
                property: property.clone(),
                before: Some(twin.clone()),
                after: Twin { stale: Some(since), ..twin.clone() },
            })
            .collect();
        let heard = member.state_heard.unwrap_or(member.known);
        // Who said it before edgecore began is known by who spoke for the device.
        let is_of_mapper =
            member.state.mapper.is_some() && member.state_said_by != Some(StateSpeaker::MqttClient);
        let is_late = |cycle: Duration| silence::is_silent(now.since(heard), cycle);
        let is_silent = silence::state_cycle(device, is_of_mapper).is_some_and(is_late)
            || ended.is_some_and(|ended| heard < ended);
        let state = (is_silent && plan::is_online(&member.state.state) == Some(true)).then(|| State {
            state: "unknown".to_owned(),
            reason: None,
            ..member.state.clone()
        });
        if changes.is_empty() && state.is_none() {
            return None;
        }
        Some(Silence { id: id.clone(), changes, news: Vec::new(), state })
    }

    /// Forgets the properties that nobody has and that are wrong, once nobody tells of them any more. Nothing of them stays, so that
    /// whoever tells of one again begins anew, and is told that it is wrong.
    async fn forget_strangers(&mut self, cx: &Context<TwinMsg>) {
        let (mut found, mut writes) = (Vec::new(), Vec::new());
        for (id, member) in &self.members {
            let has_faults = |twin: &Twin| twin.actual_error.is_some() || twin.observed_error.is_some();
            let Some(device) = self.catalog.device(id).filter(|_| member.twins.values().any(has_faults))
            else {
                continue;
            };
            let modelled = plan::Modelled::of(Some(device), self.catalog.model_of(id, device).1);
            let cycles = device.spec.properties.iter().filter_map(|property| silence::cycle(property, true));
            let allowed = silence::of_strangers(cycles);
            let is_silent = |property: &str| cx.now().since(member.heard(property)) >= allowed;
            for property in modelled.strangers(&member.twins, is_silent) {
                let Some(before) = member.twins.get(property) else { continue };
                let after = Twin { deleted: true, ..Twin::new(&before.value_type) };
                writes.push(store::delete_twin(id, property));
                writes.extend(store::enqueue(&after.report(id, property)));
                let property = property.to_owned();
                found.push((id.clone(), TwinChange { property, before: Some(before.clone()), after }));
            }
        }
        if let Err(reason) = self.commit(writes).await {
            Event::ReportsNotKept { reason: &reason }.happened(cx.env());
            return;
        }
        for (id, change) in found {
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.forget(&change.property);
            let protocol = self.catalog.protocol_of(&id).unwrap_or_default();
            // What is left is weighed with the next report.
            self.usages.remove(protocol);
            Event::StrangerForgotten { device: &id, property: &change.property }.happened(cx.env());
            self.tell_change(&id, &[change], &Self::base(None, cx), cx);
        }
    }

    /// Tells the cloud what is wrong with devices, where that has changed.
    async fn tell_conditions(&mut self, cx: &Context<TwinMsg>) {
        let waiting = self.waiting();
        let now = rfc3339(cx.wall()).unwrap_or_default();
        let (mut found, mut writes) = (Vec::new(), Vec::new());
        for (id, member) in &self.members {
            if writes.len() > 2 * TWINS_MAX {
                break;
            }
            if member.conditions_told.is_some_and(|told| cx.now().since(told) < CONDITIONS_EVERY) {
                continue;
            }
            let protocol = self.catalog.protocol_of(id).unwrap_or_default();
            let mapper = self.mapper_of(id, protocol, member, &waiting, cx);
            let reads_unsigned = self.sessions.get(protocol).is_none_or(|session| session.mapper.doubles);
            let (protocol, twins) = (catalog::whole(protocol), &member.twins);
            let mut wrong = health::wrong(protocol, &mapper, &member.state, twins, reads_unsigned);
            let refused = member.refused_message.as_ref().and_then(|message| message.said(cx.now()));
            wrong.extend(refused.map(|sentence| ("MessagesTaken", "Refused", sentence.to_owned())));
            wrong.extend(self.rules.wrong(id, &member.state.conditions));
            let Some(conditions) = health::changed(&member.state.conditions, wrong, &now) else { continue };
            let state = State { conditions: conditions.clone(), ..member.state.clone() };
            writes.push(store::put_state(id, &state));
            writes.extend(store::enqueue(&conditions_report(id, conditions)));
            found.push((id.clone(), state));
        }
        if let Err(reason) = self.commit(writes).await {
            Event::ReportsNotKept { reason: &reason }.happened(cx.env());
            return;
        }
        for (id, state) in found {
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.state = state;
            member.conditions_told = Some(cx.now());
        }
    }

    /// The devices of which something has still to reach their mappers.
    fn waiting(&self) -> BTreeSet<DeviceName> {
        let mut waiting = BTreeSet::new();
        for session in self.sessions.values().filter(|session| session.fault.is_some()) {
            waiting.extend(session.pending.devices.iter().cloned());
            let calls = session.under_way.iter().flat_map(|calls| calls.iter());
            waiting.extend(calls.filter_map(|call| call.device()).cloned());
        }
        waiting
    }

    fn mapper_of(
        &self,
        id: &DeviceName,
        protocol: &str,
        member: &Member,
        waiting: &BTreeSet<DeviceName>,
        cx: &Context<TwinMsg>,
    ) -> MapperHealth {
        let Some(session) = self.sessions.get(protocol) else {
            return MapperHealth::None {
                waited: cx.now().since(member.known),
                is_state_over_mqtt: member.has_state_over_mqtt(),
            };
        };
        let mapper = session.mapper.name.clone();
        if session.is_gone() {
            return MapperHealth::Gone { mapper };
        }
        if let Some(reason) = session.refusals.get(id) {
            return MapperHealth::Refuses { mapper, reason: reason.clone() };
        }
        match &session.fault {
            Some(reason) if waiting.contains(id) => {
                MapperHealth::NotReached { mapper, failures: session.failures, reason: reason.clone() }
            }
            Some(_) | None => MapperHealth::Fine,
        }
    }
}

fn conditions_report(id: &DeviceName, conditions: Vec<DeviceCondition>) -> UpReport {
    UpReport::DeviceConditions { namespace: id.namespace.clone(), name: id.name.clone(), conditions }
}
