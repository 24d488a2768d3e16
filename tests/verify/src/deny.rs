//! cargo-deny: brought from the registry where it is missing, run on the lock file, with the advisories that can be had.

use std::path::PathBuf;
use std::process::Stdio;

use crate::steps::{Failure, Outcome, Workspace};

/// The release that this repository's `.deny.toml` is written for.
const VERSION: &str = "0.20.2";

/// What is held against `.deny.toml`.
#[derive(Clone, Copy)]
pub(crate) enum Check {
    /// Licences, bans and sources: needs the lock file alone.
    Dependencies,
    /// Known vulnerabilities: needs the RustSec database.
    Advisories,
}

/// Where a cargo-deny that we brought ourselves lies: beside what is built, so that removing `target` removes it.
pub(crate) fn folder(target: &std::path::Path) -> PathBuf {
    target.join("tools")
}

/// Installs cargo-deny below `target` if neither that folder nor the machine has it.
pub(crate) fn install(workspace: &Workspace) -> Result<Outcome, Failure> {
    if workspace.has(&["deny", "--version"]) {
        crate::say("      cargo-deny is there");
        return Ok(Outcome::Passed);
    }
    let root = folder(workspace.target());
    let mut command =
        workspace.cargo(&["install", "--quiet", "--locked", "--debug", "--version", VERSION, "--root"]);
    command.arg(&root).arg("cargo-deny").env("CARGO_TARGET_DIR", root.join("build"));
    crate::say(&format!("      cargo install cargo-deny {VERSION}: some minutes, once"));
    let installed = command.status().is_ok_and(|status| status.success());
    // What it was built from is larger than all the rest and is never needed again.
    drop(std::fs::remove_dir_all(root.join("build")));
    Ok(if installed {
        Outcome::Passed
    } else {
        Outcome::Skipped(format!("cargo-deny {VERSION} could not be installed from the registry"))
    })
}

/// Runs one check.
pub(crate) fn run(check: Check, workspace: &Workspace, cure: &'static str) -> Result<Outcome, Failure> {
    if !workspace.has(&["deny", "--version"]) {
        return Ok(Outcome::Skipped("cargo-deny is not here".to_owned()));
    }
    match check {
        Check::Dependencies => deny(workspace, &["bans", "licenses", "sources"], cure),
        Check::Advisories => {
            let fetched = workspace
                .cargo(&["deny", "--config", ".deny.toml", "fetch", "db"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success());
            if fetched {
                return deny(workspace, &["advisories"], cure);
            }
            if !has_database() {
                return Ok(Outcome::Skipped("the RustSec database cannot be fetched from here".to_owned()));
            }
            // An old list of vulnerabilities is better than none, and its age is said.
            deny(workspace, &["advisories"], cure)?;
            Ok(Outcome::Skipped(
                "the RustSec database cannot be fetched from here; an older copy of it had nothing to say"
                    .to_owned(),
            ))
        }
    }
}

/// Whether an earlier fetch, or whoever keeps this machine, left a copy where cargo-deny looks.
fn has_database() -> bool {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let found = home.and_then(|home| std::fs::read_dir(home.join("advisory-dbs")).ok());
    // A fetch that failed leaves a lock file behind.
    found.is_some_and(|found| found.flatten().any(|entry| entry.path().join(".git").exists()))
}

fn deny(workspace: &Workspace, which: &[&str], cure: &'static str) -> Result<Outcome, Failure> {
    // Offline: what it needs of the registry is here, or nothing was built; and the database was fetched before.
    let arguments = [&["deny", "--offline", "--config", ".deny.toml", "check"], which].concat();
    workspace.run(&arguments, cure)
}
