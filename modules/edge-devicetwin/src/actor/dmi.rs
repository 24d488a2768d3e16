//! What mappers say, and what they are told.

use std::rc::Rc;

use apimachinery::NamespacedName;
use beehive::Context;
use beehive::trace::{Span, SpanKind, Traces};
use contract::devicetwin::{DmiCall, DmiCaller, DmiRefusal, ObservedTwin, TwinMsg};
use contract::ids::{DEVICES, DeviceName};
use contract::traced;

use super::DeviceTwin;
use super::registration::Registration;
use crate::catalog;
use crate::events::Event;
use crate::mapper::PushOutcome;
use crate::members::StateSpeaker;
use crate::plan::{Observation, RefusedValue, TwinChange};
use crate::push::Call;
use crate::refused_message::About;
use crate::twin::State;
use crate::{mapper, payload, plan, push, silence, store, topic};

/// A message of a mapper, where it is said that it was not taken.
const REPORT: &str = "a report of the device's mapper";

/// What of a report is not taken.
enum ReportError {
    /// Nothing is.
    Whole(DmiRefusal),
    /// The rest is: what the mapper is told.
    Parts(String),
}

impl From<DmiRefusal> for ReportError {
    fn from(refusal: DmiRefusal) -> Self {
        ReportError::Whole(refusal)
    }
}

impl From<ReportError> for DmiRefusal {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::Whole(refusal) => refusal,
            ReportError::Parts(reason) => DmiRefusal::Unfit(reason),
        }
    }
}

impl DeviceTwin {
    pub(super) async fn dmi(
        &mut self,
        caller: &DmiCaller,
        call: DmiCall,
        cx: &Context<TwinMsg>,
    ) -> Result<Vec<u8>, DmiRefusal> {
        match call {
            DmiCall::Register { name, protocol, address, version, with_data, doubles } => {
                let said = Registration { name, protocol, address, version, with_data, doubles };
                self.register(caller, said, cx).await
            }
            DmiCall::Twins { namespace, name, twins } => {
                let id = self.own_device(caller, &namespace, &name, cx).await?;
                let observed = self.observe(&id, &twins, cx).await;
                if let Err(ReportError::Whole(DmiRefusal::Unfit(reason) | DmiRefusal::UsedUp(reason))) =
                    &observed
                {
                    Event::ReportRefused { device: &id, reason }.happened(cx.env());
                    self.keep_refused_message(&id, REPORT, reason, About::Unknown, cx);
                }
                observed.map_err(DmiRefusal::from)
            }
            DmiCall::State { namespace, name, state, reason } => {
                let id = self.own_device(caller, &namespace, &name, cx).await?;
                self.mapper_state(&id, &state, reason, cx).await
            }
        }
    }

    /// A device of this node whose protocol the caller has registered.
    async fn own_device(
        &mut self,
        caller: &DmiCaller,
        namespace: &str,
        name: &str,
        cx: &Context<TwinMsg>,
    ) -> Result<DeviceName, DmiRefusal> {
        let id = DeviceName::parse(namespace, name).map_err(|error| DmiRefusal::Unfit(error.to_string()))?;
        self.member(&id).map_err(|refused| refused.reason)?;
        let identity = self.identity_of(caller, cx).await?;
        // A device that is not in the catalog could not be read, and is nobody's.
        let protocol = self.catalog.protocol_of(&id).unwrap_or_default().to_owned();
        if !self.sessions.contains_key(&protocol) {
            self.take_known_mapper(caller, &identity, &protocol, cx).await?;
        }
        if let Some(session) =
            self.sessions.get_mut(&protocol).filter(|session| session.mapper.identity == identity)
        {
            session.heard = cx.now();
            self.spoken_for(&id, Some(catalog::whole(&protocol))).await?;
            return Ok(id);
        }
        let reason = format!(
            "device `{id}` is of protocol `{}`, and {identity} is not its mapper: only the mapper that has \
             registered for a protocol reports its devices",
            catalog::whole(&protocol)
        );
        Err(self.deny(&identity.to_string(), reason, cx))
    }

    /// Keeps who speaks for a device: a protocol's mapper, or only MQTT clients.
    pub(super) async fn spoken_for(&mut self, id: &DeviceName, mapper: Option<&str>) -> Result<(), String> {
        let Some(member) = self.members.get(id) else { return Ok(()) };
        if member.state.mapper.as_deref() == mapper {
            return Ok(());
        }
        let state = State { mapper: mapper.map(str::to_owned), ..member.state.clone() };
        self.commit(vec![store::put_state(id, &state)]).await?;
        if let Some(member) = self.members.get_mut(id) {
            (member.state.mapper, member.unserved) = (state.mapper, None);
        }
        Ok(())
    }

    async fn observe(
        &mut self,
        id: &DeviceName,
        reports: &[ObservedTwin],
        cx: &Context<TwinMsg>,
    ) -> Result<Vec<u8>, ReportError> {
        let base = Self::base(None, cx);
        let device = self.catalog.device(id);
        let model = device.and_then(|device| self.catalog.model_of(id, device).1);
        let modelled = plan::Modelled::of(device, model);
        let member = self.member(id).map_err(|refused| DmiRefusal::Refused(refused.reason))?;
        let mut observation =
            plan::observe(&member.twins, reports, &modelled, base.timestamp).map_err(DmiRefusal::Unfit)?;
        let refusal = observation.refusal();
        let news = self.save(id, &mut observation.changes, cx).await.map_err(DmiRefusal::from)?;
        tell_refused(id, &observation.refused, cx);
        self.keep_misnamed(id, &observation, cx);
        // The store and the cloud hear of news alone. On the node whoever listens for readings hears of each cycle, as with KubeEdge.
        let told = self.take_due(id, &observation.changes, &news, cx);
        if !told.is_empty() {
            self.publish(
                topic::device_topic(id, "twin/update/result"),
                payload::report_result(&base, &told),
                cx,
            );
            self.tell_document(id, &told, &base, cx);
            match news.is_empty() {
                true => self.publish_delta(id, cx),
                false => self.tell_delta(id, cx),
            }
        }
        // The answer has no fields: its encoding is empty.
        refusal.map_or(Ok(Vec::new()), |reason| Err(ReportError::Parts(reason)))
    }

    /// What of a report can stand at no property: it has no name, or nobody has that any more.
    fn keep_misnamed(&mut self, id: &DeviceName, observation: &Observation, cx: &Context<TwinMsg>) {
        let is_refused = |name: &String| observation.refused.iter().any(|refused| refused.property == *name);
        let taken = || {
            let names = observation.changes.iter().map(|change| &change.property);
            names.filter(|name| !is_refused(name)).cloned().collect()
        };
        self.other_taken(id, || About::Properties(taken()));
        let is_kept = |name: &str| observation.changes.iter().any(|change| change.property == name);
        let misnamed = observation.refused.iter().find(|refused| !is_kept(&refused.property));
        if let Some(RefusedValue { reason, .. }) = misnamed {
            self.keep_refused_message(id, REPORT, reason, About::Unknown, cx);
        }
    }

    /// What of a report is published: what is new, and what stays as it is once in its cycle.
    fn take_due(
        &mut self,
        id: &DeviceName,
        changes: &[TwinChange],
        news: &[TwinChange],
        cx: &Context<TwinMsg>,
    ) -> Vec<TwinChange> {
        let device = self.catalog.device(id);
        let properties = device.map(|device| device.spec.properties.as_slice()).unwrap_or_default();
        let cycle = |name: &str| {
            let named = properties.iter().find(|property| property.name == name);
            named.and_then(|property| silence::cycle(property, true)).unwrap_or(silence::REPEAT_CYCLE)
        };
        let Some(member) = self.members.get_mut(id) else { return Vec::new() };
        member.take_due(changes, news, cycle, cx.now())
    }

    /// A word that is no state is refused: with an answer as if it were taken, nobody would find out.
    async fn mapper_state(
        &mut self,
        id: &DeviceName,
        said: &str,
        reason: Option<String>,
        cx: &Context<TwinMsg>,
    ) -> Result<Vec<u8>, DmiRefusal> {
        // Whatever it says, it says something.
        self.state_was_heard(id, StateSpeaker::Mapper, cx);
        let Some(state) = plan::state_of_mapper(said) else {
            let said: String = said.chars().take(64).collect();
            Event::StateRefused { device: id, said: &said }.happened(cx.env());
            let words = format!("the state `{said}` is none of {} (disconnected is offline)", plan::STATES);
            self.keep_refused_message(id, REPORT, &words, About::State, cx);
            return Err(DmiRefusal::Unfit(words));
        };
        if self.save_state(id, state, reason, cx).await? {
            self.tell_state(id, cx);
        }
        self.other_taken(id, || About::State);
        Ok(Vec::new())
    }

    pub(super) fn retry(&mut self, protocol: &str, cx: &Context<TwinMsg>) {
        if let Some(session) = self.sessions.get_mut(protocol) {
            session.waiting = false;
            self.push(protocol, cx);
        }
    }

    /// Begins the push that is due, unless one is under way.
    pub(super) fn push(&mut self, protocol: &str, cx: &Context<TwinMsg>) {
        let Some(session) = self.sessions.get_mut(protocol) else { return };
        if session.under_way.is_some() {
            return;
        }
        let pending = std::mem::take(&mut session.pending);
        if !session.mapper.with_data || pending.is_empty() {
            return;
        }
        let known = (&session.has, &session.sent_this_run);
        let calls = push::calls(protocol, &self.catalog, known, &pending, session.mapper.doubles);
        if calls.is_empty() {
            return;
        }
        let mut followed = followed(&calls, cx.env().traces());
        let calls = Rc::new(calls);
        session.under_way = Some(Rc::clone(&calls));
        let (number, mapper, protocol) = (session.number, session.mapper.clone(), protocol.to_owned());
        let socket = self.socket_of(&mapper);
        let (env, myself) = (cx.env().clone(), cx.myself());
        cx.spawn(async move {
            let outcome = match socket {
                Ok(socket) => mapper::run(socket, calls, env).await,
                Err(reason) => PushOutcome { failure: Some(reason), ..PushOutcome::default() },
            };
            let PushOutcome { done, refused, failure } = outcome;
            for (place, span) in &mut followed {
                let refusal = refused.iter().find(|(at, _)| at == place).map(|(_, why)| why.as_str());
                if let Some(why) = refusal.or(failure.as_deref().filter(|_| !done.contains(place))) {
                    span.fail(|| why);
                }
            }
            drop(followed);
            let _ = myself.tell(TwinMsg::Pushed { protocol, session: number, done, refused, failure }).await;
        });
    }

    pub(super) async fn pushed(
        &mut self,
        protocol: &str,
        number: u64,
        PushOutcome { done, refused, failure }: PushOutcome,
        cx: &Context<TwinMsg>,
    ) {
        let Some(session) = self.sessions.get_mut(protocol).filter(|session| session.number == number) else {
            return;
        };
        let Some(calls) = session.under_way.take() else { return };
        let mut writes = Vec::new();
        for (at, call) in calls.iter().enumerate() {
            if let Some(id) = call.device() {
                let refusal =
                    refused.iter().find(|(refused, _)| *refused == at).map(|(_, reason)| reason.clone());
                match refusal {
                    Some(reason) => drop(session.refusals.insert(id.clone(), reason)),
                    None if done.contains(&at) => drop(session.refusals.remove(id)),
                    None => {}
                }
            }
            if done.contains(&at) {
                push::took(call, &mut session.has, &mut session.sent_this_run);
                writes.push(store::put_acknowledged(protocol, call, &session.has));
            } else {
                push::refused(call, &mut session.sent_this_run);
                session.pending.put_back(call);
            }
        }
        let has_failed = failure.is_some();
        session.fault.clone_from(&failure);
        match failure {
            None => session.failures = 0,
            Some(reason) => {
                let (pause, mapper) = (session.failed(), session.mapper.name.clone());
                if !std::mem::replace(&mut session.waiting, true) {
                    cx.after(cx.env().jitter(pause), TwinMsg::Push { protocol: protocol.to_owned() });
                }
                let shown = catalog::shown(protocol);
                Event::PushFailed { protocol: &shown, mapper: &mapper, reason: &reason }.happened(cx.env());
            }
        }
        if let Err(reason) = self.commit(writes).await {
            Event::PushNotKept { protocol, reason: &reason }.happened(cx.env());
        }
        // What changed during the push.
        if !has_failed {
            self.push(protocol, cx);
        }
    }
}

/// Values that are not taken.
pub(super) fn tell_refused(id: &DeviceName, refused: &[RefusedValue], cx: &Context<TwinMsg>) {
    for RefusedValue { property, reason, is_new } in refused {
        Event::ValueRefused { device: id, property, reason, is_said: *is_new }.happened(cx.env());
    }
}

/// The calls whose devices are followed, with their places; each span ends when the mapper has answered all of them.
fn followed(calls: &[Call], traces: &Traces) -> Vec<(usize, Span)> {
    if !traces.is_on() {
        return Vec::new();
    }
    let spans = calls.iter().enumerate().filter_map(|(place, call)| {
        let device = call.device()?.clone();
        let key = NamespacedName::from(device).of_resource(DEVICES);
        let parent = traces.of(|| traced::held(&key))?;
        let name = match call {
            Call::Register(..) => "DeviceTwin RegisterDevice",
            Call::Remove(_) => "DeviceTwin RemoveDevice",
            _ => "DeviceTwin UpdateDevice",
        };
        let span = traced::named(traces.child(name, Some(parent)).of_kind(SpanKind::Client), &key);
        // What the mapper reports then follows from it.
        traces.follow(|| traced::held(&key), span.context());
        Some((place, span))
    });
    spans.collect()
}
