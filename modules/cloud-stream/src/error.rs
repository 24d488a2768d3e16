//! Why CloudStream cannot do something.

use std::time::Duration;

use https::TlsError;
use pki::AuthorityError;
use thiserror::Error;

/// Why there is no serving certificate.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// The CA did not sign it.
    #[error("the kubelet endpoint's certificate")]
    Authority(#[from] AuthorityError),
    /// It, or the CA of the API server's clients, is not usable.
    #[error("the kubelet endpoint's TLS")]
    Tls(#[from] TlsError),
    /// The API server's CA is no PEM.
    #[error("client-ca-file of kube-system/extension-apiserver-authentication is not usable PEM: {0}")]
    ClientCa(String),
}

/// Why no certificate was asked for, or it is not known what became of it.
#[derive(Debug, Error)]
pub(crate) enum SigningError {
    /// The key or the certificate cannot be kept.
    #[error("{0}")]
    Folder(String),
    /// No key or request could be made.
    #[error("the request for the kubelet endpoint's certificate")]
    Key(#[from] AuthorityError),
    /// The API server refused it or could not be reached.
    #[error(
        "CertificateSigningRequest `{name}` cannot be read or made: was it installed with cloudCore.modules.cloudStream.kubeletEndpoint.certificate.signerName as a value, and does the API server serve certificates.k8s.io/v1?"
    )]
    Api {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
}

/// Why the API server has not said who somebody is, or what he may.
#[derive(Debug, Error)]
pub enum ReviewError {
    /// It refused the question or could not be reached.
    #[error("the API server did not answer a {kind}")]
    Api {
        /// `TokenReview` or `SubjectAccessReview`.
        kind: &'static str,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// It answered without a status.
    #[error("the API server answered a {0} without a status")]
    Empty(&'static str),
    /// It did not answer in time.
    #[error("the API server did not answer a {0} in time")]
    Late(&'static str),
    /// Its address has shown too many tokens that are not known; for how long it has to wait.
    #[error("too many tokens from this address are not known")]
    TooManyTokens(Duration),
}
