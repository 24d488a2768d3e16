//! A little of every attack, against CloudCore as it is built here: what it holds. How others fare is for `cargo soak` to
//! judge, with a build that ships.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use soak::{Console, attack, binaries};

#[test]
fn one_hostile_certificate_makes_cloudcore_hold_no_more_than_its_bound() {
    let console = Console::new();
    let binaries = binaries::build("dev").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let options = attack::Options { hold: Duration::from_secs(1), judge_others: false };
        let outcome = attack::run("attacktest", &binaries, &options, &console).await;
        outcome.print(&console);
        assert!(outcome.violations().is_empty(), "{:#?}", outcome.violations());
    });
}
