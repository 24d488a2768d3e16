//! Named events: each is one log line and one counter.

use beehive::Env;
use contract::{NodeName, Telemetry};
use fairshare::SkippedEvents;

/// Uploads that this release does not understand; their rows are confirmed, so that the node goes on.
pub(crate) const SKIPPED: SkippedEvents =
    SkippedEvents { unknown: "router_telemetry_unknown", malformed: "router_telemetry_malformed" };

/// Messages of a source did not come before this one.
pub(crate) fn telemetry_missing(env: &Env, node: &NodeName, telemetry: &Telemetry, missing: u64) {
    env.count("router_telemetry_missing");
    let (client, topic) = (&telemetry.client, &telemetry.topic);
    tracing::debug!(%node, client, topic, missing, "messages of a source are missing");
}

/// A message that cannot be counted; `times`, counted of its node, thins out the log.
pub(crate) fn telemetry_refused(env: &Env, node: &NodeName, row: i64, why: &str, times: u64) {
    env.count("router_telemetry_refused");
    if fairshare::is_logged(times) {
        tracing::warn!(%node, row, why, times, "telemetry of the node was refused");
    }
}
