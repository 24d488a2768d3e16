//! The hub is restarted at each of its messages while nodes are linked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::time::Duration;

use beehive::Env;
use beehive::link::{Link, LinkError};
use beehive::testing::{PanicPoint, plan_panic};
use contract::NodeName;
use contract::cloudhub::{CloudHubMsg, SessionReader};
use contract::edgecontroller::{EdgeControllerMsg, EdgeUp};
use fixture::{Fixture, LONG};
use harness::{StandAlone, enter};
use noderegistry::Registry;

const LIMIT: usize = 3;

/// Links a node until it is let in: as a node does.
async fn link_again(fixture: &Fixture, name: &str) -> Link {
    let dialling = async {
        loop {
            match fixture.link(&format!("system:node:{name}"), name).await {
                Ok(link) => return link,
                Err(_) => fixture.env.sleep(Duration::from_millis(200)).await,
            }
        }
    };
    fixture.env.timeout(LONG, dialling).await.unwrap_or_else(|| panic!("{name} is not let in again"))
}

async fn until(fixture: &Fixture, what: &str, is: impl AsyncFn() -> bool) {
    let look = async {
        while !is().await {
            fixture.env.sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(fixture.env.timeout(LONG, look).await.is_some(), "{what}");
}

/// What EdgeController holds of sessions, from all that it was told.
async fn told(fixture: &mut Fixture) -> Vec<String> {
    let mut open = std::collections::BTreeMap::new();
    while let Some(message) = fixture.edge.next(Duration::from_millis(50)).await {
        match message {
            EdgeControllerMsg::AllNodesDown => open.clear(),
            EdgeControllerMsg::NodeUp { node, session } => drop(open.insert(node.to_string(), session)),
            EdgeControllerMsg::NodeDown { node, session } if open.get(node.as_str()) == Some(&session) => {
                open.remove(node.as_str());
            }
            _ => {}
        }
    }
    open.into_iter().map(|(node, session)| format!("{node}/{session}")).collect()
}

/// What makes the hub handle the message of that name.
async fn cause(fixture: &Fixture, api: &StandAlone, message: &str, links: &mut Vec<Link>) {
    let node = || NodeName::parse("n0").unwrap();
    match message {
        "Opened" => links.extend(fixture.link("system:node:n2", "n2").await),
        "Closed" => drop(links.pop()),
        "SessionOver" => {
            let reason = "on purpose".to_owned();
            fixture.hub.tell(CloudHubMsg::SessionOver { node: node(), session: 1, reason }).await.unwrap();
        }
        "TellSessions" => {
            let to = SessionReader::EdgeController;
            fixture.hub.tell(CloudHubMsg::TellSessions { to }).await.unwrap();
        }
        "CertificatesChanged" => {
            let registry = Registry::new(api.client());
            registry.revoke(&node()).await.unwrap();
            registry.free(&node()).await.unwrap();
            registry.withdraw("n0.n0").await.unwrap();
            enter(api.client(), "n0", "n0", fixture.env.wall()).await;
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_hub_that_panics_at_any_message_has_no_link_left_and_takes_its_nodes_again_within_its_limit() {
    actix_rt::System::new().block_on(async {
        let env = Env::real();
        for message in ["Opened", "Closed", "SessionOver", "TellSessions", "CertificatesChanged"] {
            for awaits in [0, 1] {
                let api = StandAlone::start(&env).await;
                for name in ["n0", "n1", "n2", "n3"] {
                    enter(api.client(), name, name, env.wall()).await;
                }
                let mut fixture = Fixture::start(&env, Registry::new(api.client()), LIMIT, Vec::new());
                let mut links = vec![link_again(&fixture, "n0").await, link_again(&fixture, "n1").await];
                until(&fixture, "both are open", async || fixture.sessions().await.len() == 2).await;
                let point = PanicPoint { message: Some(message), nth: 1, awaits };
                let planned = plan_panic(&fixture.hive.inspector(), "cloud-hub", point);
                cause(&fixture, &api, message, &mut links).await;
                let what = format!("{message} after {awaits} awaits");
                // A handler that had nothing to wait for has ended before its point.
                let within = if awaits == 0 { LONG } else { Duration::from_secs(2) };
                let ended = env.timeout(within, async {
                    while !planned.has_happened() {
                        env.sleep(Duration::from_millis(10)).await;
                    }
                });
                if ended.await.is_none() {
                    assert_ne!(awaits, 0, "{what}: no panic");
                    continue;
                }
                // No link lives on that no incarnation owns.
                for link in &links {
                    assert!(env.timeout(LONG, link.ended()).await.is_some(), "{what}: a link lives on");
                }
                drop(links);
                // The limit holds at once, and the nodes are back.
                let again = [link_again(&fixture, "n0").await, link_again(&fixture, "n1").await];
                let third = link_again(&fixture, "n2").await;
                match fixture.link("system:node:n3", "n3").await {
                    Err(LinkError::Refused(refused)) => {
                        assert_eq!(refused.wait, Some(Duration::from_secs(30)), "{what}");
                    }
                    other => panic!("{what}: {other:?}"),
                }
                for link in again.iter().chain([&third]) {
                    link.remote::<EdgeUp>().tell(EdgeUp::Alive).await.unwrap();
                }
                // Nothing is leaked: neither a session nor one that was admitted; and what others hold is what is.
                until(&fixture, &what, async || fixture.sessions().await.len() == 3).await;
                let snapshot = fixture.snapshot().await;
                assert_eq!(snapshot["admitted"], 0, "{what}");
                assert_eq!(snapshot["nodes"].as_object().unwrap().len(), 3, "{what}");
                let mut sessions = fixture.sessions().await;
                sessions.sort();
                assert_eq!(told(&mut fixture).await, sessions, "{what}");
                drop((again, third));
                until(&fixture, &what, async || fixture.sessions().await.is_empty()).await;
                let report = fixture.hive.inspector().report(LONG).await;
                assert_eq!(report.actor("cloud-hub").unwrap().restarts, 1, "{what}");
            }
        }
    });
}

#[test]
fn a_session_that_panics_ends_its_own_link_and_no_other() {
    actix_rt::System::new().block_on(async {
        let env = Env::real();
        let api = StandAlone::start(&env).await;
        for name in ["n0", "n1"] {
            enter(api.client(), name, name, env.wall()).await;
        }
        let fixture = Fixture::start(&env, Registry::new(api.client()), LIMIT, Vec::new());
        let (first, other) = (link_again(&fixture, "n0").await, link_again(&fixture, "n1").await);
        until(&fixture, "both are open", async || fixture.sessions().await.len() == 2).await;
        let point = PanicPoint { message: None, nth: 1, awaits: 0 };
        let planned = plan_panic(&fixture.hive.inspector(), "cloud-hub/session:n0/1", point);
        drop(first);
        until(&fixture, "it panics", async || planned.has_happened()).await;
        until(&fixture, "its session is closed", async || fixture.sessions().await == ["n1/2"]).await;
        assert!(other.remote::<EdgeUp>().is_up());
        let report = fixture.hive.inspector().report(LONG).await;
        assert_eq!(report.actor("cloud-hub").unwrap().restarts, 0);
        assert!(fixture.snapshot().await["nodes"].get("n0").is_none());
    });
}
