//! CloudCore as the kubelet endpoint of its nodes: who may ask, a port for each node, and the way there.
//!
//! # Owns
//! One HTTPS server for all nodes, with a port for each node that is linked, or was and whose Node still says the port ([`CloudStream`]'s
//! children hold them), its serving certificate, and what the API server has said of callers, for as long as a kubelet keeps that.
//! # Accepts
//! [`contract::cloudstream::CloudStreamMsg`]: which nodes are linked, what their Nodes and the register say. HTTPS at the ports: a kubelet's paths, from whoever shows a
//! client certificate of the API server's CA or a bearer token, and may ask that by SubjectAccessReview.
//! # Tells
//! The node, by [`nodecalls`]; EdgeController, where the node's endpoint is, for its Node; the API server, who asks; with a signer in
//! the settings, the API server by a CertificateSigningRequest; whoever reads [`Checks`], what is wrong.
//! # Keeps across a restart
//! The certificate that a signer has signed, and its key. Else nothing: which port a node has stands in its Node, and is read before the first is given: a Node that was not rewritten yet
//! leads to no other node.
//! # Never
//! Serves anybody whom it does not know, takes a front proxy's certificate for a caller's, takes any certificate for an API
//! server's, lets a `get` run a command, sends a node a caller's credential, or approves its own certificate.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
mod cache;
mod certificate;
mod checks;
mod client_ca;
mod credentials;
mod endpoint;
mod error;
mod events;
mod handler;
mod plan;
mod ports;
mod reach;
mod reviews;
mod said_ports;
mod signed_certificate;

pub use actor::{CloudStream, Dependencies, IsOurs, Serving};
pub use certificate::ServingCertificate;
pub use checks::{Check, Checks};
pub use endpoint::ENDPOINT;
pub use error::{CertificateError, ReviewError};
pub use signed_certificate::Signer;
