//! A next release, as it may come: it speaks wire version 2 beside 1, knows one message more in each direction, and says one
//! thing more in a question that there was before. It keeps the machinery for two versions alive while there is one.

use beehive::link::wire::{AnswerSlot, DecodeError, EncodeError, Outgoing, ReplyTo, Wire};
use beehive::link::{Protocol, Versions, WireVersion};
use beehive::{AskError, Message, Reply};
use contract::downlink::MetaDown;
use contract::uplink::EdgeUp;
use contract::wire::{EDGE_MAILBOX, META_MAILBOX};
use contract::{TokenQuery, Unparsed, capability};

pub(crate) const VERSIONS: Versions = Versions { oldest: 1, newest: 2 };

const TOKEN: [u8; 2] = 3_u16.to_le_bytes();
const IMAGES: [u8; 2] = 4_u16.to_le_bytes();
const DRAIN: [u8; 2] = 4_u16.to_le_bytes();

/// What a node of the next release may say to the edge controller.
#[derive(Debug)]
pub(crate) enum NextEdgeUp {
    /// As before.
    Known(EdgeUp),
    /// Says in which boot of the node, too: what version 1 cannot.
    Token {
        query: Unparsed<TokenQuery>,
        boot: Option<u64>,
        reply: Reply<Result<contract::TokenGrant, String>>,
    },
    /// New, in both versions, under a capability.
    Images { images: u8, reply: Reply<u8> },
}

impl Message for NextEdgeUp {
    fn name(&self) -> &'static str {
        match self {
            NextEdgeUp::Known(known) => known.name(),
            NextEdgeUp::Token { .. } => "Token",
            NextEdgeUp::Images { .. } => "Images",
        }
    }
}

/// The same peer in version 1: what version 2 has not changed is written as there.
fn as_one(protocol: &Protocol) -> Protocol {
    Protocol::new(WireVersion::ONE, protocol.capabilities.clone())
}

fn slot(reply: Reply<u8>) -> AnswerSlot {
    Box::new(move |answer| match answer {
        Ok(bytes) => reply.send(bytes[0]),
        Err(why) => reply.fail(why),
    })
}

fn back(reply: Option<ReplyTo>) -> Reply<u8> {
    let to = reply.unwrap();
    Reply::carried(move |answer: Result<u8, AskError>| to.send(vec![answer.unwrap()]))
}

impl Wire for NextEdgeUp {
    const MAILBOX: &'static str = EDGE_MAILBOX;
    const CAPABILITIES: &'static [&'static str] =
        &[capability::TOKENS, capability::REPORT_NODE, capability::REPORT_POD_GONE, "images"];

    fn capability(&self) -> Option<&'static str> {
        match self {
            NextEdgeUp::Known(known) => known.capability(),
            NextEdgeUp::Token { .. } => Some(capability::TOKENS),
            NextEdgeUp::Images { .. } => Some("images"),
        }
    }

    fn encode(self, protocol: &Protocol) -> Result<Outgoing, EncodeError> {
        match self {
            NextEdgeUp::Known(known) => known.encode(&as_one(protocol)),
            NextEdgeUp::Token { query, boot, reply } => {
                let Outgoing { body, reply } = EdgeUp::Token { query, reply }.encode(&as_one(protocol))?;
                let body = match protocol.version.number() {
                    1 => body,
                    _ => [&TOKEN, &boot.unwrap_or(0).to_le_bytes()[..], &body[2..]].concat(),
                };
                Ok(Outgoing { body, reply })
            }
            NextEdgeUp::Images { images, reply } => {
                Ok(Outgoing { body: [&IMAGES[..], &[images]].concat(), reply: Some(slot(reply)) })
            }
        }
    }

    fn decode(body: &[u8], reply: Option<ReplyTo>, protocol: &Protocol) -> Result<Self, DecodeError> {
        let (boot, body) = match (body, protocol.version.number()) {
            ([4, 0, images], _) => {
                return Ok(NextEdgeUp::Images { images: *images, reply: back(reply) });
            }
            ([3, 0, rest @ ..], 2) => {
                let (boot, rest) = rest.split_first_chunk().unwrap();
                (Some(u64::from_le_bytes(*boot)), [&TOKEN, rest].concat())
            }
            (body, _) => (None, body.to_vec()),
        };
        Ok(match EdgeUp::decode(&body, reply, &as_one(protocol))? {
            EdgeUp::Token { query, reply } => NextEdgeUp::Token { query, boot, reply },
            known => NextEdgeUp::Known(known),
        })
    }
}

/// What the cloud of the next release may say to a node.
#[derive(Debug)]
pub(crate) enum NextMetaDown {
    /// As before.
    Known(MetaDown),
    /// New, and whoever sends it does not ask whether the node knows it.
    Drain(Reply<u8>),
}

impl Message for NextMetaDown {
    fn name(&self) -> &'static str {
        match self {
            NextMetaDown::Known(known) => known.name(),
            NextMetaDown::Drain(_) => "Drain",
        }
    }
}

impl Wire for NextMetaDown {
    const MAILBOX: &'static str = META_MAILBOX;

    fn encode(self, protocol: &Protocol) -> Result<Outgoing, EncodeError> {
        match self {
            NextMetaDown::Known(known) => known.encode(&as_one(protocol)),
            NextMetaDown::Drain(reply) => Ok(Outgoing { body: DRAIN.to_vec(), reply: Some(slot(reply)) }),
        }
    }

    fn decode(body: &[u8], reply: Option<ReplyTo>, protocol: &Protocol) -> Result<Self, DecodeError> {
        if body == DRAIN {
            return Ok(NextMetaDown::Drain(back(reply)));
        }
        MetaDown::decode(body, reply, &as_one(protocol)).map(NextMetaDown::Known)
    }
}
