//! What mappers say, and what they are told.

use std::rc::Rc;

use beehive::Context;
use contract::devicetwin::{DmiCall, DmiCaller, DmiRefusal, TwinMsg};

use super::DeviceTwin;
use super::registration::Registration;
use crate::push::{self, Wanted};
use crate::rows;
use crate::topic::DeviceId;
use crate::{convert, mapper, payload, plan};

impl DeviceTwin {
    pub(super) async fn dmi(
        &mut self,
        caller: &DmiCaller,
        call: DmiCall,
        cx: &Context<TwinMsg>,
    ) -> Result<Vec<u8>, DmiRefusal> {
        match call {
            DmiCall::Register { name, protocol, address, version, with_data } => {
                let said = Registration { name, protocol, address, version, with_data };
                self.register(caller, said, cx).await
            }
            DmiCall::Twins { namespace, name, twins } => {
                let id = self.own_device(caller, &namespace, &name)?;
                self.observe(&id, &twins, cx).await
            }
            DmiCall::State { namespace, name, state } => {
                let id = self.own_device(caller, &namespace, &name)?;
                self.mapper_state(&id, &state, cx).await.map_err(DmiRefusal::from)
            }
        }
    }

    /// A device of this node whose protocol the caller has registered.
    fn own_device(
        &mut self,
        caller: &DmiCaller,
        namespace: &str,
        name: &str,
    ) -> Result<DeviceId, DmiRefusal> {
        let id = DeviceId::parse(namespace, name).ok_or_else(|| {
            DmiRefusal::Unfit(
                "the device's namespace and name are not two names as Kubernetes has them".to_owned(),
            )
        })?;
        self.member(&id).map_err(|refused| refused.reason)?;
        let holder = self.holder_of(caller)?;
        let protocol = self.protocol_of(&id).unwrap_or_default().to_owned();
        if self.sessions.get(&protocol).is_some_and(|session| session.row.holder == holder) {
            return Ok(id);
        }
        Err(self.deny(format!(
            "device `{id}` is of protocol `{protocol}`, and {holder} is not its mapper: only the mapper that has \
             registered for a protocol reports its devices"
        )))
    }

    /// A device that is not in the catalog could not be read, and is nobody's.
    pub(super) fn protocol_of(&self, id: &DeviceId) -> Option<&str> {
        let device = self.catalog.devices.get(id)?;
        Some(convert::protocol(device, self.catalog.model_of(id, device).1))
    }

    async fn observe(
        &mut self,
        id: &DeviceId,
        reports: &[(String, String, String)],
        cx: &Context<TwinMsg>,
    ) -> Result<Vec<u8>, DmiRefusal> {
        let base = Self::base(None, cx);
        let model = self.catalog.devices.get(id).and_then(|device| self.catalog.model_of(id, device).1);
        let member = self.member(id).map_err(|refused| refused.reason)?;
        let mut touched = plan::observe(&member.twins, reports, &plan::types(model), base.timestamp)
            .map_err(DmiRefusal::Unfit)?;
        let news = self.save(id, &mut touched, cx).await?;
        // A value that stays the same every second is nobody's news.
        if !news.is_empty() {
            self.publish(id.topic("twin/update/result"), payload::update_result(&base, &news));
            self.tell_change(id, &news, &base, cx);
        }
        // The answer has no fields: its encoding is empty.
        Ok(Vec::new())
    }

    /// A word that is no state is passed over, as mappers are used to (`disconnected`).
    async fn mapper_state(
        &mut self,
        id: &DeviceId,
        state: &str,
        cx: &Context<TwinMsg>,
    ) -> Result<Vec<u8>, String> {
        if plan::is_online(state).is_some() && self.save_state(id, state, cx).await? {
            self.tell_state(id, cx);
        }
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
        if session.flying.is_some() {
            session.again = true;
            return;
        }
        if !session.row.with_data {
            return;
        }
        let calls = push::calls(&Wanted::of(protocol, &self.catalog), &session.row.sent, &session.met);
        if calls.is_empty() {
            return;
        }
        let calls = Rc::new(calls);
        session.flying = Some(Rc::clone(&calls));
        session.again = false;
        let (number, row, protocol) = (session.number, session.row.clone(), protocol.to_owned());
        let reach = self.reach(&row);
        let (env, myself) = (cx.env().clone(), cx.myself());
        cx.spawn(async move {
            let (done, failure) = match reach {
                Ok(reach) => mapper::run(reach, calls, env).await,
                Err(reason) => (Vec::new(), Some(reason)),
            };
            let _ = myself.tell(TwinMsg::Pushed { protocol, session: number, done, failure }).await;
        });
    }

    pub(super) async fn pushed(
        &mut self,
        protocol: &str,
        number: u64,
        done: &[usize],
        failure: Option<String>,
        cx: &Context<TwinMsg>,
    ) {
        let Some(session) = self.sessions.get_mut(protocol).filter(|session| session.number == number) else {
            return;
        };
        let Some(calls) = session.flying.take() else { return };
        for (at, call) in calls.iter().enumerate() {
            if done.contains(&at) {
                push::took(call, &mut session.row.sent, &mut session.met);
            } else {
                push::refused(call, &mut session.met);
            }
        }
        let again = std::mem::take(&mut session.again);
        let row = session.row.clone();
        match failure {
            None => session.failures = 0,
            Some(reason) => {
                let pause = session.failed();
                tracing::warn!(protocol, mapper = row.name, %reason, "mapper not reached or not willing; tried again");
                if !std::mem::replace(&mut session.waiting, true) {
                    cx.after(cx.env().jitter(pause), TwinMsg::Push { protocol: protocol.to_owned() });
                }
            }
        }
        if !done.is_empty()
            && let Err(reason) = self.commit(vec![rows::put_mapper(protocol, &row)]).await
        {
            // After a restart the mapper hears more than it has to.
            tracing::warn!(protocol, %reason, "what the mapper has was not kept");
        }
        if again {
            self.push(protocol, cx);
        }
    }
}
