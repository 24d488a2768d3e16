//! The file's shape: how a connection is set up, the migrations, and the facts about the file itself.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use crate::checksum::sum;
use crate::files::beside;
use crate::{apply, numbers, read};

/// Version 1, and with each further step one more. Steps only add: the release before the one that wrote a file must
/// still be able to open it. So a new column has a default, and its sum is not the row's.
pub(crate) const MIGRATIONS: [&str; 1] = ["
    CREATE TABLE meta (
        key TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL, sum INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE objects (
        resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
        uid TEXT NOT NULL, content_hash TEXT NOT NULL, resource_version TEXT NOT NULL, json BLOB NOT NULL,
        revision INTEGER NOT NULL, sum INTEGER NOT NULL,
        PRIMARY KEY (resource, namespace, name)
    ) STRICT;
    CREATE TABLE module_rows (
        kind TEXT NOT NULL, key1 TEXT NOT NULL, key2 TEXT NOT NULL, value BLOB NOT NULL,
        revision INTEGER NOT NULL, sum INTEGER NOT NULL,
        PRIMARY KEY (kind, key1, key2)
    ) STRICT;
    -- When a report was queued, in seconds since 1970, is for people only: no sum covers it.
    CREATE TABLE outbox (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, class TEXT NOT NULL, key TEXT NOT NULL,
        body BLOB NOT NULL, revision INTEGER NOT NULL, sum INTEGER NOT NULL, queued INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE UNIQUE INDEX outbox_newest ON outbox (key) WHERE class = 'status';
    CREATE INDEX outbox_queue ON outbox (queue, seq);
"];

const PAGE_BYTES: u64 = 4096;
const GET_META: &str = "SELECT value, sum FROM meta WHERE key = ?1";
/// The seq after which SQLite gives the next one.
const LAST_SEQ: &str = "SELECT max(coalesce((SELECT max(seq) FROM sqlite_sequence WHERE name = 'outbox'), 0), \
    coalesce((SELECT max(seq) FROM outbox), 0))";
const PUT_META: &str = "INSERT INTO meta (key, value, sum) VALUES (?1, ?2, ?3) \
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, sum = excluded.sum";

/// What the file says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) incarnation: Vec<u8>,
    pub(crate) revision: u64,
}

/// Why a file was not taken.
#[derive(Debug)]
pub(crate) enum SchemaError {
    /// SQLite or the system said no.
    Sql(rusqlite::Error),
    /// The content is not what this store wrote.
    Broken(String),
}

impl From<rusqlite::Error> for SchemaError {
    fn from(error: rusqlite::Error) -> Self {
        SchemaError::Sql(error)
    }
}

/// The writer's connection.
pub(crate) fn writer(path: &Path, max_bytes: u64) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
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
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "wal_autocheckpoint", 256)?;
    conn.pragma_update(None, "journal_size_limit", 1 << 20)?;
    let pages = i64::try_from(max_bytes / PAGE_BYTES).unwrap_or(i64::MAX).clamp(1, 0xffff_fffe);
    conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
    Ok(conn)
}

/// A reader's connection.
pub(crate) fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    settings(&conn, 256)?;
    Ok(conn)
}

/// A connection that writes nothing, not even the log's index beside the file, which readers share with the writer. So
/// it is for a file that nobody writes: the index is in its memory, and the log is not moved when it closes.
pub(crate) fn without_writes(path: &Path) -> rusqlite::Result<Connection> {
    let log = std::fs::metadata(beside(path, "-wal")).map_or(0, |meta| meta.len());
    // SQLite would make a log where there is none, and takes locks that a read-only disk does not give.
    let how = if log > 0 { "vfs=unix-none" } else { "immutable=1" };
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(uri(path, how), flags)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    settings(&conn, 512)?;
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
    conn.pragma_update(None, "trusted_schema", "OFF")?;
    conn.pragma_update(None, "cell_size_check", "ON")
}

/// Brings an empty file to the newest shape.
pub(crate) fn create(conn: &mut Connection, incarnation: &[u8]) -> rusqlite::Result<Meta> {
    let tx = conn.transaction()?;
    migrate(&tx, &MIGRATIONS, 0)?;
    put_meta(&tx, "incarnation", incarnation)?;
    put_revision(&tx, 0)?;
    tx.commit()?;
    Ok(Meta { incarnation: incarnation.to_vec(), revision: 0 })
}

/// `true` for a file in which nothing was ever committed.
pub(crate) fn is_empty(conn: &Connection) -> rusqlite::Result<bool> {
    Ok(version(conn)? == 0
        && conn.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))?)
}

/// Checks a file that has been in use, and brings it to the newest shape.
pub(crate) fn check(conn: &mut Connection) -> Result<Meta, SchemaError> {
    check_as(conn, &MIGRATIONS)
}

/// [`check`] by a release that has these migrations.
fn check_as(conn: &mut Connection, migrations: &[&str]) -> Result<Meta, SchemaError> {
    integrity(conn)?;
    let done = noted_version(conn)?;
    // A file of a newer release has seen more of them, and stays as it is.
    if done < migrations.len() {
        let tx = conn.transaction()?;
        migrate(&tx, migrations, done)?;
        tx.commit()?;
    }
    for statement in apply::STATEMENTS.iter().chain(read::STATEMENTS).chain(&[GET_META, PUT_META]) {
        conn.prepare(statement)?;
    }
    meta(conn)
}

/// [`check`] for a file that cannot be written: it stays in its shape.
pub(crate) fn check_only(conn: &Connection) -> Result<Meta, SchemaError> {
    integrity(conn)?;
    readable(conn)
}

/// Whether the file has the shape of a store, without reading all of it.
pub(crate) fn readable(conn: &Connection) -> Result<Meta, SchemaError> {
    noted_version(conn)?;
    for statement in read::STATEMENTS {
        conn.prepare(statement)?;
    }
    meta(conn)
}

fn integrity(conn: &Connection) -> Result<(), SchemaError> {
    // The full check, not quick_check: only it compares each index with its table, and a wrong index hides good rows.
    let verdict: String = conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" { Ok(()) } else { Err(SchemaError::Broken(verdict)) }
}

/// How many migrations the file has seen.
fn noted_version(conn: &Connection) -> Result<usize, SchemaError> {
    let version = version(conn)?;
    // Noted twice, because one changed bit of it would skip or repeat a migration.
    let noted = get_meta(conn, "version")?;
    if noted != version.to_le_bytes() || version < 1 {
        return Err(SchemaError::Broken(format!(
            "user_version {version} is not the version that was written"
        )));
    }
    Ok(usize::try_from(version).unwrap_or(usize::MAX))
}

fn meta(conn: &Connection) -> Result<Meta, SchemaError> {
    let revision = get_meta(conn, "revision")?;
    let revision = <[u8; 8]>::try_from(revision.as_slice()).map(u64::from_le_bytes);
    let Ok(revision) = revision else {
        return Err(SchemaError::Broken("the revision is no number".to_owned()));
    };
    if !i64::try_from(revision).is_ok_and(numbers::is_possible) {
        return Err(SchemaError::Broken(format!(
            "the revision {revision} is none that a store has counted to"
        )));
    }
    let seq: i64 = conn.query_row(LAST_SEQ, [], |row| row.get(0))?;
    if !numbers::is_possible(seq) {
        return Err(SchemaError::Broken(format!("the outbox has counted to {seq}, which no store has")));
    }
    Ok(Meta { incarnation: get_meta(conn, "incarnation")?, revision })
}

pub(crate) fn put_revision(conn: &Connection, revision: u64) -> rusqlite::Result<()> {
    put_meta(conn, "revision", &revision.to_le_bytes())
}

fn migrate(conn: &Connection, migrations: &[&str], done: usize) -> rusqlite::Result<()> {
    for step in migrations.iter().skip(done) {
        conn.execute_batch(step)?;
    }
    let version = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    conn.pragma_update(None, "user_version", version)?;
    put_meta(conn, "version", &version.to_le_bytes())
}

fn version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.query_row("PRAGMA user_version", [], |row| row.get(0))
}

fn put_meta(conn: &Connection, key: &str, value: &[u8]) -> rusqlite::Result<()> {
    let sum = sum("meta", &[key.as_bytes(), value], 0);
    conn.prepare_cached(PUT_META)?.execute((key, value, sum)).map(drop)
}

fn get_meta(conn: &Connection, key: &str) -> Result<Vec<u8>, SchemaError> {
    let found: Option<(Vec<u8>, i64)> =
        conn.query_row(GET_META, [key], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    match found {
        Some((value, found)) if found == sum("meta", &[key.as_bytes(), &value], 0) => Ok(value),
        Some(_) => Err(SchemaError::Broken(format!("the checksum of {key} is wrong"))),
        None => Err(SchemaError::Broken(format!("{key} is missing"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A release to come: a column, a table and an index more.
    const NEXT: [&str; 2] = [
        MIGRATIONS[0],
        "ALTER TABLE objects ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
         CREATE TABLE leases (name TEXT NOT NULL PRIMARY KEY, ends INTEGER NOT NULL) STRICT;
         CREATE INDEX objects_uid ON objects (uid);",
    ];

    fn columns(conn: &Connection, table: &str) -> Vec<String> {
        let mut statement = conn.prepare("SELECT name FROM pragma_table_info(?1)").unwrap();
        let names = statement.query_map([table], |row| row.get(0)).unwrap();
        names.map(Result::unwrap).collect()
    }

    #[test]
    fn the_next_release_brings_a_file_to_its_shape_once_and_this_one_still_opens_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let mut conn = writer(&path, 1 << 20).unwrap();
        assert!(is_empty(&conn).unwrap());
        let made = create(&mut conn, &[3; 16]).unwrap();
        conn.execute("INSERT INTO objects VALUES ('pods', 'd', 'a', 'u', 'h', '7', x'00', 0, 0)", [])
            .unwrap();
        assert_eq!((check(&mut conn).unwrap(), version(&conn).unwrap()), (made.clone(), 1));

        for _ in 0..2 {
            assert_eq!(check_as(&mut conn, &NEXT).unwrap(), made);
            assert_eq!(version(&conn).unwrap(), 2);
        }
        assert_eq!(columns(&conn, "leases"), ["name", "ends"]);
        let priority: i64 = conn.query_row("SELECT priority FROM objects", [], |row| row.get(0)).unwrap();
        assert_eq!(priority, 0, "the row that was there has the default");

        // Rolled back: the file keeps its version and its new column, and every statement of ours fits.
        assert_eq!(check(&mut conn).unwrap(), made);
        assert_eq!(
            (version(&conn).unwrap(), columns(&conn, "objects").contains(&"priority".to_owned())),
            (2, true)
        );
        assert_eq!(check_as(&mut conn, &NEXT).unwrap(), made);
    }

    #[test]
    fn a_migration_that_fails_leaves_the_file_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let mut conn = writer(&dir.path().join("db"), 1 << 20).unwrap();
        create(&mut conn, &[3; 16]).unwrap();
        let broken =
            [MIGRATIONS[0], "CREATE TABLE leases (name TEXT) STRICT; ALTER TABLE nothing ADD COLUMN x TEXT;"];
        assert!(matches!(check_as(&mut conn, &broken), Err(SchemaError::Sql(_))));
        assert_eq!((version(&conn).unwrap(), columns(&conn, "leases").len()), (1, 0));
        check(&mut conn).unwrap();
    }
}
