//! Sessions over the transport in memory, the register in the stand-alone API.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::time::Duration;

use beehive::Env;
use beehive::link::{CloseReason, Link, LinkError};
use contract::NodeName;
use contract::cloudhub::{CloudHubMsg, SessionReader};
use contract::cloudstream::CloudStreamMsg;
use contract::cloudtaskmanager::CloudTaskMsg;
use contract::devicecontroller::DeviceControllerMsg;
use contract::edgecontroller::{EdgeControllerMsg, EdgeUp};
use contract::nodelease::{ClaimRefused, NodeLeaseMsg};
use contract::router::RouterMsg;
use contract::synccontroller::SyncMsg;
use fixture::LONG;
use harness::{StandAlone, enter};
use noderegistry::Registry;

struct Fixture {
    api: StandAlone,
    registry: Registry,
    it: fixture::Fixture,
}

impl std::ops::Deref for Fixture {
    type Target = fixture::Fixture;

    fn deref(&self) -> &fixture::Fixture {
        &self.it
    }
}

impl std::ops::DerefMut for Fixture {
    fn deref_mut(&mut self) -> &mut fixture::Fixture {
        &mut self.it
    }
}

fn run(test: impl AsyncFnOnce(Fixture)) {
    actix_rt::System::new().block_on(async {
        let env = Env::real();
        let api = StandAlone::start(&env).await;
        let registry = Registry::new(api.client());
        let it = fixture::Fixture::start(&env, registry.clone(), 2, Vec::new());
        test(Fixture { api, registry, it }).await;
    });
}

fn refused(link: Result<Link, LinkError>) -> beehive::link::Refused {
    match link {
        Err(LinkError::Refused(refused)) => refused,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_node_is_who_its_certificate_says_and_its_end_is_told() {
    run(async |mut fixture| {
        let link = fixture.link("system:node:a", "aa").await.unwrap();
        let up = |message| match message {
            SyncMsg::NodeUp { node, session, .. } => Some((node, session)),
            _ => None,
        };
        let (node, session) = fixture.sync.find(LONG, up).await.unwrap();
        assert_eq!(node.as_str(), "a");
        link.remote::<EdgeUp>().tell(EdgeUp::Alive).await.unwrap();
        let alive = |message| match message {
            EdgeControllerMsg::Up { node, session: 1, message: EdgeUp::Alive } => Some(node),
            _ => None,
        };
        assert_eq!(fixture.edge.find(LONG, alive).await.unwrap().as_str(), "a");
        assert!(fixture.linked.has(&node) && fixture.linked.last_ended(&node).is_none());
        drop(link);
        let down = |message| match message {
            SyncMsg::NodeDown { node, session } => Some((node, session)),
            _ => None,
        };
        assert_eq!(fixture.sync.find(LONG, down).await.unwrap(), (node.clone(), session));
        assert!(!fixture.linked.has(&node) && fixture.linked.last_ended(&node) == Some(session));
    });
}

/// What SyncController has shown of the end is shown by what NodeLease knows of it.
#[test]
fn nodelease_hears_of_a_sessions_end_before_whoever_has_it_shown() {
    actix_rt::System::new().block_on(async {
        let env = Env::real();
        let api = StandAlone::start(&env).await;
        let mut fixture = fixture::Fixture::with_busy_edge(&env, Registry::new(api.client()));
        let none = fixture.edge.next(LONG).await;
        assert!(matches!(none, Some(EdgeControllerMsg::AllNodesDown)), "{none:?}");
        let link = fixture.link("system:node:a", "aa").await.unwrap();
        let opened = |message| matches!(message, CloudTaskMsg::NodeUp { .. }).then_some(());
        fixture.tasks.find(LONG, opened).await.expect("all have been told of it");
        // Whoever is told after EdgeController waits for that one from now on.
        drop(link);
        let ended = |message| matches!(message, SyncMsg::NodeDown { .. }).then_some(());
        fixture.sync.find(LONG, ended).await.expect("SyncController is told");
        let ended = |message| matches!(message, NodeLeaseMsg::NodeDown { .. }).then_some(());
        fixture.lease.find(LONG, ended).await.expect("NodeLease was told before");
    });
}

#[test]
fn the_newer_link_of_a_node_wins() {
    run(async |mut fixture| {
        let older = fixture.link("system:node:a", "aa").await.unwrap();
        let newer = fixture.link("system:node:a", "aa").await.unwrap();
        assert_eq!(older.ended().await, CloseReason::Remote);
        let mut sessions = Vec::new();
        while sessions.len() < 3 {
            match fixture.sync.next(LONG).await.unwrap() {
                SyncMsg::NodeUp { session, .. } => sessions.push((session, true)),
                SyncMsg::NodeDown { session, .. } => sessions.push((session, false)),
                SyncMsg::AllNodesDown => {}
                other => panic!("{other:?}"),
            }
        }
        sessions.sort_unstable();
        assert_eq!(sessions, [(1, false), (1, true), (2, true)]);
        assert!(newer.remote::<EdgeUp>().is_up());
    });
}

#[test]
fn who_is_no_node_is_refused() {
    run(async |fixture| {
        let no_node = refused(fixture.link("system:masters", "aa").await);
        assert!(no_node.reason.contains("keadm join"), "{}", no_node.reason);
    });
}

#[test]
fn a_link_ends_when_its_certificate_is_not_the_living_one_any_more() {
    run(async |fixture| {
        let node = |name: &str| NodeName::parse(name).unwrap();
        let enter = async |name: &str, serial: &str| {
            enter(fixture.api.client(), name, serial, fixture.env.wall()).await
        };
        let ended = async |link: &Link| fixture.env.timeout(LONG, link.ended()).await.is_some();
        // It gives its certificate back, joins anew, is revoked by an administrator, and is forgotten.
        enter("a", "aa").await;
        enter("b", "bb").await;
        let stays = fixture.link("system:node:b", "bb").await.unwrap();
        let link = fixture.link("system:node:a", "aa").await.unwrap();
        fixture.registry.release(&node("a"), "aa").await.unwrap();
        assert!(ended(&link).await);
        enter("a", "ab").await;
        let link = fixture.link("system:node:a", "ab").await.unwrap();
        fixture.registry.revoke(&node("a")).await.unwrap();
        assert!(ended(&link).await);
        fixture.registry.free(&node("a")).await.unwrap();
        enter("a", "ac").await;
        let link = fixture.link("system:node:a", "ac").await.unwrap();
        fixture.registry.free(&node("a")).await.unwrap();
        assert!(ended(&link).await);
        assert!(stays.remote::<EdgeUp>().is_up());
    });
}

#[test]
fn above_the_limit_a_node_is_asked_to_wait() {
    run(async |fixture| {
        let _one = fixture.link("system:node:a", "aa").await.unwrap();
        let _two = fixture.link("system:node:b", "bb").await.unwrap();
        let full = refused(fixture.link("system:node:c", "cc").await);
        assert_eq!(full.wait, Some(Duration::from_secs(30)));
        // A node that is counted already may come again.
        assert!(fixture.link("system:node:a", "aa").await.is_ok());
    });
}

#[test]
fn nobody_is_let_in_whose_node_cannot_be_claimed() {
    run(async |fixture| {
        let (reason, wait) = ("the Node `a` was deleted".to_owned(), Some(Duration::from_secs(60)));
        fixture.claims.0.borrow_mut().push(Err(ClaimRefused { reason, wait }));
        let refused = refused(fixture.link("system:node:a", "aa").await);
        assert_eq!(
            (&*refused.reason, refused.wait),
            ("the Node `a` was deleted", Some(Duration::from_secs(60)))
        );
        assert!(fixture.link("system:node:a", "aa").await.is_ok());
    });
}

#[test]
fn a_session_that_another_cloudcore_has_taken_is_ended() {
    run(async |mut fixture| {
        let link = fixture.link("system:node:a", "aa").await.unwrap();
        let node = NodeName::parse("a").unwrap();
        // Of an earlier session: this one goes on.
        let over = |session| {
            let reason = "another CloudCore has taken it".to_owned();
            CloudHubMsg::SessionOver { node: node.clone(), session, reason }
        };
        fixture.hub.tell(over(7)).await.unwrap();
        fixture.hub.tell(over(1)).await.unwrap();
        assert_eq!(fixture.env.timeout(LONG, link.ended()).await, Some(CloseReason::Remote));
        let down = |message| match message {
            EdgeControllerMsg::NodeDown { node, session } => Some((node, session)),
            _ => None,
        };
        assert_eq!(fixture.edge.find(LONG, down).await.unwrap(), (node, 1));
    });
}

#[test]
fn of_two_links_that_arrive_together_the_one_stays_that_took_the_node_last() {
    run(async |mut fixture| {
        // The answers come from the end: the second link is told an epoch before the first one's.
        fixture.claims.0.borrow_mut().extend([Ok(4), Ok(5)]);
        let first = fixture.link("system:node:a", "aa").await.unwrap();
        let up = |message| match message {
            EdgeControllerMsg::NodeUp { session, .. } => Some(session),
            _ => None,
        };
        assert_eq!(fixture.edge.find(LONG, up).await, Some(5));
        let late = fixture.link("system:node:a", "aa").await.unwrap();
        assert_eq!(fixture.env.timeout(LONG, late.ended()).await, Some(CloseReason::Remote));
        assert!(first.remote::<EdgeUp>().is_up());
    });
}

#[test]
fn whoever_has_begun_anew_is_told_which_sessions_are_open() {
    run(async |mut fixture| {
        let _one = fixture.link("system:node:a", "aa").await.unwrap();
        let _two = fixture.link("system:node:b", "bb").await.unwrap();
        // All five were told of both.
        let mut ups = 0;
        while ups < 2 {
            ups += u32::from(matches!(
                fixture.device.next(LONG).await.unwrap(),
                DeviceControllerMsg::NodeUp { .. }
            ));
        }
        for (to, name) in [
            (SessionReader::NodeLease, "lease"),
            (SessionReader::SyncController, "sync"),
            (SessionReader::EdgeController, "edge"),
            (SessionReader::DeviceController, "device"),
            (SessionReader::CloudStream, "stream"),
            (SessionReader::CloudRouter, "router"),
            (SessionReader::CloudTaskManager, "task manager"),
        ] {
            fixture.hub.tell(CloudHubMsg::TellSessions { to }).await.unwrap();
            let mut told = Vec::new();
            // What was told before, and after that once more from the beginning.
            while told.iter().filter(|word| **word == "none").count() < 2 || told.last() != Some(&"b") {
                let (none, node) = match to {
                    SessionReader::NodeLease => match fixture.lease.next(LONG).await.unwrap() {
                        NodeLeaseMsg::NodeUp { node, certificate, .. } => {
                            assert_eq!(certificate, format!("{node}{node}"));
                            (false, Some(node))
                        }
                        other => (matches!(other, NodeLeaseMsg::AllNodesDown), None),
                    },
                    SessionReader::SyncController => match fixture.sync.next(LONG).await.unwrap() {
                        SyncMsg::NodeUp { node, .. } => (false, Some(node)),
                        other => (matches!(other, SyncMsg::AllNodesDown), None),
                    },
                    SessionReader::EdgeController => match fixture.edge.next(LONG).await.unwrap() {
                        EdgeControllerMsg::NodeUp { node, .. } => (false, Some(node)),
                        other => (matches!(other, EdgeControllerMsg::AllNodesDown), None),
                    },
                    SessionReader::CloudStream => match fixture.stream.next(LONG).await.unwrap() {
                        // It hears of the register, too.
                        CloudStreamMsg::RegisterChanged => continue,
                        CloudStreamMsg::NodeUp { node, .. } => (false, Some(node)),
                        other => (matches!(other, CloudStreamMsg::AllNodesDown), None),
                    },
                    SessionReader::CloudTaskManager => match fixture.tasks.next(LONG).await.unwrap() {
                        CloudTaskMsg::NodeUp { node, .. } => (false, Some(node)),
                        other => (matches!(other, CloudTaskMsg::AllNodesDown), None),
                    },
                    SessionReader::CloudRouter => match fixture.router.next(LONG).await.unwrap() {
                        RouterMsg::NodeUp { node, .. } => (false, Some(node)),
                        other => (matches!(other, RouterMsg::AllNodesDown), None),
                    },
                    SessionReader::DeviceController => {
                        // The first round has been read.
                        if told.is_empty() {
                            told.extend(["none", "a", "b"]);
                        }
                        match fixture.device.next(LONG).await.unwrap() {
                            DeviceControllerMsg::NodeUp { node, .. } => (false, Some(node)),
                            other => (matches!(other, DeviceControllerMsg::AllNodesDown), None),
                        }
                    }
                };
                assert!(none || node.is_some());
                told.push(match node {
                    Some(node) if node.as_str() == "a" => "a",
                    Some(_) => "b",
                    None => "none",
                });
            }
            assert_eq!(told, ["none", "a", "b", "none", "a", "b"], "{name}");
        }
    });
}

#[test]
fn each_session_is_a_child_that_goes_with_its_link() {
    run(async |fixture| {
        let one = fixture.link("system:node:a", "aa").await.unwrap();
        let two = fixture.link("system:node:b", "bb").await.unwrap();
        let are = async |expected: &[&str]| {
            let look = async {
                while fixture.sessions().await != expected {
                    fixture.env.sleep(Duration::from_millis(10)).await;
                }
            };
            let seen = fixture.env.timeout(LONG, look).await;
            assert!(seen.is_some(), "{:?}", fixture.sessions().await);
        };
        are(&["a/1", "b/2"]).await;
        drop(one);
        are(&["b/2"]).await;
        let newer = fixture.link("system:node:b", "bb").await.unwrap();
        are(&["b/3"]).await;
        assert_eq!(two.ended().await, CloseReason::Remote);
        drop(newer);
        are(&[]).await;
        assert_eq!(fixture.snapshot().await["nodes"], serde_json::json!({}));
    });
}
