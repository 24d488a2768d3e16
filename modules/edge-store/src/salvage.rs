//! Carries what can still be read out of a broken file, row by row: one that cannot be read costs itself.
//!
//! Nothing comes back that was removed. Rows are taken from pages alone that the table's tree leads to, and the page of a
//! removed row is not among them or no longer shows it; what the tree itself has lost is not looked for in loose pages,
//! because a page that was given back looks the same. One loss takes the file back to an earlier state: that of commits
//! in the log, which is named.

use std::collections::BTreeSet;

use rusqlite::Connection;
use rusqlite::types::ToSqlOutput;

use crate::error::is_not_ours;
use crate::layout::{
    MODULE_ROW_SUMMED, OBJECT_SUMMED, OBJECTS_TABLE, OUTBOX_SUMMED, OUTBOX_TABLE, ROWS_TABLE,
};
use crate::mended_copy::MendedCopy;
use crate::state::{Damage, DamagedRow};
use crate::{StoreError, btree, foreign, numbers, read, schema};

/// A broken index may lead in circles; a node's file never has this many rows.
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
    /// Indexes that hold the keys a second time, each with its row. The last of them has every row of the table.
    keys: &'static [&'static str],
}

const SOURCES: [Source; 3] = [
    Source {
        columns: read::OBJECT_COLUMNS,
        table: OBJECTS_TABLE,
        insert: "INSERT OR IGNORE INTO objects \
                 (resource, namespace, name, uid, content_hash, resource_version, json, revision, sum) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        check: |row| {
            let intact = read::intact::<OBJECT_SUMMED>(row, OBJECTS_TABLE)?;
            Ok(intact.map(|intact| intact.stamp()))
        },
        width: 9,
        keys: &["SELECT resource, namespace, name, rowid FROM objects INDEXED BY sqlite_autoindex_objects_1"],
    },
    Source {
        columns: read::MODULE_ROW_COLUMNS,
        table: ROWS_TABLE,
        insert: "INSERT OR IGNORE INTO module_rows (kind, key1, key2, value, revision, sum) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        check: |row| {
            let intact = read::intact::<MODULE_ROW_SUMMED>(row, ROWS_TABLE)?;
            Ok(intact.map(|intact| intact.stamp()))
        },
        width: 6,
        keys: &["SELECT kind, key1, key2, rowid FROM module_rows INDEXED BY sqlite_autoindex_module_rows_1"],
    },
    // With their seqs: the new file must not use one of them again.
    Source {
        columns: read::OUTBOX_COLUMNS,
        table: OUTBOX_TABLE,
        insert: "INSERT OR IGNORE INTO outbox (queue, class, key, body, revision, sum, seq, queued) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        check: |row| {
            let intact = read::intact::<OUTBOX_SUMMED>(row, OUTBOX_TABLE)?;
            Ok(intact.map(|intact| intact.stamp()))
        },
        width: 8,
        // The index of the newest has no queue, and that of the queues neither class nor key.
        keys: &[
            "SELECT '?', 'status', key, seq FROM outbox INDEXED BY outbox_newest WHERE class = 'status'",
            "SELECT queue, '?', 'seq ' || seq, seq FROM outbox INDEXED BY outbox_queue",
        ],
    },
];

/// What came out of a broken file.
#[derive(Debug, Default)]
pub(crate) struct Salvage {
    /// Rows carried over.
    pub(crate) rows: u64,
    /// The newest revision among them.
    pub(crate) newest: u64,
    /// Rows that are known to have been there, by their keys; at most a few thousand are named.
    pub(crate) lost: Vec<DamagedRow>,
    /// How many rows are known to have been there.
    pub(crate) lost_rows: u64,
    /// Tables that lost rows of which nobody knows how many they were.
    pub(crate) uncounted: Vec<&'static str>,
}

/// Copies the sound rows of `broken` into the fresh `into`, and leaves `into` at the newest revision found. What is wrong
/// with the old file only ends the reading.
///
/// # Errors
/// When the disk does not take what is written.
pub(crate) fn salvage(broken: &mut MendedCopy, into: &mut Connection) -> Result<Salvage, StoreError> {
    let path = into.path().unwrap_or_default().to_owned();
    let fail = |e| StoreError::sqlite(path.as_ref(), e);
    if !broken.conn().is_some_and(|conn| matches!(foreign::program(conn), Ok(None)) && lists_our_tables(conn))
    {
        broken.take_schema_of(into)?;
        tracing::warn!(
            "the broken database does not list its tables alone: they are looked for where every store has them"
        );
    }
    let mut found = Salvage::default();
    let tx = into.transaction().map_err(fail)?;
    for source in &SOURCES {
        table(broken, &tx, source, &mut found).map_err(fail)?;
    }
    schema::put_revision(&tx, found.newest).and_then(|()| tx.commit()).map_err(fail)?;
    Ok(found)
}

/// Whether the file still says where every table and index is that is read here.
fn lists_our_tables(conn: &Connection) -> bool {
    SOURCES.iter().all(|source| {
        let mut statements = source.keys.iter().map(|keys| (*keys).to_owned()).chain([source.row()]);
        statements.all(|sql| conn.prepare(&sql).is_ok()) && source.root(conn).is_some()
    })
}

impl Source {
    fn row(&self) -> String {
        // NOT INDEXED: an index may be what is broken.
        format!("SELECT {} FROM {} NOT INDEXED WHERE rowid = ?1", self.columns, self.table)
    }

    fn root(&self, conn: &Connection) -> Option<u32> {
        let sql = "SELECT rootpage FROM sqlite_schema WHERE type = 'table' AND name = ?1";
        conn.query_row(sql, [self.table], |row| row.get(0)).ok().filter(|root| *root > 1)
    }
}

fn table(
    broken: &MendedCopy,
    into: &Connection,
    source: &Source,
    salvage: &mut Salvage,
) -> rusqlite::Result<()> {
    let mut settled = BTreeSet::new();
    let (mut is_whole, mut are_all_named) = (false, false);
    if let Some(conn) = broken.conn() {
        if let Some(root) = source.root(conn) {
            let tree = btree::walk(root, |number| broken.page(number));
            let are_all_read = rows(conn, into, source, &tree.rowids, &mut settled, salvage)?;
            is_whole = are_all_read && tree.unreadable == 0;
        }
        // Whatever the table has lost stands in the index of all of its rows, if that one can be read to its end.
        for keys in source.keys {
            are_all_named = missing(conn, source.table, keys, &mut settled, salvage);
        }
    }
    if !is_whole && !are_all_named {
        salvage.uncounted.push(source.table);
    }
    Ok(())
}

/// Carries over these rows; says whether every one could be read. `settled`: those that are carried over or named.
fn rows(
    broken: &Connection,
    into: &Connection,
    source: &Source,
    rowids: &[i64],
    settled: &mut BTreeSet<i64>,
    salvage: &mut Salvage,
) -> rusqlite::Result<bool> {
    let mut insert = into.prepare_cached(source.insert)?;
    let Ok(mut statement) = broken.prepare(&source.row()) else { return Ok(false) };
    let mut are_all_read = true;
    for rowid in rowids {
        if settled.contains(rowid) {
            continue;
        }
        let Ok(mut found) = statement.query([rowid]) else {
            are_all_read = false;
            continue;
        };
        let Ok(Some(row)) = found.next() else {
            are_all_read = false;
            continue;
        };
        match carry(row, *rowid, source, &mut insert) {
            Carried::Over(revision) => {
                salvage.rows += 1;
                salvage.newest = salvage.newest.max(revision);
            }
            Carried::Before => {}
            Carried::Damaged(damaged) => name(salvage, damaged),
            Carried::Unreadable => {
                are_all_read = false;
                continue;
            }
            Carried::Refused(error) => return Err(error),
        }
        settled.insert(*rowid);
    }
    Ok(are_all_read)
}

enum Carried {
    /// With this revision.
    Over(u64),
    /// A row with its key is there.
    Before,
    Damaged(DamagedRow),
    Unreadable,
    /// The new file does not take it.
    Refused(rusqlite::Error),
}

fn carry(
    row: &rusqlite::Row<'_>,
    rowid: i64,
    source: &Source,
    insert: &mut rusqlite::CachedStatement<'_>,
) -> Carried {
    let revision = match (source.check)(row) {
        Ok(Ok(revision)) => revision,
        Ok(Err(damaged)) => return Carried::Damaged(damaged),
        Err(_) => return Carried::Unreadable,
    };
    let seq = if source.table == OUTBOX_TABLE { rowid } else { 0 };
    if !numbers::is_carried_over(revision, seq) {
        return Carried::Damaged(DamagedRow::of(source.table, row, Damage::Number));
    }
    let values: Result<Vec<_>, _> =
        (0..source.width).map(|at| row.get_ref(at).map(ToSqlOutput::Borrowed)).collect();
    let Ok(values) = values else { return Carried::Unreadable };
    match insert.execute(rusqlite::params_from_iter(values.iter())) {
        Ok(0) => Carried::Before,
        Ok(_) => Carried::Over(revision),
        // This row only: it does not fit the table.
        Err(error) if is_not_ours(&error) => {
            Carried::Damaged(DamagedRow::of(source.table, row, Damage::Checksum))
        }
        Err(error) => Carried::Refused(error),
    }
}

/// Names the rows of which only the key is left; says whether the index could be read to its end.
fn missing(
    broken: &Connection,
    table: &'static str,
    keys: &str,
    settled: &mut BTreeSet<i64>,
    salvage: &mut Salvage,
) -> bool {
    let Ok(mut statement) = broken.prepare(keys) else { return false };
    let Ok(mut found) = statement.query([]) else { return false };
    for _ in 0..STEPS {
        let row = match found.next() {
            Ok(Some(row)) => row,
            Ok(None) => return true,
            Err(_) => return false,
        };
        let Ok(rowid) = row.get::<_, i64>(3) else { return false };
        if settled.insert(rowid) {
            name(salvage, DamagedRow::of(table, row, Damage::Lost));
        }
    }
    false
}

fn name(salvage: &mut Salvage, row: DamagedRow) {
    salvage.lost_rows += 1;
    let named = salvage.lost.iter_mut().find(|known| known.table == row.table && known.key == row.key);
    if let Some(named) = named {
        named.rows += 1;
    } else if salvage.lost.len() < NAMED {
        salvage.lost.push(row);
    }
}
