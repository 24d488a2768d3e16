//! MetaManager panics at any of its messages, and everything that was accepted arrives.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use beehive::link::Capabilities;
use beehive::testing::Probe;
use beehive::{Actor, Address, Capacity, Context, Env, Fault, Flow, Hive, Message, Policy};
use bytes::Bytes;
use contract::devicecontroller::DeviceUp;
use contract::devicetwin::TwinMsg;
use contract::downlink::MetaDown;
use contract::edgecontroller::EdgeUp;
use contract::edged::EdgedMsg;
use contract::edgehub::EdgeHubMsg;
use contract::metamanager::MetaMsg;
use contract::router::RouterUp;
use contract::uplink::TaskUp;
use contract::{
    Change, ChangedObjects, Object, ObjectKey, TokenGrant, TokenQuery, UpReport, capability, rows,
};
use edge_metamanager::MetaManager;
use edge_store::{Class, Options, Store, Write};

const SOON: Duration = Duration::from_secs(10);

/// When the actor panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// The message is lost.
    Before,
    /// Its effects are there, and nothing that was to come of them.
    After,
}

/// The actor, which panics once at a message of that name.
struct Panics {
    inner: MetaManager,
    at: &'static str,
    when: When,
    happened: Rc<Cell<bool>>,
}

impl Panics {
    fn strike(&self, name: &str, when: When) {
        if name == self.at && when == self.when && !self.happened.replace(true) {
            panic!("a test's choice: {when:?} {name}");
        }
    }
}

impl Actor for Panics {
    type Message = MetaMsg;

    async fn started(&mut self, cx: &mut Context<MetaMsg>) -> Result<(), Fault> {
        self.inner.started(cx).await
    }

    async fn handle(&mut self, message: MetaMsg, cx: &mut Context<MetaMsg>) -> Result<(), Fault> {
        let name = message.name();
        self.strike(name, When::Before);
        self.inner.handle(message, cx).await?;
        self.strike(name, When::After);
        Ok(())
    }
}

struct Node {
    _hive: Hive,
    store: Store,
    meta: Address<MetaMsg>,
    edged: Probe<EdgedMsg>,
    _twin: Probe<TwinMsg>,
    happened: Rc<Cell<bool>>,
    _folder: tempfile::TempDir,
}

/// A node whose hub hands the link over whenever MetaManager has begun, and whose cloud confirms every report.
fn node(at: &'static str, when: When) -> Node {
    let env = Env::seeded(1);
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("edgecore.db"), Options::new([1; 16])).unwrap();
    let (edged, to_edged) = Probe::new(&env, 64);
    let (twin, to_twin) = Probe::new(&env, 64);
    let (mut hub, to_hub) = Probe::new(&env, 8);
    let (mut edge_up, edge) = Probe::<EdgeUp>::new(&env, 8);
    let (mut device_up, device) = Probe::<DeviceUp>::new(&env, 8);
    let (router_up, router) = Probe::<RouterUp>::new(&env, 8);
    let (task_up, tasks) = Probe::<TaskUp>::new(&env, 8);
    let mut hive = Hive::new("test", env);
    let mailbox = hive.mailbox::<MetaMsg>("edge-metamanager", Capacity::new(8, "a test's choice"));
    let meta = hive.grant("tester", &mailbox, Flow::Ask);
    let happened = Rc::new(Cell::new(false));
    let (kept, again) = (store.clone(), Rc::clone(&happened));
    hive.supervise(
        mailbox,
        Policy { backoff_min: Duration::from_millis(1), ..Policy::default() },
        move || Panics {
            inner: MetaManager::new(kept.clone(), to_edged.clone(), to_twin.clone(), to_hub.clone()),
            at,
            when,
            happened: Rc::clone(&again),
        },
    );
    hive.open().unwrap();
    let hand_over = meta.clone();
    tokio::task::spawn_local(async move {
        let _kept = (router_up, task_up);
        while let Some(EdgeHubMsg::MetaBegan) = hub.next(Duration::from_secs(3600)).await {
            let (edge, device, router) = (edge.clone(), device.clone(), router.clone());
            let tasks = tasks.clone();
            hand_over
                .tell(MetaMsg::LinkUp { edge, device, router, tasks, peer: everything() })
                .await
                .unwrap();
        }
    });
    tokio::task::spawn_local(async move {
        while let Some(message) = edge_up.next(Duration::from_secs(3600)).await {
            match message {
                EdgeUp::Reports { reports, reply } => {
                    reply.send(reports.open().unwrap().items.iter().map(|report| report.row).collect());
                }
                EdgeUp::Token { reply, .. } => {
                    let grant = TokenGrant { token: "t".into(), expires_unix: 9, lifetime_seconds: 3600 };
                    reply.send(Ok(grant));
                }
                EdgeUp::Alive => {}
            }
        }
    });
    tokio::task::spawn_local(async move {
        while let Some(DeviceUp::Reports { reports, reply }) = device_up.next(Duration::from_secs(3600)).await
        {
            reply.send(reports.open().unwrap().items.iter().map(|report| report.row).collect());
        }
    });
    Node { _hive: hive, store, meta, edged, _twin: twin, happened, _folder: folder }
}

fn everything() -> Capabilities {
    let of = [
        capability::OF_EDGE_CONTROLLER,
        capability::OF_DEVICE_CONTROLLER,
        capability::OF_ROUTER,
        capability::OF_TASK_MANAGER,
    ];
    of.into_iter().flatten().copied().collect()
}

fn pod() -> Object {
    Object {
        key: ObjectKey::new("pods", "d", "a"),
        uid: "u".to_owned(),
        content_hash: "h".to_owned(),
        resource_version: "1".to_owned(),
        json: Bytes::from_static(b"{}"),
    }
}

impl Node {
    async fn report(&self, report: UpReport) {
        let (key, body) = (report.newest_key().unwrap(), rows::encode_report(&report).unwrap());
        self.store
            .commit(vec![Write::Enqueue { queue: report.queue(), class: Class::Status, key, body }])
            .await
            .unwrap();
        let _ = self.meta.try_tell(MetaMsg::OutboxGrew);
    }

    /// What a cloud does until the node has everything: no batch stays without an answer.
    async fn synchronise(&self) {
        loop {
            let Ok(inventory) =
                self.meta.ask(SOON, |reply| MetaMsg::Down(MetaDown::Inventory { reply })).await
            else {
                continue;
            };
            let number = inventory.number;
            let versions = |reply| {
                MetaMsg::Down(MetaDown::ObjectVersions { inventory: number, buckets: vec![0], reply })
            };
            if self.meta.ask(SOON, versions).await.is_err() {
                continue;
            }
            let changes = vec![Change::Upsert(pod())];
            let apply =
                |reply| MetaMsg::Down(MetaDown::Apply { inventory: number, sequence: 1, changes, reply });
            if self.meta.ask(SOON, apply).await == Ok(Ok(())) {
                return;
            }
        }
    }

    async fn token(&self) {
        let query = || TokenQuery {
            namespace: "d".into(),
            service_account: "s".into(),
            audiences: Vec::new(),
            expiration_seconds: 600,
            pod_name: "a".into(),
            pod_uid: "u".into(),
        };
        while !matches!(
            self.meta.ask(SOON, |reply| MetaMsg::Token { query: query(), reply }).await,
            Ok(Ok(_))
        ) {
            tokio::task::yield_now().await;
        }
    }

    /// Edged has heard of the pod after its commit.
    async fn edged_knows(&mut self) {
        while let Some(message) = self.edged.next(SOON).await {
            match message {
                EdgedMsg::ObjectsChanged(ChangedObjects::Any) if self.is_committed() => return,
                EdgedMsg::ObjectsChanged(ChangedObjects::Keys(keys)) if keys.contains(&pod().key) => return,
                _ => {}
            }
        }
        panic!("Edged was not told");
    }

    fn is_committed(&self) -> bool {
        !self.store.object_versions().unwrap().is_empty()
    }
}

async fn goes_on_after_a_panic(at: &'static str, when: When) {
    let mut node = node(at, when);
    let device = UpReport::DeviceState {
        namespace: "d".into(),
        name: "s".into(),
        state: "online".into(),
        last_online_time: None,
    };
    let gone = UpReport::PodGone { namespace: "d".into(), name: "a".into(), uid: "u".into() };
    node.report(device).await;
    node.report(gone).await;
    node.meta.tell(MetaMsg::EdgedAlive).await.unwrap();
    node.synchronise().await;
    node.token().await;
    let all_left = async {
        while !node.store.outbox_head(10, 1 << 20).unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(SOON, all_left).await.expect("every report that was accepted arrives");
    assert!(node.is_committed());
    node.edged_knows().await;
    assert!(node.happened.get(), "{at} was not handled at all");
}

#[test]
fn it_goes_on_after_a_panic_at_any_message() {
    let messages =
        ["LinkUp", "Inventory", "ObjectVersions", "Apply", "OutboxGrew", "EdgedAlive", "Delivered", "Token"];
    for at in messages {
        for when in [When::Before, When::After] {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tokio::task::LocalSet::new().block_on(&runtime, async {
                let done =
                    tokio::time::timeout(Duration::from_secs(30), goes_on_after_a_panic(at, when)).await;
                done.unwrap_or_else(|_| panic!("nothing goes on after a panic: {when:?} {at}"));
            });
        }
    }
}
