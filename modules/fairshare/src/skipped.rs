//! Rows that this release does not understand.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use beehive::Env;
use contract::{NodeName, SkipReason, SkippedRow};

use crate::is_logged;

/// 8 kinds of one message are named: a release adds fewer.
const NAMED: usize = 8;

/// Under which names skipped rows are counted.
#[derive(Debug, Clone, Copy)]
pub struct SkippedEvents {
    /// Rows of a kind that this release does not know.
    pub unknown: &'static str,
    /// Rows that are not what their kind should be.
    pub malformed: &'static str,
}

/// Counts the rows of a message that were skipped, and says so in one line. `times` is how many such messages the node has sent,
/// and thins out the log.
pub fn rows_skipped(env: &Env, node: &NodeName, skipped: &[SkippedRow], times: u64, events: SkippedEvents) {
    for SkippedRow { reason, .. } in skipped {
        env.count(match reason {
            SkipReason::Unknown { .. } => events.unknown,
            SkipReason::Malformed { .. } => events.malformed,
        });
    }
    if is_logged(times) {
        let (rows, kinds) = (skipped.len(), kinds(skipped));
        tracing::warn!(%node, rows, kinds, times, "rows of the node are not understood and were skipped");
    }
}

/// How many rows there are of each kind, for a person.
fn kinds(skipped: &[SkippedRow]) -> String {
    let mut counts: BTreeMap<(&str, u16), u64> = BTreeMap::new();
    for SkippedRow { reason, .. } in skipped {
        let kind = match *reason {
            SkipReason::Unknown { kind } => ("unknown", kind),
            SkipReason::Malformed { kind } => ("malformed", kind),
        };
        *counts.entry(kind).or_default() += 1;
    }
    let mut text = String::new();
    for ((what, kind), count) in counts.iter().take(NAMED) {
        let between = if text.is_empty() { "" } else { ", " };
        // Writing into a string does not fail.
        let _ = write!(text, "{between}{count} of {what} kind {kind}");
    }
    if counts.len() > NAMED {
        let _ = write!(text, " and of {} kinds more", counts.len() - NAMED);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_names_the_kinds_with_their_counts_and_has_a_bound() {
        let unknown = |row| SkippedRow { row, reason: SkipReason::Unknown { kind: 99 } };
        let mut skipped: Vec<SkippedRow> = (0..4096).map(unknown).collect();
        skipped.push(SkippedRow { row: 1, reason: SkipReason::Malformed { kind: 3 } });
        assert_eq!(kinds(&skipped), "1 of malformed kind 3, 4096 of unknown kind 99");
        let each = |kind: u16| SkippedRow { row: 1, reason: SkipReason::Unknown { kind } };
        let all = kinds(&(0..4096).map(each).collect::<Vec<_>>());
        assert!(all.len() < 300 && all.ends_with(" and of 4088 kinds more"), "{all}");
    }
}
