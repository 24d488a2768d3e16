//! What is written so that pods stay or go.

use beehive::Env;
use contract::ObjectKey;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};

use super::kept::Eviction;
use crate::error::is_final;
use crate::{events, last_status, plan};

/// Lifts the end of the tolerations of a pod.
pub(crate) async fn lift(client: &kube::Client, env: &Env, key: &ObjectKey, tolerations: Value) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &key.namespace);
    let patch = json!({ "spec": { "tolerations": tolerations } });
    if let Err(error) = pods.patch(&key.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        events::tolerations_not_lifted(env, key, &error.to_string());
    }
}

/// Evicts a pod as Kubernetes' taint eviction controller does, if the server says the same of it and of its node as was known here.
pub(crate) async fn evict(client: &kube::Client, env: &Env, eviction: &Eviction) {
    match try_evict(client, env, eviction).await {
        Ok(true) => events::pod_evicted(env, &eviction.key, &eviction.node),
        Ok(false) => {}
        // It is gone, or another one.
        Err(error) if is_final(&error) => {}
        Err(error) => events::pod_not_evicted(env, &eviction.key, &error.to_string()),
    }
}

async fn try_evict(client: &kube::Client, env: &Env, eviction: &Eviction) -> Result<bool, kube::Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    // Without its Node it is the garbage collector's.
    let Some(node) = nodes.get_opt(eviction.node.as_str()).await? else { return Ok(false) };
    if !is_cut_off(&node) {
        return Ok(false);
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), &eviction.key.namespace);
    let Some(pod) = pods.get_opt(&eviction.key.name).await? else { return Ok(false) };
    let metadata = &pod.metadata;
    let asks = plan::asks_for_eviction(&json!({ "metadata": { "labels": metadata.labels } }));
    if metadata.uid.as_ref() != Some(&eviction.uid) || metadata.deletion_timestamp.is_some() || !asks {
        return Ok(false);
    }
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint",
        "observedGeneration": metadata.generation, "lastTransitionTime": last_status::now(env),
    });
    let patch = json!({ "metadata": { "uid": eviction.uid }, "status": { "conditions": [condition] } });
    let name = &eviction.key.name;
    pods.patch_status(name, &PatchParams::default(), &Patch::Strategic(&patch)).await?;
    let same = Preconditions { uid: Some(eviction.uid.clone()), resource_version: None };
    pods.delete(name, &DeleteParams { preconditions: Some(same), ..DeleteParams::default() }).await?;
    Ok(true)
}

fn is_cut_off(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| {
        condition.type_ == "Ready" && matches!(condition.status.as_str(), "False" | "Unknown")
    })
}
