//! The mapper's named events: each is one line of the log and one counter of the hive.

use std::io;

use apimachinery::NamespacedName;
use beehive::Env;

use crate::error::{InvalidSetting, PanelError};

pub(crate) fn registered(env: &Env, devices: usize, models: usize) {
    env.count("mapper_registrations");
    tracing::info!(devices, models, "registered at edgecore");
}

pub(crate) fn registration_failed(env: &Env, reason: &str, is_new: bool) {
    env.count("mapper_registrations_failed");
    if is_new {
        tracing::warn!(reason, "cannot register at edgecore; will retry");
    }
}

pub(crate) fn registration_refused(env: &Env, error: &PanelError) {
    env.count("mapper_objects_refused");
    tracing::warn!(%error, "part of what edgecore handed out was not taken");
}

pub(crate) fn socket_gone(env: &Env, socket: &std::path::Path) {
    env.count("mapper_socket_gone");
    tracing::warn!(socket = %socket.display(), "somebody took the mapper's socket away; it is made anew, and the mapper registers again");
}

pub(crate) fn edgecore_lost(env: &Env) {
    env.count("mapper_edgecore_lost");
    tracing::warn!("edgecore went away; registering again");
}

pub(crate) fn device_not_honoured(env: &Env, device: &NamespacedName, warning: &str) {
    env.count("mapper_device_warnings");
    tracing::warn!(%device, warning, "part of the device is not honoured");
}

pub(crate) fn device_refused(env: &Env, device: &NamespacedName, refusal: &InvalidSetting) {
    env.count("mapper_devices_refused");
    tracing::warn!(%device, %refusal, "device cannot be served as it is described");
}

/// The device's actor failed and has been started again.
pub(crate) fn device_restarted(env: &Env, device: &NamespacedName, failures: usize) {
    env.count("mapper_devices_restarted");
    tracing::warn!(%device, failures, "the device's actor failed and was started again");
}

/// It failed too often: its protocol is left alone for a while.
pub(crate) fn device_unhealthy(env: &Env, device: &NamespacedName, retry_s: u64) {
    env.count("mapper_devices_unhealthy");
    tracing::error!(%device, retry_s, "the device's protocol fails again and again: it is unhealthy and tried again later");
}

pub(crate) fn device_online(env: &Env, device: &NamespacedName) {
    env.count("mapper_devices_online");
    tracing::info!(%device, "the device answers again");
}

pub(crate) fn device_offline(env: &Env, device: &NamespacedName, fault: &str, is_new: bool) {
    env.count("mapper_devices_offline");
    if is_new {
        tracing::warn!(%device, fault, "the device is out of reach; will retry");
    }
}

pub(crate) fn method_called(env: &Env, device: &NamespacedName, method: &str, property: &str, value: &str) {
    env.count("mapper_methods_called");
    tracing::info!(%device, method, property, value, "method called over REST");
}

pub(crate) fn desired_written(env: &Env, device: &NamespacedName, property: &str, value: &str) {
    env.count("mapper_desired_values_written");
    tracing::info!(%device, property, value, "desired value written");
}

pub(crate) fn desired_not_written(
    env: &Env,
    device: &NamespacedName,
    property: &str,
    reason: &str,
    is_new: bool,
) {
    env.count("mapper_desired_values_not_written");
    if is_new {
        tracing::warn!(%device, property, reason, "desired value not written");
    }
}

pub(crate) fn property_unreadable(
    env: &Env,
    device: &NamespacedName,
    property: &str,
    reason: &str,
    is_new: bool,
) {
    env.count("mapper_reads_failed");
    if is_new {
        tracing::warn!(%device, property, reason, "the property cannot be read; will retry");
    }
}

pub(crate) fn property_readable(device: &NamespacedName, property: &str) {
    tracing::info!(%device, property, "the property can be read again");
}

/// There is a value, which the device doubts.
pub(crate) fn property_in_doubt(
    env: &Env,
    device: &NamespacedName,
    property: &str,
    reason: &str,
    is_new: bool,
) {
    env.count("mapper_properties_in_doubt");
    if is_new {
        tracing::warn!(%device, property, reason, "the device doubts the property's value");
    }
}

/// A detector has found it.
pub(crate) fn anomaly_found(env: &Env, device: &NamespacedName, property: &str, reason: &str, is_new: bool) {
    env.count("mapper_anomalies");
    if is_new {
        tracing::warn!(%device, property, reason, "a reading is an anomaly");
    }
}

pub(crate) fn property_without_value(
    env: &Env,
    device: &NamespacedName,
    property: &str,
    reason: &str,
    is_new: bool,
) {
    env.count("mapper_reads_without_value");
    if is_new {
        tracing::info!(%device, property, reason, "the property has no value now");
    }
}

pub(crate) fn command_given_up(env: &Env, device: &NamespacedName, property: &str, reason: &str) {
    env.count("mapper_commands_given_up");
    tracing::warn!(%device, property, reason, "command not done; it is not sent again");
}

pub(crate) fn command_not_noted(env: &Env, device: &NamespacedName, property: &str, reason: &str) {
    env.count("mapper_commands_not_noted");
    tracing::warn!(%device, property, reason, "what came of a command is not noted; after a restart it counts as unknown");
}

/// edgecore would refuse it, and is not asked.
pub(crate) fn value_untaken(env: &Env, device: &NamespacedName, property: &str, reason: &str) {
    env.count("mapper_values_not_sent");
    tracing::warn!(%device, property, reason, "edgecore takes no such value; the reason is reported in its place");
}

pub(crate) fn report_rejected(env: &Env, device: &NamespacedName, what: &str, reason: &str) {
    env.count("mapper_reports_rejected");
    tracing::warn!(%device, what, reason, "edgecore refused a report; it is not sent again until it changes");
}

pub(crate) fn report_deferred(env: &Env, device: &NamespacedName, reason: &str, is_new: bool) {
    env.count("mapper_reports_deferred");
    if is_new {
        tracing::warn!(%device, reason, "edgecore did not take a report; will retry");
    }
}

/// A target of `pushMethod` takes nothing.
pub(crate) fn push_target_away(env: &Env, target: &str, reason: &str, is_new: bool) {
    env.count("mapper_push_tries_failed");
    if is_new {
        tracing::warn!(to = target, reason, "readings cannot be pushed; they wait, and it is tried again");
    }
}

pub(crate) fn push_target_back(env: &Env, target: &str, waiting: usize) {
    env.count("mapper_push_targets_back");
    tracing::info!(to = target, waiting, "readings can be pushed again");
}

pub(crate) fn push_refused(
    env: &Env,
    device: &NamespacedName,
    property: &str,
    target: &str,
    reason: &str,
    is_new: bool,
) {
    env.count("mapper_readings_refused");
    if is_new {
        tracing::warn!(%device, property, to = target, reason, "a reading was refused and is lost");
    }
}

/// There was no room for them.
pub(crate) fn push_lost(env: &Env, count: usize) {
    env.metrics().add("mapper_readings_lost", count as u64);
}

/// They waited when the mapper before ended.
pub(crate) fn push_taken_up(target: &str, count: usize) {
    tracing::info!(to = target, count, "readings have waited for their target since before this start");
}

pub(crate) fn push_not_read(target: &str, error: &io::Error) {
    tracing::warn!(to = target, %error, "readings that waited for their target before this start cannot be read");
}

pub(crate) fn push_not_removed(error: &io::Error) {
    tracing::warn!(%error, "readings for targets where no device pushes any more stay on the disk");
}

/// They wait in memory alone.
pub(crate) fn push_not_kept(env: &Env, target: &str, reason: &str, is_new: bool) {
    env.count("mapper_push_writes_failed");
    if is_new {
        tracing::warn!(
            to = target,
            reason,
            "readings that wait are not on the disk; they are lost if the mapper ends"
        );
    }
}

pub(crate) fn push_left(env: &Env, target: &str, count: usize) {
    env.metrics().add("mapper_readings_lost", count as u64);
    tracing::warn!(
        to = target,
        count,
        "readings that waited for their target are lost, with the mapper or with the last device that pushed there"
    );
}
