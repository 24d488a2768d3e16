//! TLS: who is who, and HTTP/2.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use beehive::Env;
use http::Request;
use http_body_util::BodyExt;
use https::{ClientCertificates, Event, Limits, Tls};
use hyper::body::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fixture::{Fixture, LONG, SOON};

pub(crate) fn certificates() -> (pki::Authority, String, String) {
    let env = Env::real();
    let authority = pki::Authority::create(env.wall(), env.random_id()).unwrap();
    let alt_names = pki::SubjectAltNames { addresses: vec!["127.0.0.1".parse().unwrap()], names: Vec::new() };
    let day = Duration::from_secs(86_400);
    let (issued, key) = authority.server(&alt_names, env.wall(), day, env.random_id()).unwrap();
    (authority, issued.pem, key)
}

#[actix_rt::test]
async fn whoever_speaks_http_to_a_port_of_https_is_told_so() {
    let (_, chain, key) = certificates();
    let tls = Tls::new(&chain, &key, &ClientCertificates::NotAsked).unwrap();
    let fixture = Fixture::start(Limits::default(), Some(tls));
    let mut stream = TcpStream::connect(fixture.address()).await.unwrap();
    // More than the answer waits for: a reset would lose it.
    let body = "a".repeat(40_000);
    let post = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(post.as_bytes()).await.unwrap();
    let answer = fixture.rest(&mut stream).await;
    assert_eq!(answer, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n");
    drop(stream);
    fixture.until("told", |fixture| fixture.events.lock().unwrap()[..] == [Event::HandshakeFailed]).await;
    // What is neither is cut as before, and reaches nobody.
    let mut other = TcpStream::connect(fixture.address()).await.unwrap();
    other.write_all(b"\x10\x0c\0\x04MQTT\x04\x02\0\0\0\0").await.unwrap();
    let mut alert = Vec::new();
    let _ = fixture.env.timeout(LONG, other.read_to_end(&mut alert)).await.expect("it is not cut");
    assert!(!alert.starts_with(b"HTTP"), "{alert:?}");
    assert_eq!(fixture.pages.begun.load(Ordering::SeqCst), 0);
}

#[actix_rt::test]
async fn a_clients_certificate_is_shown_to_the_handler_and_a_strangers_is_refused() {
    let (authority, chain, key) = certificates();
    let ours = vec![authority.cert_der().to_vec()];
    let env = Env::real();
    let day = Duration::from_secs(86_400);
    let of = |authority: &pki::Authority| {
        let request = pki::NodeRequest::new("edge-1").unwrap();
        let issued =
            authority.sign_node(&request.csr_der, "edge-1", env.wall(), day, env.random_id()).unwrap();
        (issued.der, request.key_pem.clone())
    };
    let (good, foreign) = (of(&authority), of(&certificates().0));
    let optional = Tls::new(&chain, &key, &ClientCertificates::Optional(ours.clone())).unwrap();
    let fixture = Fixture::start(Limits::default(), Some(optional));
    assert_eq!(who(&fixture, &authority, Some(&good)).await.as_deref(), Some("edge-1"));
    assert_eq!(who(&fixture, &authority, None).await.as_deref(), Some(""));
    assert_eq!(who(&fixture, &authority, Some(&foreign)).await, None);
    let required = Tls::also_tls12(&chain, &key, &ClientCertificates::Required(ours.clone())).unwrap();
    let fixture = Fixture::start(Limits::default(), Some(required));
    assert_eq!(who(&fixture, &authority, None).await, None);
    assert_eq!(who(&fixture, &authority, Some(&good)).await.as_deref(), Some("edge-1"));
    let checked = |authorities| Tls::new(&chain, &key, &ClientCertificates::Checked(authorities)).unwrap();
    let tls = checked(vec![]);
    let fixture = Fixture::start(Limits::default(), Some(tls.clone()));
    assert_eq!(who(&fixture, &authority, Some(&good)).await.as_deref(), Some(""), "no CA is known yet");
    tls.replace(&checked(ours));
    assert_eq!(who(&fixture, &authority, Some(&good)).await.as_deref(), Some("edge-1"));
    assert_eq!(
        who(&fixture, &authority, Some(&foreign)).await.as_deref(),
        Some(""),
        "a wrong one is as none"
    );
    assert_eq!(who(&fixture, &authority, None).await.as_deref(), Some(""));
}

/// What `/who` answers over TLS, or `None` when there is no answer.
async fn who(
    fixture: &Fixture,
    authority: &pki::Authority,
    shown: Option<&(Vec<u8>, String)>,
) -> Option<String> {
    let stream = over_tls(fixture, authority, shown, &[]).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.ok()?;
    actix_rt::spawn(async move { drop(connection.await) });
    let request = Request::get("/who").body(http_body_util::Empty::<Bytes>::new()).unwrap();
    let answer = sender.send_request(request).await.ok()?;
    let body = answer.into_body().collect().await.ok()?.to_bytes();
    Some(String::from_utf8(body.to_vec()).unwrap())
}

/// A connection over TLS, whose client speaks `protocols`; `None` when there is none.
async fn over_tls(
    fixture: &Fixture,
    authority: &pki::Authority,
    shown: Option<&(Vec<u8>, String)>,
    protocols: &[&str],
) -> Option<tokio_rustls::client::TlsStream<TcpStream>> {
    use rustls_pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.cert_der().to_vec().into()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match shown {
        Some((der, key)) => {
            let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![der.clone().into()], key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = config;
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let tcp = TcpStream::connect(fixture.address()).await.unwrap();
    connector.connect("127.0.0.1".try_into().unwrap(), tcp).await.ok()
}

#[actix_rt::test]
async fn whoever_chooses_http_2_has_many_requests_in_hand_on_one_connection() {
    let (authority, chain, key) = certificates();
    let tls = Tls::with_http2(&chain, &key, &ClientCertificates::NotAsked).unwrap();
    let limits = Limits { streams_per_connection: 2, ..Limits::default() };
    let fixture = Fixture::start(limits, Some(tls));
    // Who does not, is served as before.
    assert_eq!(who(&fixture, &authority, None).await.as_deref(), Some(""));
    let stream = over_tls(&fixture, &authority, None, &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .unwrap();
    let over = actix_rt::spawn(async move { drop(connection.await) });
    let ask = |path: &str| {
        let mut sender = sender.clone();
        let request = Request::get(format!("https://127.0.0.1{path}"));
        let request = request.body(http_body_util::Empty::<Bytes>::new()).unwrap();
        async move {
            let answer = sender.send_request(request).await.unwrap();
            assert_eq!(answer.version(), http::Version::HTTP_2);
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            String::from_utf8(body.to_vec()).unwrap()
        }
    };
    let waits = actix_rt::spawn(ask("/wait"));
    fixture.until("the first is in hand", |fixture| fixture.pages.begun.load(Ordering::SeqCst) == 2).await;
    assert_eq!(ask("/").await, "hello");
    // What is in hand is answered when the server stops, and then the connection ends.
    let (waited, ()) = tokio::join!(waits, async {
        let stopping = fixture.server.stop(LONG);
        tokio::join!(stopping, async {
            fixture.env.sleep(SOON / 3).await;
            fixture.pages.release.notify_one();
        });
    });
    assert_eq!(waited.unwrap(), "released");
    over.await.unwrap();
}
