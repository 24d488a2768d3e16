//! Ends of different releases over one link: what the older one does not understand is not sent, or is named and skipped, and
//! all else arrives.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod next;

use std::time::Duration;

use beehive::link::memory::{NetworkPath, pair};
use beehive::link::wire::{DecodeError, EncodeError, Outgoing, ReplyTo, Wire};
use beehive::link::{Hello, IncomingLink, Link, PeerName, Protocol, Routes, Versions, events};
use beehive::testing::Probe;
use beehive::{AskError, Env, Message, Refusal, Reply};
use bytes::Bytes;
use contract::downlink::MetaDown;
use contract::uplink::{EdgeUp, RouterUp};
use contract::{
    Change, Object, ObjectKey, Report, SkipReason, SkippedRow, Telemetry, TokenGrant, TokenQuery, Unparsed,
    UpReport, Upload, capability,
};
use next::{NextEdgeUp, NextMetaDown};

const LONG: Duration = Duration::from_secs(5);

fn run(test: impl AsyncFnOnce(Env)) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async { test(Env::seeded(1)).await });
}

/// Both ends of a link, and what arrives at each.
struct Ends<Down: Message, Up: Message> {
    edge: Link,
    cloud: Link,
    down: Probe<Down>,
    up: Probe<Up>,
    telemetry: Probe<RouterUp>,
}

/// A link between an edge that speaks `edge` and hears `Down`, and a cloud that speaks `cloud` and hears `Up`.
async fn ends<Down: Wire, Up: Wire>(env: &Env, edge: Versions, cloud: Versions) -> Ends<Down, Up> {
    let (edge_end, cloud_end) =
        pair(&NetworkPath::new(), PeerName::verified("edge-1", "01"), PeerName::verified("cloud", "02"));
    let (down, to_meta) = Probe::<Down>::new(env, 4);
    let (up, to_edge) = Probe::<Up>::new(env, 4);
    let (telemetry, to_router) = Probe::<RouterUp>::new(env, 4);
    let greeting = Hello { versions: edge, name: "edge-1".to_owned() };
    let meta = Routes::new().accept(to_meta, |message: Down, _: &PeerName| message);
    let greet = Link::connect(env, Box::new(edge_end), &greeting, meta);
    let controllers = Routes::new()
        .accept(to_edge, |message: Up, _: &PeerName| message)
        .accept(to_router, |message: RouterUp, _: &PeerName| message);
    let meet = async {
        IncomingLink::read_hello_as(env, Box::new(cloud_end), cloud).await?.admit(controllers).await
    };
    let (edge, cloud) = futures::join!(greet, meet);
    Ends { edge: edge.unwrap(), cloud: cloud.unwrap(), down, up, telemetry }
}

fn gone(row: i64) -> Report {
    let report =
        UpReport::PodGone { namespace: "d".to_owned(), name: "p".to_owned(), uid: format!("u{row}") };
    Report { row, repeat: true, report: report.into() }
}

fn query() -> Unparsed<TokenQuery> {
    TokenQuery {
        namespace: "d".to_owned(),
        service_account: "a".to_owned(),
        audiences: vec![],
        expiration_seconds: 600,
        pod_name: "p".to_owned(),
        pod_uid: "u".to_owned(),
    }
    .into()
}

fn grant() -> Result<TokenGrant, String> {
    Ok(TokenGrant { token: "t".to_owned(), expires_unix: 1, lifetime_seconds: 2 })
}

fn upload() -> Upload {
    let telemetry = Telemetry {
        client: "c".to_owned(),
        topic: "t".to_owned(),
        boot: [1; 16],
        sequence: 1,
        dup: false,
        qos: 1,
        payload: Bytes::from_static(b"21.5"),
    };
    Upload { row: 8, repeat: true, telemetry }
}

fn upsert() -> Change {
    Change::Upsert(Object {
        key: ObjectKey::new("pods", "d", "p"),
        uid: "u".to_owned(),
        content_hash: "9".to_owned(),
        resource_version: "41".to_owned(),
        json: Bytes::from_static(b"{\"kind\":\"Pod\"}"),
    })
}

fn spoken<Down: Message, Up: Message>(ends: &Ends<Down, Up>) -> [u8; 2] {
    [ends.edge.version().number(), ends.cloud.version().number()]
}

/// Telemetry passes as ever.
async fn telemetry_passes<Down: Message, Up: Message>(ends: &mut Ends<Down, Up>) {
    let to_router = ends.edge.remote::<RouterUp>();
    let confirmed =
        to_router.ask(LONG, |reply| RouterUp::Telemetry { uploads: vec![upload()].into(), reply });
    let answer = async {
        let RouterUp::Telemetry { uploads, reply } = ends.telemetry.next(LONG).await.unwrap() else {
            panic!()
        };
        reply.send(vec![8]);
        uploads.open().unwrap().items
    };
    let (confirmed, uploads) = futures::join!(confirmed, answer);
    assert_eq!((confirmed, uploads), (Ok(vec![8]), vec![upload()]));
}

#[test]
fn a_node_of_the_next_release_and_a_cloud_of_this_one_speak_version_one() {
    run(async |env| {
        let mut ends = ends::<NextMetaDown, EdgeUp>(&env, next::VERSIONS, Versions::OURS).await;
        // The router's messages are of this release at both ends.
        assert_eq!(spoken(&ends), [1, 1]);
        let to_edge = ends.edge.remote::<NextEdgeUp>();
        assert!(!ends.edge.capabilities().has("images"));
        let images = to_edge.ask(LONG, |reply| NextEdgeUp::Images { images: 3, reply }).await;
        assert_eq!(images, Err(AskError::Refused(Refusal::Unsupported)));

        // The field that version 1 does not have is left out, and the question is answered.
        let token = to_edge.ask(LONG, |reply| NextEdgeUp::Token { query: query(), boot: Some(7), reply });
        let answer = async {
            let Some(EdgeUp::Token { query, reply }) = ends.up.next(LONG).await else { panic!() };
            reply.send(grant());
            query
        };
        assert_eq!(futures::join!(token, answer), (Ok(grant()), query()));

        let to_meta = ends.cloud.remote::<MetaDown>();
        let apply = |reply| MetaDown::Apply { inventory: 1, sequence: 1, changes: vec![upsert()], reply };
        let answer = async {
            let Some(NextMetaDown::Known(MetaDown::Apply { changes, reply, .. })) =
                ends.down.next(LONG).await
            else {
                panic!()
            };
            reply.send(Ok(()));
            changes
        };
        assert_eq!(futures::join!(to_meta.ask(LONG, apply), answer), (Ok(Ok(())), vec![upsert()]));
        telemetry_passes(&mut ends).await;
    });
}

#[test]
fn a_node_of_this_release_and_a_cloud_of_the_next_one_speak_version_one() {
    run(async |env| {
        let mut ends = ends::<MetaDown, NextEdgeUp>(&env, Versions::OURS, next::VERSIONS).await;
        assert_eq!(spoken(&ends), [1, 1]);
        assert!(ends.edge.capabilities().has("images"));
        let to_edge = ends.edge.remote::<EdgeUp>();
        let token = to_edge.ask(LONG, |reply| EdgeUp::Token { query: query(), reply });
        let answer = async {
            let Some(NextEdgeUp::Token { query, boot, reply }) = ends.up.next(LONG).await else { panic!() };
            reply.send(grant());
            (query, boot)
        };
        assert_eq!(futures::join!(token, answer), (Ok(grant()), (query(), None)));
        let confirmed = to_edge.ask(LONG, |reply| EdgeUp::Reports { reports: vec![gone(7)].into(), reply });
        let answer = async {
            let Some(NextEdgeUp::Known(EdgeUp::Reports { reports, reply })) = ends.up.next(LONG).await else {
                panic!()
            };
            reply.send(vec![7]);
            reports.open().unwrap().items
        };
        assert_eq!(futures::join!(confirmed, answer), (Ok(vec![7]), vec![gone(7)]));

        // A message that the node does not know is named, and the next one is taken.
        let to_meta = ends.cloud.remote::<NextMetaDown>();
        let unknown = "message of the unknown kind 4 to `edge-metamanager`".to_owned();
        assert_eq!(to_meta.ask(LONG, NextMetaDown::Drain).await, Err(AskError::Rejected(unknown)));
        assert_eq!(env.metrics().count_of(events::MESSAGE_UNKNOWN), 1);
        let apply = |reply| {
            NextMetaDown::Known(MetaDown::Apply { inventory: 1, sequence: 1, changes: vec![upsert()], reply })
        };
        let answer = async {
            let Some(MetaDown::Apply { changes, reply, .. }) = ends.down.next(LONG).await else { panic!() };
            reply.send(Ok(()));
            changes
        };
        assert_eq!(futures::join!(to_meta.ask(LONG, apply), answer), (Ok(Ok(())), vec![upsert()]));
    });
}

#[test]
fn ends_of_the_next_release_speak_version_two() {
    run(async |env| {
        let mut ends = ends::<NextMetaDown, NextEdgeUp>(&env, next::VERSIONS, next::VERSIONS).await;
        assert_eq!(spoken(&ends), [2, 2]);
        let to_edge = ends.edge.remote::<NextEdgeUp>();
        let token = to_edge.ask(LONG, |reply| NextEdgeUp::Token { query: query(), boot: Some(7), reply });
        let answer = async {
            let Some(NextEdgeUp::Token { query, boot, reply }) = ends.up.next(LONG).await else { panic!() };
            reply.send(grant());
            (query, boot)
        };
        assert_eq!(futures::join!(token, answer), (Ok(grant()), (query(), Some(7))));
        let images = to_edge.ask(LONG, |reply| NextEdgeUp::Images { images: 3, reply });
        let answer = async {
            let Some(NextEdgeUp::Images { images, reply }) = ends.up.next(LONG).await else { panic!() };
            reply.send(images + 1);
        };
        assert_eq!(futures::join!(images, answer), (Ok(4), ()));
        let to_meta = ends.cloud.remote::<NextMetaDown>();
        let answer = async {
            let Some(NextMetaDown::Drain(reply)) = ends.down.next(LONG).await else { panic!() };
            reply.send(1);
        };
        assert_eq!(futures::join!(to_meta.ask(LONG, NextMetaDown::Drain), answer), (Ok(1), ()));
    });
}

/// A version that was agreed on and that this release's messages are not written in never goes out, nor is it read.
#[test]
fn messages_of_this_release_are_of_no_other_version() {
    run(async |env| {
        let ends = ends::<MetaDown, EdgeUp>(&env, next::VERSIONS, next::VERSIONS).await;
        assert_eq!(ends.edge.remote::<EdgeUp>().tell(EdgeUp::Alive).await, Err(Refusal::Unsupported));
    });
}

/// Reports whose last one is of a kind that nobody knows yet, in front of another that is known.
#[derive(Debug)]
struct UnknownReport(Reply<Vec<i64>>);

impl Message for UnknownReport {
    fn name(&self) -> &'static str {
        "Reports"
    }
}

impl Wire for UnknownReport {
    const MAILBOX: &'static str = contract::wire::EDGE_MAILBOX;

    fn encode(self, protocol: &Protocol) -> Result<Outgoing, EncodeError> {
        let known = |row, reply| {
            EdgeUp::Reports { reports: vec![gone(row)].into(), reply }
                .encode(&Protocol::new(protocol.version, [].into_iter().collect()))
        };
        let Outgoing { mut body, reply } = known(7, self.0)?;
        // Row 8, no flag, kind 20, two bytes.
        body.extend([&8_i64.to_le_bytes()[..], &[0], &[20, 0], &[2, 0, 0, 0], b"??"].concat());
        body.extend(&known(9, Reply::channel().0)?.body[3..]);
        Ok(Outgoing { body, reply })
    }

    fn decode(_: &[u8], _: Option<ReplyTo>, _: &Protocol) -> Result<Self, DecodeError> {
        Err(DecodeError::new("it only speaks".to_owned()))
    }
}

#[test]
fn a_report_of_an_unknown_kind_is_skipped_with_its_row_and_those_around_it_are_read() {
    run(async |env| {
        let mut ends = ends::<MetaDown, EdgeUp>(&env, next::VERSIONS, Versions::OURS).await;
        let confirmed = ends.edge.remote::<UnknownReport>();
        let answer = async {
            let Some(EdgeUp::Reports { reports, reply }) = ends.up.next(LONG).await else { panic!() };
            reply.send(vec![7, 8, 9]);
            reports.open().unwrap()
        };
        let (confirmed, opened) = futures::join!(confirmed.ask(LONG, UnknownReport), answer);
        assert_eq!(confirmed, Ok(vec![7, 8, 9]));
        assert_eq!(opened.items, [gone(7), gone(9)]);
        assert_eq!(opened.skipped, [SkippedRow { row: 8, reason: SkipReason::Unknown { kind: 20 } }]);
    });
}

#[test]
fn each_end_names_what_its_open_mailboxes_understand() {
    run(async |env| {
        let ends = ends::<MetaDown, EdgeUp>(&env, Versions::OURS, Versions::OURS).await;
        assert_eq!(ends.cloud.capabilities().names().count(), 0);
        let named = ends.edge.capabilities();
        for known in capability::OF_EDGE_CONTROLLER.iter().chain(capability::OF_ROUTER) {
            assert!(named.has(known), "{known}");
        }
        // No device controller was opened.
        assert!(!named.has(capability::REPORT_TWIN));
        assert!(capability::OF_DEVICE_CONTROLLER.contains(&capability::REPORT_TWIN));
    });
}
