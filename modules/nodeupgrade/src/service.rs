//! How edgecore is stopped and started: by systemd where that started it, else as the process that was found.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use beehive::{Clock, Env};
use edge_store::{HeldStore, StoreError};

use crate::journal::Launch;
use crate::process::Process;

/// systemd's own sign that it is there.
const SYSTEMD: &str = "/run/systemd/system";
/// 30 s for edgecore to stop in order: the unit gives it 20.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// 120 s for systemd: 90 are what it gives a unit to start, and what runs before it is in them.
const SYSTEMD_WITHIN: Duration = Duration::from_secs(120);
/// 2 s in which somebody else may start edgecore anew, who sees to it where systemd is not.
const OTHERS_START_WITHIN: Duration = Duration::from_secs(2);
/// 60 s from the start of edgecore until it has its store: it looks through all of it.
const STORE_WITHIN: Duration = Duration::from_secs(60);
/// 50 ms between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often an edgecore is stopped that somebody starts anew each time.
const STOPS_MAX: usize = 5;

/// How the edgecore is started that runs now.
///
/// # Errors
/// When it cannot be seen.
pub(crate) async fn launch_of(process: &Process, env: &Env) -> Result<Launch> {
    if Path::new(SYSTEMD).exists()
        && let Some(unit) = process.unit()
    {
        let main = systemctl(&["show", "--property=MainPID", "--value", &unit], env).await;
        if main.is_ok_and(|said| said.trim() == process.pid().to_string()) {
            return Ok(Launch::Unit(unit));
        }
    }
    process.launch()
}

/// Stops edgecore and holds its store, so that nobody starts one on it.
///
/// # Errors
/// When it goes on, or somebody starts it again and again.
pub(crate) async fn stop(launch: &Launch, store: &Path, env: &Env) -> Result<HeldStore> {
    let clock = env.clock();
    if let Launch::Unit(unit) = launch {
        systemctl(&["stop", unit], env).await.with_context(|| format!("systemd does not stop {unit}"))?;
    }
    for _ in 0..STOPS_MAX {
        if let Some(process) = Process::on_store(store) {
            process.end(STOP_WITHIN, clock.as_ref()).await?;
        }
        match edge_store::hold(store) {
            Ok(held) => return Ok(held),
            Err(StoreError::InUse { .. }) => clock.sleep(LOOK_EVERY).await,
            Err(error) => return Err(error.into()),
        }
    }
    bail!(
        "edgecore was stopped {STOPS_MAX} times, and somebody starts it again each time: stop what starts it (a unit of another name, \
         an init script), then try again"
    )
}

/// Starts edgecore, and answers once it has its store.
///
/// # Errors
/// When it ends before.
pub(crate) async fn start(launch: &Launch, program: &Path, store: &Path, env: &Env) -> Result<String> {
    let clock = env.clock();
    match launch {
        Launch::Unit(unit) => {
            // A unit that failed often enough would not start.
            drop(systemctl(&["reset-failed", unit], env).await);
            systemctl(&["start", unit], env)
                .await
                .with_context(|| format!("systemd does not start {unit}: `journalctl -u {unit}` says why"))?;
            Ok(format!("systemd has started {unit}"))
        }
        Launch::Process { arguments, environment, folder, log } => {
            if until_on_store(store, OTHERS_START_WITHIN, clock.as_ref()).await {
                return Ok("somebody else has started edgecore".to_owned());
            }
            let mut command = Command::new(program);
            command.args(arguments).env_clear().envs(environment).current_dir(folder);
            command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
            let log = log.as_ref().and_then(|path| OpenOptions::new().append(true).open(path).ok());
            let goes = if log.is_some() {
                ""
            } else {
                "; its log goes nowhere, as nobody can hand its terminal or pipe on"
            };
            command.stderr(log.map_or_else(Stdio::null, Stdio::from));
            let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
            let until = clock.now() + STORE_WITHIN;
            while clock.now() < until {
                if let Some(status) = child.try_wait().context("the edgecore that was started")? {
                    bail!("edgecore ended at once ({status}): its log says why");
                }
                if Process::on_store(store).is_some_and(|found| found.pid() == child.id()) {
                    return Ok(format!("edgecore is started (process {}){goes}", child.id()));
                }
                clock.sleep(LOOK_EVERY).await;
            }
            bail!("edgecore has not opened its store within {} s", STORE_WITHIN.as_secs())
        }
    }
}

async fn until_on_store(store: &Path, within: Duration, clock: &dyn Clock) -> bool {
    let until = clock.now() + within;
    while clock.now() < until {
        if Process::on_store(store).is_some() {
            return true;
        }
        clock.sleep(LOOK_EVERY).await;
    }
    false
}

/// Asks systemd, and answers what it prints.
async fn systemctl(arguments: &[&str], env: &Env) -> Result<String> {
    run("systemctl", arguments, SYSTEMD_WITHIN, env).await
}

/// Runs a program to its end, within a bound, and answers what it printed.
pub(crate) async fn run(program: &str, arguments: &[&str], within: Duration, env: &Env) -> Result<String> {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let ended = env.timeout(within, command.output()).await;
    let ended = ended.with_context(|| format!("{program} has not ended within {} s", within.as_secs()))?;
    let ended = ended.with_context(|| format!("cannot start {program}"))?;
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.stderr);
        let said: String = said.trim().chars().filter(|letter| !letter.is_control()).take(500).collect();
        bail!("{program} {} ended with {}: {said}", arguments.join(" "), ended.status);
    }
    Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
}

/// Whether a program can be handed over to systemd.
pub fn has_systemd() -> bool {
    Path::new(SYSTEMD).exists()
}
