//! The port of a node whose link has ended: who is told what there, and when it is given back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use beehive::Env;
use contract::cloudstream::CloudStreamMsg;
use fixture::{Api, Fixture, Linked, node};
use nodecalls::Limits;

const HERE: &str = "127.0.0.1";
/// Another CloudCore.
const ELSEWHERE: &str = "127.0.0.9";
const LIMITS: Limits = Limits { of_node: 4, of_user: 4, all: 16 };
const LOG: &str = "GET /containerLogs/d/p/c";
const WORDS: &str = "node `edge-1` is not linked to this CloudCore: see `kubectl get node edge-1`, and on the node `systemctl status edgecore`\n";

/// The first of eight ports in a row that were free a moment ago.
fn eight_ports() -> u16 {
    loop {
        let ports: [u16; 8] = testhost::free_ports().unwrap();
        if ports.windows(2).all(|pair| pair[1] == pair[0] + 1) {
            return ports[0];
        }
    }
}

fn is_open(port: u16) -> bool {
    std::net::TcpStream::connect((HERE, port)).is_ok()
}

/// What CloudStream says of its ports.
async fn ports(fixture: &Fixture, which: &str) -> serde_json::Value {
    let report = fixture.hive.inspector().report(fixture::LONG).await;
    report.actor("cloud-stream").unwrap().snapshot[which].clone()
}

/// Links `name`, whose Node says its port from then on.
async fn link(fixture: &mut Fixture, name: &str) -> (Linked, u16) {
    let link = fixture.link(name, 1).await;
    let port = fixture.endpoint(name, 1).await.port;
    fixture.api.node_says(name, HERE, port);
    (link, port)
}

/// The link of `name` ends. Waits until its port is kept.
async fn cut(fixture: &Fixture, (name, link): (&str, Linked)) {
    link.close();
    fixture.stream.tell(CloudStreamMsg::NodeDown { node: node(name), session: 1 }).await.unwrap();
    fixture.until("its port is kept", async || ports(fixture, "kept").await[name].is_u64()).await;
}

async fn until_closed(fixture: &Fixture, port: u16) {
    fixture.until("the port is closed", async || !is_open(port)).await;
}

#[actix_rt::test]
async fn whoever_comes_to_the_port_of_a_node_that_is_cut_off_is_told_so_if_he_may_ask() {
    let mut fixture = Fixture::at(LIMITS, eight_ports()).await;
    let (one, port) = link(&mut fixture, "edge-1").await;
    fixture.until_client_ca().await;
    for user in ["kate", fixture::API_SERVER] {
        fixture.api.grant(&format!("{user} get proxy@edge-1"));
        fixture.api.grant(&format!("{user} create proxy@edge-1"));
    }
    cut(&fixture, ("edge-1", one)).await;
    // As at any other port.
    let told = fixture.ask(port, None, LOG, "").await;
    assert_eq!((told.status, told.body.as_str()), (401, "Unauthorized"));
    assert_eq!(fixture.ask_as(port, "paul", LOG).await.status, 403);
    let told = fixture.ask_as(port, "kate", LOG).await;
    assert_eq!((told.status, told.body.as_str()), (503, WORDS));
    // An API server shows its user the words of a 502, and has others for those of a 503.
    let server = fixture.identity(fixture.api.clients(), "apiserver");
    let told = fixture.ask(port, Some(&server), LOG, "").await;
    assert_eq!((told.status, told.body.as_str()), (502, WORDS));
    let upgrade = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n";
    let told = fixture.ask(port, Some(&server), "POST /exec/d/p/c?command=ls", upgrade).await;
    assert!(told.status == 503 && told.body.contains("node `edge-1` is not linked"), "{told:?}");
    // It comes back to the same port.
    let _again = fixture.link("edge-1", 2).await;
    assert_eq!(fixture.endpoint("edge-1", 2).await.port, port);
    assert_eq!(fixture.ask_as(port, "kate", "GET /pods").await.status, 200);
    assert_eq!(ports(&fixture, "kept").await, serde_json::json!({}));
}

#[actix_rt::test]
async fn the_port_is_given_back_when_another_cloudcore_has_the_node_or_it_is_deleted_or_revoked() {
    let mut fixture = Fixture::at(LIMITS, eight_ports()).await;
    for case in ["taken", "other-port", "deleted", "revoked"] {
        let (one, port) = link(&mut fixture, case).await;
        cut(&fixture, (case, one)).await;
        assert!(is_open(port), "{case}");
        match case {
            "taken" => fixture.api.node_says(case, ELSEWHERE, port),
            // Of a CloudCore at the same address.
            "other-port" => fixture.api.node_says(case, HERE, port - 1),
            "deleted" => fixture.api.node_deleted(case),
            _ => {
                fixture.api.revoke(case);
                fixture.stream.tell(CloudStreamMsg::RegisterChanged).await.unwrap();
            }
        }
        until_closed(&fixture, port).await;
    }
    // What is revoked while it is linked is not kept at all, whatever its Node says after that.
    let (one, port) = link(&mut fixture, "barred").await;
    fixture.api.revoke("barred");
    one.close();
    fixture.stream.tell(CloudStreamMsg::NodeDown { node: node("barred"), session: 1 }).await.unwrap();
    until_closed(&fixture, port).await;
    fixture.api.node_says("barred", HERE, port + 1);
    fixture.api.node_says("barred", HERE, port);
    let (another, port) = link(&mut fixture, "another").await;
    cut(&fixture, ("another", another)).await;
    assert_eq!(ports(&fixture, "kept").await, serde_json::json!({ "another": port }));
}

#[actix_rt::test]
async fn a_node_that_has_a_link_and_finds_no_port_gets_that_of_the_one_without_a_link_for_longest() {
    let mut fixture = Fixture::at(LIMITS, eight_ports()).await;
    let mut links = Vec::new();
    for number in 1..=8 {
        let name = format!("edge-{number}");
        let (link, port) = link(&mut fixture, &name).await;
        links.push((name, link, port));
    }
    let (third, of_third, port) = links.remove(2);
    cut(&fixture, (&third, of_third)).await;
    let (fifth, of_fifth, later) = links.remove(3);
    cut(&fixture, (&fifth, of_fifth)).await;
    let _ninth = fixture.link("edge-9", 1).await;
    assert_eq!(fixture.endpoint("edge-9", 1).await.port, port);
    // It is another node's now, and who may ask the one may not ask the other.
    fixture.api.grant("kate get proxy@edge-9");
    fixture.api.grant("paul get proxy@edge-3");
    fixture
        .until("it is that of edge-9", async || fixture.ask_as(port, "kate", "GET /pods").await.status == 200)
        .await;
    assert_eq!(fixture.ask_as(port, "paul", "GET /pods").await.status, 403);
    assert!(is_open(later));
    assert_eq!(ports(&fixture, "kept").await, serde_json::json!({ "edge-5": later }));
}

#[actix_rt::test]
async fn after_a_restart_the_ports_are_open_that_nodes_of_ours_say_here() {
    let first = eight_ports();
    let said = |node: &str, address: &str, port| (node.to_owned(), address.to_owned(), port);
    let nodes = vec![
        said("edge-1", HERE, first),
        said("edge-2", HERE, first + 1),
        said("edge-3", ELSEWHERE, first + 2),
        said("edge-4", HERE, first + 9),
    ];
    let api = Api::new(&Env::real(), nodes);
    api.revoke("edge-2");
    api.grant("kate get proxy@edge-1");
    let mut fixture = Fixture::of(api, LIMITS, first, None, false).await;
    fixture.until("the port is open", async || is_open(first)).await;
    assert_eq!(ports(&fixture, "kept").await, serde_json::json!({ "edge-1": first }));
    assert!(!is_open(first + 1) && !is_open(first + 2) && !is_open(first + 9));
    assert_eq!(fixture.ask_as(first, "kate", LOG).await.body, WORDS);
    let _link = fixture.link("edge-1", 7).await;
    assert_eq!(fixture.endpoint("edge-1", 7).await.port, first);
    assert_eq!(fixture.ask_as(first, "kate", "GET /pods").await.status, 200);
}
