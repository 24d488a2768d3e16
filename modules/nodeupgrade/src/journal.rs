//! What is being done to the node's programs, on the disk before it is done.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::exchange::Exchange;
pub use crate::plan::Event;
use crate::plan::{Phase, Progress};

/// The first layout of the document.
pub(crate) const LAYOUT: u32 = 1;
/// 200 steps: with every resume a run has fewer.
const STEPS_MAX: usize = 200;

/// How edgecore is stopped and started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Launch {
    /// By systemd, as this unit.
    Unit(String),
    /// As the process that was found.
    Process {
        /// The arguments, without the program.
        arguments: Vec<String>,
        /// The environment.
        environment: BTreeMap<String, String>,
        /// The working directory.
        folder: PathBuf,
        /// The file that its standard error went to, if it was one. A release that wrote down its name alone has none.
        #[serde(default, rename = "logFile")]
        log: Option<Log>,
        /// What else it had of whoever started it.
        #[serde(default)]
        inherited: Inherited,
    },
}

impl Launch {
    /// Where it can be read why edgecore ended.
    pub(crate) fn log_says_why(&self) -> String {
        match self {
            Launch::Unit(unit) => format!("`journalctl -u {unit}` says why"),
            Launch::Process { log: Some(log), .. } => format!("its log, {}, says why", log.path.display()),
            Launch::Process { log: None, .. } => NO_LOG.to_owned(),
        }
    }
}

/// How it can be seen why an edgecore ended whose log is in no file.
pub(crate) const NO_LOG: &str = "start it by hand to see why";

/// A file, and not whatever has its name by now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// Its name.
    pub path: PathBuf,
    /// The number of its disk.
    pub device: u64,
    /// Its number there.
    pub number: u64,
}

/// What a process has of whoever started it, beside arguments and environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inherited {
    /// The mask of modes; `None`: nobody knows.
    pub umask: Option<u32>,
    /// Limits of its resources, as far as they are known.
    pub limits: Vec<Limit>,
}

/// A limit of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// By the kernel's word, as `Max open files`.
    pub resource: String,
    /// The soft one, in the resource's unit; `None`: there is none.
    pub soft: Option<u64>,
    /// The hard one.
    pub hard: Option<u64>,
}

/// What the new edgecore has to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bar {
    /// Its socket for agents, if there is one.
    pub socket: Option<PathBuf>,
    /// Whether it is enough that it answers and stays, without the cloud.
    pub offline_ok: bool,
    /// Within how many seconds.
    pub within: u64,
    /// How the edgecore was that ran before: no more is asked of it when it is started again.
    #[serde(default)]
    pub before: Before,
}

/// How the edgecore was that was to be exchanged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Before {
    /// It answered at its socket.
    #[default]
    Answered,
    /// It ran and did not answer.
    Silent,
    /// It did not run.
    Down,
}

/// A step that was done, or was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepRecord {
    /// The phase.
    pub phase: Phase,
    /// KubeEdge's action that it is a part of.
    pub action: String,
    /// Whether it was done.
    pub succ: bool,
    /// Seconds since 1970, by the machine's clock.
    pub time: u64,
    /// What is to be said of it.
    pub reason: String,
}

/// The document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Journal {
    /// Which layout it has.
    pub layout: u32,
    /// Of all upgrades, rollbacks and backups of the node the how many-eth it is: what is newer is told by it, and never by a clock.
    #[serde(default)]
    pub sequence: u64,
    /// What was asked for.
    pub event: Event,
    /// The version that ran.
    pub from_version: String,
    /// The version that is to run.
    pub to_version: String,
    /// Where it stands.
    pub progress: Progress,
    /// What is exchanged. The first is edgecore, but where only its settings are.
    pub exchanges: Vec<Exchange>,
    /// edgecore, where it is not exchanged.
    #[serde(default)]
    pub program: Option<PathBuf>,
    /// The node's `edgecore.yaml`.
    pub config: PathBuf,
    /// The node's store.
    pub store: PathBuf,
    /// The backup of what runs.
    pub backup: PathBuf,
    /// Whether the store in the backup is the one that edgecore left when it was stopped: only then may it go back.
    pub is_store_current: bool,
    /// A store of a backup that is to go back with the programs, as whoever asked for it has said.
    pub store_from: Option<PathBuf>,
    /// By what a store is known that was put back, in hexadecimal, of each copy: chosen before, so that it is not done twice.
    #[serde(default)]
    pub put_back: BTreeMap<PathBuf, String>,
    /// How edgecore is started.
    pub launch: Launch,
    /// What it has to show.
    pub bar: Bar,
    /// What was done.
    pub steps: Vec<StepRecord>,
}

impl Journal {
    /// One that nothing was done of.
    pub(crate) fn new(event: Event, from: &str, to: &str, config: &Path, store: &Path) -> Journal {
        Journal {
            layout: LAYOUT,
            sequence: 0,
            event,
            from_version: from.to_owned(),
            to_version: to.to_owned(),
            progress: Progress::default(),
            exchanges: Vec::new(),
            program: None,
            config: config.to_owned(),
            store: store.to_owned(),
            backup: PathBuf::new(),
            is_store_current: false,
            store_from: None,
            put_back: BTreeMap::new(),
            launch: Launch::Unit(String::new()),
            bar: Bar { socket: None, offline_ok: false, within: 0, before: Before::Answered },
            steps: Vec::new(),
        }
    }

    /// edgecore; `None`: nothing says where it is.
    pub(crate) fn program(&self) -> Option<&Path> {
        let exchanged = || self.exchanges.first().map(|exchange| exchange.path.as_path());
        self.program.as_deref().or_else(exchanged)
    }

    /// Notes how the phase came out, at this time in seconds since 1970.
    pub(crate) fn note(&mut self, time: u64, came: &Result<String, String>) {
        let phase = self.progress.phase;
        let (succ, reason) = match came {
            Ok(said) => (true, said.clone()),
            Err(why) => (false, why.clone()),
        };
        if self.steps.len() < STEPS_MAX {
            let action = phase.action(self.event).to_owned();
            self.steps.push(StepRecord { phase, action, succ, time, reason });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_to_read_edgecores_log_is_told_where_it_is() {
        assert_eq!(
            Launch::Unit("edge.service".to_owned()).log_says_why(),
            "`journalctl -u edge.service` says why"
        );
        let process = |log: Option<Log>| Launch::Process {
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            folder: PathBuf::from("/"),
            log,
            inherited: Inherited::default(),
        };
        let log = Log { path: PathBuf::from("/var/log/edgecore.log"), device: 1, number: 2 };
        assert_eq!(process(Some(log)).log_says_why(), "its log, /var/log/edgecore.log, says why");
        assert_eq!(process(None).log_says_why(), NO_LOG);
    }
}
