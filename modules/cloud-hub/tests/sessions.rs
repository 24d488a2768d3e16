//! Sessions over the transport in memory, the register in the stand-alone API.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bench;

use std::time::Duration;

use beehive::Env;
use beehive::link::{CloseReason, Link, LinkError};
use bench::LONG;
use contract::NodeName;
use contract::cloudhub::{CloudHubMsg, SessionReader};
use contract::cloudstream::CloudStreamMsg;
use contract::devicecontroller::DeviceControllerMsg;
use contract::edgecontroller::{EdgeControllerMsg, EdgeUp};
use contract::nodelease::{ClaimRefused, NodeLeaseMsg};
use contract::synccontroller::SyncMsg;
use harness::{StandAlone, enter};
use noderegistry::Registry;

struct Bench {
    api: StandAlone,
    registry: Registry,
    it: bench::Bench,
}

impl std::ops::Deref for Bench {
    type Target = bench::Bench;

    fn deref(&self) -> &bench::Bench {
        &self.it
    }
}

impl std::ops::DerefMut for Bench {
    fn deref_mut(&mut self) -> &mut bench::Bench {
        &mut self.it
    }
}

fn run(test: impl AsyncFnOnce(Bench)) {
    actix_rt::System::new().block_on(async {
        let env = Env::real();
        let api = StandAlone::start(&env).await;
        let registry = Registry::new(api.client());
        let it = bench::Bench::start(&env, registry.clone(), 2, Vec::new());
        test(Bench { api, registry, it }).await;
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
    run(async |mut bench| {
        let link = bench.link("system:node:a", "aa").await.unwrap();
        let up = |message| match message {
            SyncMsg::NodeUp { node, session, .. } => Some((node, session)),
            _ => None,
        };
        let (node, session) = bench.sync.find(LONG, up).await.unwrap();
        assert_eq!(node.as_str(), "a");
        link.remote::<EdgeUp>().tell(EdgeUp::Alive).await.unwrap();
        let alive = |message| match message {
            EdgeControllerMsg::Up { node, session: 1, message: EdgeUp::Alive } => Some(node),
            _ => None,
        };
        assert_eq!(bench.edge.find(LONG, alive).await.unwrap().as_str(), "a");
        drop(link);
        let down = |message| match message {
            SyncMsg::NodeDown { node, session } => Some((node, session)),
            _ => None,
        };
        assert_eq!(bench.sync.find(LONG, down).await.unwrap(), (node, session));
    });
}

#[test]
fn the_newer_link_of_a_node_wins() {
    run(async |mut bench| {
        let older = bench.link("system:node:a", "aa").await.unwrap();
        let newer = bench.link("system:node:a", "aa").await.unwrap();
        assert_eq!(older.ended().await, CloseReason::Remote);
        let mut sessions = Vec::new();
        while sessions.len() < 3 {
            match bench.sync.next(LONG).await.unwrap() {
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
    run(async |bench| {
        let no_node = refused(bench.link("system:masters", "aa").await);
        assert!(no_node.reason.contains("keadm join"), "{}", no_node.reason);
    });
}

#[test]
fn a_link_ends_when_its_certificate_is_not_the_living_one_any_more() {
    run(async |bench| {
        let node = |name: &str| NodeName::parse(name).unwrap();
        let enter =
            async |name: &str, serial: &str| enter(bench.api.client(), name, serial, bench.env.wall()).await;
        let ended = async |link: &Link| bench.env.timeout(LONG, link.ended()).await.is_some();
        // It gives its certificate back, joins anew, is revoked by an administrator, and is forgotten.
        enter("a", "aa").await;
        enter("b", "bb").await;
        let stays = bench.link("system:node:b", "bb").await.unwrap();
        let link = bench.link("system:node:a", "aa").await.unwrap();
        bench.registry.release(&node("a"), "aa").await.unwrap();
        assert!(ended(&link).await);
        enter("a", "ab").await;
        let link = bench.link("system:node:a", "ab").await.unwrap();
        bench.registry.revoke(&node("a")).await.unwrap();
        assert!(ended(&link).await);
        bench.registry.free(&node("a")).await.unwrap();
        enter("a", "ac").await;
        let link = bench.link("system:node:a", "ac").await.unwrap();
        bench.registry.free(&node("a")).await.unwrap();
        assert!(ended(&link).await);
        assert!(stays.remote::<EdgeUp>().is_up());
    });
}

#[test]
fn above_the_limit_a_node_is_asked_to_wait() {
    run(async |bench| {
        let _one = bench.link("system:node:a", "aa").await.unwrap();
        let _two = bench.link("system:node:b", "bb").await.unwrap();
        let full = refused(bench.link("system:node:c", "cc").await);
        assert_eq!(full.wait, Some(Duration::from_secs(30)));
        // A node that is counted already may come again.
        assert!(bench.link("system:node:a", "aa").await.is_ok());
    });
}

#[test]
fn nobody_is_let_in_whose_node_cannot_be_claimed() {
    run(async |bench| {
        let (reason, wait) = ("the Node `a` was deleted".to_owned(), Some(Duration::from_secs(60)));
        bench.claims.0.borrow_mut().push(Err(ClaimRefused { reason, wait }));
        let refused = refused(bench.link("system:node:a", "aa").await);
        assert_eq!(
            (&*refused.reason, refused.wait),
            ("the Node `a` was deleted", Some(Duration::from_secs(60)))
        );
        assert!(bench.link("system:node:a", "aa").await.is_ok());
    });
}

#[test]
fn a_session_that_another_cloudcore_has_taken_is_ended() {
    run(async |mut bench| {
        let link = bench.link("system:node:a", "aa").await.unwrap();
        let node = NodeName::parse("a").unwrap();
        // Of an earlier session: this one goes on.
        let over = |session| {
            let reason = "another CloudCore has taken it".to_owned();
            CloudHubMsg::SessionOver { node: node.clone(), session, reason }
        };
        bench.hub.tell(over(7)).await.unwrap();
        bench.hub.tell(over(1)).await.unwrap();
        assert_eq!(bench.env.timeout(LONG, link.ended()).await, Some(CloseReason::Remote));
        let down = |message| match message {
            EdgeControllerMsg::NodeDown { node, session } => Some((node, session)),
            _ => None,
        };
        assert_eq!(bench.edge.find(LONG, down).await.unwrap(), (node, 1));
    });
}

#[test]
fn of_two_links_that_arrive_together_the_one_stays_that_took_the_node_last() {
    run(async |mut bench| {
        // The answers come from the end: the second link is told an epoch before the first one's.
        bench.claims.0.borrow_mut().extend([Ok(4), Ok(5)]);
        let first = bench.link("system:node:a", "aa").await.unwrap();
        let up = |message| match message {
            EdgeControllerMsg::NodeUp { session, .. } => Some(session),
            _ => None,
        };
        assert_eq!(bench.edge.find(LONG, up).await, Some(5));
        let late = bench.link("system:node:a", "aa").await.unwrap();
        assert_eq!(bench.env.timeout(LONG, late.ended()).await, Some(CloseReason::Remote));
        assert!(first.remote::<EdgeUp>().is_up());
    });
}

#[test]
fn whoever_has_begun_anew_is_told_which_sessions_are_open() {
    run(async |mut bench| {
        let _one = bench.link("system:node:a", "aa").await.unwrap();
        let _two = bench.link("system:node:b", "bb").await.unwrap();
        // All five were told of both.
        let mut ups = 0;
        while ups < 2 {
            ups += u32::from(matches!(
                bench.device.next(LONG).await.unwrap(),
                DeviceControllerMsg::NodeUp { .. }
            ));
        }
        for (to, name) in [
            (SessionReader::NodeLease, "lease"),
            (SessionReader::SyncController, "sync"),
            (SessionReader::EdgeController, "edge"),
            (SessionReader::DeviceController, "device"),
            (SessionReader::CloudStream, "stream"),
        ] {
            bench.hub.tell(CloudHubMsg::TellSessions { to }).await.unwrap();
            let mut told = Vec::new();
            // What was told before, and after that once more from the beginning.
            while told.iter().filter(|word| **word == "none").count() < 2 || told.last() != Some(&"b") {
                let (none, node) = match to {
                    SessionReader::NodeLease => match bench.lease.next(LONG).await.unwrap() {
                        NodeLeaseMsg::NodeUp { node, certificate, .. } => {
                            assert_eq!(certificate, format!("{node}{node}"));
                            (false, Some(node))
                        }
                        other => (matches!(other, NodeLeaseMsg::AllNodesDown), None),
                    },
                    SessionReader::SyncController => match bench.sync.next(LONG).await.unwrap() {
                        SyncMsg::NodeUp { node, .. } => (false, Some(node)),
                        other => (matches!(other, SyncMsg::AllNodesDown), None),
                    },
                    SessionReader::EdgeController => match bench.edge.next(LONG).await.unwrap() {
                        EdgeControllerMsg::NodeUp { node, .. } => (false, Some(node)),
                        other => (matches!(other, EdgeControllerMsg::AllNodesDown), None),
                    },
                    SessionReader::CloudStream => match bench.stream.next(LONG).await.unwrap() {
                        CloudStreamMsg::NodeUp { node, .. } => (false, Some(node)),
                        other => (matches!(other, CloudStreamMsg::AllNodesDown), None),
                    },
                    SessionReader::DeviceController => {
                        // The first round has been read.
                        if told.is_empty() {
                            told.extend(["none", "a", "b"]);
                        }
                        match bench.device.next(LONG).await.unwrap() {
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
    run(async |bench| {
        let one = bench.link("system:node:a", "aa").await.unwrap();
        let two = bench.link("system:node:b", "bb").await.unwrap();
        let are = async |expected: &[&str]| {
            let look = async {
                while bench.sessions().await != expected {
                    bench.env.sleep(Duration::from_millis(10)).await;
                }
            };
            let seen = bench.env.timeout(LONG, look).await;
            assert!(seen.is_some(), "{:?}", bench.sessions().await);
        };
        are(&["a/1", "b/2"]).await;
        drop(one);
        are(&["b/2"]).await;
        let newer = bench.link("system:node:b", "bb").await.unwrap();
        are(&["b/3"]).await;
        assert_eq!(two.ended().await, CloseReason::Remote);
        drop(newer);
        are(&[]).await;
        assert_eq!(bench.snapshot().await["nodes"], serde_json::json!({}));
    });
}
