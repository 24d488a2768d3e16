//! Three CloudCores are restarted one after another, as an update does, while pods come to many nodes and go: no pod gets stuck, no node
//! is ever not Ready, and nothing older comes after anything newer.
//!
//! The CloudCores are the programs that ship, beside a real Kubernetes or beside an API of ours in this process. The nodes share this
//! process: each is a whole EdgeCore that has joined at a CloudCore's door, with its store and its link, over a runtime in memory.

mod api;
mod clouds;
mod fleet;
mod objects;
mod plan;
mod volumes;
mod witness;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::{StreamExt as _, TryStreamExt as _};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::watch;
use tokio::task::{JoinSet, block_in_place};

use crate::{Console, Outcome, Samples, process};
use api::ApiServer;
use clouds::{Clouds, NODES_MAX};
use fleet::{Fleet, Place};
use objects::{COUNTER, Objects};
use plan::Step;
use witness::Witness;

/// 60 s after the last CloudCore of a round is ready: by then every pod runs, none goes, and every node has the newest.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// For a hundred nodes that begin at once on a small machine.
const UP_WITHIN: Duration = Duration::from_secs(300);
/// 4 nodes join at once: each join is a program and a key.
const JOINS_AT_ONCE: usize = 4;
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Of what is missing so much is told.
const TOLD: usize = 5;

/// What is broken on purpose, so that it has to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Defect {
    /// An old value is written into the config map after newer ones
    Older,
    /// A container is killed, so that its node starts it again
    Twice,
    /// A Node says that it is not Ready
    Unready,
}

/// How it is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many nodes.
    pub nodes: usize,
    /// How many pods there are in the end; one is on each node from the beginning.
    pub pods: usize,
    /// How often each CloudCore is restarted.
    pub rounds: usize,
    /// The kubeconfig of an administrator of a real Kubernetes, which keeps the definitions and CloudCore's account; without it an API of ours.
    pub kubeconfig: Option<PathBuf>,
    /// What is broken on purpose.
    pub defect: Option<Defect>,
    /// Where the CloudCores' logs are kept when something is wrong.
    pub logs: Option<PathBuf>,
}

/// Runs it. What goes wrong for good ends it and is a violation.
pub async fn run(binaries: &Path, options: &Options, console: &Console) -> Outcome {
    let Options { nodes, pods, rounds, .. } = options;
    let place = if options.kubeconfig.is_some() { "Kubernetes" } else { "the stand-alone API" };
    let title = format!(
        "rolling restarts, {rounds} of three CloudCores beside {place}: {pods} pods on {nodes} nodes"
    );
    Outcome::of(&title, async |outcome| {
        if !(1..=NODES_MAX).contains(nodes) || pods <= nodes || *rounds == 0 {
            bail!("1 to {NODES_MAX} nodes, more pods than nodes, and a round at least");
        }
        let folder = Folder::make()?;
        let mut stage = Stage::up(&folder.0, binaries, options, console).await?;
        let told = stage.story(options, console, outcome).await;
        outcome_of(&mut stage, outcome)?;
        if told.is_err() && options.kubeconfig.is_some() {
            // Somebody's cluster goes on. What went wrong for good is told already.
            let _ = stage.leave().await;
        }
        if told.is_err() || !outcome.violations().is_empty() {
            console.line(&stage.clouds.log_tails());
            if let Some(folder) = &options.logs {
                stage.clouds.keep_logs(folder)?;
            }
        }
        told
    })
    .await
}

/// A folder that goes with this.
struct Folder(PathBuf);

impl Folder {
    fn make() -> Result<Folder> {
        let folder = std::env::temp_dir().join(format!("kh-rolling-{}", std::process::id()));
        std::fs::create_dir_all(&folder).context("make a folder")?;
        Ok(Folder(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What is seen, by all who look, with the time.
#[derive(Clone)]
struct SharedWitness {
    console: Console,
    witness: Arc<Mutex<Witness>>,
}

impl SharedWitness {
    fn of(nodes: impl IntoIterator<Item = String>, console: Console) -> SharedWitness {
        SharedWitness { console, witness: Arc::new(Mutex::new(Witness::of(nodes))) }
    }

    /// It and the time: of two who look, the one with the earlier time tells first.
    fn open(&self) -> (Duration, MutexGuard<'_, Witness>) {
        let witness = self.witness.lock().unwrap_or_else(PoisonError::into_inner);
        (self.console.elapsed(), witness)
    }
}

/// Where it plays. What goes first ends first.
struct Stage {
    fleet: Fleet,
    lookers: JoinSet<Result<()>>,
    clouds: Clouds,
    objects: Objects,
    names: Vec<String>,
    witness: SharedWitness,
    _api: ApiServer,
}

impl Stage {
    async fn up(folder: &Path, binaries: &Path, options: &Options, console: &Console) -> Result<Stage> {
        raise_files()?;
        console.at("bringing up an API server, and three CloudCores beside it");
        let account = folder.join("cloudcore.kubeconfig");
        let api = ApiServer::start(options.kubeconfig.as_deref(), &account).await?;
        let clouds = Clouds::start(binaries, folder, &account).await?;
        console.at(&format!("{} nodes join", options.nodes));
        // Names of an earlier run may be taken still.
        let name = |at: usize| format!("rolling-{}-{at:03}", std::process::id());
        let names: Vec<String> = (0..options.nodes).map(name).collect();
        let witness = SharedWitness::of(names.clone(), *console);
        let places = join(&clouds, &api, folder, &names).await?;
        let objects = Objects::new(api.client());
        let mut lookers = JoinSet::new();
        lookers.spawn(objects.clone().follow_nodes(witness.clone()));
        objects.make().await?;
        lookers.spawn(objects.clone().follow_pods(witness.clone()));
        let fleet = Fleet::start(places, &witness)?;
        let mut stage = Stage { fleet, lookers, clouds, objects, names, witness, _api: api };
        let begun = Instant::now();
        stage
            .until("every node Ready", UP_WITHIN, |witness| {
                witness.not_ready_yet().into_iter().map(|node| format!("node {node} is not Ready")).collect()
            })
            .await?;
        stage.objects.make_counters(&stage.names).await?;
        stage.until("a pod on every node", UP_WITHIN, |witness| witness.missing(options.nodes, 0)).await?;
        console.at(&format!("all Ready, with a pod each, after {:.1} s", begun.elapsed().as_secs_f64()));
        Ok(stage)
    }

    /// Looks until nothing is missing, and says how long that took.
    async fn until(
        &mut self,
        what: &str,
        limit: Duration,
        missing: impl Fn(&Witness) -> Vec<String>,
    ) -> Result<Duration> {
        let begun = Instant::now();
        loop {
            self.check()?;
            let still = missing(&self.witness.open().1);
            if still.is_empty() {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > limit {
                let more = still.len().saturating_sub(TOLD);
                let told = still.into_iter().take(TOLD).collect::<Vec<_>>().join("; ");
                bail!("not seen within {} s: {what}: {told}, and {more} more", limit.as_secs());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn check(&mut self) -> Result<()> {
        self.clouds.check()?;
        self.clouds.look()?;
        self.fleet.check()?;
        match self.lookers.try_join_next() {
            Some(Ok(Err(error))) => Err(error),
            Some(_) => bail!("nobody looks at the API any more"),
            None => Ok(()),
        }
    }

    async fn story(&mut self, options: &Options, console: &Console, outcome: &mut Outcome) -> Result<()> {
        let Options { nodes, pods, rounds, defect, .. } = options;
        let ends = watch::Sender::new(false);
        let goes_back = watch::Sender::new(false);
        let counting =
            self.objects.clone().count(self.witness.clone(), goes_back.subscribe(), ends.subscribe());
        let counting = tokio::spawn(counting);
        let (mut ended, mut ready, mut settled) =
            (Samples::default(), Samples::default(), Samples::default());
        let steps = plan::steps(pods - nodes, rounds * Clouds::COUNT);
        for (round, steps) in steps.chunks(Clouds::COUNT).enumerate() {
            if round == 0
                && let Some(defect) = defect
            {
                self.plant(*defect, &goes_back).await?;
            }
            for (at, step) in steps.iter().enumerate() {
                self.check()?;
                let restarted =
                    self.restart(at, step).await.with_context(|| format!("round {}", round + 1))?;
                ended.add(restarted.ended);
                ready.add(restarted.ready);
            }
            if counting.is_finished() {
                bail!("nobody counts any more: {:?}", counting.await?.err());
            }
            let (wanted, value) = (nodes + steps[Clouds::COUNT - 1].pods(), self.witness.open().1.newest());
            let what = format!("round {}: all as it should be", round + 1);
            let took = self.until(&what, SETTLED_WITHIN, |witness| witness.missing(wanted, value)).await?;
            settled.add(took);
            console.at(&format!(
                "round {}: three CloudCores restarted; {wanted} pods run and {value} is everywhere {:.1} s after the last one was ready; {}",
                round + 1,
                took.as_secs_f64(),
                self.clouds.peaks(),
            ));
        }
        ends.send_replace(true);
        counting.await??;
        let value = self.witness.open().1.newest();
        let took = self
            .until("the newest value everywhere", SETTLED_WITHIN, |witness| witness.missing(*pods, value))
            .await?;
        outcome.row("restarts of a CloudCore", (rounds * Clouds::COUNT).to_string());
        outcome.row("SIGTERM → its end", ended.shown());
        outcome.row("start → /readyz", ready.shown());
        let bar = SETTLED_WITHIN.as_secs();
        outcome.row(&format!("last one ready → all as it should be, bar {bar} s"), settled.shown());
        outcome.row(
            "last value of the counter → on all nodes",
            format!("{value} after {:.2} s", took.as_secs_f64()),
        );

        self.witness.open().1.is_over();
        self.objects.delete_all().await?;
        let took = self
            .until("no pod is left", SETTLED_WITHIN, |witness| {
                witness.pods().into_iter().map(|uid| format!("pod {uid}")).collect()
            })
            .await?;
        outcome.row("all pods deleted → none left", format!("{:.1} s", took.as_secs_f64()));
        for container in self.fleet.running() {
            outcome.violation(format!("no pod is left, and there runs {container}"));
        }
        self.leave().await
    }

    /// Nothing of it is left in the cluster, but the definitions and CloudCore's account.
    async fn leave(&mut self) -> Result<()> {
        self.lookers.abort_all();
        self.objects.delete_all().await?;
        block_in_place(|| self.fleet.end());
        self.objects.forget(&self.names).await
    }

    async fn restart(&mut self, at: usize, step: &Step) -> Result<clouds::Restarted> {
        self.objects.scale(step).await?;
        let (objects, witness) = (self.objects.clone(), self.witness.clone());
        let meanwhile = async move || {
            let chosen: Vec<String> = {
                let (_, mut witness) = witness.open();
                let share = step.deleted.div_ceil(plan::DEPLOYMENTS);
                (0..plan::DEPLOYMENTS)
                    .flat_map(|at| witness.choose(&objects::pods_of(at), share))
                    .take(step.deleted)
                    .collect()
            };
            objects.delete(chosen).await
        };
        self.clouds.restart(at, meanwhile).await
    }

    async fn plant(&mut self, defect: Defect, goes_back: &watch::Sender<bool>) -> Result<()> {
        let first = "the first value everywhere";
        let nodes = self.names.len();
        self.until(first, SETTLED_WITHIN, |witness| witness.missing(nodes, 1)).await?;
        match defect {
            Defect::Older => {
                goes_back.send_replace(true);
            }
            Defect::Twice => self.fleet.kill_one(COUNTER)?,
            Defect::Unready => self.objects.unready(&self.names[0]).await?,
        }
        Ok(())
    }
}

/// Has all of them join, and says where each is.
async fn join(clouds: &Clouds, api: &ApiServer, folder: &Path, names: &[String]) -> Result<Vec<Place>> {
    let token = clouds.token(api.kubeconfig(), names.len()).await?;
    let joins = names.iter().enumerate().map(async |(at, name)| {
        let place = Place::new(name.clone(), folder, clouds.servers(at));
        std::fs::create_dir_all(&place.folder).context("make a node's folder")?;
        clouds.join(at, name, &place.folder, &token).await?;
        anyhow::Ok(place)
    });
    futures::stream::iter(joins).buffered(JOINS_AT_ONCE).try_collect().await
}

/// Each node has its store, its sockets and its ports.
fn raise_files() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("raise the limit of open files")
}

fn outcome_of(stage: &mut Stage, outcome: &mut Outcome) -> Result<()> {
    let (_, mut witness) = stage.witness.open();
    let (gaps, node) = witness.gaps();
    let (links, starts) = witness.counts();
    outcome.row(
        "pods that were there in all",
        format!("{}, containers started {starts}", witness.pods_in_all()),
    );
    outcome.row("a pod's first sight → Running", witness.to_running.shown_with_tail());
    outcome.row("a pod deleted → gone", witness.to_gone.shown_with_tail());
    outcome.row("a value's way to the API → in a node's volume", witness.to_volume.shown_with_tail());
    outcome.row("links of all nodes", links.to_string());
    outcome.row("a node's longest time without a link", format!("{} ({node})", gaps.shown_with_tail()));
    for violation in witness.take_violations() {
        outcome.violation(violation);
    }
    drop(witness);
    outcome.row("CloudCores' memory at its peak", stage.clouds.peaks());
    outcome.row("CloudCores' time of a core, together", format!("{:.1} s", stage.clouds.spent()?));
    let own = std::process::id();
    outcome.row(
        "this process with its nodes",
        format!("{:.0} MB at its peak, {:.1} s of a core", process::peak(own)? / 1e6, process::spent(own)?),
    );
    for panicked in stage.clouds.panicked() {
        outcome.violation(panicked);
    }
    Ok(())
}
