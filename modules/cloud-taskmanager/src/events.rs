//! Named events: each is one log line and one counter.

use beehive::Env;
use contract::ObjectKey;

/// A job is another one than before in what people look at.
pub(crate) fn job_moved(env: &Env, job: &ObjectKey, phase: &str, reason: &str) {
    env.count("taskmanager_job_moved");
    tracing::info!(%job, phase, reason, "a job on nodes");
}

/// The status of a job could not be written; it is tried again.
pub(crate) fn status_not_written(env: &Env, job: &ObjectKey, reason: &str) {
    env.count("taskmanager_status_not_written");
    tracing::warn!(%job, reason, "the status of the job was not written");
}

/// The Secret of a job's registries could not be read; it is tried again.
pub(crate) fn secret_unread(env: &Env, reason: &str) {
    env.count("taskmanager_secret_unread");
    tracing::warn!(reason, "the Secret of a job was not read");
}

/// A job names a node that is another CloudCore's, and is left alone.
pub(crate) fn job_left_alone(env: &Env, job: &ObjectKey) {
    env.count("taskmanager_job_left_alone");
    tracing::warn!(
        %job,
        "the job names an edge node that is not CloudCore's (KubeEdge's?), and is left alone: make one job for the nodes of each"
    );
}
