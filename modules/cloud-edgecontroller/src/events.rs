//! Named events: each is one log line and one counter.

use beehive::Env;
use contract::cloudstream::KubeletEndpoint;
use contract::ids::{Namespace, ObjectName};
use contract::{NodeName, ObjectKey};

use crate::reported_fields::LeftOut;

/// A report could not be written now; the node sends it again, soon. `times`, in a row for this reason, thins out the log.
pub(crate) fn report_not_written(env: &Env, node: &NodeName, about: &str, reason: &str, times: u64) {
    env.count("edgecontroller_report_not_written");
    if fairshare::is_logged(times) {
        tracing::warn!(%node, about, reason, times, "report not written; the node sends it again");
    }
}

/// That a pod is not read could not be said in an Event.
pub(crate) fn unread_pod_not_named(env: &Env, pod: &ObjectKey, reason: &str) {
    env.count("edgecontroller_unread_pod_not_named");
    tracing::warn!(%pod, reason, "that the pod is not read is not said in an Event");
}

/// A node said more events than it may; `times`, counted of this node, thins out the log.
pub(crate) fn events_dropped(env: &Env, node: &NodeName, times: u64) {
    env.count("edgecontroller_event_dropped");
    if fairshare::is_logged(times) {
        tracing::warn!(%node, dropped = times, "the node says more events than it may");
    }
}

/// A request for a token has an odd name or size.
pub(crate) fn token_request_refused(env: &Env, node: &NodeName, reason: &str) {
    env.count("edgecontroller_token_request_refused");
    tracing::debug!(%node, reason, "request for a token refused");
}

/// A node asks for more tokens than it may, and waits. What it asks in vain is its own, and the log is not.
pub(crate) fn token_delayed(env: &Env, node: &NodeName) {
    env.count("edgecontroller_token_delayed");
    tracing::debug!(%node, "the node asks for more tokens than it may, and waits");
}

/// A node reported for the first time, and its Node was made.
pub(crate) fn node_registered(env: &Env, node: &NodeName) {
    env.count("edgecontroller_node_registered");
    tracing::info!(%node, "node registered");
}

/// A Node does not say by its label that it is CloudCore's; tried again in its node's next session.
pub(crate) fn own_not_said(env: &Env, node: &NodeName, reason: &str) {
    env.count("edgecontroller_own_not_said");
    tracing::warn!(%node, reason, "the Node got no label kubehive.io/own, so that policies look at it whenever a node joins: bring the policies to this version (keadm init --force, or helm upgrade)");
}

/// A Node does not say of which system and architecture its node is; tried again in its node's next session.
pub(crate) fn default_labels_not_said(env: &Env, node: &NodeName, reason: &str) {
    env.count("edgecontroller_default_labels_not_said");
    tracing::warn!(%node, reason, "the Node did not get the labels of its node (kubernetes.io/hostname, os, arch), by which pods are placed: bring the policies to this version (keadm init --force, or helm upgrade)");
}

/// Fields of a report were left out, which no API server takes; `times`, counted of this node, thins out the log.
pub(crate) fn fields_left_out(env: &Env, node: &NodeName, of: &str, left_out: &LeftOut, times: u64) {
    env.count("edgecontroller_report_field_left_out");
    if fairshare::is_logged(times) {
        let (fields, count) = (left_out.named(), left_out.count());
        tracing::warn!(%node, of, ?fields, count, times, "what the node says there is nothing that an API server takes; the rest is written");
    }
}

/// The mirror of a static pod has no labels: its namespace does not let nodes choose them.
pub(crate) fn mirror_unlabelled(env: &Env, node: &NodeName, namespace: &Namespace, name: &ObjectName) {
    env.count("edgecontroller_mirror_unlabelled");
    tracing::info!(%node, %namespace, %name, "the mirror of a static pod is made without its labels; with them where the namespace has the label kubehive.io/mirror-labels=allowed");
}

/// A static pod of a node has its mirror.
pub(crate) fn mirror_made(env: &Env, node: &NodeName, namespace: &Namespace, name: &ObjectName) {
    env.count("edgecontroller_mirror_made");
    tracing::info!(%node, %namespace, %name, "mirror of a static pod made");
}

/// The API server does not allow the mirror of a static pod.
pub(crate) fn mirror_refused(
    env: &Env,
    node: &NodeName,
    namespace: &Namespace,
    name: &ObjectName,
    reason: &str,
) {
    env.count("edgecontroller_mirror_refused");
    tracing::warn!(%node, %namespace, %name, reason, "mirror of a static pod refused; its node asks for it again");
}

/// The tolerations of a pod could not be changed; the pod's next change tries again.
pub(crate) fn tolerations_not_lifted(env: &Env, key: &ObjectKey, reason: &str) {
    env.count("edgecontroller_tolerations_not_lifted");
    tracing::warn!(%key, reason, "tolerations not lifted; tried again when the pod changes");
}

/// The API server keeps pods on edge nodes that are cut off.
pub(crate) fn pods_stay_by_admission(env: &Env) {
    env.count("edgecontroller_pods_stay_by_admission");
    tracing::info!(
        "pods stay on edge nodes that are cut off: the API server takes the taints off their Nodes that would drive them away"
    );
}

/// CloudCore keeps them, by a change of each.
pub(crate) fn pods_stay_by_tolerations(env: &Env, why: &str) {
    env.count("edgecontroller_pods_stay_by_tolerations");
    tracing::warn!(
        why,
        "pods stay on edge nodes that are cut off because their tolerationSeconds are lifted, which counts as a change of their spec: the API server keeps them by itself with the policy of policies.keepPods (Kubernetes 1.36 and later)"
    );
}

/// The API server did not say who keeps them; asked again soon.
pub(crate) fn eviction_rule_not_found(env: &Env, reason: &str) {
    env.count("edgecontroller_eviction_rule_not_found");
    tracing::warn!(
        reason,
        "the API server did not say whether it keeps pods on edge nodes that are cut off; asked again"
    );
}

/// A pod that asks for it was evicted from a node that is cut off.
pub(crate) fn pod_evicted(env: &Env, key: &ObjectKey, node: &NodeName) {
    env.count("edgecontroller_pod_evicted");
    tracing::info!(%key, %node, "pod evicted: its node is cut off, and its tolerationSeconds are over");
}

/// That did not come about; it is tried again.
pub(crate) fn pod_not_evicted(env: &Env, key: &ObjectKey, reason: &str) {
    env.count("edgecontroller_pod_not_evicted");
    tracing::warn!(%key, reason, "pod not evicted; tried again");
}

/// A pod refers to more than is watched for it.
pub(crate) fn too_many_references(env: &Env, key: &ObjectKey, most: usize) {
    env.count("edgecontroller_too_many_references");
    tracing::warn!(%key, most, "the pod names more Secrets and config maps than are looked after");
}

/// A node's Node is gone or another one, and its link is still up: it is told nothing until its session has ended.
pub(crate) fn node_withheld(env: &Env, node: &NodeName) {
    env.count("edgecontroller_node_withheld");
    tracing::info!(%node, "node withheld: its Node is gone or another one, or has lost the label node-role.kubernetes.io/edge; until that is mended nothing is sent to it, and its pods run on");
}

/// Something that belongs on a node cannot be read: what the node has of it stays, and everything else goes there.
pub(crate) fn object_unread(env: &Env, node: &NodeName, key: &ObjectKey) {
    env.count("edgecontroller_object_unread");
    tracing::warn!(%node, %key, "the API server does not say what this is, which a pod on the node names: what the node has of it stays as it is, and all else is sent. `kubectl get` of it shows the API server's error");
}

/// A Node says where the kubelet endpoint of its node is.
pub(crate) fn endpoint_written(env: &Env, node: &NodeName, endpoint: &KubeletEndpoint) {
    env.count("edgecontroller_endpoint_written");
    let address = endpoint.address.map_or_else(|| "the node's own".to_owned(), |address| address.to_string());
    tracing::info!(%node, address, port = endpoint.port, "the Node says where its kubelet endpoint is");
}

/// A Node could not be written.
pub(crate) fn endpoint_not_written(env: &Env, node: &NodeName, reason: &str) {
    env.count("edgecontroller_endpoint_not_written");
    tracing::warn!(%node, reason, "the Node does not say yet where its kubelet endpoint is; tried again");
}

/// A Node said something else than its node reported, which is alive: what it reported last was written again.
pub(crate) fn status_said_again(env: &Env, node: &NodeName) {
    env.count("edgecontroller_status_said_again");
    tracing::info!(%node, "somebody wrote the Node's status while its node is alive; what the node reported is said again");
}

/// That could not be written now; the node's next sign of life tries again.
pub(crate) fn status_not_said_again(env: &Env, node: &NodeName, reason: &str) {
    env.count("edgecontroller_status_not_said_again");
    tracing::warn!(%node, reason, "the status of a Node not said again; tried at its next sign of life");
}
