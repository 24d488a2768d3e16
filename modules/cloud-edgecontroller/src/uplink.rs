//! Writes what nodes report to the API server.

use std::time::Duration;

use beehive::Fault;
use contract::{NodeName, TokenGrant, TokenQuery, UpReport};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Node, Pod, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};

use crate::plan;

/// Where nodes' Leases live.
pub(crate) const LEASE_NAMESPACE: &str = "kube-node-lease";
/// 40 s: how long a Lease counts (kubelet's default).
const LEASE_SECONDS: i32 = 40;
/// The longest token that is asked for: a day. The API server may grant less.
const TOKEN_SECONDS_MAX: i64 = 86_400;

/// Why a report could not be written now. Whatever can never be written is no error: it is dropped with a word.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpError {
    /// The API server refused or could not be reached.
    #[error("API server did not take the report")]
    Api(#[from] kube::Error),
}

fn status_code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// 404 and 409: the object is gone or is another one; 400 and 422: it can never be written.
fn is_final(error: &kube::Error) -> bool {
    matches!(status_code(error), Some(400 | 404 | 409 | 410 | 413 | 422))
}

/// Writes one report of `node`. `Ok` means: done, or never possible.
pub(crate) async fn write(client: &kube::Client, node: &NodeName, report: UpReport) -> Result<(), UpError> {
    let result = match report {
        UpReport::Node { node_json } => return write_node(client, node, &node_json).await,
        UpReport::PodStatus { namespace, name, uid, status_json } => {
            write_pod_status(client, node, (&namespace, &name, &uid), &status_json).await
        }
        UpReport::PodGone { namespace, name, uid } => {
            remove_pod(client, node, (&namespace, &name, &uid)).await
        }
        UpReport::Event { namespace, name, event_json } => {
            write_event(client, node, (&namespace, &name), &event_json).await
        }
        UpReport::Twin { .. } | UpReport::DeviceState { .. } => {
            tracing::warn!(%node, "a report for the other controller was dropped");
            Ok(())
        }
    };
    match result {
        Err(UpError::Api(error)) if is_final(&error) => {
            tracing::info!(%node, reason = %Fault::from_error(&error), "report dropped: it can never be written");
            Ok(())
        }
        other => other,
    }
}

fn parse(node: &NodeName, what: &str, text: &str) -> Option<Value> {
    let value = serde_json::from_str(text).ok().filter(Value::is_object);
    if value.is_none() {
        tracing::warn!(%node, what, "report dropped: not a JSON object");
    }
    value
}

async fn write_node(client: &kube::Client, node: &NodeName, text: &str) -> Result<(), UpError> {
    let Some(report) = parse(node, "node", text) else { return Ok(()) };
    let nodes: Api<Node> = Api::all(client.clone());
    let status = json!({ "status": report["status"] });
    let patch = Patch::Strategic(&status);
    match nodes.patch_status(node.as_str(), &PatchParams::default(), &patch).await {
        Ok(_) => return Ok(()),
        Err(error) if status_code(&error) == Some(404) => {}
        Err(error) => return Err(error.into()),
    }
    let registration: Node = match serde_json::from_value(plan::registration(node, &report)) {
        Ok(registration) => registration,
        Err(error) => {
            tracing::warn!(%node, %error, "node not registered: its labels or taints are not understood");
            return Ok(());
        }
    };
    match nodes.create(&PostParams::default(), &registration).await {
        Ok(_) => tracing::info!(%node, "node registered"),
        // Another CloudCore was first.
        Err(error) if status_code(&error) == Some(409) => {}
        Err(error) => return Err(error.into()),
    }
    nodes.patch_status(node.as_str(), &PatchParams::default(), &patch).await?;
    Ok(())
}

/// The pod if it is the one that the node speaks of and is bound to that node.
async fn own_pod(
    pods: &Api<Pod>,
    node: &NodeName,
    (namespace, name, uid): (&str, &str, &str),
) -> Result<Option<Pod>, UpError> {
    let Some(pod) = pods.get_opt(name).await? else { return Ok(None) };
    let bound = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    if bound != Some(node.as_str()) {
        tracing::warn!(%node, namespace, name, "report about a pod of another node was refused");
        return Ok(None);
    }
    Ok((pod.metadata.uid.as_deref() == Some(uid)).then_some(pod))
}

async fn write_pod_status(
    client: &kube::Client,
    node: &NodeName,
    id: (&str, &str, &str),
    text: &str,
) -> Result<(), UpError> {
    let Some(status) = parse(node, "pod status", text) else { return Ok(()) };
    let pods: Api<Pod> = Api::namespaced(client.clone(), id.0);
    let Some(pod) = own_pod(&pods, node, id).await? else { return Ok(()) };
    // The uid in the patch makes the write fail if the pod was replaced meanwhile.
    let conditions = merged_conditions(&pod, &status);
    let mut status = status;
    status["conditions"] = conditions;
    let patch = json!({ "metadata": { "uid": id.2 }, "status": status });
    pods.patch_status(id.1, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(())
}

/// The node's conditions, and those of others (the scheduler's, readiness gates) as they are.
fn merged_conditions(pod: &Pod, status: &Value) -> Value {
    let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let theirs = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    for condition in theirs {
        let said = conditions.iter().any(|ours| ours["type"] == condition.type_.as_str());
        if !said && let Ok(value) = serde_json::to_value(condition) {
            conditions.push(value);
        }
    }
    Value::Array(conditions)
}

async fn remove_pod(client: &kube::Client, node: &NodeName, id: (&str, &str, &str)) -> Result<(), UpError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), id.0);
    let Some(pod) = own_pod(&pods, node, id).await? else { return Ok(()) };
    if pod.metadata.deletion_timestamp.is_none() {
        // Nobody asked for it to go: the pod stays, and the node will be told to run it again.
        return Ok(());
    }
    let now = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: Some(id.2.to_owned()), resource_version: None }),
        ..DeleteParams::default()
    };
    pods.delete(id.1, &now).await?;
    Ok(())
}

async fn write_event(
    client: &kube::Client,
    node: &NodeName,
    (namespace, name): (&str, &str),
    text: &str,
) -> Result<(), UpError> {
    let Some(mut value) = parse(node, "event", text) else { return Ok(()) };
    value["metadata"] = json!({ "namespace": namespace, "name": name });
    value["reportingInstance"] = json!(node.as_str());
    value["source"] = json!({ "component": "edged", "host": node.as_str() });
    let event: Event = match serde_json::from_value(value) {
        Ok(event) => event,
        Err(error) => {
            tracing::warn!(%node, %error, "report dropped: not an event");
            return Ok(());
        }
    };
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    // 409: a repeat, already there under the name that the node gave it.
    events.create(&PostParams::default(), &event).await?;
    Ok(())
}

/// Renews the node's Lease, which is made at the first life sign.
pub(crate) async fn renew(
    client: &kube::Client,
    node: &NodeName,
    now: jiff::Timestamp,
) -> Result<(), UpError> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), LEASE_NAMESPACE);
    let spec = json!({
        "holderIdentity": node.as_str(),
        "leaseDurationSeconds": LEASE_SECONDS,
        "renewTime": MicroTime(now),
    });
    let patch = json!({ "spec": spec });
    match leases.patch(node.as_str(), &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => return Ok(()),
        Err(error) if status_code(&error) == Some(404) => {}
        Err(error) => return Err(error.into()),
    }
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": { "name": node.as_str(), "namespace": LEASE_NAMESPACE },
        "spec": spec,
    });
    let lease: Lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
    match leases.create(&PostParams::default(), &lease).await {
        Ok(_) => Ok(()),
        Err(error) if status_code(&error) == Some(409) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Gets a token for the service account of a pod that is bound to `node`.
pub(crate) async fn token(
    client: &kube::Client,
    node: &NodeName,
    query: TokenQuery,
    now_unix: i64,
) -> Result<TokenGrant, String> {
    let say = |error: kube::Error| Fault::from_error(&error).reason;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &query.namespace);
    let id = (query.namespace.as_str(), query.pod_name.as_str(), query.pod_uid.as_str());
    let pod = own_pod(&pods, node, id).await.map_err(|error| Fault::from_error(&error).reason)?;
    let spec = pod.and_then(|pod| pod.spec).ok_or_else(|| {
        format!(
            "pod `{}/{}` with uid {} is not bound to this node",
            query.namespace, query.pod_name, query.pod_uid
        )
    })?;
    let account = spec.service_account_name.unwrap_or_else(|| "default".to_owned());
    if account != query.service_account {
        return Err(format!(
            "pod `{}` does not run as service account `{}`",
            query.pod_name, query.service_account
        ));
    }
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &query.namespace);
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: query.audiences,
            expiration_seconds: Some(query.expiration_seconds.clamp(600, TOKEN_SECONDS_MAX)),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(query.pod_name),
                uid: Some(query.pod_uid),
            }),
        },
        ..TokenRequest::default()
    };
    let granted =
        accounts.create_token_request(&account, &PostParams::default(), &request).await.map_err(say)?;
    let status = granted.status.ok_or("API server granted no token")?;
    let expires_unix = status.expiration_timestamp.0.as_second();
    Ok(TokenGrant { token: status.token, expires_unix, lifetime_seconds: (expires_unix - now_unix).max(0) })
}

/// Lifts the end of the tolerations of `pod`, given the resource version that they were read at.
pub(crate) async fn lift(client: &kube::Client, namespace: &str, name: &str, tolerations: Value) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let patch = json!({ "spec": { "tolerations": tolerations } });
    if let Err(error) = pods.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        tracing::warn!(namespace, name, %error, "tolerations not lifted; tried again when the pod changes");
    }
}

/// How long a report may take to be written, all of a delivery together.
pub(crate) const WRITE_DEADLINE: Duration = Duration::from_secs(20);
