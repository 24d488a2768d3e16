//! DeviceTwin over a store of its own, with one device.
#![allow(dead_code, reason = "each test uses its part")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use beehive::testing::Probe;
use beehive::{Address, Capacity, Env, Flow, Hive, Policy};
use contract::NodeName;
use contract::devicetwin::TwinMsg;
use contract::eventbus::EventBusMsg;
use contract::ids::{DEVICE_MODELS, DEVICES};
use contract::metamanager::MetaMsg;
use edge_devicetwin::DeviceTwin;
use edge_store::{ObjectKey, Options, Store, Write};
use futures::FutureExt;
use serde_json::{Value, json};

/// For a machine that is busy with other things.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// The node.
pub(crate) struct Node {
    pub(crate) twin: Address<TwinMsg>,
    pub(crate) store: Store,
    hive: Hive,
    bus: Probe<EventBusMsg>,
    meta: Probe<MetaMsg>,
}

/// Runs a test in a folder in memory: what is measured is not the disk.
pub(crate) fn run(test: impl AsyncFnOnce(PathBuf)) {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async { test(folder.path().to_owned()).await });
}

impl Node {
    /// Needs a `LocalSet`.
    pub(crate) fn start(folder: &Path) -> Node {
        let env = Env::seeded(1);
        let store = Store::open(folder.join("edgecore.db"), Options::new([1; 16])).unwrap();
        let (bus, bus_address) = Probe::new(&env, 64);
        let (meta, meta_address) = Probe::new(&env, 64);
        let mut hive = Hive::new("test", env);
        let mailbox = hive.mailbox::<TwinMsg>("edge-devicetwin", Capacity::new(64, "a test's choice"));
        let twin = hive.grant("tester", &mailbox, Flow::Ask);
        let settings = config::edge::DeviceTwin { dmi_sock_path: folder.to_owned(), ..Default::default() };
        let kept = store.clone();
        hive.supervise(mailbox, Policy::default(), move || {
            let node = NodeName::parse("edge-1").unwrap();
            DeviceTwin::new(node, &settings, kept.clone(), bus_address.clone(), meta_address.clone())
        });
        hive.open().unwrap();
        Node { twin, store, hive, bus, meta }
    }

    /// One device with one property.
    pub(crate) async fn pump(&self) {
        let model = json!({ "metadata": { "name": "pumps" }, "spec": { "properties": [{ "name": "speed", "type": "INT" }] } });
        let device = json!({ "metadata": { "name": "pump" }, "spec": {
            "deviceModelRef": { "name": "pumps" }, "nodeName": "edge-1",
            "properties": [{ "name": "speed", "desired": { "value": "3" } }],
            "protocol": { "protocolName": "modbus" } } });
        self.put(DEVICE_MODELS, "pumps", model).await;
        self.put(DEVICES, "pump", device).await;
    }

    async fn put(&self, resource: &str, name: &str, json: Value) {
        let write = Write::PutObject {
            key: ObjectKey::new(resource, "default", name),
            uid: format!("u-{name}"),
            content_hash: "1".to_owned(),
            resource_version: "1".to_owned(),
            json: json.to_string().into_bytes(),
        };
        self.store.commit(vec![write]).await.unwrap();
        self.twin.tell(TwinMsg::ObjectsChanged(contract::ChangedObjects::Any)).await.unwrap();
    }

    /// Takes what the actor has told other actors.
    pub(crate) fn drain(&mut self) {
        while self.bus.next(LONG).now_or_never().flatten().is_some() {}
        while self.meta.next(LONG).now_or_never().flatten().is_some() {}
    }

    /// Ends in order.
    pub(crate) async fn stop(self) {
        assert_eq!(self.hive.shutdown(LONG).await, beehive::Ended::InOrder);
    }
}
