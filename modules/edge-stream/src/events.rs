//! What EdgeStream counts and says: a named event is one line of the log and one counter.

use beehive::Metrics;

/// A call was answered.
pub(crate) const CALLED: &str = "stream_calls";
/// A call was refused, or failed.
pub(crate) const REFUSED: &str = "stream_calls_refused";
/// A call found no place.
pub(crate) const FULL: &str = "stream_calls_over_the_bound";
/// A client broke off.
pub(crate) const CUT: &str = "stream_calls_cut";
/// An agent on the node came without the token.
pub(crate) const DENIED: &str = "stream_local_denied";
/// The token for agents on the node was made.
pub(crate) const TOKEN_MADE: &str = "stream_local_token_made";
/// Agents on the node cannot be served.
pub(crate) const NOT_SERVED: &str = "stream_local_not_served";

/// A call has an answer.
pub(crate) fn called(metrics: &Metrics, call: &str, user: &str, target: &str, status: u16) {
    metrics.add(CALLED, 1);
    if status >= 400 {
        metrics.add(REFUSED, 1);
    }
    tracing::info!(event = CALLED, call, user, path = target.split('?').next(), status, "kubelet call");
}

/// A call was not taken.
pub(crate) fn full(metrics: &Metrics, calls: usize) {
    metrics.add(FULL, 1);
    tracing::warn!(event = FULL, calls, "a kubelet call was refused: the node has as many as it takes");
}

/// A client went before the end.
pub(crate) fn cut(metrics: &Metrics, call: &str, error: &dyn std::fmt::Display) {
    metrics.add(CUT, 1);
    tracing::debug!(event = CUT, call, %error, "a kubelet call was broken off");
}

/// Somebody on the node had no token, or another one.
pub(crate) fn denied(metrics: &Metrics) {
    metrics.add(DENIED, 1);
    tracing::debug!(event = DENIED, "a call on the node's own port without its token");
}

/// The file of the token is new.
pub(crate) fn token_made(metrics: &Metrics, file: &std::path::Path) {
    metrics.add(TOKEN_MADE, 1);
    tracing::info!(event = TOKEN_MADE, file = %file.display(), "token for agents on the node was made");
}

/// The node's own port does not answer.
pub(crate) fn not_served(metrics: &Metrics, error: &dyn std::fmt::Display) {
    metrics.add(NOT_SERVED, 1);
    tracing::error!(event = NOT_SERVED, %error, "agents on the node are not served (modules.edgeStream)");
}
