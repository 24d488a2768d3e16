use beehive::Metrics;
use nodecalls::NodeCalls;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::*;
use crate::rule_calls::RuleCalls;

const TOKENS: [&str; 2] = ["0123456789abcdef", "fedcba9876543210"];
/// What a test waits for a fact at the most.
const LONG: Duration = Duration::from_secs(20);

/// A door without TLS whose rules nobody has read yet: whoever is let in hears that.
fn door(callers: Callers) -> (Server, SocketAddr) {
    let env = Env::real();
    let port = Port::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = port.address();
    let settings = DoorSettings {
        port: Arc::new(port),
        within: LONG,
        tls: None,
        has_own_certificate: false,
        callers: callers.clone(),
    };
    let limits = nodecalls::Limits { of_node: 1, of_user: 1, all: 1 };
    let calls = RuleCalls {
        rules: Default::default(),
        status: Default::default(),
        calls: NodeCalls::new(limits, Metrics::default(), env.clock()),
        clock: env.clock(),
    };
    let door = Door { callers, calls, within: LONG, peers: None, metrics: Metrics::default() };
    (settings.serve(door, &env).unwrap(), address)
}

fn holders() -> (tempfile::TempDir, Callers) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    std::fs::write(&file, TOKENS.join("\n")).unwrap();
    let callers = Callers::Holders(Tokens::read(&file).unwrap());
    (folder, callers)
}

/// A connection that goes on, and the head of what it heard.
async fn call(door: SocketAddr, from: u8, headers: &str) -> (TcpStream, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, from], 0).into()).unwrap();
    let mut stream = socket.connect(door).await.unwrap();
    let call = format!("GET /edge-1/default/x HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    stream.write_all(call.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(LONG, stream.read_u8()).await.expect("no answer").unwrap();
        answer.push(byte);
    }
    (stream, String::from_utf8(answer).unwrap())
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

#[actix_rt::test]
async fn one_token_has_its_share_of_the_door_and_leaves_others_theirs() {
    let (_folder, callers) = holders();
    let (_server, door) = door(callers);
    let mut kept = Vec::new();
    for _ in 0..CONNECTIONS_PER_CALLER {
        let (stream, head) = call(door, 1, &bearer(TOKENS[0])).await;
        assert!(head.starts_with("HTTP/1.1 503"), "{head}");
        kept.push(stream);
    }
    // From another address, too.
    let (_, head) = call(door, 2, &bearer(TOKENS[0])).await;
    assert!(head.starts_with("HTTP/1.1 429") && head.contains("connection: close"), "{head}");
    let (_, head) = call(door, 1, &bearer(TOKENS[1])).await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
}

#[actix_rt::test]
async fn where_nobody_is_asked_for_a_token_each_address_has_its_share() {
    let (_server, door) = door(Callers::Anyone);
    let mut kept = Vec::new();
    for at in 0..=CONNECTIONS_PER_CALLER {
        let (stream, head) = call(door, 1, "").await;
        let wanted = if at < CONNECTIONS_PER_CALLER { "HTTP/1.1 503" } else { "HTTP/1.1 429" };
        assert!(head.starts_with(wanted), "{at}: {head}");
        kept.push(stream);
    }
    assert!(call(door, 2, "").await.1.starts_with("HTTP/1.1 503"));
}

#[actix_rt::test]
async fn as_many_headers_are_taken_as_go_on_to_nodes() {
    let (_folder, callers) = holders();
    let (_server, door) = door(callers);
    let headers = |count: usize, value: &str| {
        // Host and Authorization are of them.
        let more: String = (2..count).map(|number| format!("X-{number}: {value}\r\n")).collect();
        format!("{}{more}", bearer(TOKENS[0]))
    };
    let long = "v".repeat(HEADER_BYTES_MAX / HEADERS_MAX - "X-123".len());
    for (count, value, status) in
        [(HEADERS_MAX, "v", "503"), (HEADERS_MAX, &long, "503"), (HEADERS_MAX + 1, "v", "431")]
    {
        let (_, head) = call(door, 1, &headers(count, value)).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{count}: {head}");
    }
}
