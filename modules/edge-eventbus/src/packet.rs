//! Packets of MQTT 3.1, 3.1.1 and 5: parsed from hostile bytes, written for clients.
//!
//! rumqttd's codecs are not used: what they do with hostile bytes is shown by the tests in `packet/rumqttd_codec.rs`, each of
//! which a client could cause. What they read right would still have to be looked at here byte by byte before.

mod connect;
pub(crate) mod properties;
mod write;

use bytes::{Buf, Bytes, BytesMut};

use crate::error::MalformedPacket;
use properties::Properties;

pub(crate) use write::{
    Outgoing, ServerLimits, connack, disconnect, pingresp, puback, pubcomp, pubrec, pubrel, put_publish,
    suback, unknown_version, unsuback,
};

const STRANGE: &str = "packet type or its flags are none that a client sends here";
/// How a CONNECT begins.
pub(crate) const CONNECT: u8 = 0x10;

/// Which MQTT a client speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    /// 3.1, called MQIsdp.
    V31,
    #[default]
    V311,
    V5,
}

/// What a client is told about its CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectCode {
    Accepted,
    UnacceptableVersion,
    IdentifierRejected,
    ServerUnavailable,
    BadUserNameOrPassword,
    NotAuthorized,
    /// Its will is on no topic.
    InvalidTopic,
    /// It wants to log in by a method that is not there.
    UnknownAuthMethod,
    /// What it sent is no CONNECT, see table 2-6 of MQTT 5 for the code.
    Malformed(u8),
}

impl ConnectCode {
    /// Of 3.1 and 3.1.1, section 3.2.2.3.
    pub(crate) fn of_3(self) -> u8 {
        match self {
            ConnectCode::Accepted => 0,
            ConnectCode::UnacceptableVersion => 1,
            ConnectCode::IdentifierRejected => 2,
            ConnectCode::ServerUnavailable | ConnectCode::Malformed(_) => 3,
            ConnectCode::BadUserNameOrPassword => 4,
            ConnectCode::NotAuthorized | ConnectCode::InvalidTopic | ConnectCode::UnknownAuthMethod => 5,
        }
    }

    /// Of 5, section 3.2.2.2.
    pub(crate) fn of_5(self) -> u8 {
        match self {
            ConnectCode::Accepted => 0,
            ConnectCode::UnacceptableVersion => 0x84,
            ConnectCode::IdentifierRejected => 0x85,
            ConnectCode::BadUserNameOrPassword => 0x86,
            ConnectCode::NotAuthorized => 0x87,
            ConnectCode::ServerUnavailable => 0x89,
            ConnectCode::UnknownAuthMethod => 0x8c,
            ConnectCode::InvalidTopic => 0x90,
            ConnectCode::Malformed(code) => code,
        }
    }
}

/// A password: any bytes, which show nowhere.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(Bytes);

impl Password {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Password(Bytes::copy_from_slice(bytes))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password")
    }
}

/// What a client asks for when it connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    /// mosquitto's way to say that it connects as a bridge.
    pub(crate) is_bridge: bool,
    pub(crate) client_id: String,
    pub(crate) clean: bool,
    pub(crate) keep_alive: u16,
    pub(crate) will: Option<Will>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Password>,
    /// In seconds, of MQTT 5; `u32::MAX` for ever.
    pub(crate) session_expiry: Option<u32>,
    /// Messages of QoS 1 and 2 that may be on their way to it.
    pub(crate) receive_maximum: u16,
    /// The largest packet that it takes.
    pub(crate) packet_maximum: usize,
    /// Whether it wants to read reasons.
    pub(crate) wants_reasons: bool,
    pub(crate) has_auth_method: bool,
}

/// What is published when a client is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Will {
    pub(crate) publish: Publish,
    /// In seconds.
    pub(crate) delay: u32,
}

/// A message on its way in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    /// The client may have sent it before.
    pub(crate) dup: bool,
    /// 0 with QoS 0.
    pub(crate) pkid: u16,
    /// Stands for the topic, or is to stand for it from now on.
    pub(crate) alias: Option<u16>,
    /// In seconds.
    pub(crate) expiry: Option<u32>,
    /// What is handed on with it, encoded.
    pub(crate) properties: Bytes,
}

/// What a client subscribes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilterRequest {
    pub(crate) filter: String,
    pub(crate) qos: u8,
    /// Nothing that the client itself publishes.
    pub(crate) no_local: bool,
    /// RETAIN comes as the publisher set it.
    pub(crate) retain_as_published: bool,
    /// 0: retained messages come; 1: only if the subscription is new; 2: none.
    pub(crate) retain_handling: u8,
}

/// What a client may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Packet {
    Connect(Connect),
    /// A CONNECT of another version of MQTT, whose rest was not looked at.
    OtherVersion(u8),
    Publish(Publish),
    PubAck(u16),
    /// With its reason code, 0 in 3.1.1.
    PubRec(u16, u8),
    PubRel(u16),
    PubComp(u16),
    Subscribe {
        pkid: u16,
        id: Option<u32>,
        filters: Vec<FilterRequest>,
    },
    Unsubscribe {
        pkid: u16,
        filters: Vec<String>,
    },
    PingReq,
    Disconnect {
        /// 0 is the polite end, after which the will is not published.
        code: u8,
        session_expiry: Option<u32>,
    },
    /// A PUBLISH that was too large and has been read to its end, without its payload.
    Oversized {
        publish: Publish,
        size: usize,
    },
}

/// Takes the next packet out of `buffer`; `None` while it is not all there.
pub(crate) fn decode(
    buffer: &mut BytesMut,
    limit: usize,
    version: Version,
) -> Result<Option<Packet>, MalformedPacket> {
    let Some((first, header, length)) = peek(buffer, version)? else { return Ok(None) };
    if length > limit {
        return Err(MalformedPacket::TooLarge { size: length, limit });
    }
    if buffer.len() < header + length {
        return Ok(None);
    }
    let body = buffer.get(header..header + length).unwrap_or_default();
    // What cannot be read stays where it is: its beginning says to whom it has to be told.
    let packet = parse(first, version, Fields { rest: body, of: name(first) })?;
    buffer.advance(header + length);
    Ok(Some(packet))
}

/// First byte, length of the fixed header and of what follows, as soon as they are there.
pub(crate) fn peek(buffer: &[u8], version: Version) -> Result<Option<(u8, usize, usize)>, MalformedPacket> {
    let Some(first) = buffer.first().copied() else { return Ok(None) };
    if !is_a_clients(first) {
        let known = version == Version::V5 && matches!(first >> 4, 2 | 9 | 11 | 13 | 15) && first & 0x0f == 0;
        return Err(if known {
            MalformedPacket::Protocol(STRANGE)
        } else {
            MalformedPacket::Forbidden(STRANGE)
        });
    }
    Ok(frame(buffer)?.map(|(header, length)| (first, header, length)))
}

/// What a PUBLISH that is too large begins with, without its payload and its properties, and how many bytes of `buffer`
/// that was; `None` while it is not all there.
pub(crate) fn beginning(buffer: &[u8]) -> Result<Option<(Publish, usize)>, MalformedPacket> {
    let (Some(first), Some((header, length))) = (buffer.first().copied(), frame(buffer)?) else {
        return Ok(None);
    };
    let rest = buffer.get(header..).unwrap_or_default();
    let Some(topic) = rest.first_chunk::<2>() else { return Ok(None) };
    let qos = (first >> 1) & 3;
    let needed = 2 + usize::from(u16::from_be_bytes(*topic)) + if qos > 0 { 2 } else { 0 };
    if needed > length {
        return Err(MalformedPacket::Fields("PUBLISH"));
    }
    let Some(rest) = rest.get(..needed) else { return Ok(None) };
    // Whatever follows is not looked at: nothing of it goes anywhere.
    let publish = publish(first & 0x0f, Version::V311, &mut Fields { rest, of: "PUBLISH" })?;
    Ok(Some((publish, header + needed)))
}

/// Whether a packet of a client may begin so. Seen at once, whatever length comes after it and never fills up.
fn is_a_clients(first: u8) -> bool {
    matches!((first >> 4, first & 0x0f), (3, _) | (1 | 4 | 5 | 7 | 12 | 14, 0) | (6 | 8 | 10, 2))
}

/// Length of the fixed header and of what follows.
fn frame(buffer: &[u8]) -> Result<Option<(usize, usize)>, MalformedPacket> {
    let mut length = 0;
    for (place, byte) in buffer.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(Some((2 + place, length)));
        }
    }
    if buffer.len() >= 5 { Err(MalformedPacket::Length) } else { Ok(None) }
}

fn name(first: u8) -> &'static str {
    match first >> 4 {
        1 => "CONNECT",
        3 => "PUBLISH",
        4 => "PUBACK",
        5 => "PUBREC",
        6 => "PUBREL",
        7 => "PUBCOMP",
        8 => "SUBSCRIBE",
        10 => "UNSUBSCRIBE",
        12 => "PINGREQ",
        14 => "DISCONNECT",
        _ => "packet",
    }
}

fn parse(first: u8, version: Version, mut fields: Fields<'_>) -> Result<Packet, MalformedPacket> {
    let flags = first & 0x0f;
    let packet = match (first >> 4, flags) {
        (1, 0) => return connect::read(fields),
        (3, _) => Packet::Publish(publish(flags, version, &mut fields)?),
        (4, 0) => Packet::PubAck(acknowledgement(version, &mut fields)?.0),
        (5, 0) => {
            let (pkid, code) = acknowledgement(version, &mut fields)?;
            Packet::PubRec(pkid, code)
        }
        (6, 2) => Packet::PubRel(acknowledgement(version, &mut fields)?.0),
        (7, 0) => Packet::PubComp(acknowledgement(version, &mut fields)?.0),
        (8, 2) => subscribe(version, &mut fields)?,
        (10, 2) => unsubscribe(version, &mut fields)?,
        (12, 0) => Packet::PingReq,
        (14, 0) => disconnected(version, &mut fields)?,
        _ => return Err(MalformedPacket::Forbidden(STRANGE)),
    };
    fields.end()?;
    Ok(packet)
}

const OF_PUBLISH: [u8; 7] = [
    properties::PAYLOAD_FORMAT,
    properties::MESSAGE_EXPIRY,
    properties::CONTENT_TYPE,
    properties::RESPONSE_TOPIC,
    properties::CORRELATION_DATA,
    properties::ALIAS,
    properties::USER,
];

fn publish(flags: u8, version: Version, fields: &mut Fields<'_>) -> Result<Publish, MalformedPacket> {
    let qos = (flags >> 1) & 3;
    if qos == 3 || (qos == 0 && flags & 0x08 != 0) {
        return Err(MalformedPacket::Forbidden("flags of PUBLISH contradict each other"));
    }
    let topic = fields.text()?;
    let pkid = if qos > 0 { fields.pkid()? } else { 0 };
    let properties = match version {
        Version::V5 => Properties::read(fields, &OF_PUBLISH)?,
        _ => Properties::default(),
    };
    // A copy, so that a small message does not keep the whole read buffer.
    let payload = Bytes::copy_from_slice(fields.remaining());
    let (dup, retain) = (flags & 0x08 != 0, flags & 1 != 0);
    let (alias, expiry) =
        (properties.short(properties::ALIAS), properties.number(properties::MESSAGE_EXPIRY));
    let properties = properties.forwarded;
    Ok(Publish { topic, payload, qos, retain, dup, pkid, alias, expiry, properties })
}

/// The packet identifier and the reason code of PUBACK, PUBREC, PUBREL and PUBCOMP.
fn acknowledgement(version: Version, fields: &mut Fields<'_>) -> Result<(u16, u8), MalformedPacket> {
    let pkid = fields.pkid()?;
    if version != Version::V5 || fields.rest.is_empty() {
        return Ok((pkid, 0));
    }
    let code = fields.u8()?;
    if !matches!(code, 0 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90..=0x92 | 0x97 | 0x99) {
        return Err(MalformedPacket::Forbidden("reason code is none of an acknowledgement"));
    }
    if !fields.rest.is_empty() {
        Properties::read(fields, &[properties::REASON, properties::USER])?;
    }
    Ok((pkid, code))
}

fn subscribe(version: Version, fields: &mut Fields<'_>) -> Result<Packet, MalformedPacket> {
    let pkid = fields.pkid()?;
    let id = match version {
        Version::V5 => Properties::read(fields, &[properties::SUBSCRIPTION_ID, properties::USER])?
            .number(properties::SUBSCRIPTION_ID),
        _ => None,
    };
    let mut filters = Vec::new();
    while !fields.rest.is_empty() {
        let filter = fields.text()?;
        let options = fields.u8()?;
        let (qos, retain_handling) = (options & 3, (options >> 4) & 3);
        if qos == 3 || (version != Version::V5 && options > 2) || options & 0xc0 != 0 || retain_handling == 3
        {
            return Err(MalformedPacket::Forbidden(
                "SUBSCRIBE asks for a QoS or an option that there is not",
            ));
        }
        let (no_local, retain_as_published) = (options & 4 != 0, options & 8 != 0);
        if no_local && filter.starts_with("$share/") {
            return Err(MalformedPacket::Protocol("no local on a shared subscription"));
        }
        filters.push(FilterRequest { filter, qos, no_local, retain_as_published, retain_handling });
    }
    if filters.is_empty() {
        return Err(MalformedPacket::Forbidden("SUBSCRIBE without a filter"));
    }
    Ok(Packet::Subscribe { pkid, id, filters })
}

fn unsubscribe(version: Version, fields: &mut Fields<'_>) -> Result<Packet, MalformedPacket> {
    let pkid = fields.pkid()?;
    if version == Version::V5 {
        Properties::read(fields, &[properties::USER])?;
    }
    let mut filters = Vec::new();
    while !fields.rest.is_empty() {
        filters.push(fields.text()?);
    }
    if filters.is_empty() {
        return Err(MalformedPacket::Forbidden("UNSUBSCRIBE without a filter"));
    }
    Ok(Packet::Unsubscribe { pkid, filters })
}

fn disconnected(version: Version, fields: &mut Fields<'_>) -> Result<Packet, MalformedPacket> {
    if version != Version::V5 || fields.rest.is_empty() {
        return Ok(Packet::Disconnect { code: 0, session_expiry: None });
    }
    let code = fields.u8()?;
    let allowed = [properties::SESSION_EXPIRY, properties::REASON, properties::USER];
    let properties =
        if fields.rest.is_empty() { Properties::default() } else { Properties::read(fields, &allowed)? };
    Ok(Packet::Disconnect { code, session_expiry: properties.number(properties::SESSION_EXPIRY) })
}

struct Fields<'a> {
    rest: &'a [u8],
    of: &'static str,
}

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], MalformedPacket> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(MalformedPacket::Fields(self.of))?;
        self.rest = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, MalformedPacket> {
        Ok(self.take(1)?.iter().fold(0, |_, byte| *byte))
    }

    fn u32(&mut self) -> Result<u32, MalformedPacket> {
        Ok(self.take(4)?.iter().fold(0, |number, byte| (number << 8) | u32::from(*byte)))
    }

    /// A number of one to four bytes, in the shortest form.
    fn varint(&mut self) -> Result<usize, MalformedPacket> {
        let mut number = 0;
        for place in 0..4 {
            let byte = self.u8()?;
            number |= usize::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return if place > 0 && byte == 0 { Err(MalformedPacket::Length) } else { Ok(number) };
            }
        }
        Err(MalformedPacket::Length)
    }

    fn u16(&mut self) -> Result<u16, MalformedPacket> {
        Ok(self.take(2)?.iter().fold(0, |number, byte| (number << 8) | u16::from(*byte)))
    }

    fn pkid(&mut self) -> Result<u16, MalformedPacket> {
        match self.u16()? {
            0 => Err(MalformedPacket::Forbidden("packet identifier is 0")),
            pkid => Ok(pkid),
        }
    }

    fn binary(&mut self) -> Result<&'a [u8], MalformedPacket> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    fn text(&mut self) -> Result<String, MalformedPacket> {
        let text = std::str::from_utf8(self.binary()?)
            .map_err(|_| MalformedPacket::Forbidden("text is not UTF-8"))?;
        if text.contains('\0') {
            return Err(MalformedPacket::Forbidden("text contains NUL"));
        }
        Ok(text.to_owned())
    }

    fn remaining(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    fn end(&self) -> Result<(), MalformedPacket> {
        if self.rest.is_empty() { Ok(()) } else { Err(MalformedPacket::Fields(self.of)) }
    }
}

#[cfg(test)]
mod rumqttd_codec;
#[cfg(test)]
mod tests;
