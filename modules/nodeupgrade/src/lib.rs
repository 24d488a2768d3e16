//! Exchanges a node's programs or values of its settings, and puts them back where the new ones do not hold.
//!
//! # Owns
//! The folders `upgrade` (journal, lock, report) and `backup` beside the node's store, and beside each program the hidden files that wait
//! for its name or were kept for the way back.
//! # Accepts
//! An order to upgrade ([`prepare`]), to go back to a backup ([`prepare_rollback`]), or for other values in `edgecore.yaml`
//! ([`prepare_settings`]); that a prepared one is done ([`supervise`]); that
//! an unfinished one is taken up before edgecore starts ([`take_up`]).
//! # Tells
//! Whoever calls, a line for each check and phase; the journal, what was done and why it ended so ([`status`]).
//! # Keeps across a restart
//! Everything: the phase is on the disk before it is done, and can be done again wherever it was cut off.
//! # Never
//! Never leaves a program's name without a whole program, never unpacks anything by a name that an archive says, never runs a program
//! before its sum and its signature, where they are given, and its head have been looked at, all of one copy that nobody else may write,
//! never ends with neither the old nor the new version
//! without saying so, never changes the node's settings in an upgrade.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod backup;
mod boot;
mod checks;
mod exchange;
mod fetch;
mod files;
mod forget;
mod health;
mod image;
mod inherited;
mod journal;
mod journal_folder;
mod node;
mod order;
mod plan;
mod prepare;
mod process;
mod program;
mod rollback;
mod run;
mod service;
mod settings;
mod signature;
mod status;
mod store_lock;
mod supervisor;
mod trusted;
mod version;
mod working;

pub use backup::{BackedUp, Backup, list as backups};
pub use exchange::{Exchange, When};
pub use fetch::{Source, Trust};
pub use forget::forget;
pub use journal::{Bar, Before, Event, Inherited, Journal, Launch, Limit, Log, StepRecord};
pub use journal_folder::{JournalFolder, JournalLock};
pub use order::Order;
pub use plan::{Finder, Outcome, Phase, Progress};
pub use prepare::{Prepared, back_up, prepare};
pub use program::says_version;
pub use rollback::prepare_rollback;
pub use service::{has_systemd, systemctl};
pub use settings::{Fits, prepare_settings};
pub use status::lines as status;
pub use store_lock::runs_on as edgecore_runs_on;
pub use supervisor::{TakenUp, end_unwatched, supervise, take_up};
pub use trusted::settings as trusted_settings;
pub use version::Version;
