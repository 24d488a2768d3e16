//! ContainerManager's named events: each is one line of the log and one counter of the hive.

use beehive::Env;

use crate::error::PluginError;

/// A plugin has registered.
pub(crate) fn plugin_registered(env: &Env, resource: &str, endpoint: &str) {
    env.count("containermanager_plugins_registered");
    tracing::info!(resource, endpoint, "a device plugin has registered");
}

/// A plugin is gone; its devices count as unhealthy until it is back.
pub(crate) fn plugin_gone(env: &Env, resource: &str, reason: &str) {
    env.count("containermanager_plugins_gone");
    tracing::warn!(
        resource,
        reason,
        "a device plugin is gone: its devices count as unhealthy until it is back"
    );
}

/// A plugin has listed devices that nobody can be given.
pub(crate) fn devices_without_name(env: &Env, resource: &str, devices: usize) {
    env.count("containermanager_devices_without_name");
    tracing::warn!(
        resource,
        devices,
        "devices whose names are empty or longer than 1 KiB are passed over: nobody can be given them"
    );
}

/// A plugin has been away, or has told of no device, for too long.
pub(crate) fn plugin_expired(env: &Env, resource: &str) {
    env.count("containermanager_plugins_expired");
    tracing::warn!(
        resource,
        "a device plugin has been away, or has told of no device, for 5 min: the node has none of its devices"
    );
}

/// A registration was not taken.
pub(crate) fn registration_refused(env: &Env, resource: &str, reason: &str) {
    env.count("containermanager_registrations_refused");
    let resource: String = resource.chars().take(128).collect();
    tracing::warn!(resource, reason, "a device plugin may not register");
}

/// A pod can't have what it asks for.
pub(crate) fn pod_rejected(env: &Env, namespace: &str, name: &str, message: &str) {
    env.count("containermanager_pods_rejected");
    tracing::warn!(namespace, pod = name, message, "a pod can't have its devices, CPUs or memory");
}

/// A plugin refused a call, or failed at it.
pub(crate) fn call_failed(env: &Env, resource: &str, call: &str, error: &PluginError) {
    env.count("containermanager_calls_failed");
    tracing::warn!(resource, call, %error, "a device plugin did not answer as it should");
}

/// What pods have could not be written to the store.
pub(crate) fn not_kept(env: &Env, error: &str) {
    env.count("containermanager_allocations_not_kept");
    tracing::error!(error, "what pods have could not be kept");
}

/// A socket is not served.
pub(crate) fn not_served(env: &Env, socket: &str, reason: &str) {
    env.count("containermanager_sockets_not_served");
    tracing::error!(socket, reason, "a socket is not served, and is tried again");
}

/// A container that runs could not be told its CPUs; it is tried again.
pub(crate) fn not_pinned(env: &Env, container: &str, error: &cri::Error) {
    env.count("containermanager_containers_not_pinned");
    tracing::warn!(container, %error, "a container could not be told on which CPUs it runs");
}

/// A container has memory of NUMA nodes that the machine, or the policy of today, does not have any more.
pub(crate) fn memory_differs(env: &Env, pod: &str, container: &str) {
    env.count("containermanager_memory_differs");
    tracing::warn!(
        pod,
        container,
        "a container has memory of NUMA nodes that are not managed any more: it runs on as it is, and nothing is kept for it"
    );
}
