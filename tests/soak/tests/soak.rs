//! A little of every scenario on real parts. Facts are waited for; how long they took is for `cargo soak` to judge.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use soak::{
    Console, Outcome, Testbed, Transports, binaries, copy, everything, kill, link_faults, load, reboot,
};

const SEED: u64 = 1;

fn play(name: &str, transports: Transports, scenario: impl AsyncFnOnce(&mut Testbed, &Console) -> Outcome) {
    let console = Console::new();
    let binaries = binaries::build("dev").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut testbed = Testbed::new(name, &binaries, transports, SEED, &console).await.unwrap();
        let outcome = scenario(&mut testbed, &console).await;
        outcome.print(&console);
        assert!(outcome.violations().is_empty(), "{:#?}\n{}", outcome.violations(), testbed.log_tails());
    });
}

#[test]
fn pods_come_back_after_a_power_cut_without_the_cloud() {
    play("soakreboot", Transports::Quic, async |testbed, console| {
        let options = reboot::Options { rounds: 5, pods: 3, away: Duration::ZERO, seed: SEED, bar: None };
        reboot::run(testbed, &options, console).await
    });
}

#[test]
fn ten_pods_with_everything_come_back_without_the_cloud() {
    play("soakten", Transports::Quic, async |testbed, console| {
        let options = everything::Options { rounds: 2, away: Duration::ZERO, seed: SEED, bars: None };
        everything::run(testbed, &options, console).await
    });
}

#[test]
fn nothing_accepted_is_lost_under_cuts_and_kills() {
    play("soakkill", Transports::Quic, async |testbed, console| {
        let options = kill::Options {
            stretches: 1,
            stretch: Duration::from_secs(50),
            devices: 3,
            report_every: Duration::from_millis(200),
            uploaders: 2,
            upload_every: Duration::from_millis(100),
            want_every: Duration::from_secs(1),
            seed: SEED,
        };
        kill::run(testbed, &options, console).await
    });
}

#[test]
fn a_link_that_lied_heals() {
    play("soaklink", Transports::Quic, async |testbed, console| {
        let options =
            link_faults::Options { turns: 1, hold: Duration::from_secs(12), blocked: 0, seed: SEED };
        link_faults::run(testbed, &options, console).await
    });
}

#[test]
fn a_copy_that_fills_the_uplink_leaves_the_node_ready() {
    play("soakcopy", Transports::Quic, async |testbed, console| {
        let options = copy::Options { length: Duration::from_secs(10), judge_time: false };
        copy::run(testbed, &options, console).await
    });
}

#[test]
fn devices_that_report_often_are_shown_and_their_readings_all_arrive() {
    play("soakload", Transports::Quic, async |testbed, console| {
        let stages = vec![load::Stage { devices: 30, rate: 2.0, view: Duration::from_secs(60) }];
        let options = load::Options { stages, length: Duration::from_secs(10), bars: None };
        load::run(testbed, &options, console).await
    });
}
