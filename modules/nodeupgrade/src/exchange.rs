//! One file that takes another one's name, and the way back. At every instant the name leads to a whole file: the old or the new one.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::files;

/// What a file is called that a person edited while the new release ran, and that made way for the old one; one that made way for that of a
/// backup.
const EDITED: &str = ".edited";
const REPLACED: &str = ".replaced";
/// What the settings are called that made way for the newest update of them.
const BEFORE: &str = ".before";

/// When a file is exchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum When {
    /// While edgecore is stopped.
    Swap,
    /// Once the new edgecore is healthy: what belongs to its release and does not decide whether it runs.
    Confirm,
}

/// A file that is exchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exchange {
    /// The file.
    pub path: PathBuf,
    /// SHA-256 of what it was before.
    pub old: String,
    /// SHA-256 of what it becomes.
    pub new: String,
    /// When.
    pub when: When,
    /// Where the old one is kept beside, in a backup.
    pub backup: PathBuf,
    /// Whether it is one that a person edits: what he has written there is kept beside, whichever way the exchange goes.
    #[serde(default)]
    pub is_edited: bool,
    /// Whether what makes way for good is kept as `NAME.before`, and what was kept so goes.
    #[serde(default)]
    pub is_update: bool,
}

impl Exchange {
    /// A file that may be exchanged: nothing is known of either yet.
    pub(crate) fn candidate(path: PathBuf) -> Exchange {
        let (old, new, backup) = (String::new(), String::new(), PathBuf::new());
        Exchange { path, old, new, when: When::Swap, backup, is_edited: false, is_update: false }
    }

    /// Where the new file waits for its name: in the same folder, so that a rename is enough.
    pub fn staged(path: &Path) -> PathBuf {
        files::hidden_beside(path, ".staged")
    }

    /// The old file's second name, which needs no room.
    fn previous(&self) -> PathBuf {
        files::hidden_beside(&self.path, ".previous")
    }

    /// Gives the new file its name. Done again it changes nothing.
    ///
    /// # Errors
    /// When either file is not what it was, which names both sums, or the folder does not take it.
    pub(crate) fn swap(&self) -> Result<()> {
        let staged = Self::staged(&self.path);
        let found = files::sum_of_file(&self.path)?;
        if found.as_ref() == Some(&self.new) && found.as_ref() != Some(&self.old) {
            return files::remove(&staged);
        }
        if found.as_ref() != Some(&self.old) {
            bail!(
                "{} was changed by somebody else meanwhile: its SHA-256 is {}, and was {}",
                self.path.display(),
                found.as_deref().unwrap_or("none, it is gone"),
                self.old
            );
        }
        let waits = files::sum_of_file(&staged)?;
        if waits.as_ref() != Some(&self.new) {
            bail!(
                "{} is torn: its SHA-256 is {}, and has to be {}",
                staged.display(),
                waits.as_deref().unwrap_or("none, it is gone"),
                self.new
            );
        }
        files::keep_under(&self.path, &self.previous())?;
        files::rename(&staged, &self.path)
    }

    /// Gives the old file its name again, and answers where what a person has edited meanwhile is kept. Done again it changes nothing.
    ///
    /// # Errors
    /// When nothing is left of the old file, or the folder does not take it.
    pub(crate) fn restore(&self) -> Result<Option<PathBuf>> {
        // First, since it frees room.
        files::remove(&Self::staged(&self.path))?;
        let found = files::sum_of_file(&self.path)?;
        if found.as_ref() == Some(&self.old) {
            files::remove(&self.previous())?;
            return Ok(None);
        }
        let is_edit = self.is_edited && found.is_some() && found.as_ref() != Some(&self.new);
        if is_edit && !self.previous().exists() {
            // It was edited before its turn came: that is what the old release was to go on with.
            return Ok(None);
        }
        let kept = if is_edit {
            // A second name first, so that its own is never without a file.
            let aside = files::hidden_beside(&self.path, ".aside");
            files::keep_under(&self.path, &aside)?;
            Some(files::keep_as(&aside, &self.path, EDITED)?)
        } else {
            None
        };
        self.put_old_back()?;
        Ok(kept)
    }

    fn put_old_back(&self) -> Result<()> {
        let previous = self.previous();
        let is_old =
            |path: &Path| Ok::<_, anyhow::Error>(files::sum_of_file(path)?.as_ref() == Some(&self.old));
        if is_old(&previous)? {
            return files::rename(&previous, &self.path);
        }
        let fresh = files::hidden_beside(&self.path, ".restored");
        let mode = files::mode_of(&self.backup)
            .with_context(|| format!("nothing is left of {} as it was", self.path.display()))?;
        let sum = files::copy(&self.backup, &fresh, mode)?;
        if sum != self.old {
            files::remove(&fresh)?;
            bail!(
                "neither {} nor {} is the file that was there before (SHA-256 {}): install that release again",
                previous.display(),
                self.backup.display(),
                self.old
            );
        }
        files::rename(&fresh, &self.path)?;
        files::remove(&previous)
    }

    /// Lets go of what was kept for the way back, but for what a person may have edited: answers where that is kept.
    ///
    /// # Errors
    /// When the folder does not let it go.
    pub(crate) fn settle(&self) -> Result<Option<PathBuf>> {
        files::remove(&Self::staged(&self.path))?;
        let previous = self.previous();
        if self.is_update && previous.exists() {
            let before = files::beside(&self.path, BEFORE);
            files::rename(&previous, &before)?;
            return Ok(Some(before));
        }
        if self.is_edited && previous.exists() {
            return files::keep_as(&previous, &self.path, REPLACED).map(Some);
        }
        files::remove(&previous)?;
        Ok(None)
    }

    /// Lets go of a new file that does not take its name.
    pub(crate) fn forget(&self) {
        // It is overwritten by the next one.
        drop(files::remove(&Self::staged(&self.path)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    struct Fixture {
        _folder: tempfile::TempDir,
        exchange: Exchange,
    }

    fn sum(text: &str) -> String {
        files::sum_of(&mut text.as_bytes(), 1 << 20).unwrap().0
    }

    fn fixture() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edgecore");
        let backup = folder.path().join("backup");
        for (file, text) in [(&path, "old"), (&backup, "old"), (&Exchange::staged(&path), "new")] {
            fs::write(file, text).unwrap();
            fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let (old, new) = (sum("old"), sum("new"));
        let exchange =
            Exchange { path, old, new, when: When::Swap, backup, is_edited: false, is_update: false };
        Fixture { _folder: folder, exchange }
    }

    fn is(fixture: &Fixture, text: &str) {
        let path = &fixture.exchange.path;
        assert_eq!(fs::read_to_string(path).unwrap(), text);
        assert_eq!(files::mode_of(path).unwrap(), 0o755);
    }

    #[test]
    fn a_file_goes_and_comes_back_and_again_changes_nothing() {
        let fixture = fixture();
        let exchange = &fixture.exchange;
        for _ in 0..2 {
            exchange.swap().unwrap();
            is(&fixture, "new");
        }
        for _ in 0..2 {
            exchange.restore().unwrap();
            is(&fixture, "old");
        }
        assert!(!exchange.previous().exists() && !Exchange::staged(&exchange.path).exists());
    }

    #[test]
    fn a_torn_file_takes_no_name_and_is_named() {
        let fixture = fixture();
        fs::write(Exchange::staged(&fixture.exchange.path), "ne").unwrap();
        let error = fixture.exchange.swap().unwrap_err().to_string();
        assert!(error.contains("torn") && error.contains(".edgecore.staged"), "{error}");
        is(&fixture, "old");
    }

    #[test]
    fn what_a_power_cut_has_torn_comes_from_the_backup_and_nothing_else_does() {
        let fixture = fixture();
        let exchange = &fixture.exchange;
        exchange.swap().unwrap();
        fs::write(&exchange.path, "torn").unwrap();
        fs::write(exchange.previous(), "torn, too").unwrap();
        exchange.restore().unwrap();
        is(&fixture, "old");
        fs::write(&exchange.path, "torn").unwrap();
        fs::write(&exchange.backup, "torn").unwrap();
        let error = exchange.restore().unwrap_err().to_string();
        assert!(error.contains("install that release again"), "{error}");
    }

    #[test]
    fn a_program_that_somebody_else_has_exchanged_stays() {
        let fixture = fixture();
        fs::write(&fixture.exchange.path, "a package's").unwrap();
        let error = fixture.exchange.swap().unwrap_err().to_string();
        assert!(error.contains("somebody else"), "{error}");
        assert_eq!(fs::read_to_string(&fixture.exchange.path).unwrap(), "a package's");
    }

    #[test]
    fn a_confirmed_file_leaves_nothing_beside_it() {
        let fixture = fixture();
        fixture.exchange.swap().unwrap();
        fixture.exchange.settle().unwrap();
        is(&fixture, "new");
        assert!(!fixture.exchange.previous().exists());
    }

    #[test]
    fn what_a_person_edits_is_kept_whichever_way_it_goes() {
        let beside = |fixture: &Fixture, suffix: &str| {
            fs::read_to_string(files::beside(&fixture.exchange.path, suffix)).unwrap_or_default()
        };
        // Before the turn of the file came: it is as it was to be.
        let mut first = fixture();
        first.exchange.is_edited = true;
        fs::write(&first.exchange.path, "mine").unwrap();
        assert!(first.exchange.swap().is_err());
        for _ in 0..2 {
            assert_eq!(first.exchange.restore().unwrap(), None);
            is(&first, "mine");
        }
        // While the new release ran, twice.
        let stage = |fixture: &Fixture| {
            let staged = Exchange::staged(&fixture.exchange.path);
            fs::write(&staged, "new").unwrap();
            fs::set_permissions(&staged, fs::Permissions::from_mode(0o755)).unwrap();
        };
        let mut second = fixture();
        second.exchange.is_edited = true;
        for (suffix, text) in [(".edited", "mine"), (".edited-2", "mine, too")] {
            stage(&second);
            second.exchange.swap().unwrap();
            fs::write(&second.exchange.path, text).unwrap();
            let kept = second.exchange.restore().unwrap();
            assert_eq!(kept, Some(files::beside(&second.exchange.path, suffix)));
            is(&second, "old");
            assert_eq!(beside(&second, suffix), text);
            assert_eq!(second.exchange.restore().unwrap(), None);
        }
        // What makes way for good, too; a program does not.
        stage(&second);
        second.exchange.swap().unwrap();
        let kept = second.exchange.settle().unwrap();
        assert_eq!(kept, Some(files::beside(&second.exchange.path, ".replaced")));
        assert_eq!(beside(&second, ".replaced"), "old");
        is(&second, "new");
        // Of updates the newest alone is kept.
        let mut updated = fixture();
        (updated.exchange.is_edited, updated.exchange.is_update) = (true, true);
        fs::write(files::beside(&updated.exchange.path, ".before"), "older").unwrap();
        updated.exchange.swap().unwrap();
        for kept in [Some(files::beside(&updated.exchange.path, ".before")), None] {
            assert_eq!(updated.exchange.settle().unwrap(), kept);
        }
        assert_eq!(beside(&updated, ".before"), "old");
        is(&updated, "new");
        let third = fixture();
        third.exchange.swap().unwrap();
        fs::write(&third.exchange.path, "torn").unwrap();
        assert_eq!(third.exchange.restore().unwrap(), None);
        assert_eq!(beside(&third, ".edited"), "");
    }
}
