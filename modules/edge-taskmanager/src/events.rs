//! Named events: each is one log line and one counter.

use beehive::Env;

use crate::plan::Progress;
use crate::task::Task;

/// A part has come, or has ended.
pub(crate) fn moved(env: &Env, task: &Task, progress: &Progress) {
    env.count("taskmanager_part_moved");
    let (kind, job, uid) = (task.kind.word(), &task.job, &task.uid);
    let (phase, reason) = (progress.phase.word(), &progress.reason);
    tracing::info!(kind, job, uid, phase, reason, "a part of a job");
}

/// The job has gone before the part was through.
pub(crate) fn abandoned(env: &Env, uid: &str) {
    env.count("taskmanager_part_abandoned");
    tracing::info!(uid, "a part of a job is given up: the cloud does not want it any more");
}

/// The store cannot be read, or did not take how far parts are; tried again.
pub(crate) fn not_kept(env: &Env, reason: &str) {
    env.count("taskmanager_not_kept");
    tracing::warn!(reason, "how far parts of jobs are is not kept; tried again");
}

/// An installation package that nobody waits for stays on the disk; tried again.
pub(crate) fn package_stays(env: &Env, error: &std::io::Error) {
    env.count("taskmanager_package_stays");
    tracing::warn!(%error, "installation packages of jobs that are over stay on the disk; tried again");
}
