//! What stands on the page, and in its JSON.

use contract::edgepage::{DevicesView, LinkView, NodeView};
use serde::Serialize;

/// All of it. What is `None` was not answered in time.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Facts {
    /// The node's name.
    pub(crate) node: String,
    /// Which edgecore it is.
    pub(crate) version: &'static str,
    /// The node's clock, in seconds since 1970.
    pub(crate) unix: i64,
    /// For how long this edgecore has run.
    pub(crate) running_seconds: u64,
    pub(crate) link: Option<LinkView>,
    pub(crate) outbox: OutboxView,
    #[serde(rename = "nodeStatus")]
    pub(crate) node_view: Option<NodeView>,
    #[serde(rename = "deviceTwins")]
    pub(crate) devices: Option<DevicesView>,
}

/// What waits for the cloud.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OutboxView {
    /// How many reports.
    pub(crate) rows: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Up to how many rows telemetry is taken; status always is.
    pub(crate) rows_max: u64,
    /// The same in bytes.
    pub(crate) bytes_max: u64,
    /// Commits that the store has refused since edgecore began.
    pub(crate) refused: u64,
    /// Why the disk refused the last write, with the cure.
    pub(crate) disk_refuses: Option<String>,
    /// Bytes of the store's file and log.
    pub(crate) store_bytes: Option<u64>,
    /// The report that has waited for longest; `None`: there is none, or it could not be read.
    pub(crate) oldest: Option<OldestReport>,
}

/// The report that has waited for longest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OldestReport {
    /// status, event or telemetry.
    pub(crate) class: &'static str,
    /// What it is about.
    pub(crate) key: String,
    /// Of when it is, in seconds since 1970 by the node's clock, where it says so.
    pub(crate) unix: Option<i64>,
}
