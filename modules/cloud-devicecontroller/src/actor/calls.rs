//! Calls of devices' methods on their way to nodes.

use std::time::Duration;

use beehive::{Address, AskError, Context};
use contract::devicecontroller::DeviceControllerMsg;
use contract::downlink::DeviceDown;
use contract::{CallState, MethodCall, NodeName};

use super::{DeviceController, ToCall};
use crate::calls::Step;
use crate::events;

/// 10 s for a node to remember a call, and for another CloudCore to have sent one whose node is not linked here.
const CALL_WITHIN: Duration = Duration::from_secs(10);

impl DeviceController {
    /// Sends a call that stands on a Device, or waits until it is certain that nobody does.
    pub(super) fn call(&self, (key, uid, node, step): ToCall, cx: &Context<DeviceControllerMsg>) {
        let call = match step {
            Step::None => return,
            Step::Wait(id) => {
                let node = node.as_ref().map_or("", NodeName::as_str);
                let failure = format!(
                    "node `{node}` is not linked, and a call waits for nobody: make another one when it is"
                );
                cx.after(
                    CALL_WITHIN,
                    DeviceControllerMsg::CallSent { uid, id, failure: Some((CallState::Refused, failure)) },
                );
                return;
            }
            Step::Send(call) => call,
        };
        let Some((_, twin)) = node.and_then(|node| self.twins.get(&node)).cloned() else { return };
        let myself = cx.myself();
        cx.spawn(async move {
            let id = call.id().to_owned();
            let failure = send(&twin, (key.namespace, key.name), uid.clone(), call).await.err();
            let _ = myself.tell(DeviceControllerMsg::CallSent { uid, id, failure }).await;
        });
    }

    pub(super) fn call_sent(
        &mut self,
        uid: &str,
        id: &str,
        failure: Option<(CallState, String)>,
        cx: &Context<DeviceControllerMsg>,
    ) {
        events::method_call_sent(cx.env(), id, failure.as_ref().map(|(_, reason)| reason.as_str()));
        if self.calls.sent(uid, id, failure)
            && let Some(next) = self.devices.say_unsent(uid, self.calls.unsent(uid))
        {
            self.write(next, cx);
        }
    }
}

/// Has a node remember a call. What becomes of it then the node reports.
///
/// # Errors
/// That it does not, or that nobody knows whether it does.
async fn send(
    twin: &Address<DeviceDown>,
    (namespace, name): (String, String),
    uid: String,
    call: MethodCall,
) -> Result<(), (CallState, String)> {
    let ask = |reply| DeviceDown::CallMethod { namespace, name, uid, call, reply };
    match twin.ask(CALL_WITHIN, ask).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(reason)) => Err((CallState::Refused, reason)),
        Err(AskError::Refused(why)) => Err((CallState::Refused, format!("it did not reach its node: {why}"))),
        Err(AskError::Rejected(why)) => {
            Err((CallState::Refused, format!("its node does not take it: {why}")))
        }
        Err(error) => Err((
            CallState::Unknown,
            format!(
                "its node has not answered ({error}); if it has the call, it says here what became of it"
            ),
        )),
    }
}
