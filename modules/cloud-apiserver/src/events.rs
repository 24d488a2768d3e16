//! Named events: each is one log line and one counter.

use std::time::Duration;

use apimachinery::NamespacedName;
use beehive::{Env, Metrics};

/// What happened at the API's port. The server writes the line.
pub(crate) fn connection(metrics: &Metrics, event: https::Event) {
    let name = match event {
        https::Event::Refused => "apiserver_connection_refused",
        https::Event::Displaced => "apiserver_connection_displaced",
        https::Event::HandshakeFailed => "apiserver_handshake_failed",
        https::Event::AnswerLate => "apiserver_answer_late",
        https::Event::Panicked => "apiserver_handler_panicked",
        https::Event::AcceptFailed => "apiserver_accept_failed",
    };
    metrics.add(name, 1);
}

/// A request kept the API's one thread: nobody else was answered meanwhile.
pub(crate) fn thread_kept(metrics: &Metrics, request: &str, kept: Duration) {
    metrics.add("apiserver_thread_kept", 1);
    tracing::warn!(
        request,
        seconds = kept.as_secs(),
        "a request kept the API's thread, and everybody else waiting"
    );
}

/// A controller could not bring an object to its desired state; it tries again after a back-off.
pub(crate) fn reconcile_failed(env: &Env, controller: &str, object: &NamespacedName, error: &str) {
    env.count("apiserver_reconcile_failed");
    tracing::warn!(controller, %object, error, "not reconciled; it is tried again");
}

/// A controller could not find out what is to be done; it tries again after a pause.
pub(crate) fn plan_failed(env: &Env, controller: &str, error: &str) {
    env.count("apiserver_plan_failed");
    tracing::error!(controller, error, "nobody knows what is to be done; it is tried again");
}

/// The same for an object that only its uid names.
pub(crate) fn dependent_failed(env: &Env, uid: &str, error: &str) {
    env.count("apiserver_reconcile_failed");
    tracing::warn!(
        controller = "garbage-collector",
        uid,
        error,
        "dependent not collected; it is tried again"
    );
}

/// A controller that begins anew has waited long enough for the requests of its predecessor.
pub(crate) fn requests_unanswered(env: &Env, controller: &str) {
    env.count("apiserver_requests_unanswered");
    tracing::warn!(
        controller,
        "requests from before the restart are not answered yet; the controller lists without them"
    );
}

/// An object is there and could not be read: what was known of it stays. Once until that changes.
pub(crate) fn object_unreadable(env: &Env, resource: &str, object: &NamespacedName, why: &str) {
    env.count("apiserver_object_unreadable");
    tracing::warn!(resource, %object, why, "the object cannot be read; what was known of it stays");
}

/// A watch was interrupted; it goes on or lists again by itself.
pub(crate) fn watch_interrupted(env: &Env, resource: &str, reason: &str) {
    env.count("apiserver_watch_interrupted");
    tracing::warn!(resource, reason, "watch interrupted");
}

/// The kinds that are served could not be discovered; it is tried again.
pub(crate) fn discovery_failed(env: &Env, reason: &str) {
    env.count("apiserver_discovery_failed");
    tracing::warn!(reason, "kinds not discovered; it is tried again");
}

/// An Event object could not be written.
pub(crate) fn event_not_written(env: &Env, component: &str, reason: &str, error: &str) {
    env.count("apiserver_event_not_written");
    tracing::debug!(component, reason, error, "event not written");
}

/// Event objects went whose time was over.
pub(crate) fn events_expired(env: &Env, removed: u64) {
    env.metrics().add("apiserver_events_expired", removed);
    tracing::debug!(removed, "events removed: their time was over");
}

/// Event objects whose time is over could not be removed.
pub(crate) fn events_not_removed(env: &Env, error: &str) {
    env.count("apiserver_events_not_removed");
    tracing::warn!(error, "events whose time is over are still there; it is tried again");
}

/// A node has been silent for its grace period.
pub(crate) fn node_not_ready(env: &Env, node: &str) {
    env.count("apiserver_node_not_ready");
    tracing::warn!(node, "node is silent; it is not ready any more");
}

/// A pod went whose node does not exist.
pub(crate) fn orphaned_pod_removed(env: &Env, pod: &NamespacedName) {
    env.count("apiserver_orphaned_pod_removed");
    tracing::info!(%pod, "pod removed: its node does not exist");
}

/// A pod went that had ended, as there were too many of them.
pub(crate) fn ended_pod_removed(env: &Env, pod: &NamespacedName) {
    env.count("apiserver_ended_pod_removed");
    tracing::info!(%pod, "pod removed: it had ended, and there were too many of these");
}

/// A dependent went that no owner is left of.
pub(crate) fn dependent_removed(env: &Env, kind: &str, object: &NamespacedName) {
    env.count("apiserver_dependent_removed");
    tracing::debug!(kind, %object, "removed: no owner is left");
}
