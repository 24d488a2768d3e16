//! Probes at every mailbox of a run: what each actor is delivered is noted, some of it is judged, and the link falls silent before
//! an answer that is to be lost.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use beehive::link::memory::NetworkPath;
use beehive::{Hive, Message};
use cloud_hub::CertificatesMsg;
use contract::cloudhub::CloudHubMsg;
use contract::cloudstream::CloudStreamMsg;
use contract::cloudtaskmanager::CloudTaskMsg;
use contract::devicecontroller::{DeviceControllerMsg, DeviceUp};
use contract::devicerules::DeviceRulesMsg;
use contract::devicetwin::TwinMsg;
use contract::edgecontroller::{EdgeControllerMsg, EdgeUp};
use contract::edged::EdgedMsg;
use contract::edgehub::EdgeHubMsg;
use contract::edgestream::EdgeStreamMsg;
use contract::edgetaskmanager::EdgeTaskMsg;
use contract::eventbus::EventBusMsg;
use contract::ids::PODS;
use contract::metamanager::{MetaDown, MetaMsg};
use contract::nodelease::NodeLeaseMsg;
use contract::router::{RouterMsg, RouterUp};
use contract::synccontroller::SyncMsg;
use contract::wire::{DEVICE_MAILBOX, EDGE_MAILBOX, META_MAILBOX, ROUTER_MAILBOX, TASK_MAILBOX};
use contract::{Change, NodeName, ObjectKey};
use edge::EdgeCore;
use serde_json::Value;

use crate::actors::DeliveredMessages;
use crate::api_store::WantedPods;
use crate::telemetry::UploadLog;
use crate::trace::Trace;
use crate::violations::{Violations, note};

/// Whose answer is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// That a batch of the cloud's is committed.
    Node,
    /// That reports of the node are taken.
    Cloud,
}

/// Waits at a node's network paths for something that will be answered, and lets no answer through.
#[derive(Clone)]
pub(crate) struct AnswerLoss {
    network_paths: Vec<NetworkPath>,
    laid: Arc<AtomicU8>,
    struck: Arc<AtomicUsize>,
}

impl AnswerLoss {
    pub(crate) fn at(network_paths: &[NetworkPath]) -> AnswerLoss {
        AnswerLoss { network_paths: network_paths.to_vec(), laid: Arc::default(), struck: Arc::default() }
    }

    pub(crate) fn lay(&self, side: Side) {
        self.laid.store(side as u8 + 1, Ordering::Relaxed);
    }

    pub(crate) fn lift(&self) {
        self.laid.store(0, Ordering::Relaxed);
    }

    /// An actor of this side is about to be delivered what it will answer.
    fn answer(&self, side: Side) {
        let laid = side as u8 + 1;
        if self.laid.compare_exchange(laid, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.network_paths.iter().for_each(NetworkPath::fall_silent);
            self.struck.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often it has struck.
    pub(crate) fn struck(&self) -> usize {
        self.struck.load(Ordering::Relaxed)
    }
}

/// The newest version of each object that was ever sent to a node, with its content's hash.
pub(crate) type Newest = Arc<Mutex<BTreeMap<ObjectKey, (u64, String)>>>;

/// The probes of a node.
#[derive(Clone)]
pub(crate) struct NodeProbes {
    pub(crate) name: NodeName,
    pub(crate) trace: Trace,
    pub(crate) answer_loss: AnswerLoss,
    pub(crate) newest: Newest,
    pub(crate) violations: Violations,
    pub(crate) delivered: DeliveredMessages,
    /// In the API.
    pub(crate) wanted: WantedPods,
}

impl NodeProbes {
    pub(crate) fn watch(self, core: &EdgeCore) {
        self.only_note::<TwinMsg>(core, "edge-devicetwin");
        self.only_note::<DeviceRulesMsg>(core, "edge-devicerules");
        self.only_note::<EdgedMsg>(core, "edge-edged");
        self.only_note::<EdgeHubMsg>(core, "edge-hub");
        self.only_note::<EventBusMsg>(core, "edge-eventbus");
        self.only_note::<EdgeStreamMsg>(core, "edge-stream");
        self.only_note::<EdgeTaskMsg>(core, "edge-taskmanager");
        let tapped = core.tap(META_MAILBOX, move |message: &MetaMsg| {
            self.trace.note(self.name.as_str(), format_args!("{META_MAILBOX} {message:?}"));
            self.delivered.note(META_MAILBOX, message.name());
            if let MetaMsg::Down(MetaDown::Apply { changes, .. }) = message {
                self.no_older_after_newer(changes);
                self.nothing_deleted_that_stays(changes);
                self.answer_loss.answer(Side::Node);
            }
        });
        tapped.expect("nobody else looks on");
    }

    fn only_note<M: Message + Debug>(&self, core: &EdgeCore, mailbox: &'static str) {
        let (trace, name, delivered) = (self.trace.clone(), self.name.clone(), self.delivered.clone());
        let see = move |message: &M| {
            trace.note(name.as_str(), format_args!("{mailbox} {message:?}"));
            delivered.note(mailbox, message.name());
        };
        core.tap(mailbox, see).expect("nobody else looks on");
    }

    /// The pods of a run never move to another node.
    fn nothing_deleted_that_stays(&self, changes: &[Change]) {
        for change in changes {
            if let Change::Delete { key, .. } = change
                && key.resource == PODS
                && self.wanted.has(&key.name)
            {
                note(&self.violations, format!("{} is told to delete {}, which stays", self.name, key.name));
            }
        }
    }

    /// What is older than what was delivered before is never applied: versions of the API only grow. Another CloudCore may have last sent
    /// the same content under an earlier version, and that is as new.
    fn no_older_after_newer(&self, changes: &[Change]) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            let Change::Upsert(object) = change else { continue };
            let version = resource_version(&object.json).parse().unwrap_or(0);
            let now = (version, object.content_hash.clone());
            let held = newest.entry(object.key.clone()).or_insert_with(|| now.clone());
            if now.0 < held.0 && now.1 != held.1 {
                let what = format!("{}: {} at {version} after {}", self.name, object.key.name, held.0);
                note(&self.violations, what);
            }
            if now.0 > held.0 {
                *held = now;
            }
        }
    }
}

/// The version that the API gave an object as a node holds it: what sync compares is made of the content alone.
fn resource_version(json: &[u8]) -> String {
    let object: Value = serde_json::from_slice(json).unwrap_or_default();
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned()
}

/// The probes of a CloudCore.
#[derive(Clone)]
pub(crate) struct CloudProbes {
    pub(crate) name: String,
    pub(crate) trace: Trace,
    pub(crate) upload_log: UploadLog,
    /// By node.
    pub(crate) answer_losses: Arc<Mutex<BTreeMap<NodeName, AnswerLoss>>>,
    pub(crate) delivered: DeliveredMessages,
}

impl CloudProbes {
    pub(crate) fn watch(&self, hive: &Hive) {
        self.tap(hive, "cloud-hub", |_, _: &CloudHubMsg| {});
        self.tap(hive, "cloud-nodelease", |_, _: &NodeLeaseMsg| {});
        self.tap(hive, "certificates", |_, _: &CertificatesMsg| {});
        self.tap(hive, "cloud-stream", |_, _: &CloudStreamMsg| {});
        self.tap(hive, "cloud-synccontroller", |_, _: &SyncMsg| {});
        self.tap(hive, TASK_MAILBOX, |_, _: &CloudTaskMsg| {});
        self.tap(hive, EDGE_MAILBOX, |probes, message: &EdgeControllerMsg| {
            if let EdgeControllerMsg::Up { node, message: EdgeUp::Reports { .. }, .. } = message {
                probes.answer(node);
            }
        });
        self.tap(hive, DEVICE_MAILBOX, |probes, message: &DeviceControllerMsg| {
            if let DeviceControllerMsg::Up { node, message: DeviceUp::Reports { .. }, .. } = message {
                probes.answer(node);
            }
        });
        self.tap(hive, ROUTER_MAILBOX, |probes, message: &RouterMsg| {
            let RouterMsg::Up { node, message: RouterUp::Telemetry { uploads, .. } } = message else {
                return;
            };
            if let Ok(uploads) = uploads.clone().open() {
                probes.upload_log.see(node, &uploads.items);
            }
            probes.answer(node);
        });
    }

    fn tap<M: Message + Debug>(&self, hive: &Hive, mailbox: &'static str, judge: fn(&CloudProbes, &M)) {
        let probes = self.clone();
        let see = move |message: &M| {
            probes.trace.note(&probes.name, format_args!("{mailbox} {message:?}"));
            probes.delivered.note(mailbox, message.name());
            judge(&probes, message);
        };
        hive.tap(mailbox, see).expect("nobody else looks on");
    }

    fn answer(&self, node: &NodeName) {
        let answer_losses = self.answer_losses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer_loss) = answer_losses.get(node) {
            answer_loss.answer(Side::Cloud);
        }
    }
}
