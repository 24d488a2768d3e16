//! Edged's named events: each is one line of the log and one counter of the hive.
//!
//! What happens to a pod is also an Event object of it: see [`crate::pod::recorder`].

use std::time::Duration;

use beehive::Env;
use nodechecks::Finding;

use crate::pod::id::PodId;

/// A worker of a pod failed and was started again; `before` times by now. The pod's event is the log's line.
pub(crate) fn worker_restarted(env: &Env, pod: &PodId, before: u32) {
    env.count("edged_pod_workers_restarted");
    tracing::debug!(pod = %pod.name, namespace = %pod.namespace, uid = %pod.uid, before, "worker of a pod was restarted");
}

/// The runs before ended by themselves, one soon after the other: this one begins its pods with care. The node's event says it, too.
pub(crate) fn careful_start(env: &Env, ends: u32) {
    env.count("edged_careful_starts");
    tracing::warn!(
        ends,
        "edgecore was ended without a word several times in a row: the link comes first, and pods begin a few at a time"
    );
}

/// A run that needed care has lived on with all that it began. The node's event says it, too.
pub(crate) fn careful_start_over(env: &Env) {
    env.count("edged_careful_starts_over");
    tracing::info!("the careful start is over: pods begin as they come");
}

/// Pods are begun in a run that needs care.
pub(crate) fn pods_begin_with_care(env: &Env, begun: usize, held: usize) {
    env.count("edged_pods_begun_with_care");
    tracing::info!(begun, held, "pods begin with care");
}

/// A pod is known to end EdgeCore, and does not begin with the others. Its event and the node's say it, too.
pub(crate) fn pod_held_back(env: &Env, pod: &PodId, text: &str) {
    env.count("edged_pods_held_back");
    tracing::warn!(pod = %pod.name, namespace = %pod.namespace, uid = %pod.uid, "{text}");
}

/// The node's own word is another one: its condition Ready is True now, or is so no more. What `keadm upgrade edge` waits for: the
/// node is ready while it became so once more often than not.
pub(crate) fn node_readiness(env: &Env, is_ready: bool) {
    env.count(if is_ready { "edged_node_became_ready" } else { "edged_node_became_unready" });
}

/// Nothing of a pod is left.
pub(crate) fn pod_removed(env: &Env, pod: &PodId) {
    env.count("edged_pods_removed");
    tracing::info!(pod = %pod.name, namespace = %pod.namespace, uid = %pod.uid, "pod is removed");
}

/// Something runs, or lies on the disk, of a pod that the store doesn't name: it ends.
pub(crate) fn orphan_terminated(env: &Env, pod: &PodId) {
    env.count("edged_orphans_terminated");
    tracing::info!(pod = %pod.name, namespace = %pod.namespace, uid = %pod.uid, "pod is not in the store and ends");
}

/// As before, but the store cannot say that nobody wants it.
pub(crate) fn orphan_kept(env: &Env, pod: &PodId) {
    env.count("edged_orphans_kept");
    tracing::warn!(
        pod = %pod.name,
        uid = %pod.uid,
        "pod is not in the store, which is new, has lost rows or was another daemon's: left alone. After a join edgecore ends it at its \
         second start, if nobody wants it, unless the node came from KubeEdge; `crictl rmp` ends it now"
    );
}

/// The store cannot be read.
pub(crate) fn store_unreadable(env: &Env, error: &dyn std::fmt::Display) {
    env.count("edged_store_unreadable");
    tracing::error!(%error, "store cannot be read: pods go on as they are");
}

/// The runtime tells that something is not as it should be that takes no node down, as that its configuration is deprecated.
pub(crate) fn runtime_complains(env: &Env, what: &str) {
    env.count("edged_runtime_complaints");
    tracing::warn!(
        what,
        "container runtime tells of a condition that is not met: the node is ready all the same"
    );
}

/// The kernel did not take the weights of the classes of pods. It is tried again with each report of the node.
pub(crate) fn classes_not_weighed(env: &Env, error: &dyn std::fmt::Display) {
    env.count("edged_class_weights_not_written");
    tracing::debug!(%error, "weights of the classes of pods could not be written");
}

/// All pods together could not be bounded. It is tried again with each report of the node, whose event says it.
pub(crate) fn pods_not_bounded(env: &Env, error: &dyn std::fmt::Display) {
    env.count("edged_node_allocatable_not_enforced");
    tracing::debug!(%error, "all pods together could not be bounded");
}

/// A status, an end, an event of a pod or the node's report could not be put into the outbox.
pub(crate) fn report_not_kept(env: &Env, what: &str, error: &str) {
    env.count("edged_reports_not_kept");
    tracing::error!(what, error, "report could not be kept");
}

/// The runtime makes cgroups in another way than it was said: no pod is started.
pub(crate) fn cgroup_driver_mismatch(env: &Env, what: &str) {
    env.count("edged_cgroup_driver_mismatches");
    tracing::error!(what, "no pod is started: cgroups are made in two ways");
}

/// A step that has to succeed some day did not. The pod's event is the log's line.
pub(crate) fn step_failed(env: &Env, pod: &PodId, step: &dyn std::fmt::Debug, error: &dyn std::fmt::Display) {
    env.count("edged_pod_steps_failed");
    tracing::debug!(pod = %pod.name, namespace = %pod.namespace, ?step, %error, "step failed and is tried again");
}

/// The runtime cannot be asked what it has. Said once until it answers again.
pub(crate) fn runtime_lost(env: &Env, error: &cri::Error) {
    env.count("edged_runtime_lost");
    tracing::warn!(%error, "runtime cannot be asked what it has");
}

/// The runtime answers again.
pub(crate) fn runtime_found(env: &Env) {
    env.count("edged_runtime_found");
    tracing::info!("runtime answers again");
}

/// The stream of the runtime's events broke off.
pub(crate) fn runtime_events_interrupted(env: &Env, error: &cri::Error) {
    env.count("edged_runtime_events_interrupted");
    tracing::warn!(%error, "runtime's events broke off");
}

/// The runtime has no events.
pub(crate) fn runtime_without_events(env: &Env, every: Duration) {
    env.count("edged_runtime_without_events");
    tracing::warn!(?every, "runtime tells of no events and is listed from time to time");
}

/// A folder of Edged's was open to other users of the machine, and was closed.
pub(crate) fn folder_closed(env: &Env, repaired: &str) {
    env.count("edged_folders_closed");
    tracing::warn!("other users of this machine could look into pods: {repaired}");
}

/// No report of the node could be made for so long that Edged does not count as alive.
pub(crate) fn node_report_stuck(env: &Env) {
    env.count("edged_node_reports_stuck");
    tracing::error!("no report of the node could be made for a minute: edged does not count as alive");
}

/// The machine cannot be looked at.
pub(crate) fn machine_unreadable(env: &Env, error: &dyn std::fmt::Display) {
    env.count("edged_machine_unreadable");
    tracing::error!(%error, "machine cannot be looked at");
}

/// The log of a container has reached its size and was rotated.
pub(crate) fn log_rotated(env: &Env, log: &dyn std::fmt::Display, size: u64) {
    env.count("edged_logs_rotated");
    tracing::debug!(%log, size, "log is rotated");
}

/// A log could not be rotated, and is looked at again. Said once for a container, until it can be.
pub(crate) fn log_not_rotated(env: &Env, log: &dyn std::fmt::Display, error: &dyn std::fmt::Display) {
    env.count("edged_logs_not_rotated");
    tracing::warn!(%log, %error, "log cannot be rotated and grows");
}

/// An image that nothing uses was removed.
pub(crate) fn image_removed(env: &Env, id: &str, size: u64) {
    env.count("edged_images_removed");
    tracing::info!(id, size, "image that nothing uses is removed");
}

/// The node is short of something, of something else, still, or not any more (`None`).
pub(crate) fn shortages_changed(env: &Env, short_of: Option<&str>) {
    env.count("edged_pressure_changes");
    match short_of {
        Some(signals) => tracing::warn!(signals, "node is short of something"),
        None => tracing::info!("node is short of nothing any more"),
    }
}

/// The node cannot be measured: nothing is done against a shortage.
pub(crate) fn node_not_measured(env: &Env, error: &dyn std::fmt::Display) {
    env.count("edged_nodes_not_measured");
    tracing::warn!(%error, "node cannot be measured");
}

/// The node cannot count what a pod has on the disk: it does not go for that.
pub(crate) fn pod_disk_unknown(env: &Env, pod: &PodId, error: &dyn std::fmt::Display) {
    env.count("edged_pod_disks_unknown");
    tracing::warn!(pod = %pod.name, namespace = %pod.namespace, uid = %pod.uid, %error, "what a pod has on the disk is not known");
}

/// Images that nothing uses could not be removed although the disk is full.
pub(crate) fn unused_images_stay(env: &Env, error: &dyn std::fmt::Display) {
    env.count("edged_unused_images_stay");
    tracing::warn!(%error, "images that nothing uses stay although the disk is full");
}

/// The runtime does not say what pods use: none goes for it.
pub(crate) fn use_unknown(env: &Env, error: &cri::Error) {
    env.count("edged_pod_use_unknown");
    tracing::warn!(%error, "the runtime does not say what pods use: none is evicted until it does");
}

/// logind waits for the node's pods at the machine's end.
pub(crate) fn shutdown_inhibited(env: &Env, longest: Duration) {
    env.count("edged_shutdown_inhibited");
    tracing::info!(?longest, "logind waits for the node's pods when the machine ends");
}

/// logind waits for a shorter time than pods are given.
pub(crate) fn shutdown_delay_short(env: &Env, delay: Duration, wanted: Duration) {
    env.count("edged_shutdown_delay_short");
    tracing::warn!(
        ?delay,
        ?wanted,
        "logind waits shorter than shutdownGracePeriod: set InhibitDelayMaxSec in logind.conf"
    );
}

/// logind cannot be reached: the machine would end without a word to the pods. When that is said is in
/// [`Silence`](crate::shutdown::plan::Silence).
pub(crate) fn logind_lost(env: &Env, error: &std::io::Error) {
    env.count("edged_logind_lost");
    tracing::warn!(%error, "logind cannot be reached: pods do not end in order when the machine does");
}

/// The machine is to end, or is not any more.
pub(crate) fn shutdown_changed(env: &Env, begins: bool) {
    env.count("edged_shutdowns");
    if begins {
        tracing::info!("the machine is to end, by logind: pods end first");
    } else {
        tracing::info!("the machine does not end after all, by logind");
    }
}

/// All pods have ended before the machine, or have had their time.
pub(crate) fn shutdown_pods_ended(env: &Env) {
    env.count("edged_shutdown_pods_ended");
    tracing::info!("the node's pods have ended or have had their time: the machine may end");
}

/// A file that should describe a static pod does not.
pub(crate) fn static_pod_refused(env: &Env, text: &str) {
    env.count("edged_static_pods_refused");
    tracing::warn!("{text}");
}

/// The files of static pods cannot be looked at: the pods go on as they are.
pub(crate) fn static_pods_unreadable(env: &Env, why: &str) {
    env.count("edged_static_pods_unreadable");
    tracing::error!(why, "static pods cannot be looked at and go on as they are");
}

/// The kernel does not tell of changes to the files of static pods.
pub(crate) fn static_pods_unwatched(env: &Env, error: &std::io::Error) {
    env.count("edged_static_pods_unwatched");
    tracing::warn!(%error, "files of static pods are looked at from time to time: the kernel tells of no changes");
}

/// A pod has to go because the node is short of something.
pub(crate) fn pod_evicted(env: &Env, pod: &PodId, message: &str) {
    env.count("edged_pods_evicted");
    tracing::warn!(pod = %pod.name, namespace = %pod.namespace, uid = %pod.uid, message, "pod is evicted");
}

/// A check of the machine fails that did not, or for another reason. The node's condition `kubehive.io/Checks` says it, too.
pub(crate) fn check_failed(env: &Env, finding: &Finding) {
    env.count("edged_checks_failed");
    tracing::warn!(check = finding.check, "check of this machine fails: {}", finding.says);
}

/// A check of the machine failed, and does so no more.
pub(crate) fn check_passed(env: &Env, check: &str) {
    env.count("edged_checks_passed_again");
    tracing::info!(check, "check of this machine passes again");
}
