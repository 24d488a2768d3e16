//! TLS for the broker's own listener.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use beehive::Env;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, Error, RootCertStore, ServerConfig};
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
use crate::peer::Certified;
use crate::peer::Chain;

/// 4 handshakes at once, and each keeps its place for 20 ms at least: at most 200 a second, whoever asks for them,
/// because each takes a signature on the hive's own thread.
const HANDSHAKES: usize = 4;
const HANDSHAKE_PLACE: Duration = Duration::from_millis(20);
/// 8 KiB of a client's certificates are kept with what it leaves: four of RSA, and some more of other kinds.
const CHAIN_MAX: usize = 8 << 10;

/// What the listener with TLS needs.
pub(crate) struct Tls {
    is_on: bool,
    has_ca: bool,
    has_crl: bool,
    /// `None` while the files have never been understood: then no handshake begins.
    acceptor: RefCell<Option<TlsAcceptor>>,
    /// What holds the certificates of clients against CAs and list; `None` as before, and without CAs.
    judge: RefCell<Option<Judge>>,
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
            is_on: config.enable,
            has_ca: !config.client_ca_file.as_os_str().is_empty(),
            has_crl: !config.crl_file.as_os_str().is_empty(),
            acceptor: RefCell::default(),
            judge: RefCell::default(),
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
        let (config, verifier) =
            server_config(cert, key, ca, crl).map_err(|what| FileDefect::new(0, what))?;
        self.judge
            .replace(verifier.map(|verifier| Judge { verifier, time: Arc::clone(&config.time_provider) }));
        self.acceptor.replace(Some(TlsAcceptor::from(Arc::new(config))));
        let trusted: Vec<Vec<u8>> = ca.into_iter().chain(crl).map(<[u8]>::to_vec).collect();
        let before = self.trusted.replace(trusted.clone());
        if before != trusted {
            broker.borrow_mut().revoke_certified();
        }
        Ok(())
    }

    /// Whether certificates that a client has shown before are trusted now. `None`: the files have never been understood.
    pub(crate) fn trusts(&self, chain: &Chain) -> Option<bool> {
        if !self.is_on || !self.has_ca {
            return Some(false);
        }
        self.judge.borrow().as_ref().map(|judge| judge.trusts(chain))
    }

    /// The handshake, and what the client's certificate says.
    pub(crate) async fn accept(
        &self,
        env: &Env,
        socket: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, Option<Certified>), ConnectionError> {
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
        let user = user.map_err(ConnectionError::Unnamed)?;
        let chain = as_kept(certificates);
        Ok((stream, Some(Certified { user, chain })))
    }
}

/// All of them, or none: a part of them proves nothing.
fn as_kept(certificates: &[CertificateDer<'_>]) -> Chain {
    let size: usize = certificates.iter().map(|one| one.len()).sum();
    if size > CHAIN_MAX { Chain::default() } else { certificates.iter().map(|one| one.to_vec()).collect() }
}

/// Holds certificates against CAs and list, as a handshake does.
struct Judge {
    verifier: Arc<dyn ClientCertVerifier>,
    time: Arc<dyn rustls::time_provider::TimeProvider>,
}

impl Judge {
    fn trusts(&self, chain: &Chain) -> bool {
        let chain: Vec<CertificateDer<'_>> =
            chain.iter().map(|one| CertificateDer::from(one.as_slice())).collect();
        let (Some((own, between)), Some(mut now)) = (chain.split_first(), self.time.current_time()) else {
            return false;
        };
        // Each certificate was valid once: where one is not yet, it is the clock of a machine without a battery that is behind.
        for _ in 0..=chain.len() {
            match self.verifier.verify_client_cert(own, between, now) {
                Ok(_) => return true,
                Err(Error::InvalidCertificate(CertificateError::NotValidYetContext {
                    not_before, ..
                })) if not_before > now => now = not_before,
                Err(_) => return false,
            }
        }
        false
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
) -> Result<(ServerConfig, Option<Arc<dyn ClientCertVerifier>>), String> {
    let chain = certificates("tls.certFile", cert)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("tls.keyFile: {error}"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .map_err(|error| error.to_string())?;
    let (builder, verifier) = match ca {
        None => (builder.with_no_client_auth(), None),
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
            (builder.with_client_cert_verifier(Arc::clone(&verifier)), Some(verifier))
        }
    };
    let config = builder.with_single_cert(chain, key);
    Ok((config.map_err(|error| format!("tls.certFile and tls.keyFile: {error}"))?, verifier))
}

fn certificates(key: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if all.is_empty() => Err(format!("{key}: holds no certificate in PEM")),
        Ok(all) => Ok(all),
        Err(error) => Err(format!("{key}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls_pki_types::UnixTime;

    use super::*;

    /// A clock that says this year.
    #[derive(Debug)]
    struct Year(u64);

    impl rustls::time_provider::TimeProvider for Year {
        fn current_time(&self) -> Option<UnixTime> {
            Some(UnixTime::since_unix_epoch(Duration::from_secs((self.0 - 1970) * 31_557_600)))
        }
    }

    fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    #[test]
    fn certificates_of_before_are_looked_at_as_a_handshake_does_with_whatever_clock() {
        let (ca, other) = (authority("ours"), authority("other"));
        let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::default());
        (params.not_before, params.not_after) =
            (rcgen::date_time_ymd(2030, 1, 1), rcgen::date_time_ymd(2040, 1, 1));
        params.serial_number = Some(7_u64.into());
        let client = params.signed_by(&key, &ca).unwrap();
        let revoked = |serial: u64| {
            let list = rcgen::CertificateRevocationListParams {
                this_update: rcgen::date_time_ymd(2025, 1, 1),
                next_update: rcgen::date_time_ymd(2070, 1, 1),
                crl_number: 1_u64.into(),
                issuing_distribution_point: None,
                revoked_certs: vec![rcgen::RevokedCertParams {
                    serial_number: serial.into(),
                    revocation_time: rcgen::date_time_ymd(2025, 1, 1),
                    reason_code: None,
                    invalidity_date: None,
                }],
                key_identifier_method: rcgen::KeyIdMethod::Sha256,
            };
            list.signed_by(&ca).unwrap().pem().unwrap()
        };
        let trusts = |year, authority: &CertifiedIssuer<'_, KeyPair>, list: &str, chain: &Chain| {
            let (own, ca) = (client.pem(), authority.pem());
            let (key, ca) = (key.serialize_pem(), ca.as_bytes());
            let (_, verifier) =
                server_config(own.as_bytes(), key.as_bytes(), Some(ca), Some(list.as_bytes())).unwrap();
            Judge { verifier: verifier.unwrap(), time: Arc::new(Year(year)) }.trusts(chain)
        };
        let chain = as_kept(&[client.der().clone()]);
        for (year, serial, is_trusted) in
            [(2035, 8, true), (1971, 8, true), (2045, 8, false), (2035, 7, false), (1971, 7, false)]
        {
            assert_eq!(trusts(year, &ca, &revoked(serial), &chain), is_trusted, "{year} {serial}");
        }
        assert!(!trusts(2035, &other, &revoked(8), &chain));
        assert!(!trusts(2035, &ca, &revoked(8), &Chain::default()));
        // A part of a chain proves nothing: all are kept, or none.
        let large = CertificateDer::from(vec![0; CHAIN_MAX]);
        assert_eq!(as_kept(&[client.der().clone(), large]).len(), 0);
    }
}
