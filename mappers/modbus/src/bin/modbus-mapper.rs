//! The Modbus mapper.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use modbus::Modbus;
use tokio::signal::unix::{SignalKind, signal};

/// Reads and writes Modbus devices at TCP ports and serial lines, and tells edgecore about them over its device mapper interface.
#[derive(Debug, Parser)]
#[command(name = "modbus-mapper", version)]
struct Arguments {
    /// The config file.
    #[arg(long, default_value = "./config.yaml")]
    config_file: PathBuf,
    /// How much to log, as in KubeEdge's mappers: 1 what happens, 2 or 3 more, 4 everything. RUST_LOG counts more.
    #[arg(short, long = "v", default_value_t = 1)]
    verbosity: u8,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let level = match arguments.verbosity {
        0 | 1 => "info",
        2 | 3 => "debug",
        _ => "trace",
    };
    daemon::main(level, async move || {
        let config = framework::Config::read(&arguments.config_file, "modbus")?;
        let mut terminate = signal(SignalKind::terminate()).context("no signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("no signals")?;
        let end = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        framework::run(&config, Modbus::default(), end).await?;
        Ok(())
    })
}
