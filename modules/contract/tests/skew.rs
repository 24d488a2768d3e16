//! Ends of different releases over one link: what the older one cannot say is left out, and all else arrives.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use beehive::Env;
use beehive::link::memory::{Cable, pair};
use beehive::link::{Arrival, Greeting, Link, PeerName, Routes, Versions, WireVersion};
use beehive::testing::Probe;
use bytes::Bytes;
use contract::edgecontroller::EdgeUp;
use contract::metamanager::MetaDown;
use contract::router::RouterUp;
use contract::{Change, Object, ObjectKey, Report, Telemetry, UpReport, Upload};

const LONG: Duration = Duration::from_secs(5);

/// A release that speaks the version 0 alone, and this one.
const OLD: Versions = Versions { oldest: 0, newest: 0 };
const NEW: Versions = Versions::OURS;

struct Cloud {
    up: Probe<EdgeUpSeen>,
    telemetry: Probe<RouterUpSeen>,
}

#[derive(Debug)]
struct EdgeUpSeen(EdgeUp);
#[derive(Debug)]
struct RouterUpSeen(RouterUp);

impl beehive::Message for EdgeUpSeen {
    fn name(&self) -> &'static str {
        self.0.name()
    }
}

impl beehive::Message for RouterUpSeen {
    fn name(&self) -> &'static str {
        self.0.name()
    }
}

/// Both ends of a link between an edge that speaks `edge` and a cloud that speaks `cloud`, and what each hears.
async fn ends(env: &Env, edge: Versions, cloud: Versions) -> (Link, Link, Probe<MetaDown>, Cloud) {
    let (edge_end, cloud_end) =
        pair(&Cable::new(), PeerName::verified("edge-1", "01"), PeerName::verified("cloud", "02"));
    let (down, to_meta) = Probe::<MetaDown>::new(env, 4);
    let (up, to_edge) = Probe::new(env, 4);
    let (telemetry, to_router) = Probe::new(env, 4);
    let greeting = Greeting { versions: edge, name: "edge-1".to_owned() };
    let meta = Routes::new().accept(to_meta, |message: MetaDown, _: &PeerName| message);
    let greet = Link::greet(env, Box::new(edge_end), &greeting, meta);
    let controllers = Routes::new()
        .accept(to_edge, |message: EdgeUp, _: &PeerName| EdgeUpSeen(message))
        .accept(to_router, |message: RouterUp, _: &PeerName| RouterUpSeen(message));
    let meet = async { Arrival::meet_as(env, Box::new(cloud_end), cloud).await?.admit(controllers).await };
    let (edge, cloud) = futures::join!(greet, meet);
    (edge.unwrap(), cloud.unwrap(), down, Cloud { up, telemetry })
}

fn report() -> Report {
    Report { row: 7, repeat: true, report: UpReport::Node { node_json: "{}".to_owned() }.into() }
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

fn object() -> Object {
    Object {
        key: ObjectKey::new("pods", "d", "p"),
        uid: "u".to_owned(),
        version: "9".to_owned(),
        json: Bytes::from_static(b"{\"kind\":\"Pod\"}"),
    }
}

#[test]
fn releases_next_to_each_other_understand_each_other() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let env = Env::seeded(1);
        for (edge, cloud, spoken) in [
            (OLD, NEW, WireVersion::Zero),
            (NEW, OLD, WireVersion::Zero),
            (OLD, OLD, WireVersion::Zero),
            (NEW, NEW, WireVersion::One),
        ] {
            let (edge, cloud, mut down, mut heard) = ends(&env, edge, cloud).await;
            assert_eq!((edge.version(), cloud.version()), (spoken, spoken));

            let (to_edge, to_router) = (edge.remote::<EdgeUp>(), edge.remote::<RouterUp>());
            let confirmed =
                to_edge.ask(LONG, |reply| EdgeUp::Reports { reports: vec![report()].into(), reply });
            let answer = async {
                let EdgeUpSeen(EdgeUp::Reports { reports, reply }) = heard.up.next(LONG).await.unwrap()
                else {
                    panic!()
                };
                reply.send(vec![7]);
                reports.open().unwrap()
            };
            let (confirmed, reports) = futures::join!(confirmed, answer);
            assert_eq!(confirmed, Ok(vec![7]));
            // The mark is what version 0 cannot say.
            assert_eq!(reports, [Report { repeat: spoken == WireVersion::One, ..report() }]);

            let confirmed =
                to_router.ask(LONG, |reply| RouterUp::Telemetry { uploads: vec![upload()].into(), reply });
            let answer = async {
                let RouterUpSeen(RouterUp::Telemetry { uploads, reply }) =
                    heard.telemetry.next(LONG).await.unwrap();
                reply.send(vec![8]);
                uploads.open().unwrap()
            };
            let (confirmed, uploads) = futures::join!(confirmed, answer);
            assert_eq!((confirmed, uploads), (Ok(vec![8]), vec![upload()]));

            let to_meta = cloud.remote::<MetaDown>();
            let changes = vec![Change::Upsert(object())];
            let applied = to_meta.ask(LONG, |reply| MetaDown::Apply { offer: 1, place: 1, changes, reply });
            let answer = async {
                let Some(MetaDown::Apply { changes, reply, .. }) = down.next(LONG).await else { panic!() };
                reply.send(Ok(()));
                changes
            };
            let (applied, changes) = futures::join!(applied, answer);
            assert!(matches!(applied, Ok(Ok(()))));
            assert_eq!(changes, [Change::Upsert(object())]);
        }
    });
}
