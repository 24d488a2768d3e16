//! The node's store with many writers at once, beside one transaction for each write with the same durability.

use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use edge_store::{ObjectKey, Options, Store, Write};
use futures::StreamExt as _;
use rusqlite::{Connection, params};

use crate::stats::Summary;
use crate::table::{Bar, Row, Table, say};

/// Writers that wait for their commits at the same time: a batch of statuses on a full node.
const WRITERS: usize = 64;
const ROUNDS: usize = 15;
const WRITES: u32 = 1024;
/// Writes a round where each waits for the one before.
const ALONE: u32 = 128;
/// About a pod's status.
const BODY: usize = 1024;
/// Different objects, so that rows are replaced as they are on a node.
const OBJECTS: u32 = 256;

pub(crate) fn run() -> Result<Table> {
    say("\nstore: committed writes …");
    let folder = tempfile::tempdir().context("make a folder")?;
    let store = Store::open(folder.path().join("edgecore.db"), Options::new([7; 16]))?;
    let plain = plain(&folder.path().join("plain.db"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let (mut many, mut one, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    // The first round warms up and does not count.
    for round in 0..=ROUNDS {
        // No write repeats what is there: SQLite would leave it out.
        let first = u32::try_from(round)? * WRITES * 2;
        let times = [
            runtime.block_on(commit(&store, WRITERS, first..first + WRITES))?,
            runtime.block_on(commit(&store, 1, first + WRITES..first + WRITES + ALONE))?,
            commit_plain(&plain, first..first + ALONE)?,
        ];
        if round > 0 {
            many.push(times[0]);
            one.push(times[1]);
            bare.push(times[2]);
        }
    }
    let of = |samples: &[f64]| Summary::of(samples).context("no samples");
    let mut table = Table::new("store: a committed write of 1 KiB, synced to disk");
    let name = "a transaction each";
    for (what, ours) in [("64 writers in flight", &many), ("one writer", &one)] {
        let reference = Some((name, of(&bare)?));
        let row = Row { what: what.to_owned(), unit: "µs", ours: of(ours)?, reference, bar: Bar::None };
        table.add(row);
    }
    table.print();
    say(&format!(
        "committed writes a second: {:.0} with 64 writers, {:.0} with one, {:.0} bare",
        1e6 / of(&many)?.median,
        1e6 / of(&one)?.median,
        1e6 / of(&bare)?.median
    ));
    Ok(table)
}

/// Microseconds a write.
async fn commit(store: &Store, writers: usize, writes: Range<u32>) -> Result<f64> {
    let begun = Instant::now();
    let confirmed = futures::stream::iter(writes.clone())
        .map(|number| {
            store.commit(vec![Write::PutObject {
                key: ObjectKey::new("pods", "default", object(number)),
                uid: format!("uid-{number}"),
                content_hash: number.to_string(),
                resource_version: number.to_string(),
                json: body(number),
            }])
        })
        .buffer_unordered(writers)
        .filter(|done| std::future::ready(done.is_ok()))
        .count()
        .await;
    if confirmed != writes.len() {
        bail!("{confirmed} of {} writes were confirmed", writes.len());
    }
    Ok(a_write(begun, &writes))
}

fn a_write(begun: Instant, writes: &Range<u32>) -> f64 {
    begun.elapsed().as_secs_f64() * 1e6 / f64::from(writes.end - writes.start)
}

fn body(number: u32) -> Vec<u8> {
    format!("{number:>BODY$}").into_bytes()
}

fn object(number: u32) -> String {
    format!("pod-{}", number % OBJECTS)
}

/// A database as anyone would set it up who wants what the store promises: a log, synced with every commit.
fn plain(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        bail!("the journal is {mode}, not WAL");
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch(
        "CREATE TABLE objects (resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
         uid TEXT NOT NULL, resource_version TEXT NOT NULL, json BLOB NOT NULL,
         PRIMARY KEY (resource, namespace, name)) STRICT",
    )?;
    Ok(connection)
}

fn commit_plain(connection: &Connection, writes: Range<u32>) -> Result<f64> {
    let begun = Instant::now();
    for number in writes.clone() {
        let mut put = connection.prepare_cached(
            "INSERT INTO objects VALUES ('pods', 'default', ?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET
             uid = excluded.uid, resource_version = excluded.resource_version, json = excluded.json",
        )?;
        put.execute(params![object(number), format!("uid-{number}"), number.to_string(), body(number)])?;
    }
    Ok(a_write(begun, &writes))
}
