//! Why the hub's parts did not start.

use pki::AuthorityError;
use thiserror::Error;

/// A Secret of CloudCore's, as it is told to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretName {
    /// CloudCore's namespace.
    pub namespace: String,
    /// The name in it.
    pub name: &'static str,
}

impl std::fmt::Display for SecretName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Why a Secret did not answer.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The API server refused or could not be reached.
    #[error("cannot read or write Secret `{secret}`: check CloudCore's RBAC and the API server")]
    Api {
        /// The Secret.
        secret: SecretName,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// What the API server answered is no Secret. Without the reader's own words, which may quote what is secret.
    #[error("Secret `{0}` cannot be decoded: look at it with kubectl; is what answers an API server?")]
    Undecodable(SecretName),
    /// A Secret holds something else than it should.
    #[error(
        "Secret `{secret}` is not usable in `{key}`: restore it, or delete it to start anew (all nodes join again). Where it is that of KubeEdge's CloudCore leave it, and give this one another namespace (`keadm init --namespace`, commonConfig.namespace)"
    )]
    Broken {
        /// The Secret.
        secret: SecretName,
        /// The key in it.
        key: &'static str,
    },
    /// A Secret that was there is gone.
    #[error(
        "Secret `{0}` is gone: restore it; this CloudCore goes on with what it knows, and one that starts makes a new CA (all nodes join again)"
    )]
    Gone(SecretName),
    /// A Secret holds a CA of somebody else.
    #[error(
        "Secret `{0}` holds a CA that has nothing to do with those that are trusted: restore it, or restart CloudCore to take it (all nodes join again)"
    )]
    Foreign(SecretName),
    /// One of two clocks is wrong.
    #[error(
        "this machine's clock and the API server's are {seconds} s apart: set them; no certificate is renewed until then, and no CA gives way to its successor"
    )]
    Clock {
        /// How far.
        seconds: u64,
    },
    /// The certificate authority failed.
    #[error("certificate authority failed")]
    Authority(#[from] AuthorityError),
    /// Others wrote all the time.
    #[error("Secret `{0}` is written by others all the time: try again")]
    Contended(SecretName),
}
