//! A server's certificate, and what is asked of its clients.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use beehive::Clock;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::client_certificate::AnyCertificate;

/// HTTP/1.1 is always served.
const ALPN: &[u8] = b"http/1.1";
/// HTTP/2 where it is offered.
const ALPN_HTTP2: &[u8] = b"h2";

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
    /// One may be shown; a wrong one is as none. No CA is named to the client, so that it shows what it has: as a kubelet
    /// asks, which answers 401 and no alert.
    Checked(Vec<Vec<u8>>),
    /// One must be shown.
    Required(Vec<Vec<u8>>),
}

/// TLS 1.3, and 1.2 where it is asked for, with a certificate. Its clones are one: see [`Tls::replace`].
#[derive(Clone)]
pub struct Tls {
    now: Arc<RwLock<Handshakes>>,
}

/// How handshakes are made from now on.
#[derive(Clone)]
struct Handshakes {
    acceptor: TlsAcceptor,
    /// What a certificate is held against after the handshake, if it was not during it.
    checked: Option<Option<Arc<dyn ClientCertVerifier>>>,
}

impl Tls {
    /// TLS 1.3 alone.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn new(chain_pem: &str, key_pem: &str, clients: &ClientCertificates) -> Result<Self, TlsError> {
        Self::of(&[&rustls::version::TLS13], &[ALPN], chain_pem, key_pem, clients)
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
        Self::of(&[&rustls::version::TLS13, &rustls::version::TLS12], &[ALPN], chain_pem, key_pem, clients)
    }

    /// The same, with HTTP/2 offered before HTTP/1.1: for API servers, which multiplex their calls of a node.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn with_http2(
        chain_pem: &str,
        key_pem: &str,
        clients: &ClientCertificates,
    ) -> Result<Self, TlsError> {
        let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
        Self::of(&versions, &[ALPN_HTTP2, ALPN], chain_pem, key_pem, clients)
    }

    /// TLS 1.3 alone, with HTTP/2 offered before HTTP/1.1: among programs of ours.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn http2_among_ours(
        chain_pem: &str,
        key_pem: &str,
        clients: &ClientCertificates,
    ) -> Result<Self, TlsError> {
        Self::of(&[&rustls::version::TLS13], &[ALPN_HTTP2, ALPN], chain_pem, key_pem, clients)
    }

    fn of(
        versions: &[&'static rustls::SupportedProtocolVersion],
        protocols: &[&[u8]],
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
        let (verifier, checked) = match clients {
            ClientCertificates::NotAsked => (None, None),
            ClientCertificates::Optional(authorities) => (verifier(authorities, true, provider)?, None),
            ClientCertificates::Required(authorities) => (verifier(authorities, false, provider)?, None),
            ClientCertificates::Checked(authorities) if authorities.is_empty() => {
                (Some(AnyCertificate::of(provider)), Some(None))
            }
            ClientCertificates::Checked(authorities) => {
                let checked = verifier(authorities, true, Arc::clone(&provider))?;
                (Some(AnyCertificate::of(provider)), Some(checked))
            }
        };
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(refused)?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Self::with(config, checked))
    }

    fn with(config: ServerConfig, checked: Option<Option<Arc<dyn ClientCertVerifier>>>) -> Self {
        let handshakes = Handshakes { acceptor: TlsAcceptor::from(Arc::new(config)), checked };
        Tls { now: Arc::new(RwLock::new(handshakes)) }
    }

    /// Handshakes that begin from now on are made as `other` makes them, at all servers that have a clone of this: a
    /// certificate was renewed, or a CA has changed. Connections go on as they are.
    pub fn replace(&self, other: &Tls) {
        let handshakes = other.handshakes();
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = handshakes;
    }

    fn handshakes(&self) -> Handshakes {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a handshake. Answers the stream, and the certificate that the client showed if that is good.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        socket: S,
        clock: &dyn Clock,
    ) -> io::Result<(TlsStream<S>, Option<CertificateDer<'static>>)> {
        let Handshakes { acceptor, checked } = self.handshakes();
        let stream = acceptor.accept(socket).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::split_first);
        let certificate = shown.and_then(|(leaf, rest)| {
            let is_good = match &checked {
                None => true,
                Some(None) => false,
                Some(Some(verifier)) => {
                    let unix = clock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                    verifier.verify_client_cert(leaf, rest, UnixTime::since_unix_epoch(unix)).is_ok()
                }
            };
            is_good.then(|| leaf.clone().into_owned())
        });
        Ok((stream, certificate))
    }
}

impl From<ServerConfig> for Tls {
    /// For a protocol that has its own rules, as the link's.
    fn from(config: ServerConfig) -> Self {
        Self::with(config, None)
    }
}

fn refused(error: impl std::fmt::Display) -> TlsError {
    TlsError::Refused(error.to_string())
}

fn verifier(
    authorities: &[Vec<u8>],
    is_optional: bool,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(CertificateDer::from(authority.clone())).map_err(refused)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if is_optional { builder.allow_unauthenticated() } else { builder };
    builder.build().map(Some).map_err(refused)
}
