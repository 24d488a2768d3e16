//! The nodes that stay while the others come back: what the storm costs them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use beehive::Env;
use beehive::link::quic::Credentials;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::cloud::{self, Cloud};
use super::edge::{Edge, NodeStats};
use super::names::{NAMESPACE, name};

const BEAT_EVERY: Duration = Duration::from_secs(1);
/// A change that has not arrived by then was lost.
const ARRIVES_WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Milliseconds from the request to the API until the node held the change, of each change.
type LatenciesMs = Vec<f64>;

/// An order to send changes until the flag is set.
struct SendOrder {
    over: Arc<AtomicBool>,
    answer: oneshot::Sender<Result<LatenciesMs>>,
}

/// The thread on which these nodes live.
pub(super) struct Watchers {
    orders: Option<mpsc::Sender<SendOrder>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchers {
    pub(super) fn start(cloud: &Cloud, nodes: Vec<(Credentials, Arc<NodeStats>)>) -> Result<Watchers> {
        let (orders, waiting) = mpsc::channel::<SendOrder>(1);
        let (port, kubeconfig) = (cloud.port(), cloud.kubeconfig());
        let thread = std::thread::Builder::new().name("watchers".to_owned()).spawn(move || {
            // Whoever waits for an answer gets none.
            let _ = actix_rt::System::new().block_on(serve(port, &kubeconfig, nodes, waiting));
        });
        Ok(Watchers { orders: Some(orders), thread: Some(thread.context("start a thread")?) })
    }

    /// Sends each node a change a second while `during` goes on, and waits for the last of them.
    pub(super) async fn beats<T>(&self, during: impl Future<Output = Result<T>>) -> Result<(LatenciesMs, T)> {
        let (over, (answer, took)) = (Arc::new(AtomicBool::new(false)), oneshot::channel());
        let order = SendOrder { over: Arc::clone(&over), answer };
        let orders = self.orders.as_ref().context("the watchers are gone")?;
        orders.send(order).await.ok().context("the watchers have ended")?;
        let done = during.await;
        over.store(true, Ordering::Relaxed);
        Ok((took.await.context("the watchers have ended")??, done?))
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Starts the nodes, and does as ordered.
async fn serve(
    port: u16,
    kubeconfig: &Path,
    nodes: Vec<(Credentials, Arc<NodeStats>)>,
    mut waiting: mpsc::Receiver<SendOrder>,
) -> Result<()> {
    let (env, client, beat) = (Env::real(), cloud::client(kubeconfig).await?, AtomicU64::new(0));
    let mut edges = Vec::new();
    for (number, (credentials, stats)) in nodes.iter().enumerate() {
        edges.push(Edge::start(&env, &name(number), port, credentials, stats)?);
    }
    let stats: Vec<_> = nodes.into_iter().map(|(_, stats)| stats).collect();
    while let Some(SendOrder { over, answer }) = waiting.recv().await {
        let _ = answer.send(beats(&client, &stats, &beat, &over).await);
    }
    Ok(())
}

async fn beats(
    client: &kube::Client,
    nodes: &[Arc<NodeStats>],
    beat: &AtomicU64,
    over: &AtomicBool,
) -> Result<LatenciesMs> {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), NAMESPACE);
    let count = u32::try_from(nodes.len())?;
    let senders = nodes.iter().enumerate().map(|(number, stats)| {
        let maps = maps.clone();
        async move {
            let mut sent = Vec::new();
            // Not all in the same instant.
            tokio::time::sleep(BEAT_EVERY * u32::try_from(number)? / count).await;
            while !over.load(Ordering::Relaxed) {
                let (beat, at) = (beat.fetch_add(1, Ordering::Relaxed), Instant::now());
                sent.push((beat, at));
                let patch = Patch::Merge(json!({"data": {"beat": beat.to_string()}}));
                maps.patch(&name(number), &PatchParams::default(), &patch).await.context("send a beat")?;
                tokio::time::sleep(BEAT_EVERY.saturating_sub(at.elapsed())).await;
            }
            arrivals(stats, &sent).await
        }
    });
    Ok(futures::future::try_join_all(senders).await?.into_iter().flatten().collect())
}

/// Waits until the last of `sent` has arrived. One that a later one has overtaken arrived with that.
async fn arrivals(stats: &NodeStats, sent: &[(u64, Instant)]) -> Result<LatenciesMs> {
    let Some((last, _)) = sent.last() else { return Ok(Vec::new()) };
    let begun = Instant::now();
    while !stats.beats().contains_key(last) {
        anyhow::ensure!(begun.elapsed() < ARRIVES_WITHIN, "a change to a node that stayed did not arrive");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let beats = stats.beats();
    let arrived = sent.iter().filter_map(|(beat, at)| {
        beats.range(beat..).map(|(_, seen)| seen.saturating_duration_since(*at)).next()
    });
    Ok(arrived.map(|took| took.as_secs_f64() * 1000.0).collect())
}
