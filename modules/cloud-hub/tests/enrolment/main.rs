//! Enrolment over real HTTPS, with everything that it keeps in the stand-alone API.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod client;
mod slow_clients;

use std::time::Duration;

use beehive::Env;
use client::{Cloud, send, text};
use cloud_hub::SecretStore;
use contract::NodeName;
use harness::MemoryApi;
use http::{Request, StatusCode};
use http_body_util::Full;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use pki::{Authority, JoinToken, NodeRequest};

#[actix_rt::test]
async fn a_node_joins_gives_its_name_back_and_joins_again() {
    let env = Env::real();
    let cloud = Cloud::start(&env).await;
    let request = Request::get("/ca.crt").body(Full::default()).unwrap();
    let (status, ca) = send(cloud.it.server.address, &cloud.it.ca_der, None, request).await.unwrap();
    assert_eq!((status, &ca), (StatusCode::OK, &cloud.it.ca_der));

    let key = NodeRequest::new("edge-1").unwrap();
    let token = cloud.token(3600, None).await;
    let (status, cert) = cloud.join("edge-1", &token, &key.csr_der).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(pki::node_of_certificate(&cert).unwrap(), "edge-1");

    let (status, body) = cloud.join("edge-1", &token, &key.csr_der).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(text(&body).contains("keadm reset"), "{}", text(&body));

    let (status, _) = cloud.reset(None).await.unwrap();
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let (status, _) = cloud.reset(Some((&cert, &key.key_pem))).await.unwrap();
    assert_eq!(status, StatusCode::OK);
    let (status, _) = cloud.reset(Some((&cert, &key.key_pem))).await.unwrap();
    assert_eq!(status, StatusCode::NOT_FOUND, "an old certificate frees nothing");
    let (status, _) = cloud.join("edge-1", &token, &key.csr_der).await;
    assert_eq!(status, StatusCode::OK);
    cloud.it.server.stop().await;
}

#[actix_rt::test]
async fn every_refusal_is_a_sentence() {
    let env = Env::real();
    let cloud = Cloud::start(&env).await;
    let csr = NodeRequest::new("edge-1").unwrap().csr_der;
    let (open, bound) = (cloud.token(3600, None).await, cloud.token(3600, Some("edge-1")).await);
    let forged = |key: [u8; 32], id: &str| {
        let key = pki::TokenKey::new(&key).unwrap();
        let text = key.mint(&cloud.it.ca_der, u64::MAX / 2, id, None).unwrap();
        JoinToken::parse(&text).unwrap().jwt
    };
    // Signed with the cluster's key, and no object says that it is good.
    let unknown = cloud.it.token_key.mint(&cloud.it.ca_der, u64::MAX / 2, "nobody-knows", None).unwrap();
    let odd = cloud.it.token_key.mint(&cloud.it.ca_der, u64::MAX / 2, "../../nodes/a?x=", None).unwrap();
    let [unknown, odd] = [unknown, odd].map(|text| JoinToken::parse(&text).unwrap().jwt);
    let withdrawn = cloud.token(3600, None).await;
    for token in cloud.it.registry.tokens().await.unwrap() {
        if cloud.is_of(&token.id, &withdrawn) {
            assert_eq!(cloud.it.registry.withdraw(&token.id).await.unwrap(), noderegistry::Removal::Gone);
        }
    }
    let too_long = vec![0x30; pki::CSR_MAX + 1];
    let cases = [
        ("edge-1", cloud.token(-60, None).await, csr.clone(), 401, "expired"),
        ("edge-1", forged([7; 32], "x"), csr.clone(), 401, "not made by this cluster"),
        ("edge-1", unknown, csr.clone(), 401, "withdrawn"),
        ("edge-1", odd, csr.clone(), 401, "not a join token"),
        ("edge-1", withdrawn, csr.clone(), 401, "withdrawn"),
        ("edge-1", "nonsense".to_owned(), csr.clone(), 401, "not a join token"),
        ("edge-2", bound.clone(), csr.clone(), 401, "bound to the name `edge-1`"),
        ("Edge_1", open.clone(), csr.clone(), 400, "DNS-1123"),
        ("edge-1/../x", open.clone(), csr.clone(), 400, "DNS-1123"),
        ("edge-1", open.clone(), vec![1, 2, 3], 400, "not a certificate signing request"),
        ("edge-1", open.clone(), too_long, 413, "longer than 16 KiB"),
    ];
    for (node, token, csr, status, words) in cases {
        let (got, body) = cloud.join(node, &token, &csr).await;
        assert_eq!(got.as_u16(), status, "{}", text(&body));
        assert!(text(&body).contains(words), "{}", text(&body));
    }
    assert_eq!(cloud.join("edge-1", &bound, &csr).await.0, StatusCode::OK);
    let (status, body) = cloud.join("edge-1", &bound, &csr).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(text(&body).contains("has been used"), "{}", text(&body));
    // A certificate of another authority does not even get through the handshake.
    let other = Authority::create(env.wall(), [9; 16]).unwrap();
    let key = NodeRequest::new("edge-1").unwrap();
    let day = Duration::from_secs(86_400);
    let forged = other.sign_node(&key.csr_der, "edge-1", env.wall(), day, [8; 16]).unwrap();
    assert!(cloud.reset(Some((&forged.der, &key.key_pem))).await.is_err());
    cloud.it.server.stop().await;
}

#[actix_rt::test]
async fn odd_requests_get_a_sentence_or_an_end() {
    let env = Env::real();
    let cloud = Cloud::start(&env).await;
    let ask = async |request: Request<Full<hyper::body::Bytes>>| {
        send(cloud.it.server.address, &cloud.it.ca_der, None, request).await
    };
    let of = |method: &str, path: &str| {
        Request::builder().method(method).uri(path).body(Full::<hyper::body::Bytes>::default()).unwrap()
    };
    for (method, path, status) in [
        ("POST", "/edge.crt", 405),
        ("BREW", "/ca.crt", 405),
        ("GET", "/", 404),
        ("GET", "/edge.crt/../x", 404),
    ] {
        let (got, body) = ask(of(method, path)).await.unwrap();
        assert_eq!(got.as_u16(), status, "{method} {path}");
        assert!(text(&body).contains("/edge.crt"), "{}", text(&body));
    }
    let mut long = of("GET", "/edge.crt");
    long.headers_mut().insert("Authorization", format!("Bearer {}", "a".repeat(40 << 10)).parse().unwrap());
    let got = ask(long).await;
    assert!(got.as_ref().map_or(true, |(status, _)| status.as_u16() == 431), "{got:?}");
    let mut many = of("GET", "/edge.crt");
    for number in 0..100 {
        let name: http::HeaderName = format!("x-{number}").parse().unwrap();
        many.headers_mut().insert(name, "1".parse().unwrap());
    }
    let got = ask(many).await;
    assert!(got.as_ref().map_or(true, |(status, _)| status.as_u16() == 431), "{got:?}");
    cloud.it.server.stop().await;
}

/// C2: a stolen token that is good for many nodes.
#[actix_rt::test]
async fn an_open_token_becomes_no_node_that_has_a_node_object() {
    let env = Env::real();
    let cloud = Cloud::start(&env).await;
    let nodes: Api<Node> = Api::all(cloud.api.client());
    let control_plane: Node =
        serde_json::from_value(serde_json::json!({"metadata": {"name": "cp-1"}})).unwrap();
    let made = nodes.create(&PostParams::default(), &control_plane).await.unwrap();
    let csr = NodeRequest::new("cp-1").unwrap().csr_der;
    let open = cloud.token(3600, None).await;
    let (status, body) = cloud.join("cp-1", &open, &csr).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(text(&body).contains("--edgenode-name=cp-1"), "{}", text(&body));
    // Bound to the name, and nobody has adopted the Node.
    let bound = cloud.token(3600, Some("cp-1")).await;
    let (status, body) = cloud.join("cp-1", &bound, &csr).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(text(&body).contains("keadm adopt cp-1"), "{}", text(&body));
    // A word that names another uid is none.
    let say = async |word: &str| {
        let word = serde_json::json!({"metadata": {"annotations": {noderegistry::ADOPTED_ANNOTATION: word}}});
        nodes.patch("cp-1", &PatchParams::default(), &Patch::Merge(&word)).await.unwrap();
    };
    say("another").await;
    assert_eq!(cloud.join("cp-1", &bound, &csr).await.0, StatusCode::FORBIDDEN);
    let uid = made.metadata.uid.clone().unwrap();
    say(&uid).await;
    assert_eq!(cloud.join("cp-1", &open, &csr).await.0, StatusCode::FORBIDDEN, "an open one is not enough");
    assert_eq!(cloud.join("cp-1", &bound, &csr).await.0, StatusCode::OK);
    let node = NodeName::parse("cp-1").unwrap();
    let entered = cloud.it.registry.edge_node(&node).await.unwrap().unwrap();
    assert_eq!(entered.spec.node_uid, Some(uid));
    // Withdrawn or used up, it joins nothing more.
    nodes.delete("cp-1", &DeleteParams::default()).await.unwrap();
    assert_eq!(cloud.join("cp-1", &bound, &csr).await.0, StatusCode::UNAUTHORIZED);
    for token in cloud.it.registry.tokens().await.unwrap() {
        cloud.it.registry.withdraw(&token.id).await.unwrap();
    }
    let (status, body) = cloud.join("new", &open, &csr).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(text(&body).contains("withdrawn"), "{}", text(&body));
    cloud.it.server.stop().await;
}

/// A Node that was just deleted, whose pods are there still.
#[actix_rt::test]
async fn an_open_token_does_not_become_a_node_that_was_just_deleted() {
    let env = Env::real();
    let cloud = Cloud::start(&env).await;
    let client = cloud.api.client();
    let (nodes, pods): (Api<Node>, Api<Pod>) = (Api::all(client.clone()), Api::namespaced(client, "default"));
    let node = serde_json::json!({"metadata": {"name": "cp-9"}});
    nodes.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
    let pod = serde_json::json!({
        "metadata": {"name": "vault"},
        "spec": {"nodeName": "cp-9", "containers": [{"name": "vault", "image": "vault:1"}]},
    });
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let csr = NodeRequest::new("cp-9").unwrap().csr_der;
    let open = cloud.token(3600, None).await;
    nodes.delete("cp-9", &DeleteParams::default()).await.unwrap();
    let (status, body) = cloud.join("cp-9", &open, &csr).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{}", text(&body));
    assert!(text(&body).contains("--edgenode-name=cp-9"), "{}", text(&body));
    assert!(cloud.it.registry.edge_node(&NodeName::parse("cp-9").unwrap()).await.unwrap().is_none());
    cloud.it.server.stop().await;
}

/// On a copy of its disk, be it linked to this CloudCore or to another one, of which its Lease tells.
#[actix_rt::test]
async fn a_name_under_which_somebody_is_linked_is_not_given_back() {
    let env = Env::real();
    let cloud = Cloud::start(&env).await;
    let key = NodeRequest::new("edge-1").unwrap();
    let token = cloud.token(3600, None).await;
    let (_, cert) = cloud.join("edge-1", &token, &key.csr_der).await;
    let (node, linked) = (NodeName::parse("edge-1").unwrap(), cloud.it.linked.clone());
    let before = cloud.it.registry.edge_node(&node).await.unwrap().unwrap().metadata;
    let refused = async || {
        let (status, body) = cloud.reset(Some((&cert, &key.key_pem))).await.unwrap();
        assert_eq!(status, StatusCode::CONFLICT, "{}", text(&body));
        assert!(text(&body).contains("keadm reset --force"), "{}", text(&body));
        assert_eq!(cloud.it.registry.edge_node(&node).await.unwrap().unwrap().metadata, before);
    };
    linked.began(&node, 1);
    refused().await;

    // Another CloudCore has the node, and renews its Lease.
    linked.ended(&node, 1);
    let leases: Api<Lease> = Api::namespaced(cloud.api.client(), "kube-node-lease");
    let spec = |second: u32| {
        let now = jiff::Timestamp::try_from(env.wall()).unwrap();
        let renewed = now.checked_add(jiff::SignedDuration::from_secs(second.into())).unwrap();
        serde_json::json!({"leaseTransitions": 2, "renewTime": format!("{renewed:.6}")})
    };
    let lease = serde_json::json!({"metadata": {"name": "edge-1"}, "spec": spec(0)});
    leases.create(&PostParams::default(), &serde_json::from_value(lease).unwrap()).await.unwrap();
    let renew = async {
        for second in 1.. {
            let patch = serde_json::json!({"spec": spec(second)});
            leases.patch("edge-1", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
            env.sleep(Duration::from_millis(300)).await;
        }
    };
    tokio::select! {
        () = refused() => {}
        () = renew => unreachable!("it is renewed for ever"),
    }

    // Here it comes, and its link ends while somebody looks: edgecore was stopped for the reset.
    linked.began(&node, 3);
    let ends = async {
        env.sleep(Duration::from_millis(200)).await;
        linked.ended(&node, 3);
    };
    let (answer, ()) = futures::join!(cloud.reset(Some((&cert, &key.key_pem))), ends);
    assert_eq!(answer.unwrap().0, StatusCode::OK);
    cloud.it.server.stop().await;
}

#[actix_rt::test]
async fn a_credential_that_asks_all_the_time_is_told_to_wait() {
    let env = Env::real();
    let cloud = Cloud::start(&env).await;
    let key = NodeRequest::new("edge-1").unwrap();
    let token = cloud.token(3600, None).await;
    let (status, cert) = cloud.join("edge-1", &token, &key.csr_der).await;
    assert_eq!(status, StatusCode::OK);
    // A name that is taken, over and over.
    let mut answers = Vec::new();
    while answers.last() != Some(&StatusCode::TOO_MANY_REQUESTS) && answers.len() < 200 {
        let (status, body) = cloud.join("edge-1", &token, &key.csr_der).await;
        assert_eq!(
            text(&body).contains("wait 1 s"),
            status == StatusCode::TOO_MANY_REQUESTS,
            "{}",
            text(&body)
        );
        answers.push(status);
    }
    assert_eq!(answers.pop(), Some(StatusCode::TOO_MANY_REQUESTS));
    assert!(
        answers.len() >= 9 && answers.iter().all(|status| *status == StatusCode::CONFLICT),
        "{answers:?}"
    );
    // A certificate that was given back, over and over.
    let mut answers = Vec::new();
    while answers.last() != Some(&StatusCode::TOO_MANY_REQUESTS) && answers.len() < 200 {
        answers.push(cloud.reset(Some((&cert, &key.key_pem))).await.unwrap().0);
    }
    assert_eq!(answers.pop(), Some(StatusCode::TOO_MANY_REQUESTS));
    assert_eq!(answers.first(), Some(&StatusCode::OK));
    assert!(answers.len() >= 10, "{answers:?}");
    // Nobody else waits for that.
    assert_eq!(cloud.join("edge-2", &token, &key.csr_der).await.0, StatusCode::OK);
    cloud.it.server.stop().await;
}

#[actix_rt::test]
async fn a_token_that_is_older_than_the_setting_allows_is_not_taken() {
    let env = Env::real();
    let api = harness::StandAlone::start(&env).await;
    let cloud = harness::EnrolmentCloud::with_token_life(api.client(), &env, Duration::ZERO).await;
    let cloud = Cloud { it: cloud, api };
    let csr = NodeRequest::new("edge-1").unwrap().csr_der;
    let token = cloud.token(3600, None).await;
    let (status, body) = cloud.join("edge-1", &token, &csr).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(text(&body).contains("expired"), "{}", text(&body));
    cloud.it.server.stop().await;
}

#[actix_rt::test]
async fn clouds_that_start_together_agree_on_one_authority() {
    let (objects, env) = (MemoryApi::start().await, Env::real());
    let starts = (0..8).map(|_| {
        let (vault, env) = (SecretStore::new(objects.client()), env.clone());
        async move { vault.authority(&env).await.unwrap().cert_der().to_vec() }
    });
    let authorities = futures::future::join_all(starts).await;
    assert!(authorities.windows(2).all(|pair| pair[0] == pair[1]));
    // One CA: the others were refused and took what was there.
    assert_eq!(objects.count("secrets").await, 1);
}

#[actix_rt::test]
async fn nodes_that_join_together_are_all_in_the_register() {
    let env = Env::real();
    let cloud = Cloud::start(&env).await;
    let token = cloud.token(3600, None).await;
    let csr = NodeRequest::new("x").unwrap().csr_der;
    let joins = (0..5).map(|n| {
        let (cloud, token, csr) = (&cloud, &token, &csr);
        async move { cloud.join(&format!("edge-{n}"), token, csr).await.0 }
    });
    assert_eq!(futures::future::join_all(joins).await, [StatusCode::OK; 5]);
    let (status, _) = cloud.join("edge-3", &token, &csr).await;
    assert_eq!(status, StatusCode::CONFLICT);
    cloud.it.server.stop().await;
}

#[actix_rt::test]
async fn after_a_fault_of_enrolment_its_port_is_served_again() {
    let env = Env::real();
    let cloud = Cloud::start(&env).await;
    let token = cloud.token(3600, None).await;
    let csr = NodeRequest::new("edge-1").unwrap().csr_der;
    assert_eq!(cloud.join("edge-1", &token, &csr).await.0, StatusCode::OK);
    cloud.it.server.actor.tell(cloud_hub::EnrolmentMsg::ServerEnded).await.unwrap();
    let report = async || cloud.it.server.hive.inspector().report(Duration::from_secs(2)).await;
    let restarted = async {
        while report().await.actor("enrolment").unwrap().restarts == 0 {
            env.sleep(Duration::from_millis(5)).await;
        }
    };
    env.timeout(Duration::from_secs(20), restarted).await.expect("it is not restarted");
    // The port was never given up: who connects meanwhile waits.
    assert_eq!(cloud.join("edge-2", &token, &csr).await.0, StatusCode::OK);
    assert_eq!(report().await.counter("cloudhub_enrolment_nodes_enrolled"), 2);
    cloud.it.server.stop().await;
}

/// An API whose clock is weeks behind.
fn weeks_behind(inner: kube::Client) -> kube::Client {
    let answer = move |request: Request<kube::client::Body>| {
        let inner = inner.clone();
        async move {
            if request.uri().path() != "/version" {
                return inner.send(request).await;
            }
            let date = "Sun, 17 Mar 2024 17:00:00 GMT";
            let answer = http::Response::builder().header(http::header::DATE, date);
            answer.body(kube::client::Body::empty()).map_err(kube::Error::HttpError)
        }
    };
    kube::Client::new(tower::service_fn(answer), "default")
}

#[actix_rt::test]
async fn nobody_joins_by_a_clock_that_the_api_server_contradicts_and_no_token_is_spent() {
    let env = Env::real();
    let api = harness::StandAlone::start(&env).await;
    let cloud = harness::EnrolmentCloud::start(weeks_behind(api.client()), &env).await;
    let cloud = Cloud { it: cloud, api };
    let csr = NodeRequest::new("edge-1").unwrap().csr_der;
    let token = cloud.token(3600, None).await;
    let (status, body) = cloud.join("edge-1", &token, &csr).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text(&body).contains("an administrator sets them"), "{}", text(&body));
    let tokens = cloud.it.registry.tokens().await.unwrap();
    let spent = |token: &noderegistry::ListedToken| token.token.as_ref().unwrap().spec.used.unwrap_or(0);
    assert!(!tokens.is_empty() && tokens.iter().all(|token| spent(token) == 0), "{tokens:?}");
    let name = NodeName::parse("edge-1").unwrap();
    assert!(cloud.it.registry.edge_node(&name).await.unwrap().is_none());
    cloud.it.server.stop().await;
}
