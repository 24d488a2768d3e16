//! Named events: each is one log line and one counter.

use std::net::SocketAddr;

use beehive::{Env, Metrics};
use contract::{NodeName, ObjectKey, Telemetry};
use fairshare::SkippedEvents;

use crate::peer_plan::Peer;

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

/// A call was passed on to the CloudCore that has its node.
pub(crate) fn passed_on(metrics: &Metrics, node: &NodeName, peer: &Peer) {
    metrics.add("router_calls_passed_on", 1);
    tracing::debug!(%node, cloudcore = peer.identity, at = %peer.at, "a call was passed on");
}

/// Another CloudCore has passed a call on to this one.
pub(crate) fn call_of_peer(metrics: &Metrics) {
    metrics.add("router_calls_of_peers", 1);
}

/// The CloudCore that has a node was not reached; `times` in a row thins out the log.
pub(crate) fn peer_unreached(metrics: &Metrics, peer: &Peer, why: &str, times: u64) {
    metrics.add("router_peer_unreached", 1);
    if fairshare::is_logged(times) {
        tracing::warn!(
            cloudcore = peer.identity,
            at = %peer.at,
            why,
            times,
            "another CloudCore was not reached: if it runs, let CloudCores reach each other at that address (modules.router.peers; \
             NetworkPolicies and firewalls are to let its port pass)"
        );
    }
}

/// It is reached again.
pub(crate) fn peer_reached(metrics: &Metrics, peer: &Peer) {
    metrics.add("router_peer_reached_again", 1);
    tracing::info!(cloudcore = peer.identity, at = %peer.at, "the other CloudCore is reached again");
}

/// A CloudCore went away with a call in hand.
pub(crate) fn passed_call_lost(metrics: &Metrics, node: &NodeName, peer: &Peer, why: &str) {
    metrics.add("router_passed_calls_lost", 1);
    tracing::debug!(%node, cloudcore = peer.identity, why, "a call that was passed on has no answer");
}

/// The node had gone on when a call came to the CloudCore that had it.
pub(crate) fn passed_call_moved(metrics: &Metrics, node: &NodeName, peer: &Peer) {
    metrics.add("router_passed_calls_moved", 1);
    tracing::debug!(%node, cloudcore = peer.identity, "a call was passed on to where the node is no more");
}

/// Which CloudCore has a node could not be found out. What a caller can cause as often as he likes is a counter and no line.
pub(crate) fn holder_not_found(metrics: &Metrics, node: &NodeName, why: &str) {
    metrics.add("router_holder_not_found", 1);
    tracing::debug!(%node, why, "which CloudCore has the node could not be found out");
}

/// Somebody has a certificate of the CA and is no CloudCore; `times` thins out the log.
pub(crate) fn peer_refused(metrics: &Metrics, from: SocketAddr, times: u64) {
    metrics.add("router_peer_refused", 1);
    if fairshare::is_logged(times) {
        tracing::warn!(%from, times, "somebody who is no CloudCore wanted to pass a call on: a node's certificate may be in wrong hands");
    }
}

/// Other CloudCores are not served; it is tried again.
pub(crate) fn peers_not_served(env: &Env, why: &str) {
    env.count("router_peers_not_served");
    tracing::warn!(why, "other CloudCores cannot pass calls on to this one");
}

/// The certificate that other CloudCores are shown was made anew.
pub(crate) fn peer_certificate_renewed(env: &Env) {
    env.count("router_peer_certificate_renewed");
    tracing::info!("the certificate for other CloudCores was made anew");
}

/// It could not be, and the one before goes on; it is tried again.
pub(crate) fn peer_certificate_not_renewed(env: &Env, why: &str) {
    env.count("router_peer_certificate_not_renewed");
    tracing::warn!(why, "the certificate for other CloudCores was not made anew");
}
