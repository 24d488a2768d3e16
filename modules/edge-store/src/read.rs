//! Reads: every row is held against its checksum before anyone sees it.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension};

use crate::checksum::seal;
use crate::state::{Damaged, Usage};
use crate::{Class, ObjectKey, OutboxRow, Row, StoreError, StoredObject, Table, schema};

/// Two reads at once are rare on a node; each connection costs its page cache.
const IDLE_READERS: usize = 2;

const OBJECT: &str = "SELECT resource, namespace, name, uid, resource_version, json, revision, sum FROM objects \
    WHERE resource = ?1 AND namespace = ?2 AND name = ?3";
const OBJECTS: &str = "SELECT resource, namespace, name, uid, resource_version, json, revision, sum FROM objects \
    WHERE resource = ?1 AND (?2 IS NULL OR namespace = ?2) ORDER BY namespace, name";
const ALL_OBJECTS: &str = "SELECT resource, namespace, name, uid, resource_version, json, revision, sum FROM objects \
    ORDER BY resource, namespace, name";
const ROW: &str =
    "SELECT kind, key1, key2, value, revision, sum FROM plain WHERE kind = ?1 AND key1 = ?2 AND key2 = ?3";
const ROWS: &str = "SELECT kind, key1, key2, value, revision, sum FROM plain \
    WHERE kind = ?1 AND (?2 IS NULL OR key1 = ?2) ORDER BY key1, key2";
const OUTBOX: &str = "SELECT class, key, body, revision, sum, seq FROM outbox ORDER BY seq";
const USAGE: &str = "SELECT count(*), coalesce(sum(octet_length(key) + octet_length(body)), 0) FROM outbox";

/// All of the above; a file in which one of them does not compile is not ours.
pub(crate) const STATEMENTS: &[&str] = &[OBJECT, OBJECTS, ALL_OBJECTS, ROW, ROWS, OUTBOX, USAGE];

/// A row that held, or what is wrong with it.
pub(crate) type Checked<T> = Result<T, Damaged>;

/// Connections beside the writer.
#[derive(Debug)]
pub(crate) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(crate) fn new(path: PathBuf) -> Self {
        Readers { path, idle: Mutex::new(Vec::new()) }
    }

    pub(crate) fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let fail = |e| StoreError::sqlite(&self.path, e);
        let kept = self.idle().pop();
        let conn = match kept {
            Some(conn) => conn,
            None => schema::reader(&self.path).map_err(fail)?,
        };
        let answer = read(&conn).map_err(fail)?;
        let mut idle = self.idle();
        if idle.len() < IDLE_READERS {
            idle.push(conn);
        }
        Ok(answer)
    }

    pub(crate) fn close(&self) {
        self.idle().clear();
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn object(conn: &Connection, key: &ObjectKey) -> rusqlite::Result<Option<Checked<StoredObject>>> {
    conn.prepare_cached(OBJECT)?.query_row((&key.resource, &key.namespace, &key.name), object_of).optional()
}

pub(crate) fn objects(
    conn: &Connection,
    resource: &str,
    namespace: Option<&str>,
) -> rusqlite::Result<Vec<Checked<StoredObject>>> {
    conn.prepare_cached(OBJECTS)?.query_map((resource, namespace), object_of)?.collect()
}

/// An object's key, uid and version.
type HeldVersion = (ObjectKey, String, String);

/// Keys, uids and versions. What is damaged has its key and no version, so that the cloud sends it again or has it
/// deleted.
pub(crate) fn heads(conn: &Connection) -> rusqlite::Result<(Vec<HeldVersion>, Vec<Damaged>)> {
    let mut statement = conn.prepare_cached(ALL_OBJECTS)?;
    let mut found = statement.query([])?;
    let (mut heads, mut damaged) = (Vec::new(), Vec::new());
    while let Some(row) = found.next()? {
        match object_of(row)? {
            Ok(object) => heads.push((object.key, object.uid, object.resource_version)),
            Err(row_damaged) => {
                damaged.push(row_damaged);
                if let (Some(resource), Some(namespace), Some(name)) =
                    (text(row, 0), text(row, 1), text(row, 2))
                {
                    heads.push((ObjectKey { resource, namespace, name }, String::new(), String::new()));
                }
            }
        }
    }
    Ok((heads, damaged))
}

pub(crate) fn row(
    conn: &Connection,
    table: Table,
    key1: &str,
    key2: &str,
) -> rusqlite::Result<Option<Checked<(Table, Row)>>> {
    conn.prepare_cached(ROW)?.query_row((table.as_str(), key1, key2), row_of).optional()
}

pub(crate) fn rows(
    conn: &Connection,
    table: Table,
    key1: Option<&str>,
) -> rusqlite::Result<Vec<Checked<(Table, Row)>>> {
    conn.prepare_cached(ROWS)?.query_map((table.as_str(), key1), row_of)?.collect()
}

/// The oldest rows of the outbox, and the seqs of damaged ones on the way.
#[derive(Debug, Default)]
pub(crate) struct Head {
    pub(crate) rows: Vec<OutboxRow>,
    pub(crate) damaged: Vec<(i64, Damaged)>,
}

pub(crate) fn outbox_head(
    conn: &Connection,
    limit_rows: usize,
    limit_bytes: usize,
) -> rusqlite::Result<Head> {
    let mut head = Head::default();
    let mut bytes = 0_usize;
    let mut statement = conn.prepare_cached(OUTBOX)?;
    let mut found = statement.query([])?;
    while head.rows.len() < limit_rows {
        let Some(row) = found.next()? else { break };
        match outbox_of(row)? {
            (_, Ok((out, _))) => {
                bytes = bytes.saturating_add(out.key.len() + out.body.len());
                // One row always goes, or a large one would wait for ever.
                if bytes > limit_bytes && !head.rows.is_empty() {
                    break;
                }
                head.rows.push(out);
            }
            (seq, Err(damaged)) => head.damaged.push((seq, damaged)),
        }
    }
    Ok(head)
}

pub(crate) fn usage(conn: &Connection) -> rusqlite::Result<Usage> {
    conn.query_row(USAGE, [], |row| {
        let (rows, bytes): (i64, i64) = (row.get(0)?, row.get(1)?);
        Ok(Usage { rows: u64::try_from(rows).unwrap_or(0), bytes: u64::try_from(bytes).unwrap_or(0) })
    })
}

/// An object from the first eight columns.
pub(crate) fn object_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Checked<StoredObject>> {
    let Some((columns, revision)) = sealed::<6>(row, "objects")? else {
        return Ok(Err(damaged(row, "objects", 0..3)));
    };
    let [resource, namespace, name, uid, version, json] = columns;
    let texts = [resource, namespace, name, uid, version].map(|c| String::from_utf8(c.to_vec()));
    let [Ok(resource), Ok(namespace), Ok(name), Ok(uid), Ok(resource_version)] = texts else {
        return Ok(Err(damaged(row, "objects", 0..3)));
    };
    let key = ObjectKey { resource, namespace, name };
    Ok(Ok(StoredObject { key, uid, resource_version, json: json.to_vec(), revision }))
}

/// A plain row from the first six columns.
pub(crate) fn row_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Checked<(Table, Row)>> {
    let checked = sealed::<4>(row, "plain")?.and_then(|([kind, key1, key2, value], revision)| {
        let table = Table::parse(std::str::from_utf8(kind).ok()?)?;
        let key1 = String::from_utf8(key1.to_vec()).ok()?;
        let key2 = String::from_utf8(key2.to_vec()).ok()?;
        Some((table, Row { key1, key2, value: value.to_vec(), revision }))
    });
    Ok(checked.ok_or_else(|| damaged(row, "plain", 0..3)))
}

/// A row of the outbox from the first six columns: its seq, and if it held the row and its revision.
pub(crate) fn outbox_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<(i64, Checked<(OutboxRow, u64)>)> {
    let seq = row.get(5)?;
    let checked = sealed::<3>(row, "outbox")?.and_then(|([class, key, body], revision)| {
        let class = Class::parse(std::str::from_utf8(class).ok()?)?;
        let key = String::from_utf8(key.to_vec()).ok()?;
        Some((OutboxRow { seq, class, key, body: body.to_vec() }, revision))
    });
    Ok((seq, checked.ok_or_else(|| damaged(row, "outbox", 0..2))))
}

/// `N` columns and a revision.
type Sealed<'a, const N: usize> = ([&'a [u8]; N], u64);

/// The first `N` columns and the revision after them, if the sum behind that is right.
fn sealed<'a, const N: usize>(
    row: &'a rusqlite::Row<'_>,
    table: &str,
) -> rusqlite::Result<Option<Sealed<'a, N>>> {
    let mut columns: [&[u8]; N] = [&[]; N];
    for (at, column) in columns.iter_mut().enumerate() {
        match row.get_ref(at)?.as_bytes() {
            Ok(bytes) => *column = bytes,
            Err(_) => return Ok(None),
        }
    }
    let (Ok(revision), Ok(sum)) = (row.get_ref(N)?.as_i64(), row.get_ref(N + 1)?.as_i64()) else {
        return Ok(None);
    };
    let held = seal(table, &columns, revision) == sum;
    Ok(u64::try_from(revision).ok().filter(|_| held).map(|revision| (columns, revision)))
}

fn damaged(row: &rusqlite::Row<'_>, table: &'static str, key: std::ops::Range<usize>) -> Damaged {
    let parts: Vec<String> = key
        .map(|at| {
            let bytes = row.get_ref(at).ok().and_then(|value| value.as_bytes().ok()).unwrap_or_default();
            // A damaged key may have any length; a log line may not.
            String::from_utf8_lossy(&bytes[..bytes.len().min(256)]).into_owned()
        })
        .collect();
    Damaged { table, key: parts.join("/") }
}

fn text(row: &rusqlite::Row<'_>, at: usize) -> Option<String> {
    row.get(at).ok()
}
