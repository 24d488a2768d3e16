//! Each actor of CloudCore panics at each kind of its messages, and the daemon, the nodes and their pods go on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use sim::cloud_actor_panics;

/// Each before the first line of its handler.
fn each(actor: &str, messages: &[&'static str]) {
    let mut wrong = Vec::new();
    for message in messages {
        let run = cloud_actor_panics(actor, message, 0);
        if !run.happened {
            wrong.push(format!("{actor} was never handed {message}"));
        }
        wrong.extend(run.violations.into_iter().map(|what| format!("{actor} at {message}: {what}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nodelease() {
    each(
        "cloud-nodelease",
        &[
            "Claim",
            "AllNodesDown",
            "NodeUp",
            "NodeDown",
            "Session",
            "NodeCreated",
            "NodeMissing",
            "Renew",
            "ShowSynced",
        ],
    );
}

#[test]
fn synccontroller() {
    each(
        "cloud-synccontroller",
        &[
            "ListBegins",
            "Upsert",
            "Flush",
            "ListComplete",
            "Current",
            "AllNodesDown",
            "NodeUp",
            "NodeDown",
            "Inventory",
            "Applied",
            "Tick",
            "StatusWritten",
        ],
    );
}

#[test]
fn edgecontroller() {
    each(
        "cloud-edgecontroller",
        &["AllNodesDown", "NodeUp", "NodeDown", "ListAgain", "Reports", "Alive", "Reconcile"],
    );
}

#[test]
fn devicecontroller() {
    each("cloud-devicecontroller", &["Up", "AllNodesDown", "NodeUp", "NodeDown", "ListAgain", "Reconcile"]);
}

#[test]
fn hub() {
    each("cloud-hub", &["Opened", "Closed", "SessionOver", "TellSessions"]);
}

#[test]
fn certificates() {
    each("certificates", &["Reconcile"]);
}
