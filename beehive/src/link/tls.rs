//! TLS of every transport that is not in memory: verified both ways, version 1.3, one authority.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use thiserror::Error;

use super::transport::PeerName;

/// A certificate, its key, and the authority that both ends trust. All PEM (RFC 7468).
#[derive(Clone)]
pub struct Credentials {
    /// The certificate, with what leads to the authority if there is anything between.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// The authority's certificate.
    pub authority: String,
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
    /// The parameters of the protocol do not fit together.
    #[error("limits: {0}")]
    Limits(String),
}

struct Material {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
}

fn material(credentials: &Credentials) -> Result<Material, EndpointError> {
    let unreadable = |what| move |reason: String| EndpointError::Unreadable { what, reason };
    let chain = certificates(&credentials.certificate).map_err(unreadable("certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(credentials.key.as_bytes())
        .map_err(|error| unreadable("key")(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for authority in certificates(&credentials.authority).map_err(unreadable("authority's certificate"))? {
        roots.add(authority).map_err(|error| unreadable("authority's certificate")(error.to_string()))?;
    }
    Ok(Material { chain, key, roots: Arc::new(roots) })
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let chain = chain.map_err(|error| error.to_string())?;
    if chain.is_empty() { Err("no certificate is in it".to_owned()) } else { Ok(chain) }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The accepting end: a client without a certificate of the authority gets nowhere.
///
/// # Errors
/// See [`EndpointError`].
pub fn server(credentials: &Credentials, protocol: &[u8]) -> Result<ServerConfig, EndpointError> {
    let Material { chain, key, roots } = material(credentials)?;
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider()).build().map_err(
            |error| EndpointError::Unreadable { what: "authority's certificate", reason: error.to_string() },
        )?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(EndpointError::Tls)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(EndpointError::Tls)?;
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

/// The dialling end.
///
/// # Errors
/// See [`EndpointError`].
pub(super) fn client(credentials: &Credentials, protocol: &[u8]) -> Result<ClientConfig, EndpointError> {
    let Material { chain, key, roots } = material(credentials)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(EndpointError::Tls)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(EndpointError::Tls)?;
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

/// Who a certificate (DER) that TLS has verified is of: the common name of its subject, and its serial number. `None`
/// when it has no common name.
pub fn peer_of(der: &[u8]) -> Option<PeerName> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    let serial: String = certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
    Some(PeerName::verified(name, serial))
}
