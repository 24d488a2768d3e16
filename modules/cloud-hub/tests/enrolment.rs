//! Enrolment over real HTTPS, with the Secrets in the harness's stand-in of an API server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use beehive::Env;
use cloud_hub::Vault;
use harness::{EnrolmentCloud, Objects};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use pki::{Authority, JoinToken, NodeRequest};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

type Bytes = actix_web::web::Bytes;

struct Cloud(EnrolmentCloud);

impl Cloud {
    async fn start(env: &Env) -> Self {
        Cloud(EnrolmentCloud::start(&Objects::default(), env).await)
    }

    fn token(&self, lifetime: i64, node: Option<&str>) -> String {
        JoinToken::parse(&self.0.token(lifetime, node)).unwrap().jwt
    }

    async fn join(&self, node: &str, jwt: &str, csr: &[u8]) -> (StatusCode, Vec<u8>) {
        let request = Request::get("/edge.crt")
            .header("Authorization", format!("Bearer {jwt}"))
            .header("NodeName", node);
        send(
            self.0.server.address,
            &self.0.ca_der,
            None,
            request.body(Full::new(Bytes::copy_from_slice(csr))).unwrap(),
        )
        .await
        .unwrap()
    }

    async fn reset(&self, identity: Option<(&[u8], &str)>) -> Result<(StatusCode, Vec<u8>), String> {
        let request = Request::delete("/edge.crt").body(Full::default()).unwrap();
        send(self.0.server.address, &self.0.ca_der, identity, request).await
    }
}

async fn send(
    address: SocketAddr,
    ca_der: &[u8],
    identity: Option<(&[u8], &str)>,
    mut request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Vec<u8>), String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(ca_der.to_vec())).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from(cert.to_vec())],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    let say = |error: &dyn std::fmt::Display| error.to_string();
    let tcp = tokio::net::TcpStream::connect(address).await.map_err(|e| say(&e))?;
    let name = ServerName::from(address.ip());
    let tls =
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(|e| say(&e))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.map_err(|e| say(&e))?;
    actix_rt::spawn(async move { drop(connection.await) });
    request.headers_mut().insert("Host", "cloud".parse().unwrap());
    let response = sender.send_request(request).await.map_err(|e| say(&e))?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|e| say(&e))?.to_bytes().to_vec();
    Ok((status, body))
}

fn text(body: &[u8]) -> &str {
    std::str::from_utf8(body).unwrap()
}

#[actix_rt::test]
async fn a_node_joins_gives_its_name_back_and_joins_again() {
    let env = Env::real();
    let cloud = Cloud::start(&env).await;
    let request = Request::get("/ca.crt").body(Full::default()).unwrap();
    let (status, ca) = send(cloud.0.server.address, &cloud.0.ca_der, None, request).await.unwrap();
    assert_eq!((status, &ca), (StatusCode::OK, &cloud.0.ca_der));

    let key = NodeRequest::new("edge-1").unwrap();
    let token = cloud.token(60, None);
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
    cloud.0.server.stop().await;
}

#[actix_rt::test]
async fn every_refusal_is_a_sentence() {
    let env = Env::real();
    let cloud = Cloud::start(&env).await;
    let csr = NodeRequest::new("edge-1").unwrap().csr_der;
    let (open, bound) = (cloud.token(60, None), cloud.token(60, Some("edge-1")));
    let foreign =
        pki::TokenKey::new(&[7; 32]).unwrap().mint(&cloud.0.ca_der, u64::MAX / 2, "x", None).unwrap();
    let foreign = JoinToken::parse(&foreign).unwrap().jwt;
    let too_long = vec![0x30; pki::CSR_MAX + 1];
    let cases = [
        ("edge-1", cloud.token(-60, None), csr.clone(), 401, "expired"),
        ("edge-1", foreign, csr.clone(), 401, "not made by this cluster"),
        ("edge-1", "nonsense".to_owned(), csr.clone(), 401, "not a join token"),
        ("edge-2", bound.clone(), csr.clone(), 401, "bound to the name `edge-1`"),
        ("Edge_1", open.clone(), csr.clone(), 400, "DNS-1123"),
        ("edge-1", open.clone(), vec![1, 2, 3], 400, "not a certificate signing request"),
        ("edge-1", open, too_long, 413, ""),
    ];
    for (node, token, csr, status, words) in cases {
        let (got, body) = cloud.join(node, &token, &csr).await;
        assert_eq!(got.as_u16(), status, "{}", text(&body));
        assert!(text(&body).contains(words), "{}", text(&body));
    }
    assert_eq!(cloud.join("edge-1", &bound, &csr).await.0, StatusCode::OK);
    // A certificate of another authority does not even get through the handshake.
    let other = Authority::create(env.wall(), [9; 16]).unwrap();
    let key = NodeRequest::new("edge-1").unwrap();
    let day = Duration::from_secs(86_400);
    let forged = other.sign_node(&key.csr_der, "edge-1", env.wall(), day, [8; 16]).unwrap();
    assert!(cloud.reset(Some((&forged.der, &key.key_pem))).await.is_err());
    cloud.0.server.stop().await;
}

#[actix_rt::test]
async fn clouds_that_start_together_agree_on_one_authority() {
    let (objects, env) = (Objects::default(), Env::real());
    let starts = (0..8).map(|_| {
        let (vault, env) = (Vault::new(objects.client()), env.clone());
        async move { vault.authority(&env).await.unwrap().cert_der().to_vec() }
    });
    let authorities = futures::future::join_all(starts).await;
    assert!(authorities.windows(2).all(|pair| pair[0] == pair[1]));
    // One namespace, one CA: the others were refused and took what was there.
    assert_eq!(objects.creates(), 2);
}

#[actix_rt::test]
async fn nodes_that_join_together_are_all_in_the_register() {
    let env = Env::real();
    let cloud = Cloud::start(&env).await;
    let token = cloud.token(60, None);
    let csr = NodeRequest::new("x").unwrap().csr_der;
    let joins = (0..5).map(|n| {
        let (cloud, token, csr) = (&cloud, &token, &csr);
        async move { cloud.join(&format!("edge-{n}"), token, csr).await.0 }
    });
    assert_eq!(futures::future::join_all(joins).await, [StatusCode::OK; 5]);
    let (status, _) = cloud.join("edge-3", &token, &csr).await;
    assert_eq!(status, StatusCode::CONFLICT);
    cloud.0.server.stop().await;
}
