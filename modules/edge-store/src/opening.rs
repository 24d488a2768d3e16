//! Opens the file as it is found, and quarantines a broken one.
//!
//! The salvaged copy is built beside the broken file and takes its name by a rename, so that a crash at any point leaves
//! either the broken file to salvage again or the finished copy to take. On a disk that takes no writes the file is
//! opened for reading alone.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;

use crate::audit::{self, Findings};
use crate::error::is_not_ours;
use crate::files::{
    beside, folder, forget_oldest, lock, make_private, newest_broken, next_broken, remove, remove_database,
    rename, size, sync_folder,
};
use crate::node_key::{KeyFile, NodeKey};
use crate::salvage::{Salvage, salvage};
use crate::schema::{self, Meta, SchemaError};
use crate::state::{Damage, DamagedRow};
use crate::wal::{self, Wal};
use crate::{Options, StoreError, UnknownRows};

/// How the file was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// There was none.
    Fresh,
    /// Sound.
    Clean,
    /// Broken: it was quarantined and its readable rows were carried over. The rest has to come from the cloud.
    Quarantined {
        /// Where the broken file is now.
        path: PathBuf,
        /// How many rows were carried over.
        salvaged: u64,
    },
}

pub(crate) struct OpenedStore {
    pub(crate) conn: FileAccess,
    pub(crate) meta: Meta,
    pub(crate) opened: Opened,
    pub(crate) damaged: Vec<DamagedRow>,
    pub(crate) unknown: Vec<UnknownRows>,
    pub(crate) node_key: Arc<NodeKey>,
    pub(crate) lock: File,
}

/// What the disk allows.
pub(crate) enum FileAccess {
    /// Everything.
    Full(Connection),
    /// Reading.
    Reading(Connection, StoreError),
}

enum OpenAttempt {
    Taken(Connection, Meta, bool),
    Broken(String),
}

pub(crate) fn open(path: &Path, options: &Options) -> Result<OpenedStore, StoreError> {
    if let Some(folder) = folder(path) {
        fs::create_dir_all(folder).map_err(|e| StoreError::file("make the folder of", path, e))?;
    }
    let lock = lock(path)?;
    let node_key = Arc::new(NodeKey::new(path));
    let error = match open_writable(path, options, &node_key) {
        Ok(whole) => return Ok(whole.found(node_key, lock)),
        Err(error) => error,
    };
    let Some((conn, meta, findings)) = error.is_disk().then(|| open_for_reading(path, &node_key)).flatten()
    else {
        return Err(error);
    };
    tracing::error!(path = %path.display(), %error, "database is open for reading alone");
    let (conn, unknown) = (FileAccess::Reading(conn, error), findings.unknown_rows());
    Ok(OpenedStore { conn, meta, opened: Opened::Clean, damaged: findings.damaged, unknown, node_key, lock })
}

/// A file that can be written.
struct WritableFile {
    conn: Connection,
    meta: Meta,
    opened: Opened,
    damaged: Vec<DamagedRow>,
    unknown: Vec<UnknownRows>,
}

impl WritableFile {
    fn found(self, node_key: Arc<NodeKey>, lock: File) -> OpenedStore {
        let WritableFile { conn, meta, opened, damaged, unknown } = self;
        OpenedStore { conn: FileAccess::Full(conn), meta, opened, damaged, unknown, node_key, lock }
    }
}

fn open_writable(path: &Path, options: &Options, node_key: &NodeKey) -> Result<WritableFile, StoreError> {
    let stray = finish_interrupted(path)?;
    let (mut conn, meta, opened, mut damaged) = match try_open(path, options)? {
        OpenAttempt::Taken(conn, meta, fresh) => {
            let opened = match stray {
                Some((aside, true)) => Opened::Quarantined { path: aside, salvaged: count(&conn, path)? },
                Some((aside, false)) => Opened::Quarantined { path: aside, salvaged: 0 },
                None if fresh => Opened::Fresh,
                None => Opened::Clean,
            };
            (conn, meta, opened, Vec::new())
        }
        OpenAttempt::Broken(reason) => {
            tracing::error!(path = %path.display(), reason, "database is broken and is quarantined");
            let (aside, Salvage { rows, lost, .. }) = replace(path, options)?;
            match try_open(path, options)? {
                OpenAttempt::Taken(conn, meta, _) => {
                    (conn, meta, Opened::Quarantined { path: aside, salvaged: rows }, lost)
                }
                // A file that breaks while it is written is the disk's doing.
                OpenAttempt::Broken(reason) => {
                    let source = std::io::Error::new(ErrorKind::InvalidData, reason);
                    return Err(StoreError::file("make", path, source));
                }
            }
        }
    };
    if let Opened::Quarantined { path: aside, salvaged } = &opened {
        let lost = damaged.len();
        tracing::warn!(path = %aside.display(), salvaged, lost, "database was quarantined and its readable rows carried over");
    }
    let key = node_key.load_or_make()?;
    let findings = audit::audit(&conn, node_key).map_err(|e| StoreError::sqlite(path, e))?;
    tell_of_key(node_key, &key, &findings);
    // The next start tries again; until then they are passed over.
    if let Err(error) = audit::mend(&mut conn, node_key, &findings) {
        tracing::warn!(path = %path.display(), %error, "damaged rows stay in the database");
    }
    let unknown = findings.unknown_rows();
    damaged.extend(findings.damaged);
    Ok(WritableFile { conn, meta, opened, damaged, unknown })
}

/// Opens the file on a disk that takes no writes. A broken file needs a copy, and that needs a disk.
fn open_for_reading(path: &Path, node_key: &NodeKey) -> Option<(Connection, Meta, Findings)> {
    if size(path).ok()? == 0 || header(path).ok()?.is_some() || log_is_lost(path).ok()?.is_some() {
        return None;
    }
    let conn = schema::without_writes(path).ok()?;
    let meta = schema::check_only(&conn).ok()?;
    node_key.load().ok()?;
    let findings = audit::audit(&conn, node_key).ok()?;
    Some((conn, meta, findings))
}

/// Opens the file that [`open`] could only open for reading, now that the disk may take writes again.
pub(crate) fn open_again(
    path: &Path,
    options: &Options,
    node_key: &NodeKey,
) -> Result<(Connection, Meta), StoreError> {
    node_key.load_or_make()?;
    match try_open(path, options)? {
        OpenAttempt::Taken(conn, meta, _) => Ok((conn, meta)),
        OpenAttempt::Broken(reason) => Err(StoreError::NotAStore { path: path.to_owned(), reason }),
    }
}

fn tell_of_key(node_key: &NodeKey, key: &KeyFile, findings: &Findings) {
    if findings.locked == 0 {
        return;
    }
    let found = match key {
        KeyFile::Kept => "another key was in its place",
        KeyFile::Missing => "there was none",
        KeyFile::Unreadable => "the file held no key",
    };
    tracing::error!(
        key = %node_key.path().display(), found, rows = findings.locked,
        "the key that sealed this database is lost: its secrets are fetched again from the cloud"
    );
}

pub(crate) fn size_on_disk(path: &Path) -> Result<u64, StoreError> {
    let file = fs::metadata(path).map_err(|e| StoreError::file("see the size of", path, e))?.len();
    Ok(file + size(&beside(path, "-wal"))?)
}

/// After a crash while quarantining: takes the finished copy, and moves a log without its file out of the way, because
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

fn try_open(path: &Path, options: &Options) -> Result<OpenAttempt, StoreError> {
    if let Some(reason) = header(path)? {
        return Ok(OpenAttempt::Broken(reason));
    }
    if let Some(reason) = log_is_lost(path)? {
        return Ok(OpenAttempt::Broken(reason));
    }
    // Made here and not by SQLite, for its mode: the file holds secrets.
    make_private(path, false)?;
    match take(path, options) {
        Ok((conn, meta, fresh)) => Ok(OpenAttempt::Taken(conn, meta, fresh)),
        Err(SchemaError::Broken(reason)) => Ok(OpenAttempt::Broken(reason)),
        Err(SchemaError::Sql(error)) if is_not_ours(&error) => Ok(OpenAttempt::Broken(error.to_string())),
        Err(SchemaError::Sql(error)) => Err(StoreError::sqlite(path, error)),
    }
}

fn take(path: &Path, options: &Options) -> Result<(Connection, Meta, bool), SchemaError> {
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
pub(crate) fn header(path: &Path) -> Result<Option<String>, StoreError> {
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

/// What is wrong with the log, as far as SQLite would pass over commits in it without a word.
fn log_is_lost(path: &Path) -> Result<Option<String>, StoreError> {
    if size(path)? == 0 {
        return Ok(None);
    }
    let (log, index) = (beside(path, "-wal"), beside(path, "-shm"));
    // SQLite takes the index away before the log, so the log alone may stay behind but never the index alone.
    if !log.exists() && size(&index)? > 0 {
        return Ok(Some("its log is gone".to_owned()));
    }
    match wal::examine(&log).map_err(|e| StoreError::file("read", &log, e))? {
        Wal::Whole => Ok(None),
        Wal::Torn => {
            tracing::warn!(path = %log.display(), "last commit of the log is torn, as by a power cut before it was answered");
            Ok(None)
        }
        Wal::Lost => Ok(Some("commits in its log cannot be read".to_owned())),
    }
}

/// Salvages into a copy, moves the broken file aside and the copy to its place.
fn replace(path: &Path, options: &Options) -> Result<(PathBuf, Salvage), StoreError> {
    let copy = beside(path, ".salvage");
    let log_is_lost = log_is_lost(path)?.is_some();
    remove_database(&copy)?;
    let mut salvage = build_copy(path, &copy, options).map_err(|e| match e {
        SchemaError::Sql(e) => StoreError::sqlite(&copy, e),
        SchemaError::Broken(reason) => StoreError::file("make", &copy, std::io::Error::other(reason)),
    })?;
    if log_is_lost {
        salvage.lost.push(DamagedRow::new("log", &[b"the last commits"], Damage::Lost));
    }
    let aside = next_broken(path)?;
    remove(&beside(path, "-shm"))?;
    rename(path, &aside)?;
    if beside(path, "-wal").exists() {
        rename(&beside(path, "-wal"), &beside(&aside, "-wal"))?;
    }
    rename(&copy, path)?;
    sync_folder(path)?;
    forget_oldest(path)?;
    Ok((aside, salvage))
}

fn build_copy(path: &Path, copy: &Path, options: &Options) -> Result<Salvage, SchemaError> {
    make_private(copy, true).map_err(|e| SchemaError::Broken(e.to_string()))?;
    let mut conn = schema::writer(copy, options.max_bytes)?;
    schema::create(&mut conn, &options.incarnation)?;
    let salvage = salvage(path, &mut conn)?;
    // Closing moves the log into the file, so that one rename moves everything.
    conn.close().map_err(|(_, e)| e)?;
    if beside(copy, "-wal").exists() {
        return Err(SchemaError::Broken("the log of the salvaged copy stays".to_owned()));
    }
    Ok(salvage)
}

fn count(conn: &Connection, path: &Path) -> Result<u64, StoreError> {
    let sql = "SELECT (SELECT count(*) FROM objects) + (SELECT count(*) FROM module_rows) + (SELECT count(*) FROM outbox)";
    let rows: i64 = conn.query_row(sql, [], |row| row.get(0)).map_err(|e| StoreError::sqlite(path, e))?;
    Ok(u64::try_from(rows).unwrap_or(0))
}
