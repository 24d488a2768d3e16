//! The messages of the router in version 1.

use beehive::link::Capabilities;
use beehive::link::wire::{DecodeError, EncodeError, Outgoing, ReplyTo};

use super::{batch, telemetry};
use crate::batch::Batch;
use crate::capability;
use crate::uplink::RouterUp;
use crate::wire::ROUTER_MAILBOX;
use crate::wire::codec::{back, outgoing, slot, split, too_large};

const TELEMETRY: u16 = 1;

pub(crate) fn encode(message: RouterUp, peer: &Capabilities) -> Result<Outgoing, EncodeError> {
    match message {
        RouterUp::Telemetry { uploads, reply } => {
            let body = batch::encode(uploads, peer.has(capability::DEFLATE), telemetry::entry);
            let body = body.map_err(|error| too_large(&error))?;
            Ok(outgoing(TELEMETRY, &body, Some(slot::<Vec<i64>, _>(reply))))
        }
    }
}

pub(crate) fn decode(message: &[u8], reply: Option<ReplyTo>) -> Result<RouterUp, DecodeError> {
    match split(message)? {
        (TELEMETRY, body) => {
            let uploads = Batch::received(body, |body| batch::open(body, telemetry::item));
            Ok(RouterUp::Telemetry { uploads, reply: back::<Vec<i64>, _>(reply)? })
        }
        (kind, _) => Err(DecodeError::UnknownKind { mailbox: ROUTER_MAILBOX, kind }),
    }
}
