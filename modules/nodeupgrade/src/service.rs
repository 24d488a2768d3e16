//! How edgecore is stopped and started: by systemd where that started it, else as the process that was found.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use beehive::{Clock, Env};
use edge_store::{HeldStore, StoreError};

use crate::checks::Passed;
use crate::inherited::{Masked, limit};
use crate::journal::{Inherited, Journal, Launch};
use crate::process::Process;
use crate::{boot, files, journal, store_lock};

/// systemd's own sign that it is there.
const SYSTEMD: &str = "/run/systemd/system";
/// What the unit is called by whoever installs edgecore, KubeEdge's keadm and this one.
const UNIT: &str = "edgecore.service";
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

/// Three starts by systemd itself: an edgecore that ends at once is hardly ever seen.
const RESTARTS_MAX: u32 = 3;

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

/// How an edgecore is started that does not run: as the last upgrade knew it, by its unit, or as every edgecore is.
pub(crate) async fn launch_without(last: Option<&Journal>, config: &Path, env: &Env) -> Launch {
    match last.map(|last| &last.launch) {
        Some(Launch::Unit(unit)) if unit.is_empty() => {}
        Some(launch) => return launch.clone(),
        None => {}
    }
    if Path::new(SYSTEMD).exists() {
        let state = systemctl(&["show", "--property=LoadState", "--value", UNIT], env).await;
        if state.is_ok_and(|said| said.trim() == "loaded") {
            return Launch::Unit(UNIT.to_owned());
        }
    }
    Launch::Process {
        arguments: vec!["--config".to_owned(), config.display().to_string()],
        environment: std::env::vars().filter(|(name, _)| name == "PATH").collect(),
        folder: PathBuf::from("/"),
        log: None,
        inherited: Inherited::default(),
    }
}

/// Sees to it that an upgrade is taken up that a power cut ends, as far as systemd starts edgecore, and says how.
///
/// # Errors
/// When the line cannot be added that a unit does not have.
pub(crate) async fn see_to_take_up(
    launch: &Launch,
    keadm: &Path,
    config: &Path,
    env: &Env,
) -> Result<Passed> {
    let Launch::Unit(unit) = launch else {
        return Ok(Passed::ToDo(format!(
            "no unit of systemd starts edgecore here: have what starts it run `{} upgrade edge --take-up --config {}` before, \
             each time; without that nothing finishes an upgrade that a power cut has ended",
            keadm.display(),
            config.display()
        )));
    };
    let said = systemctl(&["show", "--property=ExecStartPre", "--value", unit], env).await;
    if said.is_ok_and(|said| boot::has_line(&said, config)) {
        return Ok(format!("after a power cut {unit} finishes it before edgecore starts").into());
    }
    let added = boot::add(unit, Path::new(boot::UNITS), keadm, config).with_context(|| {
        format!(
            "{unit} has no line that finishes an upgrade after a power cut, and none can be added: \
             add ExecStartPre=-{} upgrade edge --take-up --config {} to it",
            keadm.display(),
            config.display()
        )
    })?;
    // The next start of the machine reads it in any case.
    drop(systemctl(&["daemon-reload"], env).await);
    Ok(format!("after a power cut {unit} finishes it before edgecore starts, by {}", added.display()).into())
}

/// Stops edgecore and holds its store, so that nobody starts one on it.
///
/// # Errors
/// When it goes on, or somebody starts it again and again.
pub(crate) async fn stop(launch: &Launch, store: &Path, env: &Env) -> Result<HeldStore> {
    if let Launch::Unit(unit) = launch {
        systemctl(&["stop", unit], env).await.with_context(|| format!("systemd does not stop {unit}"))?;
    }
    hold(store, env).await
}

/// Ends the edgecore that has the store, if one has, and holds the store. systemd is not asked, which may be waiting for whoever calls.
///
/// # Errors
/// See [`stop`].
pub(crate) async fn hold(store: &Path, env: &Env) -> Result<HeldStore> {
    let clock = env.clock();
    for _ in 0..STOPS_MAX {
        if let Some(process) = store_lock::edgecore_on(store) {
            process.end(STOP_WITHIN, clock.as_ref()).await?;
        }
        match edge_store::hold(store) {
            Ok(held) => return Ok(held),
            Err(StoreError::InUse { .. }) => clock.sleep(LOOK_EVERY).await,
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(stranger) = store_lock::stranger_on(store) {
        bail!("{stranger}");
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
        Launch::Process { arguments, environment, folder, log, inherited } => {
            if until_on_store(store, OTHERS_START_WITHIN, clock.as_ref()).await {
                return Ok("somebody else has started edgecore".to_owned());
            }
            // One that is gone meanwhile keeps nothing from being started.
            let folder = if folder.is_dir() { folder.as_path() } else { Path::new("/") };
            let mut command = Command::new(program);
            command.args(arguments).env_clear().envs(environment).current_dir(folder);
            command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
            let opened = log.as_ref().map(|log| files::open_to_append(&log.path, (log.device, log.number)));
            let (log, goes) = match opened {
                Some(Ok(log)) => (Some(log), String::new()),
                Some(Err(error)) => (None, format!("; its log goes nowhere: {error:#}")),
                None => {
                    (None, "; its log goes nowhere, as nobody can hand its terminal or pipe on".to_owned())
                }
            };
            let why = match log {
                Some(_) => launch.log_says_why(),
                None => journal::NO_LOG.to_owned(),
            };
            command.stderr(log.map_or_else(Stdio::null, Stdio::from));
            let spawned = {
                let _masked = Masked::by(inherited);
                command.spawn()
            };
            let mut child = spawned.with_context(|| format!("cannot start {}", program.display()))?;
            let unlimited = limit(child.id(), &inherited.limits);
            let goes = match unlimited.is_empty() {
                true => goes,
                false => format!("{goes}; these of its limits could not be set: {}", unlimited.join(", ")),
            };
            let until = clock.now() + STORE_WITHIN;
            while clock.now() < until {
                if let Some(status) = child.try_wait().context("the edgecore that was started")? {
                    bail!("edgecore ended at once ({status}): {why}{goes}");
                }
                if store_lock::edgecore_on(store).is_some_and(|found| found.pid() == child.id()) {
                    return Ok(format!("edgecore is started (process {}){goes}", child.id()));
                }
                clock.sleep(LOOK_EVERY).await;
            }
            bail!("edgecore has not opened its store within {} s: {why}{goes}", STORE_WITHIN.as_secs())
        }
    }
}

/// Whether systemd has started edgecore again and again since somebody wanted it.
pub(crate) async fn ends_by_itself(launch: &Launch, env: &Env) -> bool {
    let Launch::Unit(unit) = launch else { return false };
    let said = systemctl(&["show", "--property=NRestarts", "--value", unit], env).await;
    said.is_ok_and(|said| said.trim().parse::<u32>().is_ok_and(|restarts| restarts >= RESTARTS_MAX))
}

async fn until_on_store(store: &Path, within: Duration, clock: &dyn Clock) -> bool {
    let until = clock.now() + within;
    while clock.now() < until {
        if store_lock::edgecore_on(store).is_some() {
            return true;
        }
        clock.sleep(LOOK_EVERY).await;
    }
    false
}

/// Asks systemd, and answers what it prints.
/// Runs `systemctl` to its end, within two minutes, and answers what it printed.
///
/// # Errors
/// When it does not start, does not end or fails, with what it said.
pub async fn systemctl(arguments: &[&str], env: &Env) -> Result<String> {
    run("systemctl", arguments, SYSTEMD_WITHIN, env).await
}

/// Runs a program to its end, within a bound, and answers what it printed.
pub(crate) async fn run(program: &str, arguments: &[&str], within: Duration, env: &Env) -> Result<String> {
    let mut command = tokio::process::Command::new(program);
    // A terminal that is closed ends what it has started, and not what this waits for.
    command.args(arguments).stdin(Stdio::null()).process_group(0).kill_on_drop(true);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    use crate::journal::Log;

    /// Starts a program that says something and ends, with this as the log of before.
    async fn says_into(log: &Log, folder: &Path) -> String {
        let launch = Launch::Process {
            arguments: vec!["/nowhere at all".to_owned()],
            environment: std::collections::BTreeMap::new(),
            folder: PathBuf::from("/"),
            log: Some(log.clone()),
            inherited: Inherited::default(),
        };
        let store = folder.join("edgecore.db");
        let error = start(&launch, Path::new("/bin/ls"), &store, &Env::real()).await.unwrap_err();
        format!("{error:#}")
    }

    #[actix_rt::test]
    async fn edgecores_log_goes_on_in_its_file_and_in_no_other_that_has_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("log"), "before\n").unwrap();
        let found = fs::metadata(at("log")).unwrap();
        let log = Log { path: at("log"), device: found.dev(), number: found.ino() };
        let error = says_into(&log, folder.path()).await;
        assert!(
            error.contains("ended at once") && error.contains(&at("log").display().to_string()),
            "{error}"
        );
        let said = fs::read_to_string(at("log")).unwrap();
        assert!(said.starts_with("before\n") && said.contains("nowhere at all"), "{said}");

        // Whoever may write in the folder of the log puts something else there.
        fs::rename(at("log"), at("kept")).unwrap();
        fs::write(at("victim"), "").unwrap();
        std::os::unix::fs::symlink(at("victim"), at("log")).unwrap();
        let error = says_into(&log, folder.path()).await;
        assert!(error.contains("ended at once") && error.contains("start it by hand to see why"), "{error}");
        fs::remove_file(at("log")).unwrap();
        fs::hard_link(at("victim"), at("log")).unwrap();
        assert!(says_into(&log, folder.path()).await.contains("ended at once"));
        assert_eq!(fs::read_to_string(at("victim")).unwrap(), "");
        // A pipe that nobody reads: opened by its name it waits for ever.
        fs::remove_file(at("log")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("log"), rustix::fs::Mode::RWXU).unwrap();
        assert!(says_into(&log, folder.path()).await.contains("ended at once"));
    }
}
