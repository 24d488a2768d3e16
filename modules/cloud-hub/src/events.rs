//! What happens in the hub: each event is one line of the log and one counter.

use beehive::Env;
use beehive::link::{Link, PeerName};
use contract::NodeName;

/// A node's session has opened.
pub(crate) fn session_opened(env: &Env, node: &NodeName, session: u64, link: &Link) {
    env.count("cloudhub_sessions_opened");
    let (transport, wire_version) = (link.transport(), link.version().number());
    let peer_capabilities = link.capabilities();
    tracing::info!(%node, session, %transport, wire_version, %peer_capabilities, "node linked");
}

/// A node's session has ended.
pub(crate) fn session_ended(env: &Env, node: &NodeName, session: u64, reason: &str) {
    env.count("cloudhub_sessions_ended");
    tracing::info!(%node, session, reason, "node's link ended");
}

/// A node's session has ended at once.
pub(crate) fn session_was_older(env: &Env, node: &NodeName, session: u64) {
    env.count("cloudhub_sessions_older");
    tracing::info!(%node, session, "link ended at once: a later session of the node is open");
}

/// The register has revoked the certificate of a node that is linked or about to be.
pub(crate) fn certificate_revoked(env: &Env, node: &NodeName, reason: &str) {
    env.count("cloudhub_certificates_revoked");
    tracing::warn!(%node, reason, "the node's link is ended");
}

/// Another part of CloudCore says that a session is over.
pub(crate) fn session_over(env: &Env, node: &NodeName, session: u64, reason: &str) {
    env.count("cloudhub_sessions_taken");
    tracing::warn!(%node, session, reason, "the node's session is over; its link is ended");
}

/// A connection ended before its hello, or during it. A node that dials more than once goes on with the first that answers.
pub(crate) fn left_early(env: &Env, peer: &PeerName, reason: &str) {
    env.count("cloudhub_connections_left_early");
    tracing::debug!(%peer, reason, "peer disconnected during the hello");
}

/// What came was no hello of ours.
pub(crate) fn hello_refused(env: &Env, peer: &PeerName, reason: &str) {
    env.count("cloudhub_hellos_refused");
    tracing::warn!(%peer, reason, "hello not accepted");
}

/// A node was refused.
pub(crate) fn node_refused(env: &Env, peer: &PeerName, reason: &str) {
    env.count("cloudhub_nodes_refused");
    tracing::warn!(%peer, reason, "node refused");
}

/// Nobody could say whose a node is.
pub(crate) fn claim_failed(env: &Env, node: &NodeName, reason: &str) {
    env.count("cloudhub_claims_failed");
    tracing::error!(%node, reason, "node not claimed");
}
