//! Reads: every row is held against its checksum before anyone sees it.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};

use crate::checksum::{bound_to, sealed_sum, sum};
use crate::layout::{
    KEY_WIDTH, KnownOrUnknown, MODULE_ROW_SUMMED, ModuleRowColumns, OBJECT_SUMMED, OBJECTS_TABLE,
    OUTBOX_SUMMED, OUTBOX_TABLE, ObjectColumns, OutboxColumns, ROWS_TABLE, queue_name,
};
use crate::node_key::NodeKey;
use crate::state::{Damage, DamagedRow, Usage};
use crate::{ObjectKey, ObjectVersion, OutboxQueue, OutboxRow, Row, StoredObject, Table, plan};

/// How many bytes of a column are read.
macro_rules! column_bytes {
    () => {
        8_388_608
    };
}

/// Twice what a row may have by default, so that a release to come can have larger ones. A longer column is in no row that a store
/// has written, and is not read: SQLite sees its length without it.
pub(crate) const COLUMN_BYTES: i32 = column_bytes!();
/// The largest row that is written: SQLite's own part of it and a seal are beside it.
pub(crate) const ROW_BYTES: usize = column_bytes!() - 4096;

/// These columns, or nothing in the place of one that is too long.
macro_rules! bounded {
    ($($column:literal)+) => {
        concat!($("iif(octet_length(", $column, ") <= ", column_bytes!(), ", ", $column, ", NULL), "),+)
    };
}

macro_rules! object_columns {
    () => {
        concat!(
            bounded!("resource" "namespace" "name" "uid" "content_hash" "resource_version" "json"),
            "revision, sum"
        )
    };
}

macro_rules! module_row_columns {
    () => {
        concat!(bounded!("kind" "key1" "key2" "value"), "revision, sum")
    };
}

macro_rules! outbox_columns {
    () => {
        concat!(bounded!("queue" "class" "key" "body"), "revision, sum, seq")
    };
}

pub(crate) const OBJECT_COLUMNS: &str = object_columns!();
pub(crate) const MODULE_ROW_COLUMNS: &str = module_row_columns!();
pub(crate) const OUTBOX_COLUMNS: &str = concat!(outbox_columns!(), ", queued");

const OBJECT: &str = concat!(
    "SELECT ",
    object_columns!(),
    " FROM objects WHERE resource = ?1 AND namespace = ?2 AND name = ?3"
);
const OBJECTS: &str = concat!(
    "SELECT ",
    object_columns!(),
    " FROM objects WHERE resource = ?1 AND (?2 IS NULL OR namespace = ?2) ORDER BY namespace, name"
);
pub(crate) const ALL_OBJECTS: &str =
    concat!("SELECT ", object_columns!(), ", rowid FROM objects ORDER BY resource, namespace, name");
const KEYS: &str = "SELECT namespace, name FROM objects WHERE resource = ?1 ORDER BY namespace, name";
const ROW: &str = concat!(
    "SELECT ",
    module_row_columns!(),
    " FROM module_rows WHERE kind = ?1 AND key1 = ?2 AND key2 = ?3"
);
const ROWS: &str = concat!(
    "SELECT ",
    module_row_columns!(),
    " FROM module_rows WHERE kind = ?1 AND (?2 IS NULL OR key1 = ?2) ORDER BY key1, key2"
);
pub(crate) const ALL_ROWS: &str =
    concat!("SELECT ", module_row_columns!(), ", rowid FROM module_rows ORDER BY kind, key1, key2");
pub(crate) const OUTBOX: &str = concat!("SELECT ", outbox_columns!(), ", queued FROM outbox ORDER BY seq");
pub(crate) const QUEUE: &str =
    concat!("SELECT ", outbox_columns!(), " FROM outbox WHERE queue = ?1 AND seq > ?2 ORDER BY seq");
/// By the index of what replaces its elder; with `queue` as it stands the one of queues would be taken, and all of it sorted.
pub(crate) const TURN: &str = concat!(
    "SELECT ",
    outbox_columns!(),
    " FROM outbox WHERE class = 'status' AND +queue = ?1 AND key > ?2 ORDER BY key"
);
/// Where the key stands in all three.
const KEY_COLUMN: usize = 2;
pub(crate) const NEWEST: &str = "SELECT max(seq) FROM outbox WHERE queue = ?1";
const USAGE: &str = "SELECT count(*), coalesce(sum(octet_length(key) + octet_length(body)), 0), \
    coalesce(sum(queue = 'rules'), 0), coalesce(sum((queue = 'rules') * (octet_length(key) + octet_length(body))), 0) FROM outbox";

/// All of the above; a file in which one of them does not compile is not ours.
pub(crate) const STATEMENTS: &[&str] =
    &[OBJECT, OBJECTS, ALL_OBJECTS, KEYS, ROW, ROWS, ALL_ROWS, OUTBOX, QUEUE, TURN, NEWEST, USAGE];

/// A row that held, or what is wrong with it.
pub(crate) type Checked<T> = Result<T, DamagedRow>;

pub(crate) fn object(
    conn: &Connection,
    node_key: &NodeKey,
    key: &ObjectKey,
) -> rusqlite::Result<Option<Checked<StoredObject>>> {
    let by = (&key.resource, &key.namespace, &key.name);
    conn.prepare_cached(OBJECT)?.query_row(by, |row| object_of(row, node_key)).optional()
}

pub(crate) fn objects(
    conn: &Connection,
    node_key: &NodeKey,
    resource: &str,
    namespace: Option<&str>,
) -> rusqlite::Result<Vec<Checked<StoredObject>>> {
    conn.prepare_cached(OBJECTS)?.query_map((resource, namespace), |row| object_of(row, node_key))?.collect()
}

/// What is under each of these keys, all at one moment.
pub(crate) fn look_up(
    conn: &Connection,
    node_key: &NodeKey,
    keys: &[ObjectKey],
) -> rusqlite::Result<Vec<Option<Checked<StoredObject>>>> {
    // It only reads, so there is nothing to commit.
    let moment = conn.unchecked_transaction()?;
    keys.iter().map(|key| object(&moment, node_key, key)).collect()
}

/// The keys of a resource, by namespace and name. Their rows are not read.
pub(crate) fn keys(conn: &Connection, resource: &str) -> rusqlite::Result<Vec<ObjectKey>> {
    let key = |row: &rusqlite::Row<'_>| {
        Ok(ObjectKey::new(resource, row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    };
    conn.prepare_cached(KEYS)?.query_map([resource], key)?.collect()
}

/// Keys, uids and hashes. What is damaged has its key alone, so that the cloud sends it again or has it deleted.
pub(crate) fn versions(
    conn: &Connection,
    node_key: &NodeKey,
) -> rusqlite::Result<(Vec<ObjectVersion>, Vec<DamagedRow>)> {
    let mut statement = conn.prepare_cached(ALL_OBJECTS)?;
    let mut found = statement.query([])?;
    let (mut versions, mut damaged) = (Vec::new(), Vec::new());
    while let Some(row) = found.next()? {
        match object_of(row, node_key)? {
            Ok(StoredObject { key, uid, content_hash, .. }) => {
                versions.push(ObjectVersion { key, uid, content_hash });
            }
            Err(row_damaged) => {
                damaged.push(row_damaged);
                if let (Some(resource), Some(namespace), Some(name)) =
                    (text(row, 0), text(row, 1), text(row, 2))
                {
                    let key = ObjectKey { resource, namespace, name };
                    versions.push(ObjectVersion { key, uid: String::new(), content_hash: String::new() });
                }
            }
        }
    }
    Ok((versions, damaged))
}

pub(crate) fn row(
    conn: &Connection,
    node_key: &NodeKey,
    table: Table,
    key1: &str,
    key2: &str,
) -> rusqlite::Result<Option<Checked<Row>>> {
    let by = (table.as_str(), key1, key2);
    conn.prepare_cached(ROW)?.query_row(by, |row| Ok(row_of(row, node_key)?.map(|(_, row)| row))).optional()
}

pub(crate) fn rows(
    conn: &Connection,
    node_key: &NodeKey,
    table: Table,
    key1: Option<&str>,
) -> rusqlite::Result<Vec<Checked<Row>>> {
    let one = |row: &rusqlite::Row<'_>| Ok(row_of(row, node_key)?.map(|(_, row)| row));
    conn.prepare_cached(ROWS)?.query_map((table.as_str(), key1), one)?.collect()
}

/// The first rows of a part of the outbox, and the seqs of damaged ones on the way.
#[derive(Debug, Default)]
pub(crate) struct OutboxHead {
    pub(crate) rows: Vec<OutboxRow>,
    pub(crate) damaged: Vec<(i64, DamagedRow)>,
}

/// Which rows of the outbox are looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) enum OutboxPart<'a> {
    /// All.
    Whole,
    /// Those of one queue behind a seq.
    Queue(OutboxQueue, i64),
    /// The same, without those of these keys.
    QueueWithout(OutboxQueue, i64, &'a [String]),
    /// Those of one queue that replace their elders, by their keys, behind one.
    Turn(OutboxQueue, &'a str),
}

/// The head of a part of the outbox. Rows of a kind that this release does not know are passed
/// over and stay.
pub(crate) fn outbox_head(
    conn: &Connection,
    part: OutboxPart<'_>,
    limit_rows: usize,
    limit_bytes: usize,
) -> rusqlite::Result<OutboxHead> {
    let mut head = OutboxHead::default();
    let mut bytes = 0_usize;
    let mut statement = conn.prepare_cached(match part {
        OutboxPart::Whole => OUTBOX,
        OutboxPart::Queue(..) | OutboxPart::QueueWithout(..) => QUEUE,
        OutboxPart::Turn(..) => TURN,
    })?;
    let mut found = match part {
        OutboxPart::Whole => statement.query([])?,
        OutboxPart::Queue(queue, after) | OutboxPart::QueueWithout(queue, after, _) => {
            statement.query((queue_name(queue), after))?
        }
        OutboxPart::Turn(queue, after) => statement.query((queue_name(queue), after))?,
    };
    while head.rows.len() < limit_rows {
        let Some(row) = found.next()? else { break };
        // Of a row that is left out the body is not read. A key that is no text is damage, and told below.
        if let OutboxPart::QueueWithout(_, _, without) = part
            && row.get_ref(KEY_COLUMN)?.as_str().is_ok_and(|key| without.iter().any(|left| left == key))
        {
            continue;
        }
        match outbox_of(row)? {
            (_, Ok(KnownOrUnknown::Known(out))) => {
                bytes = bytes.saturating_add(out.key.len() + out.body.len());
                // One row always goes, or a large one would wait for ever.
                if bytes > limit_bytes && !head.rows.is_empty() {
                    break;
                }
                head.rows.push(out);
            }
            (_, Ok(KnownOrUnknown::Unknown(_))) => {}
            (seq, Err(damaged)) => head.damaged.push((seq, damaged)),
        }
    }
    Ok(head)
}

/// The seq of the newest row of a queue; 0 if there is none.
pub(crate) fn newest(conn: &Connection, queue: OutboxQueue) -> rusqlite::Result<i64> {
    let seq: Option<i64> = conn.prepare_cached(NEWEST)?.query_row([queue_name(queue)], |row| row.get(0))?;
    Ok(seq.unwrap_or(0))
}

pub(crate) fn usage(conn: &Connection) -> rusqlite::Result<Usage> {
    conn.query_row(USAGE, [], |row| {
        let number = |column| row.get::<_, i64>(column).map(|value| u64::try_from(value).unwrap_or(0));
        Ok(Usage { rows: number(0)?, bytes: number(1)?, rule_rows: number(2)?, rule_bytes: number(3)? })
    })
}

/// An object from the first nine columns.
pub(crate) fn object_of(
    row: &rusqlite::Row<'_>,
    node_key: &NodeKey,
) -> rusqlite::Result<Checked<StoredObject>> {
    let intact = match intact::<OBJECT_SUMMED>(row, OBJECTS_TABLE)? {
        Ok(intact) => intact,
        Err(damaged) => return Ok(Err(damaged)),
    };
    let Some(columns) = ObjectColumns::read(&intact.columns) else {
        return Ok(Err(intact.damaged(Damage::Checksum)));
    };
    if plan::seals_objects(columns.resource) && !intact.sealed {
        return Ok(Err(intact.damaged(Damage::Unsealed)));
    }
    let Some(json) = intact.value(node_key) else { return Ok(Err(intact.damaged(Damage::Sealed))) };
    Ok(Ok(columns.object(json, intact.stamp())))
}

/// A row of a module from the first six columns, with its table.
pub(crate) fn row_of(
    row: &rusqlite::Row<'_>,
    node_key: &NodeKey,
) -> rusqlite::Result<Checked<(KnownOrUnknown<Table>, Row)>> {
    let intact = match intact::<MODULE_ROW_SUMMED>(row, ROWS_TABLE)? {
        Ok(intact) => intact,
        Err(damaged) => return Ok(Err(damaged)),
    };
    let Some(columns) = ModuleRowColumns::read(&intact.columns) else {
        return Ok(Err(intact.damaged(Damage::Checksum)));
    };
    let table = columns.table();
    match &table {
        KnownOrUnknown::Known(known) if plan::seals_rows(*known) && !intact.sealed => {
            return Ok(Err(intact.damaged(Damage::Unsealed)));
        }
        // Nobody reads its value here, so the key that it may be sealed under is not asked for.
        KnownOrUnknown::Unknown(_) => return Ok(Ok((table, columns.row(Vec::new(), intact.stamp())))),
        KnownOrUnknown::Known(_) => {}
    }
    let Some(value) = intact.value(node_key) else { return Ok(Err(intact.damaged(Damage::Sealed))) };
    Ok(Ok((table, columns.row(value, intact.stamp()))))
}

/// A row of the outbox from the first seven columns: its seq, and if it held the row.
pub(crate) fn outbox_of(
    row: &rusqlite::Row<'_>,
) -> rusqlite::Result<(i64, Checked<KnownOrUnknown<OutboxRow>>)> {
    let seq = row.get(6)?;
    let numbered = |damaged| DamagedRow { seq: Some(seq), ..damaged };
    let intact = match intact::<OUTBOX_SUMMED>(row, OUTBOX_TABLE)? {
        Ok(intact) => intact,
        Err(damaged) => return Ok((seq, Err(numbered(damaged)))),
    };
    let [.., body] = intact.columns;
    let Some(columns) = OutboxColumns::read(&intact.columns) else {
        return Ok((seq, Err(numbered(intact.damaged(Damage::Checksum)))));
    };
    Ok((seq, Ok(columns.report(seq, body))))
}

/// A row whose sum is right: its columns, of which the last is the value.
pub(crate) struct IntactRow<'a, const N: usize> {
    table: &'static str,
    pub(crate) columns: [&'a [u8]; N],
    pub(crate) revision: i64,
    pub(crate) sealed: bool,
}

impl<const N: usize> IntactRow<'_, N> {
    /// The value; `None` if the node key does not open it.
    pub(crate) fn value(&self, node_key: &NodeKey) -> Option<Vec<u8>> {
        let (value, rest) = self.columns.split_last()?;
        if self.sealed {
            node_key.open(&bound_to(self.table, rest, self.revision), value)
        } else {
            Some(value.to_vec())
        }
    }

    pub(crate) fn damaged(&self, damage: Damage) -> DamagedRow {
        DamagedRow::new(self.table, &self.columns[..KEY_WIDTH], damage)
    }

    /// The revision as the handle knows it.
    pub(crate) fn stamp(&self) -> u64 {
        u64::try_from(self.revision).unwrap_or(0)
    }
}

/// The first `N` columns and the revision after them, if the sum behind that is right.
pub(crate) fn intact<'a, const N: usize>(
    row: &'a rusqlite::Row<'_>,
    table: &'static str,
) -> rusqlite::Result<Checked<IntactRow<'a, N>>> {
    let mut columns: [&[u8]; N] = [&[]; N];
    let (mut whole, mut damage) = (true, Damage::Checksum);
    for (at, column) in columns.iter_mut().enumerate() {
        match row.get_ref(at)? {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => *column = bytes,
            // No store writes it, so it stands for a column that is too long.
            ValueRef::Null => (whole, damage) = (false, Damage::Size),
            ValueRef::Integer(_) | ValueRef::Real(_) => whole = false,
        }
    }
    let damaged = || DamagedRow::new(table, &columns[..KEY_WIDTH], damage);
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
    Ok(Ok(IntactRow { table, columns, revision, sealed }))
}

fn text(row: &rusqlite::Row<'_>, at: usize) -> Option<String> {
    row.get(at).ok()
}
