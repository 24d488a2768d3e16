//! Named events: each is one log line and one counter.

use beehive::{Env, Metrics};

/// A service was called, or not, and this was answered.
pub(crate) fn called(env: &Env, user: &str, port: u16, path: &str, status: u16) {
    env.count("servicebus_services_called");
    tracing::debug!(user, port, path, status, "a rule called a service");
}

/// A call of a service broke off.
pub(crate) fn cut(env: &Env, why: &str) {
    env.count("servicebus_calls_cut");
    tracing::debug!(why, "a call of a service broke off");
}

/// An application called, and was answered with this code.
pub(crate) fn answered(metrics: &Metrics, code: u16) {
    metrics.add("servicebus_calls_answered", 1);
    if code != 200 {
        metrics.add("servicebus_calls_failed", 1);
    }
    tracing::debug!(code, "an application called a rule's target");
}

/// A page of a browser called.
pub(crate) fn page_refused(metrics: &Metrics) {
    metrics.add("servicebus_pages_refused", 1);
}

/// The port for applications cannot be served; it is tried again.
pub(crate) fn not_served(env: &Env, why: &str) {
    env.count("servicebus_not_served");
    tracing::warn!(why, "applications cannot call rules' targets (modules.serviceBus)");
}
