//! CONNECT of MQTT 3.1, 3.1.1 and 5.

use bytes::Bytes;

use super::fields::Fields;
use super::properties::{self as property, Properties};
use super::{Connect, Packet, Password, Publish, Version, Will};
use crate::error::MalformedPacket;

/// mosquitto's bridges set this bit of the level: they want nothing back that they have sent, and RETAIN as it was.
const BRIDGE: u8 = 0x80;

const OF_CONNECT: [u8; 9] = [
    property::SESSION_EXPIRY,
    property::RECEIVE_MAXIMUM,
    property::PACKET_MAXIMUM,
    property::ALIAS_MAXIMUM,
    property::REQUEST_RESPONSE,
    property::REQUEST_PROBLEM,
    property::USER,
    property::AUTH_METHOD,
    property::AUTH_DATA,
];
const OF_WILL: [u8; 7] = [
    property::WILL_DELAY,
    property::PAYLOAD_FORMAT,
    property::MESSAGE_EXPIRY,
    property::CONTENT_TYPE,
    property::RESPONSE_TOPIC,
    property::CORRELATION_DATA,
    property::USER,
];

struct Flags(u8);

impl Flags {
    fn will_qos(&self) -> u8 {
        (self.0 >> 3) & 3
    }

    fn has(&self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    /// Whether they contradict each other, or what the version says.
    fn is_wrong(&self, version: Version) -> bool {
        let stray = !self.has(0x04) && (self.will_qos() != 0 || self.has(0x20));
        let alone = version == Version::V311 && self.0 & 0xc0 == 0x40;
        let reserved = version != Version::V31 && self.has(0x01);
        reserved || self.will_qos() == 3 || stray || alone
    }
}

pub(super) fn read(mut fields: Fields<'_>) -> Result<Packet, MalformedPacket> {
    let protocol = fields.binary()?;
    let level = fields.u8()?;
    let version = match (protocol, level & !BRIDGE) {
        (b"MQTT", 4) => Version::V311,
        (b"MQTT", 5) if level == 5 => Version::V5,
        (b"MQIsdp", 3) => Version::V31,
        (b"MQTT", _) => return Ok(Packet::OtherVersion(level)),
        // Whoever calls it so knows no later one.
        (b"MQIsdp", _) => return Ok(Packet::OtherVersion(0)),
        _ => return Err(MalformedPacket::Forbidden("protocol is not called MQTT")),
    };
    let flags = Flags(fields.u8()?);
    if flags.is_wrong(version) {
        return Err(MalformedPacket::Forbidden("flags of CONNECT contradict each other"));
    }
    let keep_alive = fields.u16()?;
    let properties = match version {
        Version::V5 => Properties::read(&mut fields, &OF_CONNECT)?,
        _ => Properties::default(),
    };
    if properties.has_auth_data && !properties.has_auth_method {
        return Err(MalformedPacket::Protocol("authentication data without its method"));
    }
    let client_id = fields.text()?;
    let will = if flags.has(0x04) { Some(will(&mut fields, &flags, version)?) } else { None };
    // 3.1 allows a flag whose field is left out.
    let absent = version == Version::V31 && fields.rest.is_empty();
    let user = if flags.has(0x80) && !absent { Some(fields.text()?) } else { None };
    let absent = version == Version::V31 && fields.rest.is_empty();
    let password = if flags.has(0x40) && !absent { Some(Password::new(fields.binary()?)) } else { None };
    fields.end()?;
    let session_expiry =
        (version == Version::V5).then(|| properties.number(property::SESSION_EXPIRY).unwrap_or_default());
    Ok(Packet::Connect(Connect {
        version,
        is_bridge: level & BRIDGE != 0,
        client_id,
        clean: flags.has(0x02),
        keep_alive,
        will,
        user,
        password,
        session_expiry,
        receive_maximum: properties.short(property::RECEIVE_MAXIMUM).unwrap_or(u16::MAX),
        packet_maximum: properties
            .number(property::PACKET_MAXIMUM)
            .and_then(|most| usize::try_from(most).ok())
            .unwrap_or(usize::MAX),
        alias_maximum: properties.short(property::ALIAS_MAXIMUM).unwrap_or_default(),
        wants_reasons: properties.number(property::REQUEST_PROBLEM) != Some(0),
        has_auth_method: properties.has_auth_method,
    }))
}

fn will(fields: &mut Fields<'_>, flags: &Flags, version: Version) -> Result<Will, MalformedPacket> {
    let properties = match version {
        Version::V5 => Properties::read(fields, &OF_WILL)?,
        _ => Properties::default(),
    };
    let topic = fields.text()?;
    let payload = Bytes::copy_from_slice(fields.binary()?);
    let publish = Publish {
        topic,
        payload,
        qos: flags.will_qos(),
        retain: flags.has(0x20),
        dup: false,
        pkid: 0,
        alias: None,
        expiry: properties.number(property::MESSAGE_EXPIRY),
        properties: properties.forwarded.clone(),
    };
    Ok(Will { publish, delay: properties.number(property::WILL_DELAY).unwrap_or_default() })
}
