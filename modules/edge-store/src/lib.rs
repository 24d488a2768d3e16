//! The one SQLite file of a node: writer, readers and migrations.
//!
//! # Owns
//! `edgecore.db` with its write-ahead log and lock file, the files set aside beside it, and the one thread that writes.
//!
//! # Accepts
//! Batches of [`Write`]s from any thread. A batch is one transaction or nothing; [`Store::commit`] answers after the
//! COMMIT returned, and what it confirmed survives a power cut. Batches that wait together share one transaction, each
//! in a savepoint of its own. Reads go past the writer on connections of their own and see the last commit.
//!
//! # Tells
//! Nobody. How the file was found is in [`Store::opened`], what goes on in [`Store::snapshot`], and which rows failed
//! their checksum in [`Store::damaged_rows`].
//!
//! # Keeps across a restart
//! Everything that was committed, the store-wide revision and the incarnation of the file. A file that SQLite's
//! integrity check refuses is set aside as `edgecore.db.broken-<n>`; its readable rows move into a fresh file with a
//! new incarnation.
//!
//! # Never
//! Never answers with a row whose checksum is wrong, never deletes a broken file before newer ones take its place, and
//! never lets a full disk or a read-only file system end the writer.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod apply;
mod checksum;
mod error;
mod opening;
mod read;
mod rows;
mod salvage;
mod schema;
mod state;
mod store;
mod wait;
mod writer;

pub use error::StoreError;
pub use opening::Opened;
pub use rows::{Class, Committed, ObjectKey, OutboxRow, Row, StoredObject, Table, Write};
pub use state::{Damaged, Snapshot};
pub use store::{Options, Store};
