//! Ten pods with everything that a pod of an edge node has, among them a device of a plugin and a mapper with its device. The link is cut,
//! the power goes and comes back, and without the cloud all of them run, their probes say so, and the twin moves.

mod plugin;
mod ten_pods;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::block_in_place;

use crate::kill::device;
use crate::pods::{self, RunningContainer};
use crate::relay::LinkFault;
use crate::testbed::{LONG, NODE};
use crate::{Console, Outcome, Samples, Testbed};
use plugin::Plugin;
use ten_pods::{DEVICE, MOVES};

/// What is promised of each, after the runtime is up.
#[derive(Debug, Clone, Copy)]
pub struct Bars {
    /// All pods run, with their own files.
    pub run: Duration,
    /// The node itself calls all of them Ready.
    pub green: Duration,
    /// The node's twin has new values of the device.
    pub twin: Duration,
}

/// The scene's.
pub const BARS: Bars =
    Bars { run: Duration::from_secs(60), green: Duration::from_secs(30), twin: Duration::from_secs(30) };

/// 2 s: so much later than EdgeCore the device plugin may start.
const PLUGIN_LATE_MAX: f64 = 2.0;
/// 8 MiB of the node's own list of pods.
const LIST_MAX: u64 = 8 << 20;

/// How it is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often.
    pub rounds: u32,
    /// How long the link is cut before the power goes; tokens last 600 s.
    pub away: Duration,
    /// Decides what starts before what.
    pub seed: u64,
    /// What is later than these is a violation; none: any time within a minute will do.
    pub bars: Option<Bars>,
}

#[derive(Default)]
struct Figures {
    done: u32,
    run: Samples,
    green: Samples,
    twin: Samples,
    caught_up: Samples,
}

/// Runs it. What goes wrong for good ends it and is a violation.
pub async fn run(testbed: &mut Testbed, options: &Options, console: &Console) -> Outcome {
    let mut outcome =
        Outcome::new(&format!("ten pods with everything, offline boots, seed {}", options.seed));
    let mut figures = Figures::default();
    if let Err(error) = rounds(testbed, options, console, &mut figures, &mut outcome).await {
        outcome.violation(format!("round {}: {error:#}", figures.done + 1));
    }
    let bars = options.bars.unwrap_or(BARS);
    let shown = |samples: &Samples, bar: Duration| format!("{} (bar: {} s)", samples.shown(), bar.as_secs());
    outcome.row("rounds", format!("{} of {}", figures.done, options.rounds));
    outcome.row("all run again after the runtime is up", shown(&figures.run, bars.run));
    outcome.row("all probes green", shown(&figures.green, bars.green));
    outcome.row("the device's twin moves on the node", shown(&figures.twin, bars.twin));
    outcome.row("link back → the cloud shows them Ready", figures.caught_up.shown());
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
    let mut scene = Scene { plugin: Some(Plugin::start(testbed.device_plugins())?), testbed };
    scene.testbed.kubectl.apply(&pods::needs(0)).await?;
    let all = ten_pods::all(scene.testbed.folder(), scene.testbed.binaries())?;
    scene.testbed.kubectl.apply(&all).await?;
    scene.until_shown().await.context("at the beginning")?;
    scene.until_green().await.context("at the beginning")?;
    scene.until_twin_moves().await.context("at the beginning")?;
    let uids = scene.uids().await?;
    for _ in 0..options.rounds {
        scene.cut_link().await.context("with the link cut")?;
        tokio::time::sleep(options.away).await;
        let before = scene.testbed.relay.passed();
        let (early, late) = (dice.random_bool(0.5), dice.random_range(0.0..PLUGIN_LATE_MAX));
        let up = scene.boot(early, Duration::from_secs_f64(late)).await.context("the boot")?;
        scene.until_running().await.context("after the boot")?;
        let run = up.elapsed();
        scene.until_green().await.context("after the boot")?;
        let green = up.elapsed();
        scene.until_twin_moves().await.context("after the boot")?;
        let twin = up.elapsed();
        if scene.testbed.relay.passed() != before {
            bail!("something crossed a link that is cut");
        }
        let round = figures.done + 1;
        if let Some(bars) = options.bars {
            for (what, took, bar) in
                [("ran", run, bars.run), ("were Ready", green, bars.green), ("moved", twin, bars.twin)]
            {
                if took > bar {
                    outcome
                        .violation(format!("round {round}: they {what} after {:.1} s", took.as_secs_f64()));
                }
            }
        }
        scene.testbed.relay.inject(LinkFault::None);
        let caught_up = scene.until_shown().await.context("after the link was back")?;
        let now = scene.uids().await?;
        if now != uids {
            outcome.violation(format!("round {round}: the pods are {now:?} and were {uids:?}"));
        }
        figures.done += 1;
        figures.run.add(run);
        figures.green.add(green);
        figures.twin.add(twin);
        figures.caught_up.add(caught_up);
        let order = if early { "before" } else { "after" };
        console.at(&format!(
            "round {round:3}: EdgeCore {order} the runtime, the plugin {late:.1} s later; run after {:.2} s, green after {:.2} s, \
             the twin moves after {:.2} s; Ready in the cloud {:.2} s after the link",
            run.as_secs_f64(),
            green.as_secs_f64(),
            twin.as_secs_f64(),
            caught_up.as_secs_f64(),
        ));
    }
    Ok(())
}

struct Scene<'a> {
    testbed: &'a mut Testbed,
    plugin: Option<Plugin>,
}

impl Scene<'_> {
    async fn cut_link(&mut self) -> Result<()> {
        let before = self.testbed.relay.dropped();
        self.testbed.relay.inject(LinkFault::Cut);
        let cut = async |testbed: &Testbed| Ok((testbed.relay.dropped() > before).then_some(()));
        self.testbed.until("a packet that the relay drops", LONG, cut).await.map(drop)
    }

    /// Power off and on. Answers when the runtime was up.
    async fn boot(&mut self, early: bool, plugin_late: Duration) -> Result<Instant> {
        self.testbed.kill_edgecore();
        self.plugin = None;
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
        tokio::time::sleep(plugin_late).await;
        self.plugin = Some(Plugin::start(self.testbed.device_plugins())?);
        Ok(up)
    }

    /// All ten run, with their own files and variables.
    async fn until_running(&mut self) -> Result<()> {
        let right = async |testbed: &Testbed| running(testbed).await.map(Some);
        self.testbed.until("all ten run with the right files", LONG, right).await.map(drop)
    }

    /// The node itself calls all ten Ready, in the containers that run.
    async fn until_green(&mut self) -> Result<()> {
        let green = async |testbed: &Testbed| {
            let list = ask(&testbed.node_socket(), "/pods").await?;
            let pods = list["items"].as_array().cloned().unwrap_or_default();
            ready(&pods, &running(testbed).await?).map(Some)
        };
        self.testbed.until("the node calls all ten Ready", LONG, green).await.map(drop)
    }

    /// The cloud shows what runs as Ready. Answers how long that took.
    async fn until_shown(&mut self) -> Result<Duration> {
        let shown = async |testbed: &Testbed| {
            let pods = testbed.kubectl.list("pods", ten_pods::SELECTOR).await?;
            ready(&pods, &running(testbed).await?)?;
            testbed.ready().await?.with_context(|| format!("{NODE} is not Ready"))?;
            Ok(Some(()))
        };
        let ((), took) = self.testbed.until("the cloud shows all ten Ready", LONG, shown).await?;
        Ok(took)
    }

    /// The twin on the node has one value of the device and then another one: what was kept never moves.
    async fn until_twin_moves(&mut self) -> Result<()> {
        let broker = self.testbed.broker();
        let value = async || -> Result<Option<String>> {
            let twin = device::twin(&broker, DEVICE).await?;
            Ok(twin[MOVES].pointer("/actual/value").and_then(Value::as_str).map(str::to_owned))
        };
        let (first, _) = self.testbed.until("a value in the twin", LONG, async |_| value().await).await?;
        let other = async |_: &Testbed| Ok(value().await?.filter(|value| *value != first));
        self.testbed.until("another value in the twin", LONG, other).await.map(drop)
    }

    async fn uids(&self) -> Result<BTreeMap<String, String>> {
        let all = running(self.testbed).await?;
        Ok(all.into_iter().map(|inside| (inside.pod, inside.uid)).collect())
    }
}

/// The pods' main containers, all of which run with what they need.
async fn running(testbed: &Testbed) -> Result<Vec<RunningContainer>> {
    let running = pods::running(&testbed.host).await?;
    let names: Vec<&str> = running.iter().map(|inside| inside.pod.as_str()).collect();
    if names != ten_pods::NAMES {
        bail!("these run: {}", names.join(" "));
    }
    for inside in &running {
        inside.check_files(0)?;
        inside.check_env(0)?;
    }
    Ok(running)
}

/// Fails unless each of these pods is Ready in the container that runs.
fn ready(pods: &[Value], running: &[RunningContainer]) -> Result<()> {
    for inside in running {
        let name = &inside.pod;
        let pod = pods.iter().find(|pod| pod["metadata"]["name"] == **name);
        let status = &pod.with_context(|| format!("{name} is not shown"))?["status"];
        let mut containers = status["containerStatuses"].as_array().into_iter().flatten();
        let is_shown = containers
            .any(|one| one["containerID"].as_str().is_some_and(|id| id.ends_with(&inside.container)));
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        let is_ready = conditions.any(|one| one["type"] == "Ready" && one["status"] == "True");
        if !is_shown || !is_ready {
            bail!("{name} runs in {} and is shown as {status}", inside.container);
        }
    }
    Ok(())
}

/// What the node itself answers to agents on it.
async fn ask(socket: &PathBuf, path: &str) -> Result<Value> {
    let stream = UnixStream::connect(socket).await;
    let mut stream = stream.with_context(|| format!("connect to {}", socket.display()))?;
    // Of that version an answer ends with the connection.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: node\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LIST_MAX).read_to_end(&mut answer).await.context("read the node's answer")?;
    let end =
        answer.windows(4).position(|four| four == b"\r\n\r\n").context("the node's answer has no end")?;
    let (head, body) = (String::from_utf8_lossy(&answer[..end]), &answer[end + 4..]);
    if head.split_whitespace().nth(1) != Some("200") {
        bail!("the node answers {path} with {}", head.lines().next().unwrap_or_default());
    }
    serde_json::from_slice(body).with_context(|| format!("the node's answer to {path}"))
}
