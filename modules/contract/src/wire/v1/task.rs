//! The messages of the cloud's task manager in version 1.

use beehive::link::Capabilities;
use beehive::link::wire::{DecodeError, EncodeError, Outgoing, ReplyTo};

use super::{batch, reports};
use crate::batch::Batch;
use crate::capability;
use crate::uplink::TaskUp;
use crate::wire::TASK_MAILBOX;
use crate::wire::codec::{back, outgoing, slot, split, too_large};

const REPORTS: u16 = 1;

pub(crate) fn encode(message: TaskUp, peer: &Capabilities) -> Result<Outgoing, EncodeError> {
    match message {
        TaskUp::Reports { reports, reply } => {
            let body = batch::encode(reports, peer.has(capability::DEFLATE), reports::entry);
            let body = body.map_err(|error| too_large(&error))?;
            Ok(outgoing(REPORTS, &body, Some(slot::<Vec<i64>, _>(reply))))
        }
    }
}

pub(crate) fn decode(message: &[u8], reply: Option<ReplyTo>) -> Result<TaskUp, DecodeError> {
    match split(message)? {
        (REPORTS, body) => {
            let reports = Batch::received(body, |body| batch::open(body, reports::item));
            Ok(TaskUp::Reports { reports, reply: back::<Vec<i64>, _>(reply)? })
        }
        (kind, _) => Err(DecodeError::UnknownKind { mailbox: TASK_MAILBOX, kind }),
    }
}
