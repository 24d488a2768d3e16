//! The program of a mapper: its arguments, its config, and the signals that end it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _, Parser};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::protocol::Protocol;
use crate::run::run;

/// What a mapper's program says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Its name, as it is called.
    pub name: &'static str,
    /// Its version, as `--version` prints it behind the name: of the mappers here [`crate::VERSION`].
    pub version: &'static str,
    /// A sentence on what it does.
    pub about: &'static str,
    /// The protocol of a config that names none.
    pub protocol: &'static str,
    /// Crates whose own lines are left out of the log, but for `-v 4`: of what goes wrong the mapper tells once.
    pub quiet: &'static [&'static str],
}

/// What a mapper's program is told.
#[derive(Debug, Parser)]
struct Arguments {
    /// The config file.
    #[arg(long, default_value = "./config.yaml")]
    config_file: PathBuf,
    /// How much to log, as in KubeEdge's mappers: 1 what happens, 2 or 3 more, 4 everything. RUST_LOG counts more.
    #[arg(short, long = "v", default_value_t = 1)]
    verbosity: u8,
}

impl Program {
    /// The whole of a mapper's `main`: reads arguments and config, makes the protocol by it, and serves until SIGTERM or SIGINT.
    /// Ends with 0, or with 1 and a sentence in the log; with clap's codes where the arguments say no more than that.
    pub fn run<P: Protocol>(self, protocol: impl FnOnce(&Config) -> P) -> ExitCode {
        let command = Arguments::command().name(self.name).version(self.version).about(self.about);
        let parsed = Arguments::from_arg_matches(&command.get_matches());
        let arguments = parsed.unwrap_or_else(|error| error.exit());
        daemon::main(&filter(arguments.verbosity, self.quiet), async move || {
            let config = Config::read(&arguments.config_file, self.protocol)?;
            let mut terminate = signal(SignalKind::terminate()).context("no signals")?;
            let mut interrupt = signal(SignalKind::interrupt()).context("no signals")?;
            let end = async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            };
            run(&config, protocol(&config), end).await?;
            Ok(())
        })
    }
}

/// KubeEdge's numbers in our words.
fn filter(verbosity: u8, quiet: &[&str]) -> String {
    let level = match verbosity {
        0 | 1 => "info",
        2 | 3 => "debug",
        _ => return "trace".to_owned(),
    };
    let off = quiet.iter().map(|of| format!(",{of}=off"));
    std::iter::once(level.to_owned()).chain(off).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_quiet_unless_everything_is_wanted() {
        assert_eq!(filter(1, &[]), "info");
        assert_eq!(filter(3, &["some_library", "another"]), "debug,some_library=off,another=off");
        assert_eq!(filter(4, &["some_library"]), "trace");
    }
}
