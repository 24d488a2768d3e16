//! Opens the file as it is found, and sets a broken one aside.
//!
//! The salvaged copy is built beside the broken file and takes its name by a rename, so that a crash at any point leaves
//! either the broken file to salvage again or the finished copy to take.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::error::is_not_ours;
use crate::salvage::salvage;
use crate::schema::{self, Meta, Unfit};
use crate::{Options, StoreError};

/// Broken files beside the database; older ones are deleted.
const BROKEN_KEPT: usize = 3;

/// How the file was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// There was none.
    Fresh,
    /// Sound.
    Clean,
    /// Broken: it was set aside and its readable rows were carried over. The rest has to come from the cloud.
    SetAside {
        /// Where the broken file is now.
        path: PathBuf,
        /// How many rows were carried over.
        salvaged: u64,
    },
}

pub(crate) struct Found {
    pub(crate) conn: Connection,
    pub(crate) meta: Meta,
    pub(crate) opened: Opened,
    pub(crate) lock: File,
}

enum Attempt {
    Taken(Connection, Meta, bool),
    Broken(String),
}

pub(crate) fn open(path: &Path, options: &Options) -> Result<Found, StoreError> {
    if let Some(folder) = folder(path) {
        fs::create_dir_all(folder).map_err(|e| StoreError::file("make the folder of", path, e))?;
    }
    let lock = lock(path)?;
    let stray = finish_interrupted(path)?;
    let (conn, meta, opened) = match attempt(path, options)? {
        Attempt::Taken(conn, meta, fresh) => {
            let opened = match stray {
                Some((aside, true)) => Opened::SetAside { path: aside, salvaged: count(&conn, path)? },
                Some((aside, false)) => Opened::SetAside { path: aside, salvaged: 0 },
                None if fresh => Opened::Fresh,
                None => Opened::Clean,
            };
            (conn, meta, opened)
        }
        Attempt::Broken(reason) => {
            tracing::error!(path = %path.display(), reason, "database is broken and is set aside");
            let (aside, salvaged) = replace(path, options)?;
            match attempt(path, options)? {
                Attempt::Taken(conn, meta, _) => (conn, meta, Opened::SetAside { path: aside, salvaged }),
                // A file that breaks while it is written is the disk's doing.
                Attempt::Broken(reason) => {
                    let source = std::io::Error::new(ErrorKind::InvalidData, reason);
                    return Err(StoreError::file("make", path, source));
                }
            }
        }
    };
    if let Opened::SetAside { path: aside, salvaged } = &opened {
        tracing::warn!(path = %aside.display(), salvaged, "database was set aside and its readable rows carried over");
    }
    Ok(Found { conn, meta, opened, lock })
}

pub(crate) fn size_on_disk(path: &Path) -> Result<u64, StoreError> {
    let size = fs::metadata(path).map_err(|e| StoreError::file("see the size of", path, e))?.len();
    Ok(size + fs::metadata(beside(path, "-wal")).map_or(0, |m| m.len()))
}

/// SQLite lets two processes write; our counters and the setting aside do not.
fn lock(path: &Path) -> Result<File, StoreError> {
    let lock_path = beside(path, ".lock");
    let file = private()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&lock_path)
        .map_err(|e| StoreError::file("open", &lock_path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(e)) => Err(StoreError::file("lock", &lock_path, e)),
    }
}

/// After a crash while setting aside: takes the finished copy, and moves a log without its file out of the way, because
/// SQLite would replay it into whatever file stands there next. Says where the broken file is, and if a copy was taken.
fn finish_interrupted(path: &Path) -> Result<Option<(PathBuf, bool)>, StoreError> {
    let (copy, log) = (beside(path, ".salvage"), beside(path, "-wal"));
    if size(path)? > 0 {
        remove_database(&copy)?;
        return Ok(None);
    }
    let mut aside = None;
    if size(&log)? > 0 {
        let broken = if copy.exists() { newest_broken(path)? } else { None };
        let target = match broken {
            Some(broken) => broken,
            None => next_broken(path)?,
        };
        rename(&log, &beside(&target, "-wal"))?;
        aside = Some((target, false));
    }
    remove(&beside(path, "-shm"))?;
    if copy.exists() {
        let broken = match newest_broken(path)? {
            Some(broken) => broken,
            None => next_broken(path)?,
        };
        rename(&copy, path)?;
        aside = Some((broken, true));
    }
    sync_folder(path)?;
    Ok(aside)
}

fn attempt(path: &Path, options: &Options) -> Result<Attempt, StoreError> {
    if let Some(reason) = header(path)? {
        return Ok(Attempt::Broken(reason));
    }
    // Made here and not by SQLite, for its mode: the file holds secrets.
    private()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|e| StoreError::file("open", path, e))?;
    match take(path, options) {
        Ok((conn, meta, fresh)) => Ok(Attempt::Taken(conn, meta, fresh)),
        Err(Unfit::Broken(reason)) => Ok(Attempt::Broken(reason)),
        Err(Unfit::Sql(error)) if is_not_ours(&error) => Ok(Attempt::Broken(error.to_string())),
        Err(Unfit::Sql(error)) => Err(StoreError::sqlite(path, error)),
    }
}

fn take(path: &Path, options: &Options) -> Result<(Connection, Meta, bool), Unfit> {
    let mut conn = schema::writer(path, options.max_bytes)?;
    if schema::is_empty(&conn)? {
        let meta = schema::create(&mut conn, &options.incarnation)?;
        return Ok((conn, meta, true));
    }
    let meta = schema::check(&mut conn)?;
    Ok((conn, meta, false))
}

/// What is wrong with a file's header, as far as SQLite would take it for something else: it opens a file with a
/// changed format byte as read-only instead of refusing it.
fn header(path: &Path) -> Result<Option<String>, StoreError> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(100).read_to_end(&mut bytes).map_err(|e| StoreError::file("read", path, e))?,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(StoreError::file("open", path, e)),
    };
    let sound = match bytes.as_slice() {
        [] => true,
        bytes if bytes.len() < 100 => false,
        bytes => bytes.starts_with(b"SQLite format 3\0") && bytes[18..20].iter().all(|b| matches!(b, 1 | 2)),
    };
    Ok((!sound).then(|| "the header is not SQLite's".to_owned()))
}

/// Salvages into a copy, moves the broken file aside and the copy to its place.
fn replace(path: &Path, options: &Options) -> Result<(PathBuf, u64), StoreError> {
    let copy = beside(path, ".salvage");
    remove_database(&copy)?;
    let salvaged = build_copy(path, &copy, options).map_err(|e| match e {
        Unfit::Sql(e) => StoreError::sqlite(&copy, e),
        Unfit::Broken(reason) => StoreError::file("make", &copy, std::io::Error::other(reason)),
    })?;
    let aside = next_broken(path)?;
    remove(&beside(path, "-shm"))?;
    rename(path, &aside)?;
    if beside(path, "-wal").exists() {
        rename(&beside(path, "-wal"), &beside(&aside, "-wal"))?;
    }
    rename(&copy, path)?;
    sync_folder(path)?;
    forget_oldest(path)?;
    Ok((aside, salvaged))
}

fn build_copy(path: &Path, copy: &Path, options: &Options) -> Result<u64, Unfit> {
    private()
        .write(true)
        .create(true)
        .truncate(true)
        .open(copy)
        .map_err(|e| Unfit::Broken(format!("{}: {e}", copy.display())))?;
    let mut conn = schema::writer(copy, options.max_bytes)?;
    schema::create(&mut conn, &options.incarnation)?;
    let (rows, _) = salvage(path, &mut conn)?;
    // Closing moves the log into the file, so that one rename moves everything.
    conn.close().map_err(|(_, e)| e)?;
    if beside(copy, "-wal").exists() {
        return Err(Unfit::Broken("the log of the salvaged copy stays".to_owned()));
    }
    Ok(rows)
}

fn count(conn: &Connection, path: &Path) -> Result<u64, StoreError> {
    let sql = "SELECT (SELECT count(*) FROM objects) + (SELECT count(*) FROM plain) + (SELECT count(*) FROM outbox)";
    let rows: i64 = conn.query_row(sql, [], |row| row.get(0)).map_err(|e| StoreError::sqlite(path, e))?;
    Ok(u64::try_from(rows).unwrap_or(0))
}

/// The numbers of the broken files beside `path`, ascending.
fn broken_numbers(path: &Path) -> Result<Vec<u64>, StoreError> {
    let fail = |e| StoreError::file("list the folder of", path, e);
    let prefix = format!("{}.broken-", path.file_name().unwrap_or_default().to_string_lossy());
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder(path).unwrap_or(Path::new("."))).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        let name = name.to_string_lossy();
        let number = name.strip_prefix(&prefix).map(|rest| rest.strip_suffix("-wal").unwrap_or(rest));
        numbers.extend(number.and_then(|n| n.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

fn broken(path: &Path, number: u64) -> PathBuf {
    beside(path, &format!(".broken-{number}"))
}

fn newest_broken(path: &Path) -> Result<Option<PathBuf>, StoreError> {
    Ok(broken_numbers(path)?.last().map(|n| broken(path, *n)))
}

fn next_broken(path: &Path) -> Result<PathBuf, StoreError> {
    let last = broken_numbers(path)?.last().copied().unwrap_or(0);
    Ok(broken(path, last.saturating_add(1)))
}

fn forget_oldest(path: &Path) -> Result<(), StoreError> {
    let numbers = broken_numbers(path)?;
    for number in numbers.iter().take(numbers.len().saturating_sub(BROKEN_KEPT)) {
        remove_database(&broken(path, *number))?;
    }
    Ok(())
}

fn remove_database(path: &Path) -> Result<(), StoreError> {
    remove(path)?;
    remove(&beside(path, "-wal"))?;
    remove(&beside(path, "-shm"))
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(StoreError::file("remove", path, e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(|e| StoreError::file("rename", from, e))
}

fn size(path: &Path) -> Result<u64, StoreError> {
    match fs::metadata(path) {
        Ok(meta) => Ok(meta.len()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(0),
        Err(e) => Err(StoreError::file("see the size of", path, e)),
    }
}

/// A rename is only on disk when its folder is.
fn sync_folder(path: &Path) -> Result<(), StoreError> {
    let folder = folder(path).unwrap_or(Path::new("."));
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| StoreError::file("sync", folder, e))
}

fn folder(path: &Path) -> Option<&Path> {
    path.parent().filter(|parent| !parent.as_os_str().is_empty())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}
