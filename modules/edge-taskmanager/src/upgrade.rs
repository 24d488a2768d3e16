//! The exchange of edgecore or of its settings: `keadm upgrade edge` or `keadm config-update` begins it, with its checks, its backup and a
//! supervisor that outlives edgecore; how it ends stands in its journal, which is read again after a restart.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use beehive::Env;
use config::edge::EdgeCore;
use contract::TaskAction;
use contract::edgetaskmanager::UpgradeEnd;
use contract::node_task::{self, ACTIONS_MAX};
use nodeupgrade::{Event, Journal, JournalFolder, Outcome};

use crate::packages;
use crate::plan::Order;

/// 500 ms between looks whether keadm has ended.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// 64 KiB of what keadm says: it is a few lines.
const LOG_MAX: u64 = 64 << 10;

/// What keadm is started with.
#[derive(Debug, Clone)]
pub struct NodePrograms {
    /// keadm.
    pub keadm: PathBuf,
    /// The node's edgecore.yaml.
    pub config: PathBuf,
    /// The node's store, beside which the journal lies.
    pub store: PathBuf,
    /// The socket of the node's runtime.
    pub runtime_endpoint: String,
    /// The settings that this edgecore was started with.
    pub settings: Arc<EdgeCore>,
    /// Whether edgecore would start on this machine with other settings, and if not, why. It may block.
    pub fits: fn(&EdgeCore) -> Result<(), String>,
}

impl NodePrograms {
    fn journals(&self) -> JournalFolder {
        JournalFolder::of(&self.store)
    }

    /// Where the installation package of a job waits: each has its own, so that none is taken for another one's, or goes with it.
    pub(crate) fn package(&self, uid: &str) -> PathBuf {
        packages::of_job(self.journals().path(), uid)
    }

    /// The folder of the packages.
    pub(crate) fn packages(&self) -> PathBuf {
        packages::folder(self.journals().path())
    }

    /// Removes the packages of all other jobs than these. Blocks.
    pub(crate) fn keep_packages(&self, uids: &BTreeSet<String>) -> io::Result<()> {
        packages::keep_only(self.journals().path(), uids)
    }

    /// Where keadm says what it does.
    fn log(&self) -> PathBuf {
        self.journals().path().join("keadm.log")
    }
}

/// What tells a journal from the one before it.
fn mark(journal: &Journal) -> String {
    let first = journal.steps.first().map_or(0, |step| step.time);
    format!("{} {first} {} {}", journal.sequence, journal.from_version, journal.to_version)
}

/// The mark of the journal that is there; empty: there is none, or one that cannot be read. Blocks.
pub(crate) fn mark_of(programs: &NodePrograms) -> String {
    programs.journals().load().ok().flatten().as_ref().map(mark).unwrap_or_default()
}

/// The verb of keadm that does it.
fn verb(order: &Order) -> &'static [&'static str] {
    match order {
        Order::Upgrade(..) => &["upgrade", "edge"],
        Order::Configure(_) => &["config-update"],
    }
}

/// The arguments of keadm, each as it is: there is no shell between.
fn arguments(programs: &NodePrograms, uid: &str, order: &Order, within: Duration) -> Vec<String> {
    let within = within.as_secs().clamp(10, 3600);
    let mut arguments: Vec<String> = verb(order).iter().map(|word| (*word).to_owned()).collect();
    arguments.push(format!("--config={}", programs.config.display()));
    arguments.push(format!("--timeout={within}"));
    match order {
        Order::Upgrade(upgrade, sum) => {
            arguments.push(format!("--image-archive={}", programs.package(uid).display()));
            // What was fetched, and confirmed, is these bytes.
            if !sum.is_empty() {
                arguments.push(format!("--checksum={sum}"));
            }
            arguments.push(format!("--toVersion={}", upgrade.version));
            arguments.extend(upgrade.digest.as_ref().map(|digest| format!("--image-digest={digest}")));
        }
        Order::Configure(fields) => {
            // keadm writes the file, so it judges once more what a job may change.
            arguments.push("--by-job".to_owned());
            arguments.extend(fields.iter().map(|(key, value)| format!("--set={key}={value}")));
        }
    }
    arguments
}

/// keadm at work. It outlives edgecore, which it has stopped in the middle of it: nobody waits for it on a thread that edgecore waits for.
pub(crate) struct Keadm {
    child: Child,
    log: PathBuf,
    verb: String,
}

impl Keadm {
    /// Begins it. Blocks for a moment.
    ///
    /// # Errors
    /// A sentence, where it cannot be started.
    pub(crate) fn begin(
        programs: &NodePrograms,
        uid: &str,
        order: &Order,
        within: Duration,
    ) -> Result<Keadm, String> {
        let log = programs.log();
        let at = |error: io::Error| format!("{}: {error}", log.display());
        make_folder(&log).map_err(at)?;
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&log);
        let mut command = Command::new(&programs.keadm);
        command.args(arguments(programs, uid, order, within));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file.map_err(at)?);
        let started = command.spawn();
        let child = started.map_err(|error| format!("{}: {error}", programs.keadm.display()))?;
        Ok(Keadm { child, log, verb: verb(order).join(" ") })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// What it says last, where it did not do it.
    pub(crate) async fn ended(mut self, env: &Env) -> Result<(), String> {
        let status = loop {
            match self.child.try_wait() {
                Ok(None) => env.sleep(LOOK_EVERY).await,
                Ok(Some(status)) => break status,
                Err(error) => return Err(format!("keadm: {error}")),
            }
        };
        if status.success() {
            return Ok(());
        }
        let log = self.log;
        let said = env.blocking(move || last_line(&log)).await;
        let said = said.unwrap_or_default();
        let said = if said.is_empty() { "it said nothing" } else { &said };
        Err(node_task::sentence(&format!("keadm {}: {said}", self.verb)))
    }
}

/// The last line with anything on it of what keadm has said.
fn last_line(log: &Path) -> String {
    let mut text = Vec::new();
    let read = File::open(log).and_then(|file| file.take(LOG_MAX).read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines().rev().filter(|line| !line.trim().is_empty());
    match read {
        Ok(_) => lines.next().unwrap_or_default().trim().to_owned(),
        Err(error) => error.to_string(),
    }
}

/// How the exchange that was begun after the journal of this mark has ended; `None`: it has not. Blocks.
pub(crate) fn ended(programs: &NodePrograms, before: &str) -> Option<UpgradeEnd> {
    let journals = programs.journals();
    match journals.load() {
        Ok(Some(journal)) if mark(&journal) != before => journal.progress.is_done().then(|| end_of(&journal)),
        // Whoever is at it has the lock, also before there is a journal.
        _ if !matches!(journals.lock(), Ok(Some(_))) => None,
        Ok(_) => Some(not_begun("edgecore ended before keadm had begun: make the job again")),
        Err(error) => Some(not_begun(&format!("the journal of the upgrade: {error:#}"))),
    }
}

/// Of an exchange that did not begin.
pub(crate) fn not_begun(why: &str) -> UpgradeEnd {
    UpgradeEnd {
        outcome: Err(node_task::sentence(why)),
        actions: Vec::new(),
        from_version: String::new(),
        to_version: String::new(),
    }
}

/// Where keadm found that all is as it is to be.
pub(crate) fn already() -> UpgradeEnd {
    UpgradeEnd { outcome: Ok(()), ..not_begun("") }
}

/// A journal in the words of a job: the steps of one action are one.
fn end_of(journal: &Journal) -> UpgradeEnd {
    let mut actions: Vec<TaskAction> = Vec::new();
    for step in &journal.steps {
        let time = rfc3339(step.time);
        let reason = if step.succ { String::new() } else { node_task::sentence(&step.reason) };
        let has_room = actions.len() < ACTIONS_MAX - 2;
        match actions.iter_mut().find(|action| action.action == step.action) {
            Some(action) => {
                action.succeeded &= step.succ;
                action.time = time;
                if !step.succ {
                    action.reason = reason;
                }
            }
            None if has_room => {
                let (action, succeeded) = (step.action.clone(), step.succ);
                actions.push(TaskAction { action, succeeded, reason, time });
            }
            None => {}
        }
    }
    let cause = journal.progress.cause.clone().unwrap_or_else(|| "no cause is known".to_owned());
    let is_of_settings = journal.event == Event::ConfigUpdate;
    let outcome = match journal.progress.outcome {
        Some(Outcome::Confirmed) => Ok(()),
        Some(Outcome::RolledBack) if is_of_settings => Err(format!("edgecore.yaml is as it was: {cause}")),
        Some(Outcome::RolledBack) => {
            Err(format!("edgecore {} is there again: {cause}", journal.from_version))
        }
        Some(Outcome::Refused) => Err(cause),
        Some(Outcome::Failed) | None => Err(format!("look at this machine: {cause}")),
    };
    // The release stays the same.
    let most = if is_of_settings { 0 } else { node_task::WORD_MAX / 4 };
    let version = |text: &str| text.chars().filter(|c| !c.is_control()).take(most).collect();
    UpgradeEnd {
        outcome: outcome.map_err(|why| node_task::sentence(&why)),
        actions,
        from_version: version(&journal.from_version),
        to_version: version(&journal.to_version),
    }
}

fn rfc3339(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or_default();
    jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string()
}

/// The folder of what keadm says.
fn make_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Upgrade;
    use serde_json::{Value, json};

    fn programs(folder: &Path) -> NodePrograms {
        NodePrograms {
            keadm: folder.join("keadm"),
            config: "/etc/a b;reboot.yaml".into(),
            store: folder.join("edgecore.db"),
            runtime_endpoint: "/run/c.sock".into(),
            settings: Arc::default(),
            fits: |_| Ok(()),
        }
    }

    fn journal(steps: Value, phase: &str, outcome: Value, cause: Value) -> Value {
        json!({
            "layout": 1, "event": "Upgrade", "fromVersion": "0.1.0", "toVersion": "0.2.0",
            "progress": {"phase": phase, "outcome": outcome, "cause": cause, "resumes": 0, "mustRestoreStore": false, "isBooting": false},
            "exchanges": [], "config": "/c", "store": "/s", "backup": "/b", "isStoreCurrent": false, "storeFrom": null,
            "launch": {"Unit": "edgecore.service"}, "bar": {"socket": null, "offlineOk": false, "within": 300}, "steps": steps,
        })
    }

    fn step(phase: &str, action: &str, succ: bool, time: u64) -> Value {
        json!({"phase": phase, "action": action, "succ": succ, "time": time, "reason": if succ { "" } else { "not linked in time" }})
    }

    #[test]
    fn a_journal_becomes_the_actions_of_the_job_once_it_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let programs = programs(folder.path());
        let file = programs.journals().document();
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let write = |journal: Value| std::fs::write(&file, journal.to_string()).unwrap();
        assert_eq!(mark_of(&programs), "");
        let begun = json!([step("PreCheck", "Check", true, 7), step("BackUp", "BackUp", true, 8)]);
        write(journal(begun, "Stop", json!(null), json!(null)));
        assert_eq!(ended(&programs, ""), None, "it goes on");
        let before = mark_of(&programs);
        assert_eq!(before, "0 7 0.1.0 0.2.0");
        let all = json!([
            step("PreCheck", "Check", true, 17),
            step("BackUp", "BackUp", true, 18),
            step("Stop", "Upgrade", true, 19),
            step("Health", "Upgrade", false, 20),
            step("RollBack", "RollBack", true, 21),
            step("Restart", "RollBack", true, 22),
        ]);
        write(journal(all, "Done", json!("RolledBack"), json!("Health: not linked in time")));
        let end = ended(&programs, &before).unwrap();
        let flow: Vec<(&str, bool, &str)> =
            end.actions.iter().map(|one| (one.action.as_str(), one.succeeded, one.reason.as_str())).collect();
        assert_eq!(
            flow,
            [
                ("Check", true, ""),
                ("BackUp", true, ""),
                ("Upgrade", false, "not linked in time"),
                ("RollBack", true, "")
            ]
        );
        assert_eq!(end.outcome, Err("edgecore 0.1.0 is there again: Health: not linked in time".to_owned()));
        assert_eq!((end.from_version.as_str(), end.to_version.as_str()), ("0.1.0", "0.2.0"));
        // The journal that was there before is not this job's: nobody is at it, so nothing was begun.
        let end = ended(&programs, &mark_of(&programs)).unwrap();
        assert!(end.outcome.unwrap_err().contains("before keadm had begun"));
        let lock = programs.journals().lock().unwrap();
        assert_eq!(ended(&programs, &mark_of(&programs)), None, "somebody is at it");
        drop(lock);
    }

    #[tokio::test]
    async fn keadm_gets_each_argument_as_it_is_and_its_last_word_is_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let (programs, env) = (programs(folder.path()), Env::real());
        let within = Duration::from_secs(5);
        let release = Upgrade {
            image: "r/p@sha256:0".to_owned(),
            digest: Some("sha256:0".to_owned()),
            version: "0.2.0".to_owned(),
            confirm: false,
        };
        let order = Order::Upgrade(release, "5a".to_owned());
        let of_upgrade = arguments(&programs, "u", &order, within);
        assert_eq!(of_upgrade[2], "--config=/etc/a b;reboot.yaml");
        assert_eq!(of_upgrade[5..], ["--checksum=5a", "--toVersion=0.2.0", "--image-digest=sha256:0"]);
        let fields = [("a.b".to_owned(), "$(reboot) --config=/x".to_owned())];
        let update = Order::Configure(fields.into());
        let of_update = [
            "config-update",
            "--config=/etc/a b;reboot.yaml",
            "--timeout=10",
            "--by-job",
            "--set=a.b=$(reboot) --config=/x",
        ];
        assert_eq!(arguments(&programs, "u", &update, within), of_update);
        let why = Keadm::begin(&programs, "u", &order, within).err().unwrap();
        assert!(why.contains("keadm: No such file"), "{why}");
        // Whatever refuses these arguments will do: this one names what it does not know.
        let refusing = NodePrograms { keadm: "/bin/ls".into(), ..programs };
        for (order, said) in [(&order, "keadm upgrade edge: "), (&update, "keadm config-update: ")] {
            let keadm = Keadm::begin(&refusing, "u", order, within).unwrap();
            let why = keadm.ended(&env).await.unwrap_err();
            assert!(why.starts_with(said) && why.len() > 30, "{why}");
        }
        let fine = NodePrograms { keadm: "/bin/true".into(), ..refusing };
        assert_eq!(Keadm::begin(&fine, "u", &order, within).unwrap().ended(&env).await, Ok(()));
    }
}
