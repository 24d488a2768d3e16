//! How CloudCores know and reach each other: the port for calls that others pass on, and the certificate that is shown there and to them.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use beehive::{Env, Moment};
use https::{ClientCertificates, Port, Tls, TlsError};
use pki::CurrentAuthorities;
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::DoorError;

/// 7 days. It is made at each start, and again long before it ends; its key lies in memory alone.
const LIFE: Duration = Duration::from_secs(7 * 86_400);
/// 2 days: most of its life is left then.
const RENEWED_AFTER: Duration = Duration::from_secs(2 * 86_400);
/// HTTP/2 alone.
pub(crate) const ALPN: &[u8] = b"h2";

/// How this CloudCore and the others know and reach each other. Its clones are one.
#[derive(Clone)]
pub struct PeerSettings {
    /// The port, bound once: it outlives servers that are started anew.
    pub(crate) port: Arc<Port>,
    /// How long a call waits for a node at the most.
    pub(crate) within: Duration,
    address: Option<SocketAddr>,
    identity: String,
    authorities: CurrentAuthorities,
    /// What is shown at the port.
    pub(crate) tls: Tls,
    issued: Arc<Mutex<Issued>>,
}

/// A certificate, as it is shown to others.
struct Issued {
    client: Arc<ClientConfig>,
    /// The CAs that were trusted when it was made, and when that was.
    made: (Vec<Vec<u8>>, Moment),
}

impl PeerSettings {
    /// By the settings, which have such a port ([`config::router::Router::has_peers`]). `address` is where others reach this machine, if they do; `identity` is who this
    /// CloudCore is, as the Leases of its nodes say it.
    ///
    /// # Errors
    /// See [`DoorError`].
    pub fn open(
        settings: &config::router::Router,
        address: Option<IpAddr>,
        identity: &str,
        authorities: CurrentAuthorities,
        env: &Env,
    ) -> Result<Self, DoorError> {
        let bind = settings.peers.bind_address.parse().unwrap_or(IpAddr::from([127, 0, 0, 1]));
        let bind = SocketAddr::from((bind, settings.peers.port));
        let port = Port::bind(bind).map_err(|source| DoorError::ListenPeers { address: bind, source })?;
        let address = address.map(|address| SocketAddr::from((address, port.address().port())));
        match address {
            Some(address) => {
                tracing::info!(%address, "other CloudCores pass calls of this one's nodes on to here");
            }
            None => tracing::warn!(
                "no other CloudCore can pass calls on to this one: nobody says where it is; set modules.router.peers.address"
            ),
        }
        let (tls, issued) = issue(&authorities, identity, env)?;
        let issued = Arc::new(Mutex::new(issued));
        Ok(PeerSettings {
            port: Arc::new(port),
            within: Duration::from_secs(settings.rest_timeout.into()),
            address,
            identity: identity.to_owned(),
            authorities,
            tls,
            issued,
        })
    }

    /// Where others reach it, for the Leases of its nodes.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// How it shows itself to others now.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.issued.lock().unwrap_or_else(PoisonError::into_inner).client)
    }

    /// Makes the certificate anew if it is old, or others are trusted than when it was made. Answers whether it was.
    ///
    /// # Errors
    /// See [`DoorError`]. The one before goes on.
    pub(crate) fn renew(&self, env: &Env) -> Result<bool, DoorError> {
        let trusted = self.authorities.get().trusted();
        let mut shown = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, at) = &shown.made;
        if env.now().since(*at) < RENEWED_AFTER && *before == trusted {
            return Ok(false);
        }
        let (tls, issued) = issue(&self.authorities, &self.identity, env)?;
        self.tls.replace(&tls);
        *shown = issued;
        Ok(true)
    }
}

/// Makes a certificate for both ends of a connection.
fn issue(authorities: &CurrentAuthorities, identity: &str, env: &Env) -> Result<(Tls, Issued), DoorError> {
    let authorities = authorities.get();
    let (issued, key) = authorities
        .signing()
        .cloudcore(identity, env.wall(), LIFE, env.random_id())
        .map_err(DoorError::Authority)?;
    let (chain, trusted) = (authorities.chain(&issued.pem), authorities.trusted());
    let tls = Tls::http2_among_ours(&chain, &key, &ClientCertificates::Required(trusted.clone()))?;
    let client = Arc::new(client(&chain, &key, &trusted)?);
    Ok((tls, Issued { client, made: (trusted, env.now()) }))
}

/// For connections to those of `trusted`.
pub(crate) fn client(chain: &str, key: &str, trusted: &[Vec<u8>]) -> Result<ClientConfig, TlsError> {
    let refused = |error: rustls::Error| TlsError::Refused(error.to_string());
    let pem =
        |what| move |error: rustls_pki_types::pem::Error| TlsError::Pem { what, reason: error.to_string() };
    let mut roots = RootCertStore::empty();
    for authority in trusted {
        roots.add(CertificateDer::from(authority.clone())).map_err(refused)?;
    }
    let chain: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let chain = chain.map_err(pem("certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(pem("key"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(refused)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(refused)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Each connection proves anew who is at both ends.
    config.resumption = Resumption::disabled();
    Ok(config)
}
