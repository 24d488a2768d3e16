//! The file's shape: the migrations, what no store has, and the facts about the file itself.

use rusqlite::{Connection, OptionalExtension};

use crate::checksum::sum;
use crate::{apply, foreign, numbers, read};

/// Version 1, and with each further step one more. Steps only add: the release before the one that wrote a file must
/// still be able to open it. So a new column has a default that is a word or a number, and its sum is not the row's; a new index of
/// a table that was there is not unique and has neither `WHERE` nor expressions, and no `CHECK` is new there: what runs by itself
/// or refuses rows is no store's ([`foreign`]).
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

const GET_META: &str = "SELECT value, sum FROM meta WHERE key = ?1";
/// The seq after which SQLite gives the next one.
const LAST_SEQ: &str = "SELECT max(coalesce((SELECT max(seq) FROM sqlite_sequence WHERE name = 'outbox'), 0), \
    coalesce((SELECT max(seq) FROM outbox), 0))";
/// Under this key of `meta` the name of the node that the store is of. Files from before it was noted have none.
const NODE: &str = "node";
/// Under this key, while the store is open, the revision, a second time: a release that does not know it leaves it behind, and so
/// it says nothing any more. Nothing once the store was closed.
const RUNNING: &str = "running";
/// Under this key what the next start has to tell of the files that a run put back; nothing, or no such key: nothing.
const PUT_BACK: &str = "put-back";
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
    /// It is the store of this other node.
    OtherNode(String),
}

impl From<rusqlite::Error> for SchemaError {
    fn from(error: rusqlite::Error) -> Self {
        SchemaError::Sql(error)
    }
}

/// Brings an empty file to the newest shape, as the store of `node`.
pub(crate) fn create(
    conn: &mut Connection,
    incarnation: &[u8],
    node: Option<&str>,
) -> rusqlite::Result<Meta> {
    let tx = conn.transaction()?;
    migrate(&tx, &MIGRATIONS, 0)?;
    put_meta(&tx, "incarnation", incarnation)?;
    if let Some(node) = node {
        put_meta(&tx, NODE, node.as_bytes())?;
    }
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

/// Refuses the store of another node than `node`. A file that names none is anybody's.
pub(crate) fn check_node(conn: &Connection, node: Option<&str>) -> Result<(), SchemaError> {
    match (node, noted_node(conn)?) {
        (Some(node), Some(noted)) if noted != node => Err(SchemaError::OtherNode(noted)),
        _ => Ok(()),
    }
}

/// [`check_node`], and notes the name in a file that has none.
pub(crate) fn claim(conn: &Connection, node: Option<&str>) -> Result<(), SchemaError> {
    check_node(conn, node)?;
    if let (Some(node), None) = (node, noted_node(conn)?) {
        put_meta(conn, NODE, node.as_bytes())?;
    }
    Ok(())
}

/// The node that the file is of, if it names one.
pub(crate) fn noted_node(conn: &Connection) -> Result<Option<String>, SchemaError> {
    let Some(name) = find_meta(conn, NODE)? else { return Ok(None) };
    let not_text = |_| SchemaError::Broken("the node's name is no text".to_owned());
    String::from_utf8(name).map(Some).map_err(not_text)
}

/// Whether the file has the shape of a store, without reading all of it.
pub(crate) fn readable(conn: &Connection) -> Result<Meta, SchemaError> {
    check_foreign(conn)?;
    noted_version(conn)?;
    for statement in read::STATEMENTS {
        conn.prepare(statement)?;
    }
    meta(conn)
}

/// Refuses what no store has, before anything of the file is asked that could run it.
fn check_foreign(conn: &Connection) -> Result<(), SchemaError> {
    let found = match foreign::program(conn)? {
        None => foreign::refusal(conn, &MIGRATIONS)?,
        program => program,
    };
    found.map_or(Ok(()), |what| Err(SchemaError::Broken(format!("it holds what no store has: {what}"))))
}

fn integrity(conn: &Connection) -> Result<(), SchemaError> {
    check_foreign(conn)?;
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

/// Notes a commit in it.
pub(crate) fn put_commit(conn: &Connection, revision: u64) -> rusqlite::Result<()> {
    put_revision(conn, revision)?;
    put_meta(conn, RUNNING, &revision.to_le_bytes())
}

/// Notes in the file itself, past its log, that the store is open: from now on it has a log.
pub(crate) fn note_running(conn: &Connection, revision: u64) -> rusqlite::Result<()> {
    put_meta(conn, RUNNING, &revision.to_le_bytes())?;
    conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

/// Notes that the store is about to be closed, and its log folded into it.
pub(crate) fn note_end(conn: &Connection) -> rusqlite::Result<()> {
    put_meta(conn, RUNNING, &[])
}

/// Notes for the next start what happened to the files of this one.
pub(crate) fn note_put_back(conn: &Connection, words: &str) -> rusqlite::Result<()> {
    put_meta(conn, PUT_BACK, words.as_bytes())
}

/// What was noted, once.
pub(crate) fn take_put_back(conn: &Connection) -> Result<Option<String>, SchemaError> {
    let Some(words) = find_meta(conn, PUT_BACK)?.filter(|words| !words.is_empty()) else { return Ok(None) };
    put_meta(conn, PUT_BACK, &[])?;
    // Ours, or anything at all where somebody wrote into the file.
    let words = String::from_utf8_lossy(&words);
    Ok(Some(words.chars().take(1024).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()))
}

/// The file counts as another one from now on.
pub(crate) fn put_incarnation(conn: &Connection, incarnation: &[u8]) -> rusqlite::Result<()> {
    put_meta(conn, "incarnation", incarnation)
}

/// Whether the file was last written by a store that was not closed.
pub(crate) fn is_running(conn: &Connection) -> Result<bool, SchemaError> {
    let running = find_meta(conn, RUNNING)?.filter(|running| !running.is_empty());
    Ok(running.is_some() && running == find_meta(conn, "revision")?)
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
    find_meta(conn, key)?.ok_or_else(|| SchemaError::Broken(format!("{key} is missing")))
}

fn find_meta(conn: &Connection, key: &str) -> Result<Option<Vec<u8>>, SchemaError> {
    let found: Option<(Vec<u8>, i64)> =
        conn.query_row(GET_META, [key], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    match found {
        Some((value, found)) if found == sum("meta", &[key.as_bytes(), &value], 0) => Ok(Some(value)),
        Some(_) => Err(SchemaError::Broken(format!("the checksum of {key} is wrong"))),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{reader, repairer, without_writes, writer};

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
        let made = create(&mut conn, &[3; 16], None).unwrap();
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
        create(&mut conn, &[3; 16], None).unwrap();
        let broken =
            [MIGRATIONS[0], "CREATE TABLE leases (name TEXT) STRICT; ALTER TABLE nothing ADD COLUMN x TEXT;"];
        assert!(matches!(check_as(&mut conn, &broken), Err(SchemaError::Sql(_))));
        assert_eq!((version(&conn).unwrap(), columns(&conn, "leases").len()), (1, 0));
        check(&mut conn).unwrap();
    }

    #[test]
    fn a_file_is_one_nodes_once_it_has_been_opened_for_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut conn = writer(&dir.path().join("db"), 1 << 20).unwrap();
        create(&mut conn, &[3; 16], None).unwrap();
        check_node(&conn, Some("edge-1")).unwrap();
        claim(&conn, None).unwrap();
        claim(&conn, Some("edge-1")).unwrap();
        claim(&conn, Some("edge-1")).unwrap();
        for refused in [check_node(&conn, Some("edge-2")), claim(&conn, Some("edge-2"))] {
            assert!(matches!(&refused, Err(SchemaError::OtherNode(of)) if of == "edge-1"), "{refused:?}");
        }
        claim(&conn, None).unwrap();
    }

    /// What a file does that somebody has put in the store's place.
    const PLANTED: &str = "CREATE TRIGGER steal AFTER INSERT ON outbox BEGIN DELETE FROM module_rows; END;
         CREATE VIEW peek AS SELECT * FROM objects;";

    #[test]
    fn what_is_planted_in_a_file_does_not_run_on_any_connection() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let mut conn = writer(&path, 1 << 20).unwrap();
        create(&mut conn, &[3; 16], None).unwrap();
        conn.execute("INSERT INTO module_rows VALUES ('twins', 'd', 'a', x'00', 0, 0)", []).unwrap();
        drop(conn);
        Connection::open(&path).unwrap().execute_batch(PLANTED).unwrap();
        let report = "INSERT INTO outbox (queue, class, key, body, revision, sum) VALUES ('node', 'event', 'k', x'', 0, 0)";
        let count = |conn: &Connection, table: &str| -> i64 {
            conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
        };

        let conn = writer(&path, 1 << 20).unwrap();
        conn.execute(report, []).unwrap();
        assert_eq!((count(&conn, "outbox"), count(&conn, "module_rows")), (1, 1));
        for conn in [&conn, &reader(&path).unwrap(), &repairer(&path).unwrap()] {
            let seen = conn.prepare("SELECT * FROM peek").unwrap_err().to_string();
            assert!(seen.contains("prohibited"), "{seen}");
        }
        conn.execute_batch("PRAGMA writable_schema = ON").unwrap();
        assert!(
            conn.execute("UPDATE sqlite_schema SET sql = 'x'", []).is_err(),
            "nobody writes past the tables"
        );
        drop(conn);
        let mut conn = without_writes(&path).unwrap();
        assert!(conn.prepare("SELECT * FROM peek").is_err());
        for refused in [check_only(&conn), readable(&conn), check(&mut conn)] {
            let Err(SchemaError::Broken(reason)) = refused else { panic!("{refused:?}") };
            assert!(reason.contains("CREATE TRIGGER steal"), "{reason}");
        }
        drop(conn);
        // Nothing of the above is SQLite's own doing.
        let conn = Connection::open(&path).unwrap();
        conn.execute(report, []).unwrap();
        assert_eq!((count(&conn, "module_rows"), count(&conn, "peek")), (0, 0));
    }
}
