//! How far a store counts: its revisions, and the seqs of its outbox. Pure.
//!
//! Both are SQLite's integers, which end at 2^63 - 1. A file that stands near the end has not been counted there: it is
//! damaged, or somebody has written into it. It is quarantined like any other broken file, and what is carried over leaves the
//! copy so much room that no number in it leads to the end again.

/// 2^62: a file that says to have counted further is broken. A million commits a second come there in 146,000 years.
const POSSIBLE: i64 = 1 << 62;
/// 2^61: rows with greater numbers stay in the broken file.
const CARRIED_OVER: i64 = 1 << 61;

/// Whether a store can have counted to `number`.
pub(crate) fn is_possible(number: i64) -> bool {
    (0..=POSSIBLE).contains(&number)
}

/// Whether a row of that revision and seq is carried over from a broken file.
pub(crate) fn is_carried_over(revision: u64, seq: i64) -> bool {
    let is_low = |number: i64| (0..=CARRIED_OVER).contains(&number);
    i64::try_from(revision).is_ok_and(is_low) && is_low(seq)
}

/// The revision after `revision`, for the handle and for the file; `None`: SQLite has no such number.
pub(crate) fn next(revision: u64) -> Option<(u64, i64)> {
    let next = revision.checked_add(1)?;
    Some((next, i64::try_from(next).ok()?))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rusqlite::Connection;

    use super::*;
    use crate::checksum::sum;
    use crate::{Class, Damage, ObjectKey, Opened, Options, OutboxQueue, Store, Write, schema};

    fn open(path: &Path) -> Store {
        Store::open(path, Options::new([7; 16])).unwrap()
    }

    fn pod(name: &str) -> Write {
        Write::PutObject {
            key: ObjectKey::new("pods", "d", name),
            uid: "u".to_owned(),
            content_hash: "h".to_owned(),
            resource_version: "1".to_owned(),
            json: b"{}".to_vec(),
        }
    }

    fn status(key: &str) -> Write {
        Write::Enqueue {
            queue: OutboxQueue::Node,
            class: Class::Status,
            key: key.to_owned(),
            body: b"b".to_vec(),
        }
    }

    /// A file with a pod and a report, into which `attack` writes.
    fn attacked(path: &Path, attack: impl FnOnce(&Connection)) {
        open(path).commit_blocking(vec![pod("a"), status("a")]).unwrap();
        attack(&Connection::open(path).unwrap());
    }

    /// It takes writes, and the next start finds nothing wrong.
    fn goes_on(path: &Path) {
        let store = open(path);
        store.commit_blocking(vec![pod("b"), status("b")]).unwrap();
        assert_eq!(store.list_objects("pods", None).unwrap().last().unwrap().key.name, "b");
        assert_eq!(store.outbox_head(9, 999).unwrap().last().unwrap().key, "b");
        drop(store);
        assert_eq!(open(path).opened(), &Opened::Clean);
    }

    #[test]
    fn a_revision_at_the_end_of_a_range_is_damage_and_the_rows_are_saved() {
        for revision in [u64::MAX, 1 << 63, (1 << 63) - 1, (1 << 63) - 2, (1 << 62) + 1] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("db");
            attacked(&path, |conn| schema::put_revision(conn, revision).unwrap());
            let store = open(&path);
            assert!(
                matches!(store.opened(), Opened::Quarantined { salvaged: 2, .. }),
                "{revision}: {:?}",
                store.opened()
            );
            assert_eq!(store.revision(), 1, "it goes on from the newest row");
            drop(store);
            goes_on(&path);
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        attacked(&path, |conn| schema::put_revision(conn, 1 << 62).unwrap());
        goes_on_once(&path);
    }

    /// The greatest revision that is taken: it is counted on from, and that costs one quarantine at the next start.
    fn goes_on_once(path: &Path) {
        open(path).commit_blocking(vec![pod("b")]).unwrap();
        assert!(matches!(open(path).opened(), Opened::Quarantined { .. }));
        goes_on(path);
    }

    #[test]
    fn a_row_at_the_end_of_the_range_does_not_lead_the_salvaged_file_there_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        attacked(&path, |conn| {
            schema::put_revision(conn, u64::MAX).unwrap();
            let columns: [&[u8]; 7] = [b"pods", b"d", b"a", b"u", b"h", b"1", b"{}"];
            let sum = sum("objects", &columns, i64::MAX);
            let done = conn.execute("UPDATE objects SET revision = ?1, sum = ?2", (i64::MAX, sum));
            assert_eq!(done.unwrap(), 1);
        });
        let store = open(&path);
        assert!(matches!(store.opened(), Opened::Quarantined { salvaged: 1, .. }), "{:?}", store.opened());
        let lost = store.damaged_rows();
        assert_eq!(
            lost.iter().map(|row| (row.key.as_str(), row.damage)).collect::<Vec<_>>(),
            [("pods/d/a", Damage::Number)]
        );
        drop(store);
        goes_on(&path);
    }

    #[test]
    fn an_outbox_that_has_no_number_left_is_damage_too() {
        for attack in [
            "UPDATE outbox SET seq = 9223372036854775807",
            "UPDATE sqlite_sequence SET seq = 9223372036854775807",
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("db");
            attacked(&path, |conn| assert_eq!(conn.execute(attack, []).unwrap(), 1));
            assert!(matches!(open(&path).opened(), Opened::Quarantined { .. }), "{attack}");
            goes_on(&path);
        }
    }

    #[test]
    fn there_is_no_number_after_the_last() {
        assert_eq!(next(0), Some((1, 1)));
        assert_eq!(next(i64::MAX as u64), None);
        assert_eq!(next(u64::MAX), None);
    }
}
