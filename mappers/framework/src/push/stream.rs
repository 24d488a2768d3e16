//! Connections to targets, with TLS where the address says so.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use beehive::Env;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::push::endpoint::Endpoint;

/// 10 s for a connection, its TLS included.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Whose certificates are trusted: the system's CAs, read once, when a target first wants TLS. `SSL_CERT_FILE` and `SSL_CERT_DIR` name
/// others. Its clones are one.
#[derive(Clone, Default)]
pub(crate) struct Tls(Arc<OnceCell<TlsConnector>>);

impl Tls {
    async fn connector(&self, env: &Env) -> Result<&TlsConnector, String> {
        let make = async || {
            let roots = env.blocking(system_roots).await.map_err(|fault| fault.reason)?;
            connector(roots).map_err(|error| format!("TLS: {error}"))
        };
        self.0.get_or_try_init(make).await
    }

    #[cfg(test)]
    pub(crate) fn trusting(roots: RootCertStore) -> Self {
        Tls(Arc::new(OnceCell::new_with(connector(roots).ok())))
    }
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn connector(roots: RootCertStore) -> Result<TlsConnector, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A connection.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Connects.
///
/// # Errors
/// Why there is no connection, in a sentence that names the place.
pub(crate) async fn dial(at: &Endpoint, tls: &Tls, env: &Env) -> Result<Stream, String> {
    let dialled = async {
        let socket =
            TcpStream::connect((at.host.as_str(), at.port)).await.map_err(|error| error.to_string())?;
        socket.set_nodelay(true).map_err(|error| error.to_string())?;
        if !at.is_tls {
            return Ok(Stream::Plain(socket));
        }
        let name = ServerName::try_from(at.host.clone()).map_err(|error| error.to_string())?;
        let secured = tls.connector(env).await?.connect(name, socket).await;
        Ok(Stream::Tls(Box::new(secured.map_err(|error| format!("TLS: {error}"))?)))
    };
    match env.timeout(CONNECT_WITHIN, dialled).await {
        Some(stream) => stream.map_err(|why: String| format!("no connection to {at}: {why}")),
        None => Err(format!("no connection to {at} within {} s", CONNECT_WITHIN.as_secs())),
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(socket) => Pin::new(socket).poll_read(cx, into),
            Stream::Tls(secured) => Pin::new(secured).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Stream::Tls(secured) => Pin::new(secured).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Stream::Tls(secured) => Pin::new(secured).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Stream::Tls(secured) => Pin::new(secured).poll_shutdown(cx),
        }
    }
}
