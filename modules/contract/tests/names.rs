//! Odd names and sizes in every report and question that a node can send: each is refused by itself, and whatever comes with
//! it is read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use beehive::Reply;
use beehive::link::wire::{ReplyTo, Wire};
use beehive::link::{Capabilities, Protocol, WireVersion};
use contract::parsed::{self, InvalidReport, NodeReport, ParsedReport};
use contract::uplink::{DeviceUp, EdgeUp};
use contract::{
    DeviceCondition, Report, TaskAction, TaskImage, TaskProgress, TokenQuery, TwinValue, Unparsed, UpReport,
};

/// What an attacker would put where a name belongs.
const ODD: [&str; 14] = [
    "",
    "dev1?x=",
    "../../nodes/control-plane",
    "a/b",
    "a%2fb",
    "a#b",
    "a&fieldManager=b",
    "a\nb",
    "a\0b",
    "A",
    "..",
    "-a",
    "a ",
    "\u{202e}a",
];

/// Each report with this text in one place where a name belongs.
fn reports_with(odd: &str) -> Vec<UpReport> {
    let pod = |[namespace, name, uid]: [&str; 3]| UpReport::PodStatus {
        namespace: namespace.into(),
        name: name.into(),
        uid: uid.into(),
        status_json: "{}".into(),
    };
    let gone = |[namespace, name, uid]: [&str; 3]| UpReport::PodGone {
        namespace: namespace.into(),
        name: name.into(),
        uid: uid.into(),
    };
    let event = |[namespace, name]: [&str; 2]| UpReport::Event {
        namespace: namespace.into(),
        name: name.into(),
        event_json: "{}".into(),
    };
    let twin = |[namespace, name, property]: [&str; 3]| UpReport::Twin {
        namespace: namespace.into(),
        name: name.into(),
        property: property.into(),
        reported: None,
        observed_desired: None,
    };
    let state = |[namespace, name]: [&str; 2]| UpReport::DeviceState {
        namespace: namespace.into(),
        name: name.into(),
        state: "online".into(),
        last_online_time: None,
    };
    let task = |[job, uid]: [&str; 2]| {
        UpReport::NodeTask(TaskProgress {
            kind: "ImagePrePullJob".into(),
            job: job.into(),
            uid: uid.into(),
            phase: "InProgress".into(),
            reason: String::new(),
            actions: vec![],
            images: vec![],
            from_version: String::new(),
            to_version: String::new(),
        })
    };
    let mut all = vec![
        pod([odd, "p", "u"]),
        pod(["d", odd, "u"]),
        gone([odd, "p", "u"]),
        gone(["d", odd, "u"]),
        event([odd, "e"]),
        event(["d", odd]),
        twin([odd, "n", "t"]),
        twin(["d", odd, "t"]),
        state([odd, "n"]),
        state(["d", odd]),
        task([odd, "u"]),
    ];
    // Some are good where they stand in no path.
    if odd != "A" {
        all.extend([pod(["d", "p", odd]), gone(["d", "p", odd]), task(["j", odd])]);
    }
    if !["A", "..", "-a", "../../nodes/control-plane", "a/b", "a#b"].contains(&odd) {
        all.push(twin(["d", "n", odd]));
    }
    all
}

fn way() -> Option<ReplyTo> {
    Some(ReplyTo::new(|_| {}))
}

fn report(row: i64, report: UpReport) -> Report {
    Report { row, repeat: false, report: report.into() }
}

fn good(row: i64) -> Report {
    report(row, UpReport::PodGone { namespace: "d".into(), name: "p".into(), uid: "u".into() })
}

#[test]
fn an_odd_name_is_refused_alone() {
    let protocol = Protocol::new(WireVersion::ONE, Capabilities::default());
    for odd in ODD {
        let reports = reports_with(odd);
        let count = reports.len();
        let mut batch = vec![good(0)];
        batch.extend((1_i64..).zip(reports).map(|(row, odd)| report(row, odd)));
        batch.push(good(99));
        let sent = EdgeUp::Reports { reports: batch.clone().into(), reply: Reply::channel().0 };
        let body = sent.encode(&protocol).unwrap().body;
        let EdgeUp::Reports { reports, .. } = EdgeUp::decode(&body, way(), &protocol).unwrap() else {
            panic!()
        };
        let opened = reports.open().unwrap();
        assert_eq!(opened.skipped, []);
        let (read, invalid): (Vec<_>, Vec<_>) = opened
            .items
            .into_iter()
            .map(|report| (report.row, report.report.parse()))
            .partition(|(_, parsed)| parsed.is_ok());
        assert_eq!(read.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [0, 99], "{odd:?}");
        assert_eq!(invalid.len(), count, "{odd:?}");
        for (_, invalid) in invalid {
            let text = invalid.unwrap_err().to_string();
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
        let sent = DeviceUp::Reports { reports: batch.into(), reply: Reply::channel().0 };
        assert!(DeviceUp::decode(&sent.encode(&protocol).unwrap().body, way(), &protocol).is_ok());
    }
}

#[test]
fn an_odd_question_is_refused() {
    let query = |[namespace, account, name, uid]: [&str; 4], audiences: Vec<String>| TokenQuery {
        namespace: namespace.into(),
        service_account: account.into(),
        audiences,
        expiration_seconds: 600,
        pod_name: name.into(),
        pod_uid: uid.into(),
    };
    let parse = |query: TokenQuery| Unparsed::from(query).parse();
    assert!(parse(query(["d", "a", "p", "u"], vec!["vault".into()])).is_ok());
    for odd in ODD {
        for at in 0..3 {
            let mut names = ["d", "a", "p", "u"];
            names[at] = odd;
            assert!(parse(query(names, vec![])).is_err(), "{odd:?} at {at}");
        }
    }
    let many = vec!["a".to_owned(); parsed::AUDIENCES_MAX + 1];
    for audiences in [many, vec!["a".repeat(parsed::AUDIENCE_MAX + 1)]] {
        assert!(matches!(parse(query(["d", "a", "p", "u"], audiences)), Err(InvalidReport::Size { .. })));
    }
}

#[test]
fn what_is_too_large_is_refused() {
    let text = |bytes: usize| "x".repeat(bytes);
    let twin = |value: usize, entries: usize, entry: usize| {
        let metadata: BTreeMap<String, String> =
            (0..entries).map(|n| (format!("k{n}"), text(entry))).collect();
        UpReport::Twin {
            namespace: "d".into(),
            name: "n".into(),
            property: "t".into(),
            reported: Some(TwinValue { value: text(value), metadata }),
            observed_desired: None,
        }
    };
    let pod = |bytes| UpReport::PodStatus {
        namespace: "d".into(),
        name: "p".into(),
        uid: "u".into(),
        status_json: text(bytes),
    };
    let event = |bytes| UpReport::Event { namespace: "d".into(), name: "e".into(), event_json: text(bytes) };
    let fits = |report: UpReport| Unparsed::from(report).parse().is_ok();
    assert!(fits(UpReport::Node { node_json: text(parsed::STATUS_MAX) }));
    assert!(!fits(UpReport::Node { node_json: text(parsed::STATUS_MAX + 1) }));
    assert!(fits(pod(parsed::STATUS_MAX)) && !fits(pod(parsed::STATUS_MAX + 1)));
    assert!(fits(event(parsed::EVENT_MAX)) && !fits(event(parsed::EVENT_MAX + 1)));
    assert!(fits(twin(parsed::VALUE_MAX, parsed::METADATA_MAX, parsed::METADATA_BYTES_MAX)));
    assert!(!fits(twin(parsed::VALUE_MAX + 1, 0, 0)));
    assert!(!fits(twin(1, parsed::METADATA_MAX + 1, 1)));
    assert!(!fits(twin(1, 1, parsed::METADATA_BYTES_MAX + 1)));
}

#[test]
fn a_word_of_a_job_that_is_none_is_refused() {
    let good = TaskProgress {
        kind: "ImagePrePullJob".into(),
        job: "j".into(),
        uid: "u".into(),
        phase: "Successful".into(),
        reason: String::new(),
        actions: vec![],
        images: vec![],
        from_version: String::new(),
        to_version: String::new(),
    };
    let parse = |change: &dyn Fn(&mut TaskProgress)| {
        let mut progress = good.clone();
        change(&mut progress);
        Unparsed::from(UpReport::NodeTask(progress)).parse()
    };
    assert!(matches!(parse(&|_| {}), Ok(ParsedReport::OfTask(_))));
    let action = |action: &str| TaskAction {
        action: action.into(),
        succeeded: true,
        reason: String::new(),
        time: String::new(),
    };
    let image = |image: &str| TaskImage { image: image.into(), succeeded: true, reason: String::new() };
    assert!(parse(&|progress| progress.kind = "Job".into()).is_err());
    assert!(parse(&|progress| progress.phase = "Unknown".into()).is_err());
    assert!(parse(&|progress| progress.reason = "a\nb".into()).is_err());
    assert!(parse(&|progress| progress.reason = "x".repeat(513)).is_err());
    assert!(parse(&|progress| progress.actions = vec![action("Check"); 17]).is_err());
    assert!(parse(&|progress| progress.actions = vec![action("a\u{1b}[2J")]).is_err());
    assert!(parse(&|progress| progress.images = vec![image("a"); 33]).is_err());
    assert!(parse(&|progress| progress.images = vec![image("$(id)")]).is_err());
    assert!(parse(&|progress| progress.to_version = "v".repeat(65)).is_err());
}

#[test]
fn what_is_good_is_read_as_it_was_said() {
    let parsed =
        Unparsed::from(UpReport::PodGone { namespace: "d".into(), name: "p.q".into(), uid: "u-1".into() });
    let Ok(ParsedReport::OfNode(NodeReport::PodGone { pod })) = parsed.parse() else { panic!() };
    assert_eq!((pod.namespace.as_str(), pod.name.as_str(), pod.uid.as_str()), ("d", "p.q", "u-1"));
}

#[test]
fn a_device_is_in_a_state_that_there_is_and_words_are_in_one_line() {
    let state = |state: &str| {
        let said = UpReport::DeviceState {
            namespace: "d".into(),
            name: "n".into(),
            state: state.into(),
            last_online_time: None,
        };
        Unparsed::from(said).parse().is_ok()
    };
    for word in ["online", "OK", "Offline", "unhealthy", "UNKNOWN"] {
        assert!(state(word), "{word}");
    }
    for word in ["HACK", "", "online\n", "onlin\u{e9}", " ok"] {
        assert!(!state(word), "{word:?}");
    }
    let condition = |reason: &str| {
        let one = DeviceCondition {
            kind: "Reporting".into(),
            reason: reason.into(),
            message: "two\nlines".into(),
            since: "2026-01-01T00:00:00Z".into(),
        };
        let said =
            UpReport::DeviceConditions { namespace: "d".into(), name: "n".into(), conditions: vec![one] };
        Unparsed::from(said).parse().is_ok()
    };
    assert!(condition("Stale") && !condition("St\u{1b}[2Jale"));
}
