//! What happens to calls: each event is one line of the log and one counter. They happen on servers' threads.

use beehive::Metrics;
use contract::NodeName;

use crate::error::CallError;

/// A node has begun to answer a call.
pub(crate) fn answered(metrics: &Metrics, node: &NodeName, user: &str, path: &str, status: u16) {
    metrics.add("nodecalls_answered", 1);
    tracing::debug!(%node, user, path, status, "node answers a call");
}

/// A call got no answer of the node.
pub(crate) fn failed(metrics: &Metrics, node: &NodeName, user: &str, path: &str, error: &CallError) {
    metrics.add(counter(error), 1);
    tracing::warn!(%node, user, path, %error, "call not answered by the node");
}

/// A call broke off after its answer had begun.
pub(crate) fn cut(metrics: &Metrics, node: &NodeName, reason: &str) {
    metrics.add("nodecalls_cut", 1);
    tracing::warn!(%node, reason, "call cut");
}

/// Who called has gone before the call had ended.
pub(crate) fn left(metrics: &Metrics, node: &NodeName, reason: &str) {
    metrics.add("nodecalls_left", 1);
    tracing::debug!(%node, reason, "the caller has gone");
}

/// A call of which one side took nothing was ended, because another one needed its place.
pub(crate) fn made_room(metrics: &Metrics, node: &NodeName) {
    metrics.add("nodecalls_made_room", 1);
    tracing::warn!(%node, "a call in which nothing passed was ended to make room for another: its caller has probably gone");
}

/// A node goes over to another link, over which the call is opened.
pub(crate) fn moves(metrics: &Metrics, node: &NodeName) {
    metrics.add("nodecalls_moves", 1);
    tracing::debug!(%node, "the node goes over to another link: the call is opened over that");
}

/// Bytes of bodies and upgraded connections towards the node.
pub(crate) fn sent(metrics: &Metrics, bytes: usize) {
    metrics.add("nodecalls_bytes_to_nodes", bytes as u64);
}

/// The same from the node.
pub(crate) fn received(metrics: &Metrics, bytes: usize) {
    metrics.add("nodecalls_bytes_from_nodes", bytes as u64);
}

fn counter(error: &CallError) -> &'static str {
    match error {
        CallError::NotLinked(_) => "nodecalls_not_linked",
        CallError::LinkDown { .. } => "nodecalls_link_down",
        CallError::Broken { .. } => "nodecalls_broken",
        CallError::Late { .. } => "nodecalls_late",
        CallError::Unsupported(_) => "nodecalls_unsupported",
        CallError::Refused { .. } => "nodecalls_refused_by_node",
        CallError::TooMany { .. } => "nodecalls_too_many",
        CallError::NoPath => "nodecalls_no_path",
        CallError::Redirect(_) => "nodecalls_redirect",
        CallError::Request(_) => "nodecalls_too_large",
    }
}
