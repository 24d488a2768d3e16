//! The messages of the device controller in version 1.

use beehive::link::Capabilities;
use beehive::link::wire::{DecodeError, EncodeError, Outgoing, ReplyTo};

use super::{batch, reports};
use crate::batch::Batch;
use crate::capability;
use crate::uplink::DeviceUp;
use crate::wire::DEVICE_MAILBOX;
use crate::wire::codec::{back, outgoing, slot, split, too_large};

const REPORTS: u16 = 1;

pub(crate) fn encode(message: DeviceUp, peer: &Capabilities) -> Result<Outgoing, EncodeError> {
    match message {
        DeviceUp::Reports { reports, reply } => {
            let body = batch::encode(reports, peer.has(capability::DEFLATE), reports::entry);
            let body = body.map_err(|error| too_large(&error))?;
            Ok(outgoing(REPORTS, &body, Some(slot::<Vec<i64>, _>(reply))))
        }
    }
}

pub(crate) fn decode(message: &[u8], reply: Option<ReplyTo>) -> Result<DeviceUp, DecodeError> {
    match split(message)? {
        (REPORTS, body) => {
            let reports = Batch::received(body, |body| batch::open(body, reports::item));
            Ok(DeviceUp::Reports { reports, reply: back::<Vec<i64>, _>(reply)? })
        }
        (kind, _) => Err(DecodeError::UnknownKind { mailbox: DEVICE_MAILBOX, kind }),
    }
}
