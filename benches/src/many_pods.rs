//! Many pods at once whose image is present: from the first request that creates one to the last Running in a watch, and from
//! the first request that deletes one until nothing is left, beside the bare CRI calls for as many, as many at a time as the
//! runtime is fastest with.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cri::Grpc;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;

use crate::bare_pod::BarePod;
use crate::stats::Summary;
use crate::table::{Bar, Row, Table, say};
use crate::testbed::Testbed;

/// A kubelet on the same machine: 2.5 times.
const LAST_TIMES_MAX: f64 = 1.3;
/// Half if each pod takes as long and they come one after another; a kubelet: nearly all of it.
const MEDIAN_OF_LAST_MAX: f64 = 0.65;
/// A kubelet: 1.6 times.
const ENDED_TIMES_MAX: f64 = 1.4;
/// 8: more or less of them at a time take longer on two processors.
const AT_A_TIME: usize = 8;
/// Requests under way at a time: enough that the node is never short of work.
const REQUESTS: usize = 16;
/// For a cold, shared machine.
const LONG: Duration = Duration::from_secs(240);
/// Between two measurements, so that nothing of the one is left to do.
const REST: Duration = Duration::from_secs(2);
/// Ends when it is told to. The first process of a container that has no handler for the signal doesn't.
const COMMAND: [&str; 3] = ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"];
/// More than it needs.
const GRACE: Duration = Duration::from_secs(30);

pub(crate) fn run(binaries: &Path, pods: usize, rounds: u32) -> Result<Table> {
    say("\nmany-pods: bringing up a node …");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(binaries, pods, rounds))
}

/// What the rounds took, in seconds.
#[derive(Default)]
struct Times {
    last: Vec<f64>,
    /// Of the last's time.
    median: Vec<f64>,
    ended: Vec<f64>,
}

impl Times {
    /// `running`: when each pod ran, in seconds after the first request.
    fn add(&mut self, running: &[f64], ended: Duration) {
        let Some(summary) = Summary::of(running) else { return };
        let last = running.iter().copied().fold(0.0, f64::max);
        self.last.push(last);
        self.median.push(summary.median / last);
        self.ended.push(ended.as_secs_f64());
    }
}

async fn measure(binaries: &Path, count: usize, rounds: u32) -> Result<Table> {
    let mut testbed = Testbed::new(binaries).await?;
    let endpoint = testbed.host.endpoint();
    let runtime = Grpc::new(&endpoint, &endpoint, LONG)?;
    let pods: Api<Pod> = Api::default_namespaced(testbed.client.clone());
    let folder = testbed.host.dir().join("bench");
    // Every page and every connection is warm for both.
    bare(&runtime, &folder, "warm", 4).await?;
    ours(&pods, "warm", 4).await?;
    let (mut raw, mut own) = (Times::default(), Times::default());
    for round in 0..rounds {
        testbed.edgecore.check()?;
        testbed.cloudcore.check()?;
        let name = format!("r{round}");
        // Neither is always the one that comes second.
        for turn in 0..2 {
            if (round + turn) % 2 == 0 {
                let (running, ended) = bare(&runtime, &folder, &name, count).await?;
                raw.add(&running, ended);
            } else {
                let (running, ended) = ours(&pods, &name, count).await?;
                own.add(&running, ended);
            }
        }
        if let (Some(ours), Some(bare)) = (own.last.last(), raw.last.last())
            && let (Some(end), Some(bare_end)) = (own.ended.last(), raw.ended.last())
        {
            say(&format!(
                "  round {round}: last {ours:.1} s (bare {bare:.1}), ended {end:.1} s (bare {bare_end:.1})"
            ));
        }
    }
    let mut table = Table::new("many-pods: created and deleted at once, image present");
    let mut add = |what: &str, ours: &[f64], reference: &[f64], bar| -> Result<()> {
        let name = "bare CRI calls, 8 at a time";
        table.add(Row {
            what: format!("{count} pods, {what}"),
            unit: "s",
            ours: Summary::of(ours).context("no round")?,
            reference: Some((name, Summary::of(reference).context("no bare round")?)),
            bar,
        });
        Ok(())
    };
    add("the last is Running in a watch", &own.last, &raw.last, Bar::Times(LAST_TIMES_MAX))?;
    add("all have ended and are gone", &own.ended, &raw.ended, Bar::Times(ENDED_TIMES_MAX))?;
    table.add(Row {
        what: format!("{count} pods, the middle one is Running after"),
        unit: "of the last",
        ours: Summary::of(&own.median).context("no round")?,
        reference: Some(("bare CRI calls, 8 at a time", Summary::of(&raw.median).context("no bare round")?)),
        bar: Bar::AtMost(MEDIAN_OF_LAST_MAX),
    });
    table.print();
    Ok(table)
}

async fn bare(runtime: &Grpc, folder: &Path, name: &str, count: usize) -> Result<(Vec<f64>, Duration)> {
    let begun = Instant::now();
    let started: Vec<(BarePod, f64)> = futures::stream::iter(0..count)
        .map(|number| async move {
            let name = format!("{name}-{number}");
            let (pod, _) = BarePod::start(runtime, folder, &name, &COMMAND).await?;
            anyhow::Ok((pod, begun.elapsed().as_secs_f64()))
        })
        .buffer_unordered(AT_A_TIME)
        .try_collect()
        .await?;
    tokio::time::sleep(REST).await;
    let (pods, running): (Vec<BarePod>, Vec<f64>) = started.into_iter().unzip();
    let begun = Instant::now();
    futures::stream::iter(pods)
        .map(|pod| pod.end(runtime, GRACE))
        .buffer_unordered(AT_A_TIME)
        .try_collect::<Vec<()>>()
        .await?;
    let ended = begun.elapsed();
    tokio::time::sleep(REST).await;
    Ok((running, ended))
}

async fn ours(pods: &Api<Pod>, name: &str, count: usize) -> Result<(Vec<f64>, Duration)> {
    let names: Vec<String> = (0..count).map(|number| format!("{name}-{number}")).collect();
    let since = pods.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
    let begun = Instant::now();
    let create = async {
        let requests =
            futures::stream::iter(&names).map(|name| create(pods, name)).buffer_unordered(REQUESTS);
        requests.try_collect::<Vec<()>>().await
    };
    let watch = until_each(pods, &since, count, |event| match event {
        WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
            let runs = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
            runs.then(|| begun.elapsed())
        }
        _ => None,
    });
    let (created, running) = tokio::time::timeout(LONG, async { futures::join!(create, watch) })
        .await
        .with_context(|| format!("{count} pods are not Running after {} s", LONG.as_secs()))?;
    created?;
    let running = running?.values().map(Duration::as_secs_f64).collect();
    tokio::time::sleep(REST).await;
    let since = pods.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
    let begun = Instant::now();
    let delete = async {
        let gone = |name: &String| {
            let name = name.clone();
            async move { pods.delete(&name, &DeleteParams::default()).await.map(drop) }
        };
        let requests = futures::stream::iter(&names).map(gone).buffer_unordered(REQUESTS);
        requests.try_collect::<Vec<()>>().await
    };
    let watch = until_each(pods, &since, count, |event| match event {
        WatchEvent::Deleted(_) => Some(begun.elapsed()),
        _ => None,
    });
    let (deleted, gone) = tokio::time::timeout(LONG, async { futures::join!(delete, watch) })
        .await
        .with_context(|| format!("{count} pods are not gone after {} s", LONG.as_secs()))?;
    deleted?;
    let ended = gone?.into_values().max().unwrap_or_default();
    tokio::time::sleep(REST).await;
    Ok((running, ended))
}

async fn create(pods: &Api<Pod>, name: &str) -> Result<()> {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": GRACE.as_secs(),
            "containers": [{"name": "c", "image": testhost::BUSYBOX, "command": COMMAND}],
        },
    }))?;
    pods.create(&PostParams::default(), &pod).await.map(drop).with_context(|| format!("create pod {name}"))
}

/// Watches until `when` has said something of `count` pods, the first time of each.
async fn until_each(
    pods: &Api<Pod>,
    since: &str,
    count: usize,
    mut when: impl FnMut(&WatchEvent<Pod>) -> Option<Duration>,
) -> Result<BTreeMap<String, Duration>> {
    let mut events = pods.watch(&WatchParams::default(), since).await?.boxed();
    let mut seen = BTreeMap::new();
    while seen.len() < count {
        let Some(event) = events.next().await else { bail!("the watch ended") };
        let event = event?;
        let (WatchEvent::Added(pod) | WatchEvent::Modified(pod) | WatchEvent::Deleted(pod)) = &event else {
            continue;
        };
        let name = pod.metadata.name.clone().unwrap_or_default();
        if let Some(at) = when(&event) {
            seen.entry(name).or_insert(at);
        }
    }
    Ok(seen)
}
