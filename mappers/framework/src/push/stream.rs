//! Connections to targets, with TLS where the address says so.

use std::sync::Arc;
use std::time::Duration;

use beehive::Env;
use httpclient::tls::{self, Stream};
#[cfg(test)]
use rustls::RootCertStore;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;

use crate::push::endpoint::Endpoint;

/// 10 s for a connection, its TLS included.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Whose certificates are trusted: the system's CAs, read once, when a target first wants TLS. Its clones are one.
#[derive(Clone, Default)]
pub(crate) struct Tls(Arc<OnceCell<TlsConnector>>);

impl Tls {
    async fn connector(&self, env: &Env) -> Result<&TlsConnector, String> {
        let make = async || {
            let roots = env.blocking(tls::system_roots).await.map_err(|fault| fault.reason)?;
            tls::connector(roots).map_err(|error| format!("TLS: {error}"))
        };
        self.0.get_or_try_init(make).await
    }

    #[cfg(test)]
    pub(crate) fn trusting(roots: RootCertStore) -> Self {
        Tls(Arc::new(OnceCell::new_with(tls::connector(roots).ok())))
    }
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
            return Ok(Stream::Left(socket));
        }
        let secured = tls::secure(tls.connector(env).await?, &at.host, socket).await;
        secured.map_err(|error| format!("TLS: {error}"))
    };
    match env.timeout(CONNECT_WITHIN, dialled).await {
        Some(stream) => stream.map_err(|why: String| format!("no connection to {at}: {why}")),
        None => Err(format!("no connection to {at} within {} s", CONNECT_WITHIN.as_secs())),
    }
}
