//! DeviceController's actor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use beehive::{Actor, Address, Context, Fault};
use contract::devicecontroller::{DeviceControllerMsg, DeviceUp};
use contract::edgecontroller::EdgeControllerMsg;
use contract::ids::{DEVICE_MODELS, DEVICES};
use contract::synccontroller::{Source, SyncMsg};
use contract::{NodeName, ObjectKey};
use fairshare::Lines;
use kubewatch::{Held, Interruptions, Placed, Shared, Told, Watched};

use crate::deliveries::{self, Accounts, Counter, Delivery};
use crate::plan;
use crate::uplink;

const DEVICE: Watched = Watched {
    group_resource: DEVICES,
    group: "devices.kubeedge.io",
    version: "v1beta1",
    plural: "devices",
    kind: "Device",
};
const DEVICE_MODEL: Watched = Watched {
    group_resource: DEVICE_MODELS,
    group: "devices.kubeedge.io",
    version: "v1beta1",
    plural: "devicemodels",
    kind: "DeviceModel",
};

/// 20 ms: the changes of one `kubectl apply` become one look at the caches.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// 10 s before a DeviceStatus that could not be made is tried again.
const STATUS_RETRY: Duration = Duration::from_secs(10);

/// What nodes should hold, and devices with their uids, if they are there.
type Moved = (BTreeMap<NodeName, Held>, Vec<(ObjectKey, Option<String>)>);

/// A device and its uid; without one it is gone.
type Device = (ObjectKey, Option<String>);

/// Brings devices and their models to their nodes, and their twins back.
pub struct DeviceController {
    client: kube::Client,
    sync: Address<SyncMsg>,
    /// Says who has a node.
    edge: Address<EdgeControllerMsg>,
    interruptions: Interruptions,
    watches: Option<(Shared, Shared)>,
    placed: Placed,
    told: Told,
    /// The uids of the devices that have a DeviceStatus, or get one.
    with_status: BTreeMap<ObjectKey, String>,
    lines: Lines<Delivery>,
    accounts: Accounts,
    ready: bool,
    look_is_due: bool,
}

impl DeviceController {
    /// A controller over `client`; `edge` knows who has which node.
    pub fn new(
        client: kube::Client,
        sync: Address<SyncMsg>,
        edge: Address<EdgeControllerMsg>,
        interruptions: Interruptions,
    ) -> Self {
        DeviceController {
            client,
            sync,
            edge,
            interruptions,
            watches: None,
            placed: Placed::default(),
            told: Told::default(),
            with_status: BTreeMap::new(),
            lines: deliveries::lines(),
            accounts: Accounts::default(),
            ready: false,
            look_is_due: false,
        }
    }
}

impl Actor for DeviceController {
    type Message = DeviceControllerMsg;

    async fn started(&mut self, cx: &mut Context<DeviceControllerMsg>) -> Result<(), Fault> {
        let watch = |what| {
            kubewatch::watch(&self.client, what, None, &self.interruptions, cx, || DeviceControllerMsg::Look)
        };
        self.watches = Some((watch(DEVICE), watch(DEVICE_MODEL)));
        Ok(())
    }

    async fn handle(
        &mut self,
        message: DeviceControllerMsg,
        cx: &mut Context<DeviceControllerMsg>,
    ) -> Result<(), Fault> {
        match message {
            DeviceControllerMsg::Up { node, epoch, message: DeviceUp::Reports { reports, reply } } => {
                self.reports(node, Delivery { epoch, reports, reply }, cx);
            }
            DeviceControllerMsg::AllNodesDown
            | DeviceControllerMsg::NodeUp { .. }
            | DeviceControllerMsg::NodeDown { .. } => {}
            DeviceControllerMsg::Look => {
                if !std::mem::replace(&mut self.look_is_due, true) {
                    cx.after(LOOK_PAUSE, DeviceControllerMsg::LookNow);
                }
            }
            DeviceControllerMsg::LookNow => {
                self.look_is_due = false;
                self.look(cx).await;
            }
            DeviceControllerMsg::StatusMissing { uid } => self.status_is_missing(&uid, cx),
        }
        Ok(())
    }

    fn snapshot(&self) -> serde_json::Value {
        let (refused, turned_away) = self.accounts.sums();
        serde_json::json!({
            "refusedReports": refused,
            "turnedAway": turned_away,
            "listed": self.ready,
            "nodesWithDevices": self.told.nodes(),
            "objects": self.told.objects(),
        })
    }
}

impl DeviceController {
    async fn look(&mut self, cx: &Context<DeviceControllerMsg>) {
        let Some((wanted, devices)) = self.moved() else { return };
        for device in devices {
            self.status_of(device, cx);
        }
        self.told.tell(&wanted, &self.sync).await;
        if !self.ready {
            self.ready = true;
            let _ = self.sync.tell(SyncMsg::SourceReady(Source::Device)).await;
        }
    }

    /// What the nodes should hold that anything touched, and the devices that moved.
    /// `None` before both have been listed once.
    fn moved(&mut self) -> Option<Moved> {
        let (devices, models) = self.watches.as_ref()?;
        let (mut devices, mut models) = (devices.borrow_mut(), models.borrow_mut());
        if !devices.listed || !models.listed {
            return None;
        }
        let (mut touched, mut moved) = (BTreeSet::new(), Vec::new());
        for key in devices.take_moved() {
            let device = devices.objects.get(&key);
            let place = device.and_then(|device| plan::place_of(&key, &device.value));
            self.placed.put(&key, place, &mut touched);
            let uid = device.map(|device| device.object.uid.clone());
            moved.push((key, uid));
        }
        for key in models.take_moved() {
            self.placed.need_moved(&key, &mut touched);
        }
        let held = |node: &NodeName| {
            let on_node =
                self.placed.on(node).flat_map(|(key, place)| std::iter::once(key).chain(&place.needs));
            let objects = on_node.filter_map(|key| {
                let cache = if key.resource == DEVICES { &devices } else { &models };
                Some((key.clone(), Arc::clone(&cache.objects.get(key)?.object)))
            });
            objects.collect::<Held>()
        };
        let wanted = touched.into_iter().map(|node| {
            let objects = held(&node);
            (node, objects)
        });
        Some((wanted.collect(), moved))
    }

    /// Every device has a DeviceStatus of its name (KubeEdge), made once per uid.
    fn status_of(&mut self, (key, uid): Device, cx: &Context<DeviceControllerMsg>) {
        let Some(uid) = uid else {
            self.with_status.remove(&key);
            return;
        };
        if self.with_status.insert(key.clone(), uid.clone()).as_ref() != Some(&uid) {
            self.ensure_status(key, uid, cx);
        }
    }

    fn status_is_missing(&self, uid: &str, cx: &Context<DeviceControllerMsg>) {
        let device = self.with_status.iter().find(|(_, known)| *known == uid);
        if let Some((key, uid)) = device {
            self.ensure_status(key.clone(), uid.clone(), cx);
        }
    }

    fn ensure_status(&self, key: ObjectKey, uid: String, cx: &Context<DeviceControllerMsg>) {
        let (client, myself, env) = (self.client.clone(), cx.myself(), cx.env().clone());
        cx.spawn(async move {
            if let Err(error) = uplink::ensure_status(&client, &key.namespace, &key.name, &uid).await {
                tracing::warn!(device = %key, reason = %Fault::from_error(&error), "no DeviceStatus made");
                env.sleep(STATUS_RETRY).await;
                let _ = myself.tell(DeviceControllerMsg::StatusMissing { uid }).await;
            }
        });
    }

    /// Writes the reports beside the actor, in a line for each node.
    fn reports(&mut self, node: NodeName, delivery: Delivery, cx: &Context<DeviceControllerMsg>) {
        match self.lines.put(&node, delivery) {
            Ok(None) => {}
            Ok(Some(line)) => {
                let counter = Counter {
                    client: self.client.clone(),
                    edge: self.edge.clone(),
                    accounts: self.accounts.clone(),
                };
                cx.spawn(counter.deliver(node, line, cx.env().clone()));
            }
            Err(Delivery { reply, .. }) => {
                self.accounts.turn_away(&node);
                reply.send(Vec::new());
            }
        }
    }
}
