//! The link lies in every way that we know of, and heals.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::metrics::Metrics;
use crate::relay::Lie;
use crate::stage::LONG;
use crate::uploads::{self, Uploads};
use crate::witness::Witness;
use crate::{Outcome, Samples, Say, Stage};

/// How it is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often all lies are told.
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

const LIES: [(&str, Lie); 5] = [
    ("nothing up", Lie::NothingUp),
    ("nothing down", Lie::NothingDown),
    ("400 ms later", Lie::Delay(Duration::from_millis(400))),
    ("reordered", Lie::Reorder),
    ("duplicated", Lie::Duplicate),
];

/// How often a client of the node publishes for the cloud meanwhile.
const UPLOAD_EVERY: Duration = Duration::from_millis(50);

/// Runs it. What goes wrong for good ends it and is a violation.
pub async fn run(stage: &mut Stage, options: &Options, say: &Say) -> Outcome {
    let mut outcome = Outcome::new(&format!("links that lie, seed {}", options.seed));
    if let Err(error) = story(stage, options, say, &mut outcome).await {
        outcome.violation(format!("{error:#}"));
    }
    outcome
}

async fn story(stage: &mut Stage, options: &Options, say: &Say, outcome: &mut Outcome) -> Result<()> {
    let mut witness = Witness::new(stage).await?;
    let (uploads, paused) = (Uploads::new(), watch::Sender::new(false));
    // Dropped, and so ended, with this story.
    let mut tasks = JoinSet::new();
    let (broker, name) = (witness.stage.broker(), "sensor-0".to_owned());
    tasks.spawn(uploads::publish(broker, name, UPLOAD_EVERY, uploads.clone(), paused.subscribe()));
    tasks.spawn(uploads::follow(witness.stage.cloudcore_log(), uploads.clone()));
    let result = async {
        told(&mut witness, options, say, outcome).await?;
        blocked(&mut witness, options, say, outcome).await?;
        paused.send_replace(true);
        witness
            .stage
            .until("every accepted upload in the cloud", LONG, async |_| uploads.open().all_arrived())
            .await?;
        let metrics = Metrics::read(witness.stage.monitor()).await?;
        uploads.open().compare(&metrics, outcome);
        witness.is_whole().await
    }
    .await;
    uploads.open().show(outcome);
    result
}

/// The lies about packets, QUIC alone.
async fn told(witness: &mut Witness<'_>, options: &Options, say: &Say, outcome: &mut Outcome) -> Result<()> {
    let mut dice = SmallRng::seed_from_u64(options.seed);
    let mut figures = vec![[Samples::default(), Samples::default()]; LIES.len()];
    let mut rebound = vec![Samples::default(); REBINDINGS as usize];
    let result = async {
        for turn in 1..=options.turns {
            for ((name, lie), [during, after]) in LIES.iter().zip(&mut figures) {
                // A link that still passes something both ways lives.
                let lives = !matches!(lie, Lie::NothingUp | Lie::NothingDown);
                let hold = if lives { options.hold / 3 } else { options.hold };
                let what = || format!("turn {turn}, {name}");
                let seen = held(witness, *lie, hold).await.with_context(what)?;
                witness.stage.relay.tell(Lie::None);
                let took = witness.change().await.with_context(what)?;
                if lives && seen.count() == 0 {
                    outcome.violation(format!("turn {turn}, {name}: no change came through"));
                }
                let shown = format!("{} changes during it, {}", seen.count(), seen.shown());
                say.at(&format!("{name}: {shown}; one after it {}", seconds(took)));
                during.join(seen);
                after.add(took);
            }
            for (number, samples) in rebound.iter_mut().enumerate() {
                let pause = Duration::from_millis(dice.random_range(500..2000));
                tokio::time::sleep(pause).await;
                witness.stage.relay.rebind();
                let what = || format!("turn {turn}, rebinding {}", number + 1);
                let took = witness.change().await.with_context(what)?;
                samples.add(took);
                say.at(&format!("rebinding {}: a change {}", number + 1, seconds(took)));
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
    witness: &mut Witness<'_>,
    options: &Options,
    say: &Say,
    outcome: &mut Outcome,
) -> Result<()> {
    let mut seen = Blocked::default();
    let mut done = 0;
    let mut result = Ok(());
    while result.is_ok() && done < options.blocked {
        result = block(witness, options.hold, say, &mut seen).await;
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
        outcome.row("bytes over TCP", witness.stage.tcp.passed().to_string());
    }
    result
}

async fn block(witness: &mut Witness<'_>, hold: Duration, say: &Say, seen: &mut Blocked) -> Result<()> {
    carried_by(witness, "quic").await?;
    witness.stage.tcp.serve(true);
    let (tcp, begun) = (witness.stage.tcp.passed(), Instant::now());
    witness.stage.relay.tell(Lie::NoUdp);
    carried_by(witness, "websocket").await?;
    witness.change().await?;
    let fell = begun.elapsed();
    seen.fell.add(fell);
    let during = held(witness, Lie::NoUdp, hold / 3).await?;
    if during.count() == 0 {
        bail!("no change came over WebSocket");
    }
    if witness.stage.tcp.passed() == tcp {
        bail!("changes came, and nothing crossed over TCP");
    }
    // Nothing passes: what was on its way waits in the relay, as in a network that stalls.
    held(witness, Lie::Cut, hold).await?;
    witness.stage.relay.tell(Lie::NoUdp);
    let stalled = witness.change().await?;
    seen.stalled.add(stalled);
    let begun = Instant::now();
    witness.stage.relay.tell(Lie::None);
    // Changes go on while the link moves.
    while witness.stage.carrier()?.as_deref() != Some("quic") {
        if begun.elapsed() > RETURN_WITHIN {
            bail!("{} s after UDP passes again the link is still WebSocket", RETURN_WITHIN.as_secs());
        }
        seen.during.add(witness.change().await?);
    }
    let returned = begun.elapsed();
    witness.stage.tcp.serve(false);
    let after = witness.change().await?;
    say.at(&format!(
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

async fn carried_by(witness: &mut Witness<'_>, carrier: &str) -> Result<()> {
    let what = format!("a link over {carrier}");
    let is = async |stage: &Stage| Ok((stage.carrier()?.as_deref() == Some(carrier)).then_some(()));
    witness.stage.until(&what, LONG, is).await.map(drop)
}

/// Tells a lie for `hold` and makes changes meanwhile, one after the other. Answers what those took that arrived before
/// its end. The lie goes on.
async fn held(witness: &mut Witness<'_>, lie: Lie, hold: Duration) -> Result<Samples> {
    witness.stage.relay.tell(lie);
    let begun = Instant::now();
    let mut during = Samples::default();
    while begun.elapsed() < hold {
        witness.patch().await?;
        match witness.arrival(hold.saturating_sub(begun.elapsed())).await {
            Ok(took) => during.add(took),
            Err(_) => witness.stage.check()?,
        }
    }
    Ok(during)
}

fn seconds(time: Duration) -> String {
    format!("after {:.2} s", time.as_secs_f64())
}
