//! The CAs that are good at a time: the one that signs, and those that are trusted beside it.

use std::sync::{Arc, PoisonError, RwLock};

use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authority::Authority;
use crate::error::AuthorityError;

/// 8 CAs at the most: the one that signs, its successor and predecessor are 3.
pub const AUTHORITIES_MAX: usize = 8;
/// 64 KiB of PEM: more than eight CAs have.
const BUNDLE_MAX: usize = 64 << 10;

/// The CAs of a cluster.
pub struct Authorities {
    signing: Authority,
    /// Beside the one that signs, each as DER.
    others: Vec<Vec<u8>>,
    /// The successor as its predecessor has signed it, PEM.
    cross: Option<String>,
}

impl Authorities {
    /// One CA alone.
    pub fn of(signing: Authority) -> Self {
        Authorities { signing, others: Vec::new(), cross: None }
    }

    /// One that signs, and others that are trusted beside it. `cross`: the successor of one of them, signed by that one.
    ///
    /// # Errors
    /// When what is given is no CA, or more than [`AUTHORITIES_MAX`] are.
    pub fn with(signing: Authority, others: &[&str], cross: Option<&str>) -> Result<Self, AuthorityError> {
        let mut all = Vec::new();
        for other in others {
            all.extend(authorities_of_pem(other)?);
        }
        if all.len() >= AUTHORITIES_MAX {
            return Err(AuthorityError::BadCertificate);
        }
        if let Some(cross) = cross {
            authorities_of_pem(cross)?;
        }
        Ok(Authorities { signing, others: all, cross: cross.map(str::to_owned) })
    }

    /// The one that signs.
    pub fn signing(&self) -> &Authority {
        &self.signing
    }

    /// All that are trusted, as DER; the one that signs is the first.
    pub fn trusted(&self) -> Vec<Vec<u8>> {
        let mut all = vec![self.signing.cert_der().to_vec()];
        all.extend(self.others.iter().filter(|other| *other != self.signing.cert_der()).cloned());
        all
    }

    /// Whether one of these is among `others`, too: successor and predecessor are.
    pub fn is_kin_of(&self, others: &Authorities) -> bool {
        let trusted = others.trusted();
        self.trusted().iter().any(|der| trusted.contains(der))
    }

    /// All that are trusted, as PEM.
    pub fn bundle(&self) -> String {
        self.trusted().iter().map(|der| pem_of("CERTIFICATE", der)).collect()
    }

    /// What a server shows that has `certificate` (PEM): behind it everything by which somebody finds the CA that he trusts or pins.
    pub fn chain(&self, certificate: &str) -> String {
        // The way to the elder CA is the first that is tried.
        let cross = self.cross.as_deref().unwrap_or_default();
        format!("{certificate}{cross}{}", self.bundle())
    }
}

/// Which CAs are good now: whoever rotates them replaces them here, and everybody else reads. Its clones are one.
#[derive(Clone)]
pub struct CurrentAuthorities(Arc<RwLock<Arc<Authorities>>>);

impl CurrentAuthorities {
    /// Begins with these.
    pub fn new(authorities: Authorities) -> Self {
        CurrentAuthorities(Arc::new(RwLock::new(Arc::new(authorities))))
    }

    /// As they are now.
    pub fn get(&self) -> Arc<Authorities> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Others from now on. Answers whether they are others.
    pub fn replace(&self, authorities: Authorities) -> bool {
        let mut now = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_other = now.trusted() != authorities.trusted() || now.cross != authorities.cross;
        *now = Arc::new(authorities);
        is_other
    }
}

/// The CAs of a PEM bundle, in DER.
///
/// # Errors
/// When something in it is no CA's certificate, it holds none, or more than [`AUTHORITIES_MAX`].
pub fn authorities_of_pem(bundle: &str) -> Result<Vec<Vec<u8>>, AuthorityError> {
    if bundle.len() > BUNDLE_MAX {
        return Err(AuthorityError::BadCertificate);
    }
    let mut found = Vec::new();
    for pem in Pem::iter_from_buffer(bundle.as_bytes()) {
        let pem = pem.map_err(|_| AuthorityError::BadCertificate)?;
        if !is_authority(&pem.contents) || found.len() >= AUTHORITIES_MAX {
            return Err(AuthorityError::BadCertificate);
        }
        found.push(pem.contents);
    }
    if found.is_empty() { Err(AuthorityError::BadCertificate) } else { Ok(found) }
}

/// Whether `der` is the certificate of a CA, and nothing behind it.
pub fn is_authority(der: &[u8]) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(rest, certificate)| rest.is_empty() && certificate.is_ca())
}

/// DER as PEM (RFC 7468).
pub fn pem_of(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn ca(serial: u8) -> Authority {
        Authority::create(now(), [serial; 16]).unwrap()
    }

    #[test]
    fn what_a_server_shows_leads_to_each_ca_that_is_trusted() {
        let (elder, successor) = (ca(1), ca(2));
        let cross = elder.cross_sign(&successor, now(), [3; 16]).unwrap();
        let elder_pem = elder.cert_pem().to_owned();
        let both = Authorities::with(successor, &[&elder_pem], Some(&cross)).unwrap();
        assert_eq!(both.trusted(), [both.signing().cert_der().to_vec(), elder.cert_der().to_vec()]);
        assert_eq!(authorities_of_pem(&both.bundle()).unwrap(), both.trusted());
        let chain = both.chain("LEAF\n");
        assert!(chain.starts_with("LEAF\n") && chain.matches("BEGIN CERTIFICATE").count() == 3, "{chain}");
        let current = CurrentAuthorities::new(Authorities::of(elder));
        assert!(both.is_kin_of(&current.get()) && !Authorities::of(ca(9)).is_kin_of(&both));
        assert!(current.clone().replace(both));
        assert_eq!(current.get().trusted().len(), 2);
        let again =
            Authority::from_pem(current.get().signing().cert_pem(), current.get().signing().key_pem());
        let same = Authorities::with(again.unwrap(), &[&elder_pem], Some(&cross)).unwrap();
        assert!(!current.replace(same), "nothing has changed");
    }

    #[test]
    fn a_bundle_holds_cas_and_not_too_many() {
        let authority = ca(1);
        let request = crate::NodeRequest::new("a").unwrap();
        let day = Duration::from_secs(86_400);
        let node = authority.sign_node(&request.csr_der, "a", now(), day, [2; 16]).unwrap();
        assert!(authorities_of_pem(&node.pem).is_err() && authorities_of_pem("").is_err());
        assert!(authorities_of_pem(&authority.cert_pem().repeat(8)).is_ok());
        assert!(authorities_of_pem(&authority.cert_pem().repeat(9)).is_err());
        assert!(authorities_of_pem(&"x".repeat(BUNDLE_MAX + 1)).is_err());
        assert!(Authorities::with(ca(3), &[&node.pem], None).is_err());
        let mut longer = authority.cert_der().to_vec();
        longer.push(0);
        assert!(is_authority(authority.cert_der()) && !is_authority(&longer) && !is_authority(b"0"));
    }
}
