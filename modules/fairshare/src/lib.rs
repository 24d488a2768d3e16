//! What one node may have of CloudCore: a queue of its own with a bound, and a rate.
//!
//! Whatever a node sends is served from that node's own queue: what comes when it is full is answered at once and not kept.
//! So a node that floods waits for itself alone, and what it can make CloudCore hold is known.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod queues;
mod repeated;
mod reports;
mod skipped;
mod traffic;

pub use queues::{NodeQueue, NodeQueues};
pub use repeated::RepeatedReasons;
pub use reports::{
    Delivery, RefusedReport, ReportQueues, ReportSender, ReportWriter, SortedReports, sort_reports,
};
pub use skipped::{SkippedEvents, rows_skipped};
pub use traffic::{Traffic, json_bytes};

/// Whether the `count`th time is one to log: the first, the second, the fourth, and so on. What a node does wrong it may do as
/// often as it likes, and the log is not its own.
pub fn is_logged(count: u64) -> bool {
    count.is_power_of_two()
}
