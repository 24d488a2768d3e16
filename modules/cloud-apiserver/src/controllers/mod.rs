//! What a single box needs beside an API server: a scheduler of the plain kind, and the controllers that keep
//! deployments, replica sets, namespaces, service accounts, endpoints, owner references and nodes' lifecycle.
//!
//! # Owns
//! Informer caches of what it watches, and what each controller has written and not seen come back yet.
//! # Accepts
//! The changes that its watches tell.
//! # Tells
//! The API server, through a client like anybody else's.
//! # Keeps across a restart
//! Nothing. A controller that begins anew waits until the requests of its predecessor are answered ([`in_flight`]), then for lists that
//! began after that, and only then reconciles: whatever was written is in these lists, so that nothing is written twice. Timers
//! of nodes and evictions start anew.
//! # Never
//! Acts on half a list, writes over what it has not read, or deletes an object that only has the name of the one it
//! means.
//!
//! Each controller reads the caches as they are and does what is missing (level-triggered): whatever it missed, it
//! sees the next time. Decisions are pure functions in `plan.rs`, effects are in `mod.rs`. The manager ([`actor`]) starts informers
//! ([`informer`]) and controllers ([`controller`]) as its children; an informer tells the controllers that read its cache.

mod actor;
mod api_error;
mod backoff;
mod client;
mod controller;
mod controller_ref;
mod deployment;
mod discovery;
mod endpoints;
mod garbagecollector;
mod in_flight;
mod informer;
mod informer_cache;
mod namespace;
mod nodelifecycle;
mod object;
mod replicaset;
mod requests;
mod resource;
mod scheduler;
mod selector;
mod serviceaccount;

use std::rc::Rc;
use std::time::Duration;

use apimachinery::NamespacedName;
use beehive::{Env, Policy};

use crate::events;
use backoff::Backoff;
use client::ApiClient;
use in_flight::InFlight;
use informer::Lister;

pub use actor::ControllerManagerMsg;
pub(crate) use actor::{declare_children, supervise};

/// 8 requests of one controller at once: a slow one does not hold up the others.
const AT_ONCE: usize = 8;
/// Leases of nodes live here.
const LEASE_NAMESPACE: &str = "kube-node-lease";
const ROOT_CA: &str = "kube-root-ca.crt";

/// How patient the controllers are. The defaults are those of Kubernetes.
#[derive(Debug, Clone)]
pub struct ControllerSettings {
    /// The certificate of the API server's CA, for `kube-root-ca.crt` in every namespace.
    pub ca_pem: String,
    /// How long a node may be silent before it is Unknown.
    pub node_grace: Duration,
    /// The same for a node that was never heard of.
    pub node_startup_grace: Duration,
    /// How often nodes are looked at when nothing happens.
    pub node_check_period: Duration,
    /// How long pods of a node that does not exist are kept.
    pub lost_node_grace: Duration,
    /// How often kinds are discovered anew when no definition changes.
    pub discovery_period: Duration,
    /// The first wait after a failed write; it doubles with each failure.
    pub retry_first: Duration,
    /// The longest wait after a failed write.
    pub retry_most: Duration,
}

impl Default for ControllerSettings {
    fn default() -> Self {
        ControllerSettings {
            ca_pem: String::new(),
            node_grace: Duration::from_secs(40),
            node_startup_grace: Duration::from_secs(60),
            node_check_period: Duration::from_secs(5),
            lost_node_grace: Duration::from_secs(40),
            discovery_period: Duration::from_secs(30),
            retry_first: Duration::from_millis(100),
            retry_most: Duration::from_secs(30),
        }
    }
}

/// The caches that controllers read.
struct Listers {
    nodes: Rc<Lister>,
    pods: Rc<Lister>,
    deployments: Rc<Lister>,
    replica_sets: Rc<Lister>,
    services: Rc<Lister>,
    endpoints: Rc<Lister>,
    endpoint_slices: Rc<Lister>,
    namespaces: Rc<Lister>,
    definitions: Rc<Lister>,
    leases: Rc<Lister>,
    accounts: Rc<Lister>,
    root_cas: Rc<Lister>,
}

/// What one controller reads and writes with. It outlives its incarnations.
struct ControllerContext {
    name: &'static str,
    settings: Rc<ControllerSettings>,
    client: ApiClient,
    in_flight: Rc<InFlight>,
    listers: Rc<Listers>,
}

impl ControllerContext {
    fn env(&self) -> &Env {
        self.client.env()
    }

    fn backoff<K: Ord>(&self) -> Backoff<K> {
        Backoff::new(self.settings.retry_first, self.settings.retry_most)
    }

    /// Says that an object could not be reconciled, and why.
    fn failed(&self, object: &NamespacedName, error: &kube::Error) {
        events::reconcile_failed(self.env(), self.name, object, &api_error::message(error));
    }
}

impl std::ops::Deref for ControllerContext {
    type Target = Listers;

    fn deref(&self) -> &Listers {
        &self.listers
    }
}

/// How what the controller manager starts is supervised: who fails again and again rests up to a minute and takes nobody with him;
/// the budget is more than these pauses allow.
fn policy() -> Policy {
    Policy { backoff_max: Duration::from_secs(60), budget: 30, ..Policy::default() }
}
