//! The Modbus mapper.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use modbus::Modbus;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Reads and writes Modbus TCP devices, and tells edgecore about them over its device mapper interface.
#[derive(Debug, Parser)]
#[command(name = "modbus-mapper")]
struct Arguments {
    /// The config file.
    #[arg(long, default_value = "./config.yaml")]
    config_file: PathBuf,
    /// How much to log, as in KubeEdge's mappers: 1 what happens, 2 or 3 more, 4 everything. RUST_LOG counts more.
    #[arg(short, long = "v", default_value_t = 1)]
    verbosity: u8,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let level = match arguments.verbosity {
        0 | 1 => "info",
        2 | 3 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let config = framework::Config::read(&arguments.config_file, "modbus")?;
    // One thread: a mapper waits for devices and little else.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("no signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("no signals")?;
        let end = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        framework::run(&config, Modbus, end).await?;
        Ok(())
    })
}
