//! Writes what nodes report to the API server.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use beehive::defect::{self, Defect};
use beehive::{Env, Fault};
use contract::ids::{Namespace, ObjectName, PODS};
use contract::parsed::{InvalidReport, NodeReport, ParsedReport, PodId};
use contract::pod_status::is_terminal;
use contract::{NodeName, ObjectKey};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kubewatch::Shared;
use noderegistry::{NotAdmitted, RegistryError};
use serde_json::{Value, json};

use crate::accounts::Account;
use crate::events::{self, About};
use crate::fence::{self, Mark, Verdict};
use crate::registration;
use crate::residents::{Residents, Word};
use crate::tenure::Tenures;

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
    /// Whose the Node is cannot be found out.
    #[error("whose the Node is cannot be found out now")]
    Register(#[from] RegistryError),
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is written, was before, or never can be.
    Done,
    /// It is not this session's to say, now or any more: the node says it again where it may.
    Superseded,
    /// It is not the node's to say, or makes no sense: it is forgotten and counted.
    Refused(&'static str),
    /// It is more than a node may say: it is forgotten and counted.
    TooMany,
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

/// When a report is written among those that came with it: the Node before what is bound to it, and what is said of a pod
/// before it is gone.
pub(crate) fn turn(said: &Result<ParsedReport, InvalidReport>) -> usize {
    match said {
        Ok(ParsedReport::OfNode(NodeReport::Node { .. })) => 0,
        Ok(ParsedReport::OfNode(NodeReport::PodGone { .. })) => 2,
        Ok(
            ParsedReport::OfNode(NodeReport::PodStatus { .. } | NodeReport::Event { .. })
            | ParsedReport::OfDevice(..),
        )
        | Err(_) => 1,
    }
}

/// Writes what one node says in one session.
pub(crate) struct Uplink {
    pub(crate) client: kube::Client,
    pub(crate) tenures: Tenures,
    pub(crate) residents: Residents,
    /// The pods that are bound to any node.
    pub(crate) pods: Option<Shared>,
    pub(crate) account: Rc<RefCell<Account>>,
    pub(crate) env: Env,
    pub(crate) node: NodeName,
    pub(crate) epoch: u64,
}

impl Uplink {
    /// Writes one report, which stands in this row of the node's outbox.
    pub(crate) async fn write(
        &self,
        row: i64,
        said: Result<ParsedReport, InvalidReport>,
    ) -> Result<Outcome, UpError> {
        let said = match said {
            Ok(ParsedReport::OfNode(said)) => said,
            Ok(ParsedReport::OfDevice(..)) => {
                return Ok(Outcome::Refused("a report for the device controller"));
            }
            Err(unfit) => {
                tracing::debug!(node = %self.node, row, reason = %unfit, "report refused");
                return Ok(Outcome::Refused("a report with an odd name or size"));
            }
        };
        match (self.residents.word(&self.node, self.epoch), &said) {
            (Word::Counts, _) | (Word::Unmade, NodeReport::Node { .. }) => {}
            (Word::Doubtful, _) => {
                if self.residents.is_in_doubt(&self.node) {
                    self.residents.look_into(&self.node).await;
                }
                return Ok(Outcome::Superseded);
            }
            (Word::Unmade | Word::Ended, _) => return Ok(Outcome::Superseded),
        }
        let mark = Mark { epoch: self.epoch, row };
        let result = match said {
            NodeReport::Node { node_json } => self.node_status(mark, &node_json).await,
            NodeReport::PodStatus { pod, status_json } => self.pod_status(mark, &pod, &status_json).await,
            NodeReport::PodGone { pod } => self.pod_gone(&pod).await,
            NodeReport::Event { namespace, name, event_json } => {
                self.event(&namespace, &name, &event_json).await
            }
        };
        match result {
            Err(UpError::Api(error)) if is_final(&error) => {
                let reason = Fault::from_error(&error).reason;
                tracing::debug!(node = %self.node, %reason, "report dropped");
                Ok(Outcome::Refused("a report that the API server can never take"))
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
        let Ok(report) = serde_json::from_str::<Value>(text) else {
            return Ok(Outcome::Refused("a Node that is no JSON"));
        };
        let Some(status) = registration::node_status(&report["status"]) else {
            return Ok(Outcome::Refused("a status of a Node that is none"));
        };
        let nodes: Api<Node> = Api::all(self.client.clone());
        for _ in 0..WRITE_TRIES {
            let found = nodes.get_opt(node.as_str()).await?;
            let Ok(uid) = self.residents.uid(node, self.epoch) else { return Ok(Outcome::Superseded) };
            let Some(found) = found else {
                if uid.is_some() {
                    self.residents.disown(node, self.epoch, "its Node was deleted from the cluster").await;
                    return Ok(Outcome::Superseded);
                }
                self.register(&nodes, &report).await?;
                continue;
            };
            if uid.is_none() {
                match self.residents.made(node, self.epoch, &found.metadata).await {
                    Ok(()) => {}
                    Err(NotAdmitted::Unavailable(error)) => return Err(error.into()),
                    Err(NotAdmitted::Refused(refusal)) => {
                        self.residents.disown(node, self.epoch, &refusal.to_string()).await;
                        return Ok(Outcome::Superseded);
                    }
                }
            } else if uid != found.metadata.uid {
                let reason = "another Node took the place of its own";
                self.residents.disown(node, self.epoch, reason).await;
                return Ok(Outcome::Superseded);
            }
            if let Some(outcome) = self.spared(&found.metadata, mark).await? {
                return Ok(outcome);
            }
            let patch = json!({ "metadata": fence::stamp(&found.metadata, mark), "status": status });
            let patch = Patch::Strategic(&patch);
            match nodes.patch_status(node.as_str(), &PatchParams::default(), &patch).await {
                Ok(_) => return Ok(Outcome::Done),
                Err(error) if matches!(status_code(&error), Some(404 | 409)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(UpError::Contended)
    }

    /// Makes the Node, unless there is one.
    async fn register(&self, nodes: &Api<Node>, report: &Value) -> Result<(), UpError> {
        let node = &self.node;
        let Some(certificate) = self.residents.certificate(node, self.epoch) else { return Ok(()) };
        let registration = registration::registration(node, &certificate, report);
        match nodes.create(&PostParams::default(), &registration).await {
            Ok(_) => tracing::info!(%node, "node registered"),
            // Another CloudCore was first, or this one before it was interrupted: whose it is shows its annotation.
            Err(error) if status_code(&error) == Some(409) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn pod_status(&self, mark: Mark, id: &PodId, text: &str) -> Result<Outcome, UpError> {
        let Some(mut status) = registration::pod_status(text) else {
            return Ok(Outcome::Refused("a status of a pod that is none"));
        };
        let said = json!(status.conditions.take().unwrap_or_default());
        let said_phase = status.phase.clone().unwrap_or_default();
        let mut status = json!(status);
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), id.namespace.as_str());
        for _ in 0..WRITE_TRIES {
            let pod = match own_pod(&pods, &self.node, id).await? {
                Ownness::Own(pod) => pod,
                Ownness::Gone => return Ok(Outcome::Done),
                Ownness::Foreign => return Ok(Outcome::Refused(FOREIGN)),
            };
            if let Some(outcome) = self.spared(&pod.metadata, mark).await? {
                return Ok(outcome);
            }
            status["conditions"] = merged_conditions(&pod, &said);
            let held = pod.status.as_ref().and_then(|held| held.phase.as_deref()).unwrap_or_default();
            keep_end(&mut status, &pod);
            let stamp = fence::stamp_pod(&pod.metadata, mark, held, &said_phase);
            let patch = json!({ "metadata": stamp, "status": status });
            match pods.patch_status(id.name.as_str(), &PatchParams::default(), &Patch::Merge(&patch)).await {
                Ok(_) => return Ok(Outcome::Done),
                Err(error) if status_code(&error) == Some(409) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(UpError::Contended)
    }

    async fn pod_gone(&self, id: &PodId) -> Result<Outcome, UpError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), id.namespace.as_str());
        let pod = match own_pod(&pods, &self.node, id).await? {
            Ownness::Own(pod) => pod,
            Ownness::Gone => return Ok(Outcome::Done),
            Ownness::Foreign => return Ok(Outcome::Refused(FOREIGN)),
        };
        if pod.metadata.deletion_timestamp.is_none() {
            // Nobody asked for it to go: the pod stays, and the node will be told to run it again.
            return Ok(Outcome::Done);
        }
        let now = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(id.uid.to_string()), resource_version: None }),
            ..DeleteParams::default()
        };
        pods.delete(id.name.as_str(), &now).await?;
        Ok(Outcome::Done)
    }

    async fn event(&self, namespace: &Namespace, name: &ObjectName, text: &str) -> Result<Outcome, UpError> {
        let node = &self.node;
        let draft = match events::parse(node, namespace, text) {
            Ok(draft) => draft,
            Err(why) => return Ok(Outcome::Refused(why)),
        };
        // Before anything is read for it.
        if !self.account.borrow_mut().events.take(&draft.about, self.env.now()) {
            return Ok(Outcome::TooMany);
        }
        let uid = match &draft.about {
            About::Node => self.residents.uid(node, self.epoch).unwrap_or_default(),
            About::Pod(pod) if self.is_known_here(pod) => None,
            About::Pod(pod) => {
                let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace.as_str());
                match own_pod(&pods, node, pod).await? {
                    Ownness::Own(_) => None,
                    Ownness::Gone => return Ok(Outcome::Done),
                    Ownness::Foreign => return Ok(Outcome::Refused(FOREIGN)),
                }
            }
        };
        let event = events::event(draft, node, (namespace, name), uid);
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace.as_str());
        match events.create(&PostParams::default(), &event).await {
            Ok(_) => Ok(Outcome::Done),
            // A repeat, already there under the name that the node gave it.
            Err(error) if status_code(&error) == Some(409) => Ok(Outcome::Done),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the watch has shown the pod as one of this node.
    fn is_known_here(&self, pod: &PodId) -> bool {
        let Some(pods) = &self.pods else { return false };
        let pods = pods.borrow();
        let key = ObjectKey::new(PODS, pod.namespace.as_str(), pod.name.as_str());
        pods.objects.get(&key).is_some_and(|known| {
            let bound = known.value.pointer("/spec/nodeName").and_then(Value::as_str);
            known.object.uid == pod.uid.as_str() && bound == Some(self.node.as_str())
        })
    }
}

const FOREIGN: &str = "a report about a pod of another node";

/// A pod that a node speaks of.
#[derive(Debug)]
pub(crate) enum Ownness {
    /// It is bound to that node.
    Own(Box<Pod>),
    /// It is no more, or another one has its name.
    Gone,
    /// It is bound to another node, or to none.
    Foreign,
}

/// Whether the pod is bound to that node.
pub(crate) async fn own_pod(pods: &Api<Pod>, node: &NodeName, id: &PodId) -> Result<Ownness, kube::Error> {
    let Some(pod) = pods.get_opt(id.name.as_str()).await? else { return Ok(Ownness::Gone) };
    let bound = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    if bound != Some(node.as_str()) {
        return Ok(Ownness::Foreign);
    }
    let same = pod.metadata.uid.as_deref() == Some(id.uid.as_str());
    Ok(if same { Ownness::Own(Box::new(pod)) } else { Ownness::Gone })
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

/// A pod that has ended has ended, whoever said so: a report that left the node before it knew does not bring it back.
fn keep_end(status: &mut Value, pod: &Pod) {
    let Some(held) = pod.status.as_ref() else { return };
    let phase = held.phase.as_deref().unwrap_or_default();
    if is_terminal(phase) && status["phase"] != phase {
        status["phase"] = json!(phase);
        status["reason"] = json!(held.reason);
        status["message"] = json!(held.message);
    }
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
