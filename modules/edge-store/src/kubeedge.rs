//! KubeEdge's `edgecore.db`: told apart from a store, and read for a node that moves over.
//!
//! Its file is never opened for that, since SQLite would write beside it: it is copied with its log, and the copy is read.
//! Whoever holds the file open meanwhile would tear the copy, so KubeEdge's edgecore has to be stopped before.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use crate::files::{beside, check_regular, size};
use crate::{StoreError, connection};

/// 256 MiB: more than all that the cloud gives to one node. What is larger is not copied.
const FILE_MAX: u64 = 256 << 20;
/// 100 000 rows of one table.
const ROWS_MAX: usize = 100_000;
/// 64 damaged rows of each table have a name; the others are counted.
const NAMED_MAX: usize = 64;
/// What lies beside a database that was not closed: the log, or the journal of a transaction that was cut off.
const BESIDE: [&str; 2] = ["-wal", "-journal"];
/// The columns by which KubeEdge's table `meta` is none of a store's, which has a table of that name, too.
const IS_KUBEEDGES: &str =
    "SELECT count(*) FROM pragma_table_info('meta') WHERE name IN ('key', 'type', 'value')";

/// A row of `meta`: an object, or what else MetaManager of KubeEdge kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaRow {
    /// `namespace/type/name` in most rows.
    pub key: String,
    /// `pod`, `configmap`, …
    pub kind: String,
    /// JSON in most rows.
    pub value: String,
}

/// A row of `device`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRow {
    /// `namespace/name`.
    pub id: String,
    /// What was said of it last; may be empty.
    pub state: String,
    /// When it was last online; may be empty.
    pub last_online: String,
}

/// A row of `device_twin`. What is empty was not said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TwinRow {
    /// The device's id.
    pub device: String,
    /// The property.
    pub property: String,
    /// What it should be.
    pub expected: String,
    /// What it is.
    pub actual: String,
    /// JSON with the time of `expected`.
    pub expected_meta: String,
    /// JSON with the time of `actual`.
    pub actual_meta: String,
    /// JSON with the versions of `expected`.
    pub expected_version: String,
    /// JSON with the versions of `actual`.
    pub actual_version: String,
    /// Whether an MQTT client may delete it.
    pub optional: bool,
    /// The type of its values.
    pub value_type: String,
}

/// What could be read of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KubeEdgeRows {
    /// Of `meta`.
    pub metas: Vec<MetaRow>,
    /// Of `device`.
    pub devices: Vec<DeviceRow>,
    /// Of `device_twin`.
    pub twins: Vec<TwinRow>,
    /// How many rows could not be read.
    pub damaged: u64,
    /// Names of such rows with the reason, at most 64 of each table.
    pub named: Vec<String>,
    /// Tables that lost further rows, of which nobody knows how many they were.
    pub uncounted: Vec<&'static str>,
}

/// Whether the file at `path` is KubeEdge's; what cannot be read is not.
pub(crate) fn is_kubeedges(path: &Path) -> bool {
    let columns = || -> rusqlite::Result<i64> {
        connection::without_writes(path)?.query_row(IS_KUBEEDGES, [], |row| row.get(0))
    };
    columns() == Ok(3)
}

/// Reads KubeEdge's file at `path`. Its copy lies at `copy` meanwhile, for its owner alone: it holds Secrets in the open. It is removed
/// in any case, as is one that an earlier reading left there. Blocks.
///
/// # Errors
/// [`StoreError::Missing`]; when the file is larger than 256 MiB or no database of KubeEdge's; when the copy cannot be made. Rows that
/// cannot be read are no error.
pub fn read_kubeedge(path: &Path, copy: &Path) -> Result<KubeEdgeRows, StoreError> {
    let copy = PrivateCopy::make(path, copy)?;
    let unreadable = |reason: String| StoreError::NotKubeEdges { path: path.to_owned(), reason };
    let conn = connection::copied(&copy.0).map_err(|error| unreadable(error.to_string()))?;
    let columns: i64 =
        conn.query_row(IS_KUBEEDGES, [], |row| row.get(0)).map_err(|error| unreadable(error.to_string()))?;
    if columns != 3 {
        return Err(unreadable("it has no table `meta` as KubeEdge's has it".to_owned()));
    }
    let mut rows = KubeEdgeRows::default();
    rows.metas = rows.of(&conn, &META);
    // Without the module's table there are none of it: KubeEdge makes one only for a module that is on.
    rows.devices = rows.of(&conn, &DEVICE);
    rows.twins = rows.of(&conn, &TWIN);
    Ok(rows)
}

/// What is read of a table, and how.
struct Source<T> {
    table: &'static str,
    /// Its columns.
    select: &'static str,
    /// What names one of its rows.
    name: &'static str,
    make: fn(&rusqlite::Row<'_>) -> Result<T, String>,
}

const META: Source<MetaRow> = Source {
    table: "meta",
    select: "SELECT key, type, value FROM meta WHERE rowid = ?1",
    name: "SELECT key FROM meta WHERE rowid = ?1",
    make: |row| Ok(MetaRow { key: text(row, 0)?, kind: text(row, 1)?, value: text(row, 2)? }),
};

const DEVICE: Source<DeviceRow> = Source {
    table: "device",
    select: "SELECT id, state, last_online FROM device WHERE rowid = ?1",
    name: "SELECT id FROM device WHERE rowid = ?1",
    make: |row| Ok(DeviceRow { id: text(row, 0)?, state: text(row, 1)?, last_online: text(row, 2)? }),
};

const TWIN: Source<TwinRow> = Source {
    table: "device_twin",
    select: "SELECT deviceid, name, expected, actual, expected_meta, actual_meta, expected_version, actual_version, \
             attr_type, optional FROM device_twin WHERE rowid = ?1",
    name: "SELECT deviceid || '/' || name FROM device_twin WHERE rowid = ?1",
    make: |row| {
        let optional = match row.get_ref(9).map_err(|error| error.to_string())? {
            ValueRef::Integer(number) => number != 0,
            ValueRef::Null | ValueRef::Real(_) | ValueRef::Text(_) | ValueRef::Blob(_) => true,
        };
        Ok(TwinRow {
            device: text(row, 0)?,
            property: text(row, 1)?,
            expected: text(row, 2)?,
            actual: text(row, 3)?,
            expected_meta: text(row, 4)?,
            actual_meta: text(row, 5)?,
            expected_version: text(row, 6)?,
            actual_version: text(row, 7)?,
            optional,
            value_type: text(row, 8)?,
        })
    },
};

/// A column as text; one that is NULL is empty.
fn text(row: &rusqlite::Row<'_>, at: usize) -> Result<String, String> {
    match row.get_ref(at).map_err(|error| error.to_string())? {
        ValueRef::Null => Ok(String::new()),
        ValueRef::Integer(number) => Ok(number.to_string()),
        ValueRef::Real(number) => Ok(number.to_string()),
        // Go's driver writes bytes where a program gives it bytes.
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| "it is not UTF-8".to_owned())
        }
    }
}

impl KubeEdgeRows {
    /// The rows of a table, each by itself: one that cannot be read costs itself.
    fn of<T>(&mut self, conn: &Connection, source: &Source<T>) -> Vec<T> {
        let mut read = Vec::new();
        let mut named = 0;
        for rowid in self.rowids(conn, source.table) {
            let found = conn
                .prepare_cached(source.select)
                .and_then(|mut select| select.query_row([rowid], |row| Ok((source.make)(row))));
            let reason = match found {
                Ok(Ok(row)) => {
                    read.push(row);
                    continue;
                }
                Ok(Err(reason)) => reason,
                Err(error) => error.to_string(),
            };
            self.damaged += 1;
            named += 1;
            if named <= NAMED_MAX {
                let name: Result<String, _> = conn.query_row(source.name, [rowid], |row| row.get(0));
                let name = name.unwrap_or_else(|_| format!("row {rowid}"));
                let (name, reason) = (shown(&name), shown(&reason));
                self.named.push(format!("{} `{name}`: {reason}", source.table));
            }
        }
        read
    }

    /// The numbers of a table's rows. Behind a page that cannot be read they are found from the other end.
    fn rowids(&mut self, conn: &Connection, table: &'static str) -> Vec<i64> {
        let is_there = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1";
        if conn.query_row(is_there, [table], |row| row.get::<_, i64>(0)) == Ok(0) {
            return Vec::new();
        }
        let mut found = Vec::new();
        for order in ["ASC", "DESC"] {
            match listed(conn, table, order, &mut found) {
                Ok(true) => break,
                // More than any node has, or a tree that leads in circles.
                Ok(false) | Err(_) if self.uncounted.contains(&table) => break,
                Ok(false) | Err(_) => self.uncounted.push(table),
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// Adds the numbers of a table's rows; whether these are all.
fn listed(conn: &Connection, table: &str, order: &str, found: &mut Vec<i64>) -> rusqlite::Result<bool> {
    // Of a name of ours: see the sources.
    let mut select =
        conn.prepare(&format!("SELECT rowid FROM {table} NOT INDEXED ORDER BY rowid {order}"))?;
    let mut rows = select.query([])?;
    for _ in 0..ROWS_MAX {
        match rows.next()? {
            Some(row) => found.push(row.get(0)?),
            None => return Ok(true),
        }
    }
    Ok(rows.next()?.is_none())
}

/// What a file says, made harmless for a terminal.
fn shown(text: &str) -> String {
    text.chars().take(160).flat_map(char::escape_default).collect()
}

/// The copy, which goes with this.
struct PrivateCopy(PathBuf);

impl PrivateCopy {
    fn make(from: &Path, to: &Path) -> Result<PrivateCopy, StoreError> {
        check_regular(from)?;
        if !from.exists() {
            return Err(StoreError::Missing { path: from.to_owned() });
        }
        let mut bytes = size(from)?;
        for suffix in BESIDE {
            bytes = bytes.saturating_add(size(&beside(from, suffix))?);
        }
        if bytes > FILE_MAX {
            let reason = format!("it has {bytes} bytes, and at most {FILE_MAX} are read");
            return Err(StoreError::NotKubeEdges { path: from.to_owned(), reason });
        }
        let copy = PrivateCopy(to.to_owned());
        copy.remove();
        copy_private(from, to).map_err(|error| StoreError::file("copy KubeEdge's database to", to, error))?;
        for suffix in BESIDE {
            let (from, to) = (beside(from, suffix), beside(to, suffix));
            if from.exists() {
                copy_private(&from, &to)
                    .map_err(|error| StoreError::file("copy KubeEdge's database to", &to, error))?;
            }
        }
        Ok(copy)
    }

    fn remove(&self) {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            // What stays is removed at the next reading, and by `keadm reset`.
            drop(fs::remove_file(beside(&self.0, suffix)));
        }
    }
}

impl Drop for PrivateCopy {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Copies a file for its owner alone. No more than was measured, whatever grows meanwhile.
fn copy_private(from: &Path, to: &Path) -> io::Result<()> {
    let mut options = File::options();
    let mut target = options.write(true).create_new(true).mode(0o600).open(to)?;
    io::copy(&mut File::open(from)?.take(FILE_MAX), &mut target).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As gorm makes them (KubeEdge 1.23).
    const TABLES: &str = "
        CREATE TABLE `device` (`id` text,`name` text,`description` text,`state` text,`last_online` text,PRIMARY KEY (`id`));
        CREATE TABLE `device_twin` (`id` integer PRIMARY KEY AUTOINCREMENT,`deviceid` text,`name` text,`description` text,
            `expected` text,`actual` text,`expected_meta` text,`actual_meta` text,`expected_version` text,
            `actual_version` text,`optional` numeric,`attr_type` text,`metadata` text);
        CREATE TABLE `meta` (`key` text,`type` text,`value` text,PRIMARY KEY (`key`));";

    fn file(folder: &Path, sql: &str) -> PathBuf {
        let path = folder.join("edgecore.db");
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch(TABLES).unwrap();
        conn.execute_batch(sql).unwrap();
        path
    }

    fn read(path: &Path) -> Result<KubeEdgeRows, StoreError> {
        let copy = path.with_extension("copy");
        let rows = read_kubeedge(path, &copy);
        for suffix in ["", "-wal", "-shm", "-journal"] {
            assert!(!beside(&copy, suffix).exists(), "a copy is left: {suffix}");
        }
        rows
    }

    fn keys(rows: &KubeEdgeRows) -> Vec<&str> {
        rows.metas.iter().map(|row| row.key.as_str()).collect()
    }

    #[test]
    fn a_row_that_cannot_be_read_costs_itself_and_has_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(
            folder.path(),
            "INSERT INTO meta VALUES ('d/pod/a', 'pod', '{}'), ('d/pod/torn', 'pod', CAST(x'ff00' AS TEXT)),
                ('d/pod/huge', 'pod', zeroblob(9000000)), ('d/pod/b', 'pod', CAST('{}' AS BLOB)), ('d/pod/c', 'pod', NULL);
             INSERT INTO device VALUES ('d/pump', 'pump', '', 'online', '2026-01-01 00:00:00');
             INSERT INTO device_twin (deviceid, name, expected, optional) VALUES ('d/pump', 'speed', '7', 1), ('d/pump', 'x', '', 0);",
        );
        let before = fs::read(&path).unwrap();
        let rows = read(&path).unwrap();
        assert_eq!(keys(&rows), ["d/pod/a", "d/pod/b", "d/pod/c"]);
        assert_eq!((rows.damaged, rows.uncounted.len()), (2, 0));
        assert!(rows.named[0].starts_with("meta `d/pod/torn`: it is not UTF-8"), "{:?}", rows.named);
        assert!(rows.named[1].starts_with("meta `d/pod/huge`: "), "{:?}", rows.named);
        assert_eq!((rows.devices[0].id.as_str(), rows.devices[0].state.as_str()), ("d/pump", "online"));
        assert_eq!(rows.twins[0].expected, "7");
        assert_eq!((rows.twins[0].optional, rows.twins[1].optional), (true, false));
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_only_its_log_has_is_read_and_the_log_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), "INSERT INTO meta VALUES ('d/pod/a', 'pod', '{}')");
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch("PRAGMA journal_mode = WAL; INSERT INTO meta VALUES ('d/pod/b', 'pod', '{}')")
            .unwrap();
        // As after a kill: the log was not moved.
        let killed = tempfile::tempdir().unwrap();
        for suffix in ["", "-wal"] {
            fs::copy(beside(&path, suffix), beside(&killed.path().join("edgecore.db"), suffix)).unwrap();
        }
        drop(conn);
        let path = killed.path().join("edgecore.db");
        let log = fs::read(beside(&path, "-wal")).unwrap();
        assert!(!log.is_empty());
        assert_eq!(keys(&read(&path).unwrap()), ["d/pod/a", "d/pod/b"]);
        assert_eq!(fs::read(beside(&path, "-wal")).unwrap(), log);
    }

    #[test]
    fn a_broken_page_costs_the_rows_that_lie_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), "");
        let conn = Connection::open(&path).unwrap();
        for number in 0..200 {
            let row = (format!("d/pod/{number}"), "pod", "x".repeat(1000));
            conn.execute("INSERT INTO meta VALUES (?1, ?2, ?3)", row).unwrap();
        }
        let page = "SELECT pageno FROM dbstat WHERE name = 'meta' AND pagetype = 'leaf' LIMIT 1 OFFSET 20";
        let page: i64 = conn.query_row(page, [], |row| row.get(0)).unwrap_or(40);
        drop(conn);
        let mut bytes = fs::read(&path).unwrap();
        let at = usize::try_from((page - 1) * 4096).unwrap();
        bytes[at..at + 4096].fill(0xa5);
        fs::write(&path, bytes).unwrap();
        let rows = read(&path).unwrap();
        let found = rows.metas.len();
        assert!((150..200).contains(&found), "{found}");
        assert!(!rows.uncounted.is_empty() || rows.damaged > 0, "the loss is said");
    }

    #[test]
    fn what_is_no_file_of_kubeedges_is_refused_and_nothing_of_it_runs() {
        let folder = tempfile::tempdir().unwrap();
        let words = |path: &Path| read(path).unwrap_err().to_string();
        assert!(matches!(read(&folder.path().join("none")), Err(StoreError::Missing { .. })));
        let path = folder.path().join("edgecore.db");
        fs::write(&path, "no database".repeat(1000)).unwrap();
        assert!(words(&path).contains("no database of KubeEdge's that can be read"), "{}", words(&path));
        fs::remove_file(&path).unwrap();
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch("CREATE TABLE meta (key TEXT, value BLOB, sum INTEGER)").unwrap();
        assert!(words(&path).contains("no table `meta`"), "{}", words(&path));
        // A view in a table's place runs what whoever planted it wants.
        conn.execute_batch(
            "DROP TABLE meta; CREATE VIEW meta AS SELECT 'a' AS key, 'pod' AS type, '{}' AS value",
        )
        .unwrap();
        let read = read(&path);
        assert!(read.as_ref().is_err() || read.as_ref().is_ok_and(|rows| rows.metas.is_empty()), "{read:?}");
        drop(conn);
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(matches!(self::read(&path), Err(StoreError::NotAFile { .. })));
    }

    #[test]
    fn its_file_is_told_from_a_store() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), "");
        assert!(is_kubeedges(&path));
        let own = folder.path().join("own.db");
        drop(crate::Store::open(&own, crate::Options::new([1; 16])).unwrap());
        assert!(!is_kubeedges(&own) && !is_kubeedges(&folder.path().join("none")));
        let before = fs::read(&path).unwrap();
        let refused = crate::Store::open(&path, crate::Options::new([1; 16])).unwrap_err();
        assert!(refused.to_string().contains("keadm join --from-kubeedge"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), before, "it is not set aside");
    }
}
