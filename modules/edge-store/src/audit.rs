//! Looks at every row when the file is opened: names the damaged ones and seals what still stands in the open.

use rusqlite::{Connection, OptionalExtension};

use crate::apply::sealed;
use crate::read::{self, Held, OBJECTS_TABLE, ROWS_TABLE};
use crate::state::{Damaged, Harm};
use crate::vault::Vault;
use crate::{plan, schema};

const OBJECTS: &str =
    "SELECT resource, namespace, name, uid, resource_version, json, revision, sum, rowid FROM objects";
const ROWS: &str = "SELECT kind, key1, key2, value, revision, sum, rowid FROM plain";
const OUTBOX: &str = "SELECT class, key, body, revision, sum, seq FROM outbox";

/// What an audit found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Rows that cannot be read.
    pub(crate) damaged: Vec<Damaged>,
    /// Rowids of secrets that are not sealed.
    open_objects: Vec<i64>,
    open_rows: Vec<i64>,
    /// Rowids of damaged rows that nobody sends again under their key.
    dead_rows: Vec<i64>,
    dead_reports: Vec<i64>,
    /// How many of them are sealed and do not open.
    pub(crate) locked: u64,
}

/// Reads all rows.
pub(crate) fn audit(conn: &Connection, vault: &Vault) -> rusqlite::Result<Findings> {
    let mut findings = Findings::default();
    let mut statement = conn.prepare(OBJECTS)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        match read::object_of(row, vault)? {
            Ok(object)
                if plan::seals_objects(&object.key.resource) && !is_sealed::<6>(row, OBJECTS_TABLE)? =>
            {
                findings.open_objects.push(row.get(8)?);
            }
            Ok(_) => {}
            // Its key stays, so that the cloud sends it again or has it deleted.
            Err(damaged) => findings.add(damaged),
        }
    }
    let mut statement = conn.prepare(ROWS)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        match read::row_of(row, vault)? {
            Ok((table, _)) if plan::seals_rows(table) && !is_sealed::<4>(row, ROWS_TABLE)? => {
                findings.open_rows.push(row.get(6)?);
            }
            Ok(_) => {}
            Err(damaged) => {
                findings.add(damaged);
                findings.dead_rows.push(row.get(6)?);
            }
        }
    }
    let mut statement = conn.prepare(OUTBOX)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let (seq, Err(damaged)) = read::outbox_of(row)? {
            findings.add(damaged);
            findings.dead_reports.push(seq);
        }
    }
    Ok(findings)
}

fn is_sealed<const N: usize>(row: &rusqlite::Row<'_>, table: &'static str) -> rusqlite::Result<bool> {
    Ok(read::held::<N>(row, table)?.is_ok_and(|held| held.sealed))
}

impl Findings {
    fn add(&mut self, damaged: Damaged) {
        self.locked += u64::from(damaged.harm == Harm::Sealed);
        self.damaged.push(damaged);
    }

    fn is_clean(&self) -> bool {
        let lists = [&self.open_objects, &self.open_rows, &self.dead_rows, &self.dead_reports];
        lists.into_iter().all(Vec::is_empty)
    }
}

/// Seals what the audit found in the open and drops what nobody can ever read.
pub(crate) fn mend(conn: &mut Connection, vault: &Vault, findings: &Findings) -> rusqlite::Result<()> {
    if !vault.has_key() {
        return Ok(());
    }
    if !findings.is_clean() {
        write(conn, vault, findings)?;
    }
    if !schema::is_rewritten(conn) {
        rewrite(conn);
    }
    Ok(())
}

fn write(conn: &mut Connection, vault: &Vault, findings: &Findings) -> rusqlite::Result<()> {
    // What is replaced must not stay in the file's free space.
    conn.pragma_update(None, "secure_delete", "ON")?;
    let tx = conn.transaction()?;
    for rowid in &findings.open_objects {
        let sql = format!("{OBJECTS} WHERE rowid = ?1");
        let update = "UPDATE objects SET json = ?2, sum = ?3 WHERE rowid = ?1";
        seal_one::<6>(&tx, vault, OBJECTS_TABLE, (&sql, update), *rowid)?;
    }
    for rowid in &findings.open_rows {
        let sql = format!("{ROWS} WHERE rowid = ?1");
        let update = "UPDATE plain SET value = ?2, sum = ?3 WHERE rowid = ?1";
        seal_one::<4>(&tx, vault, ROWS_TABLE, (&sql, update), *rowid)?;
    }
    for rowid in &findings.dead_rows {
        tx.prepare_cached("DELETE FROM plain WHERE rowid = ?1")?.execute([rowid])?;
    }
    for seq in &findings.dead_reports {
        tx.prepare_cached("DELETE FROM outbox WHERE seq = ?1")?.execute([seq])?;
    }
    let sealed = findings.open_objects.len() + findings.open_rows.len();
    if sealed > 0 {
        schema::note_rewritten(&tx, false)?;
    }
    tx.commit()?;
    conn.pragma_update(None, "secure_delete", "OFF")?;
    if sealed > 0 {
        tracing::info!(rows = sealed, "secrets of an earlier release are sealed now");
    }
    Ok(())
}

/// Writes the file anew, once after secrets stood in it in the open: older versions of them may be in pages that were
/// freed long ago. The next start tries again if it fails.
fn rewrite(conn: &Connection) {
    let rewritten = (|| {
        // In a file and not in memory: it may be large, and nothing secret is open in it any more.
        conn.pragma_update(None, "temp_store", "FILE")?;
        conn.execute_batch("VACUUM")?;
        conn.pragma_update(None, "temp_store", "MEMORY")?;
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        schema::note_rewritten(conn, true)
    })();
    if let Err(error) = rewritten {
        tracing::warn!(%error, "file is not rewritten: remains of secrets may stand in its free space");
    }
}

fn seal_one<const N: usize>(
    conn: &Connection,
    vault: &Vault,
    table: &'static str,
    (select, update): (&str, &str),
    rowid: i64,
) -> rusqlite::Result<()> {
    let mut statement = conn.prepare_cached(select)?;
    let new = statement
        .query_row([rowid], |row| {
            let Ok(Held { columns, revision, sealed: false, .. }) = read::held::<N>(row, table)? else {
                return Ok(None);
            };
            let Some((value, key)) = columns.split_last() else { return Ok(None) };
            let sealed = sealed(vault, true, table, key, value, revision).ok();
            Ok(sealed.map(|(value, sum)| (value.into_owned(), sum)))
        })
        .optional()?
        .flatten();
    if let Some((value, sum)) = new {
        conn.prepare_cached(update)?.execute((rowid, value, sum))?;
    }
    Ok(())
}
