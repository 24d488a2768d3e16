//! From when to when a certificate is valid, when it is renewed, and whose key it is of.

use std::time::{Duration, SystemTime};

use rcgen::KeyPair;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::error::AuthorityError;

/// Clocks of nodes are off by this much without being noticed: certificates begin earlier by it, and those that live less than four
/// hours by a quarter of their lives, so that 70 percent of them are still to come.
pub(crate) const BACKDATE: Duration = Duration::from_secs(3600);
/// A certificate is renewed between these parts of its life, as a kubelet's is (client-go's certificate manager) and KubeEdge's.
const RENEWED: (f64, f64) = (0.7, 0.9);

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Its first moment.
    pub not_before: SystemTime,
    /// Its last one.
    pub not_after: SystemTime,
}

impl Validity {
    /// Of a certificate that was read.
    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Self {
        let at = |time: x509_parser::time::ASN1Time| {
            let seconds = u64::try_from(time.timestamp()).unwrap_or_default();
            SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
        };
        let validity = certificate.validity();
        Validity { not_before: at(validity.not_before), not_after: at(validity.not_after) }
    }

    /// How long it is valid.
    pub fn life(self) -> Duration {
        self.not_after.duration_since(self.not_before).unwrap_or_default()
    }

    /// When a certificate of ours was signed that is valid so, to a second: it begins an hour earlier, and one that lives for less than
    /// four hours by a quarter of what it lives from then on.
    pub fn signed_at(self) -> SystemTime {
        self.not_before + BACKDATE.min(self.life() / 5)
    }

    /// Whether it is valid at `now`.
    pub fn holds(self, now: SystemTime) -> bool {
        self.not_before <= now && now < self.not_after
    }

    /// When a certificate is asked for anew; `part`, from 0 to 1, is drawn, so that many that began together do not end together.
    pub fn renew_at(self, part: f64) -> SystemTime {
        let (least, most) = RENEWED;
        self.not_before + self.life().mul_f64(least + (most - least) * part.clamp(0.0, 1.0))
    }
}

/// From when to when the certificate in `der` is valid.
///
/// # Errors
/// When it is no certificate.
pub fn validity_of(der: &[u8]) -> Result<Validity, AuthorityError> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| AuthorityError::BadCertificate)?;
    Ok(Validity::of(&certificate))
}

/// Whether the certificate in `der` is of the key in `key_pem`. Where a token has that there is a `PUBLIC KEY` in its place.
///
/// # Errors
/// When either is none.
pub fn is_pair(der: &[u8], key_pem: &str) -> Result<bool, AuthorityError> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| AuthorityError::BadCertificate)?;
    let certified = certificate.public_key();
    if let Some(public) = public_key_of(key_pem) {
        return Ok(certified.raw == public);
    }
    let key = KeyPair::from_pem(key_pem).map_err(AuthorityError::BadKey)?;
    Ok(certified.subject_public_key.data.as_ref() == key.public_key_raw())
}

/// The public key of PEM that holds one.
fn public_key_of(pem: &str) -> Option<Vec<u8>> {
    let mut parts = Pem::iter_from_buffer(pem.as_bytes()).map_while(Result::ok);
    parts.find(|part| part.label == "PUBLIC KEY").map(|part| part.contents)
}

/// Whether the certificate in `der` was signed with the key of the CA in `authority`, also DER. Says nothing about times.
pub fn is_signed_by(der: &[u8], authority: &[u8]) -> bool {
    let read = |der| X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate);
    let (Some(certificate), Some(authority)) = (read(der), read(authority)) else { return false };
    certificate.verify_signature(Some(authority.public_key())).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Authority, NodeRequest};

    #[test]
    fn who_has_signed_a_certificate_is_found_out_by_the_key_and_not_by_the_name() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let (one, other) =
            (Authority::create(now, [1; 16]).unwrap(), Authority::create(now, [2; 16]).unwrap());
        let csr = NodeRequest::new("a").unwrap().csr_der;
        let issued = one.sign_node(&csr, "a", now, Duration::from_secs(60), [3; 16]).unwrap();
        assert!(is_signed_by(&issued.der, one.cert_der()) && !is_signed_by(&issued.der, other.cert_der()));
        assert!(!is_signed_by(b"0", one.cert_der()) && !is_signed_by(&issued.der, b"0"));
    }

    #[test]
    fn a_public_key_stands_for_one_that_a_token_has() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let authority = Authority::create(now, [1; 16]).unwrap();
        let of = |key: &KeyPair| {
            let named = "-----BEGIN SOMETHING-----\nAAAA\n-----END SOMETHING-----\n".to_owned();
            NodeRequest::signed_by("a", key, named + &key.public_key_pem()).unwrap()
        };
        let (own, other) = (of(&KeyPair::generate().unwrap()), of(&KeyPair::generate().unwrap()));
        let issued = authority.sign_node(&own.csr_der, "a", now, Duration::from_secs(60), [2; 16]).unwrap();
        assert!(is_pair(&issued.der, &own.key_pem).unwrap());
        assert!(!is_pair(&issued.der, &other.key_pem).unwrap());
        assert!(is_pair(&issued.der, "nothing").is_err());
    }

    #[test]
    fn when_a_certificate_was_signed_is_seen_of_its_validity() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let authority = Authority::create(now, [1; 16]).unwrap();
        let csr = NodeRequest::new("a").unwrap().csr_der;
        for life in [1, 60, 4 * 3600 - 4, 4 * 3600, 30 * 86_400] {
            let issued = authority.sign_node(&csr, "a", now, Duration::from_secs(life), [3; 16]).unwrap();
            let signed = validity_of(&issued.der).unwrap().signed_at();
            let off = signed.duration_since(now).unwrap_or_else(|error| error.duration());
            assert!(off <= Duration::from_secs(1), "{life}: {off:?}");
        }
    }

    #[test]
    fn a_certificate_is_renewed_between_70_and_90_percent_of_its_life() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let validity = Validity { not_before: start, not_after: start + Duration::from_secs(1000) };
        let after = |part| validity.renew_at(part).duration_since(start).unwrap().as_secs();
        assert_eq!((after(0.0), after(0.5), after(1.0), after(7.0)), (700, 800, 900, 900));
        assert!(validity.holds(start) && !validity.holds(validity.not_after));
    }
}
