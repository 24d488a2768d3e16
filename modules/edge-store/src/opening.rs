//! Opens the file as it is found, and quarantines a broken one. On a disk that takes no writes the file is opened for
//! reading alone.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;

use crate::audit::{self, Findings};
use crate::error::is_not_ours;
use crate::files::{beside, check_regular, folder, lock, make_private, size};
use crate::node_key::{KeyFile, NodeKey};
use crate::quarantine::{self, Interrupted, LOG, Quarantine};
use crate::schema::{self, Meta, SchemaError};
use crate::soundness::{header, log_is_lost};
use crate::state::{Damage, DamagedRow};
use crate::{Options, StoreError, UnknownRows, connection, kubeedge};

/// In the place of a table's name: all of the file.
const WHOLE_FILE: &str = "file";

/// How the file was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// There was none.
    Fresh,
    /// It was empty or gone though its key lay beside it, so this node had one: what it held is lost, and nobody knows what
    /// that was. It was begun anew.
    Emptied,
    /// Sound.
    Clean,
    /// Broken: it was quarantined and its readable rows were carried over. The rest has to come from the cloud.
    Quarantined {
        /// Where the broken file is now.
        path: PathBuf,
        /// How many rows were carried over.
        salvaged: u64,
        /// How many rows are known to be lost.
        lost: u64,
        /// Tables that lost further rows, of which nobody knows how many they were; `log` stands for the last commits, `file` for
        /// all tables.
        uncounted: Vec<&'static str>,
    },
}

pub(crate) struct OpenedStore {
    pub(crate) conn: FileAccess,
    pub(crate) meta: Meta,
    pub(crate) opened: Opened,
    /// What the run before noted of files that it put back.
    pub(crate) put_back: Option<String>,
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
    check_never_ours(path)?;
    let lock = lock(path)?;
    let node_key = Arc::new(NodeKey::new(path));
    let error = match open_writable(path, options, &node_key) {
        Ok(whole) => return Ok(whole.found(node_key, lock)),
        Err(error) => error,
    };
    let read = || open_for_reading(path, options, &node_key);
    let Some((conn, meta, findings)) = error.is_disk().then(read).transpose()?.flatten() else {
        return Err(error);
    };
    tracing::error!(path = %path.display(), %error, "database is open for reading alone");
    let (conn, unknown) = (FileAccess::Reading(conn, error), findings.unknown_rows());
    let (opened, damaged) = (Opened::Clean, findings.damaged);
    Ok(OpenedStore { conn, meta, opened, put_back: None, damaged, unknown, node_key, lock })
}

/// Refuses a file of KubeEdge's, whose node may go back, and a file that is no database and beside which nothing of ours lies: the name is a wrong one, and what has it is somebody
/// else's, to set aside least of all. A broken store of ours has its lock beside it, which is made first.
fn check_never_ours(path: &Path) -> Result<(), StoreError> {
    check_regular(path)?;
    if size(path)? > 0 && kubeedge::is_kubeedges(path) {
        return Err(StoreError::OfKubeEdge { path: path.to_owned() });
    }
    let is_ours = || [".lock", ".key", "-wal", ".salvage"].iter().any(|suffix| beside(path, suffix).exists());
    if size(path)? == 0 || header(path)?.is_none() || is_ours() {
        return Ok(());
    }
    Err(StoreError::NeverOurs { path: path.to_owned() })
}

/// A file that can be written.
struct WritableFile {
    conn: Connection,
    meta: Meta,
    opened: Opened,
    put_back: Option<String>,
    damaged: Vec<DamagedRow>,
    unknown: Vec<UnknownRows>,
}

impl WritableFile {
    fn found(self, node_key: Arc<NodeKey>, lock: File) -> OpenedStore {
        let WritableFile { conn, meta, opened, put_back, damaged, unknown } = self;
        OpenedStore { conn: FileAccess::Full(conn), meta, opened, put_back, damaged, unknown, node_key, lock }
    }
}

fn open_writable(path: &Path, options: &Options, node_key: &NodeKey) -> Result<WritableFile, StoreError> {
    let interrupted = quarantine::finish_interrupted(path)?;
    // Before anything is made: a key is made once a store is.
    let had_key = node_key.path().exists();
    let mut lost_commits = 0;
    let (mut conn, meta, opened, mut damaged) = match try_open(path, options)? {
        OpenAttempt::Taken(conn, meta, fresh) => {
            // What was lost on the way is known to the log of the run that was interrupted, if to anybody.
            let uncounted = vec![WHOLE_FILE];
            let opened = match interrupted {
                Some(Interrupted::Finished(aside)) => {
                    let salvaged = count(&conn, path)?;
                    Opened::Quarantined { path: aside, salvaged, lost: 0, uncounted }
                }
                Some(Interrupted::LogAlone(aside)) => {
                    Opened::Quarantined { path: aside, salvaged: 0, lost: 0, uncounted }
                }
                None if fresh && had_key => Opened::Emptied,
                None if fresh => Opened::Fresh,
                None => Opened::Clean,
            };
            (conn, meta, opened, Vec::new())
        }
        OpenAttempt::Broken(reason) => {
            tracing::error!(path = %path.display(), reason, "database is broken and is quarantined");
            let Quarantine { path: aside, salvage, commits } = quarantine::replace(path, options)?;
            lost_commits = commits;
            match try_open(path, options)? {
                OpenAttempt::Taken(conn, meta, _) => {
                    let (salvaged, lost, uncounted) = (salvage.rows, salvage.lost_rows, salvage.uncounted);
                    (conn, meta, Opened::Quarantined { path: aside, salvaged, lost, uncounted }, salvage.lost)
                }
                // A file that breaks while it is written is the disk's doing.
                OpenAttempt::Broken(reason) => {
                    let source = std::io::Error::new(ErrorKind::InvalidData, reason);
                    return Err(StoreError::file("make", path, source));
                }
            }
        }
    };
    damaged.extend(tell(path, &opened, lost_commits));
    let key = node_key.load_or_make()?;
    let findings = audit::audit(&conn, node_key).map_err(|e| StoreError::sqlite(path, e))?;
    tell_of_key(node_key, &key, &findings);
    // The next start tries again; until then they are passed over.
    if let Err(error) = audit::mend(&mut conn, node_key, &findings) {
        tracing::warn!(path = %path.display(), %error, "damaged rows stay in the database");
    }
    let unknown = findings.unknown_rows();
    damaged.extend(findings.damaged);
    // It is told, and nothing follows from it.
    let put_back = schema::take_put_back(&conn).unwrap_or_default();
    if let Some(words) = &put_back {
        tracing::warn!(path = %path.display(), "{words}");
    }
    Ok(WritableFile { conn, meta, opened, put_back, damaged, unknown })
}

/// Opens the file on a disk that takes no writes. A broken file needs a copy, and that needs a disk.
fn open_for_reading(
    path: &Path,
    options: &Options,
    node_key: &NodeKey,
) -> Result<Option<(Connection, Meta, Findings)>, StoreError> {
    let sound = || -> Option<(Connection, Meta)> {
        if size(path).ok()? == 0 || header(path).ok()?.is_some() || log_is_lost(path).ok()?.is_some() {
            return None;
        }
        let conn = connection::without_writes(path).ok()?;
        let meta = schema::check_only(&conn).ok()?;
        Some((conn, meta))
    };
    let Some((conn, meta)) = sound() else { return Ok(None) };
    if let Err(SchemaError::OtherNode(of)) = schema::check_node(&conn, options.node.as_deref()) {
        return Err(StoreError::other_node(path, of, options.node.as_deref()));
    }
    let read = || {
        node_key.load().ok()?;
        audit::audit(&conn, node_key).ok()
    };
    Ok(read().map(|findings| (conn, meta, findings)))
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

/// Says in the log how the file was found, if not well; gives what is lost and has no row that could be named. `commits`: so many
/// are known to be lost with the log.
fn tell(path: &Path, opened: &Opened, commits: u64) -> Vec<DamagedRow> {
    let lost = |table: &'static str, what: &str| DamagedRow::new(table, &[what.as_bytes()], Damage::Lost);
    match opened {
        Opened::Fresh | Opened::Clean => Vec::new(),
        Opened::Emptied => {
            tracing::error!(
                path = %path.display(),
                "database was empty or gone though this node had one: what waited in it for the cloud is lost, the rest comes from there again"
            );
            vec![lost(WHOLE_FILE, "everything in it")]
        }
        Opened::Quarantined { path: aside, salvaged, lost: rows, uncounted } if uncounted.is_empty() => {
            tracing::warn!(
                path = %aside.display(), salvaged, lost = rows,
                "database was quarantined and its readable rows carried over"
            );
            Vec::new()
        }
        Opened::Quarantined { path: aside, salvaged, lost: rows, uncounted } => {
            tracing::error!(
                path = %aside.display(), salvaged, lost = rows, uncounted = uncounted.join(", "), commits,
                "database was quarantined and its readable rows carried over; uncounted lost more, and how many is not known"
            );
            let rows = |table: &&'static str| match *table {
                LOG => DamagedRow { rows: commits.max(1), ..lost(LOG, "the last commits") },
                table => lost(WHOLE_FILE, &format!("rows of {table}; how many is not known")),
            };
            uncounted.iter().map(rows).collect()
        }
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

fn try_open(path: &Path, options: &Options) -> Result<OpenAttempt, StoreError> {
    if let Some(reason) = header(path)? {
        return Ok(OpenAttempt::Broken(reason));
    }
    if let Some(lost) = log_is_lost(path)? {
        return Ok(OpenAttempt::Broken(lost.reason));
    }
    // Made here and not by SQLite, for its mode: the file holds secrets.
    make_private(path, false)?;
    match take(path, options) {
        Ok((conn, meta, fresh)) => Ok(OpenAttempt::Taken(conn, meta, fresh)),
        Err(SchemaError::Broken(reason)) => Ok(OpenAttempt::Broken(reason)),
        Err(SchemaError::OtherNode(of)) => Err(StoreError::other_node(path, of, options.node.as_deref())),
        Err(SchemaError::Sql(error)) if is_not_ours(&error) => Ok(OpenAttempt::Broken(error.to_string())),
        Err(SchemaError::Sql(error)) => Err(StoreError::sqlite(path, error)),
    }
}

fn take(path: &Path, options: &Options) -> Result<(Connection, Meta, bool), SchemaError> {
    let mut conn = connection::writer(path, options.max_bytes)?;
    if schema::is_empty(&conn)? {
        let meta = schema::create(&mut conn, &options.incarnation, options.node.as_deref())?;
        return Ok((conn, meta, true));
    }
    let meta = schema::check(&mut conn)?;
    schema::claim(&conn, options.node.as_deref())?;
    Ok((conn, meta, false))
}

fn count(conn: &Connection, path: &Path) -> Result<u64, StoreError> {
    let sql = "SELECT (SELECT count(*) FROM objects) + (SELECT count(*) FROM module_rows) + (SELECT count(*) FROM outbox)";
    let rows: i64 = conn.query_row(sql, [], |row| row.get(0)).map_err(|e| StoreError::sqlite(path, e))?;
    Ok(u64::try_from(rows).unwrap_or(0))
}
