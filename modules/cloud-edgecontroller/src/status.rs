//! Writes what nodes report to the API server.

use std::cell::RefCell;
use std::collections::BTreeMap;

use beehive::defect::{self, Defect};
use beehive::{Address, Env, Fault};
use contract::csi_node::CsiNodeDriver;
use contract::ids::NODES;
use contract::nodelease::{NodeLeaseMsg, ReportVersion, SessionState};
use contract::parsed::{NodeReport, PodId};
use contract::pod_status::{PASSING_CONDITIONS, is_terminal};
use contract::{NodeName, ObjectKey};
use fairshare::{RepeatedReasons, ReportSender, Traffic};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kubewatch::status_code;
use kubewatch::{Cached, SharedCache};
use serde_json::{Value, json};

use crate::csi_node;
use crate::error::{NodeReportError, is_final, is_final_of_status};
use crate::event_reports::EventRates;
use crate::events;
use crate::extended_resources;
use crate::kubelet_endpoint::{self, Endpoints};
use crate::last_status::{self, LastStatus, Reported};
use crate::mirror_pods::{self, MirrorRates};
use crate::pod_addresses::{self, PodAddresses};
use crate::registration;
use crate::report_version::{self, ReportOrder};
use crate::reported_fields::{LeftOut, without_refused};
use crate::reported_status;
use crate::session_lease::{self, LEASE_DEADLINE};
use crate::status_texts;

/// How often a status is written again when somebody else wrote in between.
pub(crate) const WRITE_TRIES: usize = 5;

/// Texts of a pod's status that its node writes, and that stand there only as long as the node says them.
const WHILE_IT_HOLDS: [&str; 2] = ["reason", "message"];

/// What became of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is written, was before, or never can be.
    Done,
    /// It is not this session's to say, now or any more: the node says it again where it may.
    Superseded,
    /// It is not the node's to say, or makes no sense: it is forgotten and counted.
    Refused(&'static str),
    /// The API server can never take it, for this reason: it is forgotten and counted.
    NeverTaken(String),
    /// It is more than a node may say: it is forgotten and counted.
    TooMany,
}

/// Writes reports.
pub(crate) struct NodeReportWriter {
    pub(crate) client: kube::Client,
    /// Says whose a Node is, and who has a node.
    pub(crate) lease: Address<NodeLeaseMsg>,
    /// The Nodes.
    pub(crate) nodes: SharedCache,
    /// The pods that are bound to any node.
    pub(crate) pods: SharedCache,
    /// Which addresses nodes may say of their pods.
    pub(crate) pod_addresses: PodAddresses,
    /// Where the kubelet endpoints of the sessions are.
    pub(crate) endpoints: Endpoints,
    /// Keeps what nodes reported of themselves.
    pub(crate) last_status: LastStatus,
    /// The mirrors of static pods that are made for each node.
    pub(crate) mirrors: RefCell<MirrorRates>,
    /// The events of each node, over all its sessions.
    pub(crate) rates: RefCell<BTreeMap<NodeName, EventRates>>,
    /// The drivers of each node as its CSINode was written last, and by which session.
    pub(crate) csi_written: RefCell<BTreeMap<NodeName, (u64, Vec<CsiNodeDriver>)>>,
    /// In which session each node's Node was said to be CloudCore's.
    pub(crate) own_said: RefCell<BTreeMap<NodeName, u64>>,
    /// In which session each node's Node was refused its default labels.
    pub(crate) labels_refused: RefCell<BTreeMap<NodeName, u64>>,
    /// How many reports of each node had fields that were left out.
    pub(crate) left_out: RefCell<BTreeMap<NodeName, u64>>,
    /// Why reports of each node are not written.
    pub(crate) unwritten: RepeatedReasons,
    /// What is read and written for each node.
    pub(crate) traffic: Traffic,
    pub(crate) env: Env,
}

impl NodeReportWriter {
    /// Writes one report, which stands in this row of the node's outbox. `state` is what the session is worth.
    pub(crate) async fn write(
        &self,
        from: &ReportSender,
        state: SessionState,
        row: i64,
        said: NodeReport,
    ) -> Result<Outcome, NodeReportError> {
        let ours = ReportVersion { session: from.session, row };
        let uid = match (&state, &said) {
            (SessionState::Open { node_uid }, _) => Some(node_uid.clone()),
            (SessionState::WithoutNode { .. }, NodeReport::Node { .. }) => None,
            (SessionState::WithoutNode { .. } | SessionState::InDoubt | SessionState::Ended, _) => {
                return Ok(Outcome::Superseded);
            }
        };
        let is_given_up = match said {
            NodeReport::Node { .. } | NodeReport::PodStatus { .. } => is_final_of_status,
            NodeReport::PodGone { .. }
            | NodeReport::MirrorPod { .. }
            | NodeReport::ClaimExpansion { .. }
            | NodeReport::Event { .. } => is_final,
        };
        let result = match said {
            NodeReport::Node { node_json } => self.node_status(from, state, ours, &node_json).await,
            NodeReport::PodStatus { pod, status_json } => {
                self.pod_status(from, ours, &pod, &status_json).await
            }
            NodeReport::PodGone { pod } => self.pod_gone(from, &pod).await,
            NodeReport::MirrorPod { namespace, name, pod_json } => {
                let uid = uid.unwrap_or_default();
                self.mirror_pod(from, &uid, (&namespace, &name), pod_json.as_deref()).await
            }
            NodeReport::ClaimExpansion { claim, size, expansion } => {
                self.claim_expansion(from, &claim, &size, &expansion).await
            }
            NodeReport::Event { namespace, name, event_json } => {
                self.event(from, uid, &namespace, &name, &event_json).await
            }
        };
        match result {
            Err(NodeReportError::Api(error)) if is_given_up(&error) => {
                Ok(Outcome::NeverTaken(Fault::from_error(&error).reason))
            }
            other => other,
        }
    }

    /// `None`: to be written. The Lease is asked only where the object holds what a later session said.
    async fn spared(
        &self,
        from: &ReportSender,
        held: &ObjectMeta,
        ours: ReportVersion,
    ) -> Result<Option<Outcome>, NodeReportError> {
        match report_version::compare(report_version::held_by(held), ours) {
            ReportOrder::Write => Ok(None),
            ReportOrder::Old => Ok(Some(Outcome::Done)),
            ReportOrder::Later if defect::is_planted(Defect::StaleOwner) => Ok(None),
            // The object is read before the Lease, and written as it was read: nobody can have come between.
            ReportOrder::Later if session_lease::holds(&self.lease, from).await? => Ok(None),
            ReportOrder::Later => Ok(Some(Outcome::Superseded)),
        }
    }

    async fn node_status(
        &self,
        from: &ReportSender,
        mut state: SessionState,
        ours: ReportVersion,
        text: &str,
    ) -> Result<Outcome, NodeReportError> {
        let Ok(report) = serde_json::from_str::<Value>(text) else {
            return Ok(Outcome::Refused("a Node that is no JSON"));
        };
        let mut left_out = LeftOut::default();
        let Some(status) = reported_status::node_status(&report["status"], &mut left_out) else {
            return Ok(Outcome::Refused("a status of a Node that is none"));
        };
        let drivers = csi_node::reported(&report);
        let (own, mut status) = (status.addresses.clone().unwrap_or_default(), json!(status));
        status["declaredFeatures"] = json!(reported_status::declared_features(&report["status"]));
        let nodes: Api<Node> = Api::all(self.client.clone());
        for _ in 0..WRITE_TRIES {
            let found = nodes.get_opt(from.node.as_str()).await?;
            self.traffic.add(&from.node, &found);
            let (uid, found) = match (&state, found) {
                (SessionState::Open { node_uid }, Some(found)) => (node_uid, found),
                (SessionState::WithoutNode { certificate }, None) => {
                    self.register(from, &nodes, certificate, &report).await?;
                    continue;
                }
                (SessionState::WithoutNode { .. }, Some(_)) => {
                    state = self.node_created(from).await?;
                    continue;
                }
                (SessionState::Open { .. }, None) => return Ok(self.node_missing(from).await),
                (SessionState::InDoubt | SessionState::Ended, _) => return Ok(Outcome::Superseded),
            };
            if found.metadata.uid.as_ref() != Some(uid) {
                return Ok(self.node_missing(from).await);
            }
            let drivers = drivers.clone().map(|drivers| csi_node::fitting(drivers, &found));
            if let Some(outcome) = self.spared(from, &found.metadata, ours).await? {
                // Of one that was written half the other half.
                if outcome == Outcome::Done {
                    self.csi_node(from, uid, drivers).await?;
                }
                return Ok(outcome);
            }
            let mut metadata = report_version::patch_of(&found.metadata, ours);
            let said = &mut status;
            let (mut status, held) = (said.clone(), json!(found));
            last_status::as_of(&mut status, &held, &last_status::now(&self.env));
            extended_resources::complete(&mut status, &said["capacity"], &held);
            kubelet_endpoint::complete(&mut metadata, &mut status, (self.endpoints.of(from), &own), &found);
            registration::complete(&mut metadata);
            if let Some(drivers) = &drivers {
                csi_node::complete(&mut metadata, drivers);
            }
            let patch = json!({ "metadata": metadata, "status": status });
            let patch = Patch::Strategic(&patch);
            match nodes.patch_status(from.node.as_str(), &PatchParams::default(), &patch).await {
                Ok(node) => {
                    self.traffic.add(&from.node, &node);
                    let reported = Reported::new(&status["conditions"], &own, said, &node);
                    self.last_status.written(from, reported, self.env.now());
                    self.name_left_out(from, "its Node", &left_out);
                    self.say_own(from, &nodes, &node).await;
                    self.say_default_labels(from, &nodes, &node, &report).await;
                    self.csi_node(from, uid, drivers).await?;
                    return Ok(Outcome::Done);
                }
                Err(error) if matches!(status_code(&error), Some(404 | 409)) => {}
                Err(error) if without_refused(said, &error, &mut left_out) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(NodeReportError::Contended)
    }

    fn name_left_out(&self, from: &ReportSender, of: &str, left_out: &LeftOut) {
        if left_out.count() > 0 {
            let mut times = self.left_out.borrow_mut();
            let times = times.entry(from.node.clone()).or_default();
            *times += 1;
            events::fields_left_out(&self.env, &from.node, of, left_out, *times);
        }
    }

    /// Once per session and whenever they change.
    async fn csi_node(
        &self,
        from: &ReportSender,
        uid: &str,
        drivers: Option<Vec<CsiNodeDriver>>,
    ) -> Result<(), NodeReportError> {
        let Some(drivers) = drivers else { return Ok(()) };
        let written = (from.session, drivers);
        if self.csi_written.borrow().get(&from.node) != Some(&written) {
            csi_node::write(&self.client, &from.node, uid, &written.1).await?;
            self.csi_written.borrow_mut().insert(from.node.clone(), written);
        }
        Ok(())
    }

    /// NodeLease looks into it, and ends the session if the Node is gone or another one.
    async fn node_missing(&self, ReportSender { node, session }: &ReportSender) -> Outcome {
        let _ = self.lease.tell(NodeLeaseMsg::NodeMissing { node: node.clone(), session: *session }).await;
        Outcome::Superseded
    }

    async fn node_created(
        &self,
        ReportSender { node, session }: &ReportSender,
    ) -> Result<SessionState, NodeReportError> {
        let ask = |reply| NodeLeaseMsg::NodeCreated { node: node.clone(), session: *session, reply };
        let asked = self.lease.ask(LEASE_DEADLINE, ask).await;
        asked.map_err(|error| error.to_string()).flatten().map_err(NodeReportError::Lease)
    }

    /// Makes the Node, unless there is one.
    async fn register(
        &self,
        from: &ReportSender,
        nodes: &Api<Node>,
        certificate: &str,
        report: &Value,
    ) -> Result<(), NodeReportError> {
        let registration = registration::registration(&from.node, certificate, report);
        match nodes.create(&PostParams::default(), &registration).await {
            Ok(_) => events::node_registered(&self.env, &from.node),
            // Another CloudCore was first, or this one before it was interrupted: whose it is shows its annotation.
            Err(error) if status_code(&error) == Some(409) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn pod_status(
        &self,
        from: &ReportSender,
        ours: ReportVersion,
        id: &PodId,
        text: &str,
    ) -> Result<Outcome, NodeReportError> {
        let mut left_out = LeftOut::default();
        let text: Value = serde_json::from_str(text).unwrap_or_default();
        let Some(mut status) = reported_status::pod_status(&text, &mut left_out) else {
            return Ok(Outcome::Refused("a status of a pod that is none"));
        };
        let newer = reported_status::whole_resources(&text, &mut left_out);
        let said = json!(status.conditions.take().unwrap_or_default());
        let said_phase = status.phase.clone().unwrap_or_default();
        let mut status = json!(status);
        if let Some(fields) = status.as_object_mut() {
            fields.extend(newer);
            // What the node no longer says is over, as with a kubelet's patch.
            for field in WHILE_IT_HOLDS {
                fields.entry(field).or_insert(Value::Null);
            }
        }
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), id.namespace.as_str());
        for _ in 0..WRITE_TRIES {
            let pod = match binding_of(&pods, &from.node, id).await? {
                PodBinding::Here(pod) => pod,
                PodBinding::Gone | PodBinding::Mirror => return Ok(Outcome::Done),
                PodBinding::Elsewhere => return Ok(Outcome::Refused(FOREIGN)),
            };
            self.traffic.add(&from.node, &pod);
            if let Some(outcome) = self.spared(from, &pod.metadata, ours).await? {
                return Ok(outcome);
            }
            status["conditions"] = merged_conditions(&pod, &said);
            self.bound_addresses(&mut status, &pod, from, &mut left_out);
            status_texts::only_containers_of(&mut status, &pod);
            let held = pod.status.as_ref().and_then(|held| held.phase.as_deref()).unwrap_or_default();
            keep_terminal_phase(&mut status, &pod);
            let metadata =
                report_version::patch_of_pod(&pod.metadata, ours, held, &said_phase, &written(&pod, &status));
            let patch = json!({ "metadata": metadata, "status": status });
            match pods.patch_status(id.name.as_str(), &PatchParams::default(), &Patch::Merge(&patch)).await {
                Ok(pod) => {
                    self.traffic.add(&from.node, &pod);
                    self.name_left_out(from, &format!("the pod {}/{}", id.namespace, id.name), &left_out);
                    return Ok(Outcome::Done);
                }
                Err(error) if status_code(&error) == Some(409) => {}
                Err(error) if without_refused(&mut status, &error, &mut left_out) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(NodeReportError::Contended)
    }

    fn bound_addresses(&self, status: &mut Value, pod: &Pod, from: &ReportSender, left_out: &mut LeftOut) {
        let (nodes, key) = (self.nodes.borrow(), ObjectKey::new(NODES, "", from.node.as_str()));
        let node = nodes.objects.get(&key).map(Cached::value);
        pod_addresses::bound(status, pod, node.as_deref(), self.pod_addresses, left_out);
    }

    async fn pod_gone(&self, from: &ReportSender, id: &PodId) -> Result<Outcome, NodeReportError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), id.namespace.as_str());
        let pod = match binding_of(&pods, &from.node, id).await? {
            PodBinding::Here(pod) => pod,
            PodBinding::Gone | PodBinding::Mirror => return Ok(Outcome::Done),
            PodBinding::Elsewhere => return Ok(Outcome::Refused(FOREIGN)),
        };
        self.traffic.add(&from.node, &pod);
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
}

pub(crate) const FOREIGN: &str = "a report about a pod of another node";

/// A pod that a node speaks of.
#[derive(Debug)]
pub(crate) enum PodBinding {
    /// It is bound to that node.
    Here(Box<Pod>),
    /// It is a static pod of that node, and what has its name is its mirror.
    Mirror,
    /// It is no more, or another one has its name.
    Gone,
    /// It is bound to another node, or to none.
    Elsewhere,
}

/// Whether the pod is bound to that node.
pub(crate) async fn binding_of(
    pods: &Api<Pod>,
    node: &NodeName,
    id: &PodId,
) -> Result<PodBinding, kube::Error> {
    let Some(pod) = pods.get_opt(id.name.as_str()).await? else { return Ok(PodBinding::Gone) };
    let is_it = pod.metadata.uid.as_deref() == Some(id.uid.as_str());
    let is_mirror = mirror_pods::hash_of(&pod) == Some(id.uid.as_str());
    // Where the next one of that name is, says nothing of the one that the node speaks of.
    if !is_it && !is_mirror {
        return Ok(PodBinding::Gone);
    }
    let bound = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    if bound != Some(node.as_str()) {
        return Ok(PodBinding::Elsewhere);
    }
    Ok(if is_it { PodBinding::Here(Box::new(pod)) } else { PodBinding::Mirror })
}

/// The node's conditions, and those of others (the scheduler's, readiness gates) as they are.
fn merged_conditions(pod: &Pod, said: &Value) -> Value {
    let mut conditions = said.as_array().cloned().unwrap_or_default();
    let theirs = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    for condition in theirs {
        let said = conditions.iter().any(|ours| ours["type"] == condition.type_.as_str());
        let is_over = PASSING_CONDITIONS.contains(&condition.type_.as_str());
        if !said
            && !is_over
            && let Ok(value) = serde_json::to_value(condition)
        {
            conditions.push(value);
        }
    }
    Value::Array(conditions)
}

/// The pod's status after `status` is merged into it: what it does not name stays as it is.
fn written(pod: &Pod, status: &Value) -> Value {
    let mut after = pod.status.as_ref().map(|held| json!(held)).unwrap_or_default();
    for (field, value) in status.as_object().into_iter().flatten() {
        if !value.is_null() {
            after[field] = value.clone();
        } else if let Some(after) = after.as_object_mut() {
            after.remove(field);
        }
    }
    after
}

/// A pod that has ended has ended, whoever said so: a report that left the node before it knew does not bring it back.
fn keep_terminal_phase(status: &mut Value, pod: &Pod) {
    let Some(held) = pod.status.as_ref() else { return };
    let phase = held.phase.as_deref().unwrap_or_default();
    if is_terminal(phase) && status["phase"] != phase {
        status["phase"] = json!(phase);
        status["reason"] = json!(held.reason);
        status["message"] = json!(held.message);
    }
}
