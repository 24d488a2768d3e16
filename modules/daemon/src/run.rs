//! From `main` to the exit code.

use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Result, bail};
use beehive::{Blocked, BlockingWork, Ended, HiveReport, Inspector, Thread};
use tokio::signal::unix::{SignalKind, signal};

use crate::{files, log, memory, names, notify, sentence, text_pages};

/// 10 s: what a stop may take. Kubernetes kills after 30, systemd after 90.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// 2 s beyond that for what an end in order leaves to be let go, and as much again in [`main`]; systemd's unit gives 20 s for all.
const LEFT_WITHIN: Duration = Duration::from_secs(2);
/// 60 s with the hive's thread blocked: no burst of work takes so long.
const BLOCKED_FOR: Duration = Duration::from_secs(60);
/// 2 s for an actor to show its state; one that is busy for longer is told of without.
const REPORT_WITHIN: Duration = Duration::from_secs(2);
/// 24 threads for files, which block, of which EdgeCore may lose 19 to disks and servers that do not answer; everything else runs on
/// the hive's. They exist while there is work for them.
const BLOCKING_THREADS: usize = 24;
/// 1 s without work ends one of them: to start it anew costs less than to keep its stack.
const BLOCKING_THREAD_WAITS: Duration = Duration::from_secs(1);

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
    names::from_files_and_dns();
    log::start(filter);
    files::raise_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(BLOCKING_THREAD_WAITS)
        .build();
    let (system, ended) = match runtime {
        Ok(runtime) => {
            let system = actix_rt::System::with_tokio_rt(|| runtime);
            let ended = system.block_on(work());
            (Some(system), ended)
        }
        Err(error) => (None, Err(anyhow::Error::new(error).context("no runtime"))),
    };
    let code = match ended {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!("{}", sentence(&error));
            1
        }
    };
    // The runtime waits for its threads, and a thread may wait for a disk that doesn't answer.
    let deadline = Deadline::begin(LEFT_WITHIN, code, BlockingWork::default());
    drop(system);
    drop(deadline);
    ExitCode::from(code)
}

/// Waits until `start` has ended; `None`: a signal that stops the daemon came before. A first process of a container is not ended by a
/// signal that nobody heeds.
///
/// # Errors
/// When signals cannot be heeded.
pub async fn unless_stopped<T>(start: impl Future<Output = T>) -> Result<Option<T>> {
    let mut signals = Signals::listen()?;
    let mut start = std::pin::pin!(start);
    loop {
        tokio::select! {
            started = &mut start => return Ok(Some(started)),
            signal = signals.next() => match signal {
                Signalled::Stop(signal) => {
                    tracing::info!(signal, "stopped before it had started");
                    return Ok(None);
                }
                Signalled::Report => tracing::info!("not started yet"),
            },
        }
    }
}

/// Runs a daemon until a signal or its own end, tells systemd, and stops it in order.
///
/// # Errors
/// When it gave up or did not stop in time. What nobody can end, a call to a disk that doesn't answer, is named and left behind; where
/// it holds up the hive's own thread, the process ends there and then.
pub async fn serve(daemon: impl Running) -> Result<()> {
    serve_within(daemon, STOP_WITHIN).await
}

async fn serve_within(mut daemon: impl Running, stop_within: Duration) -> Result<()> {
    let mut signals = Signals::listen()?;
    daemon.inspector().when_blocked(BLOCKED_FOR, |blocked| end(&blocked));
    notify::tell("READY=1");
    let mut giving_back = std::pin::pin!(memory::keep_giving_back());
    let mut idle = text_pages::Times::begin();
    let ended_by = loop {
        tokio::select! {
            () = &mut giving_back => {}
            () = idle.next() => text_pages::give_back(),
            reason = daemon.gave_up() => break Err(reason),
            signal = signals.next() => match signal {
                Signalled::Stop(signal) => {
                    tracing::info!(signal, "stopping");
                    break Ok(());
                }
                Signalled::Report => tell(&daemon.inspector().report(REPORT_WITHIN).await),
            },
        }
    };
    notify::tell("STOPPING=1");
    let work = daemon.inspector().blocking_work();
    let deadline = Deadline::begin(stop_within + LEFT_WITHIN, 1, work.clone());
    let ended = daemon.stop(stop_within).await;
    drop(deadline);
    let left = places(&work);
    if !left.is_empty() {
        tracing::warn!(left, "work that blocks its thread has not ended, and is left behind");
    }
    tracing::info!(?ended, "stopped");
    match (ended_by, ended) {
        (Err(reason), _) | (Ok(()), Ended::GaveUp(reason)) => bail!("the daemon cannot go on: {reason}"),
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

/// Ends the process after a while, unless it is dropped before: nothing else ends a thread that waits for a disk, and who started the
/// daemon does no better by killing it.
struct Deadline {
    _dropped: mpsc::SyncSender<()>,
}

impl Deadline {
    fn begin(within: Duration, code: u8, work: BlockingWork) -> Option<Deadline> {
        let (held, dropped) = mpsc::sync_channel::<()>(0);
        let watch = move || {
            if dropped.recv_timeout(within) == Err(mpsc::RecvTimeoutError::Timeout) {
                leave(within, code, &work);
            }
        };
        match Thread::start("stop-deadline", watch) {
            Ok(_) => Some(Deadline { _dropped: held }),
            Err(error) => {
                tracing::warn!(%error, "no thread that sees to the end of the process");
                None
            }
        }
    }
}

/// Ends the process, whatever its threads do.
#[allow(clippy::exit)]
fn leave(within: Duration, code: u8, work: &BlockingWork) {
    let seconds = within.as_secs();
    match (places(work), code) {
        // What it is was said before.
        (_, 0) => tracing::info!("the process ends without what is left behind"),
        (left, _) => {
            tracing::error!(left, seconds, "what was to end has not ended in time; the process ends")
        }
    }
    std::process::exit(code.into())
}

/// Where work was begun that blocks its thread, in a line.
fn places(work: &BlockingWork) -> String {
    let places: Vec<String> = work
        .places()
        .into_iter()
        .map(|(place, count)| if count > 1 { format!("{place} ({count} times)") } else { place })
        .collect();
    places.join(", ")
}

/// Says in the log what every actor shows of itself, a line each, and what was counted. As JSON, so that `jq` reads it.
fn tell(report: &HiveReport) {
    for actor in &report.actors {
        tracing::info!(target: log::DUMP, actor = actor.name, report = %json(actor), "as it is now");
    }
    tracing::info!(target: log::DUMP, counters = %json(&report.counters), gauges = %json(&report.gauges), "as it is now");
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| error.to_string())
}

/// What a signal tells a daemon.
enum Signalled {
    /// To stop, by this one.
    Stop(&'static str),
    /// To say how it stands.
    Report,
}

/// The signals that a daemon heeds.
struct Signals {
    stops: [(&'static str, tokio::signal::unix::Signal); 4],
    report: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> Result<Self> {
        let stops = [
            ("SIGTERM", signal(SignalKind::terminate())?),
            ("SIGINT", signal(SignalKind::interrupt())?),
            ("SIGHUP", signal(SignalKind::hangup())?),
            ("SIGQUIT", signal(SignalKind::quit())?),
        ];
        Ok(Signals { stops, report: signal(SignalKind::user_defined1())? })
    }

    async fn next(&mut self) -> Signalled {
        let [(term, terminate), (int, interrupt), (hup, hangup), (quit, quits)] = &mut self.stops;
        tokio::select! {
            _ = terminate.recv() => Signalled::Stop(term),
            _ = interrupt.recv() => Signalled::Stop(int),
            _ = hangup.recv() => Signalled::Stop(hup),
            _ = quits.recv() => Signalled::Stop(quit),
            _ = self.report.recv() => Signalled::Report,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use beehive::{Env, Hive};

    use super::*;

    struct Daemon(Hive);

    impl Running for Daemon {
        async fn gave_up(&mut self) -> String {
            self.0.gave_up().await
        }

        fn inspector(&self) -> Inspector {
            self.0.inspector()
        }

        async fn stop(self, deadline: Duration) -> Ended {
            self.0.shutdown(deadline).await
        }
    }

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn tell_this_process(signal: &str) {
        let me = std::process::id().to_string();
        let told = std::process::Command::new("kill").args([signal, &me]).status().unwrap();
        assert!(told.success());
    }

    #[test]
    fn a_daemon_says_how_it_stands_and_goes_on_until_it_is_told_to_stop() {
        let log = Log::default();
        let lines = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || lines.clone()).finish();
        let said = move || String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let look = said.clone();
        tracing::subscriber::with_default(subscriber, || {
            actix_rt::System::new().block_on(async {
                let env = Env::real();
                env.count("daemon_tested");
                let mut hive = Hive::new("test", env.clone());
                hive.open().unwrap();
                let (heeds, heard) = tokio::sync::oneshot::channel();
                actix_rt::spawn(async move {
                    heard.await.unwrap();
                    tell_this_process("-USR1");
                    while !look().contains("as it is now") {
                        env.sleep(Duration::from_millis(5)).await;
                    }
                    tell_this_process("-TERM");
                });
                // The handlers of signals are in place once a task of the same thread runs.
                let serving = serve(Daemon(hive));
                let begin = async {
                    tokio::task::yield_now().await;
                    heeds.send(()).unwrap();
                };
                let (ended, ()) = tokio::join!(serving, begin);
                ended.unwrap();
            });
        });
        let text = said();
        assert!(text.contains(r#"counters={"daemon_tested":1}"#), "{text}");
        assert!(text.contains("signal=\"SIGTERM\""), "{text}");
    }
}
