//! From `main` to the exit code.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use beehive::{Blocked, Ended, Inspector};
use tokio::signal::unix::{SignalKind, signal};

use crate::{files, log, notify, sentence};

/// 10 s: what a stop may take. Kubernetes kills after 30, systemd after 90.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// 60 s with the hive's thread blocked: no burst of work takes so long.
const BLOCKED_FOR: Duration = Duration::from_secs(60);
/// 8 threads for files, which block; everything else runs on the hive's.
const BLOCKING_THREADS: usize = 8;

/// A daemon whose actors run.
pub trait Running {
    /// Completes when it cannot go on, and says why.
    fn gave_up(&mut self) -> impl Future<Output = String>;

    /// Looks at its actors.
    fn inspector(&self) -> Inspector;

    /// Stops everything in order, within `deadline`.
    fn stop(self, deadline: Duration) -> impl Future<Output = Ended>;
}

/// The whole of a daemon's `main`: its log, with this filter where `RUST_LOG` says nothing, its runtime, `work`, and the exit
/// code: 0, or 1 with a sentence in the log.
pub fn main(filter: &str, work: impl AsyncFnOnce() -> Result<()>) -> ExitCode {
    log::start(filter);
    files::raise_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build();
    let ended = match runtime {
        Ok(runtime) => actix_rt::System::with_tokio_rt(|| runtime).block_on(work()),
        Err(error) => Err(anyhow::Error::new(error).context("no runtime")),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", sentence(&error));
            ExitCode::FAILURE
        }
    }
}

/// Runs a daemon until a signal or its own end, tells systemd, and stops it in order.
///
/// # Errors
/// When it gave up or did not stop in time.
pub async fn serve(mut daemon: impl Running) -> Result<()> {
    let mut signals = Signals::listen()?;
    daemon.inspector().when_blocked(BLOCKED_FOR, |blocked| end(&blocked));
    notify::tell("READY=1");
    let ended_by = tokio::select! {
        reason = daemon.gave_up() => Err(reason),
        signal = signals.next() => {
            tracing::info!(signal, "stopping");
            Ok(())
        }
    };
    notify::tell("STOPPING=1");
    let ended = daemon.stop(STOP_WITHIN).await;
    tracing::info!(?ended, "stopped");
    match (ended_by, ended) {
        (Err(reason), _) | (Ok(()), Ended::GaveUp(reason)) => bail!("an actor gave up: {reason}"),
        (Ok(()), Ended::Late(actors)) => bail!("these actors did not stop in time: {}", actors.join(", ")),
        (Ok(()), Ended::InOrder) => Ok(()),
    }
}

/// Nothing on the blocked thread can end the daemon in order; what starts it anew does better than waiting.
#[allow(clippy::exit)]
fn end(blocked: &Blocked) {
    tracing::error!("{blocked}; the daemon ends");
    std::process::exit(1)
}

/// The signals that stop a daemon.
struct Signals([(&'static str, tokio::signal::unix::Signal); 4]);

impl Signals {
    fn listen() -> Result<Self> {
        Ok(Signals([
            ("SIGTERM", signal(SignalKind::terminate())?),
            ("SIGINT", signal(SignalKind::interrupt())?),
            ("SIGHUP", signal(SignalKind::hangup())?),
            ("SIGQUIT", signal(SignalKind::quit())?),
        ]))
    }

    async fn next(&mut self) -> &'static str {
        let Signals([(term, terminate), (int, interrupt), (hup, hangup), (quit, quits)]) = self;
        tokio::select! {
            _ = terminate.recv() => term,
            _ = interrupt.recv() => int,
            _ = hangup.recv() => hup,
            _ = quits.recv() => quit,
        }
    }
}
