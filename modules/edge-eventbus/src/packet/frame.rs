//! Packets in a stream of bytes: where one ends is known before its content is looked at. Pure.

use bytes::{Buf, BytesMut};

use super::fields::Fields;
use super::read::{self, STRANGE};
use super::{CONNECT, Packet, Publish, Version};
use crate::error::MalformedPacket;

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
    let packet = read::parse(first, version, Fields { rest: body, of: name(first) })?;
    buffer.advance(header + length);
    Ok(Some(packet))
}

/// First byte, length of the fixed header and of what follows, as soon as they are there.
pub(crate) fn peek(buffer: &[u8], version: Version) -> Result<Option<(u8, usize, usize)>, MalformedPacket> {
    let Some(first) = buffer.first().map(|first| with_due_flags(*first, version)) else { return Ok(None) };
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
    let publish = read::publish(first & 0x0f, Version::V311, &mut Fields { rest, of: "PUBLISH" })?;
    Ok(Some((publish, header + needed)))
}

/// The version by which the first byte of a CONNECT is judged; `None` while the name of the protocol is not all there.
pub(crate) fn connects_as(buffer: &[u8]) -> Result<Option<Version>, MalformedPacket> {
    const OF_31: &[u8] = b"\x00\x06MQIsdp";
    if buffer.first() == Some(&CONNECT) {
        // Right in every version.
        return Ok(Some(Version::V311));
    }
    let Some((header, _)) = frame(buffer)? else { return Ok(None) };
    let name = buffer.iter().skip(header).take(OF_31.len());
    let seen = name.len();
    if !name.eq(OF_31.iter().take(seen)) {
        return Ok(Some(Version::V311));
    }
    Ok((seen == OF_31.len()).then_some(Version::V31))
}

/// 3.1 calls the flags of a packet unused, or a repeat's, where later versions have one value for them. Its clients set DUP in
/// what they send again.
fn with_due_flags(first: u8, version: Version) -> u8 {
    match (version, first >> 4) {
        (Version::V31, 6 | 8 | 10) => first & 0xf0 | 2,
        (Version::V31, 1 | 4 | 5 | 7 | 12 | 14) => first & 0xf0,
        _ => first,
    }
}

/// Whether a packet of a client may begin so. Seen at once, whatever length comes after it and never fills up.
fn is_a_clients(first: u8) -> bool {
    matches!((first >> 4, first & 0x0f), (3, _) | (1 | 4 | 5 | 7 | 12 | 14, 0) | (6 | 8 | 10, 2))
}

/// Length of the fixed header and of what follows.
pub(super) fn frame(buffer: &[u8]) -> Result<Option<(usize, usize)>, MalformedPacket> {
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
