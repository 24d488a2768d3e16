//! How a file is opened: whatever lies there, it is data.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};

use crate::files::beside;
use crate::read::COLUMN_BYTES;

const PAGE_BYTES: u64 = 4096;
/// 1 MiB of log: then it is folded into the file.
const LOG_PAGES: i64 = 256;
/// The log's file keeps 1 MiB when it was larger.
const LOG_KEPT_BYTES: i64 = 1 << 20;

/// Every connection to a file begins here, before a byte of it is read: a file that somebody has put in the store's place
/// is data and never a program. Its triggers and views do not run, its schema calls no function that does more than
/// reckon, nobody writes past the tables, and nothing larger than a store writes is taken into memory. <https://www.sqlite.org/security.html>
fn connect(path: impl AsRef<Path>, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    for (setting, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        // No table of ours refers to another; one that somebody has planted would hold our rows fast.
        (DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false),
    ] {
        conn.set_db_config(setting, on)?;
    }
    conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, COLUMN_BYTES)?;
    Ok(conn)
}

/// The writer's connection.
pub(crate) fn writer(path: &Path, max_bytes: u64) -> rusqlite::Result<Connection> {
    let conn = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
    settings(&conn, 512)?;
    // It has an effect before the first table only; later it would write into a file that is still to be checked.
    let vacuum: i64 = conn.query_row("PRAGMA auto_vacuum", [], |row| row.get(0))?;
    if vacuum == 0 {
        conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        tracing::warn!(path = %path.display(), mode, "database is not in WAL mode");
    }
    // Until `fold_on_close`: a log that is gone is missed, so it goes with a store that notes its end, and else nobody takes it away.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    conn.pragma_update(None, "journal_size_limit", LOG_KEPT_BYTES)?;
    let pages = i64::try_from(max_bytes / PAGE_BYTES).unwrap_or(i64::MAX).clamp(1, 0xffff_fffe);
    conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
    Ok(conn)
}

/// Lets a writer's connection move the log into the file when it closes, and remove it.
pub(crate) fn fold_on_close(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map(drop)
}

/// A reader's connection.
pub(crate) fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let conn = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    settings(&conn, 256)?;
    Ok(conn)
}

/// A connection that writes nothing, not even the log's index beside the file, which readers share with the writer. So
/// it is for a file that nobody writes: the index is in its memory, and the log is not moved when it closes.
pub(crate) fn without_writes(path: &Path) -> rusqlite::Result<Connection> {
    let log = std::fs::metadata(beside(path, "-wal")).map_or(0, |meta| meta.len());
    // SQLite would make a log where there is none, and takes locks that a read-only disk does not give.
    let how = if log > 0 { "vfs=unix-none" } else { "immutable=1" };
    let conn = connect(uri(path, how), OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    settings(&conn, 512)?;
    Ok(conn)
}

/// A connection to a copy of another program's file: its log, or its journal, is folded in.
pub(crate) fn copied(path: &Path) -> rusqlite::Result<Connection> {
    let conn = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    settings(&conn, 512)?;
    Ok(conn)
}

/// A connection that may write the list of tables itself: for a copy that is nobody's only one.
pub(crate) fn repairer(path: &Path) -> rusqlite::Result<Connection> {
    let conn = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false)?;
    Ok(conn)
}

fn uri(path: &Path, how: &str) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(*byte)),
            // Writing into a string does not fail.
            byte => drop(write!(uri, "%{byte:02x}")),
        }
    }
    uri.push('?');
    uri.push_str(how);
    uri
}

fn settings(conn: &Connection, cache_kib: i64) -> rusqlite::Result<()> {
    conn.busy_timeout(Duration::from_secs(5))?;
    conn.pragma_update(None, "cache_size", -cache_kib)?;
    conn.pragma_update(None, "mmap_size", 0)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update(None, "cell_size_check", "ON")
}
