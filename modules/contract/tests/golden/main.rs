//! Every message that crosses the link and every row of the outbox, byte by byte. A line that no longer matches means that a
//! peer or a disk would not be understood: versions are frozen, so it is the code that is wrong.
//!
//! `GOLDEN=add cargo nextest run -p contract --test golden` adds the lines that the files lack; it changes none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod file;
mod samples;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use beehive::Reply;
use beehive::link::wire::{ReplyTo, Wire};
use beehive::link::{Capabilities, Protocol, WireVersion};
use contract::certificate::RenewalRefused;
use contract::downlink::{DeviceDown, HubDown, MetaDown, NotApplied};
use contract::report::OutboxQueue;
use contract::rule_stream::{self, RuleStreamAnswer, RuleStreamRequest};
use contract::stream::{self, StreamRequest, StreamResponse};
use contract::uplink::{DeviceUp, EdgeUp, HubUp, RouterUp, TaskUp};
use contract::{Change, Report, UpReport, capability, rows};

use file::{ROWS, WIRE, compare, golden};
use samples::{
    grant, inventory, key, long_status, method_call, object, object_version, query, renewed, reports,
    rule_answer, rule_call, rule_stream_answer, rule_streams, s, stream_request, stream_response, telemetry,
    trust, uploads,
};

/// Version 1 with a peer that inflates.
fn protocol() -> Protocol {
    Protocol::new(WireVersion::ONE, Capabilities::from_iter([capability::DEFLATE]))
}

fn body<M: Wire>(message: M) -> Vec<u8> {
    message.encode(&protocol()).unwrap().body
}

fn reported(report: UpReport, repeat: bool) -> Vec<u8> {
    let queue = report.queue();
    let reports = vec![Report { row: 7, repeat, report: report.into() }].into();
    let reply = Reply::channel().0;
    match queue {
        OutboxQueue::Node => body(EdgeUp::Reports { reports, reply }),
        OutboxQueue::Devices => body(DeviceUp::Reports { reports, reply }),
        OutboxQueue::Tasks => body(TaskUp::Reports { reports, reply }),
        OutboxQueue::Telemetry | OutboxQueue::Rules => panic!("no report"),
    }
}

fn apply(change: Change) -> Vec<u8> {
    body(MetaDown::Apply { inventory: 5, sequence: 6, changes: vec![change], reply: Reply::channel().0 })
}

fn call_method(reply: Reply<Result<(), String>>) -> DeviceDown {
    DeviceDown::CallMethod { namespace: s("d"), name: s("n"), uid: s("u"), call: method_call(), reply }
}

/// What is said of certificates.
fn certificates() -> Vec<(String, Vec<u8>)> {
    let (renewal, kept, trusted) = (Reply::channel().0, Reply::channel().0, Reply::channel().0);
    vec![
        (s("renew-certificate"), body(HubUp::RenewCertificate { csr_der: b"csr".to_vec(), reply: renewal })),
        (s("certificate-kept"), body(HubUp::CertificateKept { serial: s("0a"), reply: kept })),
        (s("trust"), body(HubDown::Trust { trust: trust(), reply: trusted })),
    ]
}

/// Their answers.
fn certificate_answers(messages: &BTreeMap<String, Vec<u8>>) -> Vec<(String, Answer)> {
    let mut all = Vec::new();
    let wait = Some(std::time::Duration::from_millis(1500));
    let refused = RenewalRefused { reason: s("no"), wait };
    for (name, answer) in [("certificate-renewed", Ok(renewed())), ("renewal-refused", Err(refused))] {
        let (HubUp::RenewCertificate { reply, .. }, kept) = question(&messages["renew-certificate"]) else {
            panic!()
        };
        reply.send(answer);
        all.push((s(name), kept));
    }
    for (name, taken) in [("certificate-noted", Ok(())), ("certificate-not-noted", Err(s("no")))] {
        let (HubUp::CertificateKept { reply, .. }, kept) = question(&messages["certificate-kept"]) else {
            panic!()
        };
        reply.send(taken);
        all.push((s(name), kept));
    }
    for (name, taken) in [("trust-taken", Ok(())), ("trust-refused", Err(s("no")))] {
        let (HubDown::Trust { reply, .. }, kept) = question(&messages["trust"]);
        reply.send(taken);
        all.push((s(name), kept));
    }
    all
}

/// (name, bytes) of every message.
fn messages() -> Vec<(String, Vec<u8>)> {
    let versions =
        MetaDown::ObjectVersions { inventory: 5, buckets: vec![1, 255], reply: Reply::channel().0 };
    let mut all = vec![
        (s("inventory"), body(MetaDown::Inventory { reply: Reply::channel().0 })),
        (s("object-versions"), body(versions)),
        (s("apply-delete"), apply(Change::Delete { key: key(), uid: Some(s("u")) })),
        (s("deflated-apply-upsert"), apply(Change::Upsert(object()))),
        (s("alive"), body(EdgeUp::Alive)),
        (s("token"), body(EdgeUp::Token { query: query().into(), reply: Reply::channel().0 })),
        (s("telemetry"), body(RouterUp::Telemetry { uploads: uploads().into(), reply: Reply::channel().0 })),
        (s("call-method"), body(call_method(Reply::channel().0))),
        (s("deflated-report"), reported(long_status(), false)),
    ];
    for (name, report) in reports() {
        all.push((format!("report-{name}"), reported(report.clone(), false)));
        all.push((format!("repeat-{name}"), reported(report, true)));
    }
    let uploads = uploads().into();
    all.push((s("rule-uploads"), body(RouterUp::RuleUploads { uploads, reply: Reply::channel().0 })));
    all.push((s("rule-call"), body(RouterUp::RuleCall { call: rule_call(), reply: Reply::channel().0 })));
    for (name, request) in rule_streams() {
        all.push((s(name), request.encode(WireVersion::ONE).unwrap()));
    }
    all.extend(certificates());
    all.push((s("rule-stream-answer"), rule_stream_answer().encode(WireVersion::ONE).unwrap()));
    all.push((s("stream-request"), stream_request().encode(WireVersion::ONE).unwrap()));
    all.push((s("stream-response"), stream_response().encode(WireVersion::ONE).unwrap()));
    all
}

type Answer = Arc<Mutex<Vec<u8>>>;

/// The question of these bytes, and where its answer's bytes arrive.
fn question<M: Wire>(bytes: &[u8]) -> (M, Answer) {
    let answer = Answer::default();
    let kept = Arc::clone(&answer);
    let way = ReplyTo::new(move |bytes| *kept.lock().unwrap() = bytes.unwrap());
    (M::decode(bytes, Some(way), &protocol()).unwrap(), answer)
}

/// (name, bytes) of every answer.
fn answers() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let mut keep = |name: &str, answer: Answer| all.push((s(name), answer.lock().unwrap().clone()));
    let messages: BTreeMap<String, Vec<u8>> = messages().into_iter().collect();
    let (MetaDown::Inventory { reply }, answer) = question(&messages["inventory"]) else { panic!() };
    reply.send(inventory());
    keep("inventory-answer", answer);
    let (MetaDown::ObjectVersions { reply, .. }, answer) = question(&messages["object-versions"]) else {
        panic!()
    };
    reply.send(vec![object_version()]);
    keep("object-versions-answer", answer);
    for (name, applied) in [
        ("applied", Ok(())),
        ("apply-refused", Err(NotApplied::Refused(s("full")))),
        ("apply-stale", Err(NotApplied::Stale)),
    ] {
        let (MetaDown::Apply { reply, .. }, answer) = question(&messages["apply-delete"]) else { panic!() };
        reply.send(applied);
        keep(name, answer);
    }
    for (name, granted) in [("token-answer", Ok(grant())), ("token-refused", Err(s("no")))] {
        let (EdgeUp::Token { reply, .. }, answer) = question(&messages["token"]) else { panic!() };
        reply.send(granted);
        keep(name, answer);
    }
    for (name, taken) in [("call-taken", Ok(())), ("call-refused", Err(s("no")))] {
        let (DeviceDown::CallMethod { reply, .. }, answer) = question(&messages["call-method"]);
        reply.send(taken);
        keep(name, answer);
    }
    let (EdgeUp::Reports { reply, .. }, answer) = question(&messages["report-node"]) else { panic!() };
    reply.send(vec![7]);
    keep("reports-answer", answer);
    let (DeviceUp::Reports { reply, .. }, answer) = question(&messages["report-twin"]);
    reply.send(vec![7]);
    keep("device-reports-answer", answer);
    let (TaskUp::Reports { reply, .. }, answer) = question(&messages["report-node-task"]);
    reply.send(vec![7]);
    keep("task-reports-answer", answer);
    let (RouterUp::Telemetry { reply, .. }, answer) = question(&messages["telemetry"]) else { panic!() };
    reply.send(vec![7]);
    keep("telemetry-answer", answer);
    let (RouterUp::RuleUploads { reply, .. }, answer) = question(&messages["rule-uploads"]) else { panic!() };
    reply.send(vec![7]);
    keep("rule-uploads-answer", answer);
    let (RouterUp::RuleCall { reply, .. }, answer) = question(&messages["rule-call"]) else { panic!() };
    reply.send(rule_answer());
    keep("rule-call-answer", answer);
    for (name, answer) in certificate_answers(&messages) {
        keep(&name, answer);
    }
    all
}

#[test]
fn every_message_and_answer_is_written_as_the_golden_file_says() {
    let written: Vec<_> = messages().into_iter().chain(answers()).collect();
    compare(WIRE, &written);
}

#[test]
fn every_row_is_written_and_read_as_the_golden_file_says() {
    let mut written: Vec<(String, Vec<u8>)> = reports()
        .into_iter()
        .map(|(name, report)| (s(name), rows::encode_report(&report).unwrap()))
        .collect();
    written.push((s("telemetry"), rows::encode_telemetry(&telemetry()).unwrap()));
    compare(ROWS, &written);
    let held = golden(ROWS);
    for (name, report) in reports() {
        assert_eq!(rows::decode_report(&held[name]).unwrap(), report);
    }
    assert_eq!(rows::decode_telemetry(&held["telemetry"]).unwrap(), telemetry());
}

#[test]
fn a_row_of_a_later_release_is_told_apart_from_a_broken_one() {
    let good = rows::encode_report(&reports()[0].1).unwrap();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        rows::decode_report(&bytes).unwrap_err().to_string()
    };
    assert_eq!(with(0, 2), "row of the outbox in the unknown format 2");
    assert_eq!(with(1, 99), "row of the outbox of the unknown kind 99");
    assert_eq!(with(3, 0xff), "not a row of the outbox");
    for bytes in [&[][..], &[1], &[1, 1]] {
        assert_eq!(rows::decode_report(bytes).unwrap_err().to_string(), "not a row of the outbox");
    }
    // Telemetry is no report, and no report is telemetry.
    let telemetry = rows::encode_telemetry(&telemetry()).unwrap();
    assert!(rows::decode_report(&telemetry).is_err() && rows::decode_telemetry(&good).is_err());
}

#[test]
fn what_is_long_is_deflated_for_a_peer_that_inflates_it() {
    let peer = |capabilities: &[&'static str]| {
        let protocol = Protocol::new(WireVersion::ONE, capabilities.iter().copied().collect());
        let reports = vec![Report { row: 7, repeat: false, report: long_status().into() }].into();
        EdgeUp::Reports { reports, reply: Reply::channel().0 }.encode(&protocol).unwrap().body.len()
    };
    assert!(peer(&[]) > 1000 && peer(&[capability::DEFLATE]) < 200);
}

fn read<M: Wire>(name: &str) -> M {
    M::decode(&golden(WIRE)[name], Some(ReplyTo::new(|_| {})), &protocol()).unwrap()
}

#[test]
fn golden_messages_are_read_back() {
    let changes = |name: &str| match read(name) {
        MetaDown::Apply { inventory: 5, sequence: 6, changes, .. } => changes,
        other => panic!("{other:?}"),
    };
    assert!(matches!(read("inventory"), MetaDown::Inventory { .. }));
    match read("object-versions") {
        MetaDown::ObjectVersions { inventory: 5, buckets, .. } => assert_eq!(buckets, [1, 255]),
        other => panic!("{other:?}"),
    }
    assert_eq!(changes("apply-delete"), [Change::Delete { key: key(), uid: Some(s("u")) }]);
    assert_eq!(changes("deflated-apply-upsert"), [Change::Upsert(object())]);
    let alive = EdgeUp::decode(&golden(WIRE)["alive"], None, &protocol());
    assert!(matches!(alive, Ok(EdgeUp::Alive)));
    match read("token") {
        EdgeUp::Token { query: read, .. } => assert_eq!(read, query().into()),
        other => panic!("{other:?}"),
    }
    let DeviceDown::CallMethod { namespace, name, uid, call, .. } = read("call-method");
    assert_eq!((namespace, name, uid, call), (s("d"), s("n"), s("u"), method_call()));
    for name in ["telemetry", "rule-uploads"] {
        let (RouterUp::Telemetry { uploads: read, .. } | RouterUp::RuleUploads { uploads: read, .. }) =
            read(name)
        else {
            panic!("{name}")
        };
        let read = read.open().unwrap();
        assert_eq!((read.items, read.skipped), (uploads(), vec![]));
    }
    match read("rule-call") {
        RouterUp::RuleCall { call, .. } => assert_eq!(call, rule_call()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn golden_words_about_certificates_are_read_back() {
    match read("renew-certificate") {
        HubUp::RenewCertificate { csr_der, .. } => assert_eq!(csr_der, b"csr"),
        other => panic!("{other:?}"),
    }
    match read("certificate-kept") {
        HubUp::CertificateKept { serial, .. } => assert_eq!(serial, "0a"),
        other => panic!("{other:?}"),
    }
    let HubDown::Trust { trust: read, .. } = read("trust");
    assert_eq!(read, trust());
}

#[test]
fn golden_heads_of_streams_of_rules_are_read_back() {
    let held = golden(WIRE);
    let after_length = |name: &str| {
        let (length, head) = held[name].split_first_chunk().unwrap();
        assert_eq!(rule_stream::head_length(*length), Ok(head.len()), "{name}");
        head.to_vec()
    };
    for (name, request) in rule_streams() {
        assert_eq!(RuleStreamRequest::decode(&after_length(name), WireVersion::ONE), Ok(request));
    }
    assert_eq!(
        RuleStreamAnswer::decode(&after_length("rule-stream-answer"), WireVersion::ONE),
        Ok(rule_stream_answer())
    );
}

#[test]
fn golden_heads_of_streams_are_read_back() {
    let held = golden(WIRE);
    let request = StreamRequest::decode(&held["stream-request"], WireVersion::ONE);
    assert_eq!(request, Ok(stream_request()));
    let (length, head) = held["stream-response"].split_first_chunk().unwrap();
    assert_eq!(stream::head_length(*length), Ok(head.len()));
    assert_eq!(StreamResponse::decode(head, WireVersion::ONE), Ok(stream_response()));
}

#[test]
fn golden_reports_are_read_back_with_their_mark() {
    let read_reports = |name: &str, queue| {
        let reports = match queue {
            OutboxQueue::Devices => {
                let DeviceUp::Reports { reports, .. } = read(name);
                reports
            }
            OutboxQueue::Tasks => {
                let TaskUp::Reports { reports, .. } = read(name);
                reports
            }
            OutboxQueue::Node | OutboxQueue::Telemetry | OutboxQueue::Rules => match read(name) {
                EdgeUp::Reports { reports, .. } => reports,
                other => panic!("{other:?}"),
            },
        };
        let opened = reports.open().unwrap();
        assert_eq!(opened.skipped, []);
        opened.items
    };
    for (name, report) in reports() {
        for (prefix, repeat) in [("report", false), ("repeat", true)] {
            let read = read_reports(&format!("{prefix}-{name}"), report.queue());
            assert_eq!(read, [Report { row: 7, repeat, report: report.clone().into() }]);
        }
    }
    let read = read_reports("deflated-report", OutboxQueue::Node);
    assert_eq!(read, [Report { row: 7, repeat: false, report: long_status().into() }]);
}

/// What the asker gets from an answer of the golden file.
async fn answered<M: Wire, T: Send + 'static>(name: &str, ask: impl FnOnce(Reply<T>) -> M) -> T {
    let (reply, answer) = Reply::channel();
    let slot = ask(reply).encode(&protocol()).unwrap().reply.unwrap();
    slot(Ok(golden(WIRE)[name].clone()));
    answer.await.unwrap().unwrap()
}

#[tokio::test]
async fn golden_answers_are_read_back() {
    assert_eq!(answered("inventory-answer", |reply| MetaDown::Inventory { reply }).await, inventory());
    let versions = |reply| MetaDown::ObjectVersions { inventory: 5, buckets: vec![], reply };
    assert_eq!(answered("object-versions-answer", versions).await, [object_version()]);
    for (name, applied) in [
        ("applied", Ok(())),
        ("apply-refused", Err(NotApplied::Refused(s("full")))),
        ("apply-stale", Err(NotApplied::Stale)),
    ] {
        let apply = |reply| MetaDown::Apply { inventory: 5, sequence: 1, changes: vec![], reply };
        assert_eq!(answered(name, apply).await, applied);
    }
    for (name, granted) in [("token-answer", Ok(grant())), ("token-refused", Err(s("no")))] {
        let token = |reply| EdgeUp::Token { query: query().into(), reply };
        assert_eq!(answered(name, token).await, granted);
    }
    for (name, taken) in [("call-taken", Ok(())), ("call-refused", Err(s("no")))] {
        assert_eq!(answered(name, call_method).await, taken);
    }
    let reports = |reply| EdgeUp::Reports { reports: vec![].into(), reply };
    assert_eq!(answered("reports-answer", reports).await, [7]);
    let reports = |reply| DeviceUp::Reports { reports: vec![].into(), reply };
    assert_eq!(answered("device-reports-answer", reports).await, [7]);
    let reports = |reply| TaskUp::Reports { reports: vec![].into(), reply };
    assert_eq!(answered("task-reports-answer", reports).await, [7]);
    let telemetry = |reply| RouterUp::Telemetry { uploads: vec![].into(), reply };
    assert_eq!(answered("telemetry-answer", telemetry).await, [7]);
    let uploads = |reply| RouterUp::RuleUploads { uploads: vec![].into(), reply };
    assert_eq!(answered("rule-uploads-answer", uploads).await, [7]);
    let call = |reply| RouterUp::RuleCall { call: rule_call(), reply };
    assert_eq!(answered("rule-call-answer", call).await, rule_answer());
}
