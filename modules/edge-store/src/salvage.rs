//! Carries what can still be read out of a broken file.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, OpenFlags};

use crate::error::is_not_ours;
use crate::layout::{
    MODULE_ROW_SUMMED, OBJECT_SUMMED, OBJECTS_TABLE, OUTBOX_SUMMED, OUTBOX_TABLE, ROWS_TABLE,
};
use crate::state::{Damage, DamagedRow};
use crate::{numbers, read, schema};

/// A broken tree may lead in circles; a node's file never has this many rows.
const STEPS: usize = 1_000_000;

/// So many lost rows are named.
const NAMED: usize = 4096;

struct Source {
    columns: &'static str,
    table: &'static str,
    insert: &'static str,
    /// The row's revision, if its sum is right. What is sealed is carried over as it is: the key may come back.
    check: fn(&rusqlite::Row<'_>) -> rusqlite::Result<read::Checked<u64>>,
    width: usize,
    /// An index that holds the keys a second time, and the keys in it that the copy does not have.
    keys: &'static str,
    is_carried: &'static str,
}

const SOURCES: [Source; 3] = [
    Source {
        columns: "resource, namespace, name, uid, content_hash, resource_version, json, revision, sum",
        table: OBJECTS_TABLE,
        insert: "INSERT OR IGNORE INTO objects \
                 (resource, namespace, name, uid, content_hash, resource_version, json, revision, sum) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        check: |row| {
            let intact = read::intact::<OBJECT_SUMMED>(row, OBJECTS_TABLE)?;
            Ok(intact.map(|intact| intact.stamp()))
        },
        width: 9,
        keys: "SELECT resource, namespace, name FROM objects INDEXED BY sqlite_autoindex_objects_1",
        is_carried: "SELECT 1 FROM objects WHERE resource = ?1 AND namespace = ?2 AND name = ?3",
    },
    Source {
        columns: "kind, key1, key2, value, revision, sum",
        table: ROWS_TABLE,
        insert: "INSERT OR IGNORE INTO module_rows (kind, key1, key2, value, revision, sum) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        check: |row| {
            let intact = read::intact::<MODULE_ROW_SUMMED>(row, ROWS_TABLE)?;
            Ok(intact.map(|intact| intact.stamp()))
        },
        width: 6,
        keys: "SELECT kind, key1, key2 FROM module_rows INDEXED BY sqlite_autoindex_module_rows_1",
        is_carried: "SELECT 1 FROM module_rows WHERE kind = ?1 AND key1 = ?2 AND key2 = ?3",
    },
    // With their seqs: the new file must not use one of them again.
    Source {
        columns: "queue, class, key, body, revision, sum, seq, queued",
        table: OUTBOX_TABLE,
        insert: "INSERT OR IGNORE INTO outbox (queue, class, key, body, revision, sum, seq, queued) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        check: |row| {
            let intact = read::intact::<OUTBOX_SUMMED>(row, OUTBOX_TABLE)?;
            Ok(intact.map(|intact| intact.stamp()))
        },
        width: 8,
        // The index of the newest has no queue.
        keys: "SELECT '?', 'status', key FROM outbox INDEXED BY outbox_newest WHERE class = 'status'",
        is_carried: "SELECT 1 FROM outbox WHERE ?1 = '?' AND class = ?2 AND key = ?3",
    },
];

/// What came out of a broken file.
#[derive(Debug, Default)]
pub(crate) struct Salvage {
    /// Rows carried over.
    pub(crate) rows: u64,
    /// The newest revision among them.
    pub(crate) newest: u64,
    /// Rows that are known to have been there.
    pub(crate) lost: Vec<DamagedRow>,
}

/// Copies the sound rows of `from` into the fresh `into`, and leaves `into` at the newest revision found. An error is
/// the new file's; what is wrong with the old one only ends the reading.
pub(crate) fn salvage(from: &Path, into: &mut Connection) -> rusqlite::Result<Salvage> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut found = Salvage::default();
    let Ok(broken) = Connection::open_with_flags(from, flags) else {
        return Ok(found);
    };
    let tx = into.transaction()?;
    for source in &SOURCES {
        let mut seen = BTreeSet::new();
        // A scan ends at the first page that cannot be read; from the other end it reaches what lies behind.
        for direction in ["ASC", "DESC"] {
            scan(&broken, &tx, source, direction, &mut seen, &mut found)?;
        }
        missing(&broken, &tx, source, &mut found.lost)?;
    }
    schema::put_revision(&tx, found.newest)?;
    tx.commit()?;
    Ok(found)
}

fn scan(
    broken: &Connection,
    into: &Connection,
    source: &Source,
    direction: &str,
    seen: &mut BTreeSet<i64>,
    salvage: &mut Salvage,
) -> rusqlite::Result<()> {
    let Source { columns, table, insert, check, width, .. } = source;
    let mut insert = into.prepare_cached(insert)?;
    // NOT INDEXED: an index may be what is broken.
    let sql = format!("SELECT {columns}, rowid FROM {table} NOT INDEXED ORDER BY rowid {direction}");
    let Ok(mut statement) = broken.prepare(&sql) else { return Ok(()) };
    let Ok(mut found) = statement.query([]) else { return Ok(()) };
    for _ in 0..STEPS {
        let Ok(Some(row)) = found.next() else { break };
        let Ok(rowid) = row.get(*width) else { continue };
        if !seen.insert(rowid) {
            continue;
        }
        let revision = match check(row) {
            Ok(Ok(revision)) => revision,
            Ok(Err(damaged)) => {
                name(&mut salvage.lost, damaged);
                continue;
            }
            Err(_) => continue,
        };
        let seq = if *table == OUTBOX_TABLE { rowid } else { 0 };
        if !numbers::is_carried_over(revision, seq) {
            name(&mut salvage.lost, DamagedRow::of(table, row, Damage::Number));
            continue;
        }
        let values: Result<Vec<_>, _> =
            (0..*width).map(|at| row.get_ref(at).map(ToSqlOutput::Borrowed)).collect();
        let Ok(values) = values else { continue };
        match insert.execute(rusqlite::params_from_iter(values.iter())) {
            Ok(inserted) => {
                salvage.rows += inserted as u64;
                salvage.newest = salvage.newest.max(revision);
            }
            // This row only: it does not fit the table.
            Err(error) if is_not_ours(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Names the rows of which only the key is left.
fn missing(
    broken: &Connection,
    into: &Connection,
    source: &Source,
    lost: &mut Vec<DamagedRow>,
) -> rusqlite::Result<()> {
    let mut is_carried = into.prepare(source.is_carried)?;
    let width = is_carried.parameter_count();
    let Ok(mut statement) = broken.prepare(source.keys) else { return Ok(()) };
    let Ok(mut found) = statement.query([]) else { return Ok(()) };
    for _ in 0..STEPS {
        let Ok(Some(row)) = found.next() else { break };
        let key: Result<Vec<String>, _> = (0..width).map(|at| row.get(at)).collect();
        let Ok(key) = key else { continue };
        if !is_carried.exists(rusqlite::params_from_iter(key.iter()))? {
            let parts: Vec<&[u8]> = key.iter().map(String::as_bytes).collect();
            name(lost, DamagedRow::new(source.table, &parts, Damage::Lost));
        }
    }
    Ok(())
}

fn name(lost: &mut Vec<DamagedRow>, row: DamagedRow) {
    if lost.len() < NAMED && !lost.iter().any(|known| known.table == row.table && known.key == row.key) {
        lost.push(row);
    }
}
