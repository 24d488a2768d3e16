//! The daemons are killed and the link is cut at random instants, and nothing accepted is lost.
//!
//! Devices report ever higher values over MQTT at QoS 1; a value with a PUBACK is accepted. In the cloud somebody keeps
//! changing what is desired of them. At the end each side shows at least the last value that the other accepted, and no
//! watch ever went back. Other clients publish telemetry, of which each message arrives, in order per source.

mod device;
mod schedule;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::pods::{self, Inside};
use crate::relay::Lie;
use crate::stage::LONG;
use crate::uploads::{self, Uploads};
use crate::{Outcome, Samples, Say, Stage};
use device::Shared;
use schedule::{Act, Fault, schedule};

/// How it is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often all of it is done. After each stretch everything is made whole, and the books are compared.
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
pub async fn run(stage: &mut Stage, options: &Options, say: &Say) -> Outcome {
    let mut outcome = Outcome::new(&format!("ids accepted under cuts and kill -9, seed {}", options.seed));
    let (books, uploads, mut figures) = (Shared::new(), Uploads::new(), Figures::default());
    let both = Both { books: &books, uploads: &uploads };
    if let Err(error) = story(stage, options, say, both, &mut figures, &mut outcome).await {
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
    let books = books.open();
    for (what, ledger) in [("reports", &books.reported), ("desired values", &books.desired)] {
        let (accepted, arrived) = ledger.counts();
        outcome.row(what, format!("{accepted} accepted, {arrived} sights of them at the other end"));
        for violation in ledger.violations() {
            outcome.violation(format!("{what}: {violation}"));
        }
    }
    outcome.row("connections of devices to the broker", books.reconnects.to_string());
    uploads.open().show(&mut outcome);
    outcome.row("all whole → last report in the cloud", figures.reported.shown());
    outcome.row("then: every accepted upload in the cloud", figures.uploaded.shown());
    outcome.row("then: what is wanted on the node", figures.desired.shown());
    for (what, found) in
        [("acknowledged and refused", &books.refused), ("acknowledged and lost", &books.lost)]
    {
        for one in found {
            outcome.violation(format!("{what}: {one}"));
        }
    }
    outcome
}

/// What devices and what uploading clients did.
#[derive(Clone, Copy)]
struct Both<'a> {
    books: &'a Shared,
    uploads: &'a Uploads,
}

async fn story(
    stage: &mut Stage,
    options: &Options,
    say: &Say,
    both: Both<'_>,
    figures: &mut Figures,
    outcome: &mut Outcome,
) -> Result<()> {
    let devices: Vec<String> = (0..options.devices).map(device::name).collect();
    let before = begin(stage, &devices).await?;
    let Both { books, uploads } = both;
    // Dropped, and so ended, with this story.
    let mut watches = JoinSet::new();
    watches.spawn(device::watch_reports(stage.kubectl.clone(), books.clone()));
    watches.spawn(uploads::follow(stage.cloudcore_log(), uploads.clone()));
    let paused = watch::Sender::new(true);
    for number in 0..options.uploaders {
        let (broker, name, every) = (stage.broker(), format!("sensor-{number}"), options.upload_every);
        watches.spawn(uploads::publish(broker, name, every, uploads.clone(), paused.subscribe()));
    }
    for number in 0..options.stretches {
        paused.send_replace(false);
        stretch(stage, options, number, &devices, books, figures, &paused).await?;
        let [took, uploaded, desired] = settle(stage, &devices, both).await?;
        figures.reported.add(took);
        figures.uploaded.add(uploaded);
        figures.desired.add(desired);
        for owed in books.open().desired.owed() {
            outcome.violation(format!("desired values: {owed}"));
        }
        compare(stage, &before, outcome).await?;
        figures.stretches += 1;
        let (accepted, _) = books.open().reported.counts();
        let (wanted, _) = books.open().desired.counts();
        let (uploaded, _) = uploads.open().counts();
        say.at(&format!(
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
    stage: &mut Stage,
    options: &Options,
    number: u32,
    devices: &[String],
    books: &Shared,
    figures: &mut Figures,
    paused: &watch::Sender<bool>,
) -> Result<()> {
    let (seed, above) = (options.seed.wrapping_add(u64::from(number)), u64::from(number) * STRETCH_IDS);
    let (stop, stopped) = watch::channel(false);
    let (mut up, mut down) = (JoinSet::new(), JoinSet::new());
    for name in devices {
        let (broker, every, books) = (stage.broker(), options.report_every, books.clone());
        up.spawn(device::report(broker, name.clone(), above, every, books, stopped.clone()));
    }
    let (kubectl, devices, every) = (stage.kubectl.clone(), devices.to_vec(), options.want_every);
    down.spawn(device::want(kubectl, devices, above, every, seed, books.clone(), stopped));
    let begun = Instant::now();
    for act in schedule(seed, options.stretch) {
        tokio::time::sleep(act.at.saturating_sub(begun.elapsed())).await;
        stage.check()?;
        figures.struck[act.fault as usize] += usize::from(!act.heals);
        perform(stage, act)?;
    }
    tokio::time::sleep(options.stretch.saturating_sub(begun.elapsed())).await;
    stage.relay.tell(Lie::Cut);
    tokio::time::sleep(LAST_CUT).await;
    stage.check()?;
    // Nobody listens any more if all sources have ended.
    let _ = stop.send(true);
    paused.send_replace(true);
    ended(up).await?;
    stage.kill_edgecore();
    ended(down).await?;
    stage.kill_cloudcore();
    stage.start_cloudcore()?;
    stage.start_edgecore()?;
    stage.relay.tell(Lie::None);
    Ok(())
}

async fn ended(mut sources: JoinSet<()>) -> Result<()> {
    while let Some(ended) = sources.join_next().await {
        ended.context("a source of values")?;
    }
    Ok(())
}

/// Pods and devices are there, on the node too.
async fn begin(stage: &mut Stage, devices: &[String]) -> Result<Vec<Inside>> {
    let kubectl = stage.kubectl.clone();
    kubectl.apply(&pods::needs(0)).await?;
    kubectl.apply(&[pods::deployment(PODS), device::model()]).await?;
    kubectl.apply(&devices.iter().map(|name| device::device(name)).collect::<Vec<_>>()).await?;
    let (running, _) = stage
        .until("all pods run", LONG, async |stage| {
            let running = pods::running(&stage.host).await?;
            Ok((running.len() == PODS as usize).then_some(running))
        })
        .await?;
    stage
        .until("the node knows all devices", LONG, async |stage| {
            for name in devices {
                device::twin(&stage.broker(), name).await?;
            }
            Ok(Some(()))
        })
        .await?;
    Ok(running)
}

fn perform(stage: &mut Stage, act: Act) -> Result<()> {
    match (act.fault, act.heals) {
        (Fault::Cut, false) => stage.relay.tell(Lie::Cut),
        (Fault::Cut, true) => stage.relay.tell(Lie::None),
        (Fault::KillEdge, false) => stage.kill_edgecore(),
        (Fault::KillEdge, true) => stage.start_edgecore()?,
        (Fault::KillCloud, false) => stage.kill_cloudcore(),
        (Fault::KillCloud, true) => stage.start_cloudcore()?,
    }
    Ok(())
}

/// Everything is whole again: both ways catch up. Answers how long each took.
async fn settle(stage: &mut Stage, devices: &[String], both: Both<'_>) -> Result<[Duration; 3]> {
    let Both { books, uploads } = both;
    let ((), reported) = stage
        .until("the last accepted report of every device in the cloud", LONG, async |_| {
            match books.open().reported.owed().as_slice() {
                [] => Ok(Some(())),
                owed => bail!("{}", owed.join("; ")),
            }
        })
        .await?;
    let every = "every accepted upload in the cloud";
    let ((), uploaded) = stage.until(every, LONG, async |_| uploads.open().all_arrived()).await?;
    let ((), desired) = stage
        .until("what the cloud wants of every device on the node", LONG, async |stage| {
            for name in devices {
                let device = stage.kubectl.get("device", name).await?.context("a device is gone")?;
                let wanted = device.pointer("/spec/properties/1/desired/value").and_then(Value::as_str);
                let held = device::goal(&device::twin(&stage.broker(), name).await?).context("no goal")?;
                books.open().desired.arrived(name, held, true);
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
async fn compare(stage: &mut Stage, before: &[Inside], outcome: &mut Outcome) -> Result<()> {
    let ids = |running: &[Inside]| running.iter().map(|inside| inside.container.clone()).collect::<Vec<_>>();
    let after = pods::running(&stage.host).await?;
    if ids(before) != ids(&after) {
        outcome.violation(format!("the containers are {:?} and were {:?}", ids(&after), ids(before)));
    }
    stage
        .until("the node Ready and its pods Running without a restart", LONG, async |stage| {
            stage.ready().await?.context("the node is not Ready")?;
            for pod in stage.kubectl.list("pods", "app").await? {
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
