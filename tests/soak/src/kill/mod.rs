//! The daemons are killed and the link is cut at random instants, and nothing accepted is lost.
//!
//! Devices report ever higher values over MQTT at QoS 1; a value with a PUBACK is accepted. In the cloud somebody keeps
//! changing what is desired of them. At the end each side shows at least the last value that the other accepted, and no
//! watch ever went back. Other clients publish telemetry, of which each message arrives, in order per source.

pub(crate) mod device;
mod schedule;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::pods::{self, RunningContainer};
use crate::relay::LinkFault;
use crate::testbed::LONG;
use crate::uploads::{self, Uploads};
use crate::{Console, Outcome, Samples, Testbed};
use device::SharedDeliveries;
use schedule::{Fault, ScheduledFault, schedule};

/// How it is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often all of it is done. After each stretch everything is made whole, and what was accepted is compared with what arrived.
    pub stretches: u32,
    /// How long a stretch is.
    pub stretch: Duration,
    /// How many devices report.
    pub devices: u32,
    /// How often each reports.
    pub report_every: Duration,
    /// How many clients publish telemetry.
    pub uploaders: u32,
    /// How often each does.
    pub upload_every: Duration,
    /// How often a desired value of one of them changes.
    pub want_every: Duration,
    /// Decides what breaks when.
    pub seed: u64,
}

const PODS: u32 = 2;
/// Ids of a stretch lie above those of the one before.
const STRETCH_IDS: u64 = 1_000_000;
/// How long reports are accepted with the link cut before the daemons are killed at the end of a stretch.
const LAST_CUT: Duration = Duration::from_secs(2);

#[derive(Default)]
struct Figures {
    stretches: u32,
    struck: [usize; Fault::ALL.len()],
    reported: Samples,
    uploaded: Samples,
    desired: Samples,
}

/// Runs it. What goes wrong for good ends it and is a violation.
pub async fn run(testbed: &mut Testbed, options: &Options, console: &Console) -> Outcome {
    let mut outcome = Outcome::new(&format!("ids accepted under cuts and kill -9, seed {}", options.seed));
    let (deliveries, uploads, mut figures) = (SharedDeliveries::new(), Uploads::new(), Figures::default());
    let workloads = Workloads { deliveries: &deliveries, uploads: &uploads };
    if let Err(error) = story(testbed, options, console, workloads, &mut figures, &mut outcome).await {
        outcome.violation(format!("stretch {}: {error:#}", figures.stretches + 1));
    }
    let stretch = options.stretch.as_secs();
    outcome.row("stretches", format!("{} of {}, {stretch} s each", figures.stretches, options.stretches));
    for (fault, count) in Fault::ALL.into_iter().zip(figures.struck) {
        outcome.row(fault.name(), format!("{count} times"));
        if count == 0 {
            outcome.violation(format!("{} never struck", fault.name()));
        }
    }
    let deliveries = deliveries.open();
    for (what, deliveries) in [("reports", &deliveries.reported), ("desired values", &deliveries.desired)] {
        let (accepted, arrived) = deliveries.counts();
        outcome.row(what, format!("{accepted} accepted, {arrived} sights of them at the other end"));
        for violation in deliveries.violations() {
            outcome.violation(format!("{what}: {violation}"));
        }
    }
    outcome.row("connections of devices to the broker", deliveries.reconnects.to_string());
    uploads.open().show(&mut outcome);
    outcome.row("all whole → last report in the cloud", figures.reported.shown());
    outcome.row("then: every accepted upload in the cloud", figures.uploaded.shown());
    outcome.row("then: what is wanted on the node", figures.desired.shown());
    for (what, found) in
        [("acknowledged and refused", &deliveries.refused), ("acknowledged and lost", &deliveries.lost)]
    {
        for one in found {
            outcome.violation(format!("{what}: {one}"));
        }
    }
    outcome
}

/// What devices and what uploading clients did.
#[derive(Clone, Copy)]
struct Workloads<'a> {
    deliveries: &'a SharedDeliveries,
    uploads: &'a Uploads,
}

async fn story(
    testbed: &mut Testbed,
    options: &Options,
    console: &Console,
    workloads: Workloads<'_>,
    figures: &mut Figures,
    outcome: &mut Outcome,
) -> Result<()> {
    let devices: Vec<String> = (0..options.devices).map(device::name).collect();
    let before = begin(testbed, &devices).await?;
    let Workloads { deliveries, uploads } = workloads;
    // Dropped, and so ended, with this story.
    let mut watches = JoinSet::new();
    watches.spawn(device::watch_reports(testbed.kubectl.clone(), deliveries.clone()));
    watches.spawn(uploads::follow(testbed.cloudcore_log(), uploads.clone()));
    let paused = watch::Sender::new(true);
    for number in 0..options.uploaders {
        let (broker, name, every) = (testbed.broker(), format!("sensor-{number}"), options.upload_every);
        watches.spawn(uploads::publish(broker, name, every, uploads.clone(), paused.subscribe()));
    }
    for number in 0..options.stretches {
        paused.send_replace(false);
        stretch(testbed, options, number, &devices, deliveries, figures, &paused).await?;
        let [took, uploaded, desired] = settle(testbed, &devices, workloads).await?;
        figures.reported.add(took);
        figures.uploaded.add(uploaded);
        figures.desired.add(desired);
        for owed in deliveries.open().desired.owed() {
            outcome.violation(format!("desired values: {owed}"));
        }
        compare(testbed, &before, outcome).await?;
        figures.stretches += 1;
        let (accepted, _) = deliveries.open().reported.counts();
        let (wanted, _) = deliveries.open().desired.counts();
        let (uploaded, _) = uploads.open().counts();
        console.at(&format!(
            "stretch {:3}: last report in the cloud {:.2} s after all was whole; {accepted} reports, {uploaded} uploads and {wanted} desired values so far",
            figures.stretches,
            took.as_secs_f64(),
        ));
    }
    Ok(())
}

/// Values go both ways while things break. At its end the link is cut, and the daemons are killed right after the last
/// value that they accepted.
async fn stretch(
    testbed: &mut Testbed,
    options: &Options,
    number: u32,
    devices: &[String],
    deliveries: &SharedDeliveries,
    figures: &mut Figures,
    paused: &watch::Sender<bool>,
) -> Result<()> {
    let (seed, above) = (options.seed.wrapping_add(u64::from(number)), u64::from(number) * STRETCH_IDS);
    let (stop, stopped) = watch::channel(false);
    let (mut up, mut down) = (JoinSet::new(), JoinSet::new());
    for name in devices {
        let (broker, every, deliveries) = (testbed.broker(), options.report_every, deliveries.clone());
        up.spawn(device::report(broker, name.clone(), above, every, deliveries, stopped.clone()));
    }
    let (kubectl, devices, every) = (testbed.kubectl.clone(), devices.to_vec(), options.want_every);
    down.spawn(device::want(kubectl, devices, above, every, seed, deliveries.clone(), stopped));
    let begun = Instant::now();
    for scheduled in schedule(seed, options.stretch) {
        tokio::time::sleep(scheduled.at.saturating_sub(begun.elapsed())).await;
        testbed.check()?;
        figures.struck[scheduled.fault as usize] += usize::from(!scheduled.heals);
        perform(testbed, scheduled)?;
    }
    tokio::time::sleep(options.stretch.saturating_sub(begun.elapsed())).await;
    testbed.relay.inject(LinkFault::Cut);
    tokio::time::sleep(LAST_CUT).await;
    testbed.check()?;
    // Nobody listens any more if all sources have ended.
    let _ = stop.send(true);
    paused.send_replace(true);
    ended(up).await?;
    testbed.kill_edgecore();
    ended(down).await?;
    testbed.kill_cloudcore();
    testbed.start_cloudcore()?;
    testbed.start_edgecore()?;
    testbed.relay.inject(LinkFault::None);
    Ok(())
}

async fn ended(mut sources: JoinSet<()>) -> Result<()> {
    while let Some(ended) = sources.join_next().await {
        ended.context("a source of values")?;
    }
    Ok(())
}

/// Pods and devices are there, on the node too.
async fn begin(testbed: &mut Testbed, devices: &[String]) -> Result<Vec<RunningContainer>> {
    let kubectl = testbed.kubectl.clone();
    kubectl.apply(&pods::needs(0)).await?;
    kubectl.apply(&[pods::deployment(PODS), device::model()]).await?;
    kubectl.apply(&devices.iter().map(|name| device::device(name)).collect::<Vec<_>>()).await?;
    let (running, _) = testbed
        .until("all pods run", LONG, async |testbed| {
            let running = pods::running(&testbed.host).await?;
            Ok((running.len() == PODS as usize).then_some(running))
        })
        .await?;
    testbed
        .until("the node knows all devices", LONG, async |testbed| {
            for name in devices {
                device::twin(&testbed.broker(), name).await?;
            }
            Ok(Some(()))
        })
        .await?;
    Ok(running)
}

fn perform(testbed: &mut Testbed, scheduled: ScheduledFault) -> Result<()> {
    match (scheduled.fault, scheduled.heals) {
        (Fault::Cut, false) => testbed.relay.inject(LinkFault::Cut),
        (Fault::Cut, true) => testbed.relay.inject(LinkFault::None),
        (Fault::KillEdge, false) => testbed.kill_edgecore(),
        (Fault::KillEdge, true) => testbed.start_edgecore()?,
        (Fault::KillCloud, false) => testbed.kill_cloudcore(),
        (Fault::KillCloud, true) => testbed.start_cloudcore()?,
    }
    Ok(())
}

/// Everything is whole again: both ways catch up. Answers how long each took.
async fn settle(
    testbed: &mut Testbed,
    devices: &[String],
    workloads: Workloads<'_>,
) -> Result<[Duration; 3]> {
    let Workloads { deliveries, uploads } = workloads;
    let ((), reported) = testbed
        .until("the last accepted report of every device in the cloud", LONG, async |_| {
            match deliveries.open().reported.owed().as_slice() {
                [] => Ok(Some(())),
                owed => bail!("{}", owed.join("; ")),
            }
        })
        .await?;
    let every = "every accepted upload in the cloud";
    let ((), uploaded) = testbed.until(every, LONG, async |_| uploads.open().all_arrived()).await?;
    let ((), desired) = testbed
        .until("what the cloud wants of every device on the node", LONG, async |testbed| {
            for name in devices {
                let device = testbed.kubectl.get("device", name).await?.context("a device is gone")?;
                let wanted = device.pointer("/spec/properties/1/desired/value").and_then(Value::as_str);
                let held = device::goal(&device::twin(&testbed.broker(), name).await?).context("no goal")?;
                deliveries.open().desired.arrived(name, held, true);
                if wanted != Some(held.to_string().as_str()) {
                    bail!("{name}: the cloud wants {wanted:?}, the node holds {held}");
                }
            }
            Ok(Some(()))
        })
        .await?;
    Ok([reported, uploaded, desired])
}

/// The pods were left alone.
async fn compare(testbed: &mut Testbed, before: &[RunningContainer], outcome: &mut Outcome) -> Result<()> {
    let ids = |running: &[RunningContainer]| {
        running.iter().map(|inside| inside.container.clone()).collect::<Vec<_>>()
    };
    let after = pods::running(&testbed.host).await?;
    if ids(before) != ids(&after) {
        outcome.violation(format!("the containers are {:?} and were {:?}", ids(&after), ids(before)));
    }
    testbed
        .until("the node Ready and its pods Running without a restart", LONG, async |testbed| {
            testbed.ready().await?.context("the node is not Ready")?;
            for pod in testbed.kubectl.list("pods", "app").await? {
                let (name, status) = (&pod["metadata"]["name"], &pod["status"]);
                let restarts = &status["containerStatuses"][0]["restartCount"];
                if status["phase"] != "Running"
                    || restarts != 0
                    || !pod["metadata"]["deletionTimestamp"].is_null()
                {
                    bail!("{name} is {} with {restarts} restarts", status["phase"]);
                }
            }
            Ok(Some(()))
        })
        .await?;
    Ok(())
}
