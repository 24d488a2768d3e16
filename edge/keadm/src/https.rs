//! HTTPS to CloudCore's enrolment port. The server is trusted through a CA that is pinned by hash or held already; nothing
//! is ever sent to a server that is not.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use pkcs11key::TokenKey;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

/// 9 s for a whole exchange, so that whatever is wrong is said within 10.
pub(crate) const EXCHANGE_DEADLINE: Duration = Duration::from_secs(9);
/// 6 s of these for the name: a name server that is away takes the C library 5 s.
const FOUND_WITHIN: Duration = Duration::from_secs(6);
/// 64 KiB: the largest answer that is read.
const ANSWER_MAX: usize = 64 << 10;

/// Which CA the server must come from.
#[derive(Debug, Clone)]
pub(crate) enum ServerTrust {
    /// One whose certificate has this SHA-256, shown by the server in its chain.
    Pin(String),
    /// One of these.
    Authorities(Vec<Vec<u8>>),
}

/// A node's certificate with its key, wherever that is.
///
/// # Errors
/// When they are not usable. Whether a token has the key shows when it signs.
pub(crate) fn certified_key(certificate: CertificateDer<'static>, key_pem: &str) -> Result<CertifiedKey> {
    let chain = vec![certificate];
    if let Some(key) = TokenKey::of_pem(key_pem)? {
        return Ok(CertifiedKey::new(chain, Arc::new(key)));
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, key, &provider).context("this node's certificate is not usable")
}

/// What the server is asked.
pub(crate) struct HttpsRequest {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) trust: ServerTrust,
    pub(crate) identity: Option<CertifiedKey>,
    pub(crate) request: Request<Full<Bytes>>,
}

/// What it answered, and the CA that it was trusted through.
pub(crate) struct HttpsResponse {
    pub(crate) status: StatusCode,
    pub(crate) body: Vec<u8>,
    pub(crate) ca_der: Vec<u8>,
}

#[derive(Debug)]
struct PinnedCaVerifier {
    trust: ServerTrust,
    provider: Arc<CryptoProvider>,
    trusted: Mutex<Option<Vec<u8>>>,
    wrong_pin: Mutex<bool>,
}

impl PinnedCaVerifier {
    fn authorities(&self, chain: &[CertificateDer<'_>]) -> Vec<CertificateDer<'static>> {
        match &self.trust {
            ServerTrust::Authorities(all) => all.iter().cloned().map(CertificateDer::from).collect(),
            ServerTrust::Pin(pin) => {
                let pinned = chain.iter().find(|cert| pki::pin_of(cert) == *pin);
                pinned.map(|cert| cert.clone().into_owned()).into_iter().collect()
            }
        }
    }
}

impl ServerCertVerifier for PinnedCaVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authorities = self.authorities(chain);
        let Some(ca) = authorities.first().cloned() else {
            *self.wrong_pin.lock().unwrap_or_else(PoisonError::into_inner) = true;
            return Err(rustls::CertificateError::UnknownIssuer.into());
        };
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority)?;
        }
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        // A new machine's clock may be years off, and the CA is older than the machine.
        let earliest = UnixTime::since_unix_epoch(Duration::from_secs(pki::MADE_AT_UNIX));
        let now = beehive::link::tls::time_to_check_by(now, earliest, &ca, leaf);
        // What is pinned may be a CA whose successor signs by now: the elder has signed that, and the server shows it.
        let verified = inner.verify_server_cert(leaf, chain, name, ocsp, now)?;
        *self.trusted.lock().unwrap_or_else(PoisonError::into_inner) = Some(ca.to_vec());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Asks, within [`EXCHANGE_DEADLINE`].
pub(crate) async fn exchange(ask: HttpsRequest) -> Result<HttpsResponse> {
    exchange_within(ask, EXCHANGE_DEADLINE).await
}

/// Asks what takes longer to answer.
pub(crate) async fn exchange_within(ask: HttpsRequest, deadline: Duration) -> Result<HttpsResponse> {
    let (host, port) = (ask.host.clone(), ask.port);
    let Ok(answer) = tokio::time::timeout(deadline, talk(ask)).await else {
        bail!(
            "no answer from {host}:{port} within {} s: check the address, and that no firewall drops TCP to that port",
            deadline.as_secs()
        );
    };
    answer
}

/// A name that is not found is no CloudCore that is silent.
async fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>> {
    let cure = "look at /etc/resolv.conf and /etc/hosts of this machine, or give an address";
    match tokio::time::timeout(FOUND_WITHIN, tokio::net::lookup_host((host, port))).await {
        Ok(found) => Ok(found.with_context(|| format!("the name `{host}` is not found: {cure}"))?.collect()),
        Err(_) => {
            bail!("the name servers say nothing of `{host}` within {} s: {cure}", FOUND_WITHIN.as_secs())
        }
    }
}

async fn talk(ask: HttpsRequest) -> Result<HttpsResponse> {
    let HttpsRequest { host, port, trust, identity, mut request } = ask;
    let tcp = tokio::net::TcpStream::connect(addresses(&host, port).await?.as_slice()).await;
    let tcp = tcp.with_context(|| {
        format!("cannot reach {host}:{port}: check the address, --certport, and that CloudCore runs")
    })?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(PinnedCaVerifier {
        trust,
        provider: Arc::clone(&provider),
        trusted: Mutex::default(),
        wrong_pin: Mutex::default(),
    });
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>);
    let tls = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity))),
        None => builder.with_no_client_auth(),
    };
    let name = ServerName::try_from(host.clone()).with_context(|| format!("`{host}` is no host name"))?;
    let stream = match tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, tcp).await {
        Ok(stream) => stream,
        Err(error) => {
            if *verifier.wrong_pin.lock().unwrap_or_else(PoisonError::into_inner) {
                return Err(pki::TokenError::WrongAuthority.into());
            }
            let words = format!(
                "{host}:{port} is not this cluster's CloudCore, or {host} is missing in its advertiseAddress"
            );
            return Err(error).context(words);
        }
    };
    let (mut sender, connection) = httpclient::handshake(stream).await?;
    actix_rt::spawn(async move {
        let _ = connection.await;
    });
    request.headers_mut().insert(http::header::HOST, http::HeaderValue::from_str(&format!("{host}:{port}"))?);
    let response = sender.send_request(request).await.with_context(|| format!("{host}:{port} broke off"))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
    let Ok(body) = body else { bail!("the answer of {host}:{port} is longer than 64 KiB or was cut off") };
    let ca_der = verifier.trusted.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default();
    Ok(HttpsResponse { status, body: body.to_bytes().to_vec(), ca_der })
}
