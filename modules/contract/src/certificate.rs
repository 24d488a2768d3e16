//! Certificates over the link: what a node is given, and by what it knows the cloud.

use std::time::Duration;

/// 16 KiB: the largest certificate signing request. An EC one has about 500 bytes.
pub const CSR_BYTES_MAX: usize = 16 << 10;
/// 16 KiB: the largest certificate that crosses the link.
pub const CERTIFICATE_BYTES_MAX: usize = 16 << 10;
/// 8 CAs: the one that signs, its successor and its predecessor are three.
pub const AUTHORITIES_MAX: usize = 8;
/// 16 servers beside those of `edgecore.yaml`.
pub const SERVERS_MAX: usize = 16;
/// 253 characters: the longest name of a host.
pub const SERVER_BYTES_MAX: usize = 253;

/// By what a node knows the cloud, and where it finds it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CloudTrust {
    /// The CAs of the cloud's certificates, DER: all that are trusted at a time.
    pub authorities: Vec<Vec<u8>>,
    /// IP addresses and DNS names of the cloud, without ports: those that its certificates name.
    pub servers: Vec<String>,
}

impl CloudTrust {
    /// Whether it is within the bounds of what crosses the link.
    pub fn fits(&self) -> bool {
        self.authorities.len() <= AUTHORITIES_MAX
            && self.authorities.iter().all(|der| der.len() <= CERTIFICATE_BYTES_MAX)
            && self.servers.len() <= SERVERS_MAX
            && self.servers.iter().all(|server| server.len() <= SERVER_BYTES_MAX)
    }
}

/// A certificate that was signed for a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewedCertificate {
    /// DER.
    pub certificate: Vec<u8>,
    /// By what the cloud is known that has signed it.
    pub trust: CloudTrust,
}

/// Why a node got no certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewalRefused {
    /// In a sentence for a person, with the cure where there is one.
    pub reason: String,
    /// When it is worth to ask again; `None`: at the node's own pace.
    pub wait: Option<Duration>,
}
