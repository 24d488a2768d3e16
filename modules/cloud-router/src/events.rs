//! Named events: each is one log line and one counter.

use beehive::{Env, Metrics};
use contract::{NodeName, ObjectKey, Telemetry};
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

/// A target has a message.
pub(crate) fn delivered(env: &Env) {
    env.count("router_messages_delivered");
}

/// A message was given up: its target never will take it.
pub(crate) fn refused(env: &Env, rule: &ObjectKey, why: &str) {
    env.count("router_messages_refused");
    tracing::warn!(%rule, why, "a message for a rule was given up");
}

/// Messages of a rule wait on their node. Its status says so to people; the line is for whoever looks closer.
pub(crate) fn waits(env: &Env, rule: &ObjectKey, why: &str) {
    env.count("router_deliveries_put_off");
    tracing::debug!(%rule, why, "messages for a rule wait");
}

/// A message of a topic that no rule has any more: it goes with the rule.
pub(crate) fn without_rule(env: &Env, node: &NodeName, topic: &str) {
    env.count("router_messages_without_rule");
    tracing::debug!(%node, topic, "a message of a rule that is gone was given up");
}

/// A call of an application on a node has not reached its target.
pub(crate) fn call_failed(env: &Env, rule: &ObjectKey, why: &str) {
    env.count("router_calls_failed");
    tracing::debug!(%rule, why, "a call of a rule's target failed");
}

/// The status of a rule could not be written; it is tried again.
pub(crate) fn status_not_written(env: &Env, rule: &ObjectKey, why: &str) {
    env.count("router_status_not_written");
    tracing::warn!(%rule, why, "the status of the rule was not written");
}

/// A caller showed no token that is good. What strangers do is a counter and no line.
pub(crate) fn unauthorized(metrics: &Metrics) {
    metrics.add("router_calls_unauthorized", 1);
}

/// The door is not served; it is tried again.
pub(crate) fn door_not_served(env: &Env, why: &str) {
    env.count("router_door_not_served");
    tracing::warn!(why, "HTTP clients cannot call rules");
}

/// The tokens were read again, because they have changed.
pub(crate) fn tokens_read(env: &Env) {
    env.count("router_tokens_read");
    tracing::info!("modules.router.tokenFile was read again");
}

/// The tokens have changed and cannot be read: those that were read before go on.
pub(crate) fn tokens_not_read(env: &Env, why: &str) {
    env.count("router_tokens_not_read");
    tracing::warn!(why, "tokens of callers were not read again: those from before go on");
}

/// Targets cannot be called: there is no way to make a client.
pub(crate) fn no_client(env: &Env, why: &str) {
    env.count("router_client_not_made");
    tracing::error!(why, "rules cannot call their targets");
}
