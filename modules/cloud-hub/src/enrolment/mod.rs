//! Enrolment: HTTPS on 10002, where a machine becomes a node and gives its name back.
//!
//! An actor of its own, so that a fault of it is no fault of the links. The port outlives its incarnations.

mod actor;
mod handler;
mod rate_limit;
mod release;

use std::time::Duration;

use https::{ClientCertificates, Tls, TlsError};
use noderegistry::Registry;
use pki::{CurrentAuthorities, TokenKey};

use crate::certificates::ClockDoubt;
use crate::linked_nodes::LinkedNodes;

pub use actor::{Enrolment, EnrolmentMsg};

/// What enrolment decides with.
pub struct EnrolmentSettings {
    /// The CAs.
    pub authorities: CurrentAuthorities,
    /// The key of the join tokens.
    pub token_key: TokenKey,
    /// Who is a node of ours.
    pub registry: Registry,
    /// How long a node's certificate lives.
    pub certificate_life: Duration,
    /// How old a token may become, whatever end stands in it.
    pub token_life: Duration,
    /// Whether this machine's clock is in doubt: nobody joins by it then.
    pub doubt: ClockDoubt,
    /// Who is linked here: a name is not given back while somebody has a link under it.
    pub linked: LinkedNodes,
}

impl EnrolmentSettings {
    /// TLS with CloudCore's certificate. A machine that joins has no certificate yet; one that is shown must be of a CA that is trusted
    /// now.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn tls(&self, chain_pem: &str, key_pem: &str) -> Result<Tls, TlsError> {
        let ours = self.authorities.get().trusted();
        Tls::new(chain_pem, key_pem, &ClientCertificates::Optional(ours))
    }
}
