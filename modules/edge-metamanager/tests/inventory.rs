//! What MetaManager says that it holds, and which batches it takes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use beehive::testing::Probe;
use beehive::{Address, AskError, Capacity, Env, Flow, Hive, Policy};
use bytes::Bytes;
use contract::devicetwin::TwinMsg;
use contract::downlink::{Inventory, MetaDown, NotApplied};
use contract::edged::EdgedMsg;
use contract::edgehub::EdgeHubMsg;
use contract::metamanager::MetaMsg;
use contract::{Change, Object, ObjectKey, ObjectVersion};
use edge_metamanager::MetaManager;
use edge_store::{Options, Store};

const SOON: Duration = Duration::from_secs(10);

struct Node {
    _hive: Hive,
    store: Store,
    meta: Address<MetaMsg>,
    _neighbours: (Probe<EdgedMsg>, Probe<TwinMsg>, Probe<EdgeHubMsg>),
    _folder: tempfile::TempDir,
}

fn run(test: impl AsyncFnOnce(Node)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async { test(node()).await });
}

fn node() -> Node {
    let env = Env::seeded(1);
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("edgecore.db"), Options::new([1; 16])).unwrap();
    let (edged, to_edged) = Probe::new(&env, 8);
    let (twin, to_twin) = Probe::new(&env, 8);
    let (hub, to_hub) = Probe::new(&env, 8);
    let mut hive = Hive::new("test", env);
    let mailbox = hive.mailbox::<MetaMsg>("edge-metamanager", Capacity::new(8, "a test's choice"));
    let meta = hive.grant("tester", &mailbox, Flow::Ask);
    let kept = store.clone();
    hive.supervise(mailbox, Policy::default(), move || {
        MetaManager::new(kept.clone(), to_edged.clone(), to_twin.clone(), to_hub.clone())
    });
    hive.open().unwrap();
    Node { _hive: hive, store, meta, _neighbours: (edged, twin, hub), _folder: folder }
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

fn put(name: &str, version: &str) -> Vec<Change> {
    vec![Change::Upsert(pod(name, version))]
}

impl Node {
    async fn inventory(&self) -> Inventory {
        self.meta.ask(SOON, |reply| MetaMsg::Down(MetaDown::Inventory { reply })).await.unwrap()
    }

    async fn apply(&self, inventory: u64, sequence: u64, changes: Vec<Change>) -> Result<(), NotApplied> {
        let apply = |reply| MetaMsg::Down(MetaDown::Apply { inventory, sequence, changes, reply });
        self.meta.ask(SOON, apply).await.unwrap()
    }

    async fn object_versions(
        &self,
        inventory: u64,
        buckets: Vec<u16>,
    ) -> Result<Vec<ObjectVersion>, AskError> {
        self.meta
            .ask(SOON, |reply| MetaMsg::Down(MetaDown::ObjectVersions { inventory, buckets, reply }))
            .await
    }
}

#[test]
fn what_an_older_offer_left_behind_is_not_applied() {
    run(async |node| {
        let old = node.inventory().await;
        assert_eq!((old.digest.objects, old.digest.buckets.len()), (0, 1));
        assert_eq!(node.apply(old.number, 1, put("a", "1")).await, Ok(()));
        let new = node.inventory().await;
        assert_eq!(new.digest.objects, 1);
        let late = node.apply(old.number, 2, put("a", "0")).await;
        assert_eq!(late, Err(NotApplied::Stale), "of a link that is gone");
        assert!(node.object_versions(old.number, vec![0]).await.is_err());
        let a = pod("a", "1");
        let held = ObjectVersion { key: a.key, uid: a.uid, content_hash: a.content_hash };
        assert_eq!(node.object_versions(new.number, vec![0]).await, Ok(vec![held]));
        let early = node.apply(new.number, 2, put("b", "1")).await;
        assert_eq!(early, Err(NotApplied::Stale), "the first one is missing");
        assert_eq!(node.store.object_versions().unwrap().len(), 1);
    });
}

#[test]
fn behind_a_batch_that_the_disk_refused_nothing_is_taken() {
    run(async |node| {
        let inventory = node.inventory().await.number;
        let large = Object { json: Bytes::from(vec![b'x'; 5 << 20]), ..pod("large", "1") };
        let mut changes = put("a", "1");
        changes.push(Change::Upsert(large));
        let refused = node.apply(inventory, 1, changes).await;
        let Err(NotApplied::Refused(why)) = refused else { panic!("{refused:?}") };
        assert!(why.contains("large"), "{why}");
        assert_eq!(node.apply(inventory, 2, put("b", "1")).await, Err(NotApplied::Stale));
        assert_eq!(node.store.object_versions().unwrap(), []);
        let inventory = node.inventory().await.number;
        assert_eq!(node.apply(inventory, 1, put("b", "1")).await, Ok(()));
    });
}
