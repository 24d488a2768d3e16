//! Named events: each is one log line and one counter.

use std::net::SocketAddr;

use beehive::Metrics;

/// A browser has come in.
pub(crate) const ENTERED: &str = "page_entered";
/// Somebody asked without a credential that is good.
pub(crate) const DENIED: &str = "page_denied";
/// Somebody asked in a way that no browser of a person's does.
pub(crate) const REFUSED: &str = "page_refused";

/// The page is there.
pub(crate) fn served(metrics: &Metrics, address: SocketAddr) {
    metrics.add("page_served", 1);
    tracing::info!(%address, "the node's page is served: `keadm ctl page` prints a URL that opens it");
}

/// Somebody at edgecore's own socket was given a URL.
pub(crate) fn invited(metrics: &Metrics) {
    metrics.add("page_invited", 1);
    tracing::info!("somebody may open the node's page once, within 2 minutes");
}

/// A browser has come in by such a URL.
pub(crate) fn entered(metrics: &Metrics) {
    metrics.add(ENTERED, 1);
    tracing::info!(event = ENTERED, "a browser opened the node's page");
}

/// Somebody has no credential, or an old one.
pub(crate) fn denied(metrics: &Metrics) {
    metrics.add(DENIED, 1);
    tracing::debug!(event = DENIED, "somebody without a credential asked for the node's page");
}

/// Somebody named another host, came from another page, or wanted to write.
pub(crate) fn refused(metrics: &Metrics, why: &str) {
    metrics.add(REFUSED, 1);
    tracing::debug!(event = REFUSED, why, "a request for the node's page was refused");
}

/// One who has the facts did not answer in time.
pub(crate) fn unanswered(metrics: &Metrics, who: &str) {
    metrics.add("page_unanswered", 1);
    tracing::debug!(who, "no answer for the node's page");
}

/// The port cannot be served; it is tried again.
pub(crate) fn not_served(metrics: &Metrics, why: &str) {
    metrics.add("page_not_served", 1);
    tracing::warn!(why, "the node's page is not served (modules.edgePage)");
}
