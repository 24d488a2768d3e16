//! Properties of MQTT 5 (section 2.2.2), read from hostile bytes.

use bytes::{Bytes, BytesMut};

use super::fields::Fields;
use crate::error::MalformedPacket;

pub(crate) const PAYLOAD_FORMAT: u8 = 1;
pub(crate) const MESSAGE_EXPIRY: u8 = 2;
pub(crate) const CONTENT_TYPE: u8 = 3;
pub(crate) const RESPONSE_TOPIC: u8 = 8;
pub(crate) const CORRELATION_DATA: u8 = 9;
pub(crate) const SUBSCRIPTION_ID: u8 = 11;
pub(crate) const SESSION_EXPIRY: u8 = 17;
pub(crate) const ASSIGNED_CLIENT_ID: u8 = 18;
pub(crate) const SERVER_KEEP_ALIVE: u8 = 19;
pub(crate) const AUTH_METHOD: u8 = 21;
pub(crate) const AUTH_DATA: u8 = 22;
pub(crate) const REQUEST_PROBLEM: u8 = 23;
pub(crate) const WILL_DELAY: u8 = 24;
pub(crate) const REQUEST_RESPONSE: u8 = 25;
pub(crate) const REASON: u8 = 31;
pub(crate) const RECEIVE_MAXIMUM: u8 = 33;
pub(crate) const ALIAS_MAXIMUM: u8 = 34;
pub(crate) const ALIAS: u8 = 35;
pub(crate) const USER: u8 = 38;
pub(crate) const PACKET_MAXIMUM: u8 = 39;

/// What a property holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// 0 or 1.
    Flag,
    Two,
    Four,
    Varint,
    Text,
    Binary,
    Pair,
}

fn shape(id: u8) -> Option<Shape> {
    Some(match id {
        PAYLOAD_FORMAT | REQUEST_PROBLEM | REQUEST_RESPONSE => Shape::Flag,
        RECEIVE_MAXIMUM | ALIAS_MAXIMUM | ALIAS => Shape::Two,
        MESSAGE_EXPIRY | SESSION_EXPIRY | WILL_DELAY | PACKET_MAXIMUM => Shape::Four,
        SUBSCRIPTION_ID => Shape::Varint,
        CONTENT_TYPE | RESPONSE_TOPIC | AUTH_METHOD | REASON => Shape::Text,
        CORRELATION_DATA | AUTH_DATA => Shape::Binary,
        USER => Shape::Pair,
        _ => return None,
    })
}

/// The properties of one packet that a client sent.
#[derive(Debug, Default)]
pub(crate) struct Properties {
    numbers: Vec<(u8, u32)>,
    /// Those that are handed on with a message, as they came.
    pub(crate) forwarded: Bytes,
    pub(crate) has_auth_method: bool,
    pub(crate) has_auth_data: bool,
}

const TWICE: MalformedPacket = MalformedPacket::Protocol("property stands twice");
const RANGE: MalformedPacket = MalformedPacket::Protocol("property has a value that it may not have");

impl Properties {
    /// Reads the properties of a packet that may have those of `allowed`.
    pub(super) fn read(fields: &mut Fields<'_>, allowed: &[u8]) -> Result<Self, MalformedPacket> {
        let length = fields.varint()?;
        let mut own = Fields { rest: fields.take(length)?, of: fields.of };
        let (mut all, mut forwarded) = (Properties::default(), BytesMut::new());
        let mut seen = 0_u64;
        while !own.rest.is_empty() {
            let from = own.rest;
            let id = own.u8()?;
            // A client may not name its own subscriptions in a publish: a fault of the protocol, not of the form.
            if id == SUBSCRIPTION_ID && !allowed.contains(&id) {
                return Err(MalformedPacket::Protocol("subscription identifier in a packet of a client"));
            }
            let shape = shape(id).filter(|_| allowed.contains(&id));
            let shape = shape.ok_or(MalformedPacket::Forbidden("property does not belong there"))?;
            if seen & (1 << id) != 0 && id != USER {
                return Err(TWICE);
            }
            seen |= 1 << id;
            all.take(id, shape, &mut own)?;
            if matches!(id, PAYLOAD_FORMAT | CONTENT_TYPE | RESPONSE_TOPIC | CORRELATION_DATA | USER) {
                forwarded.extend_from_slice(from.get(..from.len() - own.rest.len()).unwrap_or_default());
            }
        }
        all.forwarded = forwarded.freeze();
        Ok(all)
    }

    fn take(&mut self, id: u8, shape: Shape, own: &mut Fields<'_>) -> Result<(), MalformedPacket> {
        let number = match shape {
            Shape::Flag => u32::from(own.u8()?),
            Shape::Two => u32::from(own.u16()?),
            Shape::Four => own.u32()?,
            Shape::Varint => u32::try_from(own.varint()?).map_err(|_| RANGE)?,
            Shape::Text => {
                let text = own.text()?;
                if id == RESPONSE_TOPIC && (text.is_empty() || text.contains(['+', '#'])) {
                    return Err(RANGE);
                }
                0
            }
            Shape::Binary => {
                own.binary()?;
                0
            }
            Shape::Pair => {
                own.text()?;
                own.text()?;
                0
            }
        };
        self.has_auth_method |= id == AUTH_METHOD;
        self.has_auth_data |= id == AUTH_DATA;
        let never_0 = matches!(id, RECEIVE_MAXIMUM | PACKET_MAXIMUM | SUBSCRIPTION_ID);
        if (shape == Shape::Flag && number > 1) || (never_0 && number == 0) {
            return Err(RANGE);
        }
        self.numbers.push((id, number));
        Ok(())
    }

    /// The value of a property that is a number.
    pub(crate) fn number(&self, id: u8) -> Option<u32> {
        self.numbers.iter().find(|(known, _)| *known == id).map(|(_, number)| *number)
    }

    pub(crate) fn short(&self, id: u8) -> Option<u16> {
        self.number(id).and_then(|number| u16::try_from(number).ok())
    }
}
