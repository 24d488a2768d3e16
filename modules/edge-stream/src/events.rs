//! What EdgeStream counts and says: a named event is one line of the log and one counter.

use beehive::Metrics;

/// A call was answered.
pub(crate) const CALLED: &str = "stream_calls";
/// A call was refused, or failed.
pub(crate) const REFUSED: &str = "stream_calls_refused";
/// A call found no place.
pub(crate) const FULL: &str = "stream_calls_over_the_bound";
/// An answer found no room.
pub(crate) const ANSWERS_FULL: &str = "stream_answers_over_the_bound";
/// A client broke off.
pub(crate) const CUT: &str = "stream_calls_cut";
/// An upgraded connection of which one side takes nothing was ended.
pub(crate) const STALLED: &str = "stream_calls_stalled";
/// An agent on the node came without the token.
pub(crate) const DENIED: &str = "stream_local_denied";
/// The token for agents on the node was made.
pub(crate) const TOKEN_MADE: &str = "stream_local_token_made";
/// Another program has the port for agents on the node.
pub(crate) const PORT_TAKEN: &str = "stream_local_port_taken";
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

/// An answer was not made, for others are held.
pub(crate) fn answers_full(metrics: &Metrics) {
    metrics.add(ANSWERS_FULL, 1);
    tracing::warn!(
        event = ANSWERS_FULL,
        "a kubelet call was refused: the node holds as many answers as it may that nobody takes"
    );
}

/// A client went before the end.
pub(crate) fn cut(metrics: &Metrics, call: &str, error: &dyn std::fmt::Display) {
    metrics.add(CUT, 1);
    tracing::debug!(event = CUT, call, %error, "a kubelet call was broken off");
}

/// A side takes nothing, mostly because whoever called has gone.
pub(crate) fn stalled(metrics: &Metrics, call: &str, why: &dyn std::fmt::Display) {
    metrics.add(STALLED, 1);
    tracing::warn!(event = STALLED, call, %why, "a kubelet call was ended: its client has probably gone");
}

/// Somebody on the node had no token, or another one.
pub(crate) fn denied(metrics: &Metrics) {
    metrics.add(DENIED, 1);
    tracing::debug!(event = DENIED, "a call on the node's own port without its token");
}

/// The token is new, as each time that the port is opened.
pub(crate) fn token_made(metrics: &Metrics, file: &std::path::Path) {
    metrics.add(TOKEN_MADE, 1);
    tracing::info!(event = TOKEN_MADE, file = %file.display(), "token for agents on the node was made");
}

/// Who has the port hears what agents send there, the token among it.
pub(crate) fn port_taken(metrics: &Metrics, address: std::net::SocketAddr) {
    metrics.add(PORT_TAKEN, 1);
    tracing::error!(
        event = PORT_TAKEN,
        %address,
        "another program listens where agents on the node ask, and hears the token of those that show it: the token is withdrawn, \
         and another one is made before the port is served; find that program, or let agents use modules.edgeStream.socket"
    );
}

/// The node's own port, or its socket, does not answer.
pub(crate) fn not_served(metrics: &Metrics, error: &dyn std::fmt::Display) {
    metrics.add(NOT_SERVED, 1);
    tracing::error!(event = NOT_SERVED, %error, "agents on the node are not served (modules.edgeStream)");
}
