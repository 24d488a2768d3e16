//! Every fault of the link that we know of, and its end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config_map_pod::ConfigMapPod;
use crate::metrics::Metrics;
use crate::relay::LinkFault;
use crate::testbed::LONG;
use crate::uploads::{self, Uploads};
use crate::{Console, Outcome, Samples, Testbed};

/// How it is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often all faults are injected.
    pub turns: u32,
    /// How long each is told. A dead link is noticed within 10 s.
    pub hold: Duration,
    /// How often UDP is blocked and TCP is not. The stage needs both ways for it.
    pub blocked: u32,
    /// Decides which packets are late and when the port changes.
    pub seed: u64,
}

/// The pause between looks whether UDP passes doubles from 10 s on: what was blocked for a minute is found within two.
const RETURN_WITHIN: Duration = Duration::from_secs(180);
/// s2n-quic falls silent after the fifth.
const REBINDINGS: u32 = 8;

const LIES: [(&str, LinkFault); 5] = [
    ("nothing up", LinkFault::NothingUp),
    ("nothing down", LinkFault::NothingDown),
    ("400 ms later", LinkFault::Delay(Duration::from_millis(400))),
    ("reordered", LinkFault::Reorder),
    ("duplicated", LinkFault::Duplicate),
];

/// How often a client of the node publishes for the cloud meanwhile.
const UPLOAD_EVERY: Duration = Duration::from_millis(50);

/// Runs it.
pub async fn run(testbed: &mut Testbed, options: &Options, console: &Console) -> Outcome {
    Outcome::of(&format!("faults of the link, seed {}", options.seed), async |outcome| {
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
    let (uploads, paused) = (Uploads::new(), watch::Sender::new(false));
    // Dropped, and so ended, with this story.
    let mut tasks = JoinSet::new();
    let (broker, name) = (map_pod.testbed.broker(), "sensor-0".to_owned());
    tasks.spawn(uploads::publish(broker, name, UPLOAD_EVERY, uploads.clone(), paused.subscribe()));
    tasks.spawn(uploads::follow(map_pod.testbed.cloudcore_log(), uploads.clone()));
    let result = async {
        inject_each(&mut map_pod, options, console, outcome).await?;
        blocked(&mut map_pod, options, console, outcome).await?;
        paused.send_replace(true);
        map_pod
            .testbed
            .until("every accepted upload in the cloud", LONG, async |_| uploads.open().all_arrived())
            .await?;
        let metrics = Metrics::read(map_pod.testbed.monitor()).await?;
        uploads.open().compare(&metrics, outcome);
        map_pod.is_whole().await
    }
    .await;
    uploads.open().show(outcome);
    result
}

/// The faults of packets, QUIC alone.
async fn inject_each(
    map_pod: &mut ConfigMapPod<'_>,
    options: &Options,
    console: &Console,
    outcome: &mut Outcome,
) -> Result<()> {
    let mut dice = SmallRng::seed_from_u64(options.seed);
    let mut figures = vec![[Samples::default(), Samples::default()]; LIES.len()];
    let mut rebound = vec![Samples::default(); REBINDINGS as usize];
    let result = async {
        for turn in 1..=options.turns {
            for ((name, fault), [during, after]) in LIES.iter().zip(&mut figures) {
                // A link that still passes something both ways lives.
                let lives = !matches!(fault, LinkFault::NothingUp | LinkFault::NothingDown);
                let hold = if lives { options.hold / 3 } else { options.hold };
                let what = || format!("turn {turn}, {name}");
                let seen = held(map_pod, *fault, hold).await.with_context(what)?;
                map_pod.testbed.relay.inject(LinkFault::None);
                let took = map_pod.change().await.with_context(what)?;
                if lives && seen.count() == 0 {
                    outcome.violation(format!("turn {turn}, {name}: no change came through"));
                }
                let shown = format!("{} changes during it, {}", seen.count(), seen.shown());
                console.at(&format!("{name}: {shown}; one after it {}", seconds(took)));
                during.join(seen);
                after.add(took);
            }
            for (number, samples) in rebound.iter_mut().enumerate() {
                let pause = Duration::from_millis(dice.random_range(500..2000));
                tokio::time::sleep(pause).await;
                map_pod.testbed.relay.rebind();
                let what = || format!("turn {turn}, rebinding {}", number + 1);
                let took = map_pod.change().await.with_context(what)?;
                samples.add(took);
                console.at(&format!("rebinding {}: a change {}", number + 1, seconds(took)));
            }
        }
        anyhow::Ok(())
    }
    .await;
    for ((name, _), [during, after]) in LIES.iter().zip(&figures) {
        outcome.row(&format!("{name}: {} changes during it", during.count()), during.shown());
        outcome.row(&format!("{name}: it ends → a new change"), after.shown());
    }
    for (number, samples) in rebound.iter().enumerate() {
        outcome.row(&format!("rebinding {} → a change", number + 1), samples.shown());
    }
    result
}

/// What was seen while UDP was blocked.
#[derive(Default)]
struct Blocked {
    fell: Samples,
    during: Samples,
    stalled: Samples,
    returned: Samples,
    after: Samples,
}

/// UDP is blocked and TCP passes; then TCP stalls, too, and passes again; then UDP does.
async fn blocked(
    map_pod: &mut ConfigMapPod<'_>,
    options: &Options,
    console: &Console,
    outcome: &mut Outcome,
) -> Result<()> {
    let mut seen = Blocked::default();
    let mut done = 0;
    let mut result = Ok(());
    while result.is_ok() && done < options.blocked {
        result = block(map_pod, options.hold, console, &mut seen).await;
        result = result.with_context(|| format!("UDP blocked, turn {}", done + 1));
        done += u32::from(result.is_ok());
    }
    if options.blocked > 0 {
        outcome.row("UDP blocked", format!("{done} of {} turns", options.blocked));
        outcome.row("UDP blocked → a change over WebSocket", seen.fell.shown());
        outcome.row(&format!("then: {} changes over it", seen.during.count()), seen.during.shown());
        outcome.row("TCP stalled and passes again → a new change", seen.stalled.shown());
        outcome.row("UDP passes again → the link is QUIC again", seen.returned.shown());
        outcome.row("then: a new change", seen.after.shown());
        outcome.row("bytes over TCP", map_pod.testbed.tcp.passed().to_string());
    }
    result
}

async fn block(
    map_pod: &mut ConfigMapPod<'_>,
    hold: Duration,
    console: &Console,
    seen: &mut Blocked,
) -> Result<()> {
    carried_by(map_pod, "quic").await?;
    map_pod.testbed.tcp.serve(true);
    let (tcp, begun) = (map_pod.testbed.tcp.passed(), Instant::now());
    map_pod.testbed.relay.inject(LinkFault::NoUdp);
    carried_by(map_pod, "websocket").await?;
    map_pod.change().await?;
    let fell = begun.elapsed();
    seen.fell.add(fell);
    let during = held(map_pod, LinkFault::NoUdp, hold / 3).await?;
    if during.count() == 0 {
        bail!("no change came over WebSocket");
    }
    if map_pod.testbed.tcp.passed() == tcp {
        bail!("changes came, and nothing crossed over TCP");
    }
    // Nothing passes: what was on its way waits in the relay, as in a network that stalls.
    held(map_pod, LinkFault::Cut, hold).await?;
    map_pod.testbed.relay.inject(LinkFault::NoUdp);
    let stalled = map_pod.change().await?;
    seen.stalled.add(stalled);
    let begun = Instant::now();
    map_pod.testbed.relay.inject(LinkFault::None);
    // Changes go on while the link moves.
    while map_pod.testbed.carrier()?.as_deref() != Some("quic") {
        if begun.elapsed() > RETURN_WITHIN {
            bail!("{} s after UDP passes again the link is still WebSocket", RETURN_WITHIN.as_secs());
        }
        seen.during.add(map_pod.change().await?);
    }
    let returned = begun.elapsed();
    map_pod.testbed.tcp.serve(false);
    let after = map_pod.change().await?;
    console.at(&format!(
        "UDP blocked: a change over WebSocket {}; TCP stalled: one {}; UDP passes: QUIC {}, a change {}",
        seconds(fell),
        seconds(stalled),
        seconds(returned),
        seconds(after),
    ));
    seen.during.join(during);
    seen.returned.add(returned);
    seen.after.add(after);
    Ok(())
}

async fn carried_by(map_pod: &mut ConfigMapPod<'_>, carrier: &str) -> Result<()> {
    let what = format!("a link over {carrier}");
    let is = async |testbed: &Testbed| Ok((testbed.carrier()?.as_deref() == Some(carrier)).then_some(()));
    map_pod.testbed.until(&what, LONG, is).await.map(drop)
}

/// Injects a fault for `hold` and makes changes meanwhile, one after the other. Answers what those took that arrived before
/// its end. The fault goes on.
async fn held(map_pod: &mut ConfigMapPod<'_>, fault: LinkFault, hold: Duration) -> Result<Samples> {
    map_pod.testbed.relay.inject(fault);
    let begun = Instant::now();
    let mut during = Samples::default();
    while begun.elapsed() < hold {
        map_pod.patch().await?;
        match map_pod.arrival(hold.saturating_sub(begun.elapsed())).await {
            Ok(took) => during.add(took),
            Err(_) => map_pod.testbed.check()?,
        }
    }
    Ok(during)
}

fn seconds(time: Duration) -> String {
    format!("after {:.2} s", time.as_secs_f64())
}
