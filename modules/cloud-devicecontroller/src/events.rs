//! Named events: each is one log line and one counter.

use beehive::Env;
use contract::parsed::DeviceName;
use contract::{NodeName, ObjectKey};

/// A report could not be written now; the node sends it again, soon. `times`, in a row for this reason, thins out the log.
pub(crate) fn report_not_written(env: &Env, node: &NodeName, device: &DeviceName, reason: &str, times: u64) {
    env.count("devicecontroller_report_not_written");
    if fairshare::is_logged(times) {
        tracing::warn!(%node, %device, reason, times, "twin not written; the node sends it again");
    }
}

/// A call of a method went to its node, or nothing came of it.
pub(crate) fn method_call_sent(env: &Env, id: &str, failure: Option<&str>) {
    env.count("devicecontroller_method_call_sent");
    tracing::info!(id, failure, "call of a device's method");
}

/// A node says of a device that it was online at a time that is none.
pub(crate) fn time_left_out(env: &Env, node: &NodeName, device: &DeviceName) {
    env.count("devicecontroller_time_left_out");
    tracing::debug!(%node, namespace = %device.namespace, name = %device.name, "the time when a device was online last is no RFC 3339; its state is written without it");
}

/// The DeviceStatus of a device could not be written; it is tried again.
pub(crate) fn status_not_written(env: &Env, device: &ObjectKey, reason: &str) {
    env.count("devicecontroller_status_not_written");
    tracing::warn!(%device, reason, "DeviceStatus not written");
}
