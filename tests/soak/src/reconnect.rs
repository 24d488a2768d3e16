//! The link is gone for a while, and a change that was made meanwhile waits for it.

use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use crate::config_map_pod::ConfigMapPod;
use crate::relay::LinkFault;
use crate::testbed::LONG;
use crate::{Console, Outcome, Samples, Testbed};

/// 2 s from the moment at which the link is back until the change is in the pod.
const BAR: Duration = Duration::from_secs(2);

/// 15 s: by then the cloud has heard that the node is alive, and what it wrote about a silent node is taken back.
const READY_WITHIN: Duration = Duration::from_secs(15);

/// How it is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often.
    pub rounds: u32,
    /// How long the link is gone, in seconds: at least and at most.
    pub away: [f64; 2],
    /// Decides how long each time.
    pub seed: u64,
}

/// Runs it. What goes wrong for good ends it and is a violation.
pub async fn run(testbed: &mut Testbed, options: &Options, console: &Console) -> Outcome {
    let mut outcome = Outcome::new(&format!("reconnect, seed {}", options.seed));
    let mut figures = Figures::default();
    if let Err(error) = story(testbed, options, console, &mut figures, &mut outcome).await {
        outcome.violation(format!("after {} rounds: {error:#}", figures.changes.count()));
    }
    let Figures { changes, ready } = figures;
    let bar = BAR.as_secs();
    outcome.row("rounds", format!("{} of {}", changes.count(), options.rounds));
    outcome.row(&format!("link back → the change in the pod, bar {bar} s"), changes.shown());
    outcome.row("then: the node Ready", ready.shown());
    outcome
}

#[derive(Default)]
struct Figures {
    changes: Samples,
    ready: Samples,
}

async fn story(
    testbed: &mut Testbed,
    options: &Options,
    console: &Console,
    figures: &mut Figures,
    outcome: &mut Outcome,
) -> Result<()> {
    let mut map_pod = ConfigMapPod::new(testbed).await?;
    let mut dice = SmallRng::seed_from_u64(options.seed);
    let [least, most] = options.away;
    for round in 1..=options.rounds {
        let away = Duration::from_secs_f64(dice.random_range(least..=most));
        map_pod.testbed.relay.inject(LinkFault::Cut);
        tokio::time::sleep(away / 2).await;
        map_pod.patch().await.context("a change in the cloud")?;
        tokio::time::sleep(away / 2).await;
        map_pod.testbed.check()?;
        map_pod.testbed.relay.inject(LinkFault::None);
        let took = map_pod.arrival(LONG).await?;
        figures.changes.add(took);
        let (gone, took) = (away.as_secs_f64(), took.as_secs_f64());
        console.at(&format!(
            "round {round:3}: {gone:4.1} s without a link; back, and the change after {took:.2} s"
        ));
        if took > BAR.as_secs_f64() {
            outcome.violation(format!("round {round}: the change came after {took:.2} s"));
        }
        let ready =
            map_pod.testbed.until("the node is Ready", READY_WITHIN, async |testbed| testbed.ready().await);
        match ready.await {
            Ok(((), took)) => figures.ready.add(took),
            Err(error) => outcome.violation(format!("round {round}: {error:#}")),
        }
    }
    map_pod.is_whole().await
}
