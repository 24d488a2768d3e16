//! DeviceController's actor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use beehive::{Actor, Address, Context, Fault, Reply};
use contract::devicecontroller::{DeviceControllerMsg, DeviceUp};
use contract::ids::{DEVICE_MODELS, DEVICES};
use contract::synccontroller::{Source, SyncMsg};
use contract::{NodeName, ObjectKey, Report, UpReport};
use futures::StreamExt;
use kubewatch::{Held, Shared, Told, Watched};

use crate::{plan, uplink};

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
/// 8 devices of one delivery are written at once.
const WRITES_AT_ONCE: usize = 8;
/// 20 s for one delivery; the node sends again what was not confirmed.
const WRITE_DEADLINE: Duration = Duration::from_secs(20);
/// 10 s before a DeviceStatus that could not be made is tried again.
const STATUS_RETRY: Duration = Duration::from_secs(10);

/// Brings devices and their models to their nodes, and their twins back.
pub struct DeviceController {
    client: kube::Client,
    sync: Address<SyncMsg>,
    watches: Option<(Shared, Shared)>,
    told: Told,
    with_status: BTreeSet<String>,
    ready: bool,
    look_is_due: bool,
}

impl DeviceController {
    /// A controller over `client`.
    pub fn new(client: kube::Client, sync: Address<SyncMsg>) -> Self {
        DeviceController {
            client,
            sync,
            watches: None,
            told: Told::default(),
            with_status: BTreeSet::new(),
            ready: false,
            look_is_due: false,
        }
    }
}

impl Actor for DeviceController {
    type Message = DeviceControllerMsg;

    async fn started(&mut self, cx: &mut Context<DeviceControllerMsg>) -> Result<(), Fault> {
        let watch = |what| kubewatch::watch(&self.client, what, cx, || DeviceControllerMsg::Look);
        self.watches = Some((watch(DEVICE), watch(DEVICE_MODEL)));
        Ok(())
    }

    async fn handle(
        &mut self,
        message: DeviceControllerMsg,
        cx: &mut Context<DeviceControllerMsg>,
    ) -> Result<(), Fault> {
        match message {
            DeviceControllerMsg::Up { node, message: DeviceUp::Reports { reports, reply } } => {
                self.reports(node, reports, reply, cx);
            }
            DeviceControllerMsg::Look => {
                if !std::mem::replace(&mut self.look_is_due, true) {
                    cx.after(LOOK_PAUSE, DeviceControllerMsg::LookNow);
                }
            }
            DeviceControllerMsg::LookNow => {
                self.look_is_due = false;
                self.look(cx).await;
            }
            DeviceControllerMsg::StatusMissing { uid } => {
                self.with_status.remove(&uid);
                self.look(cx).await;
            }
        }
        Ok(())
    }

    fn snapshot(&self) -> serde_json::Value {
        serde_json::json!({
            "listed": self.ready,
            "nodesWithDevices": self.told.nodes(),
            "objects": self.told.objects(),
        })
    }
}

impl DeviceController {
    async fn look(&mut self, cx: &Context<DeviceControllerMsg>) {
        let Some(wanted) = self.wanted() else { return };
        self.ensure_statuses(cx);
        self.told.tell(&wanted, &self.sync).await;
        if !self.ready {
            self.ready = true;
            let _ = self.sync.tell(SyncMsg::SourceReady(Source::Device)).await;
        }
    }

    /// `None` before both have been listed once.
    fn wanted(&self) -> Option<BTreeMap<NodeName, Held>> {
        let (devices, models) = self.watches.as_ref()?;
        let (devices, models) = (devices.borrow(), models.borrow());
        if !devices.listed || !models.listed {
            return None;
        }
        let find = |key: &ObjectKey| {
            let cache = if key.resource == DEVICES { &devices } else { &models };
            cache.objects.get(key).map(|cached| Arc::clone(&cached.object))
        };
        let values = devices.objects.iter().map(|(key, cached)| (key, &cached.value));
        let wanted = plan::wanted(values, |key| models.objects.contains_key(key));
        let with_objects = wanted.into_iter().map(|(node, keys)| {
            (node, keys.into_iter().filter_map(|key| find(&key).map(|object| (key, object))).collect())
        });
        Some(with_objects.collect())
    }

    /// Every device has a DeviceStatus of its name (KubeEdge).
    fn ensure_statuses(&mut self, cx: &Context<DeviceControllerMsg>) {
        let Some((devices, _)) = &self.watches else { return };
        let devices = devices.borrow();
        let living: BTreeSet<&str> =
            devices.objects.values().map(|cached| cached.object.uid.as_str()).collect();
        self.with_status.retain(|uid| living.contains(uid.as_str()));
        for (key, cached) in &devices.objects {
            let uid = cached.object.uid.clone();
            if !self.with_status.insert(uid.clone()) {
                continue;
            }
            let (client, key, myself, env) =
                (self.client.clone(), key.clone(), cx.myself(), cx.env().clone());
            cx.spawn(async move {
                if let Err(error) = uplink::ensure_status(&client, &key.namespace, &key.name, &uid).await {
                    tracing::warn!(device = %key, reason = %Fault::from_error(&error), "no DeviceStatus made");
                    env.sleep(STATUS_RETRY).await;
                    let _ = myself.tell(DeviceControllerMsg::StatusMissing { uid }).await;
                }
            });
        }
    }

    fn reports(
        &self,
        node: NodeName,
        reports: Vec<Report>,
        reply: Reply<Vec<i64>>,
        cx: &Context<DeviceControllerMsg>,
    ) {
        let (client, env) = (self.client.clone(), cx.env().clone());
        cx.spawn(async move {
            let mut by_device: BTreeMap<(String, String), Vec<Report>> = BTreeMap::new();
            let mut done = Vec::new();
            for report in reports {
                match plan::device_of(&report.report) {
                    Some((namespace, name)) => {
                        let key = (namespace.to_owned(), name.to_owned());
                        by_device.entry(key).or_default().push(report);
                    }
                    // Not for this controller: dropped, with a word.
                    None => {
                        tracing::warn!(%node, "a report for the other controller was dropped");
                        done.push(report.row);
                    }
                }
            }
            let done = std::cell::RefCell::new(done);
            let writes = futures::stream::iter(by_device).for_each_concurrent(
                WRITES_AT_ONCE,
                |((namespace, name), batch)| {
                    let (client, node, done) = (&client, &node, &done);
                    async move {
                        let reports: Vec<&UpReport> = batch.iter().map(|report| &report.report).collect();
                        match uplink::write(client, node, (&namespace, &name), &reports).await {
                            Ok(()) => done.borrow_mut().extend(batch.iter().map(|report| report.row)),
                            Err(error) => {
                                let reason = Fault::from_error(&error).reason;
                                tracing::warn!(%node, %reason, "twin not written; the node sends it again");
                            }
                        }
                    }
                },
            );
            let _ = env.timeout(WRITE_DEADLINE, writes).await;
            reply.send(done.into_inner());
        });
    }
}
