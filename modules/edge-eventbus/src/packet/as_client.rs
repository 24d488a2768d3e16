//! The other half of MQTT 3.1.1: what `edgecore` says where it is a client itself, and what a broker says to it. Pure.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::fields::Fields;
use super::write::{put_length, put_text};
use super::{Publish, Version, frame, read};
use crate::error::MalformedPacket;

/// What a broker may say to a client that publishes with QoS 1 and has subscribed with QoS 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FromBroker {
    ConnAck {
        /// It still has the session of the client's last connection.
        is_present: bool,
        /// 0: accepted.
        code: u8,
    },
    Publish(Publish),
    PubAck(u16),
    SubAck {
        /// A QoS for each filter, in their order; 0x80: refused.
        codes: Vec<u8>,
    },
    PingResp,
}

/// The next packet of a broker; `None` while it is not all there. A larger one than `limit` is an error, of which nothing is taken.
pub(crate) fn decode(buffer: &mut BytesMut, limit: usize) -> Result<Option<FromBroker>, MalformedPacket> {
    let Some(first) = buffer.first().copied() else { return Ok(None) };
    let is_known = matches!((first >> 4, first & 0x0f), (3, _) | (2 | 4 | 9 | 13, 0));
    if !is_known {
        return Err(MalformedPacket::Forbidden("packet type or its flags are none that a broker sends here"));
    }
    let Some((header, length)) = frame::frame(buffer)? else { return Ok(None) };
    if length > limit {
        return Err(MalformedPacket::TooLarge { size: length, limit });
    }
    let Some(body) = buffer.get(header..header + length) else { return Ok(None) };
    let packet = parse(first, Fields { rest: body, of: name(first) })?;
    buffer.advance(header + length);
    Ok(Some(packet))
}

/// Length of the fixed header and of what follows, as soon as they are there.
pub(crate) fn lengths(buffer: &[u8]) -> Result<Option<(usize, usize)>, MalformedPacket> {
    frame::frame(buffer)
}

fn name(first: u8) -> &'static str {
    match first >> 4 {
        2 => "CONNACK",
        3 => "PUBLISH",
        4 => "PUBACK",
        9 => "SUBACK",
        _ => "PINGRESP",
    }
}

fn parse(first: u8, mut fields: Fields<'_>) -> Result<FromBroker, MalformedPacket> {
    let packet = match first >> 4 {
        2 => {
            let flags = fields.u8()?;
            FromBroker::ConnAck { is_present: flags & 1 != 0, code: fields.u8()? }
        }
        3 => {
            let publish = read::publish(first & 0x0f, Version::V311, &mut fields)?;
            if publish.qos > 1 {
                return Err(MalformedPacket::Protocol("PUBLISH of a higher QoS than was subscribed to"));
            }
            FromBroker::Publish(publish)
        }
        4 => FromBroker::PubAck(fields.pkid()?),
        9 => {
            fields.pkid()?;
            FromBroker::SubAck { codes: fields.remaining().to_vec() }
        }
        _ => FromBroker::PingResp,
    };
    fields.end()?;
    Ok(packet)
}

/// Who `edgecore` is to a broker.
#[derive(Clone, Copy)]
pub(crate) struct Hello<'a> {
    pub(crate) client_id: &'a str,
    /// Nothing is kept for it when it is away.
    pub(crate) clean: bool,
    /// In seconds.
    pub(crate) keep_alive: u16,
    /// Empty: none.
    pub(crate) user: &'a str,
    /// Empty: none.
    pub(crate) password: &'a str,
}

/// CONNECT. Texts are capped with the settings.
pub(crate) fn connect(hello: Hello<'_>) -> Bytes {
    let Hello { client_id, clean, keep_alive, user, password } = hello;
    let (has_user, has_password) = (!user.is_empty(), !password.is_empty());
    let flags = u8::from(clean) << 1 | u8::from(has_user) << 7 | u8::from(has_password) << 6;
    let mut body = BytesMut::new();
    body.put_slice(b"\x00\x04MQTT\x04");
    body.put_u8(flags);
    body.put_u16(keep_alive);
    put_text(&mut body, client_id);
    [(has_user, user), (has_password, password)]
        .iter()
        .filter(|(is_there, _)| *is_there)
        .for_each(|(_, text)| put_text(&mut body, text));
    with_header(0x10, &body)
}

/// SUBSCRIBE to each filter with QoS 1.
pub(crate) fn subscribe<'a>(pkid: u16, filters: impl IntoIterator<Item = &'a str>) -> Bytes {
    let mut body = BytesMut::new();
    body.put_u16(pkid);
    for filter in filters {
        put_text(&mut body, filter);
        body.put_u8(1);
    }
    with_header(0x82, &body)
}

pub(crate) fn pingreq() -> Bytes {
    Bytes::from_static(&[0xc0, 0])
}

pub(crate) fn disconnect() -> Bytes {
    Bytes::from_static(&[0xe0, 0])
}

fn with_header(first: u8, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(5 + body.len());
    out.put_u8(first);
    put_length(&mut out, body.len());
    out.put_slice(body);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{self, Packet};
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Result<Option<FromBroker>, MalformedPacket> {
        decode(&mut BytesMut::from(bytes), 1024)
    }

    #[test]
    fn what_edgecore_says_a_broker_reads() {
        let hello = Hello { client_id: "hub", clean: false, keep_alive: 30, user: "edge", password: "x y" };
        let mut bytes = BytesMut::from(&connect(hello)[..]);
        let Ok(Some(Packet::Connect(read))) = packet::decode(&mut bytes, 1024, Version::V311) else {
            panic!()
        };
        assert_eq!((read.client_id.as_str(), read.clean, read.keep_alive), ("hub", false, 30));
        assert_eq!((read.user.as_deref(), read.password.unwrap().bytes()), (Some("edge"), b"x y".as_slice()));
        let anonymous = Hello { clean: true, user: "", password: "", ..hello };
        let mut bytes = BytesMut::from(&connect(anonymous)[..]);
        let Ok(Some(Packet::Connect(read))) = packet::decode(&mut bytes, 1024, Version::V311) else {
            panic!()
        };
        assert!(read.clean && read.user.is_none() && read.password.is_none());
        let mut bytes = BytesMut::from(&subscribe(7, ["$hw/#", "+/user/#"])[..]);
        let Ok(Some(Packet::Subscribe { pkid: 7, filters, .. })) =
            packet::decode(&mut bytes, 1024, Version::V311)
        else {
            panic!()
        };
        assert!(
            filters
                .iter()
                .map(|asked| (asked.filter.as_str(), asked.qos))
                .eq([("$hw/#", 1), ("+/user/#", 1)])
        );
    }

    #[test]
    fn what_a_broker_says_is_read_and_what_it_may_not_say_is_refused() {
        assert_eq!(read(b"\x20\x02\x01\x00"), Ok(Some(FromBroker::ConnAck { is_present: true, code: 0 })));
        assert_eq!(read(b"\x20\x02\x00\x05"), Ok(Some(FromBroker::ConnAck { is_present: false, code: 5 })));
        assert_eq!(read(b"\x40\x02\x00\x07"), Ok(Some(FromBroker::PubAck(7))));
        assert_eq!(read(b"\x90\x04\x00\x01\x01\x80"), Ok(Some(FromBroker::SubAck { codes: vec![1, 0x80] })));
        assert_eq!(read(b"\xd0\x00"), Ok(Some(FromBroker::PingResp)));
        let Ok(Some(FromBroker::Publish(publish))) = read(b"\x3b\x06\x00\x01t\x00\x09x") else { panic!() };
        assert!((publish.qos, publish.pkid, publish.dup, publish.retain) == (1, 9, true, true));
        for wrong in [
            b"\x34\x06\x00\x01t\x00\x09x".as_slice(),
            b"\x10\x00",
            b"\x62\x02\x00\x01",
            b"\x20\x03\x00\x00\x00",
            b"\x40\x02\x00\x00",
            b"\xd0\x01x",
            b"\x20\xff\xff\xff\xff",
        ] {
            assert!(read(wrong).is_err(), "{wrong:x?}");
        }
        assert_eq!(read(b"\x3b\x06\x00\x01t"), Ok(None));
        assert!(matches!(read(b"\x30\xff\x7f"), Err(MalformedPacket::TooLarge { size: 16383, .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut buffer = BytesMut::from(bytes.as_slice());
            while let Ok(Some(_)) = decode(&mut buffer, 1024) {}
        }
    }
}
