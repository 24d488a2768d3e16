//! A copy out of a pod fills a narrow uplink, while things change.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::AsyncReadExt as _;

use crate::config_map_pod::ConfigMapPod;
use crate::relay::LinkFault;
use crate::testbed::LONG;
use crate::{Console, Outcome, Samples, Testbed};

/// 32 kB/s: an uplink of 256 kbit/s.
const UPLINK: u32 = 32_000;
/// From `kubectl patch` to the change in the pod.
const BAR: Duration = Duration::from_secs(5);
/// A change every 5 s.
const CHANGE_EVERY: Duration = Duration::from_secs(5);
/// The copy has at least this part of the line: else it was not full, and nothing was shown.
const PART: f64 = 0.5;

/// How it is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long the copy goes on.
    pub length: Duration,
    /// Whether a late change is a violation; how a loaded machine fares is no matter in a test.
    pub judge_time: bool,
}

/// Runs it.
pub async fn run(testbed: &mut Testbed, options: &Options, console: &Console) -> Outcome {
    Outcome::of("a copy fills an uplink of 256 kbit/s", async |outcome| {
        story(testbed, options, console, outcome).await
    })
    .await
}

async fn story(
    testbed: &mut Testbed,
    options: &Options,
    console: &Console,
    outcome: &mut Outcome,
) -> Result<()> {
    let mut map_pod = ConfigMapPod::new(testbed).await?;
    let pod = map_pod.pod().to_owned();
    map_pod.testbed.relay.inject(LinkFault::NarrowUp(UPLINK));
    // What nothing compresses, and never ends.
    let mut copy = map_pod
        .testbed
        .kubectl
        .command(&["exec", &pod, "--", "cat", "/dev/urandom"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .context("start kubectl exec")?;
    let copied = Arc::new(AtomicU64::new(0));
    let mut out = copy.stdout.take().context("kubectl has no output")?;
    let counted = Arc::clone(&copied);
    let counting = tokio::spawn(async move {
        let mut chunk = vec![0; 64 << 10];
        while let Ok(length @ 1..) = out.read(&mut chunk).await {
            counted.fetch_add(length as u64, Ordering::Relaxed);
        }
    });
    map_pod
        .testbed
        .until("the copy has begun", LONG, async |_| {
            Ok((copied.load(Ordering::Relaxed) > u64::from(UPLINK)).then_some(()))
        })
        .await?;
    let (begun, before) = (Instant::now(), copied.load(Ordering::Relaxed));
    let (mut changes, mut looks) = (Samples::default(), 0_u32);
    while begun.elapsed() < options.length {
        let took = map_pod.change().await.with_context(|| format!("change {}", changes.count() + 1))?;
        changes.add(took);
        if options.judge_time && took > BAR {
            outcome.violation(format!("change {} took {:.2} s", changes.count(), took.as_secs_f64()));
        }
        if map_pod.testbed.ready().await?.is_none() {
            outcome.violation(format!("not Ready after {:.0} s", begun.elapsed().as_secs_f64()));
        }
        looks += 1;
        if let Some(ended) = copy.try_wait().context("look at kubectl")? {
            bail!("the copy ended after {:.0} s: {ended}", begun.elapsed().as_secs_f64());
        }
        tokio::time::sleep(CHANGE_EVERY.saturating_sub(took)).await;
    }
    let length = begun.elapsed().as_secs_f64();
    let rate = (copied.load(Ordering::Relaxed) - before) as f64 / length;
    let part = rate / f64::from(UPLINK);
    console.at(&format!("{rate:.0} B/s were copied, {:.0} % of the line", part * 100.0));
    outcome.row("the copy", format!("{length:.0} s, {rate:.0} B/s, {:.0} % of the line", part * 100.0));
    outcome.row(&format!("a change → in the pod, bar {} s", BAR.as_secs()), changes.shown());
    outcome.row("Ready", format!("at each of {looks} looks"));
    if part < PART {
        outcome.violation(format!("the copy had {:.0} % of the line", part * 100.0));
    }
    copy.kill().await.context("end kubectl")?;
    counting.await.context("count what was copied")?;
    map_pod.testbed.relay.inject(LinkFault::None);
    map_pod.is_whole().await
}
