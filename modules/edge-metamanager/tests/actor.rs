//! MetaManager between a real store and probes for its neighbours.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use beehive::testing::Probe;
use beehive::{Address, Capacity, Env, Flow, Hive, Policy};
use bytes::Bytes;
use contract::devicecontroller::DeviceUp;
use contract::devicetwin::TwinMsg;
use contract::edgecontroller::EdgeUp;
use contract::edged::EdgedMsg;
use contract::metamanager::{MetaDown, MetaMsg};
use contract::{Change, Held, Object, ObjectKey, UpReport, wire};
use edge_metamanager::MetaManager;
use edge_store::{Class, Options, Store, Write};

const SOON: Duration = Duration::from_secs(10);

struct Node {
    _hive: Hive,
    store: Store,
    meta: Address<MetaMsg>,
    edged: Probe<EdgedMsg>,
    _twin: Probe<TwinMsg>,
    edge_up: Probe<EdgeUp>,
    edge: Address<EdgeUp>,
    _device_up: Probe<DeviceUp>,
    device: Address<DeviceUp>,
    _folder: tempfile::TempDir,
}

fn run<F: Future>(test: impl FnOnce(Node) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async { test(node()).await });
}

fn node() -> Node {
    let env = Env::seeded(1);
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("edgecore.db"), Options::new([1; 16])).unwrap();
    let (edged, edged_address) = Probe::new(&env, 8);
    let (twin, twin_address) = Probe::new(&env, 8);
    let (edge_up, edge) = Probe::new(&env, 8);
    let (device_up, device) = Probe::new(&env, 8);
    let (_, hub_address) = Probe::new(&env, 8);
    let mut hive = Hive::new("test", env);
    let mailbox = hive.mailbox::<MetaMsg>("edge-metamanager", Capacity::new(8, "a test's choice"));
    let meta = hive.grant("tester", &mailbox, Flow::Ask);
    let (kept, e, t) = (store.clone(), edged_address, twin_address);
    hive.supervise(mailbox, Policy::default(), move || {
        MetaManager::new(kept.clone(), e.clone(), t.clone(), hub_address.clone())
    });
    hive.open().unwrap();
    Node {
        _hive: hive,
        store,
        meta,
        edged,
        _twin: twin,
        edge_up,
        edge,
        _device_up: device_up,
        device,
        _folder: folder,
    }
}

fn pod(name: &str, version: &str) -> Object {
    Object {
        key: ObjectKey::new("pods", "d", name),
        uid: format!("uid-{name}"),
        version: version.to_owned(),
        json: Bytes::from_static(b"{}"),
    }
}

#[test]
fn a_batch_is_acknowledged_after_its_commit_and_edged_is_told_to_look() {
    run(|node| async move {
        // The whole of it: a hive that is dropped stops.
        let mut node = node;
        let changes = vec![Change::Upsert(pod("a", "1")), Change::Upsert(pod("b", "1"))];
        let answer =
            node.meta.ask(SOON, |reply| MetaMsg::Down(MetaDown::Apply { changes, reply })).await.unwrap();
        assert_eq!(answer, Ok(()));
        assert_eq!(node.store.object_heads().unwrap().len(), 2);
        assert!(matches!(node.edged.next(SOON).await, Some(EdgedMsg::Look)));
        let changes = vec![Change::Delete { key: ObjectKey::new("pods", "d", "a"), uid: None }];
        let answer = node.meta.ask(SOON, |reply| MetaMsg::Down(MetaDown::Apply { changes, reply })).await;
        assert_eq!(answer, Ok(Ok(())));
        let held = node.meta.ask(SOON, |reply| MetaMsg::Down(MetaDown::Holdings { reply })).await.unwrap();
        let b = pod("b", "1");
        assert_eq!(held, [Held { key: b.key, uid: b.uid, version: b.version }]);
    });
}

#[test]
fn a_report_stays_until_the_cloud_has_confirmed_it() {
    run(|node| async move {
        // The whole of it: a hive that is dropped stops.
        let mut node = node;
        let report = UpReport::PodGone { namespace: "d".into(), name: "a".into(), uid: "u".into() };
        let body = wire::encode_report(&report).unwrap();
        let key = report.newest_key().unwrap();
        node.store.commit(vec![Write::Enqueue { class: Class::Status, key, body }]).await.unwrap();
        let up = || MetaMsg::LinkUp { edge: node.edge.clone(), device: node.device.clone() };

        node.meta.tell(up()).await.unwrap();
        let Some(EdgeUp::Reports { reports, reply }) = node.edge_up.next(SOON).await else { panic!() };
        assert_eq!(reports[0].1, report);
        // The cloud could not write it: nothing confirmed.
        reply.send(Vec::new());
        let Some(EdgeUp::Reports { reports, reply }) = node.edge_up.next(SOON).await else { panic!() };
        assert_eq!(node.store.outbox_head(10, 1 << 20).unwrap().len(), 1);

        // The link breaks before the answer: it is sent again over the next one.
        node.meta.tell(MetaMsg::LinkDown).await.unwrap();
        drop(reply);
        node.meta.tell(up()).await.unwrap();
        let Some(EdgeUp::Reports { reports: again, reply }) = node.edge_up.next(SOON).await else { panic!() };
        assert_eq!(again, reports);
        reply.send(vec![again[0].0]);
        tokio::time::timeout(SOON, async {
            while !node.store.outbox_head(10, 1 << 20).unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("a confirmed report leaves the outbox");
    });
}

#[test]
fn a_node_that_comes_back_is_alive_at_once() {
    run(|node| async move {
        let mut node = node;
        node.meta.tell(MetaMsg::EdgedAlive).await.unwrap();
        node.meta
            .tell(MetaMsg::LinkUp { edge: node.edge.clone(), device: node.device.clone() })
            .await
            .unwrap();
        assert!(matches!(node.edge_up.next(SOON).await, Some(EdgeUp::Alive)));
    });
}
