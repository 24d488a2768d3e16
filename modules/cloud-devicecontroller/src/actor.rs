//! DeviceController's actor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use beehive::{Actor, Address, Context, Fault};
use contract::cloudhub::{CloudHubMsg, SessionReader};
use contract::devicecontroller::{DeviceControllerMsg, DeviceUp};
use contract::ids::{DEVICE_MODELS, DEVICES};
use contract::nodelease::NodeLeaseMsg;
use contract::synccontroller::{Source, SyncMsg};
use contract::{NodeName, ObjectKey};
use fairshare::{Delivery, ReportQueues};
use kubewatch::{Cache, DesiredObjects, Interruptions, NodeIndex, Publisher, SharedCache, WatchedKind};

use crate::status::{self, DeviceStatusWriter};
use crate::{events, plan};

const DEVICE: WatchedKind = WatchedKind {
    group_resource: DEVICES,
    group: "devices.kubeedge.io",
    version: "v1beta1",
    plural: "devices",
    kind: "Device",
    reads: &[],
};
const DEVICE_MODEL: WatchedKind = WatchedKind {
    group_resource: DEVICE_MODELS,
    group: "devices.kubeedge.io",
    version: "v1beta1",
    plural: "devicemodels",
    kind: "DeviceModel",
    reads: &[],
};

/// 10 s before a DeviceStatus that could not be made is tried again.
const STATUS_RETRY: Duration = Duration::from_secs(10);
/// 500 ms before a session is looked at again that is not current because a watch has broken off.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What nodes should hold, and devices with their uids, if they are there.
type Changed = (BTreeMap<NodeName, DesiredObjects>, Vec<(ObjectKey, Option<String>)>);

/// A device and its uid; without one it is gone.
type Device = (ObjectKey, Option<String>);

/// What a DeviceController is made of.
#[derive(Clone)]
pub struct Dependencies {
    /// The API server.
    pub client: kube::Client,
    /// SyncController, which is told what nodes should hold.
    pub sync: Address<SyncMsg>,
    /// NodeLease, which says what sessions are worth.
    pub lease: Address<NodeLeaseMsg>,
    /// CloudHub, which is asked who is linked.
    pub hub: Address<CloudHubMsg>,
    /// Counts the watches that have broken off.
    pub interruptions: Interruptions,
}

/// The informers of this incarnation, and what stands on them.
struct Informers {
    devices: SharedCache,
    models: SharedCache,
    reports: ReportQueues<DeviceStatusWriter>,
}

/// Brings devices and their models to their nodes, and their twins back.
pub struct DeviceController {
    dependencies: Dependencies,
    informers: Option<Informers>,
    index: NodeIndex,
    publisher: Publisher,
    /// The uids of the devices that have a DeviceStatus, or get one.
    with_status: BTreeMap<ObjectKey, String>,
    is_timed: bool,
}

impl DeviceController {
    /// A controller that has listed nothing yet.
    pub fn new(dependencies: Dependencies) -> Self {
        DeviceController {
            publisher: Publisher::new(Source::Device, dependencies.sync.clone()),
            dependencies,
            informers: None,
            index: NodeIndex::default(),
            with_status: BTreeMap::new(),
            is_timed: false,
        }
    }
}

impl Actor for DeviceController {
    type Message = DeviceControllerMsg;

    async fn started(&mut self, cx: &mut Context<DeviceControllerMsg>) -> Result<(), Fault> {
        let Dependencies { client, lease, hub, interruptions, .. } = &self.dependencies;
        let watch =
            |what| kubewatch::watch(client, what, None, interruptions, cx, || DeviceControllerMsg::Reconcile);
        let writer = DeviceStatusWriter {
            client: client.clone(),
            lease: lease.clone(),
            traffic: Default::default(),
            env: cx.env().clone(),
        };
        self.informers = Some(Informers {
            devices: watch(DEVICE),
            models: watch(DEVICE_MODEL),
            reports: ReportQueues::new(writer, lease.clone()),
        });
        cx.spawn_tell(hub, CloudHubMsg::TellSessions { to: SessionReader::DeviceController });
        Ok(())
    }

    async fn handle(
        &mut self,
        message: DeviceControllerMsg,
        cx: &mut Context<DeviceControllerMsg>,
    ) -> Result<(), Fault> {
        match message {
            DeviceControllerMsg::Up { node, session, message: DeviceUp::Reports { reports, reply } } => {
                if let Some(informers) = &self.informers {
                    informers.reports.put(&node, Delivery { session, reports, reply }, cx);
                }
            }
            DeviceControllerMsg::AllNodesDown => self.publisher.all_nodes_down(),
            DeviceControllerMsg::NodeUp { node, session } => {
                self.publisher.node_up(node, session, cx.now());
                self.reconcile(cx).await;
            }
            DeviceControllerMsg::NodeDown { node, session } => {
                self.publisher.node_down(&node, session);
            }
            DeviceControllerMsg::ListAgain => self.list_again(cx).await,
            DeviceControllerMsg::Reconcile => {
                self.is_timed = false;
                self.reconcile(cx).await;
            }
            DeviceControllerMsg::StatusMissing { uid } => self.status_is_missing(&uid, cx),
        }
        Ok(())
    }

    fn snapshot(&self) -> serde_json::Value {
        serde_json::json!({
            "deliveries": self.informers.as_ref().map_or(0, |informers| informers.reports.in_work()),
            "listed": self.publisher.is_complete(),
            "linkedNodes": self.publisher.linked(),
            "nodesWithDevices": self.publisher.nodes(),
            "objects": self.publisher.objects(),
            "unreadable": self.informers.as_ref().map_or(0, |informers| {
                informers.devices.borrow().unreadable.len() + informers.models.borrow().unreadable.len()
            }),
        })
    }
}

impl DeviceController {
    async fn list_again(&mut self, cx: &Context<DeviceControllerMsg>) {
        if !self.publisher.list_again() {
            return;
        }
        let Some(wanted) = self.informers.as_ref().map(|informers| {
            let (devices, models) = (informers.devices.borrow(), informers.models.borrow());
            let nodes = self.index.nodes().cloned();
            nodes.map(|node| (node.clone(), self.desired(&node, &devices, &models))).collect()
        }) else {
            return;
        };
        self.publisher.publish(&wanted).await;
        self.publisher.complete().await;
        self.reconcile(cx).await;
    }

    /// Compares what nodes should hold with what was sent, as far as anything changed, and sends the difference.
    async fn reconcile(&mut self, cx: &Context<DeviceControllerMsg>) {
        let Some((wanted, devices)) = self.changed() else { return };
        for device in devices {
            self.status_of(device, cx);
        }
        self.publisher.publish(&wanted).await;
        self.publisher.complete().await;
        if self.dependencies.interruptions.are_whole(&[DEVICES, DEVICE_MODELS]) {
            for node in self.publisher.not_current() {
                self.publisher.current(&node, BTreeSet::new()).await;
            }
        } else if !self.publisher.not_current().is_empty() && !std::mem::replace(&mut self.is_timed, true) {
            cx.after(AGAIN_AFTER, DeviceControllerMsg::Reconcile);
        }
    }

    /// What the nodes should hold that anything touched, and the devices that changed.
    /// `None` before both have been listed once.
    fn changed(&mut self) -> Option<Changed> {
        let informers = self.informers.as_ref()?;
        let (mut devices, mut models) = (informers.devices.borrow_mut(), informers.models.borrow_mut());
        if !devices.listed || !models.listed {
            return None;
        }
        let (mut touched, mut changed) = (BTreeSet::new(), Vec::new());
        for key in devices.take_moved() {
            let device = devices.objects.get(&key);
            let placement = device.and_then(|device| plan::placement_of(&key, &device.value));
            self.index.put(&key, placement, &mut touched);
            let uid = device.map(|device| device.object.uid.clone());
            changed.push((key, uid));
        }
        for key in models.take_moved() {
            self.index.need_changed(&key, &mut touched);
        }
        let wanted = touched.into_iter().map(|node| {
            let objects = self.desired(&node, &devices, &models);
            (node, objects)
        });
        Some((wanted.collect(), changed))
    }

    fn desired(&self, node: &NodeName, devices: &Cache, models: &Cache) -> DesiredObjects {
        let on_node =
            self.index.on(node).flat_map(|(key, placement)| std::iter::once(key).chain(&placement.needs));
        let objects = on_node.filter_map(|key| {
            let cache = if key.resource == DEVICES { devices } else { models };
            Some((key.clone(), Arc::clone(&cache.objects.get(key)?.object)))
        });
        objects.collect()
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
        let (client, myself, env) = (self.dependencies.client.clone(), cx.myself(), cx.env().clone());
        cx.spawn(async move {
            if let Err(error) = status::ensure_status(&client, &key.namespace, &key.name, &uid).await {
                events::status_not_created(&env, &key, &Fault::from_error(&error).reason);
                env.sleep(STATUS_RETRY).await;
                let _ = myself.tell(DeviceControllerMsg::StatusMissing { uid }).await;
            }
        });
    }
}
