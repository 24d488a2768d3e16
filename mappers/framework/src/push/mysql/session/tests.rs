use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use aws_lc_rs::rsa::{KeySize, OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{DuplexStream, duplex};

use super::*;

const NONCE: &[u8; 20] = b"abcdefghijklmnopqrst";
const NATIVE: &str = "mysql_native_password";
const SHA2: &str = "caching_sha2_password";

/// The other side, which a test writes.
struct Server(DuplexStream);

impl Server {
    async fn say(&mut self, number: u8, body: &[u8]) {
        let length = body.len().to_le_bytes();
        let packet = [&length[..3], &[number], body].concat();
        // Who has heard enough listens no more.
        let _ = self.0.write_all(&packet).await;
    }

    async fn hear(&mut self) -> Vec<u8> {
        let mut head = [0; 4];
        self.0.read_exact(&mut head).await.unwrap();
        let mut body = vec![0; usize::from(head[0]) | usize::from(head[1]) << 8];
        self.0.read_exact(&mut body).await.unwrap();
        body
    }

    async fn greet(&mut self, proof: &str) {
        let mut greeting = b"\x0a8.0.33\0\x07\0\0\0abcdefgh\0".to_vec();
        greeting.extend(b"\x0f\xa2\x21\x02\0\x3b\0\x15\0\0\0\0\0\0\0\0\0\0ijklmnopqrst\0");
        greeting.extend(proof.bytes().chain([0]));
        self.say(0, &greeting).await;
    }
}

fn login() -> Login {
    Login { user: "pump".to_owned(), password: "s3cret".to_owned(), database: "plant".to_owned() }
}

/// What a client makes of a server.
async fn opened(server: impl AsyncFnOnce(&mut Server)) -> Result<Session<DuplexStream>, Refusal> {
    let (client, side) = duplex(64 << 10);
    let mut side = Server(side);
    let login = login();
    let (opened, ()) = tokio::join!(Session::open(client, &login), server(&mut side));
    opened
}

/// What a client makes of an answer to a statement.
async fn ran(answer: &[u8]) -> Result<(), Refusal> {
    let (client, side) = duplex(64 << 10);
    let mut server = Server(side);
    let mut session = Session { stream: client, number: 9 };
    let (ran, ()) = tokio::join!(session.run("COMMIT"), async {
        assert_eq!(server.hear().await, b"\x03COMMIT");
        server.say(1, answer).await;
    });
    ran
}

fn why<T>(refused: Result<T, Refusal>) -> String {
    match refused {
        Err(Refusal::Broken(why)) => why,
        Err(Refusal::Said(code, said)) => format!("{code} {said}"),
        Ok(_) => panic!("it was not refused"),
    }
}

/// As a server finds out that a client knows a password of which it has the double hash.
fn is_proven(proof: &[u8], is_sha2: bool) -> bool {
    let algorithm = if is_sha2 { &SHA256 } else { &SHA1_FOR_LEGACY_USE_ONLY };
    let stored = digest(algorithm, digest(algorithm, b"s3cret").as_ref());
    let mixed =
        if is_sha2 { [stored.as_ref(), NONCE].concat() } else { [&NONCE[..], stored.as_ref()].concat() };
    let mask = digest(algorithm, &mixed);
    let once: Vec<u8> = proof.iter().zip(mask.as_ref()).map(|(byte, mask)| byte ^ mask).collect();
    digest(algorithm, &once).as_ref() == stored.as_ref()
}

#[tokio::test]
async fn a_password_is_proven_without_being_sent() {
    for (name, is_sha2, length) in [(NATIVE, false, 20), (SHA2, true, 32)] {
        let session = opened(async |server| {
            server.greet(name).await;
            let answer = server.hear().await;
            let rest = answer[32..].strip_prefix(b"pump\0").unwrap();
            assert_eq!(usize::from(rest[0]), length);
            assert!(is_proven(&rest[1..=length], is_sha2));
            let end = [b"plant\0", name.as_bytes(), b"\0"].concat();
            assert_eq!(rest[length + 1..], end);
            server.say(2, &[OK, 0, 0, 2, 0, 0, 0]).await;
        });
        assert!(session.await.is_ok(), "{name}");
        // An account that wants another than its server.
        let other = if is_sha2 { NATIVE } else { SHA2 };
        let session = opened(async |server| {
            server.greet(other).await;
            server.hear().await;
            server.say(2, &[&[SWITCH], name.as_bytes(), b"\0", NONCE, b"\0"].concat()).await;
            assert!(is_proven(&server.hear().await, is_sha2));
            if is_sha2 {
                server.say(4, &[MORE, KNOWN]).await;
            }
            server.say(if is_sha2 { 5 } else { 4 }, &[OK]).await;
        });
        assert!(session.await.is_ok(), "{name}");
    }
}

#[tokio::test]
async fn a_server_that_wants_the_password_itself_gets_it_sealed_for_its_key() {
    let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
    let public =
        aws_lc_rs::encoding::AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(&key.public_key());
    let text = STANDARD.encode(public.unwrap().as_ref());
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n");
    let key = OaepPrivateDecryptingKey::new(key).unwrap();
    let session = opened(async |server| {
        server.greet(SHA2).await;
        server.hear().await;
        server.say(2, &[MORE, FULL]).await;
        assert_eq!(server.hear().await, [ASK_FOR_KEY]);
        server.say(4, &[&[MORE], pem.as_bytes()].concat()).await;
        let mut open = vec![0; key.min_output_size()];
        let open = key.decrypt(&OAEP_SHA1_MGF1SHA1, &server.hear().await, &mut open, None).unwrap();
        let open: Vec<u8> = open.iter().zip(NONCE).map(|(byte, mask)| byte ^ mask).collect();
        assert_eq!(open, b"s3cret\0");
        server.say(6, &[OK]).await;
    });
    assert!(session.await.is_ok());
    let session = opened(async |server| {
        server.greet(SHA2).await;
        server.hear().await;
        server.say(2, &[MORE, FULL]).await;
        server.hear().await;
        server.say(4, b"\x01-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n").await;
    });
    assert!(why(session.await).contains("public key"));
}

#[tokio::test]
async fn a_login_that_is_not_served_is_named_and_gets_nothing() {
    for (asked, said) in [
        (&b"\xfeclient_ed25519\0xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"[..], "by `client_ed25519`"),
        (b"\xfemysql_clear_password\0", "by `mysql_clear_password`"),
        (b"\xfe", "by `mysql_old_password`"),
        (b"\xfe\x1b[2J\0", "by `\\u{1b}[2J`"),
        (b"\x01\x04", "logs in otherwise"),
        (b"\xfb/etc/passwd", "logs in otherwise"),
        (b"", "logs in otherwise"),
        (b"\xff\x15\x04#28000Access denied", "1045 Access denied"),
    ] {
        let session = opened(async |server| {
            server.greet(NATIVE).await;
            server.hear().await;
            server.say(2, asked).await;
        });
        let why = why(session.await);
        assert!(why.contains(said), "{why}");
    }
    for greeting in [&b"\x0a8.0"[..], b"\x09old\0", b"", &[b'\x0a'; 900]] {
        let why = why(opened(async |server| server.say(0, greeting).await).await);
        assert!(why.contains("greets otherwise"), "{why}");
    }
    let full = opened(async |server| server.say(0, b"\xff\x10\x04Too many connections").await);
    assert_eq!(why(full.await), "1040 Too many connections");
}

#[tokio::test]
async fn an_answer_is_one_short_packet_and_never_rows() {
    assert_eq!(ran(&[OK, 1, 0, 2, 0, 0, 0]).await, Ok(()));
    let long = [&b"\xff\x7e\x05#22001"[..], &[b'e'; 9000]].concat();
    assert_eq!(ran(&long).await, Err(Refusal::Said(1406, "e".repeat(200))));
    for (answer, said) in [
        (&b"\x01"[..], "with rows"),
        // 2^32 - 1 and 2^64 - 1 columns.
        (b"\xfe\xff\xff\xff\xff\0\0\0\0", "with rows"),
        (b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff", "with rows"),
        (b"\xfb/etc/passwd", "asks for a file"),
        (b"", "with rows"),
        (b"\xff\x01", "with rows"),
        (&[b'\xff'; PACKET_MAX + 1], "at most 16384 are read"),
    ] {
        let why = why(ran(answer).await);
        assert!(why.contains(said), "{why}");
    }
}

#[tokio::test]
async fn a_server_that_goes_on_is_not_heard_and_is_hung_up_on() {
    let (client, side) = duplex(64 << 10);
    let mut server = Server(side);
    let mut session = Session { stream: client, number: 0 };
    // What came before the statement is no answer to it.
    server.say(5, &[OK]).await;
    assert!(why(session.run("COMMIT").await).contains("what was not asked"));
    server.hear().await;
    server.say(1, b"\x01").await;
    drop(session);
    assert_eq!(server.0.read(&mut [0]).await.unwrap(), 0);
    assert!(server.0.write_all(&[0]).await.is_err());
}
