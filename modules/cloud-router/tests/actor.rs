//! CloudRouter as a node sees it: what was taken is confirmed, whatever it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use beehive::link::wire::{ReplyTo, Wire};
use beehive::link::{Protocol, Versions};
use beehive::testing::Probe;
use beehive::{Address, Capacity, Env, Flow, Hive, Policy, Reply};
use cloud_router::{CloudRouter, Dependencies, UPLOAD_LOG};
use contract::cloudhub::CloudHubMsg;
use contract::nodelease::NodeLeaseMsg;
use contract::router::{RouterMsg, RouterUp};
use contract::synccontroller::{Source, SyncMsg};
use contract::wire::ROUTER_MAILBOX;
use contract::{NodeName, Telemetry, Upload};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(10);

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn upload(row: i64, sequence: u64) -> Upload {
    let telemetry = Telemetry {
        client: "c".to_owned(),
        topic: "a/user/b".to_owned(),
        boot: [1; 16],
        sequence,
        dup: false,
        qos: 1,
        payload: "21.5".into(),
    };
    Upload { row, repeat: false, telemetry }
}

#[test]
fn every_row_is_confirmed_and_shown() {
    // The last is one that no node of ours sends: it would come for ever if it were not confirmed.
    told(vec![upload(4, 1), upload(7, 2), upload(8, 2), upload(9, 0)], |confirmed, state| {
        assert_eq!(confirmed, [4, 7, 8, 9]);
        let view = &state["nodes"]["edge-1"];
        assert_eq!(
            (&view["received"], &view["repeats"], &view["refused"]),
            (&2.into(), &1.into(), &1.into())
        );
    });
}

#[test]
fn each_upload_has_one_line_in_the_log_whatever_is_in_it() {
    let log = Log::default();
    let lines = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_env_filter(format!("info,{UPLOAD_LOG}=debug"))
        .with_writer(move || lines.clone())
        .finish();
    let mut nasty = upload(2, 2);
    nasty.telemetry.topic = "a\ncloud_router::upload: client=\"x".to_owned();
    nasty.telemetry.payload = [b"\n\"\xff".as_slice(), &[b'z'; 100]].concat().into();
    nasty.repeat = true;
    tracing::subscriber::with_default(subscriber, || {
        told(vec![upload(1, 1), nasty], |confirmed, _| assert_eq!(confirmed, [1, 2]));
    });
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once(" upload arrived "))
        .map(|(_, fields)| fields)
        .collect();
    let boot = "01".repeat(16);
    let first = format!(
        "node=edge-1 client=\"c\" topic=\"a/user/b\" boot={boot} sequence=1 repeat=false dup=false bytes=4 payload=\"21.5\""
    );
    let second = format!(
        "node=edge-1 client=\"c\" topic=\"a\\ncloud_router::upload: client=\\\"x\" boot={boot} sequence=2 repeat=true \
         dup=false bytes=103 payload=\"\\n\\\"\\xff{}\"",
        "z".repeat(61)
    );
    assert_eq!(lines, [first, second]);
    assert_eq!(text.lines().count(), 2, "{text}");
}

/// A message of 4096 uploads of a kind that no release knows, as it comes over the wire: 7 KB when it is deflated.
fn unknown(reply: Reply<Vec<i64>>) -> RouterUp {
    let protocol =
        Protocol::new(Versions::OURS.newest_common(Versions::OURS).unwrap(), [].into_iter().collect());
    let none = RouterUp::Telemetry { uploads: Vec::new().into(), reply: Reply::channel().0 };
    let mut body = none.encode(&protocol).unwrap().body;
    for row in 0..4096_i64 {
        // Row, no flag, kind 99, no bytes.
        body.extend([&row.to_le_bytes()[..], &[0], &[99, 0], &[0; 4]].concat());
    }
    let RouterUp::Telemetry { uploads, .. } =
        RouterUp::decode(&body, Some(ReplyTo::new(|_| ())), &protocol).unwrap()
    else {
        panic!("no telemetry")
    };
    RouterUp::Telemetry { uploads, reply }
}

#[test]
fn a_flood_of_rows_that_nobody_understands_costs_few_lines_and_counts_as_refused() {
    let log = Log::default();
    let lines = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || lines.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        answered(vec![unknown; 16], |confirmed, state| {
            assert_eq!(confirmed.len(), 16 * 4096, "or the node would send them for ever");
            assert_eq!(state["nodes"]["edge-1"]["refused"], 16 * 4096);
        });
    });
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    // The first message, and the 2nd, 4th, 8th and 16th: a line each, whatever is in it.
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.lines().all(|line| line.contains("4096 of unknown kind 99")), "{text}");
}

/// What the router confirms of `uploads` of edge-1, and its state after that.
fn told(uploads: Vec<Upload>, look: impl FnOnce(Vec<i64>, &Value)) {
    answered(vec![|reply| RouterUp::Telemetry { uploads: uploads.into(), reply }], look);
}

/// What the router confirms of messages of edge-1, and its state after that.
fn answered(messages: Vec<impl FnOnce(Reply<Vec<i64>>) -> RouterUp>, look: impl FnOnce(Vec<i64>, &Value)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (hive, router, _sync, _hub) = start();
        let mut confirmed = Vec::new();
        for message in messages {
            let node = NodeName::parse("edge-1").unwrap();
            let up = |reply| RouterMsg::Up { node, message: message(reply) };
            confirmed.extend(router.ask(SOON, up).await.unwrap());
        }
        let report = hive.inspector().report(SOON).await;
        look(confirmed, &report.actors[0].snapshot);
    });
}

/// A router without rules, whom it tells, and a way to it.
fn start() -> (Hive, Address<RouterMsg>, Probe<SyncMsg>, Probe<CloudHubMsg>) {
    let env = Env::seeded(1);
    let mut hive = Hive::new("test", env.clone());
    let mailbox = hive.mailbox(ROUTER_MAILBOX, Capacity::new(8, "a test's choice"));
    let router = hive.grant("tester", &mailbox, Flow::Ask);
    let ((sync, to_sync), (hub, to_hub)) = (Probe::new(&env, 16), Probe::new(&env, 16));
    let (_, to_lease) = Probe::<NodeLeaseMsg>::new(&env, 1);
    // Rules have no effect, and whoever is asked about them never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = kube::Config::new(format!("http://{}", silent.local_addr().unwrap()).parse().unwrap());
    std::mem::forget(silent);
    let limits = nodecalls::Limits { of_node: 1, of_user: 1, all: 1 };
    let dependencies = Dependencies {
        client: kube::Client::try_from(config).unwrap(),
        sync: to_sync,
        hub: to_hub,
        lease: to_lease,
        interruptions: Default::default(),
        calls: nodecalls::NodeCalls::new(limits, env.metrics().clone(), env.clock()),
        enable: false,
        allowed_targets: Vec::new(),
        target_ca_file: Default::default(),
        door: None,
        peers: None,
    };
    hive.supervise(mailbox, Policy::default(), move || CloudRouter::new(dependencies.clone()));
    hive.open().unwrap();
    (hive, router, sync, hub)
}

#[test]
fn where_rules_have_no_effect_nodes_should_hold_none_and_keep_what_they_have_for_them() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (_hive, router, mut sync, _hub) = start();
        let complete = |message| matches!(message, SyncMsg::ListComplete(Source::Router)).then_some(());
        sync.find(SOON, complete).await.unwrap();
        let node = NodeName::parse("edge-1").unwrap();
        router.tell(RouterMsg::NodeUp { node: node.clone(), session: 7 }).await.unwrap();
        let current = |message| match message {
            SyncMsg::Current { source: Source::Router, node, session: 7, unknown } => {
                Some((node, unknown.len()))
            }
            _ => None,
        };
        assert_eq!(sync.find(SOON, current).await, Some((node.clone(), 0)));
        let uploads = |reply| RouterUp::RuleUploads { uploads: vec![upload(3, 1)].into(), reply };
        let from_node = |reply| RouterMsg::Up { node: node.clone(), message: uploads(reply) };
        let answer = router.ask(SOON, from_node).await;
        assert!(matches!(answer, Err(beehive::AskError::Rejected(_))), "{answer:?}");
    });
}
