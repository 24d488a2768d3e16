//! The messages of a node's MetaManager in version 1.

use beehive::link::Capabilities;
use beehive::link::wire::{DecodeError, EncodeError, Outgoing, ReplyTo};
use serde::{Deserialize, Serialize};

use super::objects::{AppliedV1, ChangeV1, InventoryV1, ObjectVersionsV1};
use crate::Change;
use crate::downlink::MetaDown;
use crate::wire::codec::{self, back, converted, outgoing, refused, slot, split, too_large};
use crate::wire::{META_MAILBOX, OBJECT_MAX, WireError};

const INVENTORY: u16 = 1;
const OBJECT_VERSIONS: u16 = 2;
const APPLY: u16 = 3;

#[derive(Serialize, Deserialize)]
struct AskObjectVersionsV1 {
    inventory: u64,
    buckets: Vec<u16>,
}

#[derive(Serialize, Deserialize)]
struct ApplyV1 {
    inventory: u64,
    sequence: u64,
    changes: Vec<ChangeV1>,
}

pub(crate) fn encode(message: MetaDown, _: &Capabilities) -> Result<Outgoing, EncodeError> {
    match message {
        MetaDown::Inventory { reply } => Ok(outgoing(INVENTORY, &[], Some(slot::<InventoryV1, _>(reply)))),
        MetaDown::ObjectVersions { inventory, buckets, reply } => {
            let body = codec::encode(&AskObjectVersionsV1 { inventory, buckets });
            let body = body.map_err(|error| too_large(&error))?;
            Ok(outgoing(OBJECT_VERSIONS, &body, Some(slot::<ObjectVersionsV1, _>(reply))))
        }
        MetaDown::Apply { inventory, sequence, changes, reply } => {
            let body = codec::encode(&ApplyV1 { inventory, sequence, changes: converted(changes) });
            let body = body.map_err(|error| too_large(&error))?;
            Ok(outgoing(APPLY, &body, Some(slot::<AppliedV1, _>(reply))))
        }
    }
}

pub(crate) fn decode(message: &[u8], reply: Option<ReplyTo>) -> Result<MetaDown, DecodeError> {
    match split(message)? {
        (INVENTORY, []) => Ok(MetaDown::Inventory { reply: back::<InventoryV1, _>(reply)? }),
        (INVENTORY, _) => Err(DecodeError::new("a question for the inventory has no body".to_owned())),
        (OBJECT_VERSIONS, body) => {
            let asked = codec::decode(body).map_err(|error| refused(&error))?;
            let AskObjectVersionsV1 { inventory, buckets } = asked;
            Ok(MetaDown::ObjectVersions { inventory, buckets, reply: back::<ObjectVersionsV1, _>(reply)? })
        }
        (APPLY, body) => {
            let apply = codec::decode(body).map_err(|error| refused(&error))?;
            let ApplyV1 { inventory, sequence, changes } = apply;
            let mut left = OBJECT_MAX;
            let changes: Result<Vec<Change>, WireError> =
                changes.into_iter().map(|change| change.open(&mut left)).collect();
            let changes = changes.map_err(|error| refused(&error))?;
            Ok(MetaDown::Apply { inventory, sequence, changes, reply: back::<AppliedV1, _>(reply)? })
        }
        (kind, _) => Err(DecodeError::UnknownKind { mailbox: META_MAILBOX, kind }),
    }
}
