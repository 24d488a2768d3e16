//! MetaManager between a real store and probes for its neighbours.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use beehive::link::Capabilities;
use beehive::testing::Probe;
use beehive::{Address, Capacity, Env, Flow, Hive, Policy};
use bytes::Bytes;
use contract::devicecontroller::DeviceUp;
use contract::devicetwin::TwinMsg;
use contract::downlink::MetaDown;
use contract::edgecontroller::EdgeUp;
use contract::edged::EdgedMsg;
use contract::ids::DEVICES;
use contract::metamanager::MetaMsg;
use contract::node_task::TaskProgress;
use contract::parsed::ParsedReport;
use contract::router::RouterUp;
use contract::uplink::TaskUp;
use contract::{Change, ChangedObjects, Object, ObjectKey, Telemetry, UpReport, capability, rows};
use edge_metamanager::MetaManager;
use edge_store::{Class, Options, OutboxQueue, Store, Write};

const SOON: Duration = Duration::from_secs(10);

fn everything() -> Capabilities {
    let of = [
        capability::OF_EDGE_CONTROLLER,
        capability::OF_DEVICE_CONTROLLER,
        capability::OF_ROUTER,
        capability::OF_TASK_MANAGER,
    ];
    of.into_iter().flatten().copied().collect()
}

struct Node {
    hive: Hive,
    store: Store,
    meta: Address<MetaMsg>,
    edged: Probe<EdgedMsg>,
    twin: Probe<TwinMsg>,
    edge_up: Probe<EdgeUp>,
    edge: Address<EdgeUp>,
    device_up: Probe<DeviceUp>,
    device: Address<DeviceUp>,
    router_up: Probe<RouterUp>,
    router: Address<RouterUp>,
    task_up: Probe<TaskUp>,
    tasks: Address<TaskUp>,
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
    let (router_up, router) = Probe::new(&env, 8);
    let (task_up, tasks) = Probe::new(&env, 8);
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
        hive,
        store,
        meta,
        edged,
        twin,
        edge_up,
        edge,
        device_up,
        device,
        router_up,
        router,
        task_up,
        tasks,
        _folder: folder,
    }
}

impl Node {
    fn up(&self) -> MetaMsg {
        let (edge, device, router) = (self.edge.clone(), self.device.clone(), self.router.clone());
        let tasks = self.tasks.clone();
        MetaMsg::LinkUp { edge, device, router, tasks, peer: everything() }
    }

    async fn report(&self, report: UpReport) {
        let body = rows::encode_report(&report).unwrap();
        let write = Write::Enqueue {
            queue: report.queue(),
            class: Class::Status,
            key: report.newest_key().unwrap(),
            body,
        };
        self.store.commit(vec![write]).await.unwrap();
    }

    async fn upload(&self, sequence: u64) {
        let telemetry = Telemetry {
            client: "c".into(),
            topic: "a/user/b".into(),
            boot: [1; 16],
            sequence,
            dup: false,
            qos: 1,
            payload: Bytes::from_static(b"x"),
        };
        let body = rows::encode_telemetry(&telemetry).unwrap();
        let write = Write::Enqueue {
            queue: OutboxQueue::Telemetry,
            class: Class::Telemetry,
            key: "a/user/b".into(),
            body,
        };
        self.store.commit(vec![write]).await.unwrap();
    }
}

fn pod(name: &str, version: &str) -> Object {
    Object {
        key: ObjectKey::new("pods", "d", name),
        uid: format!("uid-{name}"),
        content_hash: version.to_owned(),
        resource_version: "7".to_owned(),
        json: Bytes::from_static(b"{}"),
    }
}

#[test]
fn a_batch_is_acknowledged_after_its_commit_and_edged_is_told_its_keys() {
    run(|node| async move {
        // The whole of it: a hive that is dropped stops.
        let mut node = node;
        let changes = vec![Change::Upsert(pod("a", "1")), Change::Upsert(pod("b", "1"))];
        let inventory =
            node.meta.ask(SOON, |reply| MetaMsg::Down(MetaDown::Inventory { reply })).await.unwrap().number;
        let apply = |sequence, changes| {
            node.meta.ask(SOON, move |reply| {
                MetaMsg::Down(MetaDown::Apply { inventory, sequence, changes, reply })
            })
        };
        assert_eq!(apply(1, changes).await, Ok(Ok(())));
        assert_eq!(node.store.object_versions().unwrap().len(), 2);
        // Nobody knows what an earlier incarnation has not told any more.
        assert!(matches!(node.edged.next(SOON).await, Some(EdgedMsg::ObjectsChanged(ChangedObjects::Any))));
        let Some(EdgedMsg::ObjectsChanged(told)) = node.edged.next(SOON).await else { panic!() };
        assert_eq!(told, ChangedObjects::of([pod("a", "1").key, pod("b", "1").key]));
        let changes = vec![Change::Delete { key: ObjectKey::new("pods", "d", "a"), uid: None }];
        assert_eq!(apply(2, changes).await, Ok(Ok(())));
        let heads = node.store.object_versions().unwrap();
        assert_eq!(heads.iter().map(|version| version.key.name.as_str()).collect::<Vec<_>>(), ["b"]);
    });
}

#[test]
fn a_report_stays_until_the_cloud_has_confirmed_it() {
    run(|node| async move {
        // The whole of it: a hive that is dropped stops.
        let mut node = node;
        // It has begun before there is anything: what was there before may have been sent.
        node.meta.ask(SOON, |reply| MetaMsg::Down(MetaDown::Inventory { reply })).await.unwrap();
        let report = UpReport::PodGone { namespace: "d".into(), name: "a".into(), uid: "u".into() };
        let body = rows::encode_report(&report).unwrap();
        let key = report.newest_key().unwrap();
        node.store
            .commit(vec![Write::Enqueue { queue: report.queue(), class: Class::Status, key, body }])
            .await
            .unwrap();
        node.meta.tell(node.up()).await.unwrap();
        let Some(EdgeUp::Reports { reports, reply }) = node.edge_up.next(SOON).await else { panic!() };
        let reports = reports.open().unwrap().items;
        assert_eq!((&reports[0].report, reports[0].repeat), (&report.clone().into(), false));
        // The cloud could not write it: nothing confirmed.
        reply.send(Vec::new());
        let Some(EdgeUp::Reports { reports, reply }) = node.edge_up.next(SOON).await else { panic!() };
        let reports = reports.open().unwrap().items;
        assert_eq!((&reports[0].report, reports[0].repeat), (&report.clone().into(), true));
        assert_eq!(node.store.outbox_head(10, 1 << 20).unwrap().len(), 1);

        // The link breaks before the answer: it is sent again over the next one.
        node.meta.tell(MetaMsg::LinkDown).await.unwrap();
        drop(reply);
        node.meta.tell(node.up()).await.unwrap();
        let Some(EdgeUp::Reports { reports: again, reply }) = node.edge_up.next(SOON).await else { panic!() };
        let again = again.open().unwrap().items;
        assert_eq!((&again[0].report, again[0].repeat), (&report.clone().into(), true));
        reply.send(vec![again[0].row]);
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
fn neither_devices_nor_telemetry_hold_up_the_status_of_a_pod() {
    run(|node| async move {
        let mut node = node;
        // More than one delivery of each, before the pod's.
        for sequence in 1..=100 {
            node.upload(sequence).await;
            node.report(UpReport::DeviceState {
                namespace: "d".into(),
                name: format!("sensor-{sequence}"),
                state: "online".into(),
                last_online_time: None,
            })
            .await;
        }
        node.report(UpReport::PodGone { namespace: "d".into(), name: "a".into(), uid: "u".into() }).await;
        node.report(UpReport::NodeTask(TaskProgress {
            kind: "ImagePrePullJob".into(),
            job: "warm-up".into(),
            uid: "u".into(),
            phase: "InProgress".into(),
            reason: String::new(),
            actions: Vec::new(),
            images: Vec::new(),
            from_version: String::new(),
            to_version: String::new(),
        }))
        .await;
        node.meta.tell(node.up()).await.unwrap();
        // Neither the router nor the device controller answers.
        let Some(RouterUp::Telemetry { uploads, reply: _kept }) = node.router_up.next(SOON).await else {
            panic!()
        };
        let Some(DeviceUp::Reports { reports, reply: _kept_too }) = node.device_up.next(SOON).await else {
            panic!()
        };
        assert_eq!((uploads.open().unwrap().items.len(), reports.open().unwrap().items.len()), (64, 64));
        let Some(EdgeUp::Reports { reports, .. }) = node.edge_up.next(SOON).await else { panic!() };
        let reports = reports.open().unwrap().items;
        assert_eq!(reports.len(), 1);
        let Some(TaskUp::Reports { reports, .. }) = node.task_up.next(SOON).await else { panic!() };
        assert_eq!(reports.open().unwrap().items.len(), 1);
    });
}

#[test]
fn devices_that_report_again_before_their_queue_is_through_have_their_turn() {
    run(|node| async move {
        let mut node = node;
        const DEVICES: usize = 150;
        let say = async |node: &Node, number: usize| {
            node.report(UpReport::DeviceState {
                namespace: "d".into(),
                name: format!("sensor-{number:03}"),
                state: "online".into(),
                last_online_time: None,
            })
            .await;
        };
        for number in 0..DEVICES {
            say(&node, number).await;
        }
        node.meta.tell(node.up()).await.unwrap();
        let mut heard = std::collections::BTreeSet::new();
        // Three deliveries have room for all of them. Whichever would be at the head next speaks once more, and is last then.
        for _ in 0..3 {
            let Some(DeviceUp::Reports { reports, reply }) = node.device_up.next(SOON).await else {
                panic!()
            };
            let reports = reports.open().unwrap().items;
            let rows: Vec<i64> = reports.iter().map(|report| report.row).collect();
            for report in reports {
                let Ok(ParsedReport::OfDevice(device, _)) = report.report.parse() else { panic!() };
                heard.insert(device.name.to_string());
            }
            for number in (0..DEVICES).rev() {
                say(&node, number).await;
            }
            reply.send(rows);
        }
        assert_eq!(heard.len(), DEVICES);
    });
}

#[test]
fn the_node_is_reported_over_every_new_link() {
    run(|node| async move {
        let mut node = node;
        for _ in 0..2 {
            node.meta.tell(node.up()).await.unwrap();
            while !matches!(node.edged.next(SOON).await.unwrap(), EdgedMsg::ReportNode) {}
            node.meta.tell(MetaMsg::LinkDown).await.unwrap();
        }
    });
}

#[test]
fn a_node_that_comes_back_is_alive_at_once() {
    run(|node| async move {
        let mut node = node;
        node.meta.tell(MetaMsg::EdgedAlive).await.unwrap();
        node.meta.tell(node.up()).await.unwrap();
        assert!(matches!(node.edge_up.next(SOON).await, Some(EdgeUp::Alive)));
    });
}

#[test]
fn telemetry_stays_until_the_router_has_confirmed_it_and_what_may_have_been_sent_is_marked() {
    run(|node| async move {
        let mut node = node;
        // It has begun before there is anything.
        node.meta.ask(SOON, |reply| MetaMsg::Down(MetaDown::Inventory { reply })).await.unwrap();
        for sequence in 1..=2 {
            node.upload(sequence).await;
        }
        node.meta.tell(node.up()).await.unwrap();
        let got = async |node: &mut Node| {
            let Some(RouterUp::Telemetry { uploads, reply }) = node.router_up.next(SOON).await else {
                panic!()
            };
            let uploads = uploads.open().unwrap().items;
            let seen: Vec<(u64, bool)> = uploads.iter().map(|u| (u.telemetry.sequence, u.repeat)).collect();
            (seen, uploads.iter().map(|u| u.row).collect::<Vec<_>>(), reply)
        };
        let (seen, rows, reply) = got(&mut node).await;
        assert_eq!(seen, [(1, false), (2, false)]);
        node.upload(3).await;
        // Half of it is confirmed, so the other half comes again, marked, before what is new.
        reply.send(rows[..1].to_vec());
        let (seen, _, reply) = got(&mut node).await;
        assert_eq!(seen, [(2, true), (3, false)]);
        node.meta.tell(MetaMsg::LinkDown).await.unwrap();
        drop(reply);
        node.meta.tell(node.up()).await.unwrap();
        let (seen, rows, reply) = got(&mut node).await;
        assert_eq!(seen, [(2, true), (3, true)]);
        reply.send(rows);
        tokio::time::timeout(SOON, async {
            while !node.store.outbox_head(10, 1 << 20).unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("confirmed telemetry leaves the outbox");
    });
}

#[test]
fn what_a_full_mailbox_did_not_take_is_told_with_what_changed_since() {
    run(|node| async move {
        let mut node = node;
        let device = |name: &str| Object { key: ObjectKey::new(DEVICES, "d", name), ..pod(name, "1") };
        let inventory =
            node.meta.ask(SOON, |reply| MetaMsg::Down(MetaDown::Inventory { reply })).await.unwrap().number;
        // "Any" of the beginning and seven more fill the probe's mailbox; the others find no room.
        for sequence in 1..=10 {
            let changes = vec![Change::Upsert(device(&format!("s{sequence}")))];
            let apply = |reply| MetaMsg::Down(MetaDown::Apply { inventory, sequence, changes, reply });
            assert_eq!(node.meta.ask(SOON, apply).await, Ok(Ok(())));
        }
        let next = async |node: &mut Node| match node.twin.next(SOON).await {
            Some(TwinMsg::ObjectsChanged(changed)) => changed,
            other => panic!("{other:?}"),
        };
        assert_eq!(next(&mut node).await, ChangedObjects::Any);
        for sequence in 1..=7 {
            assert_eq!(next(&mut node).await, ChangedObjects::of([device(&format!("s{sequence}")).key]));
        }
        // Any nudge will do.
        node.meta.tell(MetaMsg::OutboxGrew).await.unwrap();
        assert_eq!(
            next(&mut node).await,
            ChangedObjects::of([8, 9, 10].map(|n| device(&format!("s{n}")).key))
        );
        assert!(matches!(node.edged.next(SOON).await, Some(EdgedMsg::ObjectsChanged(ChangedObjects::Any))));
    });
}

#[test]
fn a_report_of_a_newer_release_stays_and_holds_up_nothing() {
    run(|node| async move {
        let mut node = node;
        let gone = |uid: String| UpReport::PodGone { namespace: "d".into(), name: "a".into(), uid };
        // More of them than a delivery has rows.
        let strange = |n: usize| {
            let mut body = rows::encode_report(&gone(n.to_string())).unwrap();
            body[2] = 0x7f;
            Write::Enqueue { queue: OutboxQueue::Node, class: Class::Event, key: format!("k{n}"), body }
        };
        node.store.commit((0..100).map(strange).collect()).await.unwrap();
        node.report(gone("u".to_owned())).await;
        node.meta.tell(node.up()).await.unwrap();
        let Some(EdgeUp::Reports { reports, reply }) = node.edge_up.next(SOON).await else { panic!() };
        let reports = reports.open().unwrap().items;
        assert_eq!(reports.len(), 1);
        reply.send(vec![reports[0].row]);
        tokio::time::timeout(SOON, async {
            while node.store.outbox_head(1000, 1 << 20).unwrap().len() > 100 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the known report leaves");
        assert_eq!(node.hive.env().metrics().count_of("metamanager_report_kept"), 100);
        assert_eq!(node.hive.env().metrics().count_of("metamanager_reports_broken"), 0);
    });
}
