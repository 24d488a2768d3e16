//! A seed tells the same story every time: every message of every mailbox and every write of the API, at its time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use sim::{run, run_traced};

#[test]
fn a_seed_replays_to_the_last_event() {
    for seed in 1001..=1010 {
        // On a thread of its own each, so that nothing is left over from the telling before.
        let told = || std::thread::spawn(move || run(seed, None).fingerprint).join().unwrap();
        let (first, second) = (told(), told());
        assert!(first.events > 300, "seed {seed} tells of {} events only", first.events);
        if first != second {
            let (one, other) = (run_traced(seed, None).trace, run_traced(seed, None).trace);
            let at = one.iter().zip(&other).position(|(one, other)| one != other);
            let at = at.unwrap_or(one.len().min(other.len()));
            panic!("seed {seed} parts at event {at}:\n{:#?}\n{:#?}", one.get(at), other.get(at));
        }
    }
}
