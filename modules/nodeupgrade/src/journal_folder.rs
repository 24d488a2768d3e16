//! The folder of the journal: one document that is replaced in one step, and a lock by which a living supervisor is told from one that was
//! ended.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::files;
use crate::journal::{Journal, LAYOUT};
use crate::plan::Outcome;

/// 64 MiB: a journal has a few kilobytes, but for arguments and environment of edgecore, of which the kernel takes 6 MiB, each byte of them
/// six letters of JSON at the most.
const DOCUMENT_MAX: u64 = 64 << 20;
/// 64 KiB more than the journal has are kept free for it, so that a full disk does not keep it from being written.
const RESERVE: usize = 64 << 10;

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

    /// Where the one copy lies of what was handed in.
    pub(crate) fn incoming(&self) -> PathBuf {
        self.0.join("incoming")
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

    /// Keeps room for this journal.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn keep_room(&self, journal: &Journal) -> Result<()> {
        files::make_folder(&self.0)?;
        let room = serde_json::to_vec_pretty(journal)?.len().saturating_add(RESERVE);
        // Bytes that no file system leaves out.
        files::replace(&self.reserve(), &vec![0x5a; room], 0o600)
    }

    /// Puts the journal back that was there before one that has come to nothing; `None`: there was none.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(crate) fn put_back(&self, before: Option<&Journal>) -> Result<()> {
        match before {
            Some(before) => self.save(before)?,
            None => files::remove(&self.document())?,
        }
        files::remove(&self.reserve())
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
    use std::collections::BTreeMap;

    use crate::journal::{Event, Inherited, Launch};

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
        let mut written = journal();
        // An environment as large as the kernel takes one, of bytes that JSON spells out.
        let environment = BTreeMap::from([("LARGE".to_owned(), "\u{1}".repeat(6 << 20))]);
        let (arguments, folder, inherited) = (Vec::new(), PathBuf::from("/"), Inherited::default());
        written.launch = Launch::Process { arguments, environment, folder, log: None, inherited };
        journals.keep_room(&written).unwrap();
        assert!(files::size_of(&journals.reserve()) > 36 << 20);
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
