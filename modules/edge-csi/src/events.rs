//! Named events: each is one log line and one counter.

use std::path::Path;

use beehive::{Env, Metrics};
use contract::csi_call::CsiCall;
use tonic::Status;

/// A driver is registered.
pub(crate) fn driver_registered(env: &Env, driver: &str, endpoint: &Path) {
    env.count("csi_driver_registered");
    tracing::info!(driver, endpoint = %endpoint.display(), "CSI driver registered");
}

/// A driver's registrar is gone.
pub(crate) fn driver_gone(env: &Env, driver: &str) {
    env.count("csi_driver_gone");
    tracing::info!(driver, "CSI driver is registered no more");
}

/// A plugin could not be registered; tried again while its socket is there.
pub(crate) fn registration_failed(env: &Env, socket: &Path, reason: &str) {
    env.count("csi_registration_failed");
    tracing::warn!(socket = %socket.display(), reason, "plugin not registered; tried again while its socket is there");
}

/// A volume was staged for the node, by a call.
pub(crate) fn volume_staged(env: &Env, driver: &str, handle: &str) {
    env.count("csi_volume_staged");
    tracing::info!(driver, handle, "volume staged");
}

/// A volume was published for a pod, by a call.
pub(crate) fn volume_published(env: &Env, driver: &str, handle: &str, pod: &str) {
    env.count("csi_volume_published");
    tracing::info!(driver, handle, pod, "volume published");
}

/// A volume was made larger, by a call.
pub(crate) fn volume_expanded(env: &Env, driver: &str, handle: &str, bytes: i64) {
    env.count("csi_volume_expanded");
    tracing::info!(driver, handle, bytes, "volume expanded");
}

/// A pod's volume was unpublished.
pub(crate) fn volume_unpublished(env: &Env, driver: &str, handle: &str, pod: &str) {
    env.count("csi_volume_unpublished");
    tracing::info!(driver, handle, pod, "volume unpublished");
}

/// A volume that no pod has any more was unstaged.
pub(crate) fn volume_unstaged(env: &Env, driver: &str, handle: &str) {
    env.count("csi_volume_unstaged");
    tracing::info!(driver, handle, "volume unstaged");
}

/// It could not be; tried again.
pub(crate) fn volume_not_unstaged(env: &Env, driver: &str, handle: &str, reason: &str) {
    env.count("csi_volume_not_unstaged");
    tracing::warn!(driver, handle, reason, "volume not unstaged; tried again");
}

/// The folders for drivers and registrars could not be made.
pub(crate) fn folders_not_made(env: &Env, reason: &str) {
    env.count("csi_folders_not_made");
    tracing::error!(reason, "folders for CSI drivers cannot be made");
}

/// The folders of plugins or volumes could not be read.
pub(crate) fn folder_unreadable(env: &Env, reason: &str) {
    env.count("csi_folder_unreadable");
    tracing::warn!(reason, "folder of CSI cannot be read");
}

/// A driver's controller service was called for the cloud, or was not.
pub(crate) fn controller_called(metrics: &Metrics, call: &CsiCall, refused: Option<&Status>) {
    let (driver, method) = (call.driver(), call.method());
    match refused {
        None => {
            metrics.add("csi_controller_called", 1);
            tracing::info!(driver, method, "CSI driver called for the cloud");
        }
        Some(status) => {
            metrics.add("csi_controller_call_refused", 1);
            let (code, reason) = (status.code(), status.message());
            tracing::warn!(driver, method, ?code, reason, "a call of a CSI driver for the cloud has failed");
        }
    }
}
