//! The certificate authority's keeping, and the enrolment of edge nodes.
//!
//! # Owns
//! The CA, CloudCore's server certificate, the key of the join tokens and the register of living node certificates: all
//! in Secrets of namespace `kubeedge`, so that every CloudCore serves every node.
//! # Accepts
//! HTTPS on 10002: `GET /ca.crt`, `GET /edge.crt` with a join token, `DELETE /edge.crt` with the node's own certificate.
//! # Tells
//! Nobody yet: sessions come with the link.
//! # Keeps across a restart
//! Everything, in the Secrets. A write is a compare-and-swap on the Secret's resource version.
//! # Never
//! Makes a second CA beside one that is there, signs a name that the token does not allow, or reads more than 16 KiB of
//! a request.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod https;
pub mod plan;
mod vault;

pub use https::{Enrolment, EnrolmentError, EnrolmentServer};
pub use vault::{Vault, VaultError};
