//! The file: two tables.

use std::collections::BTreeMap;
use std::path::Path;

use apimachinery::ObjectKey;
use bytes::Bytes;
use kubeapi::{Change, Item};
use rusqlite::{Connection, Row, params};

/// `synchronous=FULL`: with a write-ahead log only this survives a power cut after the answer.
pub(super) fn open(path: &Path) -> Result<Connection, rusqlite::Error> {
    let conn = Connection::open(path)?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.execute_batch(
        "CREATE TABLE IF NOT EXISTS objects (
             resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
             revision INTEGER NOT NULL, json BLOB NOT NULL,
             PRIMARY KEY (resource, namespace, name)) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS revision (only_row INTEGER PRIMARY KEY CHECK (only_row = 0), last INTEGER NOT NULL);
         INSERT OR IGNORE INTO revision VALUES (0, 0);",
    )?;
    Ok(conn)
}

/// Everything that is there, and the last revision. One that this API cannot have counted to ([`POSSIBLE`]) is out of range.
pub(super) fn read(conn: &Connection) -> Result<(BTreeMap<ObjectKey, Item>, u64), rusqlite::Error> {
    let mut query = conn.prepare("SELECT resource, namespace, name, revision, json FROM objects")?;
    let rows = query.query_map([], |row| {
        let key = ObjectKey { resource: row.get(0)?, namespace: row.get(1)?, name: row.get(2)? };
        // Text or bytes; whatever else somebody put there is no JSON either, and is named when it is read.
        let json = row.get_ref(4)?.as_bytes().map(<[u8]>::to_vec).unwrap_or_default();
        Ok((key.clone(), Item { key, revision: revision(row, 3)?, json: Bytes::from(json) }))
    })?;
    let items: Result<BTreeMap<ObjectKey, Item>, _> = rows.collect();
    let last = conn.query_row("SELECT last FROM revision", [], |row| revision(row, 0))?;
    Ok((items?, last))
}

/// 2^62: a million writes a second come there in 146,000 years. SQLite's integers end at twice of it.
const POSSIBLE: u64 = 1 << 62;

/// The revision in a column.
fn revision(row: &Row<'_>, column: usize) -> Result<u64, rusqlite::Error> {
    let stored: i64 = row.get(column)?;
    let revision = u64::try_from(stored).ok().filter(|revision| *revision <= POSSIBLE);
    revision.ok_or(rusqlite::Error::IntegralValueOutOfRange(column, stored))
}

/// The revision after `revision`; `None`: SQLite has no such number.
pub(super) fn next(revision: u64) -> Option<u64> {
    revision.checked_add(1).filter(|next| i64::try_from(*next).is_ok())
}

fn signed(revision: u64) -> Result<i64, rusqlite::Error> {
    i64::try_from(revision).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// Writes changes as one transaction.
pub(super) fn commit(conn: &mut Connection, changes: &[Change]) -> Result<(), rusqlite::Error> {
    let transaction = conn.transaction()?;
    for change in changes {
        let ObjectKey { resource, namespace, name } = &change.key;
        match &change.after {
            Some(json) => transaction
                .prepare_cached("INSERT OR REPLACE INTO objects VALUES (?1, ?2, ?3, ?4, ?5)")?
                .execute(params![resource, namespace, name, signed(change.revision)?, &json[..]])?,
            None => transaction
                .prepare_cached("DELETE FROM objects WHERE resource = ?1 AND namespace = ?2 AND name = ?3")?
                .execute(params![resource, namespace, name])?,
        };
    }
    if let Some(last) = changes.last() {
        transaction
            .prepare_cached("UPDATE revision SET last = ?1")?
            .execute(params![signed(last.revision)?])?;
    }
    transaction.commit()
}
