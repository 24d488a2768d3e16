//! Named events: each is one log line and one counter.

use beehive::Env;
use contract::{NodeName, ObjectKey};

/// A report could not be written now; the node sends it again.
pub(crate) fn report_not_written(env: &Env, node: &NodeName, reason: &str) {
    env.count("devicecontroller_report_not_written");
    tracing::warn!(%node, reason, "twin not written; the node sends it again");
}

/// A call of a method went to its node, or nothing came of it.
pub(crate) fn method_call_sent(env: &Env, id: &str, failure: Option<&str>) {
    env.count("devicecontroller_method_call_sent");
    tracing::info!(id, failure, "call of a device's method");
}

/// The DeviceStatus of a device could not be written; it is tried again.
pub(crate) fn status_not_written(env: &Env, device: &ObjectKey, reason: &str) {
    env.count("devicecontroller_status_not_written");
    tracing::warn!(%device, reason, "DeviceStatus not written");
}
