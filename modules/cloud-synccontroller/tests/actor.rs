//! SyncController between probes: one stands in for a node's MetaManager, the others for CloudCore's other actors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use beehive::testing::{PanicPoint, Probe, plan_panic};
use beehive::{Address, Capacity, Env, Flow, Hive, Policy};
use bytes::Bytes;
use cloud_synccontroller::{Addresses, SyncController};
use contract::cloudhub::{CloudHubMsg, SessionReader};
use contract::cloudtaskmanager::CloudTaskMsg;
use contract::devicecontroller::DeviceControllerMsg;
use contract::edgecontroller::EdgeControllerMsg;
use contract::metamanager::{Inventory, MetaDown, NotApplied};
use contract::nodelease::NodeLeaseMsg;
use contract::router::RouterMsg;
use contract::synccontroller::{Source, SyncMsg, SyncState, SyncStatus};
use contract::{Change, Digest, NodeName, Object, ObjectKey};

/// The clock is simulated: it moves when everybody waits.
const LONG: Duration = Duration::from_secs(120);

struct Fixture {
    env: Env,
    hive: Hive,
    sync: Address<SyncMsg>,
    meta: Probe<MetaDown>,
    to_meta: Address<MetaDown>,
    lease: Probe<NodeLeaseMsg>,
    hub: Probe<CloudHubMsg>,
    edge: Probe<EdgeControllerMsg>,
    device: Probe<DeviceControllerMsg>,
    router: Probe<RouterMsg>,
    tasks: Probe<CloudTaskMsg>,
}

fn run(test: impl AsyncFnOnce(Fixture)) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async { test(fixture()).await });
}

fn fixture() -> Fixture {
    let env = Env::seeded(7);
    let (meta, to_meta) = Probe::new(&env, 16);
    let (lease, to_lease) = Probe::new(&env, 16);
    let (hub, to_hub) = Probe::new(&env, 16);
    let (edge, to_edge) = Probe::new(&env, 16);
    let (device, to_device) = Probe::new(&env, 16);
    let (router, to_router) = Probe::new(&env, 16);
    let (tasks, to_tasks) = Probe::new(&env, 16);
    let addresses = Addresses {
        lease: to_lease,
        hub: to_hub,
        edge: to_edge,
        device: to_device,
        router: to_router,
        tasks: to_tasks,
    };
    let mut hive = Hive::new("test", env.clone());
    let mailbox = hive.mailbox("cloud-synccontroller", Capacity::new(64, "a test's choice"));
    let sync = hive.grant("tester", &mailbox, Flow::Tell);
    hive.supervise(mailbox, Policy::default(), move || SyncController::new(addresses.clone()));
    hive.open().unwrap();
    Fixture { env, hive, sync, meta, to_meta, lease, hub, edge, device, router, tasks }
}

fn node() -> NodeName {
    NodeName::parse("edge-1").unwrap()
}

impl Fixture {
    async fn tell(&self, message: SyncMsg) {
        self.sync.tell(message).await.unwrap();
    }

    async fn upsert(&self, name: &str) {
        let object = Object {
            key: ObjectKey::new("pods", "default", name),
            uid: format!("uid-{name}"),
            content_hash: "1".to_owned(),
            resource_version: "1".to_owned(),
            json: Bytes::from_static(b"{}"),
        };
        self.tell(SyncMsg::Upsert { node: node(), object: Arc::new(object) }).await;
    }

    async fn ready(&self) {
        for source in Source::ALL {
            self.tell(SyncMsg::ListBegins(source)).await;
            self.tell(SyncMsg::ListComplete(source)).await;
            self.current(source, 1).await;
        }
    }

    async fn current(&self, source: Source, session: u64) {
        self.tell(SyncMsg::Current { source, node: node(), session, unknown: BTreeSet::new() }).await;
    }

    /// Answers the next question with an empty store.
    async fn has_nothing(&mut self, number: u64) {
        let Some(MetaDown::Inventory { reply }) = self.meta.next(LONG).await else { panic!("not asked") };
        reply.send(Inventory { number, digest: Digest::of([], 1) });
    }

    /// Answers the next batch. Gives its inventory, its sequence and the names in it.
    async fn answers(&mut self, answer: Result<(), NotApplied>) -> (u64, u64, Vec<String>) {
        let Some(MetaDown::Apply { inventory, sequence, changes, reply }) = self.meta.next(LONG).await else {
            panic!("nothing sent")
        };
        reply.send(answer);
        (inventory, sequence, changes.iter().map(|change: &Change| change.key().name.clone()).collect())
    }

    async fn shown(&mut self) -> SyncStatus {
        let Some(NodeLeaseMsg::ShowSynced { status, reply, .. }) = self.lease.next(LONG).await else {
            panic!("nothing shown")
        };
        reply.send(true);
        status
    }

    async fn view(&self) -> serde_json::Value {
        let report = self.hive.inspector().report(LONG).await;
        report.actors[0].snapshot["edge-1"].clone()
    }
}

#[test]
fn a_write_that_the_disk_refused_twice_is_seen_within_seconds_and_heals_by_itself() {
    run(async |mut fixture| {
        fixture.ready().await;
        fixture.upsert("a").await;
        fixture.tell(SyncMsg::NodeUp { node: node(), session: 1, meta: fixture.to_meta.clone() }).await;
        fixture.has_nothing(1).await;
        let began = fixture.env.now();
        let full = || Err(NotApplied::Refused("cannot grow: the disk is full".to_owned()));
        assert_eq!(fixture.answers(full()).await, (1, 1, vec!["a".to_owned()]));
        let status = fixture.shown().await;
        assert!(fixture.env.now().since(began) <= Duration::from_secs(2));
        assert_eq!((status.state, status.waiting), (SyncState::Refused, 1));
        assert_eq!(status.refusal.as_deref(), Some("cannot grow: the disk is full"));
        assert_eq!(status.oldest.unwrap().0.to_string(), "pods/default/a");
        let view = fixture.view().await;
        assert_eq!(
            (&view["in_sync"], &view["refusing"], &view["refused"]),
            (&false.into(), &true.into(), &1.into())
        );

        // It is asked what it holds, and the same is tried again.
        fixture.has_nothing(2).await;
        assert_eq!(fixture.answers(full()).await, (2, 1, vec!["a".to_owned()]));
        fixture.has_nothing(3).await;
        assert_eq!(fixture.answers(Ok(())).await, (3, 1, vec!["a".to_owned()]));
        assert!(
            fixture.env.now().since(began) <= Duration::from_secs(6),
            "{:?}",
            fixture.env.now().since(began)
        );
        assert_eq!(fixture.shown().await.state, SyncState::InSync);
        let view = fixture.view().await;
        assert_eq!(
            (&view["in_sync"], &view["refusing"], &view["refused"]),
            (&true.into(), &false.into(), &2.into())
        );
        assert!(view["last_confirmed"].is_i64(), "{view}");
    });
}

#[test]
fn an_answer_that_is_lost_is_not_taken_for_one() {
    run(async |mut fixture| {
        fixture.ready().await;
        fixture.tell(SyncMsg::NodeUp { node: node(), session: 1, meta: fixture.to_meta.clone() }).await;
        // The first question gets no answer.
        let Some(MetaDown::Inventory { reply }) = fixture.meta.next(LONG).await else { panic!("not asked") };
        drop(reply);
        fixture.has_nothing(1).await;
        assert_eq!(fixture.shown().await.state, SyncState::InSync);
        fixture.upsert("a").await;
        let Some(MetaDown::Apply { reply, .. }) = fixture.meta.next(LONG).await else { panic!("not sent") };
        drop(reply);
        // Had it been committed, the digest would say so.
        fixture.has_nothing(2).await;
        assert_eq!(fixture.answers(Ok(())).await, (2, 1, vec!["a".to_owned()]));
    });
}

/// Whatever an earlier incarnation knew is gone.
#[test]
fn a_synccontroller_that_begins_has_everybody_tell_it_everything() {
    run(async |mut fixture| {
        let asked = |message| {
            matches!(message, CloudHubMsg::TellSessions { to: SessionReader::SyncController }).then_some(())
        };
        let of_edge = |message| matches!(message, EdgeControllerMsg::ListAgain).then_some(());
        let of_device = |message| matches!(message, DeviceControllerMsg::ListAgain).then_some(());
        for point in [None, Some(PanicPoint { message: Some("Flush"), nth: 1, awaits: 0 })] {
            if let Some(point) = point {
                let planned = plan_panic(&fixture.hive.inspector(), "cloud-synccontroller", point);
                fixture.tell(SyncMsg::Flush).await;
                fixture.env.sleep(Duration::from_secs(1)).await;
                assert!(planned.has_happened());
            }
            fixture.hub.find(LONG, asked).await.unwrap();
            fixture.edge.find(LONG, of_edge).await.unwrap();
            fixture.device.find(LONG, of_device).await.unwrap();
            let of_router = |message| matches!(message, RouterMsg::ListAgain).then_some(());
            fixture.router.find(LONG, of_router).await.unwrap();
            let of_tasks = |message| matches!(message, CloudTaskMsg::ListAgain).then_some(());
            fixture.tasks.find(LONG, of_tasks).await.unwrap();
        }
        // It knows nothing, and sends nothing before it is told all again.
        fixture.tell(SyncMsg::NodeUp { node: node(), session: 1, meta: fixture.to_meta.clone() }).await;
        fixture.has_nothing(1).await;
        fixture.upsert("a").await;
        assert!(fixture.meta.next(Duration::from_secs(5)).await.is_none());
        fixture.tell(SyncMsg::ListBegins(Source::Edge)).await;
        fixture.upsert("a").await;
        fixture.tell(SyncMsg::ListComplete(Source::Edge)).await;
        fixture.current(Source::Edge, 1).await;
        assert!(fixture.meta.next(Duration::from_secs(5)).await.is_none());
        fixture.current(Source::Device, 1).await;
        assert!(fixture.meta.next(Duration::from_secs(5)).await.is_none());
        fixture.current(Source::Router, 1).await;
        fixture.current(Source::Task, 1).await;
        assert_eq!(fixture.answers(Ok(())).await, (1, 1, vec!["a".to_owned()]));
    });
}
