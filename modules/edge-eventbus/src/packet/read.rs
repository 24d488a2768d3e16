//! What a client says, packet by packet; CONNECT has a file of its own. Pure.

use bytes::Bytes;

use super::fields::Fields;
use super::properties::{self, Properties};
use super::{FilterRequest, Packet, Publish, Version, connect};
use crate::error::MalformedPacket;

pub(super) const STRANGE: &str = "packet type or its flags are none that a client sends here";

pub(super) fn parse(first: u8, version: Version, mut fields: Fields<'_>) -> Result<Packet, MalformedPacket> {
    let flags = first & 0x0f;
    let packet = match (first >> 4, flags) {
        (1, 0) => return connect::read(fields),
        (3, _) => Packet::Publish(publish(flags, version, &mut fields)?),
        (4, 0) => Packet::PubAck(acknowledgement(version, &mut fields, &OF_A_PUBLISH)?.0),
        (5, 0) => {
            let (pkid, code) = acknowledgement(version, &mut fields, &OF_A_PUBLISH)?;
            Packet::PubRec(pkid, code)
        }
        (6, 2) => Packet::PubRel(acknowledgement(version, &mut fields, &OF_A_RELEASE)?.0),
        (7, 0) => Packet::PubComp(acknowledgement(version, &mut fields, &OF_A_RELEASE)?.0),
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

pub(super) fn publish(
    flags: u8,
    version: Version,
    fields: &mut Fields<'_>,
) -> Result<Publish, MalformedPacket> {
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

/// Reason codes of PUBACK and PUBREC, and those of PUBREL and PUBCOMP.
const OF_A_PUBLISH: [u8; 9] = [0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
const OF_A_RELEASE: [u8; 2] = [0, 0x92];

/// The packet identifier and the reason code of an acknowledgement, which is one of `codes`.
fn acknowledgement(
    version: Version,
    fields: &mut Fields<'_>,
    codes: &[u8],
) -> Result<(u16, u8), MalformedPacket> {
    let pkid = fields.pkid()?;
    if version != Version::V5 || fields.rest.is_empty() {
        return Ok((pkid, 0));
    }
    let code = fields.u8()?;
    if !codes.contains(&code) {
        return Err(MalformedPacket::Forbidden("reason code is none of this acknowledgement"));
    }
    if !fields.rest.is_empty() {
        Properties::read(fields, &[properties::REASON, properties::USER])?;
    }
    Ok((pkid, code))
}

fn filter(fields: &mut Fields<'_>) -> Result<String, MalformedPacket> {
    let filter = fields.text()?;
    if filter.is_empty() { Err(MalformedPacket::Forbidden("topic filter is empty")) } else { Ok(filter) }
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
        let filter = filter(&mut *fields)?;
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
        filters.push(filter(&mut *fields)?);
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
