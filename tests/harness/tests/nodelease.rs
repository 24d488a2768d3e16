//! A claim is answered while EdgeController is busy with ten thousand objects: who has a node is another actor's business.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// The figures are what this test is for.
#![allow(clippy::print_stdout)]

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use beehive::testing::Probe;
use beehive::{Capacity, Env, Flow, Hive, Policy};
use cloud_edgecontroller::EdgeController;
use cloud_nodelease::NodeLease;
use contract::NodeName;
use contract::cloudhub::CloudHubMsg;
use contract::edgecontroller::EdgeControllerMsg;
use contract::nodelease::NodeLeaseMsg;
use contract::synccontroller::SyncMsg;
use harness::{LONG, StandAlone, enter, run};
use http_body_util::{BodyExt, Full};
use kube::client::Body;
use kubewatch::{Interruptions, ReadAs};
use serde_json::{Value, json};

const PODS: usize = 10_000;

type Boxed = Box<dyn std::error::Error + Send + Sync>;

/// A watch on which nothing happens.
struct Pending;

impl http_body::Body for Pending {
    type Data = bytes::Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Infallible>>> {
        Poll::Pending
    }
}

/// The API, with a Node of another name on which ten thousand pods are.
fn with_pods(client: kube::Client) -> kube::Client {
    let node = json!({
        "metadata": {
            "name": "edge-2", "uid": "n", "resourceVersion": "1",
            "labels": {"node-role.kubernetes.io/edge": ""}, "annotations": {"kubehive.io/enrolment": "1"},
        },
    });
    let pod = |n: usize| {
        json!({
            "metadata": {"name": format!("web-{n}"), "namespace": "default", "uid": n.to_string(), "resourceVersion": "2"},
            "spec": {"nodeName": "edge-2", "containers": [{"name": "web", "image": "web:1"}]},
        })
    };
    let list = |items: Vec<Value>| {
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "10"}, "items": items})
            .to_string()
    };
    let (nodes, pods) = (list(vec![node]), list((0..PODS).map(pod).collect()));
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (client, nodes, pods) = (client.clone(), nodes.clone(), pods.clone());
        async move {
            let watches = request.uri().query().is_some_and(|query| query.contains("watch=true"));
            let listed = match request.uri().path() {
                "/api/v1/nodes" => nodes,
                "/api/v1/pods" => pods,
                _ => {
                    let answer = client.send(request).await?;
                    return Ok::<_, kube::Error>(answer.map(|body| body.map_err(Boxed::from).boxed_unsync()));
                }
            };
            let body = if watches {
                Pending.map_err(Boxed::from).boxed_unsync()
            } else {
                Full::new(bytes::Bytes::from(listed)).map_err(Boxed::from).boxed_unsync()
            };
            Ok(http::Response::new(body))
        }
    });
    kube::Client::new(service, "default")
}

#[test]
fn a_claim_is_answered_while_edgecontroller_is_busy_with_ten_thousand_objects() {
    run(async || {
        let env = Env::real();
        let api = StandAlone::start(&env).await;
        enter(api.client(), "edge-1", "01", env.wall()).await;
        let client = with_pods(api.client());
        let mut hive = Hive::new("test", env.clone());
        let lease = hive.mailbox::<NodeLeaseMsg>("lease", Capacity::new(16, "a test's choice"));
        let edge = hive.mailbox::<EdgeControllerMsg>("edge", Capacity::new(16, "a test's choice"));
        let lease_to = hive.grant("a test", &lease, Flow::Ask);
        let (_hub, hub) = Probe::new(&env, 16);
        let (_stream, stream) = Probe::new(&env, 16);
        // SyncController has room for few, and takes none: EdgeController waits in the middle of it.
        let (mut sync, to_sync) = Probe::<SyncMsg>::new(&env, 16);
        let interruptions = Interruptions::default();
        let dependencies = cloud_nodelease::Dependencies {
            client: client.clone(),
            hub: hub.clone(),
            cloudcore: "cloudcore-a".to_owned(),
            address: None,
            lease_period: Duration::from_secs(10),
            interruptions: interruptions.clone(),
        };
        hive.supervise(lease, Policy::default(), move || NodeLease::new(dependencies.clone()));
        let dependencies = cloud_edgecontroller::Dependencies {
            client,
            sync: to_sync,
            lease: lease_to.clone(),
            hub,
            stream,
            interruptions,
            read_as: ReadAs::CloudCore,
            pod_addresses: cloud_edgecontroller::PodAddresses::Any,
            is_kubelet_endpoint: true,
        };
        hive.supervise(edge, Policy::default(), move || EdgeController::new(dependencies.clone()));
        hive.open().unwrap();
        let is_busy = async || {
            let report = hive.inspector().report(Duration::from_millis(1)).await;
            report.actor("edge").unwrap().busy_with == Some("Reconcile")
        };
        // Whoever is seen in the same turn fifty times running waits in it.
        let (until, mut looks) = (env.now() + LONG, 0);
        while looks < 50 {
            assert!(env.now() < until, "EdgeController does not get to it");
            looks = if is_busy().await { looks + 1 } else { 0 };
            env.sleep(Duration::from_millis(10)).await;
        }
        let began = env.now();
        let node = NodeName::parse("edge-1").unwrap();
        let claim = |reply| NodeLeaseMsg::Claim { node, certificate: "01".to_owned(), reply };
        let session = lease_to.ask(LONG, claim).await.unwrap().unwrap();
        println!("claimed in {} ms", env.now().since(began).as_millis());
        assert_eq!(session, 1);
        assert!(is_busy().await, "it is still busy with them");
        let mut upserts = 0;
        while upserts < PODS {
            upserts += usize::from(matches!(sync.next(LONG).await.unwrap(), SyncMsg::Upsert { .. }));
        }
    });
}

/// The API, whose first answer to a patch of a Lease comes 7 s after it was written.
fn with_a_late_answer(client: kube::Client) -> kube::Client {
    let was_late = Arc::new(AtomicBool::new(false));
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (client, was_late) = (client.clone(), Arc::clone(&was_late));
        async move {
            let is_claim =
                request.method() == http::Method::PATCH && request.uri().path().contains("/leases/");
            let answer = client.send(request).await?;
            if is_claim && !was_late.swap(true, Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_secs(7)).await;
            }
            Ok::<_, kube::Error>(answer)
        }
    });
    kube::Client::new(service, "default")
}

#[test]
fn a_lease_that_is_written_after_the_claim_was_refused_says_again_what_it_said() {
    run(async || {
        let env = Env::real();
        let api = StandAlone::start(&env).await;
        enter(api.client(), "edge-1", "01", env.wall()).await;
        let mut hive = Hive::new("test", env.clone());
        let lease = hive.mailbox::<NodeLeaseMsg>("lease", Capacity::new(16, "a test's choice"));
        let lease_to = hive.grant("a test", &lease, Flow::Ask);
        let (_hub, hub) = Probe::new(&env, 16);
        let parts = cloud_nodelease::Dependencies {
            client: with_a_late_answer(api.client()),
            hub,
            cloudcore: "cloudcore-a".to_owned(),
            address: None,
            lease_period: Duration::from_secs(10),
            interruptions: Interruptions::default(),
        };
        hive.supervise(lease, Policy::default(), move || NodeLease::new(parts.clone()));
        hive.open().unwrap();
        let node = || NodeName::parse("edge-1").unwrap();
        let claim = |reply| NodeLeaseMsg::Claim { node: node(), certificate: "01".to_owned(), reply };
        assert_eq!(lease_to.ask(LONG, claim).await.unwrap(), Ok(1));
        let refused = lease_to.ask(LONG, claim).await.unwrap().unwrap_err();
        assert!(refused.reason.contains("did not answer in time"), "{refused:?}");
        // The session that is open goes on.
        let is_held = async || {
            let holds = |reply| NodeLeaseMsg::Holds { node: node(), session: 1, reply };
            lease_to.ask(LONG, holds).await.unwrap().unwrap()
        };
        let until = env.now() + LONG;
        while !is_held().await {
            assert!(env.now() < until, "the first session has lost its node");
            env.sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(lease_to.ask(LONG, claim).await.unwrap(), Ok(2), "nobody had the second");
    });
}

/// The API, where each answer takes this long.
fn with_slow_answers(client: kube::Client, each: Duration) -> kube::Client {
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let client = client.clone();
        async move {
            tokio::time::sleep(each).await;
            client.send(request).await
        }
    });
    kube::Client::new(service, "default")
}

/// As in a rolling update: the next CloudCore has never had the node, and its API server has many others to answer.
#[test]
fn a_node_is_claimed_where_each_answer_of_the_api_server_takes_a_second() {
    run(async || {
        let env = Env::real();
        let api = StandAlone::start(&env).await;
        enter(api.client(), "edge-1", "01", env.wall()).await;
        for (cloudcore, client, session) in [
            ("cloudcore-a", api.client(), 1),
            ("cloudcore-b", with_slow_answers(api.client(), Duration::from_millis(1100)), 2),
        ] {
            let mut hive = Hive::new("test", env.clone());
            let lease = hive.mailbox::<NodeLeaseMsg>("lease", Capacity::new(16, "a test's choice"));
            let lease_to = hive.grant("a test", &lease, Flow::Ask);
            let (_hub, hub) = Probe::new(&env, 16);
            let parts = cloud_nodelease::Dependencies {
                client,
                hub,
                cloudcore: cloudcore.to_owned(),
                address: None,
                lease_period: Duration::from_secs(10),
                interruptions: Interruptions::default(),
            };
            hive.supervise(lease, Policy::default(), move || NodeLease::new(parts.clone()));
            hive.open().unwrap();
            let node = NodeName::parse("edge-1").unwrap();
            let claim = |reply| NodeLeaseMsg::Claim { node, certificate: "01".to_owned(), reply };
            assert_eq!(lease_to.ask(LONG, claim).await.unwrap(), Ok(session), "{cloudcore}");
        }
    });
}

#[test]
fn a_link_that_goes_on_under_an_older_claim_is_ended_at_its_next_sign_of_life() {
    run(async || {
        let env = Env::real();
        let api = StandAlone::start(&env).await;
        enter(api.client(), "edge-1", "01", env.wall()).await;
        let mut hive = Hive::new("test", env.clone());
        let lease = hive.mailbox::<NodeLeaseMsg>("lease", Capacity::new(16, "a test's choice"));
        let lease_to = hive.grant("a test", &lease, Flow::Ask);
        let (mut hub, to_hub) = Probe::new(&env, 16);
        let parts = cloud_nodelease::Dependencies {
            client: api.client(),
            hub: to_hub,
            cloudcore: "cloudcore-a".to_owned(),
            address: None,
            lease_period: Duration::from_secs(10),
            interruptions: Interruptions::default(),
        };
        hive.supervise(lease, Policy::default(), move || NodeLease::new(parts.clone()));
        hive.open().unwrap();
        let node = || NodeName::parse("edge-1").unwrap();
        let claim = |reply| NodeLeaseMsg::Claim { node: node(), certificate: "01".to_owned(), reply };
        assert_eq!(lease_to.ask(LONG, claim).await.unwrap(), Ok(1));
        // The node gives the second dial up while it is answered: there is no link of it, and the first one lives.
        assert_eq!(lease_to.ask(LONG, claim).await.unwrap(), Ok(2));
        for session in [2, 1] {
            lease_to.tell(NodeLeaseMsg::Renew { node: node(), session }).await.unwrap();
        }
        let over = |message| match message {
            CloudHubMsg::SessionOver { session, .. } => Some(session),
            _ => None,
        };
        assert_eq!(hub.find(LONG, over).await, Some(1));
    });
}

#[test]
fn a_count_at_its_end_is_refused_by_name_and_begins_anew_when_its_lease_is_deleted() {
    run(async || {
        let env = Env::real();
        let api = StandAlone::start(&env).await;
        enter(api.client(), "edge-1", "01", env.wall()).await;
        let lease = "coordination.k8s.io/v1";
        let leases = harness::objects(api.client(), lease, "Lease", Some("kube-node-lease"));
        let at_the_end = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "edge-1", "annotations": {"kubehive.io/cloudcore": "cloudcore-b"}},
            "spec": {"holderIdentity": "edge-1", "leaseTransitions": i32::MAX, "renewTime": "2026-01-01T00:00:00.000000Z"},
        });
        leases.create(&Default::default(), &serde_json::from_value(at_the_end).unwrap()).await.unwrap();
        let mut hive = Hive::new("test", env.clone());
        let lease = hive.mailbox::<NodeLeaseMsg>("lease", Capacity::new(16, "a test's choice"));
        let lease_to = hive.grant("a test", &lease, Flow::Ask);
        let (_hub, hub) = Probe::new(&env, 16);
        let parts = cloud_nodelease::Dependencies {
            client: api.client(),
            hub,
            cloudcore: "cloudcore-a".to_owned(),
            address: None,
            lease_period: Duration::from_secs(10),
            interruptions: Interruptions::default(),
        };
        hive.supervise(lease, Policy::default(), move || NodeLease::new(parts.clone()));
        hive.open().unwrap();
        let claim = |reply| NodeLeaseMsg::Claim {
            node: NodeName::parse("edge-1").unwrap(),
            certificate: "01".to_owned(),
            reply,
        };
        let refused = lease_to.ask(LONG, claim).await.unwrap().unwrap_err();
        assert!(refused.reason.contains("kube-node-lease/edge-1"), "{refused:?}");
        let kept = leases.get("edge-1").await.unwrap();
        assert_eq!(kept.data["spec"]["leaseTransitions"], i32::MAX, "nothing was written");
        leases.delete("edge-1", &Default::default()).await.unwrap();
        assert_eq!(lease_to.ask(LONG, claim).await.unwrap(), Ok(1));
    });
}

#[test]
fn the_lease_says_which_cloudcore_has_a_node_and_where_that_is() {
    run(async || {
        let env = Env::real();
        let api = StandAlone::start(&env).await;
        for name in ["edge-1", "edge-2", "edge-3"] {
            enter(api.client(), name, "01", env.wall()).await;
        }
        let nodes = harness::objects(api.client(), "v1", "Node", None);
        let make_node = async |name: &str| {
            let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
            nodes.create(&Default::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
        };
        make_node("edge-2").await;
        let leases =
            harness::objects(api.client(), "coordination.k8s.io/v1", "Lease", Some("kube-node-lease"));
        let of_another = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "edge-2", "annotations": {
                "kubehive.io/cloudcore": "cloudcore-b", "kubehive.io/cloudcore-address": "192.0.2.2:9444",
            }},
            "spec": {"holderIdentity": "edge-2", "leaseTransitions": 3, "renewTime": "2026-01-01T00:00:00.000000Z"},
        });
        leases.create(&Default::default(), &serde_json::from_value(of_another).unwrap()).await.unwrap();
        let start = |name: &str, address: Option<&str>| {
            let mut hive = Hive::new("test", env.clone());
            let lease = hive.mailbox::<NodeLeaseMsg>("lease", Capacity::new(16, "a test's choice"));
            let lease_to = hive.grant("a test", &lease, Flow::Ask);
            let (hub_probe, hub) = Probe::new(&env, 16);
            let parts = cloud_nodelease::Dependencies {
                client: api.client(),
                hub,
                cloudcore: name.to_owned(),
                address: address.map(|address| address.parse().unwrap()),
                lease_period: Duration::from_secs(10),
                interruptions: Interruptions::default(),
            };
            hive.supervise(lease, Policy::default(), move || NodeLease::new(parts.clone()));
            hive.open().unwrap();
            (hive, lease_to, hub_probe)
        };
        let (_hive, lease_to, _hub) = start("cloudcore-a", Some("192.0.2.1:9444"));
        let holder = async |name: &str| {
            let node = NodeName::parse(name).unwrap();
            lease_to.ask(LONG, |reply| NodeLeaseMsg::Holder { node, reply }).await.unwrap()
        };
        let held = |cloudcore: &str, address: Option<&str>, is_here| {
            Ok(Some(contract::nodelease::NodeHolder {
                cloudcore: cloudcore.to_owned(),
                address: address.map(str::to_owned),
                is_here,
            }))
        };
        let until_shown = async |name: &str| {
            let until = env.now() + LONG;
            loop {
                match holder(name).await {
                    // Nobody says that it is nowhere before the watch has listed; and then it shows a Node as soon as it can.
                    Err(_) | Ok(None) if env.now() < until => env.sleep(Duration::from_millis(10)).await,
                    found => return found,
                }
            }
        };
        assert_eq!(until_shown("edge-2").await, held("cloudcore-b", Some("192.0.2.2:9444"), false));
        assert_eq!(holder("edge-1").await, Ok(None), "there is no such Node");
        let (_other_hive, other, _other_hub) = start("cloudcore-c", None);
        let claim = |name: &str| {
            let node = NodeName::parse(name).unwrap();
            move |reply| NodeLeaseMsg::Claim { node, certificate: "01".to_owned(), reply }
        };
        for name in ["edge-1", "edge-3"] {
            lease_to.ask(LONG, claim(name)).await.unwrap().unwrap();
        }
        // One to which nobody can pass anything takes the address of the one before away.
        other.ask(LONG, claim("edge-3")).await.unwrap().unwrap();
        make_node("edge-1").await;
        make_node("edge-3").await;
        assert_eq!(until_shown("edge-1").await, held("cloudcore-a", Some("192.0.2.1:9444"), true));
        assert_eq!(until_shown("edge-3").await, held("cloudcore-c", None, false));
    });
}
