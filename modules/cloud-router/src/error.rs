//! Why the door does not open.

use thiserror::Error;

/// Why HTTP clients cannot call.
#[derive(Debug, Error)]
pub enum DoorError {
    /// The tokens cannot be read.
    #[error("modules.router.tokenFile `{path}`: {reason}")]
    Tokens {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// The certificate or its key cannot be read.
    #[error("modules.router: `{path}` cannot be read")]
    Certificate {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The certificate and the key are not usable.
    #[error("modules.router: the certificate")]
    Tls(#[from] https::TlsError),
    /// The CA does not sign the certificate that other CloudCores are shown.
    #[error("modules.router.peers: the certificate")]
    Authority(#[source] pki::AuthorityError),
    /// The port for other CloudCores cannot be had.
    #[error(
        "modules.router.peers: cannot listen at {address}: another program has it, or this host has not that address; set bindAddress and port, or port: 0 where there is one CloudCore"
    )]
    ListenPeers {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The port cannot be had.
    #[error(
        "modules.router: cannot listen at {address}: another program has it, or this host has not that address"
    )]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}
