//! Many devices of one node that report at once, and few that report often: what the cloud's API has to write for them, how old what
//! `kubectl` shows is, what the full-rate road beside the twin loses, and how soon a device hears what is wanted of it.

mod collector;
mod fleet;
mod publisher;
mod setpoints;
mod view;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::relay::LinkFault;
use crate::testbed::LONG;
use crate::{Console, Outcome, Samples, Testbed};
use collector::Collector;
use fleet::Fleet;
use publisher::Publisher;
use view::View;

/// A round trip of 20 ms.
const ONE_WAY: Duration = Duration::from_millis(10);
/// Clients that publish for the devices, as mappers that speak MQTT do.
const CLIENTS: usize = 10;
/// 10 s after the first report nothing of the beginning is measured any more.
const WARM: Duration = Duration::from_secs(10);
/// 250 ms between looks at how old the view is.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What is promised of a node.
#[derive(Debug, Clone, Copy)]
pub struct Bars {
    /// Writes of DeviceStatus a second, for all devices of the node.
    pub writes: f64,
    /// The full-rate road: 99 of 100 messages are with their target by then.
    pub road: Duration,
    /// 99 of 100 desired values are with the device by then.
    pub desired: Duration,
    /// Resident memory of `edgecore`, in MB.
    pub resident: f64,
}

/// The issue's.
pub const BARS: Bars =
    Bars { writes: 200.0, road: Duration::from_secs(1), desired: Duration::from_millis(200), resident: 60.0 };

/// How many devices report how often, and how old their values may be in the cloud in 99 of 100 looks.
#[derive(Debug, Clone, Copy)]
pub struct Stage {
    /// So many devices.
    pub devices: usize,
    /// Reports a second of each.
    pub rate: f64,
    /// The bar.
    pub view: Duration,
}

/// The issue's: 1,000 at 1 Hz, and 30 at 20 Hz.
pub const STAGES: [Stage; 2] = [
    Stage { devices: 1000, rate: 1.0, view: Duration::from_secs(6) },
    Stage { devices: 30, rate: 20.0, view: Duration::from_secs(1) },
];

/// How it is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// One after the other.
    pub stages: Vec<Stage>,
    /// How long each is measured.
    pub length: Duration,
    /// What is above these is a violation; none: figures alone are told.
    pub bars: Option<Bars>,
}

/// Runs it.
pub async fn run(testbed: &mut Testbed, options: &Options, console: &Console) -> Outcome {
    Outcome::of("devices that report all at once, and often", async |outcome| {
        testbed.relay.inject(LinkFault::Delay(ONE_WAY));
        for stage in &options.stages {
            stand(testbed, *stage, options, console, outcome).await?;
        }
        Ok(())
    })
    .await
}

/// Counts and times against their bars.
struct Judge<'a> {
    outcome: &'a mut Outcome,
    stage: String,
    judged: bool,
}

impl Judge<'_> {
    fn time(&mut self, what: &str, samples: &Samples, bar: Duration) {
        let shown = format!("{} (p99 bar {:.1} s)", samples.shown_with_tail(), bar.as_secs_f64());
        self.outcome.row(&format!("{}: {what}", self.stage), shown);
        match samples.quantile(0.99) {
            None => self.outcome.violation(format!("{}: {what}: nothing was measured", self.stage)),
            Some(tail) if self.judged && tail > bar.as_secs_f64() => {
                self.outcome.violation(format!("{}: {what}: p99 is {tail:.2} s", self.stage));
            }
            Some(_) => {}
        }
    }

    fn at_most(&mut self, what: &str, value: f64, bar: f64) {
        self.outcome.row(&format!("{}: {what}", self.stage), format!("{value:.1} (bar {bar:.0})"));
        if self.judged && value > bar {
            self.outcome.violation(format!("{}: {what}: {value:.1}", self.stage));
        }
    }
}

async fn stand(
    testbed: &mut Testbed,
    stage: Stage,
    options: &Options,
    console: &Console,
    outcome: &mut Outcome,
) -> Result<()> {
    let Stage { devices, rate, .. } = stage;
    console.at(&format!("making {devices} devices that report {rate} times a second each"));
    let begun = Instant::now();
    let spent = testbed.spent()?;
    let fleet = Arc::new(Fleet::new(devices, begun));
    let (collector, collected) = Collector::start(Arc::clone(&fleet)).await?;
    testbed.kubectl.apply(&Fleet::models()).await?;
    testbed.kubectl.create(&fleet.objects()).await?;
    testbed.kubectl.apply(&Fleet::rules(collector)).await?;
    testbed.until_held(devices + 1).await?;
    let view = Arc::new(View::new(devices));
    let mut tasks = JoinSet::new();
    tasks.spawn(view::watch(testbed.kubectl.clone(), Arc::clone(&view)));
    let mut publishers = Vec::new();
    for client in 0..CLIENTS.min(devices) {
        let publisher = Publisher::connect(&testbed.broker(), client, CLIENTS.min(devices), rate).await?;
        publishers.push(publisher.start(Arc::clone(&fleet)));
    }
    let setpoints = setpoints::Setpoints::start(testbed, &fleet).await?;
    console.at(&format!("measuring for {} s", options.length.as_secs()));
    let (ages, writes, resident) = measure(testbed, &view, begun, options.length).await?;
    let desired = setpoints.end().await?;
    let mut sent = Vec::new();
    for publisher in publishers {
        sent.extend(publisher.end().await?);
    }
    testbed
        .until("the newest value of each device in the cloud", LONG, async |_| {
            Ok(view.holds(&fleet.newest()).then_some(()))
        })
        .await?;
    testbed
        .until("all that was accepted on the full-rate road with its target", LONG, async |_| {
            Ok((collected.count() >= sent.len()).then_some(()))
        })
        .await?;
    let spent = testbed.spent()? - spent;
    tasks.abort_all();
    let bars = options.bars.unwrap_or(BARS);
    let mut judge =
        Judge { outcome, stage: format!("{devices} at {rate} Hz"), judged: options.bars.is_some() };
    judge.at_most("DeviceStatus writes a second", writes, bars.writes);
    judge.time("age of what kubectl shows", &ages, stage.view);
    judge.time("reading → target of the rule", &collected.times(), bars.road);
    judge.time("desired in the API → delta at the device", &desired, bars.desired);
    judge.at_most("edgecore, resident, MB at most", resident, bars.resident);
    #[allow(clippy::cast_precision_loss)] // far below 2^52
    let each = spent * 1000.0 / sent.len() as f64;
    outcome.row(
        &format!("{devices} at {rate} Hz: readings accepted"),
        format!("{} in {:.0} s, {each:.2} ms of a core each", sent.len(), begun.elapsed().as_secs_f64()),
    );
    for wrong in collected.wrong(&sent) {
        outcome.violation(wrong);
    }
    testbed.kubectl.run(&["delete", "rules,ruleendpoints,devices", "--all", "--wait=false"]).await?;
    testbed
        .until("the node has no device any more", LONG, async |testbed| {
            Ok(testbed.kubectl.list("devicestatus", "").await?.is_empty().then_some(()))
        })
        .await?;
    Ok(())
}

/// How old the view was at each look, how many writes a second there were, and the largest resident memory in MB.
async fn measure(
    testbed: &mut Testbed,
    view: &View,
    begun: Instant,
    length: Duration,
) -> Result<(Samples, f64, f64)> {
    tokio::time::sleep(WARM).await;
    let (mut ages, mut resident) = (Samples::default(), 0.0_f64);
    let (from, writes) = (Instant::now(), view.writes());
    let mut looks = tokio::time::interval(LOOK_EVERY);
    while from.elapsed() < length {
        looks.tick().await;
        testbed.check()?;
        ages.join(view.ages(begun.elapsed()));
        resident = resident.max(testbed.resident()?);
    }
    let writes = view.writes().checked_sub(writes).context("writes were counted backwards")?;
    if writes == 0 {
        bail!("the cloud's view did not move: nothing was measured");
    }
    #[allow(clippy::cast_precision_loss)] // far below 2^52
    Ok((ages, writes as f64 / from.elapsed().as_secs_f64(), resident))
}
