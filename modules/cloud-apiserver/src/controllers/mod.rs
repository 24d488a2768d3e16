//! What a single box needs beside an API server: a scheduler of the plain kind, and the controllers that keep
//! deployments, replica sets, namespaces, service accounts, endpoints, owner references and nodes' lifecycle.
//!
//! # Owns
//! Caches of what it watches, and what it has written and not seen come back yet.
//! # Accepts
//! The changes that its watches tell.
//! # Tells
//! The API server, through a client like anybody else's.
//! # Keeps across a restart
//! Nothing: it lists again. Timers of nodes and evictions start anew.
//! # Never
//! Acts on half a list, writes over what it has not read, or deletes an object that only has the name of the one it
//! means.
//!
//! Each controller looks at the caches as they are and does what is missing (level-triggered): whatever it missed, it
//! sees at the next look. Decisions are pure functions in `plan.rs`, effects are in `mod.rs`.

mod accounts;
mod api_error;
mod cache;
mod claim;
mod deployment;
mod discover;
mod endpoints;
mod garbage;
mod lifecycle;
mod namespace;
mod object;
mod replicaset;
mod requests;
mod resource;
mod retry;
mod scheduler;
mod selector;
mod write;

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::Duration;

use apimachinery::kind;
use beehive::Env;
use futures::FutureExt;
use futures::future::{LocalBoxFuture, join_all};
use tokio::sync::Notify;

use cache::{Cache, Part};
use retry::Retry;
use write::Writer;

/// 5 ms: the changes of one `kubectl apply` become one look at the caches.
const LOOK_PAUSE: Duration = Duration::from_millis(5);
/// A look at thousands of objects takes its time; it is followed by a pause of this many times that, so that changes that
/// never end leave the thread to others, and 1 s at the most.
const PAUSE_TIMES: u32 = 9;
const LOOK_PAUSE_MAX: Duration = Duration::from_secs(1);
/// 8 writes of one controller at once: a slow one does not hold up the others.
const AT_ONCE: usize = 8;
/// 1 s, doubled at each crash up to a minute: how long a crashed controller rests.
const CRASH_PAUSE: Duration = Duration::from_secs(1);
const CRASH_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Leases of nodes live here.
const LEASE_NAMESPACE: &str = "kube-node-lease";
const ROOT_CA: &str = "kube-root-ca.crt";

/// How patient the controllers are. The defaults are those of Kubernetes.
#[derive(Debug, Clone)]
pub struct Settings {
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

impl Default for Settings {
    fn default() -> Self {
        Settings {
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

/// What all controllers read and write with.
struct Shared {
    settings: Settings,
    writer: Writer,
    nodes: Rc<Cache>,
    pods: Rc<Cache>,
    deployments: Rc<Cache>,
    replica_sets: Rc<Cache>,
    services: Rc<Cache>,
    endpoints: Rc<Cache>,
    endpoint_slices: Rc<Cache>,
    namespaces: Rc<Cache>,
    definitions: Rc<Cache>,
    leases: Rc<Cache>,
    accounts: Rc<Cache>,
    root_cas: Rc<Cache>,
}

impl Shared {
    fn new(client: kube::Client, env: Env, settings: Settings) -> Rc<Self> {
        let whole = |kind| Cache::new(kind, Part::Whole);
        Rc::new(Shared {
            settings,
            writer: Writer::new(client, env),
            nodes: whole(kind::NODES),
            pods: whole(kind::PODS),
            deployments: whole(kind::DEPLOYMENTS),
            replica_sets: whole(kind::REPLICA_SETS),
            services: whole(kind::SERVICES),
            endpoints: whole(kind::ENDPOINTS),
            endpoint_slices: whole(kind::ENDPOINT_SLICES),
            namespaces: whole(kind::NAMESPACES),
            definitions: whole(kind::CUSTOM_RESOURCE_DEFINITIONS),
            leases: Cache::new(kind::LEASES, Part::Namespace(LEASE_NAMESPACE)),
            accounts: Cache::new(kind::SERVICE_ACCOUNTS, Part::Named("default")),
            root_cas: Cache::new(kind::CONFIG_MAPS, Part::Named(ROOT_CA)),
        })
    }

    fn env(&self) -> &Env {
        self.writer.env()
    }

    fn retry<K: Ord>(&self) -> Retry<K> {
        Retry::new(self.settings.retry_first, self.settings.retry_most)
    }

    fn caches(&self) -> [&Rc<Cache>; 12] {
        [
            &self.nodes,
            &self.pods,
            &self.deployments,
            &self.replica_sets,
            &self.services,
            &self.endpoints,
            &self.endpoint_slices,
            &self.namespaces,
            &self.definitions,
            &self.leases,
            &self.accounts,
            &self.root_cas,
        ]
    }
}

/// Something that keeps one kind of promise.
trait Controller {
    /// For the log.
    fn name(&self) -> &'static str;
    /// The caches that it looks at; a change of any of them wakes it.
    fn reads(&self) -> Vec<Rc<Cache>>;
    /// Looks, does what is missing, and answers when to look again if nothing changes.
    async fn look(&mut self) -> Option<Duration>;
    /// What wakes it beside its caches.
    fn nudge(&self) -> Option<Rc<Notify>> {
        None
    }
}

/// Runs all controllers until the future is dropped. It never completes.
///
/// What goes wrong in one controller stays there: a crash is caught, told, and the controller starts again.
pub async fn run(client: kube::Client, env: Env, settings: Settings) {
    let shared = Shared::new(client, env, settings);
    let graph = garbage::Graph::new(&shared);
    let mut parts: Vec<LocalBoxFuture<'_, ()>> = vec![
        supervised(&shared, scheduler::Scheduler::new(&shared)).boxed_local(),
        supervised(&shared, deployment::Deployments::new(&shared)).boxed_local(),
        supervised(&shared, replicaset::ReplicaSets::new(&shared)).boxed_local(),
        supervised(&shared, garbage::Garbage::new(&shared, &graph)).boxed_local(),
        supervised(&shared, namespace::Namespaces::new(&shared)).boxed_local(),
        supervised(&shared, accounts::Accounts::new(&shared)).boxed_local(),
        supervised(&shared, endpoints::Endpoints::new(&shared)).boxed_local(),
        supervised(&shared, lifecycle::Lifecycle::new(&shared)).boxed_local(),
    ];
    for cache in shared.caches() {
        parts.push(forever(shared.env(), || cache.watch(shared.writer.client())).boxed_local());
    }
    parts.push(forever(shared.env(), || graph.watch()).boxed_local());
    join_all(parts).await;
}

/// Does it again when it ended or crashed.
async fn forever<F: Future<Output = ()>>(env: &Env, work: impl Fn() -> F) {
    loop {
        if AssertUnwindSafe(work()).catch_unwind().await.is_err() {
            tracing::error!("a watch crashed; it starts again");
        }
        env.sleep(env.jitter(CRASH_PAUSE)).await;
    }
}

async fn supervised(shared: &Shared, mut controller: impl Controller) {
    let nudge = controller.nudge().unwrap_or_default();
    let reads = controller.reads();
    reads.iter().for_each(|cache| cache.tell(&nudge));
    let env = shared.env();
    let mut pause = CRASH_PAUSE;
    loop {
        let since = env.now();
        // Its state outlives the crash: what was written and not seen yet must not be written twice.
        let work = AssertUnwindSafe(work(&mut controller, &reads, &nudge, env)).catch_unwind();
        if work.await.is_ok() {
            return;
        }
        if env.now().since(since) > CRASH_PAUSE_MAX {
            pause = CRASH_PAUSE;
        }
        tracing::error!(controller = controller.name(), "controller crashed; it starts again");
        env.sleep(env.jitter(pause)).await;
        pause = (pause * 2).min(CRASH_PAUSE_MAX);
    }
}

async fn work(controller: &mut impl Controller, reads: &[Rc<Cache>], nudge: &Notify, env: &Env) {
    loop {
        let mut wake = None;
        let begun = env.now();
        if reads.iter().all(|cache| cache.is_listed()) {
            wake = controller.look().await;
        }
        let took = env.now().since(begun);
        match wake {
            Some(pause) => {
                let _ = env.timeout(pause, nudge.notified()).await;
            }
            None => nudge.notified().await,
        }
        env.sleep((PAUSE_TIMES * took).clamp(LOOK_PAUSE, LOOK_PAUSE_MAX)).await;
    }
}
