//! Eyes at every mailbox of a run: what each actor is handed is noted, some of it is judged, and an ambush waits for an
//! answer.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use beehive::link::memory::Cable;
use beehive::{Hive, Message};
use contract::cloudhub::CloudHubMsg;
use contract::devicecontroller::{DeviceControllerMsg, DeviceUp};
use contract::devicetwin::TwinMsg;
use contract::edgecontroller::{EdgeControllerMsg, EdgeUp};
use contract::edged::EdgedMsg;
use contract::edgehub::EdgeHubMsg;
use contract::eventbus::EventBusMsg;
use contract::metamanager::{MetaDown, MetaMsg};
use contract::nodelease::NodeLeaseMsg;
use contract::router::{RouterMsg, RouterUp};
use contract::synccontroller::SyncMsg;
use contract::wire::{DEVICE_MAILBOX, EDGE_MAILBOX, META_MAILBOX, ROUTER_MAILBOX};
use contract::{Change, NodeName, ObjectKey};
use edge::EdgeCore;
use serde_json::Value;

use crate::telemetry::Witness;
use crate::trace::Trace;
use crate::world::{Violations, note};

/// Whose answer is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// That a batch of the cloud's is committed.
    Node,
    /// That reports of the node are taken.
    Cloud,
}

/// Waits at a node's cables for something that will be answered, and lets no answer through.
#[derive(Clone)]
pub(crate) struct Ambush {
    cables: Vec<Cable>,
    laid: Arc<AtomicU8>,
    struck: Arc<AtomicUsize>,
}

impl Ambush {
    pub(crate) fn at(cables: &[Cable]) -> Ambush {
        Ambush { cables: cables.to_vec(), laid: Arc::default(), struck: Arc::default() }
    }

    pub(crate) fn lay(&self, side: Side) {
        self.laid.store(side as u8 + 1, Ordering::Relaxed);
    }

    pub(crate) fn lift(&self) {
        self.laid.store(0, Ordering::Relaxed);
    }

    /// An actor of this side is about to be handed what it will answer.
    fn answer(&self, side: Side) {
        let laid = side as u8 + 1;
        if self.laid.compare_exchange(laid, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.cables.iter().for_each(Cable::fall_silent);
            self.struck.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often it has struck.
    pub(crate) fn struck(&self) -> usize {
        self.struck.load(Ordering::Relaxed)
    }
}

/// The newest version of each object that was ever committed on a node.
pub(crate) type Newest = Arc<Mutex<BTreeMap<ObjectKey, u64>>>;

/// What looks on at a node.
#[derive(Clone)]
pub(crate) struct NodeEyes {
    pub(crate) name: NodeName,
    pub(crate) trace: Trace,
    pub(crate) ambush: Ambush,
    pub(crate) newest: Newest,
    pub(crate) violations: Violations,
}

impl NodeEyes {
    pub(crate) fn watch(self, core: &EdgeCore) {
        self.only_note::<TwinMsg>(core, "edge-devicetwin");
        self.only_note::<EdgedMsg>(core, "edge-edged");
        self.only_note::<EdgeHubMsg>(core, "edge-hub");
        self.only_note::<EventBusMsg>(core, "edge-eventbus");
        let tapped = core.tap(META_MAILBOX, move |message: &MetaMsg| {
            self.trace.note(self.name.as_str(), format_args!("{META_MAILBOX} {message:?}"));
            if let MetaMsg::Down(MetaDown::Apply { changes, .. }) = message {
                self.no_older_after_newer(changes);
                self.ambush.answer(Side::Node);
            }
        });
        tapped.expect("nobody else looks on");
    }

    fn only_note<M: Message + Debug>(&self, core: &EdgeCore, mailbox: &'static str) {
        let (trace, name) = (self.trace.clone(), self.name.clone());
        let see = move |message: &M| trace.note(name.as_str(), format_args!("{mailbox} {message:?}"));
        core.tap(mailbox, see).expect("nobody else looks on");
    }

    /// A version that is older than one which was handed in before is never applied: versions of the API only grow.
    fn no_older_after_newer(&self, changes: &[Change]) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            let Change::Upsert(object) = change else { continue };
            let version = resource_version(&object.json).parse().unwrap_or(0);
            let held = newest.entry(object.key.clone()).or_default();
            if version < *held {
                let what = format!("{}: {} at {version} after {held}", self.name, object.key.name);
                note(&self.violations, what);
            }
            *held = version.max(*held);
        }
    }
}

/// The version that the API gave an object as a node holds it: what sync compares is made of the content alone.
fn resource_version(json: &[u8]) -> String {
    let object: Value = serde_json::from_slice(json).unwrap_or_default();
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned()
}

/// What looks on at a CloudCore.
#[derive(Clone)]
pub(crate) struct CloudEyes {
    pub(crate) name: String,
    pub(crate) trace: Trace,
    pub(crate) witness: Witness,
    /// By node.
    pub(crate) ambushes: Arc<Mutex<BTreeMap<NodeName, Ambush>>>,
}

impl CloudEyes {
    pub(crate) fn watch(&self, hive: &Hive) {
        self.tap(hive, "cloud-hub", |_, _: &CloudHubMsg| {});
        self.tap(hive, "cloud-nodelease", |_, _: &NodeLeaseMsg| {});
        self.tap(hive, "cloud-synccontroller", |_, _: &SyncMsg| {});
        self.tap(hive, EDGE_MAILBOX, |eyes, message: &EdgeControllerMsg| {
            if let EdgeControllerMsg::Up { node, message: EdgeUp::Reports { .. }, .. } = message {
                eyes.answer(node);
            }
        });
        self.tap(hive, DEVICE_MAILBOX, |eyes, message: &DeviceControllerMsg| {
            if let DeviceControllerMsg::Up { node, message: DeviceUp::Reports { .. }, .. } = message {
                eyes.answer(node);
            }
        });
        self.tap(hive, ROUTER_MAILBOX, |eyes, message: &RouterMsg| {
            let RouterMsg::Up { node, message: RouterUp::Telemetry { uploads, .. } } = message;
            if let Ok(uploads) = uploads.clone().open() {
                eyes.witness.see(node, &uploads.items);
            }
            eyes.answer(node);
        });
    }

    fn tap<M: Message + Debug>(&self, hive: &Hive, mailbox: &'static str, judge: fn(&CloudEyes, &M)) {
        let eyes = self.clone();
        let see = move |message: &M| {
            eyes.trace.note(&eyes.name, format_args!("{mailbox} {message:?}"));
            judge(&eyes, message);
        };
        hive.tap(mailbox, see).expect("nobody else looks on");
    }

    fn answer(&self, node: &NodeName) {
        let ambushes = self.ambushes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ambush) = ambushes.get(node) {
            ambush.answer(Side::Cloud);
        }
    }
}
