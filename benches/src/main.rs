//! What KubeHive costs, beside the plainest thing that does the same in the same run.
//!
//! One run on a shared machine means little by itself, so everything is measured in turn with its reference, round by
//! round, and the ratio is what counts. A bar that is missed makes the exit code 1; what has no bar is for information.
//!
//! ```text
//! cargo run --release -p benches -- pod-start     # create -> Running beside bare CRI calls; root, containerd
//! cargo run --release -p benches -- many-pods     # 60 pods at once, started and ended, beside bare CRI calls; root, containerd
//! cargo run --release -p benches -- footprint     # edgecore at rest: memory and size on disk; root, containerd
//! cargo run --release -p benches -- mailbox       # tell and ask beside tokio's channel and actix; memory of actors
//! cargo run --release -p benches -- link          # a remote mailbox beside bare QUIC streams
//! cargo run --release -p benches -- store         # committed writes beside one transaction for each
//! cargo run --release -p benches -- broker        # the node's MQTT broker beside mosquitto (Debian), same client
//! cargo run --release -p benches -- storm         # two thousand nodes come back to one CloudCore at once
//! cargo run --release -p benches -- all
//! ```

mod actor_memory;
mod bare_pod;
mod broker;
mod footprint;
mod link;
mod mailbox;
mod many_pods;
mod pod_start;
mod proc;
mod program;
mod stats;
mod store;
mod storm;
mod table;
mod testbed;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::table::{Table, say};

#[derive(Parser)]
#[command(name = "benches", about = "Measures KubeHive beside its references")]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// One pod, image present, create -> Running in a watch, beside the same raw CRI calls
    PodStart {
        #[command(flatten)]
        daemons: Daemons,
        #[command(flatten)]
        rounds: Rounds,
    },
    /// Many pods created and deleted at once, beside the same raw CRI calls
    ManyPods {
        #[command(flatten)]
        daemons: Daemons,
        #[command(flatten)]
        pods: Pods,
    },
    /// edgecore with its broker at rest: memory and size on disk
    Footprint {
        #[command(flatten)]
        daemons: Daemons,
    },
    /// A mailbox's tell and ask, beside a bare channel and a bare actix address; what an actor costs in memory
    Mailbox,
    /// A remote mailbox over QUIC, beside bare streams with the same bodies
    Link,
    /// The node's store with 64 writers, beside one transaction for each write
    Store,
    /// The node's MQTT broker beside mosquitto: latency and messages a second, QoS 0 to 2, one client and a hundred
    Broker,
    /// The node's broker alone, for the bench of that name
    #[command(hide = true)]
    ServeBroker {
        /// At 127.0.0.1
        port: u16,
        /// Where its store lies
        folder: PathBuf,
    },
    /// Many nodes come back to one CloudCore at once, and the others feel nothing of it
    Storm {
        #[command(flatten)]
        daemons: Daemons,
        /// How many nodes there are
        #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(11..=5000))]
        edges: u32,
    },
    /// Everything but the storm, which wants the machine to itself
    All {
        #[command(flatten)]
        daemons: Daemons,
        #[command(flatten)]
        rounds: Rounds,
        #[command(flatten)]
        pods: Pods,
    },
}

#[derive(Args)]
struct Daemons {
    /// A folder with cloudcore, edgecore and keadm to measure; built in release if left out
    #[arg(long)]
    binaries: Option<PathBuf>,
}

#[derive(Args)]
struct Rounds {
    /// How many pods are started each way
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(3..=1000))]
    rounds: u32,
}

#[derive(Args)]
struct Pods {
    /// How many pods there are at once
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(2..=100))]
    pods: u32,
    /// How often they are started and ended each way
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    times: u32,
}

fn main() -> ExitCode {
    match run(&Cli::parse().bench) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            say("\nA bar was missed.");
            ExitCode::FAILURE
        }
        Err(error) => {
            say(&format!("\nFAILED: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs what was asked for, and says whether every bar was held.
fn run(bench: &Bench) -> Result<bool> {
    if cfg!(debug_assertions) {
        say("Not the release profile: what follows says nothing about the product.");
    }
    let tables = match bench {
        Bench::PodStart { daemons, rounds } => vec![pod_start::run(&binaries(daemons)?, rounds.rounds)?],
        Bench::ManyPods { daemons, pods } => {
            vec![many_pods::run(&binaries(daemons)?, usize::try_from(pods.pods)?, pods.times)?]
        }
        Bench::Footprint { daemons } => vec![footprint::run(&binaries(daemons)?)?],
        Bench::Mailbox => vec![mailbox::run()?],
        Bench::Link => vec![link::run()?],
        Bench::Store => vec![store::run()?],
        Bench::Broker => vec![broker::run()?],
        Bench::ServeBroker { port, folder } => {
            broker::serve(*port, folder)?;
            vec![]
        }
        Bench::Storm { daemons, edges } => vec![storm::run(&binaries(daemons)?, usize::try_from(*edges)?)?],
        Bench::All { daemons, rounds, pods } => {
            let folder = binaries(daemons)?;
            let tables = [
                footprint::run(&folder)?,
                pod_start::run(&folder, rounds.rounds)?,
                many_pods::run(&folder, usize::try_from(pods.pods)?, pods.times)?,
                mailbox::run()?,
                link::run()?,
                store::run()?,
                broker::run()?,
            ];
            return Ok(tables.iter().all(Table::holds));
        }
    };
    Ok(tables.iter().all(Table::holds))
}

fn binaries(daemons: &Daemons) -> Result<PathBuf> {
    match &daemons.binaries {
        Some(folder) => Ok(folder.clone()),
        None => testbed::build(),
    }
}
