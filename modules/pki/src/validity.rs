//! From when to when a certificate is valid, when it is renewed, and whose key it is of.

use std::time::{Duration, SystemTime};

use rcgen::KeyPair;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::error::AuthorityError;

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

/// Whether the certificate in `der` is of the key in `key_pem`.
///
/// # Errors
/// When either is none.
pub fn is_pair(der: &[u8], key_pem: &str) -> Result<bool, AuthorityError> {
    let key = KeyPair::from_pem(key_pem).map_err(AuthorityError::BadKey)?;
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| AuthorityError::BadCertificate)?;
    Ok(certificate.public_key().subject_public_key.data.as_ref() == key.public_key_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_between_70_and_90_percent_of_its_life() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let validity = Validity { not_before: start, not_after: start + Duration::from_secs(1000) };
        let after = |part| validity.renew_at(part).duration_since(start).unwrap().as_secs();
        assert_eq!((after(0.0), after(0.5), after(1.0), after(7.0)), (700, 800, 900, 900));
        assert!(validity.holds(start) && !validity.holds(validity.not_after));
    }
}
