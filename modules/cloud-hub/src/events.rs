//! What happens in the hub: each event is one line of the log and one counter.

use beehive::Env;
use beehive::link::{Link, PeerName};
use contract::NodeName;

use crate::certificates::rotation::RotationStep;

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

/// A certificate was signed over a node's link and stands in the register.
pub(crate) fn certificate_renewed(env: &Env, node: &NodeName, shown: &str, serial: &str) {
    env.count("cloudhub_certificates_renewed");
    tracing::info!(%node, shown, serial, "the node's certificate is renewed");
}

/// A node got no certificate.
pub(crate) fn renewal_refused(env: &Env, node: &NodeName, reason: &str) {
    env.count("cloudhub_renewals_refused");
    tracing::warn!(%node, reason, "the node's certificate is not renewed");
}

/// A node has its new certificate on its disk, and the one before is good for nothing any more.
pub(crate) fn certificate_kept(env: &Env, node: &NodeName, serial: &str) {
    env.count("cloudhub_certificates_kept");
    tracing::info!(%node, serial, "the node has its new certificate");
}

/// A node came with a certificate that has ended, and may have it renewed.
pub(crate) fn ended_certificate_let_in(env: &Env, node: &NodeName) {
    env.count("cloudhub_ended_certificates_let_in");
    tracing::info!(%node, "the node's certificate has ended; it may renew it and nothing else");
}

/// A node has not taken what it is to trust.
pub(crate) fn trust_not_taken(env: &Env, node: &NodeName, reason: &str) {
    env.count("cloudhub_trust_not_taken");
    tracing::warn!(%node, reason, "the node has not taken the authorities that it is to trust");
}

/// A step in giving way to another CA was taken here.
pub(crate) fn authority_step(env: &Env, step: RotationStep) {
    let Some(words) = step.words() else { return };
    env.count("cloudhub_authority_steps");
    tracing::warn!("{words}");
}

/// Others are trusted than before.
pub(crate) fn authorities_changed(env: &Env, trusted: usize) {
    env.count("cloudhub_authorities_changed");
    tracing::info!(trusted, "the authorities that are trusted have changed");
}

/// The CA could not be looked at: what was known of it counts on.
pub(crate) fn authority_unread(env: &Env, reason: &str) {
    env.count("cloudhub_authority_unread");
    tracing::warn!(reason, "the CA in Secret casecret could not be read or written now");
}

/// This machine's clock and the API server's are apart.
pub(crate) fn clock_doubted(env: &Env, reason: &str) {
    env.count("cloudhub_clock_doubted");
    tracing::error!(check = "Clock", reason, "certificates are not signed by a clock that is in doubt");
}

/// CloudCore shows a new certificate.
pub(crate) fn server_certificate_renewed(env: &Env) {
    env.count("cloudhub_server_certificates_renewed");
    tracing::info!("CloudCore's own certificate is renewed");
}

/// CloudCore has no new certificate to show.
pub(crate) fn server_certificate_not_renewed(env: &Env, reason: &str) {
    env.count("cloudhub_server_certificates_not_renewed");
    tracing::error!(reason, "CloudCore's own certificate is not renewed; it is tried again");
}

/// One of its places does not show it.
pub(crate) fn server_certificate_not_shown(env: &Env, place: &str, reason: &str) {
    env.count("cloudhub_server_certificates_not_shown");
    tracing::error!(place, reason, "CloudCore's new certificate is not shown there; the one before is");
}
