//! What mappers say, and what they are told.

use std::rc::Rc;

use beehive::{Context, Reply};
use contract::devicetwin::{DmiCall, TwinMsg};
use prost::Message as _;

use super::DeviceTwin;
use crate::mapper::{self, Session};
use crate::push::{self, Wanted};
use crate::rows::{self, MapperRow};
use crate::topic::DeviceId;
use crate::{payload, plan};

/// 64 protocols on one node.
const MAPPERS_MAX: usize = 64;

impl DeviceTwin {
    pub(super) async fn dmi(
        &mut self,
        call: DmiCall,
        reply: Reply<Result<Vec<u8>, String>>,
        cx: &Context<TwinMsg>,
    ) {
        let answer = match call {
            DmiCall::Register { name, protocol, address, version, with_data } => {
                let row = MapperRow { protocol, address, version, sent: push::Sent::default() };
                self.register(name, row, with_data).await
            }
            DmiCall::Twins { namespace, name, twins } => self.observe(&namespace, &name, &twins, cx).await,
            DmiCall::State { namespace, name, state } => {
                self.mapper_state(&namespace, &name, &state, cx).await
            }
        };
        reply.send(answer);
    }

    fn named(&self, namespace: &str, name: &str) -> Result<DeviceId, String> {
        let id = DeviceId::parse(namespace, name).ok_or("namespace and name are no names of a device")?;
        self.member(&id).map_err(|refused| refused.reason)?;
        Ok(id)
    }

    async fn observe(
        &mut self,
        namespace: &str,
        name: &str,
        reports: &[(String, String, String)],
        cx: &Context<TwinMsg>,
    ) -> Result<Vec<u8>, String> {
        let id = self.named(namespace, name)?;
        let base = Self::base(None, cx);
        let model = self.catalog.devices.get(&id).and_then(|device| self.catalog.model_of(&id, device).1);
        let member = self.member(&id).map_err(|refused| refused.reason)?;
        let touched = plan::observe(&member.twins, reports, &plan::types(model), base.timestamp)?;
        let news = self.save(&id, &touched, cx).await?;
        // A value that stays the same every second is nobody's news.
        if !news.is_empty() {
            self.publish(id.topic("twin/update/result"), payload::update_result(&base, &news));
            self.tell_change(&id, &news, &base, cx);
        }
        // The answer has no fields: its encoding is empty.
        Ok(Vec::new())
    }

    /// A word that is no state is passed over, as mappers are used to (`disconnected`).
    async fn mapper_state(
        &mut self,
        namespace: &str,
        name: &str,
        state: &str,
        cx: &Context<TwinMsg>,
    ) -> Result<Vec<u8>, String> {
        let id = self.named(namespace, name)?;
        if plan::is_online(state).is_some() && self.save_state(&id, state, cx).await? {
            self.tell_state(&id, cx);
        }
        Ok(Vec::new())
    }

    /// A mapper that wants its devices takes over its protocol.
    async fn register(
        &mut self,
        name: String,
        mut row: MapperRow,
        with_data: bool,
    ) -> Result<Vec<u8>, String> {
        mapper::check(&name, &row.protocol, &row.address)?;
        if !with_data {
            return Ok(Vec::new());
        }
        if self.sessions.len() >= MAPPERS_MAX && !self.sessions.contains_key(&row.protocol) {
            return Err("mappers of 64 protocols are registered, which is the most".to_owned());
        }
        let (response, sent, met) = Wanted::of(&row.protocol, &self.catalog).registration();
        let answer = response.encode_to_vec();
        if answer.len() > dmi::REGISTRATION_MAX {
            return Err("the mapper's devices are more than 16 MiB".to_owned());
        }
        row.sent = sent;
        let mut writes = Vec::new();
        if let Some(before) = self.sessions.get(&row.protocol).filter(|before| before.name != name) {
            writes.push(rows::delete_mapper(&before.name));
        }
        writes.push(rows::put_mapper(&name, &row));
        self.commit(writes).await?;
        // The same mapper under another protocol has left the old one.
        self.sessions.retain(|_, session| session.name != name);
        self.session_number += 1;
        let session = Session::new(name, &row, met, self.session_number);
        tracing::info!(
            mapper = session.name,
            protocol = row.protocol,
            address = row.address,
            devices = row.sent.devices.len(),
            "mapper registered"
        );
        self.sessions.insert(row.protocol, session);
        Ok(answer)
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
        let calls = push::calls(&Wanted::of(protocol, &self.catalog), &session.sent, &session.met);
        if calls.is_empty() {
            return;
        }
        let calls = Rc::new(calls);
        session.flying = Some(Rc::clone(&calls));
        session.again = false;
        let (number, address, protocol) = (session.number, session.address.clone(), protocol.to_owned());
        let (env, myself) = (cx.env().clone(), cx.myself());
        cx.spawn(async move {
            let (done, failure) = mapper::run(address, calls, env).await;
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
                push::took(call, &mut session.sent, &mut session.met);
            } else {
                push::refused(call, &mut session.met);
            }
        }
        let again = std::mem::take(&mut session.again);
        let (name, row) = (session.name.clone(), session.row(protocol));
        match failure {
            None => session.failures = 0,
            Some(reason) => {
                let pause = session.failed();
                tracing::warn!(protocol, mapper = name, %reason, "mapper not reached or not willing; tried again");
                if !std::mem::replace(&mut session.waiting, true) {
                    cx.after(cx.env().jitter(pause), TwinMsg::Push { protocol: protocol.to_owned() });
                }
            }
        }
        if !done.is_empty()
            && let Err(reason) = self.commit(vec![rows::put_mapper(&name, &row)]).await
        {
            // After a restart the mapper hears more than it has to.
            tracing::warn!(protocol, %reason, "what the mapper has was not kept");
        }
        if again {
            self.push(protocol, cx);
        }
    }
}
