//! A little of the rolling restart, with CloudCores as they are built here; and what is broken on purpose in it is found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use soak::rolling::{Defect, Options};
use soak::{Console, binaries, rolling};

fn violations(defect: Option<Defect>) -> Vec<String> {
    let console = Console::new();
    let binaries = binaries::build("dev").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let options = Options { nodes: 3, pods: 15, rounds: 1, kubeconfig: None, defect, logs: None };
        let outcome = rolling::run(&binaries, &options, &console).await;
        outcome.print(&console);
        outcome.violations().to_vec()
    })
}

#[test]
fn pods_that_come_while_cloudcores_are_restarted_all_run_and_nothing_goes_back() {
    let violations = violations(None);
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn what_is_broken_on_purpose_is_found() {
    for (defect, said) in [
        (Defect::Older, "its volume shows 0, and has shown"),
        (Defect::Twice, "has started counter of pod counter-"),
        (Defect::Unready, "is not Ready any more: False (Planted"),
    ] {
        let violations = violations(Some(defect));
        assert!(violations.iter().any(|violation| violation.contains(said)), "{defect:?}: {violations:#?}");
    }
}
