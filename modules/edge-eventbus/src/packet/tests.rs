//! Packets as clients write them, and as nobody should.

use super::*;
use proptest::prelude::*;

const LIMIT: usize = 4096;

fn whole(bytes: &[u8]) -> Result<Option<Packet>, MalformedPacket> {
    decode(&mut BytesMut::from(bytes), LIMIT)
}

#[test]
fn a_connect_with_everything_is_read() {
    let bytes = b"\x10\x1e\x00\x04MQTT\x04\xee\x00\x3c\x00\x02id\x00\x01w\x00\x03off\x00\x01u\x00\x03pwd";
    let will =
        Publish { topic: "w".into(), payload: "off".into(), qos: 1, retain: true, dup: false, pkid: 0 };
    let wanted = Connect {
        client_id: "id".into(),
        clean: true,
        keep_alive: 60,
        will: Some(will),
        user: Some("u".into()),
        password: Some(Password::new(b"pwd")),
    };
    assert_eq!(whole(bytes), Ok(Some(Packet::Connect(wanted))));
}

#[test]
fn other_versions_are_told_apart_from_other_protocols() {
    assert_eq!(whole(b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00"), Ok(Some(Packet::OtherVersion(5))));
    assert_eq!(whole(b"\x10\x0e\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x00"), Ok(Some(Packet::OtherVersion(3))));
    assert!(whole(b"\x10\x0c\x00\x04HTTP\x04\x02\x00\x3c\x00\x00").is_err());
}

#[test]
fn what_the_specification_forbids_is_refused() {
    let forbidden: [&[u8]; 12] = [
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
    let whole: [&[u8]; 8] = [
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
        match decode(&mut buffer, LIMIT) {
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
        let mut buffer = BytesMut::from(bytes.as_slice());
        let mut left = buffer.len();
        while let Ok(Some(_)) = decode(&mut buffer, LIMIT) {
            prop_assert!(buffer.len() < left);
            left = buffer.len();
        }
    }

    #[test]
    fn plausible_headers_do_not_panic(first: u8, body in proptest::collection::vec(any::<u8>(), 0..100)) {
        let mut bytes = BytesMut::new();
        bytes.put_u8(first);
        put_length(&mut bytes, body.len());
        bytes.put_slice(&body);
        if let Ok(done) = decode(&mut bytes, LIMIT) {
            prop_assert!(done.is_some() && bytes.is_empty());
        }
    }

    #[test]
    fn a_packet_that_is_written_is_read_again_and_needs_its_last_byte(
        topic in "[a-zé/$]{1,20}", payload in proptest::collection::vec(any::<u8>(), 0..300),
        pkid in proptest::option::of(1u16..), retain: bool, again: bool,
    ) {
        let mut bytes = BytesMut::new();
        put_publish(&mut bytes, &topic, &payload, pkid, again && pkid.is_some(), retain);
        for cut in 0..bytes.len() {
            prop_assert_eq!(decode(&mut BytesMut::from(&bytes[..cut]), LIMIT), Ok(None));
        }
        let qos = u8::from(pkid.is_some());
        let (dup, pkid) = (again && pkid.is_some(), pkid.unwrap_or(0));
        let wanted = Publish { topic, payload: payload.into(), qos, retain, dup, pkid };
        prop_assert_eq!(decode(&mut bytes, LIMIT), Ok(Some(Packet::Publish(wanted))));
        prop_assert!(bytes.is_empty());
    }
}
