//! Writes what nodes report to the API server.

use std::time::Duration;

use beehive::Fault;
use beehive::defect::{self, Defect};
use contract::{NodeName, TokenGrant, TokenQuery, UpReport};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Event, Node, Pod, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};

use crate::fence::{self, Mark, Verdict};
use crate::plan;
use crate::tenure::Tenures;

/// The longest token that is asked for: a day. The API server may grant less.
const TOKEN_SECONDS_MAX: i64 = 86_400;
/// How often a status is written again when somebody else wrote in between.
const WRITE_TRIES: usize = 5;

/// Why a report could not be written now. Whatever can never be written is no error: it is dropped with a word.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpError {
    /// The API server refused or could not be reached.
    #[error("API server did not take it")]
    Api(#[from] kube::Error),
    /// Others wrote all the time.
    #[error("the object is written by others all the time")]
    Contended,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is written, was before, or never can be.
    Done,
    /// The node has gone on to a later session and says it again there: this one does not speak for it any more.
    Superseded,
}

pub(crate) fn status_code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// 404 and 409: the object is gone or is another one; 400 and 422: it can never be written. A status that lost against
/// another write does not come here: it is read and judged again.
fn is_final(error: &kube::Error) -> bool {
    matches!(status_code(error), Some(400 | 404 | 409 | 410 | 413 | 422))
}

/// Writes what one node says in one session.
pub(crate) struct Uplink {
    pub(crate) client: kube::Client,
    pub(crate) tenures: Tenures,
    pub(crate) node: NodeName,
    pub(crate) epoch: u64,
}

impl Uplink {
    /// Writes one report, which stands in this row of the node's outbox.
    pub(crate) async fn write(&self, row: i64, report: UpReport) -> Result<Outcome, UpError> {
        let mark = Mark { epoch: self.epoch, row };
        let node = &self.node;
        let result = match report {
            UpReport::Node { node_json } => self.node_status(mark, &node_json).await,
            UpReport::PodStatus { namespace, name, uid, status_json } => {
                self.pod_status(mark, (&namespace, &name, &uid), &status_json).await
            }
            UpReport::PodGone { namespace, name, uid } => {
                remove_pod(&self.client, node, (&namespace, &name, &uid)).await.map(|()| Outcome::Done)
            }
            UpReport::Event { namespace, name, event_json } => {
                let written = write_event(&self.client, node, (&namespace, &name), &event_json);
                written.await.map(|()| Outcome::Done)
            }
            UpReport::Twin { .. } | UpReport::DeviceState { .. } => {
                tracing::warn!(%node, "a report for the other controller was dropped");
                Ok(Outcome::Done)
            }
        };
        match result {
            Err(UpError::Api(error)) if is_final(&error) => {
                let reason = Fault::from_error(&error).reason;
                tracing::info!(%node, %reason, "report dropped: it can never be written");
                Ok(Outcome::Done)
            }
            other => other,
        }
    }

    /// `None`: to be written. The Lease is asked only where the object holds what a later session said.
    async fn spared(&self, held: &ObjectMeta, mark: Mark) -> Result<Option<Outcome>, UpError> {
        match fence::judge(fence::mark_of(held), mark) {
            Verdict::Write => Ok(None),
            Verdict::Old => Ok(Some(Outcome::Done)),
            Verdict::Later if defect::is_planted(Defect::StaleOwner) => Ok(None),
            // The object is read before the Lease, and written as it was read: nobody can have come between.
            Verdict::Later if self.tenures.holds(&self.node, self.epoch).await? => Ok(None),
            Verdict::Later => Ok(Some(Outcome::Superseded)),
        }
    }

    async fn node_status(&self, mark: Mark, text: &str) -> Result<Outcome, UpError> {
        let node = &self.node;
        let Some(report) = parse(node, "node", text) else { return Ok(Outcome::Done) };
        let nodes: Api<Node> = Api::all(self.client.clone());
        for _ in 0..WRITE_TRIES {
            let Some(found) = nodes.get_opt(node.as_str()).await? else {
                if !register(&nodes, node, &report).await? {
                    return Ok(Outcome::Done);
                }
                continue;
            };
            if let Some(outcome) = self.spared(&found.metadata, mark).await? {
                return Ok(outcome);
            }
            let patch =
                json!({ "metadata": fence::stamp(&found.metadata, mark), "status": report["status"] });
            let patch = Patch::Strategic(&patch);
            match nodes.patch_status(node.as_str(), &PatchParams::default(), &patch).await {
                Ok(_) => return Ok(Outcome::Done),
                Err(error) if matches!(status_code(&error), Some(404 | 409)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(UpError::Contended)
    }

    async fn pod_status(&self, mark: Mark, id: (&str, &str, &str), text: &str) -> Result<Outcome, UpError> {
        let Some(mut status) = parse(&self.node, "pod status", text) else { return Ok(Outcome::Done) };
        let said = status["conditions"].take();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), id.0);
        for _ in 0..WRITE_TRIES {
            let Some(pod) = own_pod(&pods, &self.node, id).await? else { return Ok(Outcome::Done) };
            if let Some(outcome) = self.spared(&pod.metadata, mark).await? {
                return Ok(outcome);
            }
            status["conditions"] = merged_conditions(&pod, &said);
            let patch = json!({ "metadata": fence::stamp(&pod.metadata, mark), "status": status });
            match pods.patch_status(id.1, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Ok(_) => return Ok(Outcome::Done),
                Err(error) if status_code(&error) == Some(409) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(UpError::Contended)
    }
}

fn parse(node: &NodeName, what: &str, text: &str) -> Option<Value> {
    let value = serde_json::from_str(text).ok().filter(Value::is_object);
    if value.is_none() {
        tracing::warn!(%node, what, "report dropped: not a JSON object");
    }
    value
}

/// Makes the Node. Answers whether there is one now.
async fn register(nodes: &Api<Node>, node: &NodeName, report: &Value) -> Result<bool, UpError> {
    let registration: Node = match serde_json::from_value(plan::registration(node, report)) {
        Ok(registration) => registration,
        Err(error) => {
            tracing::warn!(%node, %error, "node not registered: its labels or taints are not understood");
            return Ok(false);
        }
    };
    match nodes.create(&PostParams::default(), &registration).await {
        Ok(_) => tracing::info!(%node, "node registered"),
        // Another CloudCore was first.
        Err(error) if status_code(&error) == Some(409) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(true)
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

/// The node's conditions, and those of others (the scheduler's, readiness gates) as they are.
fn merged_conditions(pod: &Pod, said: &Value) -> Value {
    let mut conditions = said.as_array().cloned().unwrap_or_default();
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
