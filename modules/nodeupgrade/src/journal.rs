//! What is being done to the node's programs, on the disk before it is done: one document that is replaced in one step, and a lock by
//! which a living supervisor is told from one that was ended.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::exchange::Exchange;
use crate::files;
use crate::plan::{Outcome, Phase, Progress};

/// The first layout of the document.
const LAYOUT: u32 = 1;
/// 1 MiB: a journal has a few kilobytes, the environment of edgecore included.
const DOCUMENT_MAX: u64 = 1 << 20;
/// 64 KiB are kept free for the journal itself, so that a full disk does not keep it from being written.
const RESERVE: usize = 64 << 10;
/// 200 steps: with every resume a run has fewer.
const STEPS_MAX: usize = 200;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A new program.
    Upgrade,
    /// One of a backup.
    Rollback,
}

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
        /// The file that its standard error went to, if it was one.
        log: Option<PathBuf>,
    },
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
    /// What was asked for.
    pub event: Event,
    /// The version that ran.
    pub from_version: String,
    /// The version that is to run.
    pub to_version: String,
    /// Where it stands.
    pub progress: Progress,
    /// What is exchanged. The first is edgecore.
    pub exchanges: Vec<Exchange>,
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
            event,
            from_version: from.to_owned(),
            to_version: to.to_owned(),
            progress: Progress::default(),
            exchanges: Vec::new(),
            config: config.to_owned(),
            store: store.to_owned(),
            backup: PathBuf::new(),
            is_store_current: false,
            store_from: None,
            launch: Launch::Unit(String::new()),
            bar: Bar { socket: None, offline_ok: false, within: 0 },
            steps: Vec::new(),
        }
    }

    /// Notes how the phase came out, at this time in seconds since 1970.
    pub(crate) fn note(&mut self, time: u64, came: &Result<String, String>) {
        let phase = self.progress.phase;
        let (succ, reason) = match came {
            Ok(said) => (true, said.clone()),
            Err(why) => (false, why.clone()),
        };
        if self.steps.len() < STEPS_MAX {
            let action = phase.action().to_owned();
            self.steps.push(StepRecord { phase, action, succ, time, reason });
        }
    }
}

/// The folder of the journal, beside the store.
#[derive(Debug, Clone)]
pub struct JournalFolder(PathBuf);

/// Nobody else writes the journal while this is kept.
#[derive(Debug)]
pub struct JournalLock(#[expect(dead_code, reason = "it holds the lock")] File);

impl JournalFolder {
    /// That of the node whose store lies at `store`.
    pub fn of(store: &Path) -> JournalFolder {
        JournalFolder(files::folder_of(store).join("upgrade"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The document's file.
    pub fn document(&self) -> PathBuf {
        self.0.join("journal.json")
    }

    fn reserve(&self) -> PathBuf {
        self.0.join("reserve")
    }

    /// Takes the lock; `None`: a living supervisor, or somebody before it, has it.
    ///
    /// # Errors
    /// When the folder does not take it.
    pub fn lock(&self) -> Result<Option<JournalLock>> {
        files::make_folder(&self.0)?;
        let path = self.0.join("lock");
        let at = || format!("cannot lock {}", path.display());
        let options = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = options.with_context(at)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(JournalLock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).with_context(at),
        }
    }

    /// The last journal; `None`: there was no upgrade yet.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or of a release to come.
    pub fn load(&self) -> Result<Option<Journal>> {
        let path = self.document();
        if !path.exists() {
            return Ok(None);
        }
        let bytes = files::read(&path, DOCUMENT_MAX)?;
        #[derive(Deserialize)]
        struct Layout {
            layout: u32,
        }
        let damaged = || format!("{} is damaged", path.display());
        let Layout { layout } = serde_json::from_slice(&bytes).with_context(damaged)?;
        if layout != LAYOUT {
            bail!("{} is of a newer release (layout {layout}): use its keadm", path.display());
        }
        serde_json::from_slice(&bytes).map(Some).with_context(damaged)
    }

    /// Moves a journal that cannot be read out of the way, and answers where it is.
    ///
    /// # Errors
    /// When the folder does not take it.
    pub fn set_aside(&self) -> Result<PathBuf> {
        let aside = files::beside(&self.document(), ".broken");
        files::rename(&self.document(), &aside)?;
        Ok(aside)
    }

    /// Writes it, also on a full disk.
    ///
    /// # Errors
    /// When the disk does not take it all the same.
    pub fn save(&self, journal: &Journal) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(journal)?;
        let path = self.document();
        match files::replace(&path, &bytes, 0o600) {
            Err(error) if files::is_full(&error) => {
                files::remove(&self.reserve())?;
                files::replace(&path, &bytes, 0o600)
            }
            written => written,
        }
    }

    /// Keeps room for the journal.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn keep_room(&self) -> Result<()> {
        files::make_folder(&self.0)?;
        // Bytes that no file system leaves out.
        files::replace(&self.reserve(), &vec![0x5a; RESERVE], 0o600)
    }

    /// Writes KubeEdge's report of an upgrade that has ended.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(crate) fn report(&self, journal: &Journal) -> Result<()> {
        let success = journal.progress.outcome == Some(Outcome::Confirmed);
        let report = serde_json::json!({
            "event": journal.event,
            "success": success,
            "fromVersion": journal.from_version,
            "toVersion": journal.to_version,
            "errorMessage": journal.progress.cause.clone().unwrap_or_default(),
        });
        files::replace(&self.0.join("upgrade_report.json"), report.to_string().as_bytes(), 0o600)?;
        fs::remove_file(self.reserve()).or(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal() -> Journal {
        Journal::new(Event::Upgrade, "0.1.0", "0.2.0", Path::new("/c"), Path::new("/s"))
    }

    #[test]
    fn a_journal_is_read_as_it_was_written_and_only_one_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let journals = JournalFolder::of(&folder.path().join("edgecore.db"));
        assert_eq!(journals.load().unwrap(), None);
        let lock = journals.lock().unwrap();
        assert!(lock.is_some() && journals.lock().unwrap().is_none());
        drop(lock);
        assert!(journals.lock().unwrap().is_some());
        journals.keep_room().unwrap();
        let mut written = journal();
        written.note(7, &Err("no room".to_owned()));
        journals.save(&written).unwrap();
        assert_eq!(journals.load().unwrap(), Some(written));
        assert_eq!(files::mode_of(&journals.document()).unwrap(), 0o600);
    }

    #[test]
    fn a_torn_journal_is_told_and_one_of_a_release_to_come_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let journals = JournalFolder::of(&folder.path().join("edgecore.db"));
        files::make_folder(journals.path()).unwrap();
        let whole = serde_json::to_vec(&journal()).unwrap();
        for length in [0, 1, whole.len() / 2, whole.len() - 1] {
            std::fs::write(journals.document(), &whole[..length]).unwrap();
            assert!(format!("{:#}", journals.load().unwrap_err()).contains("damaged"), "{length}");
        }
        std::fs::write(journals.document(), r#"{"layout": 2, "all": "else"}"#).unwrap();
        assert!(format!("{:#}", journals.load().unwrap_err()).contains("newer release"));
        let aside = journals.set_aside().unwrap();
        assert!(aside.exists() && journals.load().unwrap().is_none());
    }

    #[test]
    fn the_report_is_in_kubeedges_words() {
        let folder = tempfile::tempdir().unwrap();
        let journals = JournalFolder::of(&folder.path().join("edgecore.db"));
        files::make_folder(journals.path()).unwrap();
        let mut ended = journal();
        ended.progress.failed("no room");
        journals.report(&ended).unwrap();
        let report = std::fs::read(journals.path().join("upgrade_report.json")).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
        assert_eq!((&report["event"], &report["success"]), (&"Upgrade".into(), &false.into()));
        assert_eq!((&report["fromVersion"], &report["toVersion"]), (&"0.1.0".into(), &"0.2.0".into()));
        assert_eq!(report["errorMessage"], "PreCheck: no room");
    }
}
