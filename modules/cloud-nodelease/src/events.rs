//! Named events: each is one log line and one counter.

use beehive::Env;
use contract::NodeName;

/// A node was taken: it has a session now.
pub(crate) fn node_claimed(env: &Env, node: &NodeName, session: u64) {
    env.count("nodelease_node_claimed");
    tracing::debug!(%node, session, "node claimed");
}

/// A claim was refused for a reason that somebody may have to look into.
pub(crate) fn claim_failed(env: &Env, node: &NodeName, reason: &str) {
    env.count("nodelease_claim_failed");
    tracing::error!(%node, reason, "node not claimed");
}

/// The register does not admit the node.
pub(crate) fn node_not_admitted(env: &Env, node: &NodeName, reason: &str) {
    env.count("nodelease_node_not_admitted");
    tracing::warn!(%node, reason, "node not admitted");
}

/// A session is over, and its link is ended.
pub(crate) fn session_over(env: &Env, node: &NodeName, session: u64, reason: &str) {
    env.count("nodelease_session_over");
    tracing::warn!(%node, session, reason, "the node's session is over");
}

/// A Lease was not renewed; the next renewal tries again.
pub(crate) fn lease_not_renewed(env: &Env, node: &NodeName, reason: &str, is_first: bool) {
    env.count("nodelease_lease_not_renewed");
    // One line for each renewal, however often it is tried.
    if is_first {
        tracing::warn!(%node, reason, "lease not renewed; tried again until the next time");
    }
}

/// The API server takes no owner of a Lease; it is renewed without one.
pub(crate) fn lease_owner_refused(env: &Env, node: &NodeName, reason: &str) {
    env.count("nodelease_lease_owner_refused");
    tracing::warn!(%node, reason, "lease renewed without its Node as owner: bring the policies to this version (keadm init --force, or helm upgrade)");
}

/// A node has the right by which policies know that it is CloudCore's.
pub(crate) fn right_bound(env: &Env, node: &NodeName) {
    env.count("nodelease_right_bound");
    tracing::info!(%node, "the RoleBinding kubehive-nodes/{node} says that the node is CloudCore's");
}

/// The API server takes no rights to nodes, or CloudCore's account may bind none. Where there is no such namespace, as in the
/// stand-alone API, nobody asks for them.
pub(crate) fn right_not_taken(env: &Env, reason: &str, is_forbidden: bool) {
    env.count("nodelease_right_not_taken");
    if !is_forbidden {
        return tracing::debug!(reason, "no RoleBindings say which nodes are CloudCore's");
    }
    tracing::warn!(
        reason,
        "no RoleBindings say which nodes are CloudCore's: if the policies are applied, bring the rest to their version (keadm init --force, or helm upgrade)"
    );
}

/// Whether a Node is still there could not be found out.
pub(crate) fn node_not_checked(env: &Env, node: &NodeName, reason: &str) {
    env.count("nodelease_node_not_checked");
    tracing::warn!(%node, reason, "whether the Node is still there is not known");
}

/// The condition could not be written; SyncController says it again.
pub(crate) fn condition_not_written(env: &Env, node: &NodeName, reason: &str) {
    env.count("nodelease_condition_not_written");
    tracing::warn!(%node, reason, "condition kubehive.io/Synced not written; tried again");
}

/// Somebody else changed the conditions that CloudCore writes, or took them away, and they are written again.
pub(crate) fn condition_said_again(env: &Env, node: &NodeName) {
    env.count("nodelease_condition_said_again");
    tracing::info!(%node, "the Node's conditions of kubehive.io, which somebody else wrote, are written again");
}

/// The watch of Nodes broke off. One line until it says something again.
pub(crate) fn watch_interrupted(env: &Env, reason: &str, is_first: bool) {
    env.count("nodelease_watch_interrupted");
    if is_first {
        tracing::warn!(reason, "watch of Nodes interrupted");
    } else {
        tracing::debug!(reason, "watch of Nodes still interrupted");
    }
}
