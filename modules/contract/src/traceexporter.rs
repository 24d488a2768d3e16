//! What the exporter of traces accepts.

use std::time::Duration;

use beehive::Message;

/// What became of spans that were posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportOutcome {
    /// They are the collector's, all of them but so many.
    Taken {
        /// How many it has rejected, and why.
        rejected: Option<(u64, String)>,
    },
    /// They wait: the collector cannot be reached, or takes nothing now.
    Later {
        /// Why.
        why: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// They are given up: it will never take them.
    Refused(String),
}

/// Messages to the exporter of traces.
#[derive(Debug)]
pub enum TraceExporterMsg {
    /// Time to look whether spans wait.
    Tick,
    /// A post has ended.
    Exported {
        /// How many spans were in it.
        spans: usize,
        /// What became of them.
        outcome: ExportOutcome,
    },
}

impl Message for TraceExporterMsg {
    fn name(&self) -> &'static str {
        match self {
            TraceExporterMsg::Tick => "Tick",
            TraceExporterMsg::Exported { .. } => "Exported",
        }
    }
}
