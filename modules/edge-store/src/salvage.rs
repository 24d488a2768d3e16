//! Carries what can still be read out of a broken file.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, OpenFlags};

use crate::error::is_not_ours;
use crate::{read, schema};

/// A broken tree may lead in circles; a node's file never has this many rows.
const STEPS: usize = 1_000_000;

struct Source {
    columns: &'static str,
    table: &'static str,
    insert: &'static str,
    /// The row's revision, if it holds.
    check: fn(&rusqlite::Row<'_>) -> rusqlite::Result<Option<u64>>,
    width: usize,
}

const SOURCES: [Source; 3] = [
    Source {
        columns: "resource, namespace, name, uid, resource_version, json, revision, sum",
        table: "objects",
        insert: "INSERT OR IGNORE INTO objects (resource, namespace, name, uid, resource_version, json, revision, sum) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        check: |row| Ok(read::object_of(row)?.ok().map(|object| object.revision)),
        width: 8,
    },
    Source {
        columns: "kind, key1, key2, value, revision, sum",
        table: "plain",
        insert: "INSERT OR IGNORE INTO plain (kind, key1, key2, value, revision, sum) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        check: |row| Ok(read::row_of(row)?.ok().map(|(_, row)| row.revision)),
        width: 6,
    },
    // With their seqs: the new file must not use one of them again.
    Source {
        columns: "class, key, body, revision, sum, seq",
        table: "outbox",
        insert: "INSERT OR IGNORE INTO outbox (class, key, body, revision, sum, seq) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        check: |row| Ok(read::outbox_of(row)?.1.ok().map(|(_, revision)| revision)),
        width: 6,
    },
];

/// Copies the sound rows of `from` into the fresh `into`; says how many, and leaves `into` at the newest revision found.
/// An error is the new file's; what is wrong with the old one only ends the reading.
pub(crate) fn salvage(from: &Path, into: &mut Connection) -> rusqlite::Result<(u64, u64)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let Ok(broken) = Connection::open_with_flags(from, flags) else {
        return Ok((0, 0));
    };
    let tx = into.transaction()?;
    let (mut rows, mut newest) = (0, 0);
    for source in &SOURCES {
        let mut seen = BTreeSet::new();
        // A scan ends at the first page that cannot be read; from the other end it reaches what lies behind.
        for direction in ["ASC", "DESC"] {
            let (found, at) = scan(&broken, &tx, source, direction, &mut seen)?;
            rows += found;
            newest = newest.max(at);
        }
    }
    schema::put_revision(&tx, newest)?;
    tx.commit()?;
    Ok((rows, newest))
}

fn scan(
    broken: &Connection,
    into: &Connection,
    source: &Source,
    direction: &str,
    seen: &mut BTreeSet<i64>,
) -> rusqlite::Result<(u64, u64)> {
    let Source { columns, table, insert, check, width } = source;
    let mut insert = into.prepare_cached(insert)?;
    let (mut rows, mut newest) = (0, 0);
    // NOT INDEXED: an index may be what is broken.
    let sql = format!("SELECT {columns}, rowid FROM {table} NOT INDEXED ORDER BY rowid {direction}");
    let Ok(mut statement) = broken.prepare(&sql) else {
        return Ok((0, 0));
    };
    let Ok(mut found) = statement.query([]) else {
        return Ok((0, 0));
    };
    for _ in 0..STEPS {
        let Ok(Some(row)) = found.next() else { break };
        let Ok(rowid) = row.get(*width) else { continue };
        if !seen.insert(rowid) {
            continue;
        }
        let Ok(Some(revision)) = check(row) else { continue };
        let values: Result<Vec<_>, _> =
            (0..*width).map(|at| row.get_ref(at).map(ToSqlOutput::Borrowed)).collect();
        let Ok(values) = values else { continue };
        match insert.execute(rusqlite::params_from_iter(values.iter())) {
            Ok(inserted) => {
                rows += inserted as u64;
                newest = newest.max(revision);
            }
            // This row only: it does not fit the table.
            Err(error) if is_not_ours(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok((rows, newest))
}
