//! The link lies in every way that we know of, and heals.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

use crate::pods::{self, Inside, SETTINGS};
use crate::relay::Lie;
use crate::stage::LONG;
use crate::{Outcome, Samples, Say, Stage};

/// How it is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often all lies are told.
    pub turns: u32,
    /// How long each is told. A dead link is noticed within 10 s.
    pub hold: Duration,
    /// Decides which packets are late and when the port changes.
    pub seed: u64,
}

/// s2n-quic falls silent after the fifth.
const REBINDINGS: u32 = 8;

const LIES: [(&str, Lie); 5] = [
    ("nothing up", Lie::NothingUp),
    ("nothing down", Lie::NothingDown),
    ("400 ms later", Lie::Delay(Duration::from_millis(400))),
    ("reordered", Lie::Reorder),
    ("duplicated", Lie::Duplicate),
];

/// Runs it. What goes wrong for good ends it and is a violation.
pub async fn run(stage: &mut Stage, options: &Options, say: &Say) -> Outcome {
    let mut outcome = Outcome::new(&format!("links that lie, seed {}", options.seed));
    if let Err(error) = story(stage, options, say, &mut outcome).await {
        outcome.violation(format!("{error:#}"));
    }
    outcome
}

async fn story(stage: &mut Stage, options: &Options, say: &Say, outcome: &mut Outcome) -> Result<()> {
    stage.kubectl.apply(&pods::needs(0)).await?;
    stage.kubectl.apply(&[pods::deployment(1)]).await?;
    let (pod, _) = stage
        .until("the pod runs", LONG, async |stage| {
            let running = pods::running(&stage.host).await?;
            let Some(pod) = running.into_iter().next() else { return Ok(None) };
            pod.check_files(0)?;
            Ok(Some(pod))
        })
        .await?;
    let mut told = Told { stage, pod, version: 0 };
    let mut dice = SmallRng::seed_from_u64(options.seed);
    let mut figures = vec![[Samples::default(), Samples::default()]; LIES.len()];
    let mut rebound = vec![Samples::default(); REBINDINGS as usize];
    let result = async {
        for turn in 1..=options.turns {
            for ((name, lie), [during, after]) in LIES.iter().zip(&mut figures) {
                // A link that still passes something both ways lives.
                let lives = !matches!(lie, Lie::NothingUp | Lie::NothingDown);
                let hold = if lives { options.hold / 3 } else { options.hold };
                let seen = told.lie(*lie, hold).await.with_context(|| format!("turn {turn}, {name}"))?;
                if lives && seen.0.count() == 0 {
                    outcome.violation(format!("turn {turn}, {name}: no change came through"));
                }
                let shown = format!("{} changes during it, {}", seen.0.count(), seen.0.shown());
                say.at(&format!("{name}: {shown}; one after it {}", seconds(seen.1)));
                during.join(seen.0);
                after.add(seen.1);
            }
            for (number, samples) in rebound.iter_mut().enumerate() {
                let pause = Duration::from_millis(dice.random_range(500..2000));
                tokio::time::sleep(pause).await;
                told.stage.relay.rebind();
                let took =
                    told.change().await.with_context(|| format!("turn {turn}, rebinding {}", number + 1))?;
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
    result?;
    told.is_whole().await
}

fn seconds(time: Duration) -> String {
    format!("after {:.2} s", time.as_secs_f64())
}

struct Told<'a> {
    stage: &'a mut Stage,
    pod: Inside,
    version: u64,
}

impl Told<'_> {
    /// Tells a lie for `hold` and makes changes meanwhile, one after the other. Answers what those took that arrived
    /// before its end, and how long after the end a new change has arrived: the link is back then.
    async fn lie(&mut self, lie: Lie, hold: Duration) -> Result<(Samples, Duration)> {
        self.stage.relay.tell(lie);
        let begun = Instant::now();
        let mut during = Samples::default();
        while begun.elapsed() < hold {
            self.patch().await?;
            match self.arrival(hold.saturating_sub(begun.elapsed())).await {
                Ok(took) => during.add(took),
                Err(_) => self.stage.check()?,
            }
        }
        self.stage.relay.tell(Lie::None);
        Ok((during, self.change().await?))
    }

    /// Makes a change and answers how long it took to the node.
    async fn change(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        self.patch().await?;
        self.arrival(LONG).await?;
        Ok(begun.elapsed())
    }

    async fn patch(&mut self) -> Result<()> {
        self.version += 1;
        let patch = json!({"data": pods::settings(self.version)});
        self.stage.kubectl.merge("configmap", SETTINGS, &patch).await
    }

    async fn arrival(&mut self, limit: Duration) -> Result<Duration> {
        let (pod, version) = (self.pod.clone(), self.version.to_string());
        let what = "the change of the config map in the pod";
        let ((), took) =
            self.stage.until(what, limit, async |_| Ok((pod.round()? == version).then_some(()))).await?;
        Ok(took)
    }

    /// The pod was left alone, and the node is Ready.
    async fn is_whole(&mut self) -> Result<()> {
        let running = pods::running(&self.stage.host).await?;
        if running.iter().map(|pod| &pod.container).ne([&self.pod.container]) {
            bail!("the container of {} is another now", self.pod.pod);
        }
        self.stage.until("the node is Ready", LONG, async |stage| stage.ready().await).await?;
        Ok(())
    }
}
