//! What is known of unreleased publishes, and in how much memory.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn publish(pkid: u16, payload: &str) -> Publish {
    Publish {
        topic: "a".into(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos: 2,
        retain: false,
        dup: false,
        pkid,
        alias: None,
        expiry: None,
        properties: Bytes::new(),
    }
}

#[test]
fn one_that_was_not_taken_is_known_until_it_is_released() {
    let unreleased = Unreleased::default();
    let one = publish(7, "x");
    let begun = unreleased.begin(&one);
    assert_eq!(unreleased.repeated(&one), Some(Progress::Settling));
    unreleased.settle(7, begun, false);
    assert_eq!(unreleased.repeated(&one), Some(Progress::HandedOut));
    let again = unreleased.begin(&one);
    // What the first one still hears is not for the second.
    unreleased.settle(7, begun, false);
    assert_eq!(unreleased.repeated(&one), Some(Progress::Settling));
    unreleased.settle(7, again, true);
    assert_eq!(unreleased.repeated(&one), Some(Progress::Taken));
    assert!(unreleased.release(7) && !unreleased.release(7));
    assert_eq!((unreleased.repeated(&one), unreleased.pages()), (None, vec![]));
    // Nor does it come back by what is heard after its release.
    let begun = unreleased.begin(&one);
    unreleased.release(7);
    unreleased.settle(7, begun, true);
    assert_eq!(unreleased.repeated(&one), None);
}

#[test]
fn another_topic_or_payload_is_another_message() {
    let unreleased = Unreleased::default();
    let old = publish(5, "old");
    let first = unreleased.begin(&old);
    let new = publish(5, "new");
    for other in [&new, &Publish { topic: "ao".into(), payload: "ld".into(), ..old.clone() }] {
        assert!(unreleased.is_reused(other) && unreleased.repeated(other).is_none());
    }
    // DUP says nothing.
    assert_eq!(unreleased.repeated(&Publish { dup: true, ..old.clone() }), Some(Progress::Settling));
    let second = unreleased.begin(&new);
    unreleased.settle(5, first, true);
    assert_eq!((unreleased.repeated(&old), unreleased.repeated(&new)), (None, Some(Progress::Settling)));
    unreleased.refuse(5, first);
    assert_eq!(unreleased.repeated(&new), Some(Progress::Settling));
    unreleased.refuse(5, second);
    assert_eq!(unreleased.repeated(&new), None);
}

#[test]
fn whoever_waits_hears_what_became_of_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for (end, may) in [("taken", true), ("not taken", false), ("released", true)] {
        let unreleased = Unreleased::default();
        let begun = unreleased.begin(&publish(5, "x"));
        let ends = async {
            tokio::task::yield_now().await;
            match end {
                "released" => drop(unreleased.release(5)),
                _ => unreleased.settle(5, begun, end == "taken"),
            }
        };
        let both = async {
            tokio::join!(tokio::time::timeout(Duration::from_secs(20), unreleased.settled(5)), ends)
        };
        assert_eq!(runtime.block_on(both).0, Ok(may), "{end}");
    }
}

/// Resident memory of this process in KiB, its files apart.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

/// Each of 100 sessions has all identifiers open, in an order that is the worst for its pages; with what the allocator takes.
#[test]
fn all_identifiers_of_a_hundred_sessions_take_64_kib_each() {
    let mut before = 0;
    // The first one is for what the process takes once.
    let all: Vec<Unreleased> = (0..=100).map(|_| Unreleased::default()).collect();
    for (n, unreleased) in all.iter().enumerate() {
        before = if n < 2 { resident() } else { before };
        for place in 0..=u8::MAX {
            for number in (0..=u8::MAX).rev() {
                let pkid = u16::from_be_bytes([number, place]);
                if pkid > 0 {
                    // A digest of each in debug would take a minute; which one it is does not matter here.
                    let mut all = unreleased.all.borrow_mut();
                    all.change(number, |page, has_room| page.put(place, Some(u32::from(pkid)), has_room));
                }
            }
        }
        let all = unreleased.all.borrow();
        assert_eq!(all.digests, all.pages.iter().map(Page::digests).sum::<usize>());
        assert!(all.digests <= plan::QOS2_DIGESTS, "{n}: {}", all.digests);
        assert!(all.pages.capacity() * size_of::<Page>() <= 24 << 10);
    }
    let grown = resident() - before;
    assert!(grown <= 100 * 64, "{grown} KiB");
    let one = all.first().unwrap();
    assert_eq!(one.repeated(&publish(65_535, "x")), Some(Progress::HandedOut));
    // It is all given back, and digests are taken again.
    (1..=u16::MAX).for_each(|pkid| assert!(one.release(pkid)));
    assert!(one.all.borrow().pages.capacity() <= 4 && one.all.borrow().digests == 0);
    one.begin(&publish(9, "old"));
    assert!(one.is_reused(&publish(9, "new")));
}

proptest! {
    /// Like a map from identifiers to what was said under them, also over a restart.
    #[test]
    fn it_knows_what_a_map_knows(steps in prop::collection::vec((0..4_u8, 0..600_u16, 0..3_u8), 1..400)) {
        let (mut unreleased, mut known) = (Unreleased::default(), BTreeMap::new());
        for (step, pkid, payload) in steps {
            let one = publish(pkid, &payload.to_string());
            match step {
                0 | 1 => {
                    let begun = unreleased.begin(&one);
                    unreleased.settle(pkid, begun, step == 0);
                    known.insert(pkid, (payload, step == 0));
                }
                2 => prop_assert_eq!(unreleased.release(pkid), known.remove(&pkid).is_some()),
                _ if pkid < 30 => {
                    let again = Unreleased::default();
                    for page in unreleased.pages() {
                        prop_assert!(again.restore(page, &unreleased.row(page).unwrap()).is_some());
                    }
                    unreleased = again;
                    known.values_mut().for_each(|(_, is_taken)| *is_taken = false);
                }
                _ => {}
            }
        }
        for pkid in 0..600 {
            for payload in 0..3 {
                let progress = unreleased.repeated(&publish(pkid, &payload.to_string()));
                let wanted = known.get(&pkid).filter(|(known, _)| *known == payload);
                let wanted = wanted.map(|(_, taken)| if *taken { Progress::Taken } else { Progress::HandedOut });
                prop_assert_eq!(progress, wanted);
            }
        }
        prop_assert_eq!(unreleased.all.borrow().digests, known.len());
    }

    #[test]
    fn rows_that_are_none_are_refused(row in prop::collection::vec(any::<u8>(), 0..80)) {
        let unreleased = Unreleased::default();
        let count: usize = row.iter().take(32).map(|bits| bits.count_ones() as usize).sum();
        let ours = row.len() >= 32 && count > 0 && (row.len() == 32 || row.len() == 32 + 4 * count);
        prop_assert_eq!(unreleased.restore(3, &row).is_some(), ours);
        prop_assert_eq!(unreleased.row(3), ours.then_some(row));
    }
}
