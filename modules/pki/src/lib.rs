//! The cluster's certificate authority and its join tokens. Pure: time and serial numbers come as arguments, nothing is
//! stored here but which CAs are good now ([`CurrentAuthorities`]).
//!
//! * The authority signs one server certificate for CloudCore and a client certificate per node. A request's own subject
//!   and usages are not looked at: the node's name comes from the token or from its present certificate.
//! * Among themselves CloudCores show certificates that say so ([`Authority::cloudcore`]), and nobody is given one by a request.
//! * While a CA gives way to its successor both are trusted, one of them signs, and the elder has signed the successor, so that
//!   whoever knows only the elder trusts what the successor signs ([`Authorities`]).
//! * Where another CA signs for a server, the server makes its key and its request here, and looks at what it is given.
//! * A join token is `<sha256 of the CA's DER in hex>.<JWT>` (four parts between dots, as KubeEdge writes it). The first
//!   part pins the CA on the node before anything is trusted; the JWT is HS256 under a key of its own.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod authorities;
mod authority;
mod cloudcore;
mod error;
mod server_request;
mod token;
mod validity;

pub use authorities::{
    AUTHORITIES_MAX, Authorities, CurrentAuthorities, authorities_of_pem, is_authority, pem_of,
};
pub use authority::{
    Authority, CSR_MAX, CertificateUser, Issued, NODE_PREFIX, NodeRequest, SubjectAltNames,
    node_of_certificate, node_of_request, serial_of, user_of_certificate,
};
pub use cloudcore::cloudcore_of_certificate;
pub use error::AuthorityError;
pub use server_request::{ServerKey, ServerSubject, UnfitCertificate, check_server_certificate};
pub use token::{JoinToken, JoinTokenClaims, TOKEN_MAX, TokenError, TokenKey};
pub use validity::{Validity, is_pair, is_signed_by, validity_of};

use sha2::{Digest, Sha256};

/// When this program's sources were made, in seconds since 1970: no machine that runs it lives earlier, whatever its clock
/// says. `SOURCE_DATE_EPOCH` says it at the build, else the files' own time.
pub const MADE_AT_UNIX: u64 = seconds(env!("KUBEHIVE_MADE_AT"));

/// The number in a text that build.rs wrote.
const fn seconds(text: &str) -> u64 {
    let (digits, mut at, mut number) = (text.as_bytes(), 0, 0);
    while at < digits.len() {
        number = number * 10 + (digits[at] - b'0') as u64;
        at += 1;
    }
    number
}

/// The pin of a CA: SHA-256 of its certificate's DER, in lower-case hex.
pub fn pin_of(ca_der: &[u8]) -> String {
    hex::encode(Sha256::digest(ca_der))
}
