//! What no OPC UA server does: announce more than was agreed, or say nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use framework::Protocol as _;
use opcua_crypto::SecurityPolicy;
use opcua_types::MessageSecurityMode;
use opcuadevice::{Address, Login, OpcUa};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

/// What a test waits for a fact at the most.
const LONG: Duration = Duration::from_secs(20);
/// What is waited for an answer, where the test is not of it: longer than the test takes.
const NEVER: Duration = Duration::from_secs(300);

fn header(kind: &[u8; 4], size: u32) -> Vec<u8> {
    [kind.as_slice(), &size.to_le_bytes()].concat()
}

/// A server's welcome that promises 64 KiB both ways, and sets no other bound.
fn welcome() -> Vec<u8> {
    let fields = [0, 65_535, 65_535, 0, 0_u32].map(u32::to_le_bytes);
    [header(b"ACKF", 28), fields.concat()].concat()
}

async fn listen() -> (TcpListener, Address) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address {
        url: format!("opc.tcp://{}", listener.local_addr().unwrap()),
        policy: SecurityPolicy::None,
        mode: MessageSecurityMode::None,
        login: Login::Any,
        certificate: None,
        trusted: Vec::new(),
        is_insecure: false,
        timeout: NEVER,
    };
    (listener, address)
}

/// Why there is no session.
async fn refusal(address: &Address) -> String {
    let folder = tempfile::tempdir().unwrap();
    match OpcUa::with(folder.path().to_owned()).connect(address).await {
        Ok(_) => panic!("a session"),
        Err(fault) => fault.to_string(),
    }
}

/// What is sent of a message, with its header's kind and size.
async fn hear(client: &mut TcpStream) -> Vec<u8> {
    let mut head = [0; 8];
    client.read_exact(&mut head).await.unwrap();
    let size = u32::from_le_bytes(head[4..].try_into().unwrap());
    let mut body = vec![0; size as usize - head.len()];
    client.read_exact(&mut body).await.unwrap();
    [head.to_vec(), body].concat()
}

#[tokio::test]
async fn a_message_beyond_what_is_agreed_is_refused_at_its_header() {
    for (is_welcomed, kind, size) in [
        (false, b"ACKF", 0xffff_fff0_u32),
        (false, b"ERRF", 1 << 20),
        (false, b"ACKF", 0),
        (true, b"OPNF", 0xffff_fff0),
        (true, b"MSGC", 65_536),
    ] {
        let (listener, address) = listen().await;
        let server = async {
            let (mut client, _) = listener.accept().await.unwrap();
            assert!(hear(&mut client).await.starts_with(b"HELF"));
            if is_welcomed {
                client.write_all(&welcome()).await.unwrap();
                assert!(hear(&mut client).await.starts_with(b"OPNF"));
            }
            // The header and nothing else: whoever waits for the rest waits for ever.
            client.write_all(&header(kind, size)).await.unwrap();
            let rest = client.read_u8().await;
            assert!(rest.is_err(), "the connection has ended, and nothing was said on it");
        };
        let both = async { tokio::join!(refusal(&address), server).0 };
        let said = timeout(LONG, both).await.unwrap_or_else(|_| panic!("{size} is waited for"));
        assert!(said.contains(&format!(" of {size} bytes")) && said.contains(&address.url), "{said}");
        assert!(said.len() < 300, "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_welcome_that_comes_byte_by_byte_has_the_time_of_one_answer() {
    let (listener, address) = listen().await;
    let address = Address { timeout: Duration::from_secs(10), ..address };
    let server = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        for byte in welcome() {
            if client.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
    });
    let began = Instant::now();
    let said = refusal(&address).await;
    assert!(said.contains("within 10 s"), "{said}");
    assert_eq!(began.elapsed().as_secs(), 10);
    server.abort();
}
