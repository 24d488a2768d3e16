//! A client of enrolment, and a cloud to speak to.

use std::net::SocketAddr;
use std::sync::Arc;

use beehive::Env;
use harness::{EnrolmentCloud, StandAlone};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use pki::JoinToken;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;

pub(crate) struct Cloud {
    pub(crate) it: EnrolmentCloud,
    pub(crate) api: StandAlone,
}

impl Cloud {
    pub(crate) async fn start(env: &Env) -> Self {
        let api = StandAlone::start(env).await;
        Cloud { it: EnrolmentCloud::start(api.client(), env).await, api }
    }

    pub(crate) async fn token(&self, lifetime: i64, node: Option<&str>) -> String {
        JoinToken::parse(&self.it.token(lifetime, node).await).unwrap().jwt
    }

    /// Whether a token's id is that of this JWT.
    pub(crate) fn is_of(&self, id: &str, jwt: &str) -> bool {
        self.it.token_key.verify(jwt, 0, "any").unwrap().jti == id
    }

    pub(crate) async fn join(&self, node: &str, jwt: &str, csr: &[u8]) -> (StatusCode, Vec<u8>) {
        self.join_from([127, 0, 0, 1], node, jwt, csr).await
    }

    /// Joins from this address of the loopback.
    pub(crate) async fn join_from(
        &self,
        from: [u8; 4],
        node: &str,
        jwt: &str,
        csr: &[u8],
    ) -> (StatusCode, Vec<u8>) {
        let request = Request::get("/edge.crt")
            .header("Authorization", format!("Bearer {jwt}"))
            .header("NodeName", node)
            .body(Full::new(Bytes::copy_from_slice(csr)))
            .unwrap();
        let tls = tls(from, self.it.server.address, &self.it.ca_der, None).await.unwrap();
        ask(tls, request).await.unwrap()
    }

    pub(crate) async fn reset(
        &self,
        identity: Option<(&[u8], &str)>,
    ) -> Result<(StatusCode, Vec<u8>), String> {
        let request = Request::delete("/edge.crt").body(Full::default()).unwrap();
        send(self.it.server.address, &self.it.ca_der, identity, request).await
    }
}

/// A connection from an address of the loopback.
pub(crate) async fn tcp(from: [u8; 4], to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

/// The same with TLS.
pub(crate) async fn tls(
    from: [u8; 4],
    to: SocketAddr,
    ca_der: &[u8],
    identity: Option<(&[u8], &str)>,
) -> Result<TlsStream<TcpStream>, String> {
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
    let tcp = tcp(from, to).await.map_err(|error| error.to_string())?;
    let name = ServerName::from(to.ip());
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .map_err(|error| error.to_string())
}

/// Asks over a connection.
pub(crate) async fn ask(
    tls: TlsStream<TcpStream>,
    mut request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Vec<u8>), String> {
    let say = |error: &dyn std::fmt::Display| error.to_string();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.map_err(|e| say(&e))?;
    actix_rt::spawn(async move { drop(connection.await) });
    request.headers_mut().insert("Host", "cloud".parse().unwrap());
    let response = sender.send_request(request).await.map_err(|e| say(&e))?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|e| say(&e))?.to_bytes().to_vec();
    Ok((status, body))
}

/// Asks over a connection of its own.
pub(crate) async fn send(
    to: SocketAddr,
    ca_der: &[u8],
    identity: Option<(&[u8], &str)>,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Vec<u8>), String> {
    ask(tls([127, 0, 0, 1], to, ca_der, identity).await?, request).await
}

pub(crate) fn text(body: &[u8]) -> &str {
    std::str::from_utf8(body).unwrap()
}
