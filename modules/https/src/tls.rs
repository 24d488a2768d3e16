//! A server's certificate, and what is asked of its clients.

use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

/// HTTP/1.1 is all that is served.
const ALPN: &[u8] = b"http/1.1";

/// Why a certificate is not usable.
#[derive(Debug, Error)]
pub enum TlsError {
    /// It is not PEM, or holds none.
    #[error("the {what} is not usable PEM: {reason}")]
    Pem {
        /// Which part.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// Certificate and key are no pair, or the library refuses them.
    #[error("the server's certificate or key is not usable: {0}")]
    Refused(String),
}

/// What certificate a client must show. Each is checked against CAs in DER.
#[derive(Debug, Clone)]
pub enum ClientCertificates {
    /// None is asked for.
    NotAsked,
    /// One may be shown; a wrong one ends the handshake.
    Optional(Vec<Vec<u8>>),
    /// One must be shown.
    Required(Vec<Vec<u8>>),
}

/// TLS 1.3, and 1.2 where it is asked for, with a certificate.
#[derive(Clone)]
pub struct Tls {
    pub(crate) acceptor: TlsAcceptor,
}

impl Tls {
    /// TLS 1.3 alone.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn new(chain_pem: &str, key_pem: &str, clients: &ClientCertificates) -> Result<Self, TlsError> {
        Self::of(&[&rustls::version::TLS13], chain_pem, key_pem, clients)
    }

    /// TLS 1.3 and 1.2, for clients of others.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn also_tls12(
        chain_pem: &str,
        key_pem: &str,
        clients: &ClientCertificates,
    ) -> Result<Self, TlsError> {
        Self::of(&[&rustls::version::TLS13, &rustls::version::TLS12], chain_pem, key_pem, clients)
    }

    fn of(
        versions: &[&'static rustls::SupportedProtocolVersion],
        chain_pem: &str,
        key_pem: &str,
        clients: &ClientCertificates,
    ) -> Result<Self, TlsError> {
        let pem = |what: &'static str| move |reason: String| TlsError::Pem { what, reason };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| pem("certificate")(error.to_string()))?;
        if chain.is_empty() {
            return Err(pem("certificate")("it holds no certificate".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|error| pem("key")(error.to_string()))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(refused)?;
        let builder = match verifier(clients, provider)? {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(refused)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Tls { acceptor: TlsAcceptor::from(Arc::new(config)) })
    }
}

impl From<ServerConfig> for Tls {
    /// For a protocol that has its own rules, as the link's.
    fn from(config: ServerConfig) -> Self {
        Tls { acceptor: TlsAcceptor::from(Arc::new(config)) }
    }
}

fn refused(error: impl std::fmt::Display) -> TlsError {
    TlsError::Refused(error.to_string())
}

fn verifier(
    clients: &ClientCertificates,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let (authorities, is_optional) = match clients {
        ClientCertificates::NotAsked => return Ok(None),
        ClientCertificates::Optional(authorities) => (authorities, true),
        ClientCertificates::Required(authorities) => (authorities, false),
    };
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(CertificateDer::from(authority.clone())).map_err(refused)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if is_optional { builder.allow_unauthenticated() } else { builder };
    builder.build().map(Some).map_err(refused)
}
