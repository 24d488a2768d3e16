//! Bytes that are no messages, at every decoder of the wire and of the outbox's rows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use beehive::Reply;
use beehive::link::wire::{DecodeError, ReplyTo, Wire};
use beehive::link::{Capabilities, Protocol, WireVersion};
use bytes::Bytes;
use contract::downlink::{DeviceDown, HubDown, MetaDown};
use contract::rows::{decode_report, decode_telemetry, encode_report, encode_telemetry};
use contract::rule_stream::{self, RuleStreamAnswer, RuleStreamRequest};
use contract::stream::{self, StreamHeadError, StreamRequest, StreamResponse};
use contract::uplink::{DeviceUp, EdgeUp, HubUp, RouterUp, TaskUp};
use contract::wire::{BODY_MAX, DEVICE_MAILBOX, EDGE_MAILBOX, META_MAILBOX, OBJECT_MAX, ROUTER_MAILBOX};
use contract::{Batch, Change, DecodedBatch, Object, ObjectKey, Report, capability};
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

fn protocol() -> Protocol {
    Protocol::new(WireVersion::ONE, Capabilities::from_iter([capability::DEFLATE]))
}

fn written<M: Wire>(message: M) -> Vec<u8> {
    message.encode(&protocol()).unwrap().body
}

/// What a batch holds is written and read back as it is.
fn reports_are_read_back(reports: Batch<Report>) {
    let Ok(DecodedBatch { items, .. }) = reports.open() else { return };
    let again = EdgeUp::Reports { reports: items.clone().into(), reply: Reply::channel().0 };
    let Ok(EdgeUp::Reports { reports, .. }) = EdgeUp::decode(&written(again), way(), &protocol()) else {
        panic!()
    };
    assert_eq!(reports.open().unwrap().items, items);
}

/// Shows the bytes to every decoder; what one takes is written and read back.
fn show(bytes: &[u8]) {
    match EdgeUp::decode(bytes, way(), &protocol()) {
        Ok(EdgeUp::Reports { reports, .. }) => reports_are_read_back(reports),
        Ok(other) => assert_eq!(written(other), bytes),
        Err(_) => {}
    }
    if let Ok(TaskUp::Reports { reports, .. }) = TaskUp::decode(bytes, way(), &protocol()) {
        reports_are_read_back(reports);
    }
    if let Ok(DeviceUp::Reports { reports, .. }) = DeviceUp::decode(bytes, way(), &protocol()) {
        reports_are_read_back(reports);
    }
    if let Ok(RouterUp::Telemetry { uploads, .. }) = RouterUp::decode(bytes, way(), &protocol())
        && let Ok(DecodedBatch { items, .. }) = uploads.open()
    {
        let again = RouterUp::Telemetry { uploads: items.clone().into(), reply: Reply::channel().0 };
        let RouterUp::Telemetry { uploads, .. } =
            RouterUp::decode(&written(again), way(), &protocol()).unwrap()
        else {
            panic!()
        };
        assert_eq!(uploads.open().unwrap().items, items);
    }
    for head in [bytes, bytes.get(stream::LENGTH..).unwrap_or_default()] {
        if let Ok(request) = StreamRequest::decode(head, WireVersion::ONE) {
            assert_eq!(request.encode(WireVersion::ONE).unwrap(), head);
        }
        if let Ok(request) = RuleStreamRequest::decode(head, WireVersion::ONE) {
            assert_eq!(request.encode(WireVersion::ONE).unwrap()[rule_stream::LENGTH..], *head);
        }
        if let Ok(answer) = RuleStreamAnswer::decode(head, WireVersion::ONE) {
            assert_eq!(answer.encode(WireVersion::ONE).unwrap()[rule_stream::LENGTH..], *head);
        }
        if let Ok(response) = StreamResponse::decode(head, WireVersion::ONE) {
            assert_eq!(&response.encode(WireVersion::ONE).unwrap()[stream::LENGTH..], head);
        }
    }
    if let Ok(said) = HubUp::decode(bytes, way(), &protocol()) {
        assert_eq!(written(said), bytes);
    }
    if let Ok(said) = HubDown::decode(bytes, way(), &protocol()) {
        assert_eq!(written(said), bytes);
    }
    // Objects may be deflated in more than one way: not written back to the byte.
    if let Ok(call) = DeviceDown::decode(bytes, way(), &protocol()) {
        assert_eq!(written(call), bytes);
    }
    drop(MetaDown::decode(bytes, way(), &protocol()));
    drop(MetaDown::decode(bytes, None, &protocol()));
    if let Ok(report) = decode_report(bytes) {
        assert_eq!(encode_report(&report).unwrap(), bytes);
    }
    if let Ok(telemetry) = decode_telemetry(bytes) {
        assert_eq!(encode_telemetry(&telemetry).unwrap(), bytes);
    }
}

fn golden() -> Vec<Vec<u8>> {
    let lines = [include_str!("wire-1.txt"), include_str!("rows-1.txt")].into_iter().flat_map(str::lines);
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
        content_hash: "9".to_owned(),
        resource_version: "41".to_owned(),
        json: Bytes::from(vec![b' '; len]),
    })
}

#[test]
fn objects_inflate_to_three_mebibytes_together_at_the_most() {
    let apply = |changes: Vec<Change>| {
        let apply = MetaDown::Apply { inventory: 1, sequence: 1, changes, reply: Reply::channel().0 };
        let body = apply.encode(&protocol()).unwrap().body;
        assert!((body.len() as u64) < BODY_MAX / 10, "it is the inflating that is large");
        MetaDown::decode(&body, way(), &protocol())
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
    // Buckets: 2^60 of them.
    let bytes = [&[2, 0][..], &[0; 8], &[0, 0, 0, 0, 0, 0, 0, 0x10]].concat();
    let error = MetaDown::decode(&bytes, way(), &protocol()).unwrap_err().to_string();
    assert!(error.contains("not a message of wire version 1"), "{error}");
    // A report of 4 GiB.
    let bytes = [&[1, 0, 0][..], &[0; 8], &[0], &[1, 0], &[0xff; 4]].concat();
    let Ok(EdgeUp::Reports { reports, .. }) = EdgeUp::decode(&bytes, way(), &protocol()) else { panic!() };
    assert_eq!(reports.open().unwrap_err().to_string(), "not a batch of at most 4096 reports");
}

#[test]
fn a_message_of_an_unknown_kind_is_named() {
    let unknown = |error: DecodeError, mailbox| {
        assert_eq!(error, DecodeError::UnknownKind { mailbox, kind: 0x0201 });
        assert_eq!(error.to_string(), format!("message of the unknown kind 513 to `{mailbox}`"));
    };
    let bytes = [1, 2, 3, 4];
    unknown(EdgeUp::decode(&bytes, way(), &protocol()).unwrap_err(), EDGE_MAILBOX);
    unknown(DeviceUp::decode(&bytes, way(), &protocol()).unwrap_err(), DEVICE_MAILBOX);
    unknown(RouterUp::decode(&bytes, way(), &protocol()).unwrap_err(), ROUTER_MAILBOX);
    unknown(MetaDown::decode(&bytes, way(), &protocol()).unwrap_err(), META_MAILBOX);
    assert!(matches!(EdgeUp::decode(&[1], way(), &protocol()), Err(DecodeError::Malformed(_))));
}

fn stream_request() -> StreamRequest {
    StreamRequest {
        method: "GET".to_owned(),
        target: "/pods".to_owned(),
        headers: vec![],
        user: "u".to_owned(),
    }
}

#[test]
fn a_head_of_a_stream_that_breaks_a_bound_is_neither_written_nor_read() {
    let refused = |change: &dyn Fn(&mut StreamRequest)| {
        let mut request = stream_request();
        change(&mut request);
        request.encode(WireVersion::ONE).unwrap_err()
    };
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    for method in ["", "get", "GET /", "ABCDEFGHIJKLMNOPQ"] {
        assert_eq!(refused(&|request| request.method = method.to_owned()), StreamHeadError::Method);
    }
    for target in ["", "pods", "/a b", "/a\r\nx", &format!("/{}", "a".repeat(stream::TARGET_MAX))] {
        assert_eq!(refused(&|request| request.target = target.to_owned()), StreamHeadError::Target);
    }
    for (name, value) in [("authorization", "Bearer x"), ("Accept", "*"), ("accept", "a\r\nb: c")] {
        let error = refused(&|request| request.headers = vec![header(name, value)]);
        assert_eq!(error, StreamHeadError::Header(name.to_owned()));
    }
    let many = vec![header("accept", "*"); stream::HEADERS_MAX + 1];
    let large = vec![header("accept", &"a".repeat(stream::HEADER_BYTES_MAX))];
    for headers in [many, large] {
        assert_eq!(refused(&|request| request.headers = headers.clone()), StreamHeadError::Headers);
    }
    assert_eq!(refused(&|request| request.user = "u".repeat(1025)), StreamHeadError::User);
    for status in [0, 100, 102, 199, 600] {
        let response = StreamResponse { status, headers: vec![] };
        assert_eq!(response.encode(WireVersion::ONE), Err(StreamHeadError::Status(status)));
    }
}

#[test]
fn the_largest_head_of_a_stream_is_within_its_length_and_a_longer_one_is_not_read() {
    let value = "a".repeat(stream::HEADER_BYTES_MAX / stream::HEADERS_MAX - "accept".len());
    let request = StreamRequest {
        method: "A".repeat(stream::METHOD_MAX),
        target: format!("/{}", "a".repeat(stream::TARGET_MAX - 1)),
        headers: vec![("accept".to_owned(), value); stream::HEADERS_MAX],
        user: "u".repeat(stream::USER_MAX),
    };
    let bytes = request.encode(WireVersion::ONE).unwrap();
    assert_eq!(StreamRequest::decode(&bytes, WireVersion::ONE), Ok(request));
    for length in [0, 1, u32::try_from(stream::HEAD_MAX).unwrap() + 1, u32::MAX] {
        assert!(stream::head_length(length.to_le_bytes()).is_err());
    }
    let long = StreamRequest::decode(&vec![1; stream::HEAD_MAX + 1], WireVersion::ONE);
    assert_eq!(long, Err(StreamHeadError::Length(stream::HEAD_MAX + 1)));
    let response = StreamResponse { status: 200, headers: vec![] }.encode(WireVersion::ONE).unwrap();
    let confused = StreamRequest::decode(&response[stream::LENGTH..], WireVersion::ONE);
    assert_eq!(confused, Err(StreamHeadError::Kind(2)));
}

#[test]
fn what_is_said_of_certificates_has_bounds() {
    use contract::certificate::{AUTHORITIES_MAX, CSR_BYTES_MAX, CloudTrust, SERVERS_MAX};
    let renew = |bytes: usize| {
        let message = HubUp::RenewCertificate { csr_der: vec![0; bytes], reply: Reply::channel().0 };
        HubUp::decode(&written(message), way(), &protocol()).is_ok()
    };
    assert!(renew(CSR_BYTES_MAX) && !renew(CSR_BYTES_MAX + 1));
    let kept = |serial: &str| {
        let message = HubUp::CertificateKept { serial: serial.to_owned(), reply: Reply::channel().0 };
        HubUp::decode(&written(message), way(), &protocol()).is_ok()
    };
    assert!(kept("0af") && kept(&"a".repeat(64)));
    for odd in ["", "G", "0A", "../x", "a b", &"a".repeat(65)] {
        assert!(!kept(odd), "{odd}");
    }
    let trusts = |authorities: usize, bytes: usize, servers: usize, letters: usize| {
        let trust = CloudTrust {
            authorities: vec![vec![0; bytes]; authorities],
            servers: vec!["a".repeat(letters); servers],
        };
        let message = HubDown::Trust { trust, reply: Reply::channel().0 };
        HubDown::decode(&written(message), way(), &protocol()).is_ok()
    };
    assert!(trusts(AUTHORITIES_MAX, 16 << 10, SERVERS_MAX, 253));
    assert!(!trusts(AUTHORITIES_MAX + 1, 1, 1, 1) && !trusts(1, (16 << 10) + 1, 1, 1));
    assert!(!trusts(1, 1, SERVERS_MAX + 1, 1) && !trusts(1, 1, 1, 254));
    assert!(
        HubUp::decode(
            &written(HubUp::CertificateKept { serial: "a".into(), reply: Reply::channel().0 }),
            None,
            &protocol()
        )
        .is_err()
    );
}
