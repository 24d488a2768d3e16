//! What MQTT clients want.

use beehive::Context;
use contract::devicetwin::TwinMsg;

use super::DeviceTwin;
use crate::members::Member;
use crate::payload::{self, Base, GetRequest, StateRequest, UpdateRequest};
use crate::plan::{self, Code, Refused};
use crate::topic::{self, DeviceId, Wish};

impl DeviceTwin {
    pub(super) async fn mqtt(
        &mut self,
        topic: &str,
        payload: &[u8],
        cx: &Context<TwinMsg>,
    ) -> Result<(), String> {
        match topic::parse(topic, self.node.as_str())? {
            Wish::UpdateTwin(id) => self.update_twin(&id, payload, cx).await,
            Wish::GetTwin(id) => self.get_twin(&id, payload, cx),
            Wish::UpdateState(id) => self.update_state(&id, payload, cx).await,
            Wish::GetMembers => self.get_members(payload, cx),
        }
    }

    /// Tells the client why not, on the topic where it waits for the result.
    fn refuse(&mut self, topic: String, base: &Base, refused: Refused) -> Result<(), String> {
        self.publish(topic, payload::refusal(base, &refused));
        Err(refused.reason)
    }

    pub(super) fn member(&self, id: &DeviceId) -> Result<&Member, Refused> {
        let unknown = || Refused::new(Code::NotFound, format!("device `{id}` is not on this node"));
        self.members.get(id).ok_or_else(unknown)
    }

    async fn update_twin(
        &mut self,
        id: &DeviceId,
        bytes: &[u8],
        cx: &Context<TwinMsg>,
    ) -> Result<(), String> {
        let topic = id.topic("twin/update/result");
        let request: UpdateRequest = match payload::read(bytes) {
            Ok(request) => request,
            Err(refused) => return self.refuse(topic, &Self::base(Some(""), cx), refused),
        };
        let base = Self::base(Some(&request.event_id), cx);
        let planned =
            self.member(id).and_then(|member| plan::update(&member.twins, &request, base.timestamp));
        let mut touched = match planned {
            Ok(touched) => touched,
            Err(refused) => return self.refuse(topic, &base, refused),
        };
        if let Err(unsaved) = self.save(id, &mut touched, cx).await {
            return self.refuse(topic, &base, unsaved.into());
        }
        self.publish(topic, payload::update_result(&base, &touched));
        self.tell_change(id, &touched, &base, cx);
        Ok(())
    }

    fn get_twin(&mut self, id: &DeviceId, bytes: &[u8], cx: &Context<TwinMsg>) -> Result<(), String> {
        let topic = id.topic("twin/get/result");
        let request: GetRequest = match payload::read(bytes) {
            Ok(request) => request,
            Err(refused) => return self.refuse(topic, &Self::base(Some(""), cx), refused),
        };
        let base = Self::base(Some(&request.event_id), cx);
        match self.member(id).map(|member| payload::get_result(&base, &member.twins)) {
            Ok(result) => {
                self.publish(topic, result);
                Ok(())
            }
            Err(refused) => self.refuse(topic, &base, refused),
        }
    }

    /// What is no state, or of no device of this node, has no answer on MQTT (KubeEdge).
    async fn update_state(
        &mut self,
        id: &DeviceId,
        bytes: &[u8],
        cx: &Context<TwinMsg>,
    ) -> Result<(), String> {
        let request: StateRequest = payload::read(bytes).map_err(|refused| refused.reason)?;
        if plan::is_online(&request.state).is_none() {
            return Err("the state is none of online, offline, ok, unhealthy and unknown".to_owned());
        }
        self.save_state(id, &request.state, cx).await?;
        self.tell_state(id, cx);
        Ok(())
    }

    pub(super) fn tell_state(&mut self, id: &DeviceId, cx: &Context<TwinMsg>) {
        let Some(member) = self.members.get(id) else { return };
        let payload = payload::state_result(&Self::base(None, cx), id, &member.state);
        self.publish(id.topic("state/update/result"), payload);
    }

    fn get_members(&mut self, bytes: &[u8], cx: &Context<TwinMsg>) -> Result<(), String> {
        let topic = topic::node_topic(self.node.as_str(), "membership/get/result");
        let request: GetRequest = match payload::read(bytes) {
            Ok(request) => request,
            Err(refused) => return self.refuse(topic, &Self::base(Some(""), cx), refused),
        };
        let described = self.members.iter().map(|(id, member)| {
            let labels = self.catalog.devices.get(id).and_then(|device| device.metadata.labels.as_ref());
            let description = labels.and_then(|labels| labels.get("description")).map_or("", String::as_str);
            (id, description, &member.state)
        });
        let payload = payload::members(&Self::base(Some(&request.event_id), cx), described);
        self.publish(topic, payload);
        Ok(())
    }
}
