//! Every message that crosses the link, byte by byte, in every version. A line that no longer matches means that a peer of
//! that version would not understand. The versions are frozen: it is the code that is wrong, and a change is a new version.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use beehive::Reply;
use beehive::link::WireVersion;
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

const ZERO: &str = include_str!("wire-0.txt");
const ONE: &str = include_str!("wire-1.txt");

fn file(version: WireVersion) -> &'static str {
    match version {
        WireVersion::Zero => ZERO,
        WireVersion::One => ONE,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn golden(version: WireVersion) -> BTreeMap<&'static str, &'static str> {
    let lines = file(version).lines().filter(|line| !line.starts_with('#') && !line.is_empty());
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

fn body<M: Wire>(message: M, version: WireVersion) -> Vec<u8> {
    message.encode(version).unwrap().body
}

/// A report of that version: from version 1 on some are repeats, and the file has one of each.
fn reported(report: UpReport, repeat: bool, version: WireVersion) -> Vec<u8> {
    let of_a_device = report.is_of_a_device();
    let reports = vec![Report { row: 7, repeat, report: report.into() }];
    let reply = Reply::channel().0;
    if of_a_device {
        body(DeviceUp::Reports { reports: reports.into(), reply }, version)
    } else {
        body(EdgeUp::Reports { reports: reports.into(), reply }, version)
    }
}

/// (name, body) of every message that goes out.
fn messages(version: WireVersion) -> Vec<(String, Vec<u8>)> {
    let apply = |change| {
        let apply = MetaDown::Apply { offer: 5, place: 6, changes: vec![change], reply: Reply::channel().0 };
        body(apply, version)
    };
    let holdings = MetaDown::Holdings { offer: 5, buckets: vec![1, 255], reply: Reply::channel().0 };
    let mut all = vec![
        (s("offer"), body(MetaDown::Offer { reply: Reply::channel().0 }, version)),
        (s("holdings"), body(holdings, version)),
        (s("apply-delete"), apply(Change::Delete { key: key(), uid: Some(s("u")) })),
        (s("alive"), body(EdgeUp::Alive, version)),
        (s("token"), body(EdgeUp::Token { query: query().into(), reply: Reply::channel().0 }, version)),
    ];
    let uploading = RouterUp::Telemetry { uploads: uploads().into(), reply: Reply::channel().0 };
    all.push((s("telemetry"), body(uploading, version)));
    for (name, report) in reports() {
        all.push((format!("report-{name}"), reported(report.clone(), false, version)));
        match version {
            WireVersion::Zero => {}
            WireVersion::One => all.push((format!("repeat-{name}"), reported(report, true, version))),
        }
    }
    all
}

/// (name, body) of every row of the format "row 0".
fn rows() -> Vec<(String, Vec<u8>)> {
    let rows = reports().into_iter();
    let mut all: Vec<(String, Vec<u8>)> = rows
        .map(|(name, report)| (format!("row-{name}"), contract::wire::encode_report(&report).unwrap()))
        .collect();
    all.push((s("row-telemetry"), contract::wire::encode_telemetry(&telemetry()).unwrap()));
    all
}

fn differing(golden: &BTreeMap<&str, &str>, written: &[(String, Vec<u8>)]) -> String {
    let differ = |(name, body): &&(String, Vec<u8>)| golden.get(name.as_str()).copied() != Some(&hex(body));
    let wrong = written.iter().filter(differ).map(|(name, body)| format!("{name} {}", hex(body)));
    wrong.collect::<Vec<_>>().join("\n")
}

#[test]
fn every_message_is_written_as_the_golden_files_say() {
    for version in WireVersion::ALL {
        let wrong = differing(&golden(version), &messages(version));
        assert!(wrong.is_empty(), "these lines differ from wire-{}.txt:\n{wrong}", version.number());
    }
}

#[test]
fn a_long_message_up_is_packed_from_version_one_on() {
    let status_json = format!("{{\"message\":\"{}\"}}", "as it was ".repeat(100));
    let report = UpReport::PodStatus { namespace: s("d"), name: s("p"), uid: s("u"), status_json };
    let sent = |version| reported(report.clone(), false, version);
    assert!(sent(WireVersion::Zero).len() > 1000 && sent(WireVersion::One).len() < 200);
    // Only read, as what is compressed may differ between versions of its library.
    let expected = vec![Report { row: 7, repeat: false, report: report.clone().into() }];
    assert_eq!(read_reports(WireVersion::One, "packed-pod-status", false), expected);
    let packed = unhex(golden(WireVersion::One)["packed-pod-status"]);
    assert!(EdgeUp::decode(&packed, way(), WireVersion::Zero).is_err());
}

#[test]
fn every_row_is_written_as_ever() {
    let wrong = differing(&golden(WireVersion::Zero), &rows());
    assert!(wrong.is_empty(), "these lines differ from wire-0.txt:\n{wrong}");
}

#[test]
fn nothing_but_the_mark_of_a_repeat_differs_between_the_versions() {
    let (zero, one) = (golden(WireVersion::Zero), golden(WireVersion::One));
    for (name, bytes) in &one {
        let Some((kind, report)) =
            name.split_once('-').filter(|(kind, _)| ["report", "repeat"].contains(kind))
        else {
            // What is packed has a test of its own.
            if !name.starts_with("packed-") {
                assert_eq!(zero.get(name), Some(bytes), "{name}");
            }
            continue;
        };
        // Four bytes of the kind, eight of the count, eight of the row, and then the mark.
        let (before, rest) = bytes.split_at(40);
        let (mark, after) = rest.split_at(2);
        assert_eq!(mark, if kind == "repeat" { "01" } else { "00" }, "{name}");
        assert_eq!(format!("{before}{after}"), zero[format!("report-{report}").as_str()], "{name}");
    }
    let missing: Vec<_> =
        zero.keys().filter(|name| !name.starts_with("row-") && !one.contains_key(*name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

fn way() -> Option<ReplyTo> {
    Some(ReplyTo::new(|_| {}))
}

fn read_back<M: Wire>(version: WireVersion, name: &str) -> M {
    M::decode(&unhex(golden(version)[name]), way(), version).unwrap()
}

#[test]
fn golden_bytes_are_read_back() {
    for version in WireVersion::ALL {
        let changes = |name: &str| match read_back(version, name) {
            MetaDown::Apply { offer: 5, place: 6, changes, .. } => changes,
            other => panic!("{other:?}"),
        };
        assert!(matches!(read_back(version, "offer"), MetaDown::Offer { .. }));
        match read_back(version, "holdings") {
            MetaDown::Holdings { offer: 5, buckets, .. } => assert_eq!(buckets, [1, 255]),
            other => panic!("{other:?}"),
        }
        assert_eq!(changes("apply-delete"), [Change::Delete { key: key(), uid: Some(s("u")) }]);
        // Only read: compression may differ between versions of its library, what it inflates to may not.
        assert_eq!(changes("apply-upsert"), [Change::Upsert(object())]);
        let alive = EdgeUp::decode(&unhex(golden(version)["alive"]), None, version);
        assert!(matches!(alive, Ok(EdgeUp::Alive)));
        match read_back(version, "token") {
            EdgeUp::Token { query: read, .. } => assert_eq!(read, query().into()),
            other => panic!("{other:?}"),
        }
        match read_back(version, "telemetry") {
            RouterUp::Telemetry { uploads: read, .. } => assert_eq!(read.open().unwrap(), uploads()),
        }
    }
}

fn read_reports(version: WireVersion, name: &str, of_a_device: bool) -> Vec<Report> {
    if of_a_device {
        let DeviceUp::Reports { reports, .. } = read_back(version, name);
        return reports.open().unwrap();
    }
    match read_back(version, name) {
        EdgeUp::Reports { reports, .. } => reports.open().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn reports_are_read_back_with_their_mark_from_version_one_on() {
    for (name, report) in reports() {
        let of_a_device = report.is_of_a_device();
        let read = |version, prefix| read_reports(version, &format!("{prefix}-{name}"), of_a_device);
        let expected = |repeat| vec![Report { row: 7, repeat, report: report.clone().into() }];
        assert_eq!(read(WireVersion::Zero, "report"), expected(false));
        assert_eq!(read(WireVersion::One, "report"), expected(false));
        assert_eq!(read(WireVersion::One, "repeat"), expected(true));
        // Version 0 drops the mark.
        assert_eq!(
            hex(&reported(report.clone(), true, WireVersion::Zero)),
            golden(WireVersion::Zero)[format!("report-{name}").as_str()]
        );
    }
}

#[test]
fn rows_are_read_back() {
    let bytes = |name: &str| unhex(golden(WireVersion::Zero)[name]);
    assert_eq!(contract::wire::decode_telemetry(&bytes("row-telemetry")).unwrap(), telemetry());
    for (name, report) in reports() {
        assert_eq!(contract::wire::decode_report(&bytes(&format!("row-{name}"))).unwrap(), report);
    }
}

/// Reads a question of the golden file, to be answered with what the file says under `answer`.
fn question<M: Wire>(version: WireVersion, name: &str, answer: &'static str) -> M {
    let golden = golden(version);
    let expected = s(golden.get(answer).copied().unwrap_or_default());
    let way = ReplyTo::new(move |bytes| assert_eq!(hex(&bytes.unwrap()), expected, "{answer}"));
    M::decode(&unhex(golden[name]), Some(way), version).unwrap()
}

#[test]
fn answers_are_written_as_the_golden_files_say() {
    for version in WireVersion::ALL {
        let MetaDown::Offer { reply } = question(version, "offer", "offer-answer") else { panic!() };
        // The hashes themselves are of the wire, too.
        reply.send(Offer { number: 5, digest: Digest::of([(&key(), "u", "9")], 2) });
        let MetaDown::Holdings { reply, .. } = question(version, "holdings", "holdings-answer") else {
            panic!()
        };
        reply.send(vec![Held { key: key(), uid: s("u"), version: s("9") }]);
        let EdgeUp::Token { reply, .. } = question(version, "token", "token-answer") else { panic!() };
        reply.send(Ok(TokenGrant { token: s("t"), expires_unix: 1, lifetime_seconds: 2 }));
        let MetaDown::Apply { reply, .. } = question(version, "apply-delete", "apply-answer") else {
            panic!()
        };
        reply.send(Err(NotApplied::Refused(s("full"))));
        let MetaDown::Apply { reply, .. } = question(version, "apply-delete", "apply-stale") else {
            panic!()
        };
        reply.send(Err(NotApplied::Stale));
        let DeviceUp::Reports { reply, .. } = question(version, "report-twin", "reports-answer");
        reply.send(vec![7]);
        let EdgeUp::Reports { reply, .. } = question(version, "report-node", "reports-answer") else {
            panic!()
        };
        reply.send(vec![7]);
        let RouterUp::Telemetry { reply, .. } = question(version, "telemetry", "telemetry-answer");
        reply.send(vec![7]);
    }
}
