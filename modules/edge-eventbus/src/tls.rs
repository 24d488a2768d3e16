//! TLS for the broker's own listener.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use beehive::Env;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::access::{Content, FileDefect};
use crate::broker::Broker;
use crate::error::ConnectionError;
use crate::identity;

/// 4 handshakes at once, and each keeps its place for 20 ms at least: at most 200 a second, whoever asks for them,
/// because each takes a signature on the hive's own thread.
const HANDSHAKES: usize = 4;
const HANDSHAKE_PLACE: Duration = Duration::from_millis(20);

/// What the listener with TLS needs.
pub(crate) struct Tls {
    has_ca: bool,
    has_crl: bool,
    /// `None` while the files have never been understood: then no handshake begins.
    acceptor: RefCell<Option<TlsAcceptor>>,
    /// CAs and revoked certificates of the time, to tell whether they changed.
    trusted: RefCell<Vec<Vec<u8>>>,
    handshakes: Arc<Semaphore>,
}

/// The files of the settings, in the order in which [`Tls::take`] takes them.
pub(crate) fn files(config: &config::edge::MqttTls) -> Vec<PathBuf> {
    [&config.cert_file, &config.key_file, &config.client_ca_file, &config.crl_file]
        .into_iter()
        .filter(|path| !path.as_os_str().is_empty())
        .cloned()
        .collect()
}

impl Tls {
    pub(crate) fn new(config: &config::edge::MqttTls) -> Self {
        Tls {
            has_ca: !config.client_ca_file.as_os_str().is_empty(),
            has_crl: !config.crl_file.as_os_str().is_empty(),
            acceptor: RefCell::default(),
            trusted: RefCell::default(),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES)),
        }
    }

    /// Takes new files. Where other certificates are trusted than before, clients that came with one have to show it
    /// again.
    pub(crate) fn take(&self, all: &[Content], broker: &RefCell<Broker>) -> Result<(), FileDefect> {
        let mut files = all.iter().map(|content| content.bytes.as_slice());
        let mut next =
            |what: &str| files.next().ok_or_else(|| FileDefect::new(0, format!("{what} is missing")));
        let (cert, key) = (next("certFile")?, next("keyFile")?);
        let ca = if self.has_ca { Some(next("clientCaFile")?) } else { None };
        let crl = if self.has_crl { Some(next("crlFile")?) } else { None };
        let config = server_config(cert, key, ca, crl).map_err(|what| FileDefect::new(0, what))?;
        self.acceptor.replace(Some(TlsAcceptor::from(Arc::new(config))));
        let trusted: Vec<Vec<u8>> = ca.into_iter().chain(crl).map(<[u8]>::to_vec).collect();
        let before = self.trusted.replace(trusted.clone());
        if before != trusted {
            broker.borrow_mut().revoke_certified();
        }
        Ok(())
    }

    /// The handshake, and the user that the client's certificate names.
    pub(crate) async fn accept(
        &self,
        env: &Env,
        socket: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, Option<String>), ConnectionError> {
        let Some(acceptor) = self.acceptor.borrow().clone() else {
            return Err(ConnectionError::NoCertificate);
        };
        let place =
            Arc::clone(&self.handshakes).acquire_owned().await.map_err(|_| ConnectionError::Ending)?;
        let kept = env.clone();
        env.spawn(async move {
            kept.sleep(HANDSHAKE_PLACE).await;
            drop(place);
        });
        let stream = acceptor.accept(socket).await.map_err(ConnectionError::Handshake)?;
        if !self.has_ca {
            return Ok((stream, None));
        }
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let user = certificates.first().map_or(Err("client shows no certificate"), common_name);
        Ok((stream, Some(user.map_err(ConnectionError::Unnamed)?)))
    }
}

/// The one common name, if it may be a user's.
fn common_name(certificate: &CertificateDer<'_>) -> Result<String, &'static str> {
    let (_, certificate) =
        x509_parser::parse_x509_certificate(certificate).map_err(|_| "certificate is not understood")?;
    let mut names = certificate.subject().iter_common_name();
    let name = names.next().and_then(|name| name.as_str().ok()).ok_or("certificate has no common name")?;
    if names.next().is_some() {
        return Err("certificate has several common names");
    }
    match identity::user_defect(name) {
        None => Ok(name.to_owned()),
        Some(identity::InvalidName(what)) => Err(what),
    }
}

fn server_config(
    cert: &[u8],
    key: &[u8],
    ca: Option<&[u8]>,
    crl: Option<&[u8]>,
) -> Result<ServerConfig, String> {
    let chain = certificates("tls.certFile", cert)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("tls.keyFile: {error}"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .map_err(|error| error.to_string())?;
    let builder = match ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates("tls.clientCaFile", ca)? {
                roots.add(certificate).map_err(|error| format!("tls.clientCaFile: {error}"))?;
            }
            let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            if let Some(crl) = crl {
                let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(crl).collect();
                let lists = lists.map_err(|error| format!("tls.crlFile: {error}"))?;
                if lists.is_empty() {
                    return Err("tls.crlFile: holds no list in PEM".to_owned());
                }
                verifier = verifier.with_crls(lists).only_check_end_entity_revocation();
            }
            let verifier =
                verifier.build().map_err(|error| format!("tls.clientCaFile or tls.crlFile: {error}"))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    builder.with_single_cert(chain, key).map_err(|error| format!("tls.certFile and tls.keyFile: {error}"))
}

fn certificates(key: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if all.is_empty() => Err(format!("{key}: holds no certificate in PEM")),
        Ok(all) => Ok(all),
        Err(error) => Err(format!("{key}: {error}")),
    }
}
