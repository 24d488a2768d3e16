//! Sessions of edge nodes, their enrolment, and the certificate authority's keeping.
//!
//! # Owns
//! The links of the nodes, one session each: [`CloudHub`]'s children. The port of the link's WebSocket: [`WebSocketListener`]. Enrolment's
//! port, and what is entered into the register of [`noderegistry`] there: [`Enrolment`]. The CA and the key of the join tokens, in Secrets of
//! CloudCore's namespace, so that every CloudCore serves every node: [`SecretStore`]; that the CA gives way to its successor, and that
//! CloudCore shows a certificate that is good: [`CertificateKeeper`].
//! # Accepts
//! Links from nodes that NodeLease claims, over QUIC or over WebSocket on 10000, at most so many a second and, of each certificate that is
//! good, so many at once; those that are worth nothing take no place of a good one. What the register says of their names, while they last. [`contract::cloudhub::CloudHubMsg`]: sessions that opened or ended, that
//! are over elsewhere, and who wants to be told of them again; what nodes say of their certificates over their links. HTTPS on 10002: `GET /ca.crt`, `GET /edge.crt` with a join token,
//! `DELETE /edge.crt` with the node's own certificate.
//! # Tells
//! NodeLease, SyncController, EdgeController, DeviceController and CloudStream which sessions are open; NodeLease is asked to claim a node before it is
//! let in, and its Lease's epoch is the session's number. Nodes: whom to trust, and where the cloud is. What else a node says goes past the hub, into the controllers' own
//! mailboxes, under the name in the node's certificate.
//! # Keeps across a restart
//! Of the process: what is in the Secrets and in the register. Of an actor: its port, and what waits in its queue; no link, no
//! request.
//! # Never
//! Lets a node in that was not claimed, keeps a link whose certificate is not the living one of its name, or that no incarnation owns,
//! makes a second CA beside one that is there but as its successor, signs a name that the token does not allow or the link does not have, lets a node do anything with a certificate that has ended but
//! renew it, or reads the body of a request that shows no
//! credential, or more than 16 KiB of it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod actor;
mod addresses;
mod certificates;
mod connection_limiter;
mod connection_table;
mod enrolment;
mod error;
mod events;
mod known_certificates;
mod leaving;
mod link_acceptor;
mod linked_nodes;
mod plan;
mod revocation;
mod session;
mod session_rate;
mod store;
mod websocket;

pub use actor::CloudHub;
pub use addresses::Addresses;
pub use certificates::{
    AuthorityLives, CertificateKeeper, CertificatesMsg, ClockDoubt, KeeperDependencies, RenewalSettings,
    ServerCertificate, ShownChain,
};
pub use enrolment::{Enrolment, EnrolmentMsg, EnrolmentSettings};
pub use error::SecretError;
pub use known_certificates::KnownCertificates;
pub use linked_nodes::LinkedNodes;
pub use session::SESSION;
pub use store::SecretStore;
pub use websocket::{
    UpgradeError, Upgrader, WebSocketAcceptor, WebSocketListener, WebSocketMsg, queue as websocket_queue,
};
