//! Every message that crosses the link, byte by byte. A line that no longer matches means that a peer of the same wire
//! version would not understand: while version 0 may still change, change the file with the code, in one commit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use beehive::Reply;
use beehive::link::wire::{ReplyTo, Wire};
use bytes::Bytes;
use contract::devicecontroller::DeviceUp;
use contract::edgecontroller::EdgeUp;
use contract::metamanager::{MetaDown, NotApplied, Offer};
use contract::router::RouterUp;
use contract::{
    Change, Digest, Held, Object, ObjectKey, Report, Telemetry, TokenGrant, TokenQuery, TwinValue, UpReport,
    Upload,
};

const GOLDEN: &str = include_str!("wire-0.txt");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn golden() -> BTreeMap<&'static str, &'static str> {
    let lines = GOLDEN.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.split_once(' ').unwrap()).collect()
}

fn s(text: &str) -> String {
    text.to_owned()
}

fn reports() -> Vec<(&'static str, UpReport)> {
    let (namespace, name, uid) = (s("d"), s("p"), s("u"));
    let value = TwinValue { value: s("21"), metadata: BTreeMap::from([(s("type"), s("int"))]) };
    let status_json = s("{}");
    vec![
        ("node", UpReport::Node { node_json: s("{}") }),
        ("pod-status", UpReport::PodStatus { namespace: s("d"), name: s("p"), uid: s("u"), status_json }),
        ("pod-gone", UpReport::PodGone { namespace, name, uid }),
        ("event", UpReport::Event { namespace: s("d"), name: s("e"), event_json: s("{}") }),
        (
            "twin",
            UpReport::Twin {
                namespace: s("d"),
                name: s("n"),
                property: s("t"),
                reported: Some(value),
                observed_desired: None,
            },
        ),
        (
            "device-state",
            UpReport::DeviceState {
                namespace: s("d"),
                name: s("n"),
                state: s("online"),
                last_online_time: Some(s("t")),
            },
        ),
    ]
}

fn telemetry() -> Telemetry {
    Telemetry {
        client: s("c"),
        topic: s("a/user/b"),
        boot: *b"0123456789abcdef",
        sequence: 5,
        dup: true,
        qos: 1,
        payload: Bytes::from_static(b"21.5"),
    }
}

fn uploads() -> Vec<Upload> {
    vec![Upload { row: 7, repeat: true, telemetry: telemetry() }]
}

fn query() -> TokenQuery {
    TokenQuery {
        namespace: s("d"),
        service_account: s("a"),
        audiences: vec![s("x")],
        expiration_seconds: 3600,
        pod_name: s("p"),
        pod_uid: s("u"),
    }
}

fn key() -> ObjectKey {
    ObjectKey::new("pods", "d", "p")
}

fn object() -> Object {
    Object { key: key(), uid: s("u"), version: s("9"), json: Bytes::from_static(b"{\"kind\":\"Pod\"}") }
}

fn body<M: Wire>(message: M) -> Vec<u8> {
    message.encode().unwrap().body
}

/// (name, body) of every message that goes out.
fn messages() -> Vec<(String, Vec<u8>)> {
    let apply = |change| {
        body(MetaDown::Apply { offer: 5, place: 6, changes: vec![change], reply: Reply::channel().0 })
    };
    let mut all = vec![
        (s("offer"), body(MetaDown::Offer { reply: Reply::channel().0 })),
        (
            s("holdings"),
            body(MetaDown::Holdings { offer: 5, buckets: vec![1, 255], reply: Reply::channel().0 }),
        ),
        (s("apply-delete"), apply(Change::Delete { key: key(), uid: Some(s("u")) })),
        (s("alive"), body(EdgeUp::Alive)),
        (s("token"), body(EdgeUp::Token { query: query(), reply: Reply::channel().0 })),
    ];
    let uploading = RouterUp::Telemetry { uploads: uploads(), reply: Reply::channel().0 };
    all.push((s("telemetry"), body(uploading)));
    all.push((s("row-telemetry"), contract::wire::encode_telemetry(&telemetry()).unwrap()));
    for (name, report) in reports() {
        let reports = vec![Report { row: 7, repeat: false, report: report.clone() }];
        let bytes = if report.is_of_a_device() {
            body(DeviceUp::Reports { reports, reply: Reply::channel().0 })
        } else {
            body(EdgeUp::Reports { reports, reply: Reply::channel().0 })
        };
        all.push((format!("report-{name}"), bytes));
        all.push((format!("row-{name}"), contract::wire::encode_report(&report).unwrap()));
    }
    all
}

#[test]
fn every_message_is_written_as_the_golden_file_says() {
    let golden = golden();
    let differ = |(name, body): &(String, Vec<u8>)| golden.get(name.as_str()).copied() != Some(&hex(body));
    let wrong: Vec<String> =
        messages().iter().filter(|m| differ(m)).map(|(name, body)| format!("{name} {}", hex(body))).collect();
    assert!(wrong.is_empty(), "these lines differ from wire-0.txt:\n{}", wrong.join("\n"));
}

fn way() -> Option<ReplyTo> {
    Some(ReplyTo::new(|_| {}))
}

#[test]
fn golden_bytes_are_read_back() {
    let golden = golden();
    let bytes = |name: &str| unhex(golden[name]);
    let changes = |name: &str| match MetaDown::decode(&bytes(name), way()) {
        Ok(MetaDown::Apply { offer: 5, place: 6, changes, .. }) => changes,
        other => panic!("{other:?}"),
    };
    assert!(matches!(MetaDown::decode(&bytes("offer"), way()), Ok(MetaDown::Offer { .. })));
    match MetaDown::decode(&bytes("holdings"), way()) {
        Ok(MetaDown::Holdings { offer: 5, buckets, .. }) => assert_eq!(buckets, [1, 255]),
        other => panic!("{other:?}"),
    }
    assert_eq!(changes("apply-delete"), [Change::Delete { key: key(), uid: Some(s("u")) }]);
    // Only read: compression may differ between versions of its library, what it inflates to may not.
    assert_eq!(changes("apply-upsert"), [Change::Upsert(object())]);
    assert!(matches!(EdgeUp::decode(&bytes("alive"), None), Ok(EdgeUp::Alive)));
    match EdgeUp::decode(&bytes("token"), way()) {
        Ok(EdgeUp::Token { query: read, .. }) => assert_eq!(read, query()),
        other => panic!("{other:?}"),
    }
    match RouterUp::decode(&bytes("telemetry"), way()) {
        Ok(RouterUp::Telemetry { uploads: read, .. }) => assert_eq!(read, uploads()),
        other => panic!("{other:?}"),
    }
    assert_eq!(contract::wire::decode_telemetry(&bytes("row-telemetry")).unwrap(), telemetry());
    for (name, report) in reports() {
        assert_eq!(contract::wire::decode_report(&bytes(&format!("row-{name}"))).unwrap(), report);
    }
}

#[test]
fn answers_are_written_as_the_golden_file_says() {
    let golden = golden();
    let answer = |name: &'static str| {
        let expected = s(golden.get(name).copied().unwrap_or_default());
        Some(ReplyTo::new(move |bytes| assert_eq!(hex(&bytes.unwrap()), expected, "{name}")))
    };
    let bytes = |name: &str| unhex(golden[name]);
    let Ok(MetaDown::Offer { reply }) = MetaDown::decode(&bytes("offer"), answer("offer-answer")) else {
        panic!()
    };
    // The hashes themselves are of the wire, too.
    reply.send(Offer { number: 5, digest: Digest::of([(&key(), "u", "9")], 2) });
    let Ok(MetaDown::Holdings { reply, .. }) =
        MetaDown::decode(&bytes("holdings"), answer("holdings-answer"))
    else {
        panic!()
    };
    reply.send(vec![Held { key: key(), uid: s("u"), version: s("9") }]);
    let Ok(EdgeUp::Token { reply, .. }) = EdgeUp::decode(&bytes("token"), answer("token-answer")) else {
        panic!()
    };
    reply.send(Ok(TokenGrant { token: s("t"), expires_unix: 1, lifetime_seconds: 2 }));
    let Ok(MetaDown::Apply { reply, .. }) = MetaDown::decode(&bytes("apply-delete"), answer("apply-answer"))
    else {
        panic!()
    };
    reply.send(Err(NotApplied::Refused(s("full"))));
    let Ok(MetaDown::Apply { reply, .. }) = MetaDown::decode(&bytes("apply-delete"), answer("apply-stale"))
    else {
        panic!()
    };
    reply.send(Err(NotApplied::Stale));
    let Ok(DeviceUp::Reports { reply, .. }) =
        DeviceUp::decode(&bytes("report-twin"), answer("reports-answer"))
    else {
        panic!()
    };
    reply.send(vec![7]);
    let Ok(RouterUp::Telemetry { reply, .. }) =
        RouterUp::decode(&bytes("telemetry"), answer("telemetry-answer"))
    else {
        panic!()
    };
    reply.send(vec![7]);
}
