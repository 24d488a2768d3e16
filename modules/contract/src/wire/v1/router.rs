//! The messages of the router in version 1.

use beehive::link::Capabilities;
use beehive::link::wire::{DecodeError, EncodeError, Outgoing, ReplyTo};

use super::rule_calls::{RuleAnswerV1, RuleCallV1};
use super::{batch, telemetry};
use crate::batch::Batch;
use crate::capability;
use crate::rule_call::RuleCall;
use crate::uplink::RouterUp;
use crate::wire::ROUTER_MAILBOX;
use crate::wire::codec::{self, back, outgoing, refused, slot, split, too_large};

const TELEMETRY: u16 = 1;
const RULE_UPLOADS: u16 = 2;
const RULE_CALL: u16 = 3;

pub(crate) fn encode(message: RouterUp, peer: &Capabilities) -> Result<Outgoing, EncodeError> {
    let encoded = |kind, uploads, reply| {
        let body = batch::encode(uploads, peer.has(capability::DEFLATE), telemetry::entry);
        let body = body.map_err(|error| too_large(&error))?;
        Ok(outgoing(kind, &body, Some(slot::<Vec<i64>, _>(reply))))
    };
    match message {
        RouterUp::Telemetry { uploads, reply } => encoded(TELEMETRY, uploads, reply),
        RouterUp::RuleUploads { uploads, reply } => encoded(RULE_UPLOADS, uploads, reply),
        RouterUp::RuleCall { call, reply } => {
            let body = codec::encode(&RuleCallV1::from(call)).map_err(|error| too_large(&error))?;
            Ok(outgoing(RULE_CALL, &body, Some(slot::<RuleAnswerV1, _>(reply))))
        }
    }
}

pub(crate) fn decode(message: &[u8], reply: Option<ReplyTo>) -> Result<RouterUp, DecodeError> {
    let uploads = |body| Batch::received(body, |body| batch::open(body, telemetry::item));
    match split(message)? {
        (TELEMETRY, body) => {
            Ok(RouterUp::Telemetry { uploads: uploads(body), reply: back::<Vec<i64>, _>(reply)? })
        }
        (RULE_UPLOADS, body) => {
            Ok(RouterUp::RuleUploads { uploads: uploads(body), reply: back::<Vec<i64>, _>(reply)? })
        }
        (RULE_CALL, body) => {
            let call: RuleCallV1 = codec::decode(body).map_err(|error| refused(&error))?;
            Ok(RouterUp::RuleCall { call: RuleCall::from(call), reply: back::<RuleAnswerV1, _>(reply)? })
        }
        (kind, _) => Err(DecodeError::UnknownKind { mailbox: ROUTER_MAILBOX, kind }),
    }
}
