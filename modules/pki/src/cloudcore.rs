//! The certificate by which CloudCores know each other. Whoever has the CA's key makes its own: there is no request that anybody
//! could send, and no token, mapper or node is given one.

use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authority::{Authority, Issued, issued, serial_number, window};
use crate::error::AuthorityError;

/// The organization of all CloudCores.
const CLOUDCORES: &str = "kubehive:cloudcores";
/// What stands before a CloudCore's identity in its certificate.
const CLOUDCORE_PREFIX: &str = "kubehive:cloudcore:";

impl Authority {
    /// Makes a key and a certificate for the CloudCore `identity`, good at both ends of a connection. As a server it is that name and
    /// no other: who dials it knows from the node's Lease whom he wants. Returns the certificate and the key's PEM.
    ///
    /// # Errors
    /// When the identity is no DNS name or `life` is out of range.
    pub fn cloudcore(
        &self,
        identity: &str,
        now: SystemTime,
        life: Duration,
        serial: [u8; 16],
    ) -> Result<(Issued, String), AuthorityError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::Sign)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, CLOUDCORES);
        params.distinguished_name.push(DnType::CommonName, format!("{CLOUDCORE_PREFIX}{identity}"));
        let dns = Ia5String::try_from(identity).map_err(|_| AuthorityError::BadName(identity.to_owned()))?;
        params.subject_alt_names = vec![SanType::DnsName(dns)];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.serial_number = Some(serial_number(serial));
        params.use_authority_key_identifier_extension = true;
        let not_after = window(&mut params, now, life)?;
        let cert = params.signed_by(&key, &self.issuer()?).map_err(AuthorityError::Sign)?;
        Ok((issued(&cert, not_after)?, key.serialize_pem()))
    }
}

/// The identity of the CloudCore whose certificate this is. Says nothing about who signed it.
///
/// # Errors
/// When `der` is no certificate, or not a CloudCore's.
pub fn cloudcore_of_certificate(der: &[u8]) -> Result<String, AuthorityError> {
    let (_, cert) = X509Certificate::from_der(der).map_err(|_| AuthorityError::BadCertificate)?;
    let mut names = cert.subject().iter_common_name();
    let name = names.next().and_then(|cn| cn.as_str().ok()).unwrap_or_default();
    let mut groups = cert.subject().iter_organization();
    let group = groups.next().and_then(|group| group.as_str().ok());
    // A second name could be read differently elsewhere.
    let is_one = names.next().is_none() && groups.next().is_none() && group == Some(CLOUDCORES);
    name.strip_prefix(CLOUDCORE_PREFIX)
        .filter(|identity| is_one && !identity.is_empty())
        .map(str::to_owned)
        .ok_or_else(|| AuthorityError::NotACloudCore(name.chars().take(64).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NodeRequest, SubjectAltNames, node_of_certificate};

    const DAY: Duration = Duration::from_secs(86_400);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn a_cloudcores_certificate_is_no_nodes_and_no_other_is_a_cloudcores() {
        let ca = Authority::create(now(), [1; 16]).unwrap();
        let (own, _) = ca.cloudcore("cloudcore-0011", now(), DAY, [2; 16]).unwrap();
        assert_eq!(cloudcore_of_certificate(&own.der).unwrap(), "cloudcore-0011");
        assert!(matches!(node_of_certificate(&own.der), Err(AuthorityError::NotANode(_))));
        // Whatever a node calls itself: what is signed for it is a node's.
        for name in ["edge-1", "kubehive:cloudcore:cloudcore-0011", "cloudcore-0011"] {
            let csr = NodeRequest::new(name).unwrap().csr_der;
            let node = ca.sign_node(&csr, name, now(), DAY, [3; 16]).unwrap();
            assert!(matches!(cloudcore_of_certificate(&node.der), Err(AuthorityError::NotACloudCore(_))));
        }
        let names = SubjectAltNames { addresses: vec![], names: vec!["cloudcore-0011".into()] };
        let (server, _) = ca.server(&names, now(), DAY, [4; 16]).unwrap();
        assert!(matches!(cloudcore_of_certificate(&server.der), Err(AuthorityError::NotACloudCore(_))));
        assert!(matches!(cloudcore_of_certificate(&[0x30; 100]), Err(AuthorityError::BadCertificate)));
        assert!(matches!(ca.cloudcore("ü", now(), DAY, [5; 16]), Err(AuthorityError::BadName(_))));
    }

    #[test]
    fn a_name_alone_makes_no_cloudcore() {
        let ca = Authority::create(now(), [1; 16]).unwrap();
        let of = |parts: &[(DnType, &str)]| {
            let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            for (kind, text) in parts {
                params.distinguished_name.push(kind.clone(), *text);
            }
            cloudcore_of_certificate(params.signed_by(&key, &ca.issuer().unwrap()).unwrap().der())
        };
        let name = (DnType::CommonName, "kubehive:cloudcore:a");
        assert_eq!(of(&[(DnType::OrganizationName, CLOUDCORES), name.clone()]).unwrap(), "a");
        for wrong in [
            vec![name.clone()],
            vec![(DnType::OrganizationName, "system:nodes"), name],
            vec![(DnType::OrganizationName, CLOUDCORES), (DnType::CommonName, "system:node:a")],
            vec![(DnType::OrganizationName, CLOUDCORES), (DnType::CommonName, "kubehive:cloudcore:")],
            vec![(DnType::OrganizationName, CLOUDCORES)],
        ] {
            assert!(matches!(of(&wrong), Err(AuthorityError::NotACloudCore(_))), "{wrong:?}");
        }
    }
}
