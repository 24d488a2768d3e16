//! One pod whose image is present, from the request that creates it to Running in a watch, beside the three CRI calls
//! that no node can do without, on the same runtime and in turn.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use cri::v1::{ContainerFilter, PodSandboxFilter};
use cri::{Grpc, Runtime};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;

use crate::bare_pod::{BarePod, Started};
use crate::proc;
use crate::stats::Summary;
use crate::table::{Bar, Row, Table, say};
use crate::testbed::Testbed;

/// kubelet 2.0 times, KubeEdge 5.9 times.
const TIMES_MAX: f64 = 1.25;
/// For a cold, shared machine.
const LONG: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What the container does: it waits.
const COMMAND: [&str; 2] = ["sleep", "100000"];
/// Between a tear-down and the next start, so that nothing of it is left to do.
const REST: Duration = Duration::from_millis(500);

pub(crate) fn run(binaries: &Path, rounds: u32) -> Result<Table> {
    say("\npod-start: bringing up a node …");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(binaries, rounds))
}

/// What one start took, in milliseconds: the whole, and where it went.
#[derive(Default)]
struct Times(Vec<(&'static str, Vec<f64>)>);

impl Times {
    fn add(&mut self, what: &'static str, millis: f64) {
        match self.0.iter_mut().find(|(name, _)| *name == what) {
            Some((_, samples)) => samples.push(millis),
            None => self.0.push((what, vec![millis])),
        }
    }

    fn of(&self, what: &str) -> Option<Summary> {
        self.0.iter().find(|(name, _)| *name == what).and_then(|(_, samples)| Summary::of(samples))
    }
}

async fn measure(binaries: &Path, rounds: u32) -> Result<Table> {
    let mut testbed = Testbed::new(binaries).await?;
    let endpoint = testbed.host.endpoint();
    let runtime = Grpc::new(&endpoint, &endpoint, LONG)?;
    let pods: Api<Pod> = Api::default_namespaced(testbed.client.clone());
    // Once each way, so that every page and every connection is warm for both.
    bare(&runtime, &testbed, "warm", &mut Times::default()).await?;
    ours(&pods, &runtime, "warm", &mut Times::default()).await?;
    let (mut raw, mut own) = (Times::default(), Times::default());
    for round in 0..rounds {
        testbed.edgecore.check()?;
        testbed.cloudcore.check()?;
        let name = format!("p{round}");
        // Neither is always the one that comes second.
        if round % 2 == 0 {
            bare(&runtime, &testbed, &name, &mut raw).await?;
            ours(&pods, &runtime, &name, &mut own).await?;
        } else {
            ours(&pods, &runtime, &name, &mut own).await?;
            bare(&runtime, &testbed, &name, &mut raw).await?;
        }
    }
    let mut table = Table::new("pod-start: one pod, image present");
    let whole = (own.of(WHOLE).context("no start")?, raw.of(WHOLE).context("no bare start")?);
    table.add(Row {
        what: "create → Running in a watch".to_owned(),
        unit: "ms",
        ours: whole.0,
        reference: Some(("bare CRI calls", whole.1)),
        bar: Bar::Times(TIMES_MAX),
    });
    table.print();
    say("where it went, medians in ms after the request:");
    for (what, samples) in own.0.iter().filter(|(name, _)| *name != WHOLE) {
        say(&format!("  {:>6.1}  {what}", Summary::of(samples).map_or(f64::NAN, |summary| summary.median)));
    }
    say("the bare calls, medians in ms:");
    for (what, samples) in raw.0.iter().filter(|(name, _)| *name != WHOLE) {
        say(&format!("  {:>6.1}  {what}", Summary::of(samples).map_or(f64::NAN, |summary| summary.median)));
    }
    let edge = proc::memory(testbed.edgecore.id())?;
    say(&format!("edgecore after it: {} MB resident, {} threads", edge.resident / 1_000_000, edge.threads));
    Ok(table)
}

const WHOLE: &str = "whole";

async fn bare(runtime: &Grpc, testbed: &Testbed, name: &str, times: &mut Times) -> Result<()> {
    let (pod, started) = BarePod::start(runtime, testbed.host.dir(), name, &COMMAND).await?;
    let Started { sandboxed, created, whole } = started;
    times.add(WHOLE, millis(whole));
    times.add("RunPodSandbox", millis(sandboxed));
    times.add("CreateContainer", millis(created.saturating_sub(sandboxed)));
    times.add("StartContainer", millis(whole.saturating_sub(created)));
    pod.end(runtime, Duration::ZERO).await?;
    tokio::time::sleep(REST).await;
    Ok(())
}

async fn ours(pods: &Api<Pod>, runtime: &Grpc, name: &str, times: &mut Times) -> Result<()> {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "c", "image": testhost::BUSYBOX, "command": COMMAND}],
        },
    }))?;
    let only = format!("metadata.name={name}");
    let since = pods.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
    let mut events = pods.watch(&WatchParams::default().fields(&only), &since).await?.boxed();
    let (begun, wall) = (Instant::now(), SystemTime::now());
    let create = async {
        pods.create(&PostParams::default(), &pod).await?;
        anyhow::Ok(begun.elapsed())
    };
    let watch = async {
        let mut bound = None;
        while let Some(event) = events.next().await {
            let (WatchEvent::Added(pod) | WatchEvent::Modified(pod)) = event? else { continue };
            if bound.is_none() && pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()) {
                bound = Some(begun.elapsed());
            }
            if pod.status.and_then(|status| status.phase).as_deref() == Some("Running") {
                return anyhow::Ok((bound.unwrap_or_default(), begun.elapsed()));
            }
        }
        bail!("the watch ended")
    };
    let (answered, seen) = tokio::time::timeout(LONG, async { futures::join!(create, watch) })
        .await
        .with_context(|| format!("pod {name} is not Running after {} s", LONG.as_secs()))?;
    let (bound, running) = seen?;
    times.add(WHOLE, millis(running));
    times.add("the create was answered", millis(answered?));
    times.add("bound to the node, in the watch", millis(bound));
    let origin = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    by_the_runtime(runtime, name, origin, times).await?;
    times.add("Running, in the watch", millis(running));
    end(pods, runtime, name).await
}

/// What the runtime wrote down about the pod.
async fn by_the_runtime(runtime: &Grpc, name: &str, origin: Duration, times: &mut Times) -> Result<()> {
    let after = |nanos: i64| {
        let at = Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
        millis(at.saturating_sub(origin))
    };
    let labels = of_pod(name);
    let sandboxes = runtime
        .list_sandboxes(PodSandboxFilter { label_selector: labels.clone(), ..Default::default() })
        .await?;
    let containers =
        runtime.list_containers(ContainerFilter { label_selector: labels, ..Default::default() }).await?;
    let ([sandbox], [container]) = (sandboxes.as_slice(), containers.as_slice()) else {
        bail!("{} sandboxes and {} containers of one pod", sandboxes.len(), containers.len())
    };
    let status = runtime.container_status(&container.id).await?;
    times.add("sandbox recorded by the runtime", after(sandbox.created_at));
    times.add("container made by the runtime", after(status.created_at));
    times.add("container started by the runtime", after(status.started_at));
    Ok(())
}

/// Deletes the pod and waits until nothing of it is left.
async fn end(pods: &Api<Pod>, runtime: &Grpc, name: &str) -> Result<()> {
    pods.delete(name, &DeleteParams::default()).await?;
    let begun = Instant::now();
    while begun.elapsed() < LONG {
        let filter = PodSandboxFilter { label_selector: of_pod(name), ..Default::default() };
        if runtime.list_sandboxes(filter).await?.is_empty() && pods.get_opt(name).await?.is_none() {
            tokio::time::sleep(REST).await;
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    bail!("pod {name} is not gone {} s after its deletion", LONG.as_secs())
}

fn of_pod(name: &str) -> HashMap<String, String> {
    HashMap::from([("io.kubernetes.pod.name".to_owned(), name.to_owned())])
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
