//! What an end shows and whom it trusts, exchangeable while it runs: certificates are renewed and authorities change without
//! the end of a link. A handshake goes by what is there when it begins.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{RootCertStore, SignatureScheme};
use thiserror::Error;
use tokio::runtime::Handle;

use super::signing_thread;

/// A certificate, its key, and the authority that both ends trust. All PEM (RFC 7468).
#[derive(Clone)]
pub struct Credentials {
    /// The certificate, with what leads to the authority if there is anything between.
    pub certificate: String,
    /// Its key.
    pub key: PrivateKey,
    /// The authority's certificate; several, one after the other, are trusted alike.
    pub authority: String,
}

/// The key of a certificate.
#[derive(Clone)]
pub enum PrivateKey {
    /// The key itself as PEM.
    Pem(String),
    /// Something else has it and signs with it. That may block for seconds, so the handshakes of an end that dials are made on a
    /// thread of their own, and so is all the work of its QUIC.
    Elsewhere(Arc<dyn SigningKey>),
}

impl From<String> for PrivateKey {
    fn from(pem: String) -> Self {
        PrivateKey::Pem(pem)
    }
}

/// Why an endpoint could not be made.
#[derive(Debug, Error)]
pub enum EndpointError {
    /// A certificate or key is no PEM of the right kind.
    #[error("the {what} cannot be read: {reason}")]
    Unreadable {
        /// Which.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// TLS does not take them.
    #[error("the certificate cannot be used: {0}")]
    Tls(#[source] rustls::Error),
    /// The socket could not be opened.
    #[error("cannot use UDP address {address}: {reason}")]
    Socket {
        /// Which.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// The machine gave no thread for signatures that block.
    #[error("there is no thread for handshakes: {0}")]
    Thread(String),
    /// The parameters of the protocol do not fit together.
    #[error("limits: {0}")]
    Limits(String),
}

/// What one end shows and trusts at a moment.
pub(super) struct Material {
    pub(super) shown: Arc<CertifiedKey>,
    pub(super) clients: Arc<dyn ClientCertVerifier>,
    pub(super) servers: Arc<WebPkiServerVerifier>,
    /// A signature blocks.
    signs_elsewhere: bool,
}

impl Material {
    fn of(credentials: &Credentials) -> Result<Self, EndpointError> {
        let unreadable = |what| move |reason: String| EndpointError::Unreadable { what, reason };
        let chain = certificates(&credentials.certificate).map_err(unreadable("certificate"))?;
        let shown = match &credentials.key {
            PrivateKey::Pem(pem) => {
                let key = PrivateKeyDer::from_pem_slice(pem.as_bytes())
                    .map_err(|error| unreadable("key")(error.to_string()))?;
                CertifiedKey::from_der(chain, key, &provider()).map_err(EndpointError::Tls)?
            }
            PrivateKey::Elsewhere(key) => {
                let shown = CertifiedKey::new(chain, Arc::clone(key));
                shown.keys_match().map_err(EndpointError::Tls)?;
                shown
            }
        };
        let of_authority = unreadable("authority's certificate");
        let mut roots = RootCertStore::empty();
        for authority in certificates(&credentials.authority).map_err(of_authority)? {
            roots.add(authority).map_err(|error| of_authority(error.to_string()))?;
        }
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider());
        let servers = WebPkiServerVerifier::builder_with_provider(roots, provider());
        Ok(Material {
            shown: Arc::new(shown),
            signs_elsewhere: matches!(credentials.key, PrivateKey::Elsewhere(_)),
            clients: clients.build().map_err(|error| of_authority(error.to_string()))?,
            servers: servers.build().map_err(|error| of_authority(error.to_string()))?,
        })
    }

    /// The end's own certificate.
    pub(super) fn own(&self) -> Option<&CertificateDer<'static>> {
        self.shown.cert.first()
    }
}

pub(super) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let chain = chain.map_err(|error| error.to_string())?;
    if chain.is_empty() { Err("no certificate is in it".to_owned()) } else { Ok(chain) }
}

pub(super) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Tells the time by which the certificates of dialling ends are judged.
type JudgedBy = dyn Fn() -> SystemTime + Send + Sync;

/// [`Credentials`] that may be replaced. Its clones are one.
#[derive(Clone)]
pub struct LiveCredentials {
    now: Arc<RwLock<Arc<Material>>>,
    /// How long after its end the certificate of a dialling end is still let through the handshake.
    ended_for: Duration,
    /// By what an accepting end judges what has ended; `None`: the machine's clock.
    judged_by: Option<Arc<JudgedBy>>,
}

impl std::fmt::Debug for LiveCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LiveCredentials(..)")
    }
}

impl LiveCredentials {
    /// Begins with these.
    ///
    /// # Errors
    /// See [`EndpointError`]; a certificate and a key that do not belong together are among them.
    pub fn new(credentials: &Credentials) -> Result<Self, EndpointError> {
        let now = Arc::new(RwLock::new(Arc::new(Material::of(credentials)?)));
        Ok(LiveCredentials { now, ended_for: Duration::ZERO, judged_by: None })
    }

    /// The same for an accepting end that lets certificates through which ended at most `ended_for` ago. Whoever takes the
    /// connections tells them by [`super::PeerName::validity_unix`], and bounds what they may do.
    #[must_use]
    pub fn letting_ended(mut self, ended_for: Duration) -> Self {
        self.ended_for = ended_for;
        self
    }

    /// The same for an accepting end that judges what has ended by `time` and not by the machine's clock: where that is in doubt. It is asked in
    /// each handshake, on any thread.
    #[must_use]
    pub fn judging_by(mut self, time: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.judged_by = Some(Arc::new(time));
        self
    }

    /// Handshakes that begin from now on go by these. Connections go on as they are.
    ///
    /// # Errors
    /// See [`LiveCredentials::new`]. What was there before stays then.
    pub fn replace(&self, credentials: &Credentials) -> Result<(), EndpointError> {
        let material = Arc::new(Material::of(credentials)?);
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = material;
        Ok(())
    }

    pub(super) fn now(&self) -> Arc<Material> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where handshakes are made; `None`: where they are awaited.
    pub(super) fn handshakes_on(&self) -> Result<Option<Handle>, EndpointError> {
        if !self.now().signs_elsewhere {
            return Ok(None);
        }
        signing_thread::handle().map(Some).map_err(|error| EndpointError::Thread(error.to_string()))
    }

    pub(super) fn ended_for(&self) -> Duration {
        self.ended_for
    }

    /// The time by which it is judged what has ended, if that is not the machine's clock.
    pub(super) fn judged_by(&self) -> Option<SystemTime> {
        self.judged_by.as_ref().map(|time| time())
    }
}

impl ResolvesServerCert for LiveCredentials {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.now().shown))
    }
}

impl ResolvesClientCert for LiveCredentials {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.now().shown))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
