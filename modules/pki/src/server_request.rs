//! A server's key, the request for its certificate at somebody else's CA, and what such a certificate must be.

use std::net::IpAddr;
use std::time::SystemTime;

use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use sha2::{Digest, Sha256};
use thiserror::Error;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authority::{SubjectAltNames, node_subject};
use crate::error::AuthorityError;
use crate::validity::Validity;

/// 64 KiB: the longest chain that is looked at.
const CHAIN_MAX: usize = 64 << 10;

/// In whose name a server asks for its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerSubject {
    /// `CN=NAME`.
    Plain(String),
    /// `O=system:nodes, CN=system:node:NAME`: what Kubernetes' signer `kubernetes.io/kubelet-serving` asks for.
    Node(String),
}

impl ServerSubject {
    fn distinguished_name(&self) -> DistinguishedName {
        match self {
            ServerSubject::Plain(name) => {
                let mut subject = DistinguishedName::new();
                subject.push(DnType::CommonName, name.as_str());
                subject
            }
            ServerSubject::Node(name) => node_subject(name),
        }
    }
}

/// A server's key. Its certificate may be asked for with it more than once.
pub struct ServerKey(KeyPair);

impl ServerKey {
    /// A new EC P-256 key.
    ///
    /// # Errors
    /// When the machine gives no randomness.
    pub fn new() -> Result<Self, AuthorityError> {
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map(ServerKey).map_err(AuthorityError::Sign)
    }

    /// A key as it was kept.
    ///
    /// # Errors
    /// When it is no key in PEM.
    pub fn from_pem(pem: &str) -> Result<Self, AuthorityError> {
        KeyPair::from_pem(pem).map(ServerKey).map_err(AuthorityError::BadKey)
    }

    /// The key as PEM.
    pub fn pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// What tells this key from others: a hash of its public half, in lower-case hex.
    pub fn id(&self) -> String {
        hex::encode(Sha256::digest(self.0.public_key_raw()))
    }

    /// A request (PKCS#10) as PEM.
    ///
    /// # Errors
    /// When a name is no DNS name.
    pub fn request(
        &self,
        subject: &ServerSubject,
        alt_names: &SubjectAltNames,
    ) -> Result<String, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject.distinguished_name();
        params.subject_alt_names = alt_names.addresses.iter().map(|ip| SanType::IpAddress(*ip)).collect();
        for name in &alt_names.names {
            let dns =
                Ia5String::try_from(name.as_str()).map_err(|_| AuthorityError::BadName(name.clone()))?;
            params.subject_alt_names.push(SanType::DnsName(dns));
        }
        let request = params.serialize_request(&self.0).map_err(AuthorityError::Sign)?;
        request.pem().map_err(AuthorityError::Sign)
    }
}

/// Why a server does not show a certificate.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum UnfitCertificate {
    /// It cannot be read.
    #[error("it is no certificate in PEM of at most 64 KiB")]
    Unreadable,
    /// It is for another key.
    #[error("it is for another key than the one that it was asked for with")]
    OtherKey,
    /// Clients would not take it for a server's.
    #[error("its extended key usage is not that of a server")]
    NotAServers,
    /// An address is missing.
    #[error("it does not name the address {0}")]
    NoAddress(IpAddr),
    /// A name is missing.
    #[error("it does not name {0}")]
    NoName(String),
    /// It has ended, or begins later.
    #[error("it is not valid now")]
    NotNow,
}

/// Whether the first certificate of `chain_pem` may be shown by a server that has `key` and is reached under `alt_names`. Who signed
/// it is not looked at: that is its clients' business.
///
/// # Errors
/// See [`UnfitCertificate`].
pub fn check_server_certificate(
    chain_pem: &str,
    key: &ServerKey,
    alt_names: &SubjectAltNames,
    now: SystemTime,
) -> Result<Validity, UnfitCertificate> {
    if chain_pem.len() > CHAIN_MAX {
        return Err(UnfitCertificate::Unreadable);
    }
    let first = Pem::iter_from_buffer(chain_pem.as_bytes()).next();
    let pem = first.and_then(Result::ok).filter(|pem| pem.label == "CERTIFICATE");
    let pem = pem.ok_or(UnfitCertificate::Unreadable)?;
    let (_, certificate) =
        X509Certificate::from_der(&pem.contents).map_err(|_| UnfitCertificate::Unreadable)?;
    if certificate.public_key().subject_public_key.data.as_ref() != key.0.public_key_raw() {
        return Err(UnfitCertificate::OtherKey);
    }
    let usage = certificate.extended_key_usage().map_err(|_| UnfitCertificate::Unreadable)?;
    if usage.is_some_and(|usage| !usage.value.server_auth && !usage.value.any) {
        return Err(UnfitCertificate::NotAServers);
    }
    let named = certificate.subject_alternative_name().map_err(|_| UnfitCertificate::Unreadable)?;
    let named = named.map(|named| named.value.general_names.as_slice()).unwrap_or_default();
    let has_address = |address: &IpAddr| {
        let octets = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        named.iter().any(|name| matches!(name, GeneralName::IPAddress(bytes) if *bytes == octets))
    };
    if let Some(missing) = alt_names.addresses.iter().find(|address| !has_address(address)) {
        return Err(UnfitCertificate::NoAddress(*missing));
    }
    let has_name = |wanted: &String| {
        named
            .iter()
            .any(|name| matches!(name, GeneralName::DNSName(name) if name.eq_ignore_ascii_case(wanted)))
    };
    if let Some(missing) = alt_names.names.iter().find(|name| !has_name(name)) {
        return Err(UnfitCertificate::NoName(missing.clone()));
    }
    let validity = Validity::of(&certificate);
    if !validity.holds(now) {
        return Err(UnfitCertificate::NotNow);
    }
    Ok(validity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Authority;
    use std::time::Duration;

    const DAY: Duration = Duration::from_secs(86_400);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn names(address: &str, name: &str) -> SubjectAltNames {
        SubjectAltNames { addresses: vec![address.parse().unwrap()], names: vec![name.to_owned()] }
    }

    /// A certificate of our own CA, and its key.
    fn server(names: &SubjectAltNames) -> (String, ServerKey) {
        let authority = Authority::create(now(), [1; 16]).unwrap();
        let (issued, key) = authority.server(names, now(), DAY, [2; 16]).unwrap();
        (issued.pem, ServerKey::from_pem(&key).unwrap())
    }

    #[test]
    fn a_certificate_is_shown_that_is_for_this_key_these_addresses_and_now() {
        let wanted = names("192.0.2.1", "cloud.example");
        let (chain, key) = server(&wanted);
        let validity = check_server_certificate(&chain, &key, &wanted, now()).unwrap();
        assert_eq!(validity.not_after, now() + DAY);
        let told = |names, at| check_server_certificate(&chain, &key, &names, at).unwrap_err();
        let other = names("192.0.2.2", "cloud.example");
        assert_eq!(told(other, now()), UnfitCertificate::NoAddress("192.0.2.2".parse().unwrap()));
        let other = names("192.0.2.1", "other.example");
        assert_eq!(told(other, now()), UnfitCertificate::NoName("other.example".to_owned()));
        assert_eq!(told(wanted.clone(), now() + DAY), UnfitCertificate::NotNow);
        let (_, foreign) = server(&wanted);
        let check = |chain: &str| check_server_certificate(chain, &foreign, &wanted, now()).unwrap_err();
        assert_eq!(check(&chain), UnfitCertificate::OtherKey);
        assert_eq!(check("nothing"), UnfitCertificate::Unreadable);
        assert_eq!(check(&"x".repeat(CHAIN_MAX + 1)), UnfitCertificate::Unreadable);
    }

    #[test]
    fn a_nodes_client_certificate_is_no_servers() {
        let authority = Authority::create(now(), [1; 16]).unwrap();
        let key = ServerKey::new().unwrap();
        let request = key.request(&ServerSubject::Node("n".to_owned()), &SubjectAltNames::default()).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(request.as_bytes()).unwrap();
        let issued = authority.sign_node(&pem.contents, "n", now(), DAY, [3; 16]).unwrap();
        let told = check_server_certificate(&issued.pem, &key, &SubjectAltNames::default(), now());
        assert_eq!(told, Err(UnfitCertificate::NotAServers));
    }

    #[test]
    fn a_request_says_who_asks_and_a_kept_key_asks_again_under_the_same_id() {
        use x509_parser::certification_request::X509CertificationRequest;
        let key = ServerKey::new().unwrap();
        let again = ServerKey::from_pem(&key.pem()).unwrap();
        assert_eq!(key.id(), again.id());
        assert_ne!(key.id(), ServerKey::new().unwrap().id());
        let subjects = [
            (ServerSubject::Node("a".to_owned()), "O=system:nodes, CN=system:node:a"),
            (ServerSubject::Plain("b".to_owned()), "CN=b"),
        ];
        for (subject, shown) in subjects {
            let pem = again.request(&subject, &names("192.0.2.1", "cloud.example")).unwrap();
            assert!(pem.starts_with("-----BEGIN CERTIFICATE REQUEST-----"), "{pem}");
            let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
            let (_, request) = X509CertificationRequest::from_der(&pem.contents).unwrap();
            assert_eq!(request.certification_request_info.subject.to_string(), shown);
        }
        let bad = again.request(&ServerSubject::Plain("b".to_owned()), &names("192.0.2.1", "ü"));
        assert!(matches!(bad, Err(AuthorityError::BadName(_))));
    }
}
