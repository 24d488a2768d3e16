//! The one SQLite file of a node: writer, readers and migrations.
//!
//! # Owns
//! `edgecore.db` with its write-ahead log, its lock file and its node key `edgecore.db.key`, the files quarantined beside
//! it, and the one thread that writes.
//!
//! # Accepts
//! Batches of [`Write`]s from any thread. A batch is one transaction or nothing; [`Store::commit`] answers after the
//! COMMIT returned, and what it confirmed survives a power cut. Batches that wait together share one transaction, each
//! in a savepoint of its own. Reads go past the writer on connections of their own and see the last commit. Beside it
//! all a person may look with a [`StoreInspector`], from another process too.
//!
//! # Tells
//! Nobody. How the file was found is in [`Store::opened`], what goes on and why the disk refuses in
//! [`Store::snapshot`], what damage destroyed in [`Store::damaged_rows`] (objects: the cloud sends them again) and
//! [`Store::lost_rows`] (the rest), that the file broke or was taken away while it was open in [`Store::broken`],
//! and that its writer has died in [`Store::writer_ended`].
//!
//! # Keeps across a restart
//! Everything that was committed, the store-wide revision and the incarnation of the file. A file that SQLite's
//! integrity check refuses, whose log lost commits that were answered or is gone though the last run did not end, or that holds what
//! no store has (a trigger, a view, a virtual table: none of them runs; an index or a constraint that refuses rows) is quarantined as `edgecore.db.broken-<n>`; its
//! readable rows move into a fresh file with a new incarnation, and those of which only the key is left are named. Where
//! neither row nor key is left it is said that how many there were is not known. No row comes back that was removed, unless
//! the commit that removed it is lost with the log. An empty file whose key is there is a loss, too ([`Opened::Emptied`]).
//!
//! The file names the node that it is of ([`Options::node`]); that of another one is refused, broken or not, and stays as it is.
//!
//! The file has a version, and its rows are structs of their own per version (`layout.rs`). Rows of a kind that this
//! release does not know were written by a newer one that was rolled back: they are kept, counted and named in
//! [`Store::unknown_rows`], and hold up nothing.
//!
//! Secrets and tokens are sealed under the node key, each bound to its row; which rows those are stands in `plan.rs`.
//! Without the key, or with another one, they count as damaged and come again from the cloud, as does a secret that
//! stands in the open.
//!
//! KubeEdge's `edgecore.db` is no broken store: it is refused as it is, and [`read_kubeedge`] reads a copy of it.
//!
//! A copy for a backup is made beside a running store ([`back_up`]), and goes back while nobody has it ([`HeldStore::put_back`]).
//!
//! Files that are removed, renamed or replaced while they are open are put back with all that was committed (`exchanged.rs`).
//!
//! On a disk that takes no writes the file is opened all the same: it is read, each commit is refused with the reason
//! and looks whether the disk takes writes by now.
//!
//! # Never
//! Never answers with a row whose checksum is wrong, never runs what a file says, never follows a link in the place of one of its files, never writes a secret in the open, never deletes a broken file
//! before newer ones take its place, never takes a value into memory that is larger than any store writes, never writes while nothing changes, and never lets a full disk or a read-only file
//! system end the writer.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod apply;
mod audit;
mod block_on;
mod btree;
mod checksum;
mod connection;
mod copy;
mod error;
mod exchanged;
mod files;
mod foreign;
mod holders;
mod inspector;
mod kubeedge;
mod layout;
mod mended_copy;
mod node_key;
mod numbers;
mod opening;
mod plan;
mod quarantine;
mod read;
mod readers;
mod rows;
mod salvage;
mod schema;
mod soundness;
mod state;
mod store;
mod wal;
mod writer;

pub use apimachinery::ObjectKey;
pub use contract::ObjectVersion;
pub use contract::report::OutboxQueue;
pub use copy::back_up;
pub use error::StoreError;
pub use files::{HeldStore, hold};
pub use holders::Holders;
pub use inspector::{InspectedReport, InspectedRow, StoreInspector};
pub use kubeedge::{DeviceRow, KubeEdgeRows, MetaRow, TwinRow, read_kubeedge};
pub use opening::Opened;
pub use rows::{Class, Committed, Lookup, OutboxRow, Row, StoredObject, Table, UnknownRows, Write};
pub use state::{Damage, DamagedRow, Snapshot};
pub use store::{Options, StandInDisk, Store, WallClock};
