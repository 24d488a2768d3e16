//! Three CloudCores, nodes that share an address, and an API server that goes where their Nodes say, also while they go on to another
//! CloudCore: each answer is of the node that was meant. `KUBEHIVE_CALLS` says how many calls are made; 300 if it does not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod fixture;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use beehive::Env;
use contract::cloudstream::CloudStreamMsg;
use contract::edgecontroller::EdgeControllerMsg;
use fixture::named::NamedNode;
use fixture::{Api, Fixture, Identity, LONG, Linked, node};
use futures::StreamExt as _;
use nodecalls::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const CALLS: usize = 300;
/// Calls under way at once.
const AT_ONCE: usize = 16;
const NODES: [&str; 4] = ["edge-1", "edge-2", "edge-3", "edge-4"];
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n";

/// What a call is, by its number.
const KINDS: [(&str, &str); 5] = [
    ("GET", "/containerLogs/d/p/c?tailLines=1&"),
    ("POST", "/exec/d/p/c?command=cat&"),
    ("POST", "/portForward/d/p?port=80&"),
    ("GET", "/stats/summary?"),
    ("GET", "/pods?"),
];

/// What the Nodes say: the port and the session of each. All have the same address.
type Nodes = Rc<RefCell<BTreeMap<String, (u16, u64)>>>;

/// Writes what a CloudCore tells of a node into its Node, if it is of the newest session.
async fn written(fixture: &mut Fixture, nodes: &Nodes) {
    let told = fixture.edge.next(LONG).await.unwrap();
    let EdgeControllerMsg::KubeletEndpoint { node, session, endpoint } = told else { panic!("{told:?}") };
    assert_eq!(endpoint.address, Some([127, 0, 0, 1].into()));
    let mut nodes = nodes.borrow_mut();
    let said = nodes.entry(node.to_string()).or_default();
    if session > said.1 {
        *said = (endpoint.port, session);
    }
}

/// One call of the API server's: what was answered, or `None` where the connection did not come about or was cut.
async fn call(fixture: &Fixture, server: &Identity, port: u16, number: usize) -> Option<String> {
    let (method, path) = KINDS[number % KINDS.len()];
    let upgraded = method == "POST";
    let mut stream = fixture.try_connect(port, Some(server), &fixture.roots).await.ok()?;
    let headers = if upgraded { UPGRADE } else { "Connection: close\r\n" };
    let text = format!("{method} {path}n={number} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    stream.write_all(text.as_bytes()).await.ok()?;
    let mut bytes = Vec::new();
    if upgraded {
        // A word there and back, then each side ends.
        let word = format!("word {number}");
        while !bytes.ends_with(format!("n={number}\n").as_bytes()) {
            bytes.push(stream.read_u8().await.ok()?);
        }
        stream.write_all(word.as_bytes()).await.ok()?;
        let mut back = vec![0; word.len()];
        stream.read_exact(&mut back).await.ok()?;
        assert_eq!(back, word.as_bytes(), "another call's bytes");
    } else {
        // What was cut is told by its missing end.
        drop(stream.read_to_end(&mut bytes).await);
    }
    let answer = String::from_utf8_lossy(&bytes).into_owned();
    let is_whole = upgraded || answer.ends_with("\r\n0\r\n\r\n") || !answer.contains("chunked");
    (is_whole && !answer.is_empty()).then_some(answer)
}

/// Calls node after node until it is answered, as whoever runs `kubectl` again. Answers how often it was cut.
async fn until_answered(fixture: &Fixture, server: &Identity, nodes: &Nodes, number: usize) -> usize {
    let name = NODES[number / KINDS.len() % NODES.len()];
    for cut in 0.. {
        assert!(cut < 500, "call {number} of {name} is never answered");
        let port = nodes.borrow()[name].0;
        let answered =
            fixture.env.timeout(LONG, call(fixture, server, port, number)).await.expect("an answer");
        let Some(answer) = answered else {
            fixture.env.sleep(std::time::Duration::from_millis(20)).await;
            continue;
        };
        let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
        if matches!(status.as_str(), "502" | "503") {
            fixture.env.sleep(std::time::Duration::from_millis(20)).await;
            continue;
        }
        let (_, path) = KINDS[number % KINDS.len()];
        assert!(
            answer.contains(&format!("{name} was asked for {path}")),
            "call {number} of {name}: {answer}"
        );
        assert!(answer.contains(&format!("n={number}\n")), "call {number} of {name}: {answer}");
        return cut;
    }
    unreachable!()
}

async fn link(cloud: &Fixture, name: &str, session: u64, of: &BTreeMap<&str, NamedNode>) -> Linked {
    cloud.link_to(name, session, Arc::new(of[name].clone())).await
}

#[actix_rt::test]
async fn every_call_is_answered_by_the_node_that_was_meant_while_nodes_go_on_to_other_cloudcores() {
    let calls = std::env::var("KUBEHIVE_CALLS").map_or(CALLS, |text| text.parse().expect("a number"));
    let api = Api::new(&Env::real(), Vec::new());
    let limits = Limits { of_node: 64, of_user: 64, all: 256 };
    let mut clouds = Vec::new();
    for _ in 0..3 {
        clouds.push(Fixture::of(api.clone(), limits, 0, None, false).await);
    }
    let named: BTreeMap<&str, NamedNode> = NODES.map(|name| (name, NamedNode::new(name))).into();
    let nodes = Nodes::default();
    for name in NODES {
        for right in ["get proxy", "create proxy", "get stats"] {
            api.grant(&format!("system:node:apiserver {right}@{name}"));
        }
    }
    // Two at the first, one at each of the others.
    let mut links = Vec::new();
    for (name, cloud) in NODES.into_iter().zip([0, 0, 1, 2]) {
        links.push(link(&clouds[cloud], name, 1, &named).await);
        written(&mut clouds[cloud], &nodes).await;
    }
    for cloud in &clouds {
        cloud.until_client_ca().await;
    }
    // The API server, whose client knows each of the CloudCores' CAs: in a cluster all have one.
    let mut caller = Fixture::of(api.clone(), limits, 0, None, false).await;
    caller.roots = clouds.iter().map(|cloud| cloud.ours.cert_der().to_vec()).collect();
    let server = caller.identity(api.clients(), "apiserver");
    let part = async |range: std::ops::Range<usize>| -> usize {
        let one = |number| until_answered(&caller, &server, &nodes, number);
        futures::stream::iter(range)
            .map(one)
            .buffer_unordered(AT_ONCE)
            .fold(0, async |sum, cut| sum + cut)
            .await
    };
    // Calls go on while edge-1 goes to the second CloudCore and edge-2, whose CloudCore dies, to the third.
    let Ok([first, mut second, mut third]) = <[Fixture; 3]>::try_from(clouds) else { panic!() };
    let takeover = async {
        let made =
            || named["edge-1"].called.load(Ordering::SeqCst) + named["edge-2"].called.load(Ordering::SeqCst);
        caller.until("a third of the calls is made", async || made() >= calls / 6).await;
        let moved = link(&second, "edge-1", 2, &named).await;
        written(&mut second, &nodes).await;
        links[0].close();
        first.stream.tell(CloudStreamMsg::NodeDown { node: node("edge-1"), session: 1 }).await.unwrap();
        caller.until("two thirds are", async || made() >= calls / 3).await;
        let fled = link(&third, "edge-2", 2, &named).await;
        written(&mut third, &nodes).await;
        links[1].close();
        first.hive.shutdown(LONG).await;
        (moved, fled)
    };
    let (cut, moved) = futures::join!(part(0..calls), takeover);
    let answered: usize = named.values().map(|node| node.called.load(Ordering::SeqCst)).sum();
    eprintln!("{calls} calls answered by the node that was meant; {cut} were cut and made again");
    assert!(answered >= calls);
    drop(moved);
}
