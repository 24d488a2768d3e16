//! `cargo verify`: formatting, lints and every test, in one command.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod deny;
mod packages;
mod room;
mod steps;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use steps::{Failure, Outcome, Workspace};

fn main() -> ExitCode {
    if let Some(argument) = std::env::args().nth(1) {
        say(&format!("cargo verify takes no arguments, and was given {argument:?}"));
        return ExitCode::from(2);
    }
    let workspace = match Workspace::here() {
        Ok(workspace) => workspace,
        Err(error) => {
            say(&format!("cargo verify could not start: {error:#}"));
            return ExitCode::FAILURE;
        }
    };
    if verify(&workspace) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the steps in order up to the first that fails, and says how long each took.
fn verify(workspace: &Workspace) -> bool {
    let steps = steps::all();
    let count = steps.len();
    let begun = Instant::now();
    let mut times: Vec<(&str, &str, Duration)> = Vec::new();
    let mut unseen: Vec<String> = Vec::new();
    let mut failed: Option<(&str, Failure)> = None;
    for (at, step) in steps.iter().enumerate() {
        say(&format!("[{}/{count}] {}", at + 1, step.name));
        let start = Instant::now();
        let outcome = step.run(workspace);
        let took = start.elapsed();
        let word = match &outcome {
            Ok(Outcome::Passed) => "passed",
            Ok(Outcome::Skipped(_)) => "skipped",
            Err(_) => "FAILED",
        };
        times.push((step.name, word, took));
        match outcome {
            Ok(Outcome::Passed) => {}
            Ok(Outcome::Skipped(why)) => {
                say(&format!("      skipped: {why}"));
                unseen.push(format!("{} ({why})", step.name));
            }
            Err(failure) => {
                failed = Some((step.name, failure));
                break;
            }
        }
        say(&format!("[{}/{count}] {}: {word} in {}", at + 1, step.name, seconds(took)));
    }
    say("");
    for (name, word, took) in &times {
        say(&format!("{:>10}  {word:<7}  {name}", seconds(*took)));
    }
    for step in steps.iter().skip(times.len()) {
        say(&format!("{:>10}  not run  {}", "-", step.name));
    }
    say(&format!("{:>10}  in all", seconds(begun.elapsed())));
    match failed {
        None => {
            say(&verdict(&unseen));
            true
        }
        Some((name, failure)) => {
            say(&format!("verify: FAILED at {name}: {:#}", failure.what));
            say(&format!("what to do: {}", failure.cure));
            false
        }
    }
}

/// The last line of a run without a failure names what nobody looked at.
fn verdict(unseen: &[String]) -> String {
    if unseen.is_empty() {
        "verify: passed".to_owned()
    } else {
        format!("verify: passed, without {}", unseen.join(", "))
    }
}

fn seconds(took: Duration) -> String {
    let whole = took.as_secs();
    if whole < 60 {
        format!("{:.1} s", took.as_secs_f64())
    } else {
        format!("{} min {:02} s", whole / 60, whole % 60)
    }
}

/// One line for whoever waits. A closed pipe must not end a run half way.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}

/// The folder of this crate: as cargo says at run time, because a clone may be moved after a build.
fn crate_folder() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_names_what_was_not_looked_at() {
        assert_eq!(verdict(&[]), "verify: passed");
        assert_eq!(
            verdict(&["advisories (no database)".to_owned()]),
            "verify: passed, without advisories (no database)"
        );
    }

    #[test]
    fn times_are_read_at_a_glance() {
        assert_eq!(seconds(Duration::from_millis(1_250)), "1.2 s");
        assert_eq!(seconds(Duration::from_secs(605)), "10 min 05 s");
    }
}
