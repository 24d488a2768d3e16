//! TLS where an address asks for it, to whom a CA of the system's vouches for.

use std::io;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

/// A connection, without TLS or with it.
// A session is a kilobyte, and most connections have none.
pub type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// The system's CAs; `SSL_CERT_FILE` and `SSL_CERT_DIR` name others. Reads files: on a thread that may wait.
pub fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// For connections to whom these vouch for, as nobody in particular.
///
/// # Errors
/// When the library refuses its own defaults.
pub fn connector(roots: RootCertStore) -> Result<TlsConnector, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Secures a connection to `host`, which is a name or an address without brackets.
///
/// # Errors
/// When `host` is neither, the peer speaks no TLS, or nobody who is trusted vouches for it.
pub async fn secure(connector: &TlsConnector, host: &str, socket: TcpStream) -> io::Result<Stream> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    Ok(Either::Right(Box::new(connector.connect(name, socket).await?)))
}
