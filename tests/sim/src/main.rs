//! `cargo sim`: as many seeds as wanted.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use beehive::defect::Defect;
use beehive::testing::PLANNED;
use clap::Parser;
use sim::{Coverage, Fault, Outcome};
use tokio::sync::mpsc;

#[derive(Parser)]
#[command(name = "sim", about = "Tells stories with faults until one goes wrong")]
struct Cli {
    /// How many seeds
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Replay this seed alone, and print what happened
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// With --seed: print everything that happened, too
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Plant this defect; the run succeeds when it is caught
    #[arg(long, value_parser = defect)]
    defect: Option<Defect>,
    /// Tell each seed twice, and fail when two tellings are not alike to the last event
    #[arg(long)]
    twice: bool,
    /// How many at a time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

fn defect(text: &str) -> Result<Defect, String> {
    let found = Defect::ALL.into_iter().find(|defect| format!("{defect:?}").eq_ignore_ascii_case(text));
    found.ok_or_else(|| format!("no such defect; there are {:?}", Defect::ALL))
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("off")),
        )
        .with_writer(std::io::stderr)
        .without_time()
        .init();
    quiet_planned_panics();
    match cli.seed {
        Some(seed) => replay(seed, &cli),
        None => many(&cli),
    }
}

/// A planned panic is part of the story; with its backtrace each would cost more than the rest of the run.
fn quiet_planned_panics() {
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload_as_str() != Some(PLANNED) {
            others(panic);
        }
    }));
}

fn replay(seed: u64, cli: &Cli) -> ExitCode {
    let outcome = if cli.trace { sim::run_traced(seed, cli.defect) } else { sim::run(seed, cli.defect) };
    for line in if cli.trace { &outcome.trace } else { &outcome.tale } {
        println!("{line}");
    }
    let sim::Fingerprint { sum, events } = outcome.fingerprint;
    println!("{events} events, fingerprint {sum:016x}");
    verdict(cli.defect, outcome.violations.iter().map(|what| (seed, what.clone())).collect())
}

fn many(cli: &Cli) -> ExitCode {
    let begun = Instant::now();
    let next = AtomicU64::new(cli.from);
    let end = cli.from.saturating_add(cli.seeds);
    let (tell, mut told) = mpsc::channel::<(u64, Outcome)>(64);
    let mut faults: BTreeMap<Fault, usize> = BTreeMap::new();
    let mut coverage = Coverage::default();
    let mut wrong = Vec::new();
    let mut count = 0_u64;
    let (mut accepted, mut refused, mut fullest) = (0, 0, 0);
    std::thread::scope(|scope| {
        for _ in 0..cli.jobs.max(1) {
            let (tell, next) = (tell.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || tell.blocking_send((seed, told_of(seed, cli))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(tell);
        let mut shown = Instant::now();
        while let Some((seed, outcome)) = told.blocking_recv() {
            count += 1;
            accepted += outcome.accepted;
            refused += outcome.refused;
            fullest = outcome.fullest.max(fullest);
            coverage.add(&outcome);
            for (fault, times) in outcome.faults {
                *faults.entry(fault).or_default() += times;
            }
            for what in outcome.violations {
                println!("seed {seed}: {what}");
                wrong.push((seed, what));
            }
            if shown.elapsed() > Duration::from_secs(10) {
                shown = Instant::now();
                println!("{count} of {} seeds, {:.1} a second", cli.seeds, per_second(count, begun));
            }
            if !wrong.is_empty() {
                // The first is enough; what is under way is let go.
                next.store(end, Ordering::Relaxed);
            }
        }
    });
    println!(
        "{count} seeds in {:.1} s, {:.1} a second",
        begun.elapsed().as_secs_f64(),
        per_second(count, begun)
    );
    println!(
        "{accepted} of telemetry accepted, {refused} refused at the bound; the fullest outbox held {fullest} of {}",
        sim::OUTBOX_BOUND
    );
    for fault in Fault::ALL {
        println!("{:>8} times {fault:?}", faults.get(&fault).copied().unwrap_or_default());
    }
    for line in coverage.lines() {
        println!("{line}");
    }
    let unhit = coverage.actors_never_hit();
    if !unhit.is_empty() && wrong.is_empty() {
        println!("FAILED: these actors have never panicked: {unhit:?}");
        return ExitCode::FAILURE;
    }
    let never: Vec<Fault> = Fault::ALL.into_iter().filter(|fault| !faults.contains_key(fault)).collect();
    if !never.is_empty() && wrong.is_empty() {
        println!("FAILED: these faults never struck: {never:?}");
        return ExitCode::FAILURE;
    }
    verdict(cli.defect, wrong)
}

/// Tells a seed, and again if that is wanted.
fn told_of(seed: u64, cli: &Cli) -> Outcome {
    let mut outcome = sim::run(seed, cli.defect);
    if cli.twice && sim::run(seed, cli.defect).fingerprint != outcome.fingerprint {
        outcome.violations.push("told twice, it is not the same story".to_owned());
    }
    outcome
}

fn per_second(count: u64, begun: Instant) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / begun.elapsed().as_secs_f64().max(0.001)
}

fn verdict(planted: Option<Defect>, wrong: Vec<(u64, String)>) -> ExitCode {
    match (planted, wrong.first()) {
        (None, None) => {
            println!("no violation");
            ExitCode::SUCCESS
        }
        (None, Some((seed, what))) => {
            println!("FAILED at seed {seed}: {what}\nreplay it: cargo sim -- --seed {seed}");
            ExitCode::FAILURE
        }
        (Some(defect), Some((seed, what))) => {
            println!("{defect:?} was caught at seed {seed}: {what}");
            ExitCode::SUCCESS
        }
        (Some(defect), None) => {
            println!("FAILED: {defect:?} was not caught");
            ExitCode::FAILURE
        }
    }
}
