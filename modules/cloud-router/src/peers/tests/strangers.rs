//! Who is no CloudCore of the cluster, at the door of those.

use http_body_util::Full;
use pki::{NodeRequest, SubjectAltNames};
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::*;
use crate::peer_plan::REFUSED;

/// A call at the door for CloudCores, by whoever has this chain and key; `None`: the handshake fails.
async fn knock(
    at: &PeerSettings,
    (chain, key): (&str, &str),
    trusted: &[Vec<u8>],
    headers: &[(&'static str, &'static str)],
) -> Option<(StatusCode, HeaderMap, String)> {
    let config = peer_settings::client(chain, key, trusted).unwrap();
    let socket = TcpStream::connect(at.address().unwrap()).await.unwrap();
    let name = ServerName::try_from("cloudcore-b").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await.ok()?;
    let (mut sender, connection) = httpclient::http2::handshake(stream).await.ok()?;
    actix_rt::spawn(async move {
        let _ = connection.await;
    });
    let mut request = Request::post(format!("https://cloudcore-b{HTTP}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    // With TLS 1.3 a client hears of a refusal behind its own handshake.
    let answer = sender.send_request(request.body(Full::new(Bytes::new())).unwrap()).await.ok()?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    Some((head.status, head.headers, String::from_utf8_lossy(&body).into_owned()))
}

#[actix_rt::test]
async fn nobody_but_a_cloudcore_passes_a_call_on() {
    let cluster = Cluster::new();
    let b = cluster.peer("cloudcore-b");
    let (_server, status, metrics) = cluster.peer_door(&b);
    let (env, authorities) = (&cluster.env, cluster.authorities.get());
    let (ca, trusted) = (authorities.signing(), authorities.trusted());
    let within = [("kubehive-forward-within", "5000")];
    // A node has a certificate of our CA, and so a handshake; nothing that it sends then is read.
    let request = NodeRequest::new("kubehive:cloudcore:cloudcore-a").unwrap();
    let node = ca.sign_node(&request.csr_der, "edge-1", env.wall(), DAY, env.random_id()).unwrap();
    for _ in 0..2 {
        assert!(knock(&b, (&node.pem, &request.key_pem), &trusted, &within).await.is_none());
    }
    assert_eq!(metrics.counters()["router_peer_refused"], 2);
    // What servers of ours show is no client's.
    let names = SubjectAltNames { addresses: vec![], names: vec!["cloudcore-a".to_owned()] };
    let (shown, key) = ca.server(&names, env.wall(), DAY, env.random_id()).unwrap();
    assert!(knock(&b, (&shown.pem, &key), &trusted, &within).await.is_none());
    // Another CA may call itself and whom it signs as it likes.
    let foreign = Authority::create(env.wall(), env.random_id()).unwrap();
    let (own, key) = foreign.cloudcore("cloudcore-a", env.wall(), DAY, env.random_id()).unwrap();
    assert!(knock(&b, (&own.pem, &key), &trusted, &within).await.is_none());
    let counters = metrics.counters();
    assert!(!counters.contains_key("router_calls_of_peers") && counted(&status) == (0, 0), "{counters:?}");
    // And a CloudCore whose call does not say how long it may take is none of ours.
    let (own, key) = ca.cloudcore("cloudcore-a", env.wall(), DAY, env.random_id()).unwrap();
    let answered = knock(&b, (&own.pem, &key), &trusted, &[]).await.unwrap();
    assert_eq!((answered.0.as_u16(), answered.1[&OUTCOME].to_str().unwrap()), (400, REFUSED));
    let answered = knock(&b, (&own.pem, &key), &trusted, &within).await.unwrap();
    assert_eq!((answered.0.as_u16(), answered.1[&OUTCOME].to_str().unwrap()), (503, MOVED));
}

#[actix_rt::test]
async fn without_a_certificate_nobody_gets_through_the_handshake() {
    let cluster = Cluster::new();
    let b = cluster.peer("cloudcore-b");
    let (_server, ..) = cluster.peer_door(&b);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cluster.authorities.get().trusted().remove(0).into()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![peer_settings::ALPN.to_vec()];
    let socket = TcpStream::connect(b.address().unwrap()).await.unwrap();
    let name = ServerName::try_from("cloudcore-b").unwrap();
    let Ok(stream) = TlsConnector::from(Arc::new(config)).connect(name, socket).await else { return };
    let (mut sender, connection) = httpclient::http2::handshake(stream).await.unwrap();
    actix_rt::spawn(async move {
        let _ = connection.await;
    });
    let request = Request::post(format!("https://cloudcore-b{HTTP}")).body(Full::new(Bytes::new())).unwrap();
    assert!(sender.send_request(request).await.is_err());
}
