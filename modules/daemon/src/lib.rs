//! How a daemon starts, runs its hive and ends: log, signals, systemd, exit code. The same for every daemon.
//!
//! # Owns
//! The log on the standard error, the runtime of the hive's thread, the signals, and which pages of the program's code are memory.
//! # Accepts
//! SIGTERM, SIGINT, SIGHUP and SIGQUIT: each stops the daemon in order, as with KubeEdge's. SIGUSR1: the daemon writes into its log
//! what every actor shows of itself and what was counted, as JSON. `RUST_LOG`, `NO_COLOR`, `NOTIFY_SOCKET` and `JOURNAL_STREAM` of
//! the environment.
//! # Tells
//! systemd when it is up and when it stops; whoever started it, by 0 for an end in order and 1 for any other, with a
//! sentence in the log.
//! # Keeps across a restart
//! Nothing.
//! # Never
//! Colours a log that no terminal shows, writes priorities for the journal where none reads them, says a cause of an error twice, lets a library write bodies of
//! requests into the log, or lets somebody fill the log: of what a peer can cause
//! as often as he likes a few lines are written, and then one at times with the count of those that were left out; and of a field
//! 256 bytes, of a message 4 KiB, with the count of what was cut.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod cut;
mod files;
mod journal;
pub mod log;
pub mod memory;
pub mod names;
pub mod notify;
mod run;
mod text_pages;
mod thinning;

use std::io::Write as _;

use anyhow::Result;
use beehive::Topology;

pub use log::start as start_log;
pub use run::{Running, main, serve, unless_stopped};

/// Prints `text` on the standard output.
///
/// # Errors
/// When it cannot be written. A reader that closed the pipe has read what it wanted, which is no error.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Prints who talks to whom in `daemon`, in the DOT language if `dot`.
///
/// # Errors
/// See [`print`].
pub fn print_topology(daemon: &str, map: &Topology, dot: bool) -> Result<()> {
    print(&if dot { map.dot(daemon) } else { map.text() })
}

/// An error with its causes, for a person: none of them is said twice.
pub fn sentence(error: &anyhow::Error) -> String {
    beehive::Fault::from_error(error.as_ref()).reason
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context as _, anyhow};

    #[test]
    fn no_cause_is_said_twice() {
        let plain = Err::<(), _>(anyhow!("no such file")).context("cannot read a").unwrap_err();
        assert_eq!(sentence(&plain), "cannot read a: no such file");
        let doubled = Err::<(), _>(anyhow!("no such file"))
            .context("failed to read: no such file")
            .context("cannot use kubeconfig a")
            .unwrap_err();
        assert_eq!(sentence(&doubled), "cannot use kubeconfig a: failed to read: no such file");
        assert_eq!(sentence(&anyhow!("alone")), "alone");
    }
}
