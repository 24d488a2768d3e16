//! The certificate authority.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber, SigningKey,
};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::error::AuthorityError;
use crate::validity::{BACKDATE, validity_of};

/// 16 KiB: the largest certificate signing request that is looked at. An EC one has about 500 bytes.
pub const CSR_MAX: usize = 16 << 10;
/// 10 years, where nobody says otherwise.
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);
/// One CA below it: its successor, which it signs for those who know no other yet.
const PATH_LENGTH: u8 = 1;
/// What stands before a node's name in its certificate (Kubernetes' node authorizer).
pub const NODE_PREFIX: &str = "system:node:";

/// The CA: its certificate and its key.
pub struct Authority {
    cert_pem: String,
    cert_der: Vec<u8>,
    key_pem: String,
}

/// A certificate that was signed.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate.
    pub pem: String,
    /// The same as DER.
    pub der: Vec<u8>,
    /// Its serial number in lower-case hex.
    pub serial: String,
    /// When it ends.
    pub not_after: SystemTime,
}

/// Under which addresses and names a server is reached.
#[derive(Debug, Clone, Default)]
pub struct SubjectAltNames {
    /// IP addresses.
    pub addresses: Vec<IpAddr>,
    /// DNS names.
    pub names: Vec<String>,
}

/// A key that was made on the node, and the request for its certificate.
pub struct NodeRequest {
    /// The key as PEM, or what names it where a token has it. Never leaves the node.
    pub key_pem: String,
    /// The request as DER.
    pub csr_der: Vec<u8>,
}

impl NodeRequest {
    /// Makes an EC P-256 key and a request for `node`.
    ///
    /// # Errors
    /// When the machine gives no randomness.
    pub fn new(node: &str) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::Sign)?;
        Self::signed_by(node, &key, key.serialize_pem())
    }

    /// A request for `node` that `key` signs, which may be anywhere; `key_pem` is what stands for it, with the public key in it.
    ///
    /// # Errors
    /// When the key does not sign.
    pub fn signed_by(node: &str, key: &impl SigningKey, key_pem: String) -> Result<Self, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = node_subject(node);
        let csr = params.serialize_request(key).map_err(AuthorityError::Sign)?;
        Ok(NodeRequest { key_pem, csr_der: csr.der().to_vec() })
    }
}

pub(crate) fn node_subject(node: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "system:nodes");
    subject.push(DnType::CommonName, format!("{NODE_PREFIX}{node}"));
    subject
}

/// From when to when a certificate is good that is signed at `now`. It is not earlier than this program: a machine whose clock
/// stands at 1970 would else sign what has ended long ago for everybody else.
pub(crate) fn window(
    params: &mut CertificateParams,
    now: SystemTime,
    life: Duration,
) -> Result<SystemTime, AuthorityError> {
    let now = now.max(SystemTime::UNIX_EPOCH + Duration::from_secs(crate::MADE_AT_UNIX));
    let not_after = now.checked_add(life).ok_or(AuthorityError::BadTime)?;
    let not_before = now.checked_sub(BACKDATE.min(life / 4)).ok_or(AuthorityError::BadTime)?;
    let offset = |at: SystemTime| {
        let seconds =
            at.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| AuthorityError::BadTime)?.as_secs();
        let seconds = i64::try_from(seconds).map_err(|_| AuthorityError::BadTime)?;
        time::OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| AuthorityError::BadTime)
    };
    params.not_before = offset(not_before)?;
    params.not_after = offset(not_after)?;
    Ok(not_after)
}

pub(crate) fn serial_number(random: [u8; 16]) -> SerialNumber {
    let mut bytes = random.to_vec();
    // Positive and not empty, as RFC 5280 4.1.2.2 wants it.
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    SerialNumber::from(bytes)
}

impl Authority {
    /// Makes a new CA.
    ///
    /// # Errors
    /// When the machine gives no randomness or `now` is out of range.
    pub fn create(now: SystemTime, serial: [u8; 16]) -> Result<Self, AuthorityError> {
        Self::create_for(now, CA_LIFE, serial)
    }

    /// The same, which ends after `life`.
    ///
    /// # Errors
    /// See [`Authority::create`].
    pub fn create_for(now: SystemTime, life: Duration, serial: [u8; 16]) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::Sign)?;
        let params = Self::params(now, life, serial)?;
        let cert = params.self_signed(&key).map_err(AuthorityError::Sign)?;
        Ok(Authority { cert_pem: cert.pem(), cert_der: cert.der().to_vec(), key_pem: key.serialize_pem() })
    }

    fn params(
        now: SystemTime,
        life: Duration,
        serial: [u8; 16],
    ) -> Result<CertificateParams, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "KubeHive");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(PATH_LENGTH));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        params.serial_number = Some(serial_number(serial));
        window(&mut params, now, life)?;
        Ok(params)
    }

    /// Signs `successor`, so that whoever knows only this CA trusts what that one signs. It has the successor's name and key, and ends
    /// with this CA at the latest.
    ///
    /// # Errors
    /// When this CA has ended, or cannot sign.
    pub fn cross_sign(
        &self,
        successor: &Authority,
        now: SystemTime,
        serial: [u8; 16],
    ) -> Result<String, AuthorityError> {
        let ends = validity_of(&self.cert_der)?.not_after.min(validity_of(&successor.cert_der)?.not_after);
        let life = ends.duration_since(now).map_err(|_| AuthorityError::BadTime)?;
        let key = KeyPair::from_pem(&successor.key_pem).map_err(AuthorityError::BadAuthority)?;
        let mut params = Self::params(now, life, serial)?;
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(&key, &self.issuer()?).map_err(AuthorityError::Sign)?.pem())
    }

    /// A CA as it was stored.
    ///
    /// # Errors
    /// When the two do not belong together or are no PEM.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pem(key_pem).map_err(AuthorityError::BadAuthority)?;
        let (_, pem) = x509_parser::pem::parse_x509_pem(cert_pem.as_bytes())
            .map_err(|_| AuthorityError::BadCertificate)?;
        let (_, cert) =
            X509Certificate::from_der(&pem.contents).map_err(|_| AuthorityError::BadCertificate)?;
        if cert.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(AuthorityError::NotAPair);
        }
        let authority = Authority {
            cert_pem: cert_pem.to_owned(),
            cert_der: pem.contents.clone(),
            key_pem: key_pem.to_owned(),
        };
        authority.issuer()?;
        Ok(authority)
    }

    pub(crate) fn issuer(&self) -> Result<Issuer<'static, KeyPair>, AuthorityError> {
        let key = KeyPair::from_pem(&self.key_pem).map_err(AuthorityError::BadAuthority)?;
        Issuer::from_ca_cert_pem(&self.cert_pem, key).map_err(AuthorityError::BadAuthority)
    }

    /// The CA's certificate as PEM.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The CA's certificate as DER.
    pub fn cert_der(&self) -> &[u8] {
        &self.cert_der
    }

    /// The CA's key as PEM.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Makes a key and a certificate for a server that is reached under `alt_names`. Returns the certificate and the key's PEM.
    ///
    /// # Errors
    /// When a name is no DNS name or `life` is out of range.
    pub fn server(
        &self,
        alt_names: &SubjectAltNames,
        now: SystemTime,
        life: Duration,
        serial: [u8; 16],
    ) -> Result<(Issued, String), AuthorityError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::Sign)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "KubeHive CloudCore");
        params.subject_alt_names = alt_names.addresses.iter().map(|ip| SanType::IpAddress(*ip)).collect();
        for name in &alt_names.names {
            let dns =
                Ia5String::try_from(name.as_str()).map_err(|_| AuthorityError::BadName(name.clone()))?;
            params.subject_alt_names.push(SanType::DnsName(dns));
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.serial_number = Some(serial_number(serial));
        params.use_authority_key_identifier_extension = true;
        let not_after = window(&mut params, now, life)?;
        let cert = params.signed_by(&key, &self.issuer()?).map_err(AuthorityError::Sign)?;
        Ok((issued(&cert, not_after)?, key.serialize_pem()))
    }

    /// Signs the key in `csr_der` for `node`. Whatever else the request asks for is not granted.
    ///
    /// # Errors
    /// When the request is none, is too large, or is not signed by its own key.
    pub fn sign_node(
        &self,
        csr_der: &[u8],
        node: &str,
        now: SystemTime,
        life: Duration,
        serial: [u8; 16],
    ) -> Result<Issued, AuthorityError> {
        if csr_der.len() > CSR_MAX {
            return Err(AuthorityError::BadRequest);
        }
        // Only the public key is taken over; reading the request checks its signature.
        let request = CertificateSigningRequestParams::from_der(&csr_der.into())
            .map_err(|_| AuthorityError::BadRequest)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = node_subject(node);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.serial_number = Some(serial_number(serial));
        params.use_authority_key_identifier_extension = true;
        let not_after = window(&mut params, now, life)?;
        let cert = params.signed_by(&request.public_key, &self.issuer()?).map_err(AuthorityError::Sign)?;
        issued(&cert, not_after)
    }
}

pub(crate) fn issued(cert: &rcgen::Certificate, not_after: SystemTime) -> Result<Issued, AuthorityError> {
    Ok(Issued { pem: cert.pem(), der: cert.der().to_vec(), serial: serial_of(cert.der())?, not_after })
}

/// The serial number of a certificate, in lower-case hex.
///
/// # Errors
/// When `der` is no certificate.
pub fn serial_of(der: &[u8]) -> Result<String, AuthorityError> {
    let (_, cert) = X509Certificate::from_der(der).map_err(|_| AuthorityError::BadCertificate)?;
    Ok(hex::encode(cert.raw_serial()))
}

/// The node whose certificate this is. Says nothing about who signed it.
///
/// # Errors
/// When `der` is no certificate, or not a node's.
pub fn node_of_certificate(der: &[u8]) -> Result<String, AuthorityError> {
    let (_, cert) = X509Certificate::from_der(der).map_err(|_| AuthorityError::BadCertificate)?;
    let mut names = cert.subject().iter_common_name();
    let name = names.next().and_then(|cn| cn.as_str().ok()).unwrap_or_default();
    // A second common name could be read differently elsewhere.
    if names.next().is_some() {
        return Err(AuthorityError::NotANode(name.chars().take(64).collect()));
    }
    name.strip_prefix(NODE_PREFIX)
        .filter(|node| !node.is_empty())
        .map(str::to_owned)
        .ok_or_else(|| AuthorityError::NotANode(name.chars().take(64).collect()))
}

/// For which node a request asks by its own words; `None`: it names nobody. Says nothing about whether it is signed by its key.
///
/// # Errors
/// When `csr_der` is no request, or names somebody who is no node.
pub fn node_of_request(csr_der: &[u8]) -> Result<Option<String>, AuthorityError> {
    if csr_der.len() > CSR_MAX {
        return Err(AuthorityError::BadRequest);
    }
    let (_, request) = X509CertificationRequest::from_der(csr_der).map_err(|_| AuthorityError::BadRequest)?;
    let mut names = request.certification_request_info.subject.iter_common_name();
    let name = names.next().map(|name| name.as_str().map_err(|_| AuthorityError::BadRequest)).transpose()?;
    let not_a_node = |name: &str| AuthorityError::NotANode(name.chars().take(64).collect());
    match name {
        None => Ok(None),
        Some(name) if names.next().is_some() => Err(not_a_node(name)),
        Some(name) => {
            let node = name.strip_prefix(NODE_PREFIX).filter(|node| !node.is_empty());
            node.map(|node| Some(node.to_owned())).ok_or_else(|| not_a_node(name))
        }
    }
}

/// Whose client certificate this is, as Kubernetes reads it: the common name, and the organizations as groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateUser {
    /// The user's name; never empty.
    pub name: String,
    /// The user's groups.
    pub groups: Vec<String>,
}

/// The user of a client certificate. Says nothing about who signed it.
///
/// # Errors
/// When `der` is no certificate, or names no user or more than one.
pub fn user_of_certificate(der: &[u8]) -> Result<CertificateUser, AuthorityError> {
    let (_, cert) = X509Certificate::from_der(der).map_err(|_| AuthorityError::BadCertificate)?;
    let mut names = cert.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let name = names.next().unwrap_or_default();
    // A second common name could be read differently elsewhere.
    if name.is_empty() || names.next().is_some() {
        return Err(AuthorityError::NotAUser);
    }
    let groups = cert.subject().iter_organization().filter_map(|group| group.as_str().ok());
    Ok(CertificateUser { name: name.to_owned(), groups: groups.map(str::to_owned).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_in_1970_signs_nothing_that_has_ended() {
        let authority = Authority::create(SystemTime::UNIX_EPOCH, [1; 16]).unwrap();
        let (_, cert) = X509Certificate::from_der(authority.cert_der()).unwrap();
        let made = i64::try_from(crate::MADE_AT_UNIX).unwrap();
        assert!(cert.validity().not_before.timestamp() > made - 86_400 * 2);
        assert!(cert.validity().not_after.timestamp() > made + 86_400 * 365);
        let request = NodeRequest::new("a").unwrap();
        let day = Duration::from_secs(86_400);
        let issued =
            authority.sign_node(&request.csr_der, "a", SystemTime::UNIX_EPOCH, day, [2; 16]).unwrap();
        assert!(issued.not_after >= SystemTime::UNIX_EPOCH + Duration::from_secs(crate::MADE_AT_UNIX) + day);
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn a_stored_authority_signs_like_the_first() {
        let first = Authority::create(now(), [1; 16]).unwrap();
        let again = Authority::from_pem(first.cert_pem(), first.key_pem()).unwrap();
        assert_eq!(again.cert_der(), first.cert_der());
        let request = NodeRequest::new("edge-1").unwrap();
        let cert = again.sign_node(&request.csr_der, "edge-1", now(), DAY, [2; 16]).unwrap();
        let (_, parsed) = X509Certificate::from_der(&cert.der).unwrap();
        let (_, ca) = X509Certificate::from_der(first.cert_der()).unwrap();
        assert!(parsed.verify_signature(Some(ca.public_key())).is_ok());
        assert_eq!(node_of_certificate(&cert.der).unwrap(), "edge-1");
        let user = user_of_certificate(&cert.der).unwrap();
        assert_eq!(
            (user.name.as_str(), user.groups),
            ("system:node:edge-1", vec!["system:nodes".to_owned()])
        );
        assert_eq!(cert.serial, serial_of(&cert.der).unwrap());
    }

    #[test]
    fn the_name_comes_from_us_and_not_from_the_request() {
        let ca = Authority::create(now(), [1; 16]).unwrap();
        let request = NodeRequest::new("somebody-else").unwrap();
        let cert = ca.sign_node(&request.csr_der, "edge-1", now(), DAY, [3; 16]).unwrap();
        assert_eq!(node_of_certificate(&cert.der).unwrap(), "edge-1");
    }

    #[test]
    fn bad_requests_are_refused() {
        let ca = Authority::create(now(), [1; 16]).unwrap();
        let mut broken = NodeRequest::new("edge-1").unwrap().csr_der;
        let last = broken.len() - 1;
        broken[last] ^= 1;
        for csr in [Vec::new(), vec![0x30; 100], vec![0; CSR_MAX + 1], broken] {
            assert!(matches!(
                ca.sign_node(&csr, "edge-1", now(), DAY, [3; 16]),
                Err(AuthorityError::BadRequest)
            ));
        }
    }

    #[test]
    fn a_request_says_for_which_node_it_is_and_one_for_somebody_else_is_told() {
        let csr = NodeRequest::new("edge-1").unwrap().csr_der;
        assert_eq!(node_of_request(&csr).unwrap().as_deref(), Some("edge-1"));
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let of = |names: &[&str]| {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            for name in names {
                params.distinguished_name.push(DnType::CommonName, *name);
            }
            node_of_request(params.serialize_request(&key).unwrap().der())
        };
        assert!(matches!(of(&[]), Ok(None)));
        assert!(matches!(of(&["admin"]), Err(AuthorityError::NotANode(_))));
        assert!(matches!(of(&["system:node:"]), Err(AuthorityError::NotANode(_))));
        assert!(matches!(node_of_request(&[0x30; 100]), Err(AuthorityError::BadRequest)));
        assert!(matches!(node_of_request(&vec![0; CSR_MAX + 1]), Err(AuthorityError::BadRequest)));
    }

    #[test]
    fn a_successor_is_signed_by_its_predecessor_and_ends_with_it() {
        let elder = Authority::create_for(now(), 10 * DAY, [1; 16]).unwrap();
        let successor = Authority::create_for(now() + 5 * DAY, 10 * DAY, [2; 16]).unwrap();
        let cross = elder.cross_sign(&successor, now() + 5 * DAY, [3; 16]).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(cross.as_bytes()).unwrap();
        let (_, cross) = X509Certificate::from_der(&pem.contents).unwrap();
        let (_, own) = X509Certificate::from_der(successor.cert_der()).unwrap();
        let (_, signer) = X509Certificate::from_der(elder.cert_der()).unwrap();
        assert_eq!(cross.public_key().raw, own.public_key().raw);
        assert_eq!((cross.subject(), cross.issuer()), (own.subject(), signer.subject()));
        cross.verify_signature(Some(signer.public_key())).unwrap();
        assert_eq!(
            validity_of(&pem.contents).unwrap().not_after,
            validity_of(elder.cert_der()).unwrap().not_after
        );
        assert!(elder.cross_sign(&successor, now() + 11 * DAY, [3; 16]).is_err(), "it has ended");
    }

    #[test]
    fn a_short_life_begins_little_before_it_is_signed() {
        let ca = Authority::create(now(), [1; 16]).unwrap();
        let csr = NodeRequest::new("a").unwrap().csr_der;
        let minute = Duration::from_secs(60);
        let issued = ca.sign_node(&csr, "a", now(), minute, [2; 16]).unwrap();
        let validity = validity_of(&issued.der).unwrap();
        assert_eq!((validity.not_before, validity.not_after), (now() - minute / 4, now() + minute));
        assert!(validity.renew_at(0.0) > now() && validity.renew_at(1.0) < now() + minute);
    }

    #[test]
    fn a_foreign_key_is_noticed() {
        let one = Authority::create(now(), [1; 16]).unwrap();
        let two = Authority::create(now(), [2; 16]).unwrap();
        assert!(matches!(Authority::from_pem(one.cert_pem(), two.key_pem()), Err(AuthorityError::NotAPair)));
    }

    #[test]
    fn a_servers_certificate_is_no_nodes() {
        let ca = Authority::create(now(), [1; 16]).unwrap();
        let alt_names = SubjectAltNames {
            addresses: vec!["10.0.0.1".parse().unwrap()],
            names: vec!["cloud.example".into()],
        };
        let (cert, _key) = ca.server(&alt_names, now(), DAY, [4; 16]).unwrap();
        assert!(matches!(node_of_certificate(&cert.der), Err(AuthorityError::NotANode(_))));
        let unusable = SubjectAltNames { addresses: vec![], names: vec!["ü".into()] };
        assert!(matches!(ca.server(&unusable, now(), DAY, [4; 16]), Err(AuthorityError::BadName(_))));
    }
}
