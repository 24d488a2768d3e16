//! Sessions of edge nodes, their enrolment, and the certificate authority's keeping.
//!
//! # Owns
//! The links of the nodes. The CA, CloudCore's server certificate, the key of the join tokens and the register of living node certificates: all
//! in Secrets of namespace `kubeedge`, so that every CloudCore serves every node.
//! # Accepts
//! Links from nodes whose certificate lives, over QUIC or over WebSocket on 10000, at most so many a second and, of each node, so many at once. [`contract::cloudhub::CloudHubMsg`]: sessions that opened, ended or were lost to another CloudCore. HTTPS on 10002: `GET /ca.crt`, `GET /edge.crt` with a join token, `DELETE /edge.crt` with the node's own certificate.
//! # Tells
//! SyncController and EdgeController who is linked; EdgeController is asked to take a node before it is let in. What a node says goes past the hub, into the controllers' own
//! mailboxes, under the name in the node's certificate.
//! # Keeps across a restart
//! Everything but the links, in the Secrets. A write is a compare-and-swap on the Secret's resource version.
//! # Never
//! Lets a node in that it has not taken, makes a second CA beside one that is there, signs a name that the token does not allow, or reads more than 16 KiB of
//! a request.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod admission;
mod https;
pub mod plan;
mod sessions;
mod standing;
mod threshold;
mod vault;
mod websocket;

pub use https::{Enrolment, EnrolmentError, EnrolmentServer};
pub use sessions::{CloudHub, Neighbours};
pub use vault::{Vault, VaultError};
pub use websocket::{WebSocketAcceptor, WebSocketError};
