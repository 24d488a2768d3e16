//! What the API server shows: of its own CA, made at each start and again while it runs.

use std::net::IpAddr;
use std::time::Duration;

use beehive::Env;
use https::{ClientCertificates, Tls};
use pki::{Authority, SubjectAltNames};

use crate::error::StartError;

/// A year.
const LIFE: Duration = Duration::from_secs(365 * 86_400);
/// 60 days: most of its life is left then.
pub(crate) const RENEWED_AFTER: Duration = Duration::from_secs(60 * 86_400);

/// What its certificates are made of.
pub(crate) struct ServerCertificate {
    authority: Authority,
    alt_names: SubjectAltNames,
}

impl ServerCertificate {
    /// One for this machine alone, the cluster's own names, and `advertise`.
    pub(crate) fn new(authority: Authority, advertise: &[String]) -> Self {
        let own = [
            "127.0.0.1",
            "::1",
            "10.96.0.1",
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
        ];
        let mut alt_names = SubjectAltNames::default();
        for reached in own.into_iter().chain(advertise.iter().map(String::as_str)) {
            match reached.parse::<IpAddr>() {
                Ok(address) => alt_names.addresses.push(address),
                Err(_) => alt_names.names.push(reached.to_owned()),
            }
        }
        ServerCertificate { authority, alt_names }
    }

    /// A new one.
    ///
    /// # Errors
    /// When a name is no DNS name.
    pub(crate) fn issue(&self, env: &Env) -> Result<Tls, StartError> {
        let certificate = |error: &dyn std::fmt::Display| StartError::Certificate(error.to_string());
        let issued = self.authority.server(&self.alt_names, env.wall(), LIFE, env.random_id());
        let (issued, key) = issued.map_err(|error| certificate(&error))?;
        let chain = format!("{}{}", issued.pem, self.authority.cert_pem());
        Tls::also_tls12(&chain, &key, &ClientCertificates::NotAsked).map_err(|error| certificate(&error))
    }
}
