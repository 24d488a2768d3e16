//! One step of a batch against the open transaction.

use std::borrow::Cow;

use rusqlite::{Connection, OptionalExtension};

use crate::checksum::{bound_to, sealed_sum, sum};
use crate::layout::{
    ModuleRowColumns, OBJECTS_TABLE, OUTBOX_TABLE, ObjectColumns, OutboxColumns, ROWS_TABLE,
};
use crate::node_key::NodeKey;
use crate::state::Usage;
use crate::{Class, Options, OutboxQueue, StoreError, Write, plan, read};

const PUT_OBJECT: &str = "INSERT INTO objects \
    (resource, namespace, name, uid, content_hash, resource_version, json, revision, sum) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) \
    ON CONFLICT (resource, namespace, name) DO UPDATE SET uid = excluded.uid, content_hash = excluded.content_hash, \
    resource_version = excluded.resource_version, json = excluded.json, revision = excluded.revision, sum = excluded.sum";
const DELETE_OBJECT: &str = "DELETE FROM objects WHERE resource = ?1 AND namespace = ?2 AND name = ?3";
const PUT_ROW: &str = "INSERT INTO module_rows (kind, key1, key2, value, revision, sum) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
    ON CONFLICT (kind, key1, key2) DO UPDATE SET value = excluded.value, revision = excluded.revision, sum = excluded.sum";
const DELETE_ROW: &str = "DELETE FROM module_rows WHERE kind = ?1 AND key1 = ?2 AND key2 = ?3";
const DELETE_ROWS: &str = "DELETE FROM module_rows WHERE kind = ?1 AND key1 = ?2";
const ENQUEUE: &str = "INSERT INTO outbox (queue, class, key, body, revision, sum, queued) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
const REPLACED: &str = "DELETE FROM outbox WHERE class = 'status' AND key = ?1 \
    RETURNING octet_length(key) + octet_length(body)";
const CONFIRM: &str =
    "DELETE FROM outbox WHERE seq = ?1 RETURNING octet_length(key) + octet_length(body), queue = 'rules'";

/// All of the above; a file in which one of them does not compile is not ours.
pub(crate) const STATEMENTS: &[&str] =
    &[PUT_OBJECT, DELETE_OBJECT, PUT_ROW, DELETE_ROW, DELETE_ROWS, ENQUEUE, REPLACED, CONFIRM];

/// The bounds that writes are held to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    outbox_rows: u64,
    outbox_bytes: u64,
    row_bytes: usize,
}

impl From<&Options> for Bounds {
    fn from(options: &Options) -> Self {
        Bounds {
            outbox_rows: options.outbox_rows,
            outbox_bytes: options.outbox_bytes,
            row_bytes: options.row_bytes.min(read::ROW_BYTES),
        }
    }
}

/// Why a step was not done.
#[derive(Debug)]
pub(crate) enum ApplyError {
    Refused(StoreError),
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for ApplyError {
    fn from(error: rusqlite::Error) -> Self {
        ApplyError::Sql(error)
    }
}

/// What the steps of a batch share.
pub(crate) struct BatchContext<'a> {
    pub(crate) conn: &'a Connection,
    pub(crate) node_key: &'a NodeKey,
    pub(crate) bounds: &'a Bounds,
    /// The revision of the batch.
    pub(crate) revision: i64,
    /// The time in seconds since 1970; 0 if nobody told it.
    pub(crate) now: i64,
}

/// A row's value as it goes into the file, and its sum.
pub(crate) fn sealed<'a>(
    node_key: &NodeKey,
    secret: bool,
    table: &str,
    columns: &[&[u8]],
    value: &'a [u8],
    revision: i64,
) -> Result<(Cow<'a, [u8]>, i64), StoreError> {
    let with = |value: &[u8], sum: fn(&str, &[&[u8]], i64) -> i64| {
        let all: Vec<&[u8]> = columns.iter().copied().chain([value]).collect();
        sum(table, &all, revision)
    };
    if !secret {
        return Ok((Cow::Borrowed(value), with(value, sum)));
    }
    let value = node_key.seal(&bound_to(table, columns, revision), value);
    let value = value.ok_or_else(|| StoreError::NoKey { path: node_key.path().to_owned() })?;
    let sum = with(&value, sealed_sum);
    Ok((Cow::Owned(value), sum))
}

/// Does `write`, and keeps `usage` true.
pub(crate) fn apply(batch: &BatchContext<'_>, write: &Write, usage: &mut Usage) -> Result<(), ApplyError> {
    let BatchContext { conn, node_key, bounds, revision, .. } = *batch;
    match write {
        Write::PutObject { key, uid, content_hash, resource_version, json } => {
            let object = ObjectColumns::of(key, uid, content_hash, resource_version);
            let columns = object.bytes();
            let size = columns.iter().map(|c| c.len()).sum::<usize>() + json.len();
            bounds.fits(size, || format!("object {key}"))?;
            let secret = plan::seals_objects(&key.resource);
            let (value, sum) = sealed(node_key, secret, OBJECTS_TABLE, &columns, json, revision)
                .map_err(ApplyError::Refused)?;
            conn.prepare_cached(PUT_OBJECT)?.execute((
                object.resource,
                object.namespace,
                object.name,
                object.uid,
                object.content_hash,
                object.resource_version,
                &value,
                revision,
                sum,
            ))?;
        }
        Write::DeleteObject { key, uid } => {
            // A damaged row's uid proves nothing, so such a row goes.
            let held = read::object(conn, node_key, key)?.and_then(Result::ok).map(|object| object.uid);
            if uid.is_none() || held.is_none() || *uid == held {
                conn.prepare_cached(DELETE_OBJECT)?.execute((&key.resource, &key.namespace, &key.name))?;
            }
        }
        Write::PutRow { table, key1, key2, value } => {
            let kind = table.as_str();
            bounds.fits(key1.len() + key2.len() + value.len(), || format!("row {kind}/{key1}/{key2}"))?;
            let columns = ModuleRowColumns { kind, key1, key2 }.bytes();
            let secret = plan::seals_rows(*table);
            let (value, sum) = sealed(node_key, secret, ROWS_TABLE, &columns, value, revision)
                .map_err(ApplyError::Refused)?;
            conn.prepare_cached(PUT_ROW)?.execute((kind, key1, key2, &value, revision, sum))?;
        }
        Write::DeleteRow { table, key1, key2 } => {
            conn.prepare_cached(DELETE_ROW)?.execute((table.as_str(), key1, key2))?;
        }
        Write::DeleteRows { table, key1 } => {
            conn.prepare_cached(DELETE_ROWS)?.execute((table.as_str(), key1))?;
        }
        Write::Enqueue { queue, class, key, body } => enqueue(batch, (*queue, *class), key, body, usage)?,
        Write::Confirm { seqs } => confirm(conn, seqs, usage)?,
    }
    Ok(())
}

/// What telemetry may fill of a bound: the last eighth is kept for events, which a flood of telemetry must not silence.
pub(crate) const fn telemetry_share(bound: u64) -> u64 {
    bound - bound / 8
}

/// What the queue of rules may fill of a bound: half of what telemetry may, so that a target that is away for long silences
/// nothing else.
const fn rule_share(bound: u64) -> u64 {
    telemetry_share(bound) / 2
}

fn enqueue(
    batch: &BatchContext<'_>,
    (queue, class): (OutboxQueue, Class),
    key: &str,
    body: &[u8],
    usage: &mut Usage,
) -> Result<(), ApplyError> {
    let BatchContext { conn, bounds, revision, now, .. } = *batch;
    let size = key.len() + body.len();
    bounds.fits(size, || format!("report {}/{key}", class.as_str()))?;
    match class {
        // There are as many of these as there are things to report on, so they always fit.
        Class::Status => {
            let replaced =
                conn.prepare_cached(REPLACED)?.query_row([key], |row| row.get::<_, i64>(0)).optional()?;
            usage.remove(replaced);
        }
        Class::Event | Class::Telemetry if boundless() => {}
        Class::Event | Class::Telemetry => {
            let share = |bound: u64| if class == Class::Telemetry { telemetry_share(bound) } else { bound };
            let (rows, bytes) = (share(bounds.outbox_rows), share(bounds.outbox_bytes));
            if usage.rows >= rows {
                return Err(full("outbox_rows", rows));
            }
            if usage.bytes.saturating_add(size as u64) > bytes {
                return Err(full("outbox_bytes", bytes));
            }
            let (rows, bytes) = (rule_share(bounds.outbox_rows), rule_share(bounds.outbox_bytes));
            if queue == OutboxQueue::Rules && usage.rule_rows >= rows {
                return Err(full("outbox_rows", rows));
            }
            if queue == OutboxQueue::Rules && usage.rule_bytes.saturating_add(size as u64) > bytes {
                return Err(full("outbox_bytes", bytes));
            }
        }
    }
    let report = OutboxColumns::of(queue, class, key);
    let [first, second, third] = report.bytes();
    let sum = sum(OUTBOX_TABLE, &[first, second, third, body], revision);
    conn.prepare_cached(ENQUEUE)?.execute((report.queue, report.class, key, body, revision, sum, now))?;
    usage.rows += 1;
    usage.bytes += size as u64;
    if queue == OutboxQueue::Rules {
        usage.rule_rows += 1;
        usage.rule_bytes += size as u64;
    }
    Ok(())
}

/// Whether the bound is left out on purpose.
#[cfg(feature = "defects")]
fn boundless() -> bool {
    beehive::defect::is_planted(beehive::defect::Defect::BoundlessOutbox)
}

#[cfg(not(feature = "defects"))]
const fn boundless() -> bool {
    false
}

/// Deletes exactly these rows of the outbox.
pub(crate) fn confirm(conn: &Connection, seqs: &[i64], usage: &mut Usage) -> rusqlite::Result<()> {
    let mut statement = conn.prepare_cached(CONFIRM)?;
    for seq in seqs {
        let removed = statement.query_row([seq], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let Some((bytes, is_rules)) = removed else { continue };
        usage.remove(Some(bytes));
        if is_rules {
            usage.remove_rule(bytes);
        }
    }
    Ok(())
}

fn full(bound: &'static str, limit: u64) -> ApplyError {
    ApplyError::Refused(StoreError::Full { bound, limit })
}

impl Usage {
    fn remove(&mut self, bytes: Option<i64>) {
        if let Some(bytes) = bytes {
            self.rows = self.rows.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(u64::try_from(bytes).unwrap_or(0));
        }
    }
}

impl Usage {
    fn remove_rule(&mut self, bytes: i64) {
        self.rule_rows = self.rule_rows.saturating_sub(1);
        self.rule_bytes = self.rule_bytes.saturating_sub(u64::try_from(bytes).unwrap_or(0));
    }
}

impl Bounds {
    fn fits(&self, size: usize, what: impl FnOnce() -> String) -> Result<(), ApplyError> {
        if size <= self.row_bytes {
            return Ok(());
        }
        Err(ApplyError::Refused(StoreError::TooLarge { what: what(), size, limit: self.row_bytes }))
    }
}
