//! Looks at every row when the file is opened: names the damaged ones, and counts those that a newer release wrote.

use std::collections::BTreeMap;

use rusqlite::Connection;

use crate::layout::{KnownOrUnknown, OUTBOX_TABLE, ROWS_TABLE};
use crate::node_key::NodeKey;
use crate::state::{Damage, DamagedRow};
use crate::{UnknownRows, read};

/// What an audit found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Rows that cannot be read.
    pub(crate) damaged: Vec<DamagedRow>,
    /// Rowids of damaged rows that nobody sends again under their key.
    dead_rows: Vec<i64>,
    dead_reports: Vec<i64>,
    /// How many of the damaged are sealed and do not open.
    pub(crate) locked: u64,
    unknown: BTreeMap<(&'static str, String), u64>,
}

/// Reads all rows.
pub(crate) fn audit(conn: &Connection, node_key: &NodeKey) -> rusqlite::Result<Findings> {
    let mut findings = Findings::default();
    let mut statement = conn.prepare(read::ALL_OBJECTS)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        // The key of a damaged one stays, so that the cloud sends it again or has it deleted.
        if let Err(damaged) = read::object_of(row, node_key)? {
            findings.add(damaged);
        }
    }
    let mut statement = conn.prepare(read::ALL_ROWS)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        match read::row_of(row, node_key)? {
            Ok((KnownOrUnknown::Known(_), _)) => {}
            Ok((KnownOrUnknown::Unknown(kind), _)) => findings.unknown(ROWS_TABLE, kind),
            Err(damaged) => {
                findings.add(damaged);
                findings.dead_rows.push(row.get(6)?);
            }
        }
    }
    let mut statement = conn.prepare(read::OUTBOX)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        match read::outbox_of(row)? {
            (_, Ok(KnownOrUnknown::Known(_))) => {}
            (_, Ok(KnownOrUnknown::Unknown(kind))) => findings.unknown(OUTBOX_TABLE, kind),
            (seq, Err(damaged)) => {
                findings.add(damaged);
                findings.dead_reports.push(seq);
            }
        }
    }
    Ok(findings)
}

impl Findings {
    fn add(&mut self, damaged: DamagedRow) {
        self.locked += u64::from(damaged.damage == Damage::Sealed);
        self.damaged.push(damaged);
    }

    fn unknown(&mut self, table: &'static str, kind: String) {
        *self.unknown.entry((table, kind)).or_default() += 1;
    }

    /// Rows of kinds that this release does not know.
    pub(crate) fn unknown_rows(&self) -> Vec<UnknownRows> {
        let each = self.unknown.iter();
        each.map(|((table, kind), rows)| UnknownRows { table, kind: kind.clone(), rows: *rows }).collect()
    }
}

/// Drops what nobody can ever read. Without a key nothing is dropped, for the key may come back.
pub(crate) fn mend(conn: &mut Connection, node_key: &NodeKey, findings: &Findings) -> rusqlite::Result<()> {
    if !node_key.is_loaded() || (findings.dead_rows.is_empty() && findings.dead_reports.is_empty()) {
        return Ok(());
    }
    let tx = conn.transaction()?;
    for rowid in &findings.dead_rows {
        tx.prepare_cached("DELETE FROM module_rows WHERE rowid = ?1")?.execute([rowid])?;
    }
    for seq in &findings.dead_reports {
        tx.prepare_cached("DELETE FROM outbox WHERE seq = ?1")?.execute([seq])?;
    }
    tx.commit()
}
