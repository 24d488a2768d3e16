//! `cargo soak`: faults on real parts, for as long as wanted. Exit code 1 says that something was lost or got stuck.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use soak::{
    Console, Outcome, Testbed, Transports, attack, binaries, bulk, certificates, code_order, copy,
    everything, idle, kill, link_faults, load, reboot, reconnect, rolling,
};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(name = "soak", about = "Breaks KubeHive's real parts over and over, and counts what was lost")]
struct Cli {
    /// The cargo profile of the daemons
    #[arg(long, global = true, default_value = "release")]
    profile: String,
    /// Daemons that are built already, instead
    #[arg(long, global = true, value_name = "FOLDER")]
    binaries: Option<PathBuf>,
    /// Decides what happens when
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
    /// Keep the daemons' logs here when something is wrong
    #[arg(long, global = true, value_name = "FOLDER")]
    logs: Option<PathBuf>,
    /// Tell each packet of what is counted in bytes
    #[arg(long, global = true)]
    packets: bool,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand)]
enum Scenario {
    /// One hostile certificate does all that it can: what CloudCore holds more, and what others feel
    Attack {
        /// How long each flood lasts
        #[arg(long, value_name = "SECONDS", default_value_t = 20)]
        hold: u64,
    },
    /// The node loses its power while there is no cloud, and its pods come back
    Reboot {
        #[arg(long, default_value_t = 50)]
        rounds: u32,
        /// Pods beside the one that comes and goes
        #[arg(long, default_value_t = 9)]
        pods: u32,
        /// How long the link is cut before the power goes; tokens last 600 s
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        away: u64,
    },
    /// Ten pods with everything, a device and a mapper: the node boots without its cloud, and all of it is back
    Everything {
        #[arg(long, default_value_t = 20)]
        rounds: u32,
        /// How long the link is cut before the power goes; tokens last 600 s
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        away: u64,
    },
    /// kill -9 of EdgeCore and CloudCore and cuts at random instants: nothing accepted is lost
    Kill {
        #[arg(long, default_value_t = 30)]
        minutes: u32,
        #[arg(long, default_value_t = 10)]
        devices: u32,
        /// MQTT clients that publish telemetry
        #[arg(long, default_value_t = 4)]
        uploaders: u32,
    },
    /// The link drops one way, delays, reorders, duplicates, changes its port, lets no UDP pass, and heals
    LinkFaults {
        #[arg(long, default_value_t = 5)]
        turns: u32,
        /// How often UDP is blocked
        #[arg(long, default_value_t = 3)]
        blocked: u32,
    },
    /// A node with nothing to do: what its link costs, and how soon a silent cut is noticed
    Idle {
        #[arg(long, default_value_t = 10)]
        minutes: u32,
    },
    /// The link is gone for 20 to 60 s; how soon a change that was made meanwhile is on the node
    Reconnect {
        #[arg(long, default_value_t = 20)]
        rounds: u32,
    },
    /// A copy out of a pod fills an uplink of 256 kbit/s: the node stays Ready, and a change arrives in time
    Copy {
        #[arg(long, default_value_t = 10)]
        minutes: u32,
    },
    /// Certificates of minutes: renewed, the CA replaced, an address added, the node away past their end; no link is lost for it
    Certificates {
        #[arg(long, default_value_t = 120)]
        minutes: u32,
        /// How long a certificate lives
        #[arg(long, value_name = "SECONDS", default_value_t = 600)]
        life: u64,
    },
    /// 1,000 devices that report every second, then 30 that report 20 times a second, over a round trip of 20 ms
    Load {
        /// How long each is measured
        #[arg(long, value_name = "SECONDS", default_value_t = 120)]
        seconds: u64,
    },
    /// Three CloudCores are restarted in turn while pods come and go: none stuck, no node NotReady, nothing older after newer
    Rolling {
        #[arg(long, default_value_t = 100)]
        nodes: usize,
        /// Pods in the end, one on each node among them
        #[arg(long, default_value_t = 500)]
        pods: usize,
        /// How often each CloudCore is restarted
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// An administrator's, of a real Kubernetes, where CloudCore's definitions and account stay; without it an API of ours
        #[arg(long, value_name = "FILE")]
        kubeconfig: Option<PathBuf>,
        /// Break something on purpose: the run has to fail
        #[arg(long = "break", value_enum)]
        defect: Option<rolling::Defect>,
    },
    /// Which of edgecore's code an idle node runs: writes the linker's script edge/code_order.ld. Needs qemu-x86_64 (package qemu-user)
    CodeOrder {
        /// How long the idle node is watched
        #[arg(long, default_value_t = 3)]
        minutes: u32,
        /// What the linker said (-Map) of the edgecore in the folder of --binaries
        #[arg(long, value_name = "FILE")]
        map: Option<PathBuf>,
        /// Where the script goes
        #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../edge/code_order.ld"))]
        script: PathBuf,
    },
    /// 1,000 objects over a round trip of 200 ms, and what a reconnect with them costs
    Bulk {
        #[arg(long, default_value_t = 3)]
        reconnects: u32,
    },
}

fn main() -> ExitCode {
    if let Some(error) = code_order::stand_in() {
        let _ = writeln!(std::io::stderr(), "the emulator does not start: {error}");
        return ExitCode::FAILURE;
    }
    let cli = Cli::parse();
    let console = Console::new();
    match run(&cli, &console) {
        Ok(outcome) => {
            outcome.print(&console);
            if outcome.violations().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            console.line(&format!("\nFAILED: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli, console: &Console) -> Result<Outcome> {
    let mut built_map = None;
    let binaries = match (&cli.binaries, &cli.scenario) {
        (Some(folder), _) => std::path::absolute(folder).context("--binaries is no path")?,
        (None, Scenario::CodeOrder { .. }) => {
            let (folder, map) = binaries::build_with_map()?;
            built_map = Some(map);
            folder
        }
        (None, _) => binaries::build(&cli.profile)?,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            outcome = play(cli, &binaries, built_map, console) => outcome,
            _ = interrupt.recv() => bail!("interrupted; everything is removed"),
            _ = terminate.recv() => bail!("ended; everything is removed"),
        }
    })
}

async fn play(
    cli: &Cli,
    binaries: &std::path::Path,
    built_map: Option<PathBuf>,
    console: &Console,
) -> Result<Outcome> {
    if let Scenario::CodeOrder { minutes, map, script } = &cli.scenario {
        let map = map
            .clone()
            .or(built_map)
            .context("--binaries needs --map: what the linker said of its edgecore")?;
        let length = Duration::from_secs(60) * *minutes;
        let options = code_order::Options { map, script: script.clone(), length };
        return Ok(code_order::run(binaries, &options, cli.seed, console).await);
    }
    if let Scenario::Attack { hold } = cli.scenario {
        let options = attack::Options { hold: Duration::from_secs(hold), judge_others: true };
        return Ok(attack::run("attack", binaries, &options, console).await);
    }
    if let Scenario::Rolling { nodes, pods, rounds, kubeconfig, defect } = &cli.scenario {
        let (kubeconfig, logs) = (kubeconfig.clone(), cli.logs.clone());
        let options = rolling::Options {
            nodes: *nodes,
            pods: *pods,
            rounds: *rounds,
            kubeconfig,
            defect: *defect,
            logs,
        };
        return Ok(rolling::run(binaries, &options, console).await);
    }
    let transports = if matches!(cli.scenario, Scenario::LinkFaults { .. }) {
        Transports::QuicAndWebSocket
    } else {
        Transports::Quic
    };
    let certificates = match cli.scenario {
        Scenario::Certificates { minutes, life } => {
            let (length, life) = (Duration::from_secs(60) * minutes, Duration::from_secs(life));
            Some(certificates::Options { length, life })
        }
        _ => None,
    };
    let hub = certificates.as_ref().map(certificates::Options::hub_settings).unwrap_or_default();
    let mut testbed = Testbed::with_settings("soak", binaries, transports, cli.seed, console, hub).await?;
    let seed = cli.seed;
    let outcome = match cli.scenario {
        Scenario::Reboot { rounds, pods, away } => {
            let away = Duration::from_secs(away);
            let options = reboot::Options { rounds, pods, away, seed, bar: Some(reboot::BAR) };
            reboot::run(&mut testbed, &options, console).await
        }
        Scenario::Everything { rounds, away } => {
            let away = Duration::from_secs(away);
            let options = everything::Options { rounds, away, seed, bars: Some(everything::BARS) };
            everything::run(&mut testbed, &options, console).await
        }
        Scenario::Kill { minutes, devices, uploaders } => {
            let options = kill::Options {
                // A minute with what makes it whole again.
                stretches: minutes,
                stretch: Duration::from_secs(50),
                devices,
                report_every: Duration::from_millis(100),
                uploaders,
                upload_every: Duration::from_millis(50),
                want_every: Duration::from_secs(1),
                seed,
            };
            kill::run(&mut testbed, &options, console).await
        }
        Scenario::LinkFaults { turns, blocked } => {
            let options = link_faults::Options { turns, hold: Duration::from_secs(15), blocked, seed };
            link_faults::run(&mut testbed, &options, console).await
        }
        // Has no stage, or one of its own.
        Scenario::Attack { .. } | Scenario::CodeOrder { .. } | Scenario::Rolling { .. } => Outcome::default(),
        Scenario::Certificates { .. } => match &certificates {
            Some(options) => certificates::run(&mut testbed, options, console).await,
            None => Outcome::default(),
        },
        Scenario::Idle { minutes } => {
            let options = idle::Options { length: Duration::from_secs(60) * minutes, packets: cli.packets };
            idle::run(&mut testbed, &options, console).await
        }
        Scenario::Reconnect { rounds } => {
            let options = reconnect::Options { rounds, away: [20.0, 60.0], seed };
            reconnect::run(&mut testbed, &options, console).await
        }
        Scenario::Copy { minutes } => {
            let options = copy::Options { length: Duration::from_secs(60) * minutes, judge_time: true };
            copy::run(&mut testbed, &options, console).await
        }
        Scenario::Load { seconds } => {
            let length = Duration::from_secs(seconds);
            let options = load::Options { stages: load::STAGES.to_vec(), length, bars: Some(load::BARS) };
            load::run(&mut testbed, &options, console).await
        }
        Scenario::Bulk { reconnects } => {
            let options = bulk::Options { reconnects, packets: cli.packets, seed };
            bulk::run(&mut testbed, &options, console).await
        }
    };
    if !outcome.violations().is_empty() {
        console.line(&testbed.log_tails());
        if let Some(folder) = &cli.logs {
            testbed.keep_logs(folder)?;
        }
    }
    Ok(outcome)
}
