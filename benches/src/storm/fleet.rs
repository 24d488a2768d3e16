//! All the nodes, and what is meant for them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use beehive::Env;
use beehive::link::quic::Credentials;
use cloud_hub::SecretStore;
use contract::NodeName;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::Api;
use kube::api::PostParams;
use noderegistry::{Certificate, EnrolmentRequest, NewToken, Registry, TokenClaims};
use serde_json::json;

use super::STAY;
use super::cloud::Cloud;
use super::edge::{Edge, NodeStats};
use super::names::{NAMESPACE, name};
use super::watchers::Watchers;
use crate::stats::Summary;
use crate::table::say;

/// A year.
const LIFE: Duration = Duration::from_secs(365 * 86_400);
/// Requests to the API at once.
const AT_ONCE: usize = 16;

/// The nodes.
pub(super) struct Fleet {
    /// Of all, those first that stay.
    stats: Vec<Arc<NodeStats>>,
    /// Those that come and go.
    edges: Vec<Edge>,
    /// Those that stay have a thread of their own: what they feel is CloudCore's doing, not this process's.
    pub(super) watchers: Watchers,
    /// Dials before the counting began, in all.
    dials_before: std::cell::Cell<u32>,
}

/// How the nodes found back.
pub(super) struct ReconnectTimes {
    pub(super) linked: Summary,
    pub(super) dials: Summary,
}

impl Fleet {
    /// Makes the nodes' certificates with CloudCore's own authority, enters them in its register, makes three objects for
    /// each, and starts them.
    pub(super) async fn new(cloud: &Cloud, count: usize) -> Result<Fleet> {
        raise_files()?;
        let begun = Instant::now();
        let credentials = certificates(cloud, count).await?;
        say(&format!("  {count} certificates: {:.1} s", begun.elapsed().as_secs_f64()));
        let begun = Instant::now();
        let objects = (0..count).map(|number| make_objects(cloud.client.clone(), name(number)));
        futures::stream::iter(objects).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
        say(&format!("  {} objects in the API: {:.1} s", 3 * count, begun.elapsed().as_secs_f64()));
        let stats: Vec<Arc<NodeStats>> = (0..count).map(|_| Arc::default()).collect();
        let stay = credentials.iter().zip(&stats).take(STAY);
        let stay = stay.map(|(credentials, stats)| (credentials.clone(), Arc::clone(stats))).collect();
        let watchers = Watchers::start(cloud, stay)?;
        let (env, mut edges) = (Env::real(), Vec::with_capacity(count));
        for (number, (credentials, stats)) in credentials.iter().zip(&stats).enumerate().skip(STAY) {
            edges.push(Edge::start(&env, &name(number), cloud.port(), credentials, stats)?);
            // The first ones dial meanwhile.
            tokio::task::yield_now().await;
        }
        Ok(Fleet { stats, edges, watchers, dials_before: std::cell::Cell::new(0) })
    }

    pub(super) fn len(&self) -> usize {
        self.stats.len()
    }

    fn dials_ever(&self) -> u32 {
        self.stats.iter().map(|stats| stats.dials.load(Ordering::Relaxed)).sum()
    }

    /// Dials since the counting began.
    pub(super) fn dials(&self) -> u32 {
        self.dials_ever() - self.dials_before.get()
    }

    /// Forgets what was seen so far.
    pub(super) fn count_anew(&self) {
        self.dials_before.set(self.dials_ever());
        for stats in &self.stats {
            *stats.linked_at() = None;
            stats.ends.store(0, Ordering::Relaxed);
        }
    }

    /// Ends all links but those of the nodes that stay.
    pub(super) async fn end_links(&self) {
        futures::future::join_all(self.edges.iter().map(Edge::end_link)).await;
    }

    /// Whether all but the first few have had a new link since the counting began.
    pub(super) fn is_back(&self, stay: usize) -> bool {
        self.stats.iter().skip(stay).all(|stats| stats.linked_at().is_some())
    }

    /// How many links of those that stay have ended since the counting began.
    pub(super) fn ended(&self) -> u32 {
        self.stats.iter().take(STAY).map(|stats| stats.ends.load(Ordering::Relaxed)).sum()
    }

    /// When the links were back, and how many dials that took on average.
    pub(super) fn pace(&self, since: Instant) -> ReconnectTimes {
        let linked = self.stats.iter().filter_map(|stats| *stats.linked_at());
        let linked: Vec<f64> = linked.map(|at| at.saturating_duration_since(since).as_secs_f64()).collect();
        #[allow(clippy::cast_precision_loss)] // thousands
        let dials = f64::from(self.dials()) / self.stats.len() as f64;
        ReconnectTimes {
            linked: Summary::of(&linked).unwrap_or(Summary::single(f64::NAN)),
            dials: Summary::single(dials),
        }
    }
}

/// Certificates of CloudCore's own authority, entered in its register.
async fn certificates(cloud: &Cloud, count: usize) -> Result<Vec<Credentials>> {
    let env = Env::real();
    let secrets = SecretStore::new(cloud.client.clone());
    let authority = secrets.authority(&env).await?;
    let registry = Registry::new(cloud.client.clone());
    let now = env.wall().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let (id, uses) = ("storm".to_owned(), u32::try_from(count)?);
    let token = NewToken { id: id.clone(), expires_unix: now + LIFE.as_secs(), node: None, uses };
    registry.add_token(&token, now).await?;
    let (mut credentials, mut requests) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for number in 0..count {
        let name = name(number);
        let request = pki::NodeRequest::new(&name)?;
        let issued = authority.sign_node(&request.csr_der, &name, env.wall(), LIFE, env.random_id())?;
        let end = issued.not_after.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        requests.push(EnrolmentRequest {
            claims: TokenClaims { id: id.clone(), node: None },
            token: None,
            node: NodeName::parse(&name)?,
            certificate: Certificate { serial: issued.serial, not_after_unix: end },
            now_unix: now,
        });
        let authority = authority.cert_pem().to_owned();
        credentials.push(Credentials { certificate: issued.pem, key: request.key_pem.into(), authority });
    }
    let joins = requests.iter().map(|request| registry.enrol(request));
    futures::stream::iter(joins).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
    Ok(credentials)
}

/// A pod that is bound to the node, with a ConfigMap and a Secret of its own.
async fn make_objects(client: kube::Client, name: String) -> Result<()> {
    let map: ConfigMap = serde_json::from_value(json!({
        "metadata": {"name": name}, "data": {"settings": "x".repeat(200)},
    }))?;
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": name}, "stringData": {"password": "y".repeat(32)},
    }))?;
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "nodeName": name,
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "app", "image": "example.org/app:1",
                "volumeMounts": [{"name": "settings", "mountPath": "/s"}, {"name": "password", "mountPath": "/p"}],
            }],
            "volumes": [
                {"name": "settings", "configMap": {"name": name}},
                {"name": "password", "secret": {"secretName": name}},
            ],
            // The nodes come and go; the pods stay.
            "tolerations": [{"operator": "Exists"}],
        },
    }))?;
    let how = PostParams::default();
    Api::namespaced(client.clone(), NAMESPACE).create(&how, &map).await.context("make a ConfigMap")?;
    Api::namespaced(client.clone(), NAMESPACE).create(&how, &secret).await.context("make a Secret")?;
    Api::namespaced(client, NAMESPACE).create(&how, &pod).await.context("make a pod")?;
    Ok(())
}

/// Each node has a socket, and more.
fn raise_files() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("raise the limit of open files")
}
