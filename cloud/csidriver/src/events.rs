//! Named events: each is one log line and one counter.

use std::path::Path;

use beehive::{Env, Metrics};
use tonic::Status;

/// Sidecars can call.
pub(crate) fn listening(env: &Env, socket: &Path, driver: &str, node: &str) {
    env.count("csidriver_listening");
    tracing::info!(socket = %socket.display(), driver, node, "sidecars can call");
}

/// The node has answered a call.
pub(crate) fn answered(metrics: &Metrics, method: &str) {
    metrics.add("csidriver_answered", 1);
    tracing::info!(method, "the driver has answered");
}

/// A call has ended with an error: the driver's, or one of the way there.
pub(crate) fn failed(metrics: &Metrics, method: &str, status: &Status) {
    metrics.add("csidriver_failed", 1);
    tracing::warn!(method, code = ?status.code(), reason = status.message(), "a call has failed");
}
