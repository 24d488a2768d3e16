//! Reads: every row is held against its checksum before anyone sees it.

use rusqlite::{Connection, OptionalExtension};

use crate::checksum::{bound_to, sealed_sum, sum};
use crate::state::{Damaged, Harm, Usage};
use crate::vault::Vault;
use crate::{Class, ObjectKey, OutboxRow, Queue, Row, StoredObject, Table};

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
pub(crate) const QUEUE: &str = "SELECT class, key, body, revision, sum, seq FROM outbox WHERE \
    CASE WHEN class = 'telemetry' THEN 2 WHEN key GLOB 'twin/*' OR key GLOB 'state/*' THEN 1 ELSE 0 END = ?1 \
    ORDER BY seq";
pub(crate) const WAITING: &str = "SELECT count(*) FROM outbox WHERE \
    CASE WHEN class = 'telemetry' THEN 2 WHEN key GLOB 'twin/*' OR key GLOB 'state/*' THEN 1 ELSE 0 END = ?1";
const USAGE: &str = "SELECT count(*), coalesce(sum(octet_length(key) + octet_length(body)), 0) FROM outbox";

/// All of the above; a file in which one of them does not compile is not ours.
pub(crate) const STATEMENTS: &[&str] =
    &[OBJECT, OBJECTS, ALL_OBJECTS, ROW, ROWS, OUTBOX, QUEUE, WAITING, USAGE];

/// A row that held, or what is wrong with it.
pub(crate) type Checked<T> = Result<T, Damaged>;

pub(crate) fn object(
    conn: &Connection,
    vault: &Vault,
    key: &ObjectKey,
) -> rusqlite::Result<Option<Checked<StoredObject>>> {
    let by = (&key.resource, &key.namespace, &key.name);
    conn.prepare_cached(OBJECT)?.query_row(by, |row| object_of(row, vault)).optional()
}

pub(crate) fn objects(
    conn: &Connection,
    vault: &Vault,
    resource: &str,
    namespace: Option<&str>,
) -> rusqlite::Result<Vec<Checked<StoredObject>>> {
    conn.prepare_cached(OBJECTS)?.query_map((resource, namespace), |row| object_of(row, vault))?.collect()
}

/// An object's key, uid and version.
type HeldVersion = (ObjectKey, String, String);

/// Keys, uids and versions. What is damaged has its key and no version, so that the cloud sends it again or has it
/// deleted.
pub(crate) fn heads(conn: &Connection, vault: &Vault) -> rusqlite::Result<(Vec<HeldVersion>, Vec<Damaged>)> {
    let mut statement = conn.prepare_cached(ALL_OBJECTS)?;
    let mut found = statement.query([])?;
    let (mut heads, mut damaged) = (Vec::new(), Vec::new());
    while let Some(row) = found.next()? {
        match object_of(row, vault)? {
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
    vault: &Vault,
    table: Table,
    key1: &str,
    key2: &str,
) -> rusqlite::Result<Option<Checked<(Table, Row)>>> {
    let by = (table.as_str(), key1, key2);
    conn.prepare_cached(ROW)?.query_row(by, |row| row_of(row, vault)).optional()
}

pub(crate) fn rows(
    conn: &Connection,
    vault: &Vault,
    table: Table,
    key1: Option<&str>,
) -> rusqlite::Result<Vec<Checked<(Table, Row)>>> {
    conn.prepare_cached(ROWS)?.query_map((table.as_str(), key1), |row| row_of(row, vault))?.collect()
}

/// The oldest rows of the outbox, and the seqs of damaged ones on the way.
#[derive(Debug, Default)]
pub(crate) struct Head {
    pub(crate) rows: Vec<OutboxRow>,
    pub(crate) damaged: Vec<(i64, Damaged)>,
}

/// The head of one queue, or of all.
pub(crate) fn outbox_head(
    conn: &Connection,
    queue: Option<Queue>,
    limit_rows: usize,
    limit_bytes: usize,
) -> rusqlite::Result<Head> {
    let mut head = Head::default();
    let mut bytes = 0_usize;
    let mut statement = conn.prepare_cached(if queue.is_some() { QUEUE } else { OUTBOX })?;
    let mut found = match queue {
        Some(queue) => statement.query([queue.number()])?,
        None => statement.query([])?,
    };
    while head.rows.len() < limit_rows {
        let Some(row) = found.next()? else { break };
        match outbox_of(row)? {
            (_, Ok(out)) => {
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

/// How many rows of a queue wait.
pub(crate) fn waiting(conn: &Connection, queue: Queue) -> rusqlite::Result<u64> {
    let count: i64 = conn.prepare_cached(WAITING)?.query_row([queue.number()], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

pub(crate) fn usage(conn: &Connection) -> rusqlite::Result<Usage> {
    conn.query_row(USAGE, [], |row| {
        let (rows, bytes): (i64, i64) = (row.get(0)?, row.get(1)?);
        Ok(Usage { rows: u64::try_from(rows).unwrap_or(0), bytes: u64::try_from(bytes).unwrap_or(0) })
    })
}

/// An object from the first eight columns.
pub(crate) fn object_of(row: &rusqlite::Row<'_>, vault: &Vault) -> rusqlite::Result<Checked<StoredObject>> {
    let held = match held::<6>(row, OBJECTS_TABLE)? {
        Ok(held) => held,
        Err(damaged) => return Ok(Err(damaged)),
    };
    let [resource, namespace, name, uid, version, _] = held.columns;
    let texts = [resource, namespace, name, uid, version].map(|c| String::from_utf8(c.to_vec()));
    let [Ok(resource), Ok(namespace), Ok(name), Ok(uid), Ok(resource_version)] = texts else {
        return Ok(Err(held.damaged(Harm::Checksum)));
    };
    let key = ObjectKey { resource, namespace, name };
    let Some(json) = held.value(vault) else { return Ok(Err(held.damaged(Harm::Sealed))) };
    Ok(Ok(StoredObject { key, uid, resource_version, json, revision: held.stamp() }))
}

/// A plain row from the first six columns.
pub(crate) fn row_of(row: &rusqlite::Row<'_>, vault: &Vault) -> rusqlite::Result<Checked<(Table, Row)>> {
    let held = match held::<4>(row, ROWS_TABLE)? {
        Ok(held) => held,
        Err(damaged) => return Ok(Err(damaged)),
    };
    let [kind, key1, key2, _] = held.columns.map(|c| std::str::from_utf8(c).ok());
    let (Some(table), Some(key1), Some(key2)) = (kind.and_then(Table::parse), key1, key2) else {
        return Ok(Err(held.damaged(Harm::Checksum)));
    };
    let Some(value) = held.value(vault) else { return Ok(Err(held.damaged(Harm::Sealed))) };
    let (key1, key2) = (key1.to_owned(), key2.to_owned());
    Ok(Ok((table, Row { key1, key2, value, revision: held.stamp() })))
}

/// A row of the outbox from the first six columns: its seq, and if it held the row.
pub(crate) fn outbox_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<(i64, Checked<OutboxRow>)> {
    let seq = row.get(5)?;
    let held = match held::<3>(row, OUTBOX_TABLE)? {
        Ok(held) => held,
        Err(damaged) => return Ok((seq, Err(damaged))),
    };
    let [class, key, body] = held.columns;
    let class = std::str::from_utf8(class).ok().and_then(Class::parse);
    let (Some(class), Ok(key)) = (class, std::str::from_utf8(key)) else {
        return Ok((seq, Err(held.damaged(Harm::Checksum))));
    };
    Ok((seq, Ok(OutboxRow { seq, class, key: key.to_owned(), body: body.to_vec() })))
}

/// The tables as they stand in the file, in sums and in [`Damaged`].
pub(crate) const OBJECTS_TABLE: &str = "objects";
pub(crate) const ROWS_TABLE: &str = "plain";
pub(crate) const OUTBOX_TABLE: &str = "outbox";

/// A row whose sum is right: its columns, of which the last is the value.
pub(crate) struct Held<'a, const N: usize> {
    table: &'static str,
    pub(crate) columns: [&'a [u8]; N],
    pub(crate) revision: i64,
    pub(crate) sealed: bool,
}

impl<const N: usize> Held<'_, N> {
    /// The value; `None` if the vault does not open it.
    pub(crate) fn value(&self, vault: &Vault) -> Option<Vec<u8>> {
        let (value, rest) = self.columns.split_last()?;
        if self.sealed {
            vault.open(&bound_to(self.table, rest, self.revision), value)
        } else {
            Some(value.to_vec())
        }
    }

    pub(crate) fn damaged(&self, harm: Harm) -> Damaged {
        Damaged::new(self.table, &self.columns[..key_width(self.table)], harm)
    }

    /// The revision as the handle knows it.
    pub(crate) fn stamp(&self) -> u64 {
        u64::try_from(self.revision).unwrap_or(0)
    }
}

/// How many columns the key has.
fn key_width(table: &str) -> usize {
    if table == OUTBOX_TABLE { 2 } else { 3 }
}

/// The first `N` columns and the revision after them, if the sum behind that is right.
pub(crate) fn held<'a, const N: usize>(
    row: &'a rusqlite::Row<'_>,
    table: &'static str,
) -> rusqlite::Result<Checked<Held<'a, N>>> {
    let mut columns: [&[u8]; N] = [&[]; N];
    let mut whole = true;
    for (at, column) in columns.iter_mut().enumerate() {
        match row.get_ref(at)?.as_bytes() {
            Ok(bytes) => *column = bytes,
            Err(_) => whole = false,
        }
    }
    let damaged = || Damaged::new(table, &columns[..key_width(table)], Harm::Checksum);
    let (Ok(revision), Ok(found)) = (row.get_ref(N)?.as_i64(), row.get_ref(N + 1)?.as_i64()) else {
        return Ok(Err(damaged()));
    };
    let sealed = match found {
        found if found == sum(table, &columns, revision) => false,
        found if found == sealed_sum(table, &columns, revision) => true,
        _ => return Ok(Err(damaged())),
    };
    if !whole || revision < 0 {
        return Ok(Err(damaged()));
    }
    Ok(Ok(Held { table, columns, revision, sealed }))
}

fn text(row: &rusqlite::Row<'_>, at: usize) -> Option<String> {
    row.get(at).ok()
}
