//! Packets as clients write them, and as nobody should.

use super::*;
use crate::error::MalformedPacket;
use bytes::{BufMut, BytesMut};
use proptest::prelude::*;

const LIMIT: usize = 4096;

fn whole(bytes: &[u8]) -> Result<Option<Packet>, MalformedPacket> {
    decode(&mut BytesMut::from(bytes), LIMIT, Version::V311)
}

fn whole5(bytes: &[u8]) -> Result<Option<Packet>, MalformedPacket> {
    decode(&mut BytesMut::from(bytes), LIMIT, Version::V5)
}

fn publish_of(topic: &str, payload: &[u8], qos: u8, pkid: u16) -> Publish {
    Publish {
        topic: topic.into(),
        payload: Bytes::copy_from_slice(payload),
        qos,
        retain: false,
        dup: false,
        pkid,
        alias: None,
        expiry: None,
        properties: Bytes::new(),
    }
}

fn connect_of(version: Version, client_id: &str) -> Connect {
    Connect {
        version,
        is_bridge: false,
        client_id: client_id.into(),
        clean: true,
        keep_alive: 60,
        will: None,
        user: None,
        password: None,
        session_expiry: None,
        receive_maximum: u16::MAX,
        packet_maximum: usize::MAX,
        alias_maximum: 0,
        wants_reasons: true,
        has_auth_method: false,
    }
}

#[test]
fn a_connect_with_everything_is_read() {
    let bytes = b"\x10\x1e\x00\x04MQTT\x04\xee\x00\x3c\x00\x02id\x00\x01w\x00\x03off\x00\x01u\x00\x03pwd";
    let publish = Publish { retain: true, ..publish_of("w", b"off", 1, 0) };
    let wanted = Connect {
        will: Some(Will { publish, delay: 0 }),
        user: Some("u".into()),
        password: Some(Password::new(b"pwd")),
        ..connect_of(Version::V311, "id")
    };
    assert_eq!(whole(bytes), Ok(Some(Packet::Connect(wanted))));
}

#[test]
fn the_version_of_a_connect_is_seen_and_others_are_told_apart_from_other_protocols() {
    let of = |bytes: &[u8]| match whole(bytes) {
        Ok(Some(Packet::Connect(connect))) => (Some(connect.version), connect.is_bridge, 0),
        Ok(Some(Packet::OtherVersion(level))) => (None, false, level),
        other => panic!("{other:?}"),
    };
    assert_eq!(of(b"\x10\x0e\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x00"), (Some(Version::V31), false, 0));
    assert_eq!(of(b"\x10\x0e\x00\x06MQIsdp\x83\x02\x00\x3c\x00\x00"), (Some(Version::V31), true, 0));
    assert_eq!(of(b"\x10\x0c\x00\x04MQTT\x84\x02\x00\x3c\x00\x00"), (Some(Version::V311), true, 0));
    assert_eq!(of(b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00"), (Some(Version::V5), false, 0));
    assert_eq!(of(b"\x10\x0c\x00\x04MQTT\x03\x02\x00\x3c\x00\x00"), (None, false, 3));
    assert_eq!(of(b"\x10\x0c\x00\x04MQTT\x06\x02\x00\x3c\x00\x00"), (None, false, 6));
    assert_eq!(
        (&unknown_version(3)[..], &unknown_version(6)[..]),
        (&[32, 2, 0, 1][..], &[32, 3, 0, 132, 0][..])
    );
    // 3.1 has no reserved flag, and may leave out what a flag announces.
    assert_eq!(of(b"\x10\x0e\x00\x06MQIsdp\x03\x83\x00\x3c\x00\x00"), (Some(Version::V31), false, 0));
    assert!(whole(b"\x10\x0c\x00\x04HTTP\x04\x02\x00\x3c\x00\x00").is_err());
}

#[test]
fn a_connect_of_5_with_everything_is_read() {
    let bytes = b"\x10\x43\x00\x04MQTT\x05\xee\x00\x3c\x18\x11\x00\x00\x00\x1e\x21\x00\x02\x27\x00\x00\x10\x00\x22\x00\x05\x17\x00\x26\x00\x01\x6b\x00\x00\x00\x02id\x0c\x18\x00\x00\x00\x07\x02\x00\x00\x00\x09\x01\x01\x00\x01w\x00\x03off\x00\x01u\x00\x01p";
    let bytes = [&[0x10, u8::try_from(bytes.len() - 2).unwrap()], &bytes[2..]].concat();
    let publish = Publish {
        retain: true,
        expiry: Some(9),
        properties: Bytes::from_static(b"\x01\x01"),
        ..publish_of("w", b"off", 1, 0)
    };
    let wanted = Connect {
        will: Some(Will { publish, delay: 7 }),
        user: Some("u".into()),
        password: Some(Password::new(b"p")),
        session_expiry: Some(30),
        receive_maximum: 2,
        packet_maximum: 4096,
        alias_maximum: 5,
        wants_reasons: false,
        ..connect_of(Version::V5, "id")
    };
    assert_eq!(whole(&bytes), Ok(Some(Packet::Connect(wanted))));
}

#[test]
fn a_publish_of_5_keeps_what_is_handed_on_in_its_order() {
    let properties =
        b"\x26\x00\x01a\x00\x01b\x23\x00\x05\x26\x00\x01a\x00\x01c\x02\x00\x00\x00\x0a\x03\x00\x01t";
    let body =
        [b"\x00\x01t\x00\x07".as_slice(), &[u8::try_from(properties.len()).unwrap()], properties, b"x"]
            .concat();
    let bytes = [&[0x32, u8::try_from(body.len()).unwrap()], body.as_slice()].concat();
    let wanted = Publish {
        alias: Some(5),
        expiry: Some(10),
        properties: Bytes::from_static(b"\x26\x00\x01a\x00\x01b\x26\x00\x01a\x00\x01c\x03\x00\x01t"),
        ..publish_of("t", b"x", 1, 7)
    };
    assert_eq!(whole5(&bytes), Ok(Some(Packet::Publish(wanted))));
}

#[test]
fn a_topic_goes_to_a_client_of_5_once_by_name_and_then_by_its_number() {
    let message = crate::message::Message::of_node("line/7".into(), Bytes::from_static(b"x"), 0, false);
    let outgoing = Outgoing { message: &message, qos: 0, pkid: 0, again: false, retain: false, ids: &[] };
    let mut aliases = OutgoingAliases::new(5);
    let mut write = |version: Version, most: usize| {
        let mut out = BytesMut::new();
        put_publish(&mut out, outgoing, version, beehive::Moment::default(), most, &mut aliases);
        out.to_vec()
    };
    // What does not go out gives no number.
    assert_eq!(write(Version::V5, 10), b"");
    assert_eq!(write(Version::V5, 100), b"\x30\x0d\x00\x06line/7\x03\x23\x00\x01x");
    assert_eq!(write(Version::V5, 100), b"\x30\x07\x00\x00\x03\x23\x00\x01x");
    assert_eq!(write(Version::V311, 100), b"\x30\x09\x00\x06line/7x");
}

#[test]
fn what_5_forbids_has_its_code() {
    let codes: [(u8, &[u8]); 26] = [
        (0x81, b"\x30\x05\x00\x01t\x80\x00"),
        (0x81, b"\x30\x05\x00\x01t\x01\x7f"),
        (0x81, b"\x30\x06\x00\x01t\x02\x11\x00"),
        (0x81, b"\x30\x04\x00\x01t\x09"),
        (0x82, b"\x30\x08\x00\x01t\x04\x01\x00\x01\x00"),
        (0x82, b"\x30\x06\x00\x01t\x02\x01\x02"),
        (0x82, b"\x30\x06\x00\x01t\x02\x0b\x01"),
        (0x82, b"\x30\x08\x00\x01t\x04\x08\x00\x01#"),
        (0x81, b"\x30\x08\x00\x01t\x04\x03\x00\x01\xff"),
        (0x81, b"\x32\x06\x00\x01t\x00\x00\x00"),
        (0x82, b"\x82\x09\x00\x01\x02\x0b\x00\x00\x01t\x00"),
        (0x81, b"\x82\x07\x00\x01\x00\x00\x01t\x30"),
        (0x81, b"\x82\x07\x00\x01\x00\x00\x01t\x40"),
        (0x82, b"\x82\x0f\x00\x01\x00\x00\x09$share/g/\x04"),
        (0x81, b"\x82\x03\x00\x01\x00"),
        (0x81, b"\x40\x03\x00\x01\x42"),
        (0x81, b"\x40\x03\x00\x01\x92"),
        (0x81, b"\x62\x03\x00\x01\x10"),
        (0x81, b"\x70\x03\x00\x01\x80"),
        (0x81, b"\xa2\x08\x00\x01\x00\x00\x01t\x00\x00"),
        (0x81, b"\x40\x01\x00"),
        (0x82, b"\x20\x03\x00\x00\x00"),
        (0x82, b"\xf0\x00"),
        (0x81, b"\xc1\x00"),
        (0x81, b"\xe0\x07\x00\x05\x21\x00\x02\x00\x00"),
        (0x95, b"\x30\xff\xff\x7f"),
    ];
    for (code, bytes) in codes {
        assert_eq!(whole5(bytes).map_err(|error| error.code()), Err(code), "{bytes:x?}");
    }
    for bytes in [b"\x40\x02\x00\x01".as_slice(), b"\x40\x03\x00\x01\x10", b"\x40\x04\x00\x01\x00\x00"] {
        assert_eq!(whole5(bytes), Ok(Some(Packet::PubAck(1))), "{bytes:x?}");
    }
    let disconnect = |code, session_expiry| Ok(Some(Packet::Disconnect { code, session_expiry }));
    assert_eq!(whole5(b"\xe0\x00"), disconnect(0, None));
    assert_eq!(whole5(b"\xe0\x01\x04"), disconnect(4, None));
    assert_eq!(whole5(b"\xe0\x07\x00\x05\x11\x00\x00\x00\x09"), disconnect(0, Some(9)));
}

#[test]
fn the_last_word_has_a_reason_if_the_client_takes_so_much() {
    assert_eq!(&disconnect(0x8e, "why", 100)[..], b"\xe0\x08\x8e\x06\x1f\x00\x03why");
    assert_eq!(&disconnect(0x8e, "why", 9)[..], b"\xe0\x01\x8e");
}

#[test]
fn what_the_specification_forbids_is_refused() {
    let forbidden: [&[u8]; 14] = [
        b"\x10\x0c\x00\x04MQTT\x04\x03\x00\x3c\x00\x00",
        b"\x10\x0c\x00\x04MQTT\x04\x1a\x00\x3c\x00\x00",
        b"\x10\x0c\x00\x04MQTT\x04\x42\x00\x3c\x00\x00",
        b"\x36\x05\x00\x01a\x00\x01",
        b"\x32\x05\x00\x01a\x00\x00",
        b"\x38\x03\x00\x01a",
        b"\x30\x03\x00\x01\xff",
        b"\x30\x03\x00\x01\x00",
        b"\x80\x06\x00\x01\x00\x01a\x00",
        b"\x82\x02\x00\x01",
        b"\x82\x05\x00\x01\x00\x00\x00",
        b"\xa2\x04\x00\x01\x00\x00",
        b"\x82\x06\x00\x01\x00\x01a\x03",
        b"\x20\x02\x00\x00",
    ];
    for bytes in forbidden {
        assert!(matches!(whole(bytes), Err(MalformedPacket::Forbidden(_))), "{bytes:x?}");
    }
    assert_eq!(whole(b"\xc0\x01\x00"), Err(MalformedPacket::Fields("PINGREQ")));
    assert_eq!(whole(b"\x30\xff\xff\xff\xff"), Err(MalformedPacket::Length));
    assert_eq!(
        whole(b"\x30\xff\xff\xff\x7f"),
        Err(MalformedPacket::TooLarge { size: 268_435_455, limit: LIMIT })
    );
}

#[test]
fn flags_that_3_1_gives_no_meaning_are_read_over_for_its_clients_alone() {
    let old = |first: u8| [&[first], b"\x0e\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x00".as_slice()].concat();
    for first in 0x10..=0x1f {
        let mut bytes = BytesMut::from(old(first).as_slice());
        let version = connects_as(&bytes).unwrap().unwrap();
        let read = decode(&mut bytes, LIMIT, version);
        assert!(
            matches!(&read, Ok(Some(Packet::Connect(connect))) if connect.version == Version::V31),
            "{first:x}: {read:?}"
        );
    }
    // It is not known before its name is there, and another name ends that.
    for cut in 0..10 {
        let known = connects_as(&old(0x18)[..cut]);
        assert_eq!(known, Ok(None), "{cut}");
    }
    assert_eq!(connects_as(b"\x18\x0c\x00\x04"), Ok(Some(Version::V311)));
    assert!(whole(b"\x18\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00").is_err());
    for (bytes, packet) in [
        (b"\x6a\x02\x00\x01".as_slice(), Packet::PubRel(1)),
        (b"\xaa\x05\x00\x01\x00\x01a", Packet::Unsubscribe { pkid: 1, filters: vec!["a".into()] }),
        (b"\xc8\x00", Packet::PingReq),
    ] {
        assert_eq!(decode(&mut BytesMut::from(bytes), LIMIT, Version::V31), Ok(Some(packet)));
        assert!(whole(bytes).is_err() && whole5(bytes).is_err(), "{bytes:x?}");
    }
}

#[test]
fn the_size_of_an_answer_is_known_before_it_is_written() {
    for count in [1, 124, 125, 16_380, 16_381] {
        let codes = vec![0; count];
        let written = [suback(1, Version::V5, &codes), unsuback(1, Version::V5, &codes)];
        assert_eq!(written.map(|packet| packet.len()), [answer_size(count); 2]);
    }
}

/// Deterministic noise: the sequence of splitmix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }
}

#[test]
fn two_hundred_thousand_broken_packets_are_refused_or_read_and_never_make_room_for_what_they_declare() {
    let whole: [&[u8]; 12] = [
        b"\x10\x1a\x00\x04MQTT\x05\x02\x00\x3c\x0b\x11\x00\x00\x00\x1e\x21\x00\x02\x22\x00\x05\x00\x02id",
        b"\x33\x12\x00\x03a/b\x00\x07\x09\x02\x00\x00\x00\x0a\x03\x00\x01tx",
        b"\x82\x0b\x00\x01\x02\x0b\x07\x00\x03a/+\x09",
        b"\xe0\x07\x00\x05\x11\x00\x00\x00\x09",
        b"\x10\x1e\x00\x04MQTT\x04\xee\x00\x3c\x00\x02id\x00\x01w\x00\x03off\x00\x01u\x00\x03pwd",
        b"\x33\x08\x00\x03a/b\x00\x07x",
        b"\x82\x0c\x00\x01\x00\x03a/+\x01\x00\x01#\x00",
        b"\xa2\x07\x00\x01\x00\x03a/+",
        b"\x40\x02\x00\x01",
        b"\x62\x02\x00\x01",
        b"\xc0\x00",
        b"\xe0\x00",
    ];
    let mut noise = Rng(3);
    let (mut read, mut refused, mut unfinished) = (0, 0, 0);
    for _ in 0..200_000 {
        let mut bytes = whole.get(noise.below(whole.len())).unwrap().to_vec();
        for _ in 0..=noise.below(3) {
            let place = noise.below(bytes.len());
            match noise.below(4) {
                0 => bytes.truncate(place),
                1 => bytes.insert(place, noise.next().to_le_bytes()[0]),
                2 => bytes.iter_mut().skip(1).take(4).for_each(|byte| *byte |= 0x80),
                _ => bytes.iter_mut().skip(place).take(1).for_each(|byte| *byte ^= 1 << (place % 8)),
            }
        }
        let mut buffer = BytesMut::with_capacity(64);
        buffer.extend_from_slice(&bytes);
        let had = buffer.capacity();
        let version = if noise.below(2) == 0 { Version::V311 } else { Version::V5 };
        match decode(&mut buffer, LIMIT, version) {
            Ok(Some(_)) => read += 1,
            Ok(None) => {
                unfinished += 1;
                assert_eq!(buffer, bytes);
            }
            Err(_) => refused += 1,
        }
        assert!(buffer.capacity() <= had, "{bytes:x?}");
    }
    assert!(read > 1000 && refused > 10_000 && unfinished > 10_000, "{read} {refused} {unfinished}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn no_bytes_panic_and_nothing_is_taken_twice(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for version in [Version::V311, Version::V5] {
            let mut buffer = BytesMut::from(bytes.as_slice());
            let mut left = buffer.len();
            while let Ok(Some(_)) = decode(&mut buffer, LIMIT, version) {
                prop_assert!(buffer.len() < left);
                left = buffer.len();
            }
        }
    }

    #[test]
    fn plausible_headers_do_not_panic(first: u8, body in proptest::collection::vec(any::<u8>(), 0..100)) {
        let mut bytes = BytesMut::new();
        bytes.put_u8(first);
        write::put_length(&mut bytes, body.len());
        bytes.put_slice(&body);
        for version in [Version::V31, Version::V311, Version::V5] {
            let mut bytes = bytes.clone();
            if let Ok(done) = decode(&mut bytes, LIMIT, version) {
                prop_assert!(done.is_some() && bytes.is_empty());
            }
        }
    }

    #[test]
    fn a_packet_that_is_written_is_read_again_and_needs_its_last_byte(
        topic in "[a-zé/$]{1,20}", payload in proptest::collection::vec(any::<u8>(), 0..300),
        qos in 0u8..3, pkid in 1u16.., retain: bool, again: bool, of_5: bool, ids in proptest::collection::vec(1u32..9, 0..3),
    ) {
        let version = if of_5 { Version::V5 } else { Version::V311 };
        let forwarded = Bytes::from_static(b"\x26\x00\x01a\x00\x01b");
        let message = crate::message::Message {
            properties: forwarded.clone(),
            ..crate::message::Message::of_node(topic.clone(), payload.clone().into(), qos, retain)
        };
        let (pkid, dup) = (if qos > 0 { pkid } else { 0 }, again && qos > 0);
        let ids: &[u32] = if of_5 { &[] } else { &ids };
        let outgoing = Outgoing { message: &message, qos, pkid, again: dup, retain, ids };
        let now = beehive::Moment::default();
        let none = &mut OutgoingAliases::default();
        let mut bytes = BytesMut::new();
        prop_assert!(put_publish(&mut bytes, outgoing, version, now, LIMIT, none));
        prop_assert!(!put_publish(&mut BytesMut::new(), outgoing, version, now, bytes.len() - 1, none));
        prop_assert!(put_publish(&mut BytesMut::new(), outgoing, version, now, bytes.len(), none));
        for cut in 0..bytes.len() {
            prop_assert_eq!(decode(&mut BytesMut::from(&bytes[..cut]), LIMIT, version), Ok(None));
        }
        let properties = if of_5 { forwarded } else { Bytes::new() };
        let wanted = Publish { retain, dup, properties, ..publish_of(&topic, &payload, qos, pkid) };
        prop_assert_eq!(decode(&mut bytes, LIMIT, version), Ok(Some(Packet::Publish(wanted))));
        prop_assert!(bytes.is_empty());
    }
}
