//! The node loses its power while there is no cloud, and its pods come back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::pods::{self, APP, RunningContainer, SECRET, SETTINGS};
use crate::relay::LinkFault;
use crate::testbed::LONG;
use crate::{Console, Outcome, Samples, Testbed};

/// What is promised: the pods run this long after the runtime is up.
pub const BAR: Duration = Duration::from_secs(10);

/// How it is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often.
    pub rounds: u32,
    /// Pods of the Deployment; one more comes and goes with every round.
    pub pods: u32,
    /// How long the link is cut before the power goes.
    pub away: Duration,
    /// Decides whether EdgeCore starts before or after the runtime.
    pub seed: u64,
    /// Pods that are later than this are a violation; none: any time within a minute will do.
    pub bar: Option<Duration>,
}

/// A pod goes on with a token that ended while there was no cloud, and has a new one soon after the link is back.
const TOKENS_WITHIN: Duration = Duration::from_secs(120);

#[derive(Default)]
struct Figures {
    done: u32,
    up: Samples,
    caught_up: Samples,
    tokens: Samples,
    remembered: (usize, usize),
    addresses: usize,
}

/// Runs it. What goes wrong for good ends it and is a violation.
pub async fn run(testbed: &mut Testbed, options: &Options, console: &Console) -> Outcome {
    let mut outcome = Outcome::new(&format!("offline reboot, seed {}", options.seed));
    let mut figures = Figures::default();
    if let Err(error) = rounds(testbed, options, console, &mut figures, &mut outcome).await {
        outcome.violation(format!("round {}: {error:#}", figures.done + 1));
    }
    outcome.row("rounds", format!("{} of {}", figures.done, options.rounds));
    outcome.row("pods", format!("{} and one that is deleted meanwhile", options.pods));
    let bar = BAR.as_secs();
    outcome.row("all run again after the runtime is up", format!("{} (bar: {bar} s)", figures.up.shown()));
    outcome.row("link back → all in sync", figures.caught_up.shown());
    outcome.row("then: all tokens valid", figures.tokens.shown());
    let (sandboxes, containers) = figures.remembered;
    outcome
        .row("most that the runtime remembered", format!("{sandboxes} sandboxes, {containers} containers"));
    outcome.row("most addresses reserved", figures.addresses.to_string());
    outcome
}

async fn rounds(
    testbed: &mut Testbed,
    options: &Options,
    console: &Console,
    figures: &mut Figures,
    outcome: &mut Outcome,
) -> Result<()> {
    let mut dice = SmallRng::seed_from_u64(options.seed);
    testbed.kubectl.apply(&pods::needs(0)).await?;
    testbed.kubectl.apply(&[pods::deployment(options.pods)]).await?;
    let mut first: Option<BTreeMap<String, String>> = None;
    for round in 1..=options.rounds {
        let mut round = Round {
            testbed,
            extra: format!("extra-{round}"),
            held: u64::from(round) - 1,
            wanted: options.pods as usize,
        };
        round.before().await.context("before the cut")?;
        round.change(options.away).await.context("with the link cut")?;
        let early = dice.random_bool(0.5);
        let up = round.reboot(early).await.context("after the reboot")?;
        let CaughtUp { uids, took, tokens_after, tokens_last } =
            round.after().await.context("after the link was back")?;
        let first = first.get_or_insert_with(|| uids.clone());
        if *first != uids {
            outcome
                .violation(format!("round {}: the pods are {uids:?} and were {first:?}", figures.done + 1));
        }
        let remembered = pods::remembered(&round.testbed.host).await?;
        figures.remembered = figures.remembered.max(remembered);
        let addresses = round.testbed.reserved_addresses()?;
        figures.addresses = figures.addresses.max(addresses);
        if addresses > remembered.0 {
            outcome.violation(format!(
                "round {}: {addresses} addresses are reserved for {} sandboxes",
                figures.done + 1,
                remembered.0
            ));
        }
        // A pod, its last incarnation, and one that is on its way out.
        if remembered.0 > 3 * (options.pods as usize + 1) {
            outcome.violation(format!(
                "round {}: the runtime remembers {} sandboxes",
                figures.done + 1,
                remembered.0
            ));
        }
        if options.bar.is_some_and(|bar| up > bar) {
            let seconds = up.as_secs_f64();
            outcome.violation(format!("round {}: the pods came after {seconds:.1} s", figures.done + 1));
        }
        figures.done += 1;
        figures.up.add(up);
        figures.caught_up.add(took);
        figures.tokens.add(tokens_after);
        let order = if early { "before" } else { "after" };
        console.at(&format!(
            "round {:3}: EdgeCore {order} the runtime; all pods after {:.2} s, in sync {:.2} s after the link; tokens valid after {:.2} s for {tokens_last} s",
            figures.done,
            up.as_secs_f64(),
            took.as_secs_f64(),
            tokens_after.as_secs_f64(),
        ));
    }
    Ok(())
}

/// What was seen when the link was back.
struct CaughtUp {
    /// The pods.
    uids: BTreeMap<String, String>,
    took: Duration,
    tokens_after: Duration,
    /// How many seconds the first of them to end lasts.
    tokens_last: u64,
}

struct Round<'a> {
    testbed: &'a mut Testbed,
    /// The pod that is deleted while the link is cut.
    extra: String,
    /// The version of config map and secret that the node holds before the cut.
    held: u64,
    /// Pods that stay.
    wanted: usize,
}

impl Round<'_> {
    /// All pods run, and the cloud knows it.
    async fn before(&mut self) -> Result<()> {
        self.testbed.kubectl.apply(&[pods::pod(&self.extra)]).await?;
        let (wanted, held) = (self.wanted + 1, self.held);
        self.testbed
            .until("all pods run with the right files, and the cloud shows it", LONG, async |testbed| {
                let running = right(testbed, wanted, held).await?;
                shown(testbed, &running, held).await
            })
            .await?;
        Ok(())
    }

    /// Cuts the link; then a config map and a secret change and a pod is deleted.
    async fn change(&mut self, away: Duration) -> Result<()> {
        let before = self.testbed.relay.dropped();
        self.testbed.relay.inject(LinkFault::Cut);
        self.testbed
            .until("a packet that the relay drops", LONG, async |testbed| {
                Ok((testbed.relay.dropped() > before).then_some(()))
            })
            .await?;
        let kubectl = self.testbed.kubectl.clone();
        kubectl.merge("configmap", SETTINGS, &json!({"data": pods::settings(self.held + 1)})).await?;
        kubectl.merge("secret", SECRET, &json!({"data": pods::secret(self.held + 1)})).await?;
        kubectl.run(&["delete", "pod", &self.extra, "--wait=false"]).await?;
        tokio::time::sleep(away).await;
        Ok(())
    }

    /// Power off and on. Answers how long after the runtime was up all pods ran again, as the node knew them.
    async fn reboot(&mut self, early: bool) -> Result<Duration> {
        let before = self.testbed.relay.passed();
        self.testbed.kill_edgecore();
        block_in_place(|| self.testbed.host.cut_power())?;
        block_in_place(|| self.testbed.host.restore_power())?;
        if early {
            self.testbed.start_edgecore()?;
        }
        block_in_place(|| self.testbed.host.restart_runtime())?;
        let up = Instant::now();
        if !early {
            self.testbed.start_edgecore()?;
        }
        let (wanted, held) = (self.wanted + 1, self.held);
        self.testbed
            .until("all pods run again with the right files, without the cloud", LONG, async |testbed| {
                let running = right(testbed, wanted, held).await?;
                running.iter().try_for_each(|inside| inside.check_env(held))?;
                Ok(Some(()))
            })
            .await?;
        let took = up.elapsed();
        if self.testbed.relay.passed() != before {
            bail!("something crossed a link that is cut");
        }
        Ok(took)
    }

    /// The link is back, and everything is in sync.
    async fn after(&mut self) -> Result<CaughtUp> {
        let before = pods::running(&self.testbed.host).await?;
        self.testbed.relay.inject(LinkFault::None);
        let begun = Instant::now();
        let (wanted, now, extra) = (self.wanted, self.held + 1, self.extra.clone());
        let (running, _) = self
            .testbed
            .until(
                "the changes on the node, the deleted pod gone, and the cloud in the know",
                LONG,
                async |testbed| {
                    let running = right(testbed, wanted, now).await?;
                    if testbed.kubectl.get("pod", &extra).await?.is_some() {
                        bail!("{extra} is still in the API");
                    }
                    testbed.ready().await?.context("the node is not Ready")?;
                    shown(testbed, &running, now).await?.context("the cloud shows something else")?;
                    Ok(Some(running))
                },
            )
            .await?;
        let took = begun.elapsed();
        for inside in &running {
            if before.iter().all(|other| other.container != inside.container) {
                bail!("{} did not change and has a new container since the link is back", inside.pod);
            }
        }
        let (tokens_last, tokens_after) = self
            .testbed
            .until("tokens that are valid", TOKENS_WITHIN, async |testbed| {
                let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
                let ends: Result<Vec<u64>> =
                    pods::running(&testbed.host).await?.iter().map(RunningContainer::token_ends).collect();
                let end = ends?.into_iter().min().unwrap_or_default();
                if end <= now {
                    bail!("a token ended {} s ago", now - end);
                }
                Ok(Some(end - now))
            })
            .await?;
        let uids = running.into_iter().map(|inside| (inside.pod, inside.uid)).collect();
        Ok(CaughtUp { uids, took, tokens_after, tokens_last })
    }
}

/// The pods that run: `wanted` of them, one container each, with files of version `round`.
async fn right(testbed: &Testbed, wanted: usize, round: u64) -> Result<Vec<RunningContainer>> {
    let running = pods::running(&testbed.host).await?;
    let names: Vec<&str> = running.iter().map(|inside| inside.pod.as_str()).collect();
    if running.len() != wanted || names.windows(2).any(|two| two[0] == two[1]) {
        bail!("these run instead of {wanted}: {}", names.join(" "));
    }
    running.iter().try_for_each(|inside| inside.check_files(round))?;
    Ok(running)
}

/// Whether the cloud shows exactly these pods, Running in these containers after `most` restarts, and none on its way
/// out.
async fn shown(testbed: &Testbed, running: &[RunningContainer], most: u64) -> Result<Option<()>> {
    let all = testbed.kubectl.list("pods", "app").await?;
    for pod in &all {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            bail!("the cloud shows {name} as Terminating");
        }
        let restarts = pod.pointer("/status/containerStatuses/0/restartCount").and_then(Value::as_u64);
        if restarts.is_none_or(|count| count > most) {
            bail!("the cloud shows {name} with {restarts:?} restarts after {most} reboots");
        }
        let container = pod.pointer("/status/containerStatuses/0/containerID").and_then(Value::as_str);
        let known = running.iter().find(|inside| inside.pod == name);
        let Some(known) = known else { bail!("the cloud shows {name}, which does not run") };
        if container.is_none_or(|id| !id.ends_with(&known.container)) || pod["status"]["phase"] != "Running" {
            bail!(
                "the cloud shows {name} {} in {container:?}, it runs in {}",
                pod["status"]["phase"],
                known.container
            );
        }
    }
    if all.len() != running.len() {
        bail!("the cloud shows {} of {} pods of {APP}", all.len(), running.len());
    }
    Ok(Some(()))
}
