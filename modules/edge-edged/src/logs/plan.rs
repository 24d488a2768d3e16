//! Which files of a log go, which are compressed, and what the next one is called: the kubelet's container log manager.
//! Pure.
//!
//! `0.log` is written, `0.log.20261128-093000` is the one before, older ones end in `.gz`. Names tell the order, so a clock
//! that was set back makes no older name.

use jiff::civil::DateTime;
use jiff::tz::Offset;
use jiff::{Timestamp, ToSpan as _};

pub(super) const COMPRESSED: &str = ".gz";
pub(super) const UNFINISHED: &str = ".tmp";
/// UTC: local time has hours that come twice.
const STAMP: &str = "%Y%m%d-%H%M%S";

/// What to do with the older files of a log, before the one that is written becomes one of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Older {
    pub(super) remove: Vec<String>,
    pub(super) compress: Vec<String>,
}

/// `names`: the files that begin with the log's name and a dot. `max` files are kept, two of them after this: the one that is
/// written next and the one that was written until then.
pub(super) fn older(names: &[String], max: usize) -> Older {
    let has = |name: &str| names.iter().any(|other| other == name);
    let (mut kept, mut remove): (Vec<String>, Vec<String>) = names.iter().cloned().partition(|name| {
        // What a crash left: half of a file, or the one of which the compressed one is whole.
        !name.ends_with(UNFINISHED) && (name.ends_with(COMPRESSED) || !has(&format!("{name}{COMPRESSED}")))
    });
    kept.sort();
    let excess = kept.len().saturating_sub(max.saturating_sub(2));
    remove.extend(kept.drain(..excess));
    kept.retain(|name| !name.ends_with(COMPRESSED));
    Older { remove, compress: kept }
}

/// What the file that is written is called next: later than all of `names`.
pub(super) fn next_name(log: &str, names: &[String], now: Timestamp) -> String {
    let stamp = |name: &String| {
        let stamp = name.strip_prefix(log)?.strip_prefix('.')?;
        DateTime::strptime(STAMP, stamp.trim_end_matches(UNFINISHED).trim_end_matches(COMPRESSED)).ok()
    };
    let newest = names.iter().filter_map(stamp).max();
    let now = Offset::UTC.to_datetime(now);
    let at = match newest.and_then(|newest| newest.checked_add(1.second()).ok()) {
        Some(after) => now.max(after),
        None => now,
    };
    format!("{log}.{}", at.strftime(STAMP))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_oldest_go_and_the_rest_is_compressed() {
        let all = names(&[
            "0.log.20260101-000005",
            "0.log.20260101-000001.gz",
            "0.log.20260101-000003.gz",
            "0.log.20260101-000002.gz",
            "0.log.20260101-000004.gz",
        ]);
        let expected = Older {
            remove: names(&["0.log.20260101-000001.gz", "0.log.20260101-000002.gz"]),
            compress: names(&["0.log.20260101-000005"]),
        };
        assert_eq!(older(&all, 5), expected);
        // Two files: what is written, and what was.
        assert_eq!(
            older(&all, 2),
            Older {
                remove: {
                    let mut all = all.clone();
                    all.sort();
                    all
                },
                ..Older::default()
            }
        );
        assert_eq!(older(&[], 5), Older::default());
    }

    #[test]
    fn what_a_crash_left_is_cleared_away() {
        let all = names(&[
            "0.log.20260101-000001.tmp",
            "0.log.20260101-000001",
            "0.log.20260101-000000",
            "0.log.20260101-000000.gz",
        ]);
        let expected = Older {
            remove: names(&["0.log.20260101-000001.tmp", "0.log.20260101-000000"]),
            compress: names(&["0.log.20260101-000001"]),
        };
        assert_eq!(older(&all, 5), expected);
    }

    #[test]
    fn no_clock_makes_a_name_that_is_taken_or_older() {
        let now: Timestamp = "2026-01-01T00:00:01Z".parse().unwrap();
        assert_eq!(next_name("0.log", &[], now), "0.log.20260101-000001");
        let taken = names(&["0.log.20260101-000001", "0.log.20251231-235959.gz", "0.log.x"]);
        assert_eq!(next_name("0.log", &taken, now), "0.log.20260101-000002");
        let later = names(&["0.log.20300101-235959.gz"]);
        assert_eq!(next_name("0.log", &later, now), "0.log.20300102-000000");
        let unfinished = names(&["0.log.20260101-000001.tmp"]);
        assert_eq!(next_name("0.log", &unfinished, now), "0.log.20260101-000002");
    }
}
