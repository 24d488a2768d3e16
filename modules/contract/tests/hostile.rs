//! Bytes that are no messages, at every decoder of the wire and of the outbox's rows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use beehive::Reply;
use beehive::link::WireVersion;
use beehive::link::wire::{ReplyTo, Wire};
use bytes::Bytes;
use contract::devicecontroller::DeviceUp;
use contract::edgecontroller::EdgeUp;
use contract::metamanager::MetaDown;
use contract::router::RouterUp;
use contract::wire::{BODY_MAX, OBJECT_MAX, decode_report, decode_telemetry};
use contract::{Change, Object, ObjectKey};
use proptest::prelude::*;

const INPUTS: usize = 100_000;
const FIRST: usize = 5_000;
/// 2 MiB of resident memory.
const GROWTH_KIB: u64 = 2 << 10;

/// Resident memory in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn way() -> Option<ReplyTo> {
    Some(ReplyTo::new(|_| {}))
}

/// Shows the bytes to every decoder; what one takes is written back as it came.
fn show(bytes: &[u8]) {
    for version in WireVersion::ALL {
        let again = |written: Result<Vec<u8>, _>| {
            let written: Result<_, beehive::link::wire::EncodeError> = written;
            // What came packed is opened late, and may be none.
            let Ok(written) = written else {
                assert!(bytes.starts_with(&[0xff; 4]));
                return;
            };
            // What is packed may be packed in more than one way.
            if ![bytes, &written].iter().any(|body| body.starts_with(&[0xff; 4])) {
                assert_eq!(written, bytes);
            }
        };
        if let Ok(message) = EdgeUp::decode(bytes, way(), version) {
            again(message.encode(version).map(|outgoing| outgoing.body));
        }
        if let Ok(message) = DeviceUp::decode(bytes, way(), version) {
            again(message.encode(version).map(|outgoing| outgoing.body));
        }
        if let Ok(message) = RouterUp::decode(bytes, way(), version) {
            again(message.encode(version).map(|outgoing| outgoing.body));
        }
        // Objects may be deflated in more than one way: not written back to the byte.
        drop(MetaDown::decode(bytes, way(), version));
        drop(MetaDown::decode(bytes, None, version));
    }
    drop((decode_report(bytes), decode_telemetry(bytes)));
}

fn golden() -> Vec<Vec<u8>> {
    let lines = [include_str!("wire-0.txt"), include_str!("wire-1.txt")].into_iter().flat_map(str::lines);
    lines
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let hex = line.split_once(' ').unwrap().1;
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
        })
        .collect()
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        show(&bytes);
    }

    #[test]
    fn any_damage_to_a_message_is_a_message_or_refused(
        which in any::<prop::sample::Index>(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let messages = golden();
        let mut bytes = which.get(&messages).clone();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        show(&bytes);
        show(&bytes[..cut.index(bytes.len())]);
    }
}

#[test]
fn a_hundred_thousand_bad_messages_cost_no_memory() {
    let messages = golden();
    let mut state = 1_u64;
    let mut below = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % bound
    };
    let mut bad = |_| {
        let mut bytes = messages[below(messages.len())].clone();
        for _ in 0..1 + below(4) {
            let at = below(bytes.len());
            // Lengths that are out of all measure more often than others.
            bytes[at] = if below(2) == 0 { 0xff } else { u8::try_from(below(256)).unwrap() };
        }
        show(&bytes);
    };
    (0..FIRST).for_each(&mut bad);
    let before = resident();
    (0..INPUTS).for_each(&mut bad);
    let growth = resident().saturating_sub(before);
    println!("{INPUTS} bad messages: {growth} KiB more than {before} KiB");
    assert!(growth <= GROWTH_KIB, "{growth} KiB");
}

fn object(len: usize) -> Change {
    let key = ObjectKey::new("configmaps", "d", "c");
    Change::Upsert(Object {
        key,
        uid: "u".to_owned(),
        version: "9".to_owned(),
        json: Bytes::from(vec![b' '; len]),
    })
}

#[test]
fn objects_inflate_to_three_mebibytes_together_at_the_most() {
    let apply = |changes: Vec<Change>| {
        let apply = MetaDown::Apply { offer: 1, place: 1, changes, reply: Reply::channel().0 };
        let body = apply.encode(WireVersion::One).unwrap().body;
        assert!((body.len() as u64) < BODY_MAX / 10, "it is the inflating that is large");
        MetaDown::decode(&body, way(), WireVersion::One)
    };
    assert!(apply(vec![object(OBJECT_MAX)]).is_ok());
    assert!(apply(vec![object(OBJECT_MAX / 64); 64]).is_ok());
    for bomb in [vec![object(OBJECT_MAX + 1)], vec![object(OBJECT_MAX), object(1)]] {
        let error = apply(bomb).unwrap_err().to_string();
        assert!(error.contains("object `configmaps/d/c` does not inflate"), "{error}");
    }
}

#[test]
fn a_declared_length_allocates_nothing() {
    // 2^60 reports.
    let bytes = [&[0; 4][..], &[0, 0, 0, 0, 0, 0, 0, 0x10]].concat();
    for version in WireVersion::ALL {
        let error = EdgeUp::decode(&bytes, way(), version).unwrap_err().to_string();
        assert!(error.contains("not a message of the wire's versions 0 and 1"), "{error}");
    }
}
