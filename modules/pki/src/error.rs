//! Why a certificate could not be made or read.

use thiserror::Error;

/// Why a certificate could not be made or read.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// The CA's certificate or key is not usable.
    #[error("CA certificate and key are not usable")]
    BadAuthority(#[source] rcgen::Error),
    /// A server's key is not usable.
    #[error("the key is not usable")]
    BadKey(#[source] rcgen::Error),
    /// The certificate is of another key.
    #[error("CA certificate and key do not belong together")]
    NotAPair,
    /// The request is no certificate signing request.
    #[error("not a certificate signing request (DER, at most 16 KiB)")]
    BadRequest,
    /// Signing failed.
    #[error("cannot sign")]
    Sign(#[source] rcgen::Error),
    /// A name for the server's certificate is no DNS name.
    #[error("`{0}` is no DNS name for a certificate")]
    BadName(String),
    /// A time is out of range.
    #[error("the validity of the certificate is out of range")]
    BadTime,
    /// A certificate cannot be read.
    #[error("not an X.509 certificate")]
    BadCertificate,
    /// The certificate names no user.
    #[error("certificate has not one common name, which would be the user")]
    NotAUser,
    /// The certificate is not a node's.
    #[error("certificate's common name `{0}` is not system:node:<name>")]
    NotANode(String),
    /// The certificate is not a CloudCore's.
    #[error("certificate of `{0}` is not one that CloudCores show each other")]
    NotACloudCore(String),
}
