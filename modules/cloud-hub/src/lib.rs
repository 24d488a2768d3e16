//! Sessions of edge nodes, their enrolment, and the certificate authority's keeping.
//!
//! # Owns
//! The links of the nodes. The CA, CloudCore's server certificate and the key of the join tokens, in Secrets of namespace `kubeedge`, so that
//! every CloudCore serves every node. Enrolment, into the register of [`noderegistry`].
//! # Accepts
//! Links from nodes that EdgeController takes, over QUIC or over WebSocket on 10000, at most so many a second and, of each node, so many at
//! once. What the register says of their names, while they last. [`contract::cloudhub::CloudHubMsg`]: sessions that opened, ended, were lost
//! to another CloudCore, or whose Node is not theirs any more. HTTPS on 10002: `GET /ca.crt`, `GET /edge.crt` with a join token, `DELETE /edge.crt` with the node's own certificate.
//! # Tells
//! SyncController and EdgeController who is linked; EdgeController is asked to take a node before it is let in. What a node says goes past the hub, into the controllers' own
//! mailboxes, under the name in the node's certificate.
//! # Keeps across a restart
//! Everything but the links, in the Secrets and in the register.
//! # Never
//! Lets a node in that was not taken, keeps a link whose certificate is not the living one of its name, makes a second CA beside one that is there, signs a name that the token does not allow, or reads the body of
//! a request that shows no credential, or more than 16 KiB of it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod admission;
mod enrolment;
mod https;
mod knocks;
mod roll;
mod sessions;
mod standing;
mod threshold;
mod upgrade;
mod vault;
mod websocket;

pub use enrolment::Enrolment;
pub use https::{EnrolmentError, EnrolmentServer};
pub use sessions::{CloudHub, Neighbours};
pub use upgrade::{UpgradeError, Upgrades};
pub use vault::{Vault, VaultError};
pub use websocket::{WebSocketAcceptor, WebSocketError};
