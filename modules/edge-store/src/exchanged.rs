//! Whether the names of the store's files still lead to the files that are open, and what is done when they do not.
//!
//! A file that is renamed, removed or replaced under a running process stays what it was for whoever has it open: commits go into it,
//! are answered, and the next start finds something else. What waits for the cloud would be lost then, though it was answered for.
//! And a connection that is opened later, by the name, would read another file beside the writer's.
//!
//! So the writer looks after each transaction, and once a minute where there is none; whoever opens a connection for reading looks, too.
//! When a name leads elsewhere, what is open wins, for it alone has what waits:
//! * All of it is copied beside the name and takes its place, by the steps of a quarantine, which a cut leaves whole. What lay there
//!   instead stays as `.broken-<n>`, nothing of it is read or removed. The node's key is put back, too.
//! * Nothing more is committed, for it would go into the file that has no name; edgecore ends ([`crate::Store::broken`]). The next
//!   start has everything, and says what happened ([`crate::Store::put_back_before`]).
//! * Where the copy cannot be made (no room, no folder, or another edgecore has begun on the new file), the store goes on in what is
//!   open, says so in [`crate::Snapshot::trouble`], and tries again once a minute: the link may bring out what waits meanwhile.
//!
//! Who wants an empty store, or another one, stops edgecore first.

use std::fs::{self, File, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rustix::fs::{Mode, OFlags};

use crate::files::{beside, lock, make_private, remove_database};
use crate::node_key::NodeKey;
use crate::{StoreError, connection, copy, quarantine, schema};

/// A file that is known by its number, and not by its name.
#[derive(Debug)]
struct Known {
    path: PathBuf,
    /// A descriptor that can only be asked which file it is: to close one that reads would give up this process's locks on the file.
    file: File,
}

impl Known {
    fn of(path: PathBuf) -> Option<Known> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(&path, flags, Mode::empty()).ok()?);
        Some(Known { path, file })
    }

    /// What its name leads to, if not to it. A disk that does not say counts as unchanged.
    fn exchanged(&self) -> Option<String> {
        let own = self.file.metadata().ok()?;
        let number = |file: &Metadata| (file.dev(), file.ino());
        match fs::symlink_metadata(&self.path) {
            Ok(found) if number(&found) == number(&own) => None,
            Ok(_) => Some(format!("{} is another file", self.path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Some(format!("{} is gone", self.path.display()))
            }
            Err(_) => None,
        }
    }
}

/// The files that a writer's connection has open, and the lock that keeps others out.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    database: Vec<Known>,
    lock: Option<Known>,
}

impl OpenFiles {
    /// Those of the database at `path`, which is open and has its log.
    pub(crate) fn of(path: &Path) -> OpenFiles {
        let names = [path.to_owned(), beside(path, "-wal"), beside(path, "-shm")];
        OpenFiles {
            database: names.into_iter().filter_map(Known::of).collect(),
            lock: Known::of(beside(path, ".lock")),
        }
    }

    /// Which of the database's names leads elsewhere, and where.
    pub(crate) fn exchanged(&self) -> Option<String> {
        self.database.iter().find_map(Known::exchanged)
    }

    /// The lock at its name, if that is another one by now.
    ///
    /// # Errors
    /// When somebody else has it.
    fn lock_again(&self, path: &Path) -> Result<Option<File>, StoreError> {
        match self.lock.as_ref().is_none_or(|own| own.exchanged().is_some()) {
            true => lock(path).map(Some),
            false => Ok(None),
        }
    }
}

/// What was put back.
#[derive(Debug)]
pub(crate) struct PutBack {
    /// In a person's words, with where the other file is now.
    pub(crate) words: String,
    /// Held as long as the file is this process's.
    #[expect(dead_code, reason = "it holds the lock")]
    lock: Option<File>,
}

/// Copies what `conn` has open to `path`, whose files are no longer `files`; `found` says how that shows.
///
/// # Errors
/// When the disk does not take the copy, or somebody else has what lies there. Nothing at the name is changed then.
pub(crate) fn put_back(
    conn: &Connection,
    path: &Path,
    files: &OpenFiles,
    node_key: &NodeKey,
    found: &str,
) -> Result<PutBack, StoreError> {
    let lock = files.lock_again(path)?;
    let fail = |error| StoreError::sqlite(path, error);
    let fresh = beside(path, quarantine::COPY);
    remove_database(&fresh)?;
    let words = format!(
        "the store's files were removed or replaced while edgecore had them open ({found}): what they held was put back, nothing is \
         lost, and what lay in their place is kept as {}. Stop edgecore before anything is done to them",
        quarantine::next(path)?.display()
    );
    // The copy has it, and whoever opens it next tells it.
    schema::note_put_back(conn, &words).map_err(fail)?;
    make_private(&fresh, true)?;
    let mut target = connection::repairer(&fresh).map_err(fail)?;
    copy::copy_pages(conn, &mut target, path, &fresh)?;
    drop(target);
    copy::close(&fresh, None)?;
    node_key.put_back()?;
    quarantine::take_place(path, &fresh)?;
    Ok(PutBack { words, lock })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leads_elsewhere_is_told_from_one_that_is_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        for suffix in ["", "-wal", "-shm", ".lock"] {
            fs::write(beside(&path, suffix), "a").unwrap();
        }
        let files = OpenFiles::of(&path);
        fs::write(&path, "something else").unwrap();
        assert_eq!(files.exchanged(), None, "the same file, with another content");
        for name in [path.clone(), beside(&path, "-wal"), beside(&path, "-shm")] {
            let aside = dir.path().join("aside");
            fs::rename(&name, &aside).unwrap();
            assert_eq!(files.exchanged().unwrap(), format!("{} is gone", name.display()));
            fs::write(&name, "a").unwrap();
            assert_eq!(files.exchanged().unwrap(), format!("{} is another file", name.display()));
            fs::rename(&aside, &name).unwrap();
            assert_eq!(files.exchanged(), None);
        }
        assert!(files.lock_again(&path).unwrap().is_none());
        fs::remove_file(beside(&path, ".lock")).unwrap();
        let _held = files.lock_again(&path).unwrap().unwrap();
        assert!(matches!(files.lock_again(&path), Err(StoreError::InUse { .. })));
    }
}
