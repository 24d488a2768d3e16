//! Packets of MQTT 3.1.1: parsed from hostile bytes, written for clients.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::MalformedPacket;

/// The protocol level of 3.1.1.
const LEVEL: u8 = 4;

const STRANGE: &str = "packet type or its flags are none that a client sends here";
/// How a CONNECT begins.
pub(crate) const CONNECT: u8 = 0x10;

/// What a client is told about its CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectCode {
    Accepted = 0,
    UnacceptableVersion = 1,
    IdentifierRejected = 2,
    ServerUnavailable = 3,
    BadUserNameOrPassword = 4,
    NotAuthorized = 5,
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
    pub(crate) client_id: String,
    pub(crate) clean: bool,
    pub(crate) keep_alive: u16,
    pub(crate) will: Option<Publish>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Password>,
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
}

/// What a client may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Packet {
    Connect(Connect),
    /// A CONNECT of another version of MQTT, whose rest was not looked at.
    OtherVersion(u8),
    Publish(Publish),
    PubAck(u16),
    PubRel(u16),
    Subscribe {
        pkid: u16,
        filters: Vec<(String, u8)>,
    },
    Unsubscribe {
        pkid: u16,
        filters: Vec<String>,
    },
    PingReq,
    Disconnect,
}

/// Takes the next packet out of `buffer`; `None` while it is not all there.
pub(crate) fn decode(buffer: &mut BytesMut, limit: usize) -> Result<Option<Packet>, MalformedPacket> {
    let Some(first) = buffer.first().copied() else { return Ok(None) };
    if !is_a_clients(first) {
        return Err(MalformedPacket::Forbidden(STRANGE));
    }
    let Some((header, length)) = frame(buffer)? else { return Ok(None) };
    if length > limit {
        return Err(MalformedPacket::TooLarge { size: length, limit });
    }
    if buffer.len() < header + length {
        return Ok(None);
    }
    let mut packet = buffer.split_to(header + length);
    packet.advance(header);
    parse(first, Fields { rest: &packet, of: name(first) }).map(Some)
}

/// Whether a packet of a client may begin so. Seen at once, whatever length comes after it and never fills up.
fn is_a_clients(first: u8) -> bool {
    matches!((first >> 4, first & 0x0f), (3, _) | (1 | 4 | 12 | 14, 0) | (6 | 8 | 10, 2))
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
        6 => "PUBREL",
        8 => "SUBSCRIBE",
        10 => "UNSUBSCRIBE",
        12 => "PINGREQ",
        14 => "DISCONNECT",
        _ => "packet",
    }
}

fn parse(first: u8, mut fields: Fields<'_>) -> Result<Packet, MalformedPacket> {
    let flags = first & 0x0f;
    let packet = match (first >> 4, flags) {
        (1, 0) => return connect(fields),
        (3, _) => Packet::Publish(publish(flags, &mut fields)?),
        (4, 0) => Packet::PubAck(fields.pkid()?),
        (6, 2) => Packet::PubRel(fields.pkid()?),
        (8, 2) => subscribe(&mut fields)?,
        (10, 2) => unsubscribe(&mut fields)?,
        (12, 0) => Packet::PingReq,
        (14, 0) => Packet::Disconnect,
        _ => return Err(MalformedPacket::Forbidden(STRANGE)),
    };
    fields.end()?;
    Ok(packet)
}

fn connect(mut fields: Fields<'_>) -> Result<Packet, MalformedPacket> {
    let protocol = fields.binary()?;
    let level = fields.u8()?;
    if protocol != b"MQTT" && protocol != b"MQIsdp" {
        return Err(MalformedPacket::Forbidden("protocol is not called MQTT"));
    }
    if protocol != b"MQTT" || level != LEVEL {
        return Ok(Packet::OtherVersion(level));
    }
    let flags = fields.u8()?;
    let (will, qos, retain) = (flags & 0x04 != 0, (flags >> 3) & 3, flags & 0x20 != 0);
    if flags & 1 != 0 || qos == 3 || (!will && (qos != 0 || retain)) || flags & 0xc0 == 0x40 {
        return Err(MalformedPacket::Forbidden("flags of CONNECT contradict each other"));
    }
    let keep_alive = fields.u16()?;
    let client_id = fields.text()?;
    let will = if will {
        let topic = fields.text()?;
        let payload = Bytes::copy_from_slice(fields.binary()?);
        Some(Publish { topic, payload, qos, retain, dup: false, pkid: 0 })
    } else {
        None
    };
    let user = if flags & 0x80 != 0 { Some(fields.text()?) } else { None };
    let password = if flags & 0x40 != 0 { Some(Password::new(fields.binary()?)) } else { None };
    fields.end()?;
    let clean = flags & 0x02 != 0;
    Ok(Packet::Connect(Connect { client_id, clean, keep_alive, will, user, password }))
}

fn publish(flags: u8, fields: &mut Fields<'_>) -> Result<Publish, MalformedPacket> {
    let qos = (flags >> 1) & 3;
    if qos == 3 || (qos == 0 && flags & 0x08 != 0) {
        return Err(MalformedPacket::Forbidden("flags of PUBLISH contradict each other"));
    }
    let topic = fields.text()?;
    let pkid = if qos > 0 { fields.pkid()? } else { 0 };
    // A copy, so that a small message does not keep the whole read buffer.
    let payload = Bytes::copy_from_slice(fields.remaining());
    let (dup, retain) = (flags & 0x08 != 0, flags & 1 != 0);
    Ok(Publish { topic, payload, qos, retain, dup, pkid })
}

fn subscribe(fields: &mut Fields<'_>) -> Result<Packet, MalformedPacket> {
    let pkid = fields.pkid()?;
    let mut filters = Vec::new();
    while !fields.rest.is_empty() {
        let filter = fields.text()?;
        let qos = fields.u8()?;
        if qos > 2 {
            return Err(MalformedPacket::Forbidden("SUBSCRIBE asks for a QoS above 2"));
        }
        filters.push((filter, qos));
    }
    if filters.is_empty() {
        return Err(MalformedPacket::Forbidden("SUBSCRIBE without a filter"));
    }
    Ok(Packet::Subscribe { pkid, filters })
}

fn unsubscribe(fields: &mut Fields<'_>) -> Result<Packet, MalformedPacket> {
    let pkid = fields.pkid()?;
    let mut filters = Vec::new();
    while !fields.rest.is_empty() {
        filters.push(fields.text()?);
    }
    if filters.is_empty() {
        return Err(MalformedPacket::Forbidden("UNSUBSCRIBE without a filter"));
    }
    Ok(Packet::Unsubscribe { pkid, filters })
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

pub(crate) fn connack(present: bool, code: ConnectCode) -> Bytes {
    Bytes::copy_from_slice(&[0x20, 2, u8::from(present), code as u8])
}

pub(crate) fn puback(pkid: u16) -> Bytes {
    short(0x40, pkid)
}

pub(crate) fn pubrec(pkid: u16) -> Bytes {
    short(0x50, pkid)
}

pub(crate) fn pubcomp(pkid: u16) -> Bytes {
    short(0x70, pkid)
}

pub(crate) fn unsuback(pkid: u16) -> Bytes {
    short(0xb0, pkid)
}

pub(crate) fn pingresp() -> Bytes {
    Bytes::from_static(&[0xd0, 0])
}

pub(crate) fn suback(pkid: u16, codes: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + codes.len());
    out.put_u8(0x90);
    put_length(&mut out, 2 + codes.len());
    out.put_u16(pkid);
    out.put_slice(codes);
    out.freeze()
}

/// Writes a PUBLISH; a `pkid` makes it one of QoS 1.
pub(crate) fn put_publish(
    out: &mut BytesMut,
    topic: &str,
    payload: &[u8],
    pkid: Option<u16>,
    again: bool,
    retain: bool,
) {
    let qos = u8::from(pkid.is_some());
    out.put_u8(0x30 | (u8::from(again) << 3) | (qos << 1) | u8::from(retain));
    put_length(out, 2 + topic.len() + 2 * usize::from(qos) + payload.len());
    // Topics are capped far below 64 KiB when they come in.
    out.put_u16(u16::try_from(topic.len()).unwrap_or(u16::MAX));
    out.put_slice(topic.as_bytes());
    if let Some(pkid) = pkid {
        out.put_u16(pkid);
    }
    out.put_slice(payload);
}

fn short(first: u8, pkid: u16) -> Bytes {
    let [high, low] = pkid.to_be_bytes();
    Bytes::copy_from_slice(&[first, 2, high, low])
}

fn put_length(out: &mut BytesMut, mut length: usize) {
    loop {
        let low = u8::try_from(length & 0x7f).unwrap_or_default();
        length >>= 7;
        if length == 0 {
            out.put_u8(low);
            return;
        }
        out.put_u8(low | 0x80);
    }
}

#[cfg(test)]
mod tests;
