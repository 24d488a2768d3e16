//! What MQTT clients want.

use beehive::Context;
use contract::devicetwin::{TwinMsg, UpdateListeners};
use contract::ids::DeviceName;

use super::DeviceTwin;
use super::dmi::tell_refused;
use crate::members::{Member, StateSpeaker};
use crate::payload::{self, Base};
use crate::plan::{self, Code, Modelled, Refused, Wanted};
use crate::refused_message::{About, RefusedMessage};
use crate::request::{self, GetRequest, StateRequest, UpdateRequest};
use crate::topic::{self, Request};

/// A message of a client, where it is said that it was not taken.
const UPDATE: &str = "a twin/update of an MQTT client";

impl DeviceTwin {
    pub(super) async fn mqtt(
        &mut self,
        topic: &str,
        payload: &[u8],
        listeners: UpdateListeners,
        cx: &Context<TwinMsg>,
    ) -> Result<(), String> {
        match topic::parse(topic, self.node.as_str())? {
            Request::UpdateTwin(id) => self.update_twin(&id, payload, listeners, cx).await,
            Request::GetTwin(id) => self.get_twin(&id, payload, cx),
            Request::UpdateState(id) => self.update_state(&id, payload, cx).await,
            Request::CallMethod(id) => self.call_from_mqtt(&id, payload, cx).await,
            Request::GetMembers => self.get_members(payload, cx),
        }
    }

    /// Tells the client why not, on the topic where it waits for the result.
    fn refuse(
        &mut self,
        cx: &Context<TwinMsg>,
        topic: String,
        base: &Base,
        refused: Refused,
    ) -> Result<(), String> {
        self.publish(topic, payload::refusal(base, &refused), cx);
        Err(refused.reason)
    }

    pub(super) fn member(&self, id: &DeviceName) -> Result<&Member, Refused> {
        let unknown = || Refused::new(Code::NotFound, format!("device `{id}` is not on this node"));
        self.members.get(id).ok_or_else(unknown)
    }

    async fn update_twin(
        &mut self,
        id: &DeviceName,
        bytes: &[u8],
        listeners: UpdateListeners,
        cx: &Context<TwinMsg>,
    ) -> Result<(), String> {
        let topic = topic::device_topic(id, "twin/update/result");
        let request: UpdateRequest = match request::read(bytes) {
            Ok(request) => request,
            Err(refused) => {
                self.keep_refused_message(id, UPDATE, &refused.reason, About::Unknown, cx);
                return self.refuse(cx, topic, &Self::base(Some(&request::event_id(bytes)), cx), refused);
            }
        };
        let base = Self::base(Some(&request.event_id), cx);
        let says_actual = request.says_actual();
        let wanted = match request.wanted() {
            Ok(wanted) => wanted,
            Err(refused) => {
                self.keep_refused_message(id, UPDATE, &refused.reason, About::Unknown, cx);
                return self.refuse(cx, topic, &base, refused);
            }
        };
        let planned = self.member(id).and_then(|member| {
            wanted.check()?;
            let model = self.catalog.device(id).and_then(|device| self.catalog.model_of(id, device).1);
            plan::update(&member.twins, &wanted.updates, model, base.timestamp)
        });
        let mut changes = match planned {
            Ok(changes) => changes,
            Err(refused) => {
                self.keep_refused(id, &wanted, &refused.reason, cx).await;
                return self.refuse(cx, topic, &base, refused);
            }
        };
        if let Err(error) = self.save(id, &mut changes, cx).await {
            let refused = Refused::from(error);
            if refused.code == Code::BadRequest {
                self.keep_refused_message(id, UPDATE, &refused.reason, About::Unknown, cx);
            }
            return self.refuse(cx, topic, &base, refused);
        }
        self.other_taken(id, || About::Properties(wanted.names()));
        if listeners.result {
            self.publish(topic, payload::update_result(&base, &changes), cx);
        }
        if listeners.document && !changes.is_empty() {
            self.tell_document(id, &changes, &base, cx);
        }
        self.tell_delta(id, cx);
        self.tell_mapper(id, cx);
        let protocol = self.catalog.protocol_of(id).unwrap_or_default();
        // A device whose mapper has left speaks for itself.
        if says_actual && !self.sessions.contains_key(protocol) {
            self.spoken_for(id, None).await?;
        }
        Ok(())
    }

    /// Of an update that is refused as a whole, the values that were told of the device and cannot be taken: the device has the reason in
    /// their place, as it has it of what a mapper reports. What else it was refused for is said of the device.
    async fn keep_refused(&mut self, id: &DeviceName, wanted: &Wanted, reason: &str, cx: &Context<TwinMsg>) {
        let Some(member) = self.members.get(id) else { return };
        let base = Self::base(None, cx);
        let device = self.catalog.device(id);
        let model = device.and_then(|device| self.catalog.model_of(id, device).1);
        let modelled = Modelled::of(device, model);
        let mut observation = plan::refused_values(&member.twins, wanted, &modelled, base.timestamp);
        let culprits = plan::culprits(&member.twins, wanted, model, base.timestamp);
        tell_refused(id, &observation.refused, cx);
        match self.save(id, &mut observation.changes, cx).await {
            Ok(news) if news.is_empty() => {}
            Ok(news) => self.tell_change(id, &news, &base, cx),
            // What there is no room for shows nothing.
            Err(_) => observation.changes.clear(),
        }
        let is_kept = |name: &str| observation.changes.iter().any(|change| change.property == name);
        match culprits {
            Some(mut culprits) => {
                culprits.retain(|name, _| !is_kept(name));
                let Some(first) = culprits.values().next().cloned() else { return };
                let about = About::Properties(culprits.into_keys().collect());
                self.keep_refused_message(id, UPDATE, &first, about, cx);
            }
            None if observation.changes.is_empty() => {
                self.keep_refused_message(id, UPDATE, reason, About::Unknown, cx);
            }
            None => {}
        }
    }

    /// A message about the device was not taken, and no property shows it.
    pub(super) fn keep_refused_message(
        &mut self,
        id: &DeviceName,
        what: &str,
        reason: &str,
        about: About,
        cx: &Context<TwinMsg>,
    ) {
        if let Some(member) = self.members.get_mut(id) {
            member.refused_message = Some(RefusedMessage::new(what, reason, about, cx.now()));
        }
    }

    /// One was taken.
    pub(super) fn other_taken(&mut self, id: &DeviceName, about: impl FnOnce() -> About) {
        let message = self.members.get_mut(id).and_then(|member| member.refused_message.as_mut());
        if let Some(message) = message {
            message.other_taken(&about());
        }
    }

    /// What an application wants of a device goes to its mapper, too.
    pub(super) fn tell_mapper(&mut self, id: &DeviceName, cx: &Context<TwinMsg>) {
        let Some(member) = self.members.get(id) else { return };
        if !self.catalog.put_edge_desired(id, &member.twins) {
            return;
        }
        let protocol = self.catalog.protocol_of(id).unwrap_or_default().to_owned();
        if let Some(session) = self.sessions.get_mut(&protocol) {
            session.pending.devices.insert(id.clone());
            self.push(&protocol, cx);
        }
    }

    fn get_twin(&mut self, id: &DeviceName, bytes: &[u8], cx: &Context<TwinMsg>) -> Result<(), String> {
        let topic = topic::device_topic(id, "twin/get/result");
        let request: GetRequest = match request::read(bytes) {
            Ok(request) => request,
            Err(refused) => {
                return self.refuse(cx, topic, &Self::base(Some(&request::event_id(bytes)), cx), refused);
            }
        };
        let base = Self::base(Some(&request.event_id), cx);
        match self.member(id).map(|member| payload::get_result(&base, &member.twins)) {
            Ok(result) => {
                self.publish(topic, result, cx);
                Ok(())
            }
            Err(refused) => self.refuse(cx, topic, &base, refused),
        }
    }

    /// What is no state, or of no device of this node, has no answer on MQTT (KubeEdge).
    async fn update_state(
        &mut self,
        id: &DeviceName,
        bytes: &[u8],
        cx: &Context<TwinMsg>,
    ) -> Result<(), String> {
        let state =
            request::read(bytes).map_err(|refused| refused.reason).and_then(|StateRequest { state }| {
                let refusal = || format!("the state is none of {}", plan::STATES);
                plan::is_online(&state).ok_or_else(refusal).map(|_| state)
            });
        let state = match state {
            Ok(state) => state,
            Err(reason) => {
                self.keep_refused_message(id, "a state/update of an MQTT client", &reason, About::State, cx);
                return Err(reason);
            }
        };
        self.save_state(id, &state, None, cx).await?;
        self.other_taken(id, || About::State);
        self.state_was_heard(id, StateSpeaker::MqttClient, cx);
        self.tell_state(id, cx);
        Ok(())
    }

    pub(super) fn tell_state(&mut self, id: &DeviceName, cx: &Context<TwinMsg>) {
        self.rules.changed(id);
        let Some(member) = self.members.get(id) else { return };
        let payload = payload::state_result(&Self::base(None, cx), id, &member.state);
        self.publish(topic::device_topic(id, "state/update/result"), payload, cx);
    }

    fn get_members(&mut self, bytes: &[u8], cx: &Context<TwinMsg>) -> Result<(), String> {
        let topic = topic::node_topic(self.node.as_str(), "membership/get/result");
        let request: GetRequest = match request::read(bytes) {
            Ok(request) => request,
            Err(refused) => {
                return self.refuse(cx, topic, &Self::base(Some(&request::event_id(bytes)), cx), refused);
            }
        };
        let described =
            self.members.iter().map(|(id, member)| (id, self.catalog.description_of(id), &member.state));
        let payload = payload::members(&Self::base(Some(&request.event_id), cx), described);
        self.publish(topic, payload, cx);
        Ok(())
    }
}
