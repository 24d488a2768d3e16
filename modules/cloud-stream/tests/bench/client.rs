//! Callers: HTTP by hand over real TLS, so that every byte is seen as it comes.

use std::sync::Arc;

use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{Bench, LONG};

/// A client certificate and its key.
#[derive(Clone)]
pub(crate) struct Identity {
    der: Vec<u8>,
    key: String,
}

/// An answer: its head's first line, its headers, its body.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Bench {
    /// A certificate of `system:node:NAME` by an authority.
    pub(crate) fn identity(&self, authority: &pki::Authority, name: &str) -> Identity {
        let request = pki::NodeRequest::new(name).unwrap();
        let life = std::time::Duration::from_secs(3600);
        let issued =
            authority.sign_node(&request.csr_der, name, self.env.wall(), life, self.env.random_id()).unwrap();
        Identity { der: issued.der, key: request.key_pem }
    }

    /// A connection to a port, whose certificate is verified for 127.0.0.1.
    pub(crate) async fn connect(&self, port: u16, identity: Option<&Identity>) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ours.cert_der().to_vec().into()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            Some(Identity { der, key }) => {
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![der.clone().into()], key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        connector.connect("127.0.0.1".try_into().unwrap(), tcp).await.unwrap()
    }

    /// What one request is answered, whole. `headers` has its line ends.
    pub(crate) async fn ask(
        &self,
        port: u16,
        identity: Option<&Identity>,
        request: &str,
        headers: &str,
    ) -> Told {
        let mut stream = self.connect(port, identity).await;
        let text = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let read = self.env.timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("the answer ends");
        // Some servers close without the alert that says so.
        drop(read);
        told(&String::from_utf8_lossy(&bytes))
    }

    /// The same of somebody with a token.
    pub(crate) async fn ask_as(&self, port: u16, user: &str, request: &str) -> Told {
        self.ask(port, None, request, &format!("Authorization: Bearer {user}-token\r\n")).await
    }
}

fn told(text: &str) -> Told {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Told { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

/// Reads until what was read ends so.
pub(crate) async fn read_until(bench: &Bench, stream: &mut TlsStream<TcpStream>, end: &str) -> String {
    let mut bytes = Vec::new();
    let read = async {
        while !bytes.ends_with(end.as_bytes()) {
            bytes.push(stream.read_u8().await.expect("more comes"));
        }
    };
    bench.env.timeout(LONG, read).await.unwrap_or_else(|| panic!("no `{end}`"));
    String::from_utf8_lossy(&bytes).into_owned()
}
