//! The messages of a node's DeviceTwin in version 1.

use std::collections::BTreeMap;
use std::time::Duration;

use beehive::link::wire::{DecodeError, EncodeError, Outgoing, ReplyTo};
use beehive::link::{Capabilities, sentence};
use serde::{Deserialize, Serialize};

use crate::device_call::MethodCall;
use crate::downlink::DeviceDown;
use crate::wire::TWIN_MAILBOX;
use crate::wire::codec::{self, back, outgoing, refused, slot, split, too_large};

const CALL_METHOD: u16 = 1;

#[derive(Serialize, Deserialize)]
struct CallMethodV1 {
    namespace: String,
    name: String,
    uid: String,
    id: String,
    method: String,
    values: BTreeMap<String, String>,
    within_ms: u64,
}

/// Whether the node remembers the call, or a sentence why not.
#[derive(Serialize, Deserialize)]
struct CallTakenV1(Result<(), String>);

impl From<Result<(), String>> for CallTakenV1 {
    fn from(taken: Result<(), String>) -> Self {
        CallTakenV1(taken)
    }
}

impl From<CallTakenV1> for Result<(), String> {
    fn from(CallTakenV1(taken): CallTakenV1) -> Self {
        taken.map_err(|reason| sentence(reason.as_bytes()))
    }
}

pub(crate) fn encode(message: DeviceDown, _: &Capabilities) -> Result<Outgoing, EncodeError> {
    match message {
        DeviceDown::CallMethod { namespace, name, uid, call, reply } => {
            let body = codec::encode(&CallMethodV1 {
                namespace,
                name,
                uid,
                id: call.id().to_owned(),
                method: call.method().to_owned(),
                values: call.values().clone(),
                within_ms: u64::try_from(call.within().as_millis()).unwrap_or(u64::MAX),
            });
            let body = body.map_err(|error| too_large(&error))?;
            Ok(outgoing(CALL_METHOD, &body, Some(slot::<CallTakenV1, _>(reply))))
        }
    }
}

pub(crate) fn decode(message: &[u8], reply: Option<ReplyTo>) -> Result<DeviceDown, DecodeError> {
    match split(message)? {
        (CALL_METHOD, body) => {
            let asked: CallMethodV1 = codec::decode(body).map_err(|error| refused(&error))?;
            let CallMethodV1 { namespace, name, uid, id, method, values, within_ms } = asked;
            let call = MethodCall::new(&id, &method, values, Duration::from_millis(within_ms))
                .map_err(|error| DecodeError::new(error.to_string()))?;
            Ok(DeviceDown::CallMethod { namespace, name, uid, call, reply: back::<CallTakenV1, _>(reply)? })
        }
        (kind, _) => Err(DecodeError::UnknownKind { mailbox: TWIN_MAILBOX, kind }),
    }
}
