//! Some seeds without a violation, and every deliberate defect caught.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use beehive::defect::Defect;
use sim::{Fault, run};

/// The seeds of one test. nextest runs tests beside each other.
fn seeds(from: u64, to: u64) {
    let mut struck = BTreeSet::new();
    let mut fullest = 0;
    for seed in from..to {
        let outcome = run(seed, None);
        assert!(
            outcome.violations.is_empty(),
            "seed {seed}: {:#?}\nreplay it: cargo sim -- --seed {seed}",
            outcome.violations
        );
        struck.extend(outcome.faults.into_keys());
        fullest = fullest.max(outcome.fullest);
    }
    let never: Vec<Fault> = Fault::ALL.into_iter().filter(|fault| !struck.contains(fault)).collect();
    assert!(never.is_empty(), "these faults never struck: {never:?}");
}

#[test]
fn the_first_seeds_hold() {
    seeds(1, 51);
}

#[test]
fn the_second_seeds_hold() {
    seeds(51, 101);
}

#[test]
fn the_third_seeds_hold() {
    seeds(101, 151);
}

#[test]
fn the_fourth_seeds_hold() {
    seeds(151, 201);
}

fn caught(defect: Defect) {
    let seed = (1..=200).find(|seed| !run(*seed, Some(defect)).violations.is_empty());
    assert!(seed.is_some(), "{defect:?} was not caught");
}

#[test]
fn an_acknowledgement_before_the_commit_is_caught() {
    caught(Defect::AckBeforeCommit);
}

#[test]
fn a_dropped_delete_is_caught() {
    caught(Defect::DroppedDelete);
}

#[test]
fn a_confirmation_before_the_write_is_caught() {
    caught(Defect::ConfirmBeforeWrite);
}

#[test]
fn a_forgotten_report_is_caught() {
    caught(Defect::ForgottenReport);
}

#[test]
fn a_needless_restart_is_caught() {
    caught(Defect::NeedlessRestart);
}

#[test]
fn a_stale_version_is_caught() {
    caught(Defect::StaleVersion);
}
