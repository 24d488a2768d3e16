//! Packets as they are written for clients of each version.

use beehive::Moment;
use bytes::{BufMut, Bytes, BytesMut};

use super::aliases::{OutgoingAliases, TopicForm};
use super::properties::{
    ALIAS, ALIAS_MAXIMUM, ASSIGNED_CLIENT_ID, MESSAGE_EXPIRY, PACKET_MAXIMUM, REASON, RECEIVE_MAXIMUM,
    SERVER_KEEP_ALIVE, SUBSCRIPTION_ID,
};
use super::{ConnectCode, Version};
use crate::message::Message;
use crate::outbox::PacketSink;
use crate::plan;

/// What CONNACK tells a client of MQTT 5 beside its code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ServerLimits {
    /// The id that the client got because it had none.
    pub(crate) assigned_id: Option<String>,
    /// The largest packet that is taken.
    pub(crate) packet: usize,
    /// What it has to keep to instead of the keep-alive that it asked for, in seconds.
    pub(crate) keep_alive: Option<u16>,
}

/// A refusal, or a welcome with the limits that hold.
pub(crate) fn connack(version: Version, present: bool, code: ConnectCode, limits: &ServerLimits) -> Bytes {
    let mut out = BytesMut::new();
    // 3.1 has no flag for it, and its clients may take the byte for a fault.
    let flags = u8::from(present && version != Version::V31);
    if version != Version::V5 {
        out.put_slice(&[0x20, 2, flags, code.of_3()]);
        return out.freeze();
    }
    let mut properties = BytesMut::new();
    if code == ConnectCode::Accepted {
        properties.put_u8(RECEIVE_MAXIMUM);
        properties.put_u16(plan::RECEIVE_MAXIMUM);
        properties.put_u8(PACKET_MAXIMUM);
        properties.put_u32(u32::try_from(limits.packet).unwrap_or(u32::MAX));
        properties.put_u8(ALIAS_MAXIMUM);
        properties.put_u16(plan::TOPIC_ALIASES);
        if let Some(seconds) = limits.keep_alive {
            properties.put_u8(SERVER_KEEP_ALIVE);
            properties.put_u16(seconds);
        }
        if let Some(id) = &limits.assigned_id {
            properties.put_u8(ASSIGNED_CLIENT_ID);
            put_text(&mut properties, id);
        }
    }
    out.put_u8(0x20);
    put_length(&mut out, 2 + length_size(properties.len()) + properties.len());
    out.put_slice(&[flags, code.of_5()]);
    put_length(&mut out, properties.len());
    out.put_slice(&properties);
    out.freeze()
}

/// To a client whose version nobody knows: in the form of 5 if it is a later one, else of 3.1.1.
pub(crate) fn unknown_version(level: u8) -> Bytes {
    if level & 0x7f > 5 {
        Bytes::from_static(&[0x20, 3, 0, 0x84, 0])
    } else {
        Bytes::from_static(&[0x20, 2, 0, 1])
    }
}

pub(crate) fn puback(pkid: u16, version: Version, code: u8) -> Bytes {
    short(0x40, pkid, version, code)
}

pub(crate) fn pubrec(pkid: u16, version: Version, code: u8) -> Bytes {
    short(0x50, pkid, version, code)
}

pub(crate) fn pubrel(pkid: u16, version: Version, code: u8) -> Bytes {
    short(0x62, pkid, version, code)
}

pub(crate) fn pubcomp(pkid: u16, version: Version, code: u8) -> Bytes {
    short(0x70, pkid, version, code)
}

pub(crate) fn unsuback(pkid: u16, version: Version, codes: &[u8]) -> Bytes {
    if version == Version::V5 {
        codes_packet(0xb0, pkid, version, codes)
    } else {
        short(0xb0, pkid, version, 0)
    }
}

pub(crate) fn pingresp() -> Bytes {
    Bytes::from_static(&[0xd0, 0])
}

/// 3.1.1 has one word for every refusal, and 3.1 has none: there the client is granted QoS 0 and gets nothing.
pub(crate) fn suback(pkid: u16, version: Version, codes: &[u8]) -> Bytes {
    let shown = |code: &u8| match (version, *code) {
        (Version::V311, 0x80..) => 0x80,
        (Version::V31, 0x80..) => 0,
        (_, code) => code,
    };
    codes_packet(0x90, pkid, version, &codes.iter().map(shown).collect::<Vec<u8>>())
}

/// Bytes of a SUBACK or an UNSUBACK of MQTT 5 with so many codes.
pub(crate) fn answer_size(codes: usize) -> usize {
    let body = 3 + codes;
    1 + length_size(body) + body
}

fn codes_packet(first: u8, pkid: u16, version: Version, codes: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + codes.len());
    let no_properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    out.put_u8(first);
    put_length(&mut out, 2 + no_properties.len() + codes.len());
    out.put_u16(pkid);
    out.put_slice(no_properties);
    out.put_slice(codes);
    out.freeze()
}

/// The last word to a client of MQTT 5. A reason stands in it, as clients show the code only then, if it fits.
pub(crate) fn disconnect(code: u8, reason: &str, most: usize) -> Bytes {
    let mut out = BytesMut::new();
    let reason = reason.get(..reason.len().min(120)).unwrap_or_default();
    let properties = 3 + reason.len();
    if 2 + 1 + 1 + properties > most {
        return Bytes::copy_from_slice(&[0xe0, 1, code]);
    }
    out.put_u8(0xe0);
    put_length(&mut out, 2 + properties);
    out.put_u8(code);
    put_length(&mut out, properties);
    out.put_u8(REASON);
    put_text(&mut out, reason);
    out.freeze()
}

/// A PUBLISH to a client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    pub(crate) message: &'a Message,
    pub(crate) qos: u8,
    /// 0 with QoS 0.
    pub(crate) pkid: u16,
    pub(crate) again: bool,
    pub(crate) retain: bool,
    /// Of the subscriptions that take it.
    pub(crate) ids: &'a [u32],
}

/// Writes a PUBLISH. One of more than `most` bytes is not written, which is the answer.
pub(crate) fn put_publish(
    into: &mut impl PacketSink,
    publish: Outgoing<'_>,
    version: Version,
    now: Moment,
    most: usize,
    aliases: &mut OutgoingAliases,
) -> bool {
    let Outgoing { message, qos, pkid, again, retain, ids } = publish;
    let form = if version == Version::V5 { aliases.form(&message.topic) } else { TopicForm::Name };
    let mut properties = BytesMut::new();
    if let TopicForm::NameAnd(number) | TopicForm::Number(number) = form {
        properties.put_u8(ALIAS);
        properties.put_u16(number);
    }
    if version == Version::V5 {
        if let Some(left) = message.expires_in(now) {
            properties.put_u8(MESSAGE_EXPIRY);
            properties.put_u32(left);
        }
        for id in ids {
            properties.put_u8(SUBSCRIPTION_ID);
            put_length(&mut properties, usize::try_from(*id).unwrap_or_default());
        }
    }
    let handed_on: &[u8] = if version == Version::V5 { &message.properties } else { &[] };
    let length = properties.len() + handed_on.len();
    let before = if version == Version::V5 { length_size(length) + length } else { 0 };
    let topic = if matches!(form, TopicForm::Number(_)) { "" } else { message.topic.as_str() };
    let body = 2 + topic.len() + 2 * usize::from(qos > 0) + before + message.payload.len();
    if 1 + length_size(body) + body > most {
        return false;
    }
    let out = into.head();
    out.put_u8(0x30 | (u8::from(again) << 3) | (qos << 1) | u8::from(retain));
    put_length(out, body);
    put_text(out, topic);
    if qos > 0 {
        out.put_u16(pkid);
    }
    if version == Version::V5 {
        put_length(out, length);
        out.put_slice(&properties);
        out.put_slice(handed_on);
    }
    into.put_payload(&message.payload);
    aliases.written(&message.topic, form);
    true
}

/// Texts are capped far below 64 KiB when they come in.
pub(super) fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
    out.put_slice(text.as_bytes());
}

fn short(first: u8, pkid: u16, version: Version, code: u8) -> Bytes {
    let [high, low] = pkid.to_be_bytes();
    if version == Version::V5 && code != 0 {
        return Bytes::copy_from_slice(&[first, 3, high, low, code]);
    }
    Bytes::copy_from_slice(&[first, 2, high, low])
}

fn length_size(length: usize) -> usize {
    match length {
        ..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

pub(crate) fn put_length(out: &mut BytesMut, mut length: usize) {
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
