//! The messages of the edge controller in version 1.

use beehive::link::Capabilities;
use beehive::link::wire::{DecodeError, EncodeError, Outgoing, ReplyTo};

use super::tokens::{TokenAnswerV1, TokenQueryV1};
use super::{batch, reports};
use crate::batch::Batch;
use crate::capability;
use crate::uplink::EdgeUp;
use crate::wire::EDGE_MAILBOX;
use crate::wire::codec::{self, back, outgoing, refused, slot, split, too_large};

const REPORTS: u16 = 1;
const ALIVE: u16 = 2;
const TOKEN: u16 = 3;

pub(crate) fn encode(message: EdgeUp, peer: &Capabilities) -> Result<Outgoing, EncodeError> {
    match message {
        EdgeUp::Reports { reports, reply } => {
            let body = batch::encode(reports, peer.has(capability::DEFLATE), reports::entry);
            let body = body.map_err(|error| too_large(&error))?;
            Ok(outgoing(REPORTS, &body, Some(slot::<Vec<i64>, _>(reply))))
        }
        EdgeUp::Alive => Ok(outgoing(ALIVE, &[], None)),
        EdgeUp::Token { query, reply } => {
            let body = codec::encode(&TokenQueryV1::from(query.0)).map_err(|error| too_large(&error))?;
            Ok(outgoing(TOKEN, &body, Some(slot::<TokenAnswerV1, _>(reply))))
        }
    }
}

pub(crate) fn decode(message: &[u8], reply: Option<ReplyTo>) -> Result<EdgeUp, DecodeError> {
    match split(message)? {
        (REPORTS, body) => {
            let reports = Batch::received(body, |body| batch::open(body, reports::item));
            Ok(EdgeUp::Reports { reports, reply: back::<Vec<i64>, _>(reply)? })
        }
        (ALIVE, []) => Ok(EdgeUp::Alive),
        (ALIVE, _) => Err(DecodeError::new("a sign of life has no body".to_owned())),
        (TOKEN, body) => {
            let query: TokenQueryV1 = codec::decode(body).map_err(|error| refused(&error))?;
            let reply = back::<TokenAnswerV1, _>(reply)?;
            Ok(EdgeUp::Token { query: crate::TokenQuery::from(query).into(), reply })
        }
        (kind, _) => Err(DecodeError::UnknownKind { mailbox: EDGE_MAILBOX, kind }),
    }
}
