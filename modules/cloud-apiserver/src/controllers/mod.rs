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
mod settings;
mod turn;

use std::rc::Rc;
use std::time::Duration;

use apimachinery::NamespacedName;
use beehive::{Env, Policy};

use crate::events;
use backoff::Backoff;
use client::ApiClient;
use in_flight::InFlight;
use informer::Lister;
use turn::Turn;

pub use actor::ControllerManagerMsg;
pub(crate) use actor::{declare_children, supervise};
pub use settings::ControllerSettings;

/// 8 requests of one controller at once: a slow one does not hold up the others.
const AT_ONCE: usize = 8;
/// Leases of nodes live here.
const LEASE_NAMESPACE: &str = "kube-node-lease";
const ROOT_CA: &str = "kube-root-ca.crt";

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
    /// Since when it has this thread without having let others work.
    turn: Turn,
}

impl ControllerContext {
    /// Between two of many objects: a pass over all of them does not keep the thread, on which the nodes' links are served, too.
    async fn breathe(&self) {
        self.turn.breathe(self.env()).await;
    }

    fn env(&self) -> &Env {
        self.client.env()
    }

    fn backoff<K: Ord>(&self) -> Backoff<K> {
        Backoff::new(self.settings.retry_first, self.settings.retry_most)
    }

    /// Takes down how the reconcile of an object ended, and when it is tried again. `None`: it failed, which is said.
    fn settle<T>(
        &self,
        backoff: &mut Backoff<NamespacedName>,
        object: NamespacedName,
        result: Result<T, kube::Error>,
    ) -> Option<T> {
        match result {
            Ok(done) => {
                backoff.done(&object);
                Some(done)
            }
            Err(error) => {
                self.failed(&object, &error);
                backoff.failed(object, self.env());
                None
            }
        }
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
