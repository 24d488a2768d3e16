//! DeviceController's actor.

mod calls;
mod nodes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use beehive::{Actor, Address, Context, Fault};
use contract::NodeName;
use contract::cloudhub::{CloudHubMsg, SessionReader};
use contract::devicecontroller::{DeviceControllerMsg, DeviceUp};
use contract::downlink::DeviceDown;
use contract::ids::{DEVICE_MODELS, DEVICES, ObjectKey};
use contract::nodelease::NodeLeaseMsg;
use contract::synccontroller::{Source, SyncMsg};
use fairshare::{Delivery, ReportQueues};
use kubewatch::{
    Cache, Cached, DesiredObjects, Interruptions, NodeIndex, Publisher, SharedCache, WatchedKind,
};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::calls::{Calls, Step, asked};
use crate::conditions::{NodeHeard, OwnWord};
use crate::devices::{Devices, ToWrite, Word};
use crate::nodes::{Nodes, Say};
use crate::status::{self, DeviceStatusWriter};
use crate::{events, faults, plan};

const DEVICE: WatchedKind = WatchedKind {
    group_resource: DEVICES,
    group: "devices.kubeedge.io",
    version: "v1beta1",
    ..WatchedKind::core("devices", "Device")
};
const DEVICE_MODEL: WatchedKind = WatchedKind {
    group_resource: DEVICE_MODELS,
    group: "devices.kubeedge.io",
    version: "v1beta1",
    ..WatchedKind::core("devicemodels", "DeviceModel")
};

/// 10 s before a DeviceStatus that could not be written is tried again.
const STATUS_RETRY: Duration = Duration::from_secs(10);
/// 16 DeviceStatuses are looked at or written at once, and those that were written keep their place for 100 ms: 160 writes a second, if
/// all nodes fall silent at once.
const WRITES_AT_ONCE: usize = 16;
const WRITE_PAUSE: Duration = Duration::from_millis(100);
/// 500 ms before a session is looked at again that is not current because a watch has broken off.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What nodes should hold, what is to be written into the DeviceStatus of which device, and the calls that are to be made.
type Changed = (BTreeMap<NodeName, DesiredObjects>, Vec<ToWrite>, Vec<ToCall>);

/// A device with its uid and its node, and what is to be done about a call of it.
type ToCall = (ObjectKey, String, Option<NodeName>, Step);

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
    devices: Devices,
    calls: Calls,
    nodes: Nodes,
    /// The DeviceTwins of the nodes that are linked, with their sessions.
    twins: BTreeMap<NodeName, (u64, Address<DeviceDown>)>,
    writes: Arc<Semaphore>,
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
            devices: Devices::default(),
            calls: Calls::default(),
            nodes: Nodes::default(),
            twins: BTreeMap::new(),
            writes: Arc::new(Semaphore::new(WRITES_AT_ONCE)),
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
            unwritten: Default::default(),
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
            DeviceControllerMsg::AllNodesDown => {
                self.twins.clear();
                self.publisher.all_nodes_down();
            }
            DeviceControllerMsg::NodeUp { node, session, twin } => {
                self.twins.insert(node.clone(), (session, twin));
                if self.nodes.linked(&node) {
                    self.say_of_nodes(std::slice::from_ref(&node), cx);
                }
                self.publisher.node_up(node, session, cx.now());
                self.reconcile(cx).await;
            }
            DeviceControllerMsg::NodeDown { node, session } => {
                self.twins.retain(|linked, (open, _)| *linked != node || *open != session);
                self.nodes.unlinked(&node);
                self.publisher.node_down(&node, session);
                self.look_for_nodes(false, cx);
            }
            DeviceControllerMsg::ListAgain => self.list_again(cx).await,
            DeviceControllerMsg::Reconcile => {
                self.is_timed = false;
                self.reconcile(cx).await;
            }
            DeviceControllerMsg::LookForNodes => {
                self.nodes.is_due_soon = false;
                self.look_for_nodes(true, cx);
            }
            DeviceControllerMsg::NodesLookedUp { found } => self.nodes_found(found, cx),
            DeviceControllerMsg::CallSent { uid, id, failure } => self.call_sent(&uid, &id, failure, cx),
            DeviceControllerMsg::StatusWritten { uid, is_written } => {
                if let Some(next) = self.devices.ended(&uid, is_written) {
                    self.write(next, cx);
                }
            }
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
        self.publisher.publish(&wanted, cx.env().traces()).await;
        self.publisher.complete().await;
        self.reconcile(cx).await;
    }

    /// Compares what nodes should hold with what was sent, as far as anything changed, and sends the difference.
    async fn reconcile(&mut self, cx: &Context<DeviceControllerMsg>) {
        let Some((wanted, to_write, to_call)) = self.changed() else { return };
        for call in to_call {
            self.call(call, cx);
        }
        for device in to_write {
            self.write(device, cx);
        }
        self.look_for_nodes(false, cx);
        self.publisher.publish(&wanted, cx.env().traces()).await;
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
        let (mut touched, mut changed) = (BTreeSet::new(), BTreeSet::new());
        for key in devices.take_moved() {
            let device = devices.objects.get(&key);
            let placement = device.and_then(|device| plan::placement_of(&key, &device.value()));
            self.index.put(&key, placement, &mut touched);
            changed.insert(key);
        }
        for key in models.take_moved() {
            self.index.need_changed(&key, &mut touched);
            changed.extend(self.devices.users_of(&key).cloned());
        }
        let (mut to_write, mut to_call) = (Vec::new(), Vec::new());
        for key in changed {
            let Some(device) = devices.objects.get(&key) else {
                match devices.unreadable.get(&key).filter(|unread| !unread.uid.is_empty()) {
                    Some(unread) => {
                        let word =
                            OwnWord { invalid: Some(faults::unread(&unread.why)), ..OwnWord::default() };
                        let model = plan::model_of(&key, &Value::Null);
                        to_write.extend(self.devices.put(key, unread.uid.clone(), model, Word::Own(word)));
                    }
                    None => self.devices.remove(&key).iter().for_each(|uid| self.calls.remove(uid)),
                }
                continue;
            };
            let (uid, value) = (device.object.uid.clone(), device.value());
            let node = plan::node_of(&value);
            let is_linked = node.as_ref().is_some_and(|node| self.twins.contains_key(node));
            let step = self.calls.put(&uid, asked(&value), is_linked);
            let model = plan::model_of(&key, &value);
            let word = self.word(&key, &uid, &value, (&*devices, &*models));
            to_call.push((key.clone(), uid.clone(), node, step));
            to_write.extend(self.devices.put(key, uid, model, word));
        }
        let wanted = touched.into_iter().map(|node| {
            let objects = self.desired(&node, &devices, &models);
            (node, objects)
        });
        Some((wanted.collect(), to_write, to_call))
    }

    /// What CloudCore says of a device. What cannot be read of it or of its model comes first.
    fn word(&self, key: &ObjectKey, uid: &str, device: &Value, (devices, models): (&Cache, &Cache)) -> Word {
        let (node, named) = (plan::node_of(device), plan::model_of(key, device));
        match node.as_ref().filter(|node| !self.twins.contains_key(*node)).map(|node| self.nodes.say(node)) {
            Some(Say::Later) => return Word::AsItIs,
            Some(Say::Nothing) => return Word::Nothing,
            Some(Say::Own) | None => {}
        }
        let of_node = node.as_ref().and_then(|node| self.nodes.fault(node));
        let model = models.objects.get(&named).map(Cached::value);
        let unread = devices.unreadable.get(key).map(|unread| faults::unread(&unread.why));
        let unread_model = models.unreadable.get(&named).map(|unread| faults::unread_model(&unread.why));
        let unread = unread.into_iter().chain(unread_model);
        let faults: Vec<String> =
            unread.chain(of_node).chain(faults::faults(device, model.as_deref())).collect();
        let heard = match &node {
            Some(node) if !self.twins.contains_key(node) => self.nodes.heard(node),
            Some(_) | None => NodeHeard::Yes,
        };
        Word::Own(OwnWord { invalid: faults::told(&faults), node, heard, unsent: self.calls.unsent(uid) })
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

    /// Every device has a DeviceStatus of its name (KubeEdge), and what of it is not honoured stands there. That of a device whose node is
    /// another's is the other's.
    fn write(&self, (key, uid, word): ToWrite, cx: &Context<DeviceControllerMsg>) {
        let (client, myself, env) = (self.dependencies.client.clone(), cx.myself(), cx.env().clone());
        let writes = Arc::clone(&self.writes);
        cx.spawn(async move {
            // It is never closed.
            let room = writes.acquire().await;
            let (namespace, name) = (&key.namespace, &key.name);
            let written = match &word {
                Word::Own(word) => {
                    status::ensure_status(&client, namespace, name, &uid, word, env.wall()).await
                }
                Word::Nothing => status::take_back(&client, namespace, name, &uid).await,
                Word::AsItIs => Ok(false),
            };
            if matches!(written, Ok(true)) {
                env.sleep(WRITE_PAUSE).await;
            }
            drop(room);
            let is_written = written.is_ok();
            if let Err(error) = written {
                events::status_not_written(&env, &key, &Fault::from_error(&error).reason);
                env.sleep(STATUS_RETRY).await;
            }
            let _ = myself.tell(DeviceControllerMsg::StatusWritten { uid, is_written }).await;
        });
    }
}
