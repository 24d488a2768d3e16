//! Calls of devices' methods: remembered before the mapper is asked, so that none is made twice, and told when they are over.

use std::time::Duration;

use beehive::{Context, Reply};
use contract::devicetwin::{DeviceDown, TwinMsg};
use contract::ids::DeviceName;
use contract::{CallOrigin, CallOutcome, CallState, MethodCall};

use super::DeviceTwin;
use super::updates::rfc3339;
use crate::calls::{Remembered, outcome};
use crate::events::Event;
use crate::mapper_rest::{MapperRest, Order};
use crate::method::{self, Reach};
use crate::payload::{self, Base};
use crate::plan::{Code, Refused};
use crate::{catalog, request, store, topic};

/// 16 calls are under way on a node: a mapper serves 32 connections at a time, and others want of it, too.
const RUNNING_MAX: usize = 16;
/// 1 s between two reports on a device's calls.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Who waits for the end of a call, besides those who see it on MQTT.
pub(super) type Waiter = Option<Reply<CallOutcome>>;

impl DeviceTwin {
    /// The cloud's word. Answered when the call is remembered.
    pub(super) async fn down(&mut self, message: DeviceDown, cx: &Context<TwinMsg>) {
        match message {
            DeviceDown::CallMethod { namespace, name, uid, call, reply } => {
                let taken = self.call_from_cloud(&namespace, &name, &uid, call, cx).await;
                reply.send(taken);
            }
        }
    }

    async fn call_from_cloud(
        &mut self,
        namespace: &str,
        name: &str,
        uid: &str,
        call: MethodCall,
        cx: &Context<TwinMsg>,
    ) -> Result<(), String> {
        let id = DeviceName::parse(namespace, name).map_err(|error| error.to_string())?;
        let member = self.member(&id).map_err(|refused| refused.reason)?;
        if member.state.uid != uid {
            return Err(format!("device `{id}` is another one of that name on its node"));
        }
        // What becomes of a call that is remembered is reported; another one under its id is not.
        let is_of_another = member.calls.knows(call.id()) && !member.calls.has_made(&call);
        match self.take_call(&id, call, CallOrigin::Cloud, None, cx).await {
            Some(said) if is_of_another => Err(said.message),
            Some(_) | None => Ok(()),
        }
    }

    /// A call of somebody on the node, who waits for its end.
    pub(super) async fn call_from_node(
        &mut self,
        id: &DeviceName,
        call: MethodCall,
        reply: Reply<CallOutcome>,
        cx: &Context<TwinMsg>,
    ) {
        self.take_call(id, call, CallOrigin::Node, Some(reply), cx).await;
    }

    /// A call of an MQTT client, which hears of it on `method/call/result`.
    pub(super) async fn call_from_mqtt(
        &mut self,
        id: &DeviceName,
        bytes: &[u8],
        cx: &Context<TwinMsg>,
    ) -> Result<(), String> {
        let fresh = || Self::base(None, cx).event_id;
        let call = match MethodCall::read(bytes, fresh) {
            Ok(call) => call,
            Err(error) => {
                let topic = topic::device_topic(id, "method/call/result");
                let refused = Refused::new(Code::BadRequest, error.to_string());
                let base = Self::base(Some(&request::event_id(bytes)), cx);
                self.publish(topic, payload::refusal(&base, &refused), cx);
                return Err(refused.reason);
            }
        };
        match self.take_call(id, call, CallOrigin::Mqtt, None, cx).await {
            Some(said) if said.state == CallState::Refused => Err(said.message),
            Some(_) | None => Ok(()),
        }
    }

    /// Takes a call, and answers its outcome if that is known already. What is refused is remembered, too, for the DeviceStatus.
    async fn take_call(
        &mut self,
        id: &DeviceName,
        call: MethodCall,
        by: CallOrigin,
        reply: Waiter,
        cx: &Context<TwinMsg>,
    ) -> Option<CallOutcome> {
        let said = match self.begin_call(id, &call, by, cx).await {
            Ok(order) => {
                self.waiters.insert((id.clone(), order.id.clone()), reply);
                self.run_call(order, cx);
                return None;
            }
            Err(said) => said,
        };
        let is_new = self.members.get(id).is_some_and(|member| !member.calls.knows(call.id()));
        if let Some(member) = self.members.get_mut(id).filter(|_| is_new) {
            let time = rfc3339(cx.wall()).unwrap_or_default();
            member.calls.put(Remembered::new(&call, by, said.clone(), time));
            member.calls_untold = true;
        }
        self.tell_call(id, call.id(), call.method(), by, &said, reply, cx);
        Some(said)
    }

    /// Remembers that a call is under way.
    async fn begin_call(
        &mut self,
        id: &DeviceName,
        call: &MethodCall,
        by: CallOrigin,
        cx: &Context<TwinMsg>,
    ) -> Result<Order, CallOutcome> {
        let refused = |code: Code, reason: &str| outcome(CallState::Refused, code.number(), reason);
        let member = self.member(id).map_err(|no| refused(no.code, &no.reason))?;
        if let Some(said) = member.calls.answer_to(call) {
            return Err(said);
        }
        let device = self.catalog.device(id);
        let device =
            device.ok_or_else(|| refused(Code::Unavailable, "the device's object is not understood here"))?;
        let (named, model) = self.catalog.model_of(id, device);
        let named = named.as_ref().map(|named| named.name.as_str());
        let reach = self.reach(id);
        let writes = method::writes(call, device, (named, model), &member.state.state, &reach)?;
        if self.waiters.len() >= RUNNING_MAX {
            let words = "16 calls are under way on this node, as many as it makes at a time: try again";
            return Err(refused(Code::Unavailable, words));
        }
        let time = rfc3339(cx.wall()).unwrap_or_default();
        let running = outcome(CallState::Running, 0, "");
        let mut calls = member.calls.clone();
        calls.put(Remembered::new(call, by, running, time));
        // In the store before the mapper is asked: after a restart it is known that it may have been done.
        self.commit(vec![store::put_calls(id, &calls)])
            .await
            .map_err(|reason| refused(Code::Internal, &reason))?;
        if let Some(member) = self.members.get_mut(id) {
            (member.calls, member.calls_untold) = (calls, true);
        }
        let (method, within) = (call.method().to_owned(), call.within());
        Ok(Order { device: id.clone(), id: call.id().to_owned(), method, writes, within })
    }

    /// Whether somebody serves the device.
    fn reach(&self, id: &DeviceName) -> Reach {
        let protocol = self.catalog.protocol_of(id).unwrap_or_default();
        let Some(session) = self.sessions.get(protocol) else {
            let protocol = catalog::whole(protocol);
            return Reach::None(format!("no mapper has registered for protocol `{protocol}` on this node"));
        };
        let mapper = &session.mapper.name;
        if session.is_gone() {
            return Reach::None(format!("mapper `{mapper}` has ended"));
        }
        match session.refusals.get(id) {
            Some(reason) => Reach::None(format!("mapper `{mapper}` does not take the device: {reason}")),
            None => Reach::Mapper,
        }
    }

    fn run_call(&self, order: Order, cx: &Context<TwinMsg>) {
        let protocol = self.catalog.protocol_of(&order.device).unwrap_or_default();
        let Some(session) = self.sessions.get(protocol) else { return };
        let (mapper, uid) = (session.mapper.name.clone(), session.mapper.uid);
        let port = self.settings.port_of(&mapper);
        let (rest, env, myself) = (MapperRest { mapper, port, uid }, cx.env().clone(), cx.myself());
        cx.spawn(async move {
            let outcome = rest.call(&order, &env).await;
            let Order { device, id, .. } = order;
            let _ = myself.tell(TwinMsg::MethodCalled { device, id, outcome }).await;
        });
    }

    /// A call is over.
    pub(super) async fn method_called(
        &mut self,
        id: &DeviceName,
        call: &str,
        said: CallOutcome,
        cx: &Context<TwinMsg>,
    ) {
        let reply = self.waiters.remove(&(id.clone(), call.to_owned())).flatten();
        let time = rfc3339(cx.wall()).unwrap_or_default();
        let ended = self.members.get_mut(id).and_then(|member| {
            let ended = member.calls.end(call, said.clone(), &time)?;
            let (method, by) = (ended.method.clone(), ended.by);
            member.calls_untold = true;
            Some((method, by))
        });
        // A device that has gone meanwhile: whoever asked is told all the same.
        let Some((method, by)) = ended else {
            if let Some(reply) = reply {
                reply.send(said);
            }
            return;
        };
        self.tell_calls(cx).await;
        self.tell_call(id, call, &method, by, &said, reply, cx);
    }

    #[allow(clippy::too_many_arguments)]
    fn tell_call(
        &mut self,
        id: &DeviceName,
        call: &str,
        method: &str,
        by: CallOrigin,
        said: &CallOutcome,
        reply: Waiter,
        cx: &Context<TwinMsg>,
    ) {
        let state = said.state.word();
        Event::MethodCalled { device: id, method, by: by.word(), state, message: &said.message }
            .happened(cx.env());
        if by == CallOrigin::Mqtt {
            let base = Base { event_id: call.to_owned(), ..Self::base(None, cx) };
            let result = payload::call_result(&base, method, said);
            self.publish(topic::device_topic(id, "method/call/result"), result, cx);
        }
        if let Some(reply) = reply {
            reply.send(said.clone());
        }
    }

    /// Keeps the calls of which there is news, and tells the cloud, of each device once a second.
    pub(super) async fn tell_calls(&mut self, cx: &Context<TwinMsg>) {
        let now = cx.now();
        let (mut told, mut writes) = (Vec::new(), Vec::new());
        for (id, member) in self.members.iter().filter(|(_, member)| member.calls_untold) {
            if member.calls_told.is_some_and(|told| now.since(told) < TOLD_EVERY) {
                continue;
            }
            writes.push(store::put_calls(id, &member.calls));
            writes.extend(store::enqueue(&member.calls.report(id)));
            told.push(id.clone());
        }
        if let Err(reason) = self.commit(writes).await {
            Event::ReportsNotKept { reason: &reason }.happened(cx.env());
            return;
        }
        for id in told {
            if let Some(member) = self.members.get_mut(&id) {
                (member.calls_untold, member.calls_told) = (false, Some(now));
            }
        }
    }
}
