//! A copy of the store in one file, made beside a running edgecore, and the way back.
//!
//! The copy is a store that was closed: it has no log, and says so. Whoever keeps it keeps the node's key with it.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use crate::error::is_not_ours;
use crate::files::{beside, check_regular, make_private, remove, remove_database, rename, size, sync_folder};
use crate::holders::Holders;
use crate::node_key::NodeKey;
use crate::schema::SchemaError;
use crate::soundness::{header, log_is_lost};
use crate::{HeldStore, StoreError, connection, schema};

/// 1,024 pages, 4 MiB, are copied at once: a writer is not kept waiting for longer.
const PAGES_AT_ONCE: i32 = 1024;
/// 5 ms until the next ones are asked for, when another connection is writing.
const WHEN_BUSY: Duration = Duration::from_millis(5);
/// 10,000 attempts: a writer that does not come to rest for a minute keeps the copy from being made.
const ATTEMPTS: u32 = 10_000;
/// A terabyte: the copy is as large as the store, whatever its bound is.
const BYTES_MOST: u64 = 1 << 40;

/// Copies the store at `path` into the new file `into`, and its key into that name with `.key` behind it, both for their owner
/// alone and on the disk when this returns. An edgecore that runs on the store goes on.
///
/// # Errors
/// When there is no store, it is broken, or the disk does not take the copy. What was made of it is removed then.
pub fn back_up(path: &Path, into: &Path) -> Result<(), StoreError> {
    copy_of(path, into, is_in_use(path))
}

impl HeldStore {
    /// Whether this release can read the store in whole: what SQLite says of the file, the shape of the store, and that no commit is
    /// missing from its log.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn sound(&self) -> Result<(), StoreError> {
        sound(&self.path, false).map(drop)
    }

    /// Whether the store is still the one that the copy at `copy` was made of: a store that was set aside and begun anew is another
    /// one, however sound it is.
    ///
    /// # Errors
    /// What is wrong with either of them, so that it cannot be said.
    pub fn is_that_of(&self, copy: &Path) -> Result<bool, StoreError> {
        Ok(sound(&self.path, false)? == sound(copy, false)?)
    }

    /// [`back_up`] of a store that nobody writes meanwhile.
    ///
    /// # Errors
    /// See [`back_up`].
    pub fn back_up(&self, into: &Path) -> Result<(), StoreError> {
        copy_of(&self.path, into, false)
    }

    /// Puts the copy at `from` in the place of the store, with its key, and answers where the store that was there is now. It counts
    /// as another file from then on (`incarnation`): its revisions begin again. Done again with the same one, after it was cut off anywhere,
    /// it comes to the same; and a store that has it already is left as it is, with what was replaced.
    ///
    /// # Errors
    /// When the copy is not sound, or the disk does not take it.
    pub fn put_back(&self, from: &Path, incarnation: &[u8; 16]) -> Result<Option<PathBuf>, StoreError> {
        sound(from, false)?;
        if sound(&self.path, false).is_ok_and(|found| found == incarnation) {
            let replaced = beside(&self.path, ".replaced");
            return Ok(replaced.exists().then_some(replaced));
        }
        replace(&self.path, from, incarnation)
    }
}

fn copy_of(path: &Path, into: &Path, in_use: bool) -> Result<(), StoreError> {
    sound(path, in_use)?;
    let made = make(path, into, in_use);
    if made.is_err() {
        // What cannot be removed is another backup's to overwrite.
        drop(remove_database(into));
        drop(remove(&beside(into, ".key")));
    }
    made
}

/// Which file it is, if it is whole.
fn sound(path: &Path, in_use: bool) -> Result<Vec<u8>, StoreError> {
    check_regular(path)?;
    if size(path)? == 0 {
        return Err(StoreError::Missing { path: path.to_owned() });
    }
    let not_ours = |reason: String| StoreError::NotAStore { path: path.to_owned(), reason };
    if let Some(reason) = header(path)? {
        return Err(not_ours(reason));
    }
    // The log of a store that is open grows while it is looked at.
    if !in_use && let Some(lost) = log_is_lost(path)? {
        return Err(not_ours(lost.reason));
    }
    let conn = open(path, in_use).map_err(|error| StoreError::sqlite(path, error))?;
    schema::check_only(&conn).map(|meta| meta.incarnation).map_err(|unfit| match unfit {
        SchemaError::Broken(reason) => not_ours(reason),
        SchemaError::OtherNode(of) => not_ours(format!("it is node `{of}`'s")),
        SchemaError::Sql(error) if is_not_ours(&error) => not_ours(error.to_string()),
        SchemaError::Sql(error) => StoreError::sqlite(path, error),
    })
}

/// Beside a running edgecore with its log's index; a file that nobody has gets none from whoever only looks.
fn open(path: &Path, in_use: bool) -> rusqlite::Result<Connection> {
    if in_use { connection::reader(path) } else { connection::without_writes(path) }
}

/// Whether an edgecore has the store. Nothing is made to find out.
fn is_in_use(path: &Path) -> bool {
    let lock = File::open(beside(path, ".lock"));
    lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
}

fn make(path: &Path, into: &Path, in_use: bool) -> Result<(), StoreError> {
    let fail = |error| StoreError::sqlite(into, error);
    remove_database(into)?;
    make_private(into, true)?;
    let from = open(path, in_use).map_err(|error| StoreError::sqlite(path, error))?;
    let mut copy = connection::repairer(into).map_err(fail)?;
    copy_pages(&from, &mut copy, path, into)?;
    drop(copy);
    close(into, None)?;
    let key = NodeKey::new(path);
    match fs::read(key.path()) {
        // A store without a key seals nothing yet.
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(StoreError::file("read", key.path(), error)),
        Ok(bytes) => write_private(&beside(into, ".key"), &bytes)?,
    }
    sync_folder(into)
}

/// Copies what `from` sees, page by page, into the new file that `copy` has open.
pub(crate) fn copy_pages(
    from: &Connection,
    copy: &mut Connection,
    path: &Path,
    into: &Path,
) -> Result<(), StoreError> {
    let fail = |error| StoreError::sqlite(into, error);
    let backup = Backup::new(from, copy).map_err(fail)?;
    for _ in 0..ATTEMPTS {
        match backup.step(PAGES_AT_ONCE).map_err(fail)? {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            _ => std::thread::sleep(WHEN_BUSY),
        }
    }
    Err(StoreError::Busy { path: path.to_owned(), by: Holders::of_database(path) })
}

/// Makes the copy a store that was closed, with nothing beside it; with `incarnation` one that begins to count anew for its
/// readers.
pub(crate) fn close(into: &Path, incarnation: Option<&[u8]>) -> Result<(), StoreError> {
    let fail = |error| StoreError::sqlite(into, error);
    let conn = connection::writer(into, BYTES_MOST).map_err(fail)?;
    schema::note_end(&conn).map_err(fail)?;
    if let Some(incarnation) = incarnation {
        schema::put_incarnation(&conn, incarnation).map_err(fail)?;
    }
    connection::fold_on_close(&conn).map_err(fail)?;
    conn.close().map_err(|(_, error)| fail(error))?;
    if size(&beside(into, "-wal"))? > 0 {
        let source = std::io::Error::other("the log of the copy stays");
        return Err(StoreError::file("make", into, source));
    }
    remove(&beside(into, "-wal"))?;
    remove(&beside(into, "-shm"))?;
    File::open(into).and_then(|file| file.sync_all()).map_err(|error| StoreError::file("sync", into, error))
}

fn replace(path: &Path, from: &Path, incarnation: &[u8; 16]) -> Result<Option<PathBuf>, StoreError> {
    let fresh = beside(path, ".restored");
    remove_database(&fresh)?;
    make_private(&fresh, true)?;
    let bytes = |error| StoreError::file("copy", from, error);
    let mut source = File::open(from).map_err(bytes)?;
    let mut target =
        File::options().write(true).open(&fresh).map_err(|e| StoreError::file("make", &fresh, e))?;
    std::io::copy(&mut source, &mut target).map_err(bytes)?;
    drop(target);
    close(&fresh, Some(incarnation))?;
    let (key, replaced) = (beside(from, ".key"), beside(path, ".replaced"));
    if key.exists() {
        let text = fs::read(&key).map_err(|error| StoreError::file("read", &key, error))?;
        let own = NodeKey::new(path);
        let found = fs::read(own.path()).ok();
        if found.as_ref() != Some(&text) {
            let fresh = beside(own.path(), ".new");
            write_private(&fresh, &text)?;
            if found.is_some() {
                rename(own.path(), &beside(&replaced, ".key"))?;
            }
            rename(&fresh, own.path())?;
        }
    }
    let mut kept = None;
    if size(path)? > 0 {
        // A log without its file is that of this one, and was moved before it was cut off.
        if replaced.exists() {
            remove_database(&replaced)?;
        }
        if beside(path, "-wal").exists() {
            rename(&beside(path, "-wal"), &beside(&replaced, "-wal"))?;
        }
        rename(path, &replaced)?;
        kept = Some(replaced);
    }
    remove(&beside(path, "-wal"))?;
    remove(&beside(path, "-shm"))?;
    rename(&fresh, path)?;
    sync_folder(path)?;
    Ok(kept)
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    make_private(path, true)?;
    let write = || {
        fs::write(path, bytes)?;
        File::open(path)?.sync_all()
    };
    write().map_err(|error| StoreError::file("write", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ObjectKey, Opened, Options, Store, StoreInspector, Write, hold};

    fn object(name: &str) -> Write {
        Write::PutObject {
            key: ObjectKey::new("secrets", "d", name),
            uid: "u".to_owned(),
            content_hash: "h".to_owned(),
            resource_version: "1".to_owned(),
            json: b"sealed".to_vec(),
        }
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = StoreInspector::open(path).unwrap().entries(None, None, true).unwrap();
        assert!(entries.iter().all(|entry| entry.damage.is_none()), "{entries:?}");
        entries.into_iter().filter(|entry| entry.class == "secrets").map(|entry| entry.key.1).collect()
    }

    #[test]
    fn a_copy_that_is_made_beside_a_running_store_is_whole_and_goes_back_with_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("db"), dir.path().join("copy"));
        let store = Store::open(&path, Options::new([1; 16])).unwrap();
        store.commit_blocking(vec![object("before")]).unwrap();
        back_up(&path, &copy).unwrap();
        assert_eq!(names(&copy), ["before"]);
        assert!(!beside(&copy, "-wal").exists() && beside(&copy, ".key").exists());
        store.commit_blocking(vec![object("after")]).unwrap();
        assert!(matches!(hold(&path), Err(StoreError::InUse { .. })), "edgecore runs");
        drop(store);
        let replaced = hold(&path).unwrap().put_back(&copy, &[2; 16]).unwrap();
        assert_eq!(names(&path), ["before"]);
        let store = Store::open(&path, Options::new([3; 16])).unwrap();
        assert_eq!(store.opened(), &Opened::Clean, "its log is not missed");
        drop(store);
        let replaced = StoreInspector::open(replaced.unwrap()).unwrap().entries(None, None, false).unwrap();
        let kept = replaced.iter().filter(|entry| entry.class == "secrets").count();
        assert_eq!(kept, 2, "what was replaced is kept");
    }

    #[test]
    fn a_store_that_was_killed_goes_into_the_copy_with_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let (path, killed, copy) =
            (dir.path().join("db"), dir.path().join("killed"), dir.path().join("copy"));
        let store = Store::open(&path, Options::new([1; 16])).unwrap();
        store.commit_blocking(vec![object("a"), object("b")]).unwrap();
        for suffix in ["", "-wal", ".key"] {
            fs::copy(beside(&path, suffix), beside(&killed, suffix)).unwrap();
        }
        back_up(&killed, &copy).unwrap();
        assert_eq!(names(&copy), ["a", "b"]);
    }

    #[test]
    fn a_broken_store_is_not_sound_and_is_replaced_wherever_it_was_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("db"), dir.path().join("copy"));
        let store = Store::open(&path, Options::new([1; 16])).unwrap();
        store.commit_blocking(vec![object("a")]).unwrap();
        drop(store);
        let held = hold(&path).unwrap();
        held.back_up(&copy).unwrap();
        held.sound().unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[4096..].fill(7);
        for (at, left) in (2..).zip(["", ".restored", ".replaced", "gone"]) {
            match left {
                "gone" => fs::remove_file(&path).unwrap(),
                left => {
                    fs::write(&path, &bytes).unwrap();
                    fs::write(beside(&path, left), &bytes).unwrap();
                    fs::write(beside(&path, "-wal"), b"of another file").unwrap();
                    assert!(held.sound().is_err(), "{left}");
                }
            }
            held.put_back(&copy, &[at; 16]).unwrap();
            assert_eq!(names(&path), ["a"], "{left}");
            held.sound().unwrap();
        }
        fs::write(&copy, &bytes).unwrap();
        assert!(held.put_back(&copy, &[2; 16]).is_err(), "a broken copy replaces nothing");
        assert_eq!(names(&path), ["a"]);
    }

    #[test]
    fn a_store_that_was_begun_anew_is_another_one_and_putting_back_again_keeps_what_was_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("db"), dir.path().join("copy"));
        let begin = |incarnation: u8, name: &str| {
            let store = Store::open(&path, Options::new([incarnation; 16])).unwrap();
            store.commit_blocking(vec![object(name)]).unwrap();
        };
        begin(1, "old");
        let held = hold(&path).unwrap();
        held.back_up(&copy).unwrap();
        drop(held);
        begin(5, "more");
        let held = hold(&path).unwrap();
        assert!(held.is_that_of(&copy).unwrap(), "it has more, and is the same");
        drop(held);
        remove_database(&path).unwrap();
        begin(7, "anew");
        let held = hold(&path).unwrap();
        held.sound().unwrap();
        assert!(!held.is_that_of(&copy).unwrap());
        for _ in 0..2 {
            let replaced = held.put_back(&copy, &[2; 16]).unwrap().unwrap();
            assert_eq!(names(&path), ["old"]);
            // Its key stays beside the store, as it is of both.
            let kept = StoreInspector::open(replaced).unwrap().entries(None, None, false).unwrap();
            assert!(kept.iter().any(|entry| entry.key.1 == "anew"), "{kept:?}");
        }
        let mut bytes = fs::read(&copy).unwrap();
        bytes[4096..].fill(7);
        fs::write(&copy, bytes).unwrap();
        assert!(held.is_that_of(&copy).is_err(), "of a broken copy nobody knows");
    }
}
