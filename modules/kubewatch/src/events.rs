//! Named events: each is one log line and one counter.

use beehive::Env;
use contract::ObjectKey;

/// A watch of all objects of a kind broke off; it lists again after a pause. One line until it is whole: what the tries say until then
/// is no news.
pub(crate) fn watch_interrupted(env: &Env, resource: &str, error: &dyn std::fmt::Display, is_first: bool) {
    env.count("kubewatch_watch_interrupted");
    if is_first {
        tracing::warn!(resource, %error, "watch interrupted");
    } else {
        tracing::debug!(resource, %error, "watch still interrupted");
    }
}

/// A watch that broke off has listed again.
pub(crate) fn watch_whole_again(env: &Env, resource: &str) {
    env.count("kubewatch_watch_whole_again");
    tracing::info!(resource, "watch is whole again");
}

/// A watch of one object broke off; it lists again after a pause. One line until it has lived.
pub(crate) fn object_watch_interrupted(env: &Env, key: &ObjectKey, reason: &str, is_first: bool) {
    env.count("kubewatch_object_watch_interrupted");
    if is_first {
        tracing::warn!(%key, reason, "watch interrupted");
    } else {
        tracing::debug!(%key, reason, "watch still interrupted");
    }
}

/// An object is there and cannot be read: it is not sent to nodes. Once until that changes.
pub(crate) fn object_unreadable(env: &Env, key: &ObjectKey, why: &str) {
    env.count("kubewatch_object_unreadable");
    tracing::warn!(%key, why, "not sent: the object cannot be read; a node that holds its last version keeps that");
}

/// There is no room for an object: it is not sent to nodes. Once until that changes.
pub(crate) fn object_too_large(env: &Env, key: &ObjectKey, why: &str) {
    env.count("kubewatch_object_too_large");
    tracing::warn!(%key, why, "not sent: the object is not kept; a node that holds its last version keeps that");
}

/// An object may not be read; once until it could be.
pub(crate) fn object_forbidden(env: &Env, key: &ObjectKey, reason: &str, cure: &str) {
    env.count("kubewatch_object_forbidden");
    tracing::warn!(%key, reason, cure, "may not be read, and counts as not there");
}

/// More objects are needed at once than are watched.
pub(crate) fn too_many_objects(env: &Env, key: &ObjectKey, most: usize) {
    env.count("kubewatch_too_many_objects");
    tracing::warn!(%key, most, "not read: too many Secrets and config maps are needed at once");
}
