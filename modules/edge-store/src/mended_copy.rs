//! A copy of a broken file that SQLite reads: its log is in it, and its header and, where that is lost, its list of
//! tables are made anew.
//!
//! The broken file itself stays as it was found. Nothing of the copy is believed: whoever reads a row from it holds it
//! against its sum.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::btree::PAGE;
use crate::error::is_not_ours;
use crate::files::{beside, make_private, remove_database};
use crate::{StoreError, connection, wal};

/// The copy's name behind the database's.
pub(crate) const SUFFIX: &str = ".mended";

/// No store comes near it: what stands behind it in a file is not looked at.
const BYTES_MOST: u64 = 1 << 30;

const PAGE_BYTES: u64 = PAGE as u64;
/// <https://www.sqlite.org/fileformat2.html#the_database_header>
const HEADER: usize = 100;

/// The copy; it is removed when it is let go.
#[derive(Debug)]
pub(crate) struct MendedCopy {
    path: PathBuf,
    file: File,
    conn: Option<Connection>,
}

impl MendedCopy {
    /// Copies the file at `broken` with its log and mends the header of the copy.
    ///
    /// # Errors
    /// When the disk does not take the copy. Parts of the broken file that cannot be read are zero in it.
    pub(crate) fn make(broken: &Path, max_bytes: u64) -> Result<MendedCopy, StoreError> {
        let path = beside(broken, SUFFIX);
        remove_database(&path)?;
        make_private(&path, true)?;
        let fail = |e| StoreError::file("make", &path, e);
        let file = File::options().read(true).write(true).open(&path).map_err(fail)?;
        let most = u32::try_from(max_bytes.max(BYTES_MOST) / PAGE_BYTES).unwrap_or(u32::MAX);
        let mut pages = copy_pages(broken, &file, most).map_err(fail)?;
        let log = beside(broken, "-wal");
        let put = |number: u32, page: &[u8]| match number {
            1.. if number <= most => file.write_all_at(page, offset(number)),
            _ => Ok(()),
        };
        if let Some(committed) = wal::replay(&log, put).map_err(|e| StoreError::file("read", &log, e))? {
            pages = committed;
        }
        let pages = pages.clamp(1, most);
        file.set_len(u64::from(pages) * PAGE_BYTES).map_err(fail)?;
        file.write_all_at(&header(pages), 0).map_err(fail)?;
        let conn = open(&path)?;
        Ok(MendedCopy { path, file, conn })
    }

    /// `None`: SQLite does not take it.
    pub(crate) fn conn(&self) -> Option<&Connection> {
        self.conn.as_ref()
    }

    /// A page of it; `None`: it ends before.
    pub(crate) fn page(&self, number: u32) -> Option<[u8; PAGE]> {
        let mut page = [0; PAGE];
        self.file.read_exact_at(&mut page, number.checked_sub(1).map(|_| offset(number))?).ok()?;
        Some(page)
    }

    /// Puts the list of tables of `fresh`, a new store, in the place of this one's, which cannot be read.
    ///
    /// Every store makes its tables first and in one order, and none is ever dropped, so their roots are the same pages in
    /// all of them. Were they not, no row would pass: its sum goes over the name of its table.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(crate) fn take_schema_of(&mut self, fresh: &Connection) -> Result<(), StoreError> {
        let fail = |e| StoreError::sqlite(&self.path, e);
        let mut page = [0; PAGE];
        // A leaf without rows whose content begins at the page's end.
        page[HEADER] = 13;
        page[HEADER + 5..HEADER + 7].copy_from_slice(&4096_u16.to_be_bytes());
        let make = |e| StoreError::file("make", &self.path, e);
        let roots = fresh.query_row("SELECT max(rootpage) FROM sqlite_schema", [], |row| row.get(0));
        let pages = self.file.metadata().map_err(make)?.len() / PAGE_BYTES;
        // SQLite takes no list of tables that are behind the end.
        let pages = u32::try_from(pages).unwrap_or(u32::MAX).max(roots.map_err(fail)?);
        page[..HEADER].copy_from_slice(&header(pages));
        self.file.set_len(u64::from(pages) * PAGE_BYTES).map_err(make)?;
        self.file.write_all_at(&page, 0).map_err(make)?;
        let mut writer = connection::repairer(&self.path).map_err(fail)?;
        // The copy is nobody's only one, so no journal.
        writer
            .execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA writable_schema = ON")
            .map_err(fail)?;
        let tx = writer.transaction().map_err(fail)?;
        let copied = copy_schema(fresh, &tx);
        copied.and_then(|()| tx.commit()).map_err(fail)?;
        drop(writer);
        self.conn = open(&self.path)?;
        Ok(())
    }
}

impl Drop for MendedCopy {
    fn drop(&mut self) {
        // The next start removes what stays.
        if let Err(error) = remove_database(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "mended copy of a broken database stays");
        }
    }
}

fn copy_schema(from: &Connection, into: &Connection) -> rusqlite::Result<()> {
    let mut rows =
        from.prepare("SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema ORDER BY rowid")?;
    let mut rows = rows.query([])?;
    let mut put = into.prepare(
        "INSERT INTO sqlite_schema (type, name, tbl_name, rootpage, sql) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    while let Some(row) = rows.next()? {
        let text = |at| row.get::<_, Option<String>>(at);
        put.execute((text(0)?, text(1)?, text(2)?, row.get::<_, i64>(3)?, text(4)?))?;
    }
    Ok(())
}

fn open(path: &Path) -> Result<Option<Connection>, StoreError> {
    let opened = connection::without_writes(path).and_then(|conn| {
        // One bad cell of a page must not cost the other rows of it.
        conn.pragma_update(None, "cell_size_check", "OFF")?;
        Ok(conn)
    });
    match opened {
        Ok(conn) => Ok(Some(conn)),
        Err(error) if is_not_ours(&error) => Ok(None),
        Err(error) => Err(StoreError::sqlite(path, error)),
    }
}

fn offset(number: u32) -> u64 {
    (u64::from(number) - 1) * PAGE_BYTES
}

/// Copies page by page and says how many there are; the last may be a part of one. What the disk does not give is zero.
fn copy_pages(broken: &Path, into: &File, most: u32) -> std::io::Result<u32> {
    let from = match File::open(broken) {
        Ok(from) => from,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(e),
    };
    let length = from.metadata()?.len();
    let pages = u32::try_from(length.div_ceil(PAGE_BYTES)).unwrap_or(u32::MAX).min(most);
    for number in 1..=pages {
        let mut page = [0; PAGE];
        let mut filled = 0;
        while let Ok(read @ 1..) = from.read_at(&mut page[filled..], offset(number) + filled as u64) {
            filled += read;
        }
        if page.iter().any(|byte| *byte != 0) {
            into.write_all_at(&page, offset(number))?;
        }
    }
    Ok(pages)
}

/// The header of a store of so many pages, for reading: without a log, without free pages, and without the map of a file
/// that gives pages back (SQLite would follow that map instead of the pages' own numbers).
fn header(pages: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"SQLite format 3\0");
    put(16, &4096_u16.to_be_bytes());
    // Read and written with a rollback journal; the three fractions have one value each.
    put(18, &[1, 1, 0, 64, 32, 32]);
    // The page count holds if the change counter stands a second time in the last words.
    put(24, &1_u32.to_be_bytes());
    put(28, &pages.to_be_bytes());
    // The newest format of a schema, and UTF-8.
    put(44, &4_u32.to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    put(92, &1_u32.to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema;

    #[test]
    fn the_tables_of_version_1_have_their_roots_where_they_always_had_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut conn = connection::writer(&dir.path().join("db"), 1 << 20).unwrap();
        schema::create(&mut conn, &[3; 16], None).unwrap();
        let mut roots = conn.prepare("SELECT name, rootpage FROM sqlite_schema ORDER BY rootpage").unwrap();
        let roots: Vec<(String, i64)> =
            roots.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
        let names: Vec<(&str, i64)> = roots.iter().map(|(name, root)| (name.as_str(), *root)).collect();
        // A broken file without its first page is read from these.
        assert_eq!(
            names,
            [
                ("meta", 3),
                ("sqlite_autoindex_meta_1", 4),
                ("objects", 5),
                ("sqlite_autoindex_objects_1", 6),
                ("module_rows", 7),
                ("sqlite_autoindex_module_rows_1", 8),
                ("outbox", 9),
                ("sqlite_sequence", 10),
                ("outbox_newest", 11),
                ("outbox_queue", 12),
            ]
        );
    }
}
