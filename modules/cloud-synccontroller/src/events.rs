//! Named events: each is one log line and one counter.

use beehive::Env;
use contract::NodeName;
use contract::synccontroller::BatchFailure;

/// A node is asked what it holds, and everything is compared anew.
pub(crate) fn compare_begun(env: &Env, node: &NodeName, session: u64) {
    env.count("synccontroller_compare_begun");
    tracing::debug!(%node, session, "node is asked what it holds");
}

/// A node did not say what it holds, in short or in some buckets.
pub(crate) fn inventory_unanswered(env: &Env, node: &NodeName, error: &dyn std::fmt::Display) {
    env.count("synccontroller_inventory_unanswered");
    tracing::warn!(%node, %error, "node did not say what it holds");
}

/// A batch came to nothing; each way has a counter of its own.
pub(crate) fn batch_not_applied(env: &Env, node: &NodeName, batch: u64, failure: &BatchFailure) {
    env.count(match failure {
        BatchFailure::Refused(_) => "synccontroller_batch_refused",
        BatchFailure::TooLarge => "synccontroller_batch_too_large",
        BatchFailure::Stale => "synccontroller_batch_stale",
        BatchFailure::Unanswered(_) => "synccontroller_batch_unanswered",
    });
    tracing::warn!(%node, batch, ?failure, "batch not applied");
}

/// Objects that the node refused one by one stay out of its batches until a pause is over.
pub(crate) fn quarantined(env: &Env, node: &NodeName, pause: std::time::Duration) {
    env.count("synccontroller_quarantined");
    tracing::info!(%node, ?pause, "objects that the node refuses are tried again after a pause");
}

/// Whether the node is in sync could not be written to its Node; it is written again.
pub(crate) fn status_not_written(env: &Env, node: &NodeName) {
    env.count("synccontroller_status_not_written");
    tracing::debug!(%node, "sync status not written; tried again");
}
