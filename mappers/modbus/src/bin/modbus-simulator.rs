//! A Modbus device to play with.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use modbus::{MAP, Simulator};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Serves a small heating room over Modbus TCP, with registers that move by themselves, and prints what is where.
#[derive(Debug, Parser)]
#[command(name = "modbus-simulator", version = framework::VERSION)]
struct Arguments {
    /// Where to listen. Port 0 takes a free one; the first line of the output says which.
    #[arg(long, default_value = "127.0.0.1:5020")]
    listen: SocketAddr,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    daemon::main("info", async move || {
        let listener = TcpListener::bind(arguments.listen).await.with_context(|| {
            format!("cannot listen on {}; choose another address with --listen", arguments.listen)
        })?;
        show(listener.local_addr().context("no address")?).context("cannot print")?;
        let mut terminate = signal(SignalKind::terminate()).context("no signals")?;
        let end = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        };
        Simulator::default().serve(listener, end).await.context("cannot accept connections")
    })
}

fn show(address: SocketAddr) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening on {address}")?;
    for (table, offset, kind, meaning) in MAP {
        writeln!(out, "{table:<22} {offset:>3}  {kind:<26} {meaning}")?;
    }
    out.flush()
}
