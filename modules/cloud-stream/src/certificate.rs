//! The certificate of our CA that is shown at the ports, for all addresses of this CloudCore: made anew before it ends. One of another
//! CA takes its place where the settings ask for it ([`crate::signed_certificate`]).

use std::net::IpAddr;
use std::time::Duration;

use beehive::{Env, Moment};
use https::{ClientCertificates, Tls};
use pki::{CurrentAuthorities, SubjectAltNames};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::error::CertificateError;

/// 90 days. It is made at each start, and again long before it ends.
const LIFE: Duration = Duration::from_secs(90 * 86_400);
/// 60 days: a third of its life is left then.
const RENEWED_AFTER: Duration = Duration::from_secs(60 * 86_400);

/// What a certificate is made of.
pub struct ServingCertificate {
    authorities: CurrentAuthorities,
    alt_names: SubjectAltNames,
}

/// A certificate and its key.
#[derive(Clone)]
pub(crate) struct Issued {
    chain: String,
    key: String,
    /// The CAs that were trusted when it was made, and when that was; `None`: somebody else has signed it.
    made: Option<(Vec<Vec<u8>>, Moment)>,
}

impl ServingCertificate {
    /// One for `addresses` and `names`, signed by whichever CA signs when it is made.
    pub fn new(authorities: CurrentAuthorities, addresses: Vec<IpAddr>, names: Vec<String>) -> Self {
        ServingCertificate { authorities, alt_names: SubjectAltNames { addresses, names } }
    }

    /// What a certificate has to name.
    pub(crate) fn alt_names(&self) -> &SubjectAltNames {
        &self.alt_names
    }

    pub(crate) fn issue(&self, env: &Env) -> Result<Issued, CertificateError> {
        let authorities = self.authorities.get();
        let signing = authorities.signing();
        let (issued, key) = signing.server(&self.alt_names, env.wall(), LIFE, env.random_id())?;
        let made = Some((authorities.trusted(), env.now()));
        Ok(Issued { chain: authorities.chain(&issued.pem), key, made })
    }

    /// Whether `shown` is to be made anew: it is old, or others are trusted than when it was made.
    pub(crate) fn is_due(&self, shown: &Issued, now: Moment) -> bool {
        shown.made.as_ref().is_some_and(|(trusted, at)| {
            now.since(*at) >= RENEWED_AFTER || *trusted != self.authorities.get().trusted()
        })
    }
}

impl Issued {
    /// A chain that somebody else has signed, and its key.
    pub(crate) fn of(chain: String, key: String) -> Self {
        Issued { chain, key, made: None }
    }

    /// TLS with it, for clients whose certificate may be of this CA: the PEM of the API server's.
    pub(crate) fn tls(&self, client_ca: Option<&str>) -> Result<Tls, CertificateError> {
        let authorities = authorities(client_ca.unwrap_or_default())?;
        Ok(Tls::with_http2(&self.chain, &self.key, &ClientCertificates::Checked(authorities))?)
    }
}

/// The certificates of a PEM bundle, in DER.
fn authorities(pem: &str) -> Result<Vec<Vec<u8>>, CertificateError> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let parsed = parsed.map_err(|error| CertificateError::ClientCa(error.to_string()))?;
    Ok(parsed.into_iter().map(|certificate| certificate.to_vec()).collect())
}
