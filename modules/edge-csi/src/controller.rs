//! Calls of a driver's controller service, which sidecars in the cloud make. This node decides again: only a driver that is registered
//! here, only the methods of [`contract::csi_call`], one call at a time about a volume, and few at once.
//!
//! A call ends with its caller, as any call of gRPC does: the driver hears that nobody waits any more. It goes on when this incarnation
//! has gone, until the driver answers or the call's own time is over, and holds its turn meanwhile: another one about the same volume
//! waits for it, and then asks the driver, which CSI has answer as before.

use std::rc::Rc;

use beehive::{Metrics, Reply};
use contract::csi_call::{BODY_MAX, CsiCall};
use csi::{Driver, web};
use prost::bytes::Bytes;
use tonic::Status;

use crate::controller_calls::{CALLS_MAX, ControllerCall};
use crate::events;
use crate::plan;
use crate::state::{State, Subject};

/// Answers a call, beside whoever asks.
pub(crate) fn call(state: &Rc<State>, call: CsiCall, body: &[u8], mut reply: Reply<Vec<u8>>) {
    let metrics = state.env.metrics().clone();
    let begun = begin(state, &call, body);
    let (state, env) = (Rc::clone(state), state.env.clone());
    match begun {
        Ok(begun) => env.spawn(async move {
            let answered = tokio::select! {
                answered = begun.end(&state, &call) => answered,
                () = reply.abandoned() => Err(Status::cancelled("who asked has gone")),
            };
            finish(&metrics, &call, answered, reply);
        }),
        Err(status) => finish(&metrics, &call, Err(status), reply),
    }
}

fn finish(metrics: &Metrics, call: &CsiCall, answered: Result<Bytes, Status>, reply: Reply<Vec<u8>>) {
    events::controller_called(metrics, call, answered.as_ref().err());
    reply.send(web::answer(&answered));
}

/// A call that may be made.
struct Begun {
    driver: Driver,
    message: Bytes,
    subject: Subject,
    _place: ControllerCall,
}

fn begin(state: &State, call: &CsiCall, body: &[u8]) -> Result<Begun, Status> {
    let message = web::message(body).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let subject = Subject::AtController(call.driver().to_owned(), plan::subject(&message)?);
    let driver = state.driver(call.driver()).ok_or_else(|| {
        // Its registrar may come back, as after a restart of the node: who asks is to ask again.
        Status::unavailable(format!(
            "node {}: CSI driver {} is not registered there",
            state.node,
            call.driver()
        ))
    })?;
    let place = state.controller_calls.enter(call.driver()).ok_or_else(|| {
        Status::unavailable(format!("node {} has {CALLS_MAX} calls of CSI drivers under way", state.node))
    })?;
    Ok(Begun { driver, message, subject, _place: place })
}

impl Begun {
    async fn end(self, state: &State, call: &CsiCall) -> Result<Bytes, Status> {
        let began = state.env.now();
        let late = || Status::deadline_exceeded("an earlier call about this volume has not ended");
        let turn = state.env.timeout(call.within(), state.turn_with(self.subject)).await.ok_or_else(late)?;
        let left = call.within().saturating_sub(state.env.now().since(began));
        let answered = self.driver.within(left).pass(call.method(), self.message, BODY_MAX).await;
        drop(turn);
        answered
    }
}
