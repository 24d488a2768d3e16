//! Calls of devices' methods by somebody on the node, at its socket alone: `POST /devicemethod/<namespace>/<name>` with a
//! [`contract::device_call::MethodCall`] as JSON. Whether a call is made is DeviceTwin's to judge; here one is read, and its outcome told.

use std::sync::Arc;
use std::time::Duration;

use beehive::{Address, Clock};
use contract::device_call::JSON_MAX;
use contract::devicetwin::TwinMsg;
use contract::ids::DeviceName;
use contract::{CallOutcome, CallState, MethodCall};
use http::StatusCode;
use https::body;
use hyper::body::Incoming;
use serde_json::{Value, json};

/// 5 s beyond the mapper's time, for DeviceTwin to say so.
const BEYOND: Duration = Duration::from_secs(5);
/// 10 s for the few bytes of a body.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// Makes the call that stands in `text`. Answers a status and what became of it: `state`, `code`, `message`.
pub(crate) async fn answer(
    twin: Option<&Address<TwinMsg>>,
    device: DeviceName,
    mut text: Incoming,
    clock: &Arc<dyn Clock>,
) -> (StatusCode, Value) {
    let Some(twin) = twin else { return refused(501, "this node has no devices") };
    let Ok(bytes) = body::read(&mut text, JSON_MAX, BODY_WITHIN, &**clock).await else {
        return refused(400, "the call has not come within 10 s, or has more than 16 KiB");
    };
    // An id is what makes one call of it: whoever asks here knows it, and may ask again.
    let call = match MethodCall::read(&bytes, String::new) {
        Ok(call) => call,
        Err(error) => return refused(400, &error.to_string()),
    };
    let within = call.within() + BEYOND;
    match twin.ask(within, |reply| TwinMsg::CallMethod { device, call, reply }).await {
        Ok(outcome) => said(&outcome),
        Err(error) => {
            let message = format!("DeviceTwin does not answer ({error}): whether it was done is not known");
            said(&CallOutcome { state: CallState::Unknown, code: 504, message })
        }
    }
}

fn refused(code: u16, message: &str) -> (StatusCode, Value) {
    said(&CallOutcome { state: CallState::Refused, code, message: message.to_owned() })
}

fn said(CallOutcome { state, code, message }: &CallOutcome) -> (StatusCode, Value) {
    let status = StatusCode::from_u16(*code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, json!({ "state": state.word(), "code": code, "message": message }))
}
